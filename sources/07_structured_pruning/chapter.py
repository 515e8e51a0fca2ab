# %% [markdown]
# # 07 · Structured pruning — take whole parts out, and the model is really smaller and faster
#
# **You will be able to**
#
# - take neurons, heads, layers, channels, words and experts out of a model, and say which tensors shrink;
# - choose what goes by a score in units of the loss, and check that score against chance;
# - compare fewer layers with thinner ones at the same number of parameters;
# - heal what is left, by text or by the whole model as its teacher, beside two controls.
#
# **You need:** chapters 00, 01 and 03, and what distillation is (sections 1 and 2 of chapter 06). **Time:** 63 minutes of reading, 20 for the parts marked ★ (the fast path). The whole notebook runs in one to two minutes.
#
# Where a paragraph begins with **Predict**, write your guess into the next cell, in place of the dots.

# %%
import copy
from functools import partial

import torch

import lightcourse
from lightcourse import data, distillation, metrics, models, plots, pruning
from lightcourse.guessing import compare
from lightcourse.training import Recipe, train

lightcourse.setup(threads=2)

# %% [markdown]
# Chapter 03 set single weights to zero. The model stayed as large and as slow, until a format or a kernel skipped the zeros. This chapter takes out **whole parts**: what is left is an ordinary model with smaller matrices or fewer of them: fewer bytes, and for most parts less time, without any special kernel. The price: a part goes as a whole, its good weights with its bad ones.
#
# As in chapter 03, results are ratios of perplexity to the **dense** model, from which nothing was taken, on three **texts**; where chance plays a part, each text has a **seed** of its own. **Better** means in this chapter: by more than 3 % (chapter 03: 5 %), on each of the three. Otherwise it is *inconclusive*.

# %%
seeds = (0, 1, 2)


def better(first, second):
    return all(1.03 * a < b for a, b in zip(first, second, strict=True))


# %% [markdown]
# ## ★ 1 · What can go
#
# ### Where the parameters are
#
# Three models: our tiny *student* (a Llama), MiniLM (a BERT) and SmolLM2 (a Llama of 135 million parameters).
#
# **Predict:** in which part of *MiniLM* are the most parameters?

# %%
guess = ...  # "words", "attention" or "feed-forward"

# %%
dense, minilm, smollm2 = models.load_tiny_lm("student"), models.load_minilm(), models.load_smollm2()
kinds = {"words": ("embed", "lm_head"), "attention": ("attn", "attention"), "feed-forward": ("",)}


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def share_of_each(model):
    counts = dict.fromkeys(kinds, 0)
    for name, parameter in model.named_parameters():
        kind = next(k for k, words in kinds.items() if any(word in name for word in words))
        counts[kind] += parameter.numel() / parameters(model)
    return counts


# %% [markdown]
# As bars:

# %%
shares = {"tiny student": dense, "MiniLM": minilm, "SmolLM2": smollm2}
shares = {name: share_of_each(model) for name, model in shares.items()}
ax = plots.stacked_bars(shares, "share of the parameters")
compare(guess, max(shares["MiniLM"], key=shares["MiniLM"].get))

# %% [markdown]
# *Figure: half of MiniLM is its table of words, most of SmolLM2 its layers.*
#
# <details><summary>The figure in words</summary>
#
# Three bars of three parts each. Tiny student: words about a quarter, attention about a quarter, feed-forward about half. MiniLM: words a little more than half, feed-forward about a third, attention the rest. SmolLM2: words about a fifth, attention about a fifth, feed-forward about three fifths.
#
# </details>
#
# Each part has its own verb, which leaves a model that trains and generates as before. (`save_pretrained` wants equally many in all blocks; `save_pruned` does not.)
#
# | goes | which tensors get smaller | verb |
# |---|---|---|
# | a **neuron** | a row of the matrices before the activation, a column of the one behind it | `remove_neurons_` |
# | an attention **head** | its rows of queries, keys and values, its columns of the output matrix | `remove_heads_` |
# | a **layer** | none: the whole layer is gone | `remove_layers_` |
# | a **channel**, one of the numbers that run from layer to layer for each token (the **stream**) | a row or a column of *every* matrix, an entry of every norm | `remove_width_` |
# | a **word** (token) | a row of the tables; the tokenizer loses it, too | `remove_tokens_` |
# | an **expert** | its three matrices, a row of the router (section 6) | `drop_experts_` |
#
# (Chapter 03's *2 of 4* is a structure, too; it keeps the shapes, and needs a GPU that skips zeros.)
#
# ### A neuron is a row and a column
#
# A feed-forward block computes $y = W_2\, f(W_1 x)$. Neuron $n$ is row $n$ of $W_1$ and column $n$ of $W_2$. (A Llama has two matrices in front, `gate_proj` and `up_proj`; a neuron is a row of both.) Without both, the result is as if its output had been set to zero:

# %%
torch.manual_seed(0)
up, down, x = torch.randn(4, 3), torch.randn(3, 4), torch.randn(5, 3)
keep = torch.tensor([True, False, True, True])
silenced = (torch.relu(x @ up.T) * keep) @ down.T
removed = torch.relu(x @ up[keep].T) @ down[:, keep].T
print(
    tuple(up.shape), tuple(down.shape), "become", tuple(up[keep].shape), tuple(down[:, keep].shape)
)
assert torch.allclose(silenced, removed, atol=1e-6)

# %% [markdown]
# In a whole model, without the second half of each block's neurons:

# %%
halves = {
    name: torch.arange(384) < 192
    for name in pruning.neuron_scores(dense, pruning.magnitude_scores(dense))
}
smaller = copy.deepcopy(dense)
report = pruning.remove_neurons_(smaller, halves)
print(f"{parameters(dense):,} parameters become {parameters(smaller):,}")
print(smaller.model.layers[0].mlp)

# %% [markdown]
# ## 2 · Which neurons, which heads?
#
# ### A score in units of the loss
#
# Put a **gate** $g_n$ (not `gate_proj`) on each neuron: a factor on its output, 1 now, 0 when it is removed. By how much does the loss $L$ change? To first order (Taylor's formula, and $g$ goes from 1 to 0) by
#
# $$L(g_n = 0) - L(g_n = 1) \approx -\frac{\partial L}{\partial g_n}, \qquad\text{so the score is}\qquad \Big|\frac{\partial L}{\partial g_n}\Big| = \Big|\sum_i \frac{\partial L}{\partial V_{in}}\, V_{in}\Big|$$
#
# The second form, over the outgoing weights of the neuron (column $n$ of $V = W_2$), needs no gate (Molchanov et al. 2019, arXiv 1906.10771). Both, on the toy from above:

# %%
gate, weight = torch.ones(4, requires_grad=True), down.clone().requires_grad_()
loss = (torch.relu(x @ up.T) * gate @ weight.T).square().mean()
by_gate, by_weight = torch.autograd.grad(loss, [gate, weight])
by_sum = (by_weight * weight).sum(0)
print([round(value, 3) for value in by_gate.tolist()])
assert torch.allclose(by_gate, by_sum, atol=1e-6)

# %% [markdown]
# Four ways to rank neurons:
#
# - **at random**: the control;
# - **magnitude**: the norm of a neuron's outgoing weights;
# - **activation**: the norm of what the neuron *adds to the output* over a text (the norm of Wanda's scores, chapter 03, over the column);
# - **Taylor**: the change of the loss, its size taken for each two windows and added up, since it may go either way.
#
# The last two look at 32 windows of 128 tokens, others for each seed.

# %%
torch.set_num_threads(1)  # faster for so small a model
tokenizer = models.load_tiny_tokenizer()
learn, held_out = (data.speech_tokens(tokenizer, split) for split in ("validation", "test"))
texts = data.excerpts(held_out, 3, length=1025)
whole = [metrics.perplexity(dense, text, window=128) for text in texts]
samples = [next(iter(data.token_batches(learn, 128, 32)(0, seed))) for seed in seeds]
pairs = range(0, 32, 2)
calibrate = [[{k: v[i : i + 2] for k, v in s.items()} for i in pairs] for s in samples]


def rise(*found):
    """Return perplexity, dense = 1, on each text: of one model, or of one model a text."""
    trials = zip(found * 3, texts, whole, strict=False)
    return [round(metrics.perplexity(m, text, window=128) / one, 2) for m, text, one in trials]


# %%
by_size = pruning.magnitude_scores(dense)
norms = [pruning.input_norms(dense, text) for text in calibrate]
per_weight = {
    "at random": [pruning.random_scores(dense, seed) for seed in seeds],
    "magnitude": [by_size] * 3,
    "activation": [pruning.wanda_scores(dense, norm) for norm in norms],
}
neurons = {
    k: [pruning.neuron_scores(dense, one) for one in found] for k, found in per_weight.items()
}
neurons["Taylor"] = [pruning.neuron_taylor(dense, text) for text in calibrate]

# %% [markdown]
# **Predict:** half of each block's neurons are removed. Is *magnitude* better than *at random*, worse, or inconclusive?

# %%
guess = ...  # "better", "worse" or "inconclusive"


def without_neurons(scores, mask, share=0.5):
    model = copy.deepcopy(dense)
    pruning.remove_neurons_(model, mask(scores, share))
    return model


# %% rtol=0.03
found, cuts = {}, {"each block": pruning.layer_mask, "whole model": pruning.global_mask}
for name, scores in neurons.items():
    for where, mask in cuts.items():
        if (name, where) != ("magnitude", "whole model"):
            found[name, where] = rise(*(without_neurons(one, mask) for one in scores))
ax = plots.seed_dots(
    {f"{n}, {w}": v for (n, w), v in found.items()}, "perplexity, dense = 1", each="text"
)
chance, size = found["at random", "each block"], found["magnitude", "each block"]
compare(
    guess, "worse" if better(chance, size) else "better" if better(size, chance) else "inconclusive"
)
for (name, where), values in found.items():
    print(f"{name:10} {where:11} {values}")

# %% [markdown]
# *Figure: half of the neurons removed; by size is worse than at random, by Taylor over the whole model costs the least.*
#
# <details><summary>The figure in words</summary>
#
# Seven rows with a dot for each of three texts; the axis is logarithmic. At random, per block and over the whole model: between 3 and 5. Magnitude: above 10, the furthest to the right. Activation and Taylor per block: between 2 and 3. Activation over the whole model: near 1.6. Taylor over the whole model: near 1.4, the furthest to the left.
#
# </details>
#
# Magnitude is *worse than chance*. Chapter 03 found the size of a single weight to tell a lot. But double a neuron's row in front and halve its column behind: the model computes the same, with half of the score. **The size of outgoing weights alone cannot be a neuron's importance**; it does not know how strongly the neuron fires.
#
# In chapter 03 a global comparison of sizes ruined two matrices, because the sizes of different matrices are not on one scale. Taylor's scores *are* on one scale, that of the loss: a neuron of block 0 and one of block 3 may be compared. Activation's turn out to be comparable, too. Which blocks lose most is then the model's own answer; Taylor spares block 0:

# %% atol=0.05
kept = pruning.global_mask(neurons["Taylor"][0], 0.5)
print({name[len("model.") :]: f"{mask.float().mean():.0%} kept" for name, mask in kept.items()})
taylor, in_blocks = found["Taylor", "whole model"], found["Taylor", "each block"]
assert better(taylor, in_blocks) and better(taylor, found["activation", "whole model"])
assert better(in_blocks, chance) and better(chance, size)

# %% [markdown]
# ### Heads: do the scores predict the damage?
#
# The student has 16 heads, few enough to remove each one alone and to *measure* what that costs, on a validation text.
#
# **Predict:** how much higher is the perplexity without the one head that matters most, in percent?

# %%
guess = ...  # percent

# %% rtol=0.05
trial = learn[200_000:][:1025]
start = metrics.perplexity(dense, trial, window=128)
damage = {}
for name in (f"model.layers.{layer}.self_attn" for layer in range(4)):
    for head in range(4):
        model = copy.deepcopy(dense)
        pruning.remove_heads_(model, {name: torch.arange(4) != head})
        damage[name, head] = 100 * (metrics.perplexity(model, trial, window=128) / start - 1)
(worst, head), most = max(damage.items(), key=lambda item: item[1])
compare(guess, most, "%")
print(
    f"{worst}, head {head}; half of the 16 heads cost less than {sorted(damage.values())[8]:.1f} %"
)


# %% [markdown]
# Do the scores put the heads into the same order?

# %% atol=0.05
heads = {k: [pruning.head_scores(dense, one) for one in scores] for k, scores in per_weight.items()}
heads["Taylor"] = [pruning.head_taylor(dense, text) for text in calibrate]
for name, three in heads.items():
    rows = [[scores[block][head].item() for block, head in damage] for scores in three]
    ranks = torch.tensor([*rows, list(damage.values())]).argsort().argsort().float()
    agree = torch.corrcoef(ranks)[3, :3].tolist()
    print(f"{name:10} rank correlation with the damage:", *(f"{value:+.1f}" for value in agree))

# %% [markdown]
# Half of the heads may go for next to nothing, one costs a lot. (A rank correlation of 1: the same order; 0: no relation.) Taylor agrees best, magnitude hardly more than a lucky random draw. Where there are few parts, as here, **measure instead of guessing**.
#
# ## ★ 3 · Words: a cut that the layers do not notice
#
# A row of the table whose word never comes is never read. SmolLM2 knows 49,152 **tokens**. Suppose that it shall read speeches of American presidents only.
#
# **Predict:** what share of its tokens do 23 speeches use, the first 20,000 letters of each, in percent?

# %%
guess = ...  # percent

# %%
torch.set_num_threads(2)
words = models.load_smollm2_tokenizer()
speeches = [text[:20_000] for text in data.load_speeches("test")["text"]]
keep = pruning.tokens_of(words, speeches)
few_words = pruning.smaller_tokenizer(words, keep)
small = copy.deepcopy(smollm2)
print(pruning.remove_tokens_(small, keep))
used = {token for text in speeches for token in words(text)["input_ids"]}
compare(guess, 100 * len(used) / len(words), "%")
print(
    f"{len(used):,} tokens are used, {len(keep):,} are kept; {parameters(small):,} parameters are left"
)

# %% [markdown]
# More are kept than used: this tokenizer (BPE) builds a long token out of shorter ones, and needs those. It also keeps the tokenizer's single bytes, for words that never came.
#
# The promise is strong: on texts of kept tokens, what the last layer puts out **does not change by one bit**. Hold it to that:

# %%
sentence = speeches[20][3000:3080]
old, new = words(sentence, return_tensors="pt"), few_words(sentence, return_tensors="pt")
with torch.no_grad():
    before, after = (m.model(**one).last_hidden_state for m, one in ((smollm2, old), (small, new)))
assert [keep[token] for token in new["input_ids"][0]] == old["input_ids"][0].tolist()
print("what the last layer puts out has the same bits:", torch.equal(before, after))
for text in (sentence, "Zürich's croissants"):
    back = few_words.decode(few_words(text)["input_ids"])
    print(
        f"{len(words(text)['input_ids'])} tokens, now {len(few_words(text)['input_ids'])}: {back}"
    )

# %% [markdown]
# Same bits; and new words cost a few tokens more, but come back whole.
#
# But the removed tokens no longer compete, so the *probability* of the right token rises: **perplexity falls, though the model has learned nothing**. Compare perplexities only between models with the same words. From here on, the dense model is the one with few words.

# %% rtol=0.02
ids = [
    torch.tensor(few_words(speeches[number][3000:9000])["input_ids"][:65]) for number in (3, 10, 20)
]
full = [metrics.perplexity(small, text, window=64) for text in ids]
ids_before = [torch.tensor([keep[token] for token in text]) for text in ids]
print(
    "all words: ", [round(metrics.perplexity(smollm2, text, window=64), 1) for text in ids_before]
)
print("few words: ", [round(value, 1) for value in full])
del smollm2  # half a gigabyte that nothing needs any more

# %% [markdown]
# ## ★ 4 · Depth: which layers do little?
#
# A layer *adds* something to the stream of numbers that runs through the model. One that adds little can be left out: the next one still finds nearly what it was used to. **Block influence** (ShortGPT: Men et al. 2024, arXiv 2403.03853) measures it by the angle between what goes into a layer and what comes out:
#
# $$\text{BI} = 1 - \text{mean over tokens of}\ \frac{x \cdot y}{\lVert x \rVert \lVert y \rVert}$$
#
# with $x$ before the layer, $y$ behind it. It takes one pass, no gradients. A layer that does nothing has 0.
#
# **Predict:** SmolLM2 has 30 layers. Where are the ones that do little: at the start, in the middle, or at the end?

# %%
guess = ...  # "start", "middle" or "end"

# %%
calibration = torch.tensor(few_words(speeches[5][2000:9000])["input_ids"][:512]).view(4, 128)
influence = list(pruning.block_influence(small, [{"input_ids": calibration}]).values())
least_first = sorted(range(30), key=influence.__getitem__)
place = sum(least_first[:4]) / 4
compare(guess, "start" if place < 10 else "middle" if place < 20 else "end")
ax = plots.layer_bars(influence, "block influence", chosen=least_first[:4])
print("the four that do least:", sorted(least_first[:4]))

# %% [markdown]
# *Figure: the first layer turns the stream completely; the last one and the second much; those in the middle hardly.*
#
# <details><summary>The figure in words</summary>
#
# A bar of block influence for each layer, 0 to 29, on a logarithmic axis. Layer 0 stands at 1.0, layer 1 at 0.18, layer 24 at 0.15, layer 29 at 0.19. All others lie below 0.06, the lowest, near 0.02, around layers 13 to 17; the four lowest are hatched.
#
# </details>
#
# We take out the layers of **least** influence, or as many **at random** from layers 2 to 27, or the **last** two.


# %%
def without_layers(model, numbers):
    smaller = copy.deepcopy(model)
    pruning.remove_layers_(smaller, numbers)
    return smaller


def rise_of(*found):
    """Return perplexity, all layers = 1, on each text: of one model, or of one model a text."""
    trials = zip(found * 3, ids, full, strict=False)
    return [round(metrics.perplexity(m, text, window=64) / one, 2) for m, text, one in trials]


def drawn(count, seed):
    order = torch.randperm(26, generator=torch.Generator().manual_seed(seed))
    return (order[:count] + 2).tolist()


# %% rtol=0.05
depths = {"least influence": {}, "at random": {}}
for k in (4, 8):
    depths["least influence"][k] = rise_of(without_layers(small, least_first[:k]))
    depths["at random"][k] = rise_of(*(without_layers(small, drawn(k, seed)) for seed in seeds))
    for name, line in depths.items():
        print(f"{k} layers, {name:15} {line[k]}")
last_two = rise_of(without_layers(small, (28, 29)))
print(f"the last 2 layers         {last_two}")
assert all(better(depths["least influence"][k], depths["at random"][k]) for k in (4, 8))
assert min(last_two) > 5

# %% [markdown]
# Layers of little influence go more cheaply than layers at random. Without the last two nothing works.
#
# ## 5 · Depth against width, before and after healing
#
# ### The same number of parameters
#
# Back to the tiny student: it can be cut and trained in seconds. We take away 38 % of its parameters, in three ways: **fewer layers** (two of four, chosen by block influence), **fewer neurons** (by Taylor, over the whole model), **less width** (channels of the stream, `width_scores`: the mean size of what the normalization layers put out). All keep the same number of parameters, or nearly.
#
# **Predict:** which of the three is best, with no training afterwards?

# %%
guess = ...  # "layers", "neurons" or "width"
torch.set_num_threads(1)

# %%
calm = pruning.block_influence(dense, calibrate[0])
layers = without_layers(dense, sorted(calm, key=calm.get)[:2])
share = (parameters(dense) - parameters(layers)) / (4 * 3 * 384 * 128)  # a neuron: 3 * 128 numbers
wide = copy.deepcopy(dense)
pruning.remove_width_(wide, pruning.layer_mask(pruning.width_scores(dense, calibrate[0]), 48 / 128))
cut = {
    "layers": layers,
    "neurons": without_neurons(neurons["Taylor"][0], pruning.global_mask, share),
    "width": wide,
}
cold = {name: rise(model) for name, model in cut.items()}

# %% [markdown]
# And their perplexities:

# %% rtol=0.03
for name, model in cut.items():
    print(f"{name:8} {parameters(model):,} parameters, {cold[name]}")
compare(guess, min(cold, key=cold.get))
assert better(cold["layers"], cold["width"]) and better(cold["neurons"], cold["width"])
assert not better(cold["neurons"], cold["layers"])

# %% [markdown]
# Layers against neurons is inconclusive: ahead on every text, but on one by next to nothing. Less width is worst, by the simplest of the three scores; *every* layer reads each channel. And time? A layer that is gone saves all of its time; thinner matrices save less than their share:

# %% clock=true
one = {"input_ids": texts[0][None, :128]}
calls = {"dense": partial(dense, **one)} | {name: partial(m, **one) for name, m in cut.items()}
for name, run in (times := metrics.latencies(calls)).items():
    print(f"{name:8} {run}")
assert times["layers"].median < 0.85 * times["dense"].median

# %% [markdown]
# ### Healing: by text, or by the teacher
#
# A model that has lost a part can be trained for a while, to **heal**: by **text** (the next token, as in its first training), or by its **teacher**, the whole model that it was a part of. The loss is the divergence of the two predictions at every position (chapter 06; temperature 1); Minitron heals in this way (Muralidharan et al. 2024, arXiv 2407.14679).
#
# Two **controls**: a **fresh** model of the same shape, with random numbers, gets the same steps; and the **dense** model gets them, to see what the text teaches without any cut. Sixteen steps of 4 windows of 64 tokens each. Each way has the better of two rates, chosen on validation text with one seed. (The dense control has the lower of the two, the fresh one a rate for new models, 3e-3.) The thinner model ("neurons") is healed by the teacher, too.
#
# **Predict:** which wins back more of what was lost, text or teacher?

# %%
guess = ...  # "text", "teacher" or "inconclusive"
lessons = data.token_batches(learn[:200_000], window=64, batch_size=4)
by_teacher = distillation.taught_by(dense, temperature=1.0, soft_weight=1.0)
fresh = type(dense)(cut["layers"].config)


# %%
def healed(model, rate, seed, *loss):
    model = copy.deepcopy(model)
    train(model, lessons, Recipe(16, rate, 3, seed=seed), *loss, progress=False)
    return model


def best_of(model, *loss):
    """Return three models: that of the better rate on validation text, and two more seeds."""
    tried = {rate: healed(model, rate, 0, *loss) for rate in (3e-4, 1e-3)}
    rate = min(tried, key=lambda r: metrics.perplexity(tried[r], trial, window=128))
    return [tried[rate], *(healed(model, rate, seed, *loss) for seed in (1, 2))]


# %% [markdown]
# All of them, and the controls:

# %% rtol=0.03
warm = {
    "layers, cut": cold["layers"],
    "layers, by text": rise(*best_of(cut["layers"])),
    "layers, by teacher": rise(*best_of(cut["layers"], by_teacher)),
    "neurons, cut": cold["neurons"],
    "neurons, by teacher": rise(*best_of(cut["neurons"], by_teacher)),
    "control, dense": rise(healed(dense, 3e-4, 0)),
}
scratch = rise(healed(fresh, 3e-3, 0, by_teacher))
ax = plots.seed_dots(warm, "perplexity, dense = 1", each="text")
for name, values in warm.items():
    print(f"{name:20} {values}")

# %% [markdown]
# *Figure: both ways win back a part of what was lost, the teacher more than the text; fewer layers stay ahead of fewer neurons; the dense control gains nothing.*
#
# <details><summary>The figure in words</summary>
#
# Six rows with a dot for each of three texts. Layers, cut: near 2; by text: near 1.7; by teacher: near 1.6. Neurons, cut: between 2 and 2.6; by teacher: near 1.7. Control, dense: at 1.
#
# </details>

# %% rtol=0.1
cold_text, text_healed, whole_healed, _, neurons_healed, control = warm.values()
assert better(whole_healed, text_healed) and better(text_healed, cold_text)
assert all(a < b for a, b in zip(whole_healed, neurons_healed, strict=True))
print("control, fresh      ", [round(value, 1) for value in scratch])
assert min(control) > 0.97 and min(scratch) > 10
compare(guess, "teacher" if better(whole_healed, text_healed) else "inconclusive")

# %% [markdown]
# - **The teacher heals better than the text**, on each text, with a seed of its own: at every position it judges *all* 2,048 tokens, and the text names one.
# - **Fewer layers stay ahead** of fewer neurons, by little.
# - It is really healing: the dense model does not gain from the same text.
# - **A fresh model of the same shape** is nowhere near after these steps: more than 10 times. (With a long training the lead may vanish: Liu et al. 2019, arXiv 1810.05270.)
#
# ### The same with SmolLM2
#
# SmolLM2 without layers 13, 14, 15 and 17. We train layers 12, 16 and 18, around and in the hole. Nothing below them changes, so what reaches layer 12 is computed once, and so is what the teacher says: 12 windows of 64 tokens, from speeches that are none of the three texts.

# %%
torch.set_num_threads(2)
hole, rest = least_first[:4], [layer for layer in range(30) if layer not in least_first[:4]]
below = rest[: min(hole) - 1]
pieces = [few_words(speeches[number][2000:4000])["input_ids"][:192] for number in (1, 6, 12, 18)]
windows = torch.tensor(pieces).view(12, 64)
with torch.no_grad():
    seen = small(input_ids=windows, output_hidden_states=True)
rows = {"inputs_embeds": seen.hidden_states[len(below)], "labels": windows, "taught": seen.logits}
lessons_12 = data.row_batches(rows, batch_size=1)


# %% [markdown]
# The two losses, and the training:


# %%
def from_text(model, batch):
    return model(inputs_embeds=batch["inputs_embeds"], labels=batch["labels"]).loss


def from_teacher(model, batch):
    said = model(inputs_embeds=batch["inputs_embeds"]).logits
    return distillation.forward_kl(said, batch["taught"])


# %%
def bridged(loss, seed, gone=tuple(hole)):
    """Train three layers around the hole, put them into the model with it, and return that."""
    above = without_layers(small, [*below, *gone]).requires_grad_(False)
    model = without_layers(small, gone) if gone else copy.deepcopy(small)
    for layer in above.model.layers[:3]:
        layer.requires_grad_(True)
    train(above, lessons_12, Recipe(4, 3e-4, 1, seed=seed), loss, progress=False)
    for place, layer in enumerate(above.model.layers, start=len(below)):
        model.model.layers[place].load_state_dict(layer.state_dict())
    return model


# %% [markdown]
# Three seeds of each, and the control:

# %% rtol=0.02
cut_4, healed_4 = without_layers(small, hole), bridged(from_teacher, 0)
mended = {
    "26 layers": rise_of(cut_4),
    "healed by text": rise_of(*(bridged(from_text, seed) for seed in seeds)),
    "healed by teacher": rise_of(healed_4, *(bridged(from_teacher, seed) for seed in (1, 2))),
    "control, 30 layers": rise_of(bridged(from_text, 0, gone=())),
}
for name, values in mended.items():
    print(f"{name:18} {values}")

# %% rtol=0.02
cold_4, by_text, by_whole, control_30 = mended.values()
assert all(max(a, b) < c for a, b, c in zip(by_text, by_whole, cold_4, strict=True))
relative = [round(a / b, 2) for a, b in zip(by_text, control_30, strict=True)]
print(f"text, its control = 1: {relative}; teacher: {by_whole}")
assert all(a < b for a, b in zip(by_whole, relative, strict=True))
assert max(control_30) < 0.99 and not better(by_text, by_whole) and not better(by_whole, by_text)

# %% [markdown]
# A part of the damage is gone. By these figures text and teacher are equal: *inconclusive*. But look at the control: the whole model gains from the same four steps of layers 12 to 14, too. The text teaches something else than what was lost, probably how speeches sound. Against its own control it healed less than the teacher, on each text. **Without the control we would call all of it healing.**
#
# ## 6 · Experts
#
# A **mixture of experts** has several feed-forward blocks in each layer, and a small **router** that sends each token to two of them: it stores many parameters and runs few. Our tiny one (`load_tiny_lm("moe")`, trained on the same speeches as the student, but on a sixth of its tokens) has 8 experts in each of 4 layers.
#
# Which experts are needed for a job? Count where the tokens of its text go:

# %% atol=0.02
moe = models.load_tiny_lm("moe")
visits = pruning.expert_shares(moe, calibrate[0])
for name, share in visits.items():
    print(name, " ".join(f"{value:.2f}" for value in share.tolist()))

# %% [markdown]
# With equal visits each expert would have 0.125. Some are hardly visited. A usual reason: at the start of the training the router preferred others, and an expert that gets no tokens learns nothing.
#
# **Predict:** two of the eight experts of each layer are removed, those that are visited least. By how many percent does perplexity rise on the first text?

# %%
guess = ...  # percent


def without_experts(scores):
    model = copy.deepcopy(moe)
    pruning.drop_experts_(model, pruning.layer_mask(scores, 0.25))
    return model


# %%
def by_chance(seed):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(8, generator=generator) for name in visits}


most_first = {name: -share for name, share in visits.items()}
dropped = {
    "least visited": [without_experts(visits)] * 3,
    "at random": [without_experts(by_chance(seed)) for seed in seeds],
    "most visited": [without_experts(most_first)] * 3,
}

# %% [markdown]
# Then perplexity, all eight experts = 1:

# %% rtol=0.03
print(f"{parameters(moe):,} parameters become {parameters(dropped['at random'][0]):,}")
for name, three in dropped.items():
    pairs = zip(three, texts, strict=True)
    runs = [[metrics.perplexity(m, t, 128) for m in (small_one, moe)] for small_one, t in pairs]
    dropped[name] = [fewer / all_eight for fewer, all_eight in runs]
    print(f"{name:14}", [round(value, 2) for value in dropped[name]])
compare(guess, 100 * (dropped["least visited"][0] - 1), "%")
assert better(dropped["least visited"], dropped["at random"])
assert better(dropped["at random"], dropped["most visited"])

# %% [markdown]
# The count alone tells good from bad: least visited is better than at random, and at random is better than most visited. But "least visited" does not mean useless. And mind what is saved: *bytes*. Each token still visits two experts.
#
# ## 7 · The ledger
#
# SmolLM2 with few words is the dense model of this table. *Quality* is the mean rise of perplexity on the three texts; time is that of one token. The control: the same layers with all their weights set to zero (`prune_`). A layer of zeros adds nothing to the stream.

# %%
zeros = copy.deepcopy(small)
inside = {
    name: torch.zeros_like(layer.weight).bool()
    for name, layer in small.named_modules()
    if isinstance(layer, torch.nn.Linear) and any(f"layers.{number}." in name for number in hole)
}
pruning.prune_(zeros, inside)
variants = {
    "30 layers": (small, [1.0]),
    "4 layers of zeros": (zeros, rise_of(zeros)),
    "26 layers": (cut_4, mended["26 layers"]),
    "26 layers, healed": (healed_4, mended["healed by teacher"]),
    "22 layers": (without_layers(small, least_first[:8]), depths["least influence"][8]),
}
calls = {name: partial(model, windows[:1, :1]) for name, (model, _) in variants.items()}

# %% clock=true rtol=0.05
times = metrics.latencies(calls, repeats=5)
ledger = metrics.Ledger("perplexity, dense = 1")
for name, (model, values) in variants.items():
    mean = sum(values) / len(values)
    ledger.add(name, metrics.size_in_bytes(model), mean, latency=times[name])
print(ledger)
assert times["22 layers"].median < times["4 layers of zeros"].median
ax = plots.ledger(ledger)

# %% [markdown]
# *Figure: layers that are gone save bytes; as zeros they cost the same quality and save nothing.*
#
# <details><summary>The figure in words</summary>
#
# Perplexity as a multiple of the dense model's, over megabytes stored. At 452 MB stand the dense model, at 1, and four layers of zeros, near 1.4. At 395 MB stand 26 layers, at the same height as the zeros, and below them the same healed. At 338 MB stand 22 layers, near 2.4.
#
# </details>
#
# Zeros and removal answer alike; only removal saves time and bytes.
#
# ## **Spot the bug**
#
# Two things are wrong with this function. Which number proves the first?


# %%
def drop_layers_(model, numbers):
    for number in numbers:
        del model.model.layers[number]
    model.config.num_hidden_layers = len(model.model.layers)


broken = copy.deepcopy(dense)
drop_layers_(broken, [1, 2])
print("layers that are left:", [layer.self_attn.layer_idx for layer in broken.model.layers])
try:
    broken(input_ids=texts[0][None, :8])
except IndexError as error:
    print("and a call says:", error)

# %% [markdown]
# Find both before you read on.
#
# <details><summary>Answer</summary>
#
# The 2: a 3 should stand there. Layers 1 and 2 were to go, so 0 and 3 should be left. But with layer 1 gone, the old layer 2 *is* number 1, and "delete number 2" takes the old layer 3. Delete from the back, or build a new list. No error message tells you this.
#
# The second one is loud: each layer keeps its old number (`layer_idx`), by which it finds its keys and values in the cache, and layer "2" of a model of two layers asks for a third place. `remove_layers_` renumbers.
#
# </details>
#
# ## What papers say, and what we measured
#
# | paper | says | we measured | same? |
# |---|---|---|---|
# | Michel et al. 2019, 1905.10650 | most heads can go one by one, a few cannot | half of 16 heads cost less than 2 % each, one costs 74 % | yes |
# | Men et al. 2024, 2403.03853 | layers of little block influence can go, the others cannot | better than at random; ours stand in the middle, theirs later | yes |
# | Muralidharan et al. 2024, 2407.14679 | after much healing, less width (neurons, heads, channels) beats fewer layers | neurons alone, hardly healed: layers a little ahead | not a fair test |
# | the same | healing by the teacher beats healing by text | tiny student: yes; SmolLM2: not decided | in part |
#
# ## Summary
#
# - **What goes.** A removed neuron is the same as a silenced one, in smaller matrices. Neurons and layers save bytes and time; experts only bytes.
# - **Which.** The size of outgoing weights was worse than chance. Activation and Taylor, which look at a text, were far better, most of all over the whole model. For a few heads, measure each.
# - **Words.** SmolLM2 lost 21.6 million parameters, and what its last layer puts out kept every bit.
# - **Depth.** Four of 30 layers, chosen by block influence, cost less than four at random; the last two cannot go.
# - **Healing.** The teacher heals the tiny student better than text does, and a fresh model of the same shape is nowhere near. On SmolLM2 both looked equal, until the control showed that the text teaches the dense model, too.
# - **Experts.** The count of visits chooses well; dropping experts saves bytes.
#
# ## Further reading
#
# - Michel, Levy & Neubig 2019, *Are Sixteen Heads Really Better than One?* (arXiv 1905.10650): section 3, one head at a time.
# - Men et al. 2024, *ShortGPT* (arXiv 2403.03853): section 3, block influence.
# - Muralidharan et al. 2024, *Compact Language Models via Pruning and Knowledge Distillation* (arXiv 2407.14679): its list of best practices.
