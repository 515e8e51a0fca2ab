# %% [markdown]
# # 10 · Training on the grid — let gradient descent look for weights that are on the grid
#
# **You will be able to**
#
# - say what is differentiated in training on the grid, and what is pretended;
# - derive LSQ's gradient of a step, and check it by finite differences;
# - train at 2 bits and with three levels, and judge that against GPTQ at equal data;
# - turn the trained model into integers that answer bit for bit alike;
# - choose between training before, on and after the grid, and hold zeros meanwhile.
#
# **You need:** chapters 02, 04, 06 and 08 (03, 05 and 09 are mentioned). **Time:** 46 minutes of reading, 24 for the parts marked ★ (the fast path). The whole notebook runs in about a minute.
#
# Below each **Predict**, write your guess into the next cell, in place of the dots.

# %%
import copy
import itertools
from concurrent.futures import ThreadPoolExecutor

import torch

import lightcourse
from lightcourse import data, distillation, metrics, models, plots, pruning, quantization
from lightcourse.guessing import compare
from lightcourse.quantization import convert_qat_, lsq, mean_step, prepare_qat_
from lightcourse.training import Recipe, model_loss, train

lightcourse.setup(threads=1)  # faster for so small a model

# %% [markdown]
# Chapter 04 rounded a trained model, chapter 08 rounded it so that the outputs change little. Both look at a finished model. At 4 bits that is enough, at 2 bits it is not. This chapter goes on training, with the rounding in the model: **quantization-aware training**, QAT.
#
# The model is the tiny *student* of chapter 01. It learns on *validation* speeches, and rates are chosen on other validation speeches. Each method is trained three times, with **seeds** 0, 1 and 2 that change the order of the lessons, and each of the three is judged on a **text** of its own of the *test* speeches: its perplexity, divided by that of the **dense** model in floats on the same text. So 1.00 is as good as dense. **Better** means lower by more than 3 % on each of the three. Otherwise it is *inconclusive*, which does not mean equal.

# %%
seeds, updates = (0, 1, 2), 16
dense, tokenizer = models.load_tiny_lm("student"), models.load_tiny_tokenizer()
learn, held_out = (data.speech_tokens(tokenizer, split) for split in ("validation", "test"))
lessons, validation = data.token_batches(learn[:200_000], 64, 8), learn[200_000:204_097]


# %%
def each(function, rows):
    """Call a function for each row, two at a time: one for each core."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(function, rows))


# %% [markdown]
# How models are judged:

# %%
texts = data.excerpts(held_out, 3, length=1_025)
of_dense = [metrics.perplexity(dense, text, window=128) for text in texts]


def rise(three):
    found = each(lambda pair: metrics.perplexity(*pair, window=128), zip(three, texts, strict=True))
    return [one / dense for one, dense in zip(found, of_dense, strict=True)]


def better(first, second):
    return all(1.03 * a < b for a, b in zip(first, second, strict=True))


# %% [markdown]
# ## ★ 1 · A staircase has no slope
#
# ### What is pretended
#
# One weight $w$, one input $x = 2$, one wanted output $4.4$, and a grid of whole numbers: the layer answers $\mathrm{round}(w)\,x$. The best weight would be 2.2, on the grid it is 2. We begin at $w = 0.2$. Which way should it move? Ask by finite differences:


# %%
def loss(w):
    return (w.round() * 2 - 4.4) ** 2


for w in (0.2, 0.49, 1.2):
    low, high = loss(torch.tensor(w - 1e-3)), loss(torch.tensor(w + 1e-3))
    print(f"w = {w}: slope {(high - low) / 2e-3:.0f}")

# %% [markdown]
# The slope is 0 nearly everywhere, and at the edge of a stair it does not exist. Gradient descent stands still.
#
# The way out is a lie, and a useful one: in the *forward* pass round; in the *backward* pass pretend that nothing was rounded, $\partial\,\mathrm{round}(w) / \partial w = 1$. This is the **straight-through estimator** (Bengio et al. 2013, arXiv 1308.3432), which chapter 04 showed in passing. All that is differentiated honestly is what lies behind the rounding.
#
# The weight itself stays a float. It is called **latent**: nobody computes with it, but it collects small changes until the rounded weight jumps.
#
# **Predict:** by gradient descent with a rate of 0.01, after how many updates is the *rounded* weight 2 for the first time? (The pretended slope is $2 \cdot 2 \cdot (2\,\mathrm{round}(w) - 4.4)$. In the cell `lsq(weight, step, lowest, highest)` rounds like this; section 2 explains its name.)

# %%
guess = ...  # updates
w, path = torch.tensor(0.2, requires_grad=True), []
for _ in range(300):
    (gradient,) = torch.autograd.grad((lsq(w, torch.tensor(1.0), -8, 7) * 2 - 4.4) ** 2, w)
    w = (w - 0.01 * gradient).detach().requires_grad_()
    path.append(w.round().item())
compare(guess, 1 + path.index(2.0), "updates", how="computed")
last = torch.tensor(path[-100:])
print("of the last 100:", {n: (last == n).sum().item() for n in (2, 3)}, f"mean {last.mean():.1f}")

# %% [markdown]
# And then? The latent weight walks up to the edge between 2 and 3, is sent back, and walks up again, though 2 is the better one. In the mean over time the rounded weight is 2.2, the best of all. Such **oscillation** is normal. A smaller rate makes smaller swings, not fewer jumps; when the rate reaches 0, chance decides on which side the weight stays. (Nagel et al. 2022, arXiv 2203.11086, damp such weights, or freeze them.)
#
# ### Where the lie ends
#
# Beyond the last level a weight is **clamped**. There the staircase really is flat, for ever: the gradient is 0, and that is no lie. A weight that is clamped gets no message any more (other than weight decay), unless its grid becomes wider.
#
# ## ★ 2 · The step learns, too
#
# ### A derivative, by hand
#
# On a grid of step $s$ (chapter 04's *scale*), with levels from $Q_n$ to $Q_p$, a weight $v$ becomes $\hat v = s \cdot \mathrm{round}(\mathrm{clamp}(v / s, Q_n, Q_p))$. It is *clamped* if $v/s$ lies beyond $Q_n$ or $Q_p$, else it is *inside*. So far rules chose $s$. But $\hat v$ depends on $s$, so the step can learn like a weight: **LSQ**, learned step size quantization (Esser et al. 2019, arXiv 1902.08153).
#
# - Clamped: $\hat v = s\,Q_p$, and the derivative is $Q_p$. This is exact. (At the other end it is $Q_n$.) The weight itself gets 0, as above; the *step* does not: where the grid grows, a clamped weight moves with the last level.
# - Inside: by the product rule $\mathrm{round}(v/s) + s \cdot \partial\,\mathrm{round}(v/s) / \partial s$. Again we pretend that the derivative of rounding is 1, which leaves $s \cdot (-v / s^2)$:
#
# $$\frac{\partial \hat v}{\partial s} = \mathrm{round}(v/s) - v/s$$
#
# That is the error of rounding, in steps. **Predict:** with the levels $-2$ to $1$ and a step of 0.5, what do the weights 0.2, 0.7 and $-3$ send to the step together?

# %%
guess = ...  # a number, with its sign
v, step = torch.tensor([0.2, 0.7, -3.0]), torch.tensor(0.5, requires_grad=True)
lsq(v, step, -2, 1).sum().backward()
compare(guess, step.grad.item(), how="computed")

# %% [markdown]
# 0.2 is 0.4 steps, inside, and is rounded to 0: it sends $0 - 0.4$. 0.7 is 1.4 steps, beyond the last level: 1. $-3$ is beyond the other end: $-2$. Together $-1.4$.
#
# ### Checked
#
# Inside, we pretend that the error $e = \mathrm{round}(v/s) - v/s$ does not change. Then $\hat v = v + s\,e$ has the slope $e$. The cell asks finite differences whether `lsq` computes that. (It cannot ask whether pretending is right.)

# %%
torch.manual_seed(0)
v, step, tiny = torch.randn(1000).double(), torch.tensor(0.6).double(), 1e-6
error = (v / step).round() - v / step  # held still
inside = (v / step > -2) & (v / step < 1)


def pretended(s):
    return torch.where(inside, v + s * error, s * (v / s).clamp(-2, 1)).sum()


slope = (pretended(step + tiny) - pretended(step - tiny)) / (2 * tiny)
learned = step.float().requires_grad_()
lsq(v.float(), learned, -2, 1).sum().backward()
print("the same slope:", torch.isclose(learned.grad.double(), slope, rtol=1e-4).item())
assert torch.isclose(learned.grad.double(), slope, rtol=1e-4)

# %% [markdown]
# A thousand weights send their gradients to one step, so LSQ multiplies the sum by $1 / \sqrt{N Q_p}$, for $N$ weights that share it. Then a step and a weight change by a similar percentage. With plain gradient descent that is needed. **Adam** divides each gradient by its own size, and the factor nearly cancels.
#
# ## ★ 3 · On the grid, at equal data
#
# `prepare_qat_` replaces each linear layer by one that rounds its weights in the forward pass, with one step for each row; the rest of training is that of chapter 02. Steps start where `quantize_` would round, and learn. All get the same 16 batches of 8 windows of 64 tokens:
#
# - **rounded**: to the nearest, no data at all;
# - **GPTQ** (chapter 08), which calibrates on them;
# - **QAT by the text**: the loss is the next token's;
# - **QAT by the teacher**: the loss is the divergence from the dense model's own predictions (chapter 06); the dense model teaches its rounded copy;
# - the **control**: the dense model, trained on the text as long, *without a grid*. What the text itself teaches must not be taken for a gain of the method. (By the teacher, the dense model has nothing to learn.)
#
# Norms and table stay as they are, for GPTQ cannot change them, either. The data are equal; the work is not: training on the grid needs a teacher, floats behind the integers, and an optimizer's state. Each way of training takes the best of its rates on the validation text, with seed 0.


# %%
class Remembering(torch.nn.Module):
    """The dense model as a teacher, which is asked only once for each batch."""

    def forward(self, **batch):
        key = batch["input_ids"].numpy().tobytes()
        if key not in said:
            said[key] = dense(**batch)
        return said[key]


said = {}
by_teacher = distillation.taught_by(Remembering(), temperature=1.0, soft_weight=1.0)


# %%
def of_layers(model):
    """Let only the linear layers learn: GPTQ cannot change norms and table, either."""
    for name, weight in model.named_parameters():
        weight.requires_grad_(name.endswith(("proj.weight", "step")))
    return model


def prepared(bits, **how):
    model = copy.deepcopy(dense)
    prepare_qat_(model, bits, **how)
    return of_layers(model)


# %% [markdown]
# Training, the search for a rate, and GPTQ:


# %%
def trained(model, rate, seed, loss=by_teacher):
    model = copy.deepcopy(model)
    recipe = Recipe(updates, rate, warmup_steps=3, seed=seed)
    train(model, lessons, recipe, loss, progress=False)
    return model


def best_of(model, loss=by_teacher, rates=(3e-4, 1e-3)):
    """Return three models: that of the best rate on validation text, and two more seeds."""
    tried = dict(zip(rates, each(lambda rate: trained(model, rate, 0, loss), rates), strict=True))
    rate = min(tried, key=lambda r: metrics.perplexity(tried[r], validation, window=128))
    return [tried[rate], *each(lambda seed: trained(model, rate, seed, loss), (1, 2))]


# %%
def calibrated(bits, seed, start=dense):
    model, batches = copy.deepcopy(start), itertools.islice(lessons(0, seed), updates)  # epoch 0
    quantization.gptq_(model, list(batches), bits, act_order=True, damping=0.1)
    return model


# %% [markdown]
# Two bits first.
#
# **Predict:** is training by the text *better* than GPTQ? And training by the teacher?

# %%
guess = ...  # such as "yes, yes"
on_grid = {
    "rounded": [prepared(2)] * 3,
    "GPTQ": each(lambda seed: calibrated(2, seed), seeds),
    "QAT by the text": best_of(prepared(2), model_loss),
    "QAT by the teacher": best_of(prepared(2)),
    "no grid, by the text": best_of(of_layers(copy.deepcopy(dense)), model_loss, (1e-4, 3e-4)),
}

# %% rtol=0.1
two = {name: rise(found) for name, found in on_grid.items()}
for name, ratios in two.items():
    print(f"{name:20}", *(f"{ratio:.2f}" for ratio in ratios))
wins = [better(two[f"QAT by the {who}"], two["GPTQ"]) for who in ("text", "teacher")]
compare(guess, ", ".join("yes" if won else "inconclusive" for won in wins))


# %% [markdown]
# The same in a figure, and what is claimed below, asserted:

# %%
for worse in ("QAT by the text", "GPTQ"):
    assert better(two["QAT by the teacher"], two[worse])
assert better(two["GPTQ"], two["rounded"])
assert not better(two["QAT by the text"], two["GPTQ"])  # more work, and no gain
assert min(two["no grid, by the text"]) > 0.97  # the text alone teaches nothing new
ax = plots.seed_dots(two, "perplexity, dense = 1", each="text")

# %% [markdown]
# *Figure: at 2 bits, training by the teacher comes closest; training by the text is no better than GPTQ.*
#
# <details><summary>The figure in words</summary>
#
# Five rows of three dots. Rounded from 1.6 to 2.0, GPTQ and QAT by the text from 1.4 to 1.7, QAT by the teacher from 1.35 to 1.5, no grid at 1. Text 0 is the worst in each row that is rounded.
#
# </details>
#
# With so little text, the next token is a noisy teacher: it names one word, and the model knew much of it already. The dense model's whole distribution says at every position how the rounded one should be.
#
# At 3 and 4 bits there is less to win back:

# %% rtol=0.05
more = {f"{bits} bits, rounded": [prepared(bits)] * 3 for bits in (4, 3)}
more["3 bits, GPTQ"] = each(lambda seed: calibrated(3, seed), seeds)
more["3 bits, QAT by the teacher"] = each(lambda seed: trained(prepared(3), 3e-4, seed), seeds)
more = {name: rise(found) for name, found in more.items()}
for name, ratios in more.items():
    print(f"{name:28}", *(f"{ratio:.2f}" for ratio in ratios))
assert max(more["4 bits, rounded"]) < 1.03  # nothing is left that could be *better*
assert not better(more["3 bits, QAT by the teacher"], more["3 bits, GPTQ"])

# %% [markdown]
# **For this student and so little data, training on the grid pays at 2 bits and below.** At 4 bits nothing is left to win; at 3 it is inconclusive against GPTQ, which needs no training. (The rate for 3 bits was chosen in the same way, beforehand.)
#
# ## 4 · Three levels
#
# BitNet b1.58 (Ma et al. 2024, arXiv 2402.17764) knows only -1, 0 and 1, times a scale: a product needs no multiplication. Its models are trained like that from the beginning, on billions of tokens. Its step is the mean size of the weights. We ask less: can 16 batches bring the student onto three levels? And we start the steps in two places: at the mean size, and where the squared error is least.
#
# **Predict:** is the second *better*, though both learn?

# %% rtol=0.1
guess = ...  # "yes" or "inconclusive"
starts = {"mean size": {"choose_step": mean_step}, "least squares": {}}
three = {"no training": rise([prepared("ternary")] * 3)}
for name, how in starts.items():
    start = prepared("ternary", **how)
    on_three_levels = each(lambda seed, start=start: trained(start, 1e-3, seed), seeds)
    three[name] = rise(on_three_levels)
for name, ratios in three.items():
    print(f"{name:14}", *(f"{ratio:.2f}" for ratio in ratios))
matters = better(three["least squares"], three["mean size"])
compare(guess, "yes" if matters else "inconclusive")
assert matters and better(three["least squares"], three["no training"])

# %% [markdown]
# It is: 16 updates do not move a step far. ("No training" has the second start. The rate was chosen beforehand, in the same way.) A step that learns is no reason to start it anywhere: look for a good place first, as chapter 08 did.
#
# ## 5 · Integers that answer alike
#
# What was trained is a *simulation* of integers. What we measured is true for the integers only if they give the same answers. With `activations=8` the simulation rounds each layer's inputs, too, and adds up integers in floats: a float32 holds each whole number up to $2^{24}$ exactly, so no order of adding makes a difference. `convert_qat_` then packs the integers, and chapter 05's kernels multiply them.
#
# **Predict:** what is the largest difference of a logit between the simulation and the integers? (Logits reach 16.)

# %% atol=0.05
guess = ...  # a number
model = trained(prepared(2, activations=8), 1e-3, 0)
with torch.no_grad():
    simulated = model(texts[0][None, :64]).logits
report = convert_qat_(model)
with torch.no_grad():
    integers = model(texts[0][None, :64]).logits
difference = (integers - simulated).abs().max().item()
compare(guess, difference)
assert difference < 0.5

# %% [markdown]
# Nothing is lost on the way: bit for bit the same. (Our tests hold that on the plain kernels. Where rows have *groups*, faster kernels may add these up in another order; then last bits differ, and the next layer's rounding makes a few of them larger.)
#
# ## 6 · Before, on, or after the grid
#
# There are three times to train: *before* rounding, in floats; *on* the grid, as above; and *after* rounding, when the integers are there and do not move. What can still be trained then? The norms and the table of words (which is the output layer, too): chapter 02 called it fine-tuning some layers. All three with the same 16 batches, at 2 bits:
#
# - **before**: the control of section 3, trained in floats by the text, then GPTQ;
# - **after**: GPTQ, then norms and table trained by the teacher.
#
# **Predict:** is *before* better than GPTQ alone? Is *after*?

# %% rtol=0.1
guess = ...  # such as "yes, yes"
frozen = each(lambda seed: trained(on_grid["GPTQ"][seed], 1e-3, seed), seeds)
fine = on_grid["no grid, by the text"]
when = {
    "before": rise(each(lambda seed: calibrated(2, seed, fine[seed]), seeds)),
    "on": two["QAT by the teacher"],
    "after": rise(frozen),
}
for name, ratios in when.items():
    print(f"{name:6}", *(f"{ratio:.2f}" for ratio in ratios))
wins = [better(when[name], two["GPTQ"]) for name in ("before", "after")]
compare(guess, ", ".join("yes" if won else "inconclusive" for won in wins))
assert wins == [False, True]

# %% [markdown]
# **Before** brings nothing: in floats this text taught nothing (1.00 in section 3), and GPTQ ends where it did without. (Whether a real gain would survive the rounding is not tested.) **After** is better than GPTQ alone, though none of its integers moves: norms and table make up for much. Against training *on* the grid it is inconclusive, and it needs no grid in training at all.
#
# ## 7 · Zeros that stay
#
# Pruned weights are zeros, and 0 is on every grid without a zero point. So a model can be pruned *and* rounded, if training does not refill the zeros. `hold_masks` (chapter 03) holds them, in prepared layers, too.

# %%
masks = pruning.layer_mask(pruning.magnitude_scores(dense), 0.5)
thin = copy.deepcopy(dense)
pruning.prune_(thin, masks)


def healed(model, seed):
    """Train a pruned model by the teacher, and let its zeros stay."""
    model = copy.deepcopy(model)
    with pruning.hold_masks(model, masks):
        train(model, lessons, Recipe(updates, 1e-3, 3, seed=seed), by_teacher, progress=False)
    return model


# %% rtol=0.05
thin_on_grid, rounded = copy.deepcopy(thin), copy.deepcopy(thin)
prepare_qat_(thin_on_grid, 4)
both = [healed(thin_on_grid, seed) for seed in seeds]
floats = [healed(thin, seed) for seed in seeds]
for model in both:
    convert_qat_(model)
for model in [*floats, rounded]:
    quantization.quantize_(model, 4)
rows = {"rounded": [rounded] * 3, "trained, then rounded": floats, "trained on the grid": both}
for name, three_models in rows.items():
    print(f"pruned, {name:22}", *(f"{ratio:.2f}" for ratio in rise(three_models)))
for name, mask in masks.items():
    assert not any(model.get_submodule(name).integers()[~mask].any() for model in both)

# %% [markdown]
# Every zero is a zero among the integers. (Hold the model that is *trained*: a copy made within the `with` block is not held.) The gain is recovery from *pruning*: at 4 bits it makes no difference whether one trains on the grid, or in floats and rounds afterwards.
#
# ## 8 · The ledger
#
# The student, whole and really packed, its table of words in 8 bits. (Chapter 05's integer layers hold 4 or 8 bits for a weight; `codes=True` stores narrower ones as chapter 09's codes. GPTQ's 2 bits stand in 4 here.) Quality: the mean of three texts, one seed each. Latency: a text of 128 tokens.


# %%
def packed(three, convert=False):
    """Return copies as integers, with the table in 8 bits."""
    copies = [copy.deepcopy(model) for model in three]
    for model in copies:
        if convert:
            convert_qat_(model, codes=True)
        quantization.quantize_(model, 8, embeddings=8)
    return copies


# %% [markdown]
# Six variants, three models each:

# %%
variants = {
    "floats": [dense] * 3,
    "4 bits, rounded": packed([prepared(4)] * 3, convert=True),
    "2 bits, GPTQ": packed(on_grid["GPTQ"]),
    "2 bits, on the grid": packed(on_grid["QAT by the teacher"], convert=True),
    "three levels, on the grid": packed(on_three_levels, convert=True),
    "half pruned, 4 bits": packed(both),
}

# %% clock=true rtol=0.1
ids = texts[0][None, :128]
calls = {name: lambda model=found[0]: model(ids) for name, found in variants.items()}
clocks = metrics.latencies(calls, repeats=3)
ledger = metrics.Ledger("perplexity, dense = 1")
for name, found in variants.items():
    size = metrics.size_in_bytes(found[0])
    ledger.add(name, size, sum(rise(found)) / 3, latency=clocks[name])
print(ledger)
ax = plots.ledger(ledger)

# %% [markdown]
# *Figure: 4 bits keep the quality; 2 bits trained on the grid are smaller, and their perplexity is over a third higher.*
#
# <details><summary>The figure in words</summary>
#
# Perplexity as a multiple of the float model's over megabytes stored. Floats at 4.5 MB and 1. All others are below 1 MB: 4 bits near 1.02, half pruned and 4 bits near 1.15, 2 bits on the grid at 1.4, GPTQ's 2 bits at 1.5, three levels at 1.7.
#
# </details>
#
# From 4 to 2 bits the file becomes nearly a third smaller, and the perplexity rises by more than a third. (A grid for each 32 weights would be the other way to lose less at 2 bits.) If you have minutes and a laptop, **4 bits and a good rounding are the better bargain**. Smaller is not faster here: codes are looked up in each call (chapter 09). And neither half of zeros nor three levels make these files smaller: each weight takes its bits, whatever it is.
#
# ## **Spot the bug**
#
# A layer that trains on the grid, in four lines, as many repositories have it. It runs, its answers are those of the rounded weight, and the loss does not fall. What is wrong, and which test would show it? Find it before you read on.


# %%
def on_grid_with_bug(weight, step):
    """Return the rounded weight. (This is the version with the bug.)"""
    inside = (weight / step).clamp(-2, 1) * step
    rounded = (inside / step).round() * step
    return inside + (rounded - inside)


# %%
weight = torch.tensor([0.3, -0.8, 0.1, 2.0], requires_grad=True)
answer = on_grid_with_bug(weight, 0.5)
answer.sum().backward()
print("answer:", answer.tolist(), " gradient:", weight.grad.tolist())

# %% [markdown]
# <details><summary>Answer</summary>
#
# `inside + (rounded - inside)` has the right value, but autograd sees through it: `inside` cancels, and what is left is the gradient of `rounded`, which is 0. The difference has to be hidden from it: `inside + (rounded - inside).detach()`. The test looks at gradients: 1 inside the grid, 0 for the clamped last weight. (A test of answers cannot tell the two apart. Neither can one that only asks whether a gradient *exists*.)
#
# </details>

# %%
inside, weight.grad = (weight / 0.5).clamp(-2, 1) * 0.5, None
mended = inside + (on_grid_with_bug(weight, 0.5) - inside).detach()
mended.sum().backward()
assert torch.equal(mended, answer) and weight.grad.tolist() == [1, 1, 1, 0]

# %% [markdown]
# ## What papers say, and what we measured
#
# | paper | says | we measured | same order? |
# |---|---|---|---|
# | Bengio et al. 2013, 1308.3432 | pretending slope 1 trains units that are 0 or 1 | it trains weights on a grid | yes |
# | Esser et al. 2019, 1902.08153 | the best networks for images at 2 to 4 bits then, weights and inputs, from the start 2·mean/√Qp | only weights; where the steps start counted, though they learn | not tested |
# | Ma et al. 2024, 2402.17764 | trained from the start, three levels equal floats from 3 billion weights on | a finished model, 16 batches: perplexity times 1.6 to 1.9 | not tested |
# | Liu et al. 2023, 2305.17888 (LLM-QAT) | a teacher, and text that the model wrote itself, beat rounding down to 4 bits, inputs and cache rounded, too | by the teacher: better at 2 bits; with weights alone nothing to win at 4 | in part |
#
# ## Summary
#
# - We **pretend** that rounding has slope 1; clamped weights really have 0. The float behind each integer collects small changes.
# - **LSQ**: inside, the step's gradient is the error of rounding; outside, the last level. In 16 updates it did not make up for a bad start.
# - **At 2 bits** training by the teacher was better than GPTQ and than training by text, at equal data. At 3 bits it was inconclusive, at 4 nothing was left to win.
# - **Integers** answered bit for bit as the simulation did.
# - **When:** training before rounding changed nothing, for there was nothing to learn in floats; norms and table trained *after* it were inconclusive against training on the grid.
# - **Zeros** stay zeros if they are held.
#
# ## Further reading
#
# - Esser et al. 2019, *Learned step size quantization* (arXiv 1902.08153): section 2, all of it.
# - Ma et al. 2024, *The era of 1-bit LLMs* (arXiv 2402.17764): two pages are enough.
# - In this repository: `lightcourse/quantization/fake.py`, `learned_steps.py` and `qat.py`.
