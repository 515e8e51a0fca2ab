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
# **You need:** chapters 02, 04, 06 and 08. **Time:** 42 minutes of reading, 23 for the parts marked ★ (the fast path). The whole notebook runs in about a minute.
#
# Below each **Predict**, write your guess into the next cell, in place of the dots.

# %%
import copy
import itertools

import torch

import lightcourse
from lightcourse import data, distillation, metrics, models, plots, pruning, quantization
from lightcourse.guessing import compare
from lightcourse.quantization import convert_qat_, lsq, mean_step, prepare_qat_, qat_steps
from lightcourse.training import Recipe, model_loss, train

lightcourse.setup(threads=2)

# %% [markdown]
# Chapter 04 rounded a trained model, chapter 08 rounded it so that the outputs change little. Both look at a finished model. At 4 bits that is enough, at 2 bits it is not. This chapter goes on training, with the rounding in the model: **quantization-aware training**, QAT.
#
# The model is the tiny *student* of chapter 01. It learns on *validation* speeches, rates are chosen on other validation speeches, and it is judged on three **texts** of the *test* speeches, each with another **seed**. Results are ratios of perplexity to the **dense** model, which is stored in floats. **Better** means lower by more than 3 % on each of the three. Otherwise it is *inconclusive*.

# %%
seeds, steps = (0, 1, 2), 16
dense, tokenizer = models.load_tiny_lm("student"), models.load_tiny_tokenizer()
learn, held_out = (data.speech_tokens(tokenizer, split) for split in ("validation", "test"))
lessons, trial = data.token_batches(learn[:200_000], 64, 8), learn[200_000:204_097]
texts = data.excerpts(held_out, 3)
whole = [metrics.perplexity(dense, text, window=128) for text in texts]


def rise(found):  # of three models, each on a text of its own, divided by the dense one's
    trials = zip(found, texts, whole, strict=True)
    return [metrics.perplexity(m, text, window=128) / one for m, text, one in trials]


def better(first, second):
    return all(1.03 * a < b for a, b in zip(first, second, strict=True))


# %% [markdown]
# ## ★ 1 · A staircase has no slope
#
# ### What is pretended
#
# One weight $w$, one input $x = 2$, one wanted output $5$, and a grid of whole numbers: the layer answers $\mathrm{round}(w)\,x$. The squared error is smallest at $\mathrm{round}(w) = 2$ or $3$. We begin at $w = 0.3$. Which way should it move? Ask by finite differences:


# %%
def loss(w):
    return (w.round() * 2 - 5) ** 2


for w in (0.3, 0.49, 1.2):
    low, high = loss(torch.tensor(w - 1e-3)), loss(torch.tensor(w + 1e-3))
    print(f"w = {w}: slope {(high - low) / 2e-3:.0f}")

# %% [markdown]
# The slope is 0 nearly everywhere, and at the edge of a stair it does not exist. Gradient descent stands still.
#
# The way out is a lie, and a useful one: in the *forward* pass round; in the *backward* pass pretend that nothing was rounded, $\partial\,\mathrm{round}(w) / \partial w = 1$. This is the **straight-through estimator** (Bengio et al. 2013, arXiv 1308.3432), which chapter 04 showed in passing. All that is differentiated honestly is what lies behind the rounding.
#
# The weight itself stays a float. It is called **latent**: nobody computes with it, but it collects small steps until the rounded weight jumps.
#
# **Predict:** by gradient descent with a rate of 0.01, after how many steps is the *rounded* weight 2 for the first time? (The pretended slope is $2 \cdot 2 \cdot (2\,\mathrm{round}(w) - 5)$.)

# %%
guess = ...  # steps
w, path = torch.tensor(0.3, requires_grad=True), []
for _ in range(60):
    (gradient,) = torch.autograd.grad((lsq(w, torch.tensor(1.0), -8, 7) * 2 - 5) ** 2, w)
    w = (w - 0.01 * gradient).detach().requires_grad_()
    path.append(w.round().item())
compare(guess, 1 + path.index(2.0), "steps", how="computed")
print("rounded, the last 24 steps:", [int(p) for p in path[-24:]])

# %% [markdown]
# And then? It does not come to rest: the best weight is 2.5, which is not on the grid, so the latent weight walks up to the edge between 2 and 3, and is sent back. Such **oscillation** is normal; a rate that decays to 0 ends it.
#
# ### Where the lie ends
#
# Beyond the last level a weight is **clamped**. There the staircase really is flat, for ever: the gradient is 0, and that is no lie. A weight that is clamped gets no message any more (other than weight decay), unless its grid becomes wider.
#
# ## ★ 2 · The step learns, too
#
# ### A derivative, by hand
#
# A weight $v$ on a grid of step $s$ becomes $\hat v = s \cdot \mathrm{clamp}(\mathrm{round}(v / s), Q_n, Q_p)$. So far rules chose $s$. But $\hat v$ depends on $s$, so the step can learn like a weight: **LSQ**, learned step size quantization (Esser et al. 2019, arXiv 1902.08153).
#
# - Clamped: $\hat v = s\,Q_p$, and the derivative is $Q_p$. This is exact. (At the other end it is $Q_n$.)
# - Inside: by the product rule $\mathrm{round}(v/s) + s \cdot \partial\,\mathrm{round}(v/s) / \partial s$. Again we pretend that the derivative of rounding is 1, which leaves $s \cdot (-v / s^2)$:
#
# $$\frac{\partial \hat v}{\partial s} = \mathrm{round}(v/s) - v/s$$
#
# That is the error of rounding, in steps. **Predict:** with the levels $-2$ to $1$ and a step of 0.5, what do the weights 0.7, 0.9 and $-3$ send to the step together?

# %%
guess = ...  # a number, with its sign
v, step = torch.tensor([0.7, 0.9, -3.0]), torch.tensor(0.5, requires_grad=True)
lsq(v, step, -2, 1).sum().backward()
compare(guess, step.grad.item(), how="computed")

# %% [markdown]
# 0.7 and 0.9 are 1.4 and 1.8 steps, both beyond 1, the last level: each sends 1. $-3$ is beyond the other end, and sends $-2$: together 0. (Did you take 0.7 for an inner one? It is *rounded* to the last level, but that alone does not make it inner: $0.7 / 0.5 > 1$.)
#
# ### Checked
#
# The formula is exact where weights are clamped. Inside, finite differences see another thing: as long as no weight jumps, $\hat v = s \cdot \mathrm{round}(v/s)$ has the slope $\mathrm{round}(v/s)$. What is checked there is the pretended function, in which the rounding *error* is held still:

# %%
torch.manual_seed(0)
v, step, tiny = torch.randn(1000).double(), torch.tensor(0.6).double(), 1e-6
error = (v / step).round() - v / step  # held still
inside = (v / step > -2) & (v / step < 1)


def pretended(s):
    return torch.where(inside, s * (v / s + error), s * (v / s).clamp(-2, 1)).sum()


slope = (pretended(step + tiny) - pretended(step - tiny)) / (2 * tiny)
learned = step.float().requires_grad_()
lsq(v.float(), learned, -2, 1).sum().backward()
assert torch.isclose(learned.grad.double(), slope, rtol=1e-4)

# %% [markdown]
# A thousand weights send their gradients to one step, so LSQ multiplies the sum by $1 / \sqrt{N Q_p}$, for $N$ weights that share it. Then a step and a weight move by like shares of themselves. With plain gradient descent that is needed. **Adam** divides each gradient by its own size, so that such a factor cancels. (Measured on the student at 2 bits, by Adam: with the factor 1.57, 1.36, 1.40, with a hundred times of it 1.56, 1.38, 1.40, and without it 1.57, 1.37, 1.41.)
#
# ## ★ 3 · On the grid, at equal data
#
# `prepare_qat_` puts a layer that rounds around each weight; the rest of training is that of chapter 02. Steps start where `quantize_` would round, and learn. All get the same 16 batches of 8 windows of 64 tokens:
#
# - **rounded**: to the nearest, no data at all;
# - **GPTQ** (chapter 08), which calibrates on them;
# - **QAT by text**: the loss is the next token's;
# - **QAT by the teacher**: the loss is the divergence from the dense model's own predictions (chapter 06); the dense model teaches its rounded copy;
# - the **control**: the dense model, trained on the text as long, *without a grid*. What the text itself teaches must not be taken for a gain of the method.
#
# Each way of training has the best of its rates on the validation text, with seed 0: the same search for all.
#
# **Predict:** at 2 bits, in which order come rounded, GPTQ, text and teacher, the worst first?

# %%
guess = ...  # such as "rounded, text, GPTQ, teacher"
by_teacher = distillation.taught_by(dense, temperature=1.0, soft_weight=1.0)


def prepared(bits, **how):
    model = copy.deepcopy(dense)
    prepare_qat_(model, bits, **how)
    return model


def trained(model, rate, seed, loss=by_teacher):
    model = copy.deepcopy(model)
    recipe = Recipe(steps, rate, warmup_steps=3, seed=seed)
    train(model, lessons, recipe, loss, progress=False)
    return model


# %%
def best_of(model, loss=by_teacher, rates=(3e-4, 1e-3)):
    """Return three models: that of the best rate on validation text, and two more seeds."""
    tried = {rate: trained(model, rate, 0, loss) for rate in rates}
    rate = min(tried, key=lambda r: metrics.perplexity(tried[r], trial, window=128))
    return [tried[rate], *(trained(model, rate, seed, loss) for seed in (1, 2))]


def calibrated(bits, seed, start=dense):
    model, batches = copy.deepcopy(start), itertools.islice(lessons(0, seed), steps)
    quantization.gptq_(model, list(batches), bits, act_order=True, damping=0.1)
    return model


# %% [markdown]
# Two bits first.

# %% rtol=0.1
on_grid = {
    "rounded": [prepared(2)] * 3,
    "GPTQ": [calibrated(2, seed) for seed in seeds],
    "QAT by text": best_of(prepared(2), model_loss),
    "QAT by the teacher": best_of(prepared(2)),
    "no grid, by text": best_of(dense, model_loss, (1e-4,)),
}
two = {name: rise(found) for name, found in on_grid.items()}
for name, ratios in two.items():
    print(f"{name:20}", *(f"{ratio:.2f}" for ratio in ratios))
order = sorted(list(two)[:4], key=lambda name: -sum(two[name]))
compare(guess, ", ".join(order))

# %%
for worse in ("QAT by text", "GPTQ"):
    assert better(two["QAT by the teacher"], two[worse])
assert better(two["GPTQ"], two["rounded"])
assert not better(two["QAT by text"], two["GPTQ"])  # more work, and no gain
assert min(two["no grid, by text"]) > 0.97  # the text alone teaches nothing new
ax = plots.seed_dots(two, "perplexity, dense = 1", each="text")

# %% [markdown]
# *Figure: at 2 bits, training by the teacher comes closest; training by text is no better than GPTQ.*
#
# <details><summary>The figure in words</summary>
#
# Five rows of three dots. Rounded 1.7 to 1.9, GPTQ and QAT by text around 1.5, QAT by the teacher from 1.35 to 1.55, no grid at 1.
#
# </details>
#
# With so little text, the next token is a noisy teacher: it names one word, and the model knew much of it already. The dense model's whole distribution says at every position how the rounded one should be. More steps help both (measured: 96 steps by the teacher 1.34, 1.24, 1.29; by text 1.51, 1.38, 1.39).
#
# At 3 and 4 bits there is less to win back:

# %% rtol=0.05
more = {f"{bits} bits, rounded": [prepared(bits)] * 3 for bits in (4, 3)}
more["3 bits, GPTQ"] = [calibrated(3, seed) for seed in seeds]
more["3 bits, QAT by the teacher"] = [trained(prepared(3), 3e-4, seed) for seed in seeds]
more = {name: rise(found) for name, found in more.items()}
for name, ratios in more.items():
    print(f"{name:28}", *(f"{ratio:.2f}" for ratio in ratios))
assert max(more["4 bits, rounded"]) < 1.03  # nothing is left that could be *better*
assert not better(more["3 bits, QAT by the teacher"], more["3 bits, GPTQ"])

# %% [markdown]
# **At 4 bits no training is needed; at 3 bits GPTQ does as well in less time.** QAT is for 2 bits and below. (The rate of the 3 bits was chosen in the same way, beforehand.)
#
# ## 4 · Three levels
#
# BitNet b1.58 (Ma et al. 2024, arXiv 2402.17764) knows only -1, 0 and 1, times a scale: a product needs no multiplication. Its models are trained like that from the beginning, on billions of tokens. Its step is the mean size of the weights. We ask less: can 16 batches bring the student onto three levels?
#
# **Predict:** does it matter where the step starts, if it learns anyway?

# %% rtol=0.1
guess = ...  # "yes", "no" or "inconclusive"
starts = {"mean size": {"choose_step": mean_step}, "least squares": {}}
three = {"no training": rise([prepared("ternary")] * 3)}
for name, how in starts.items():
    ternary = [trained(prepared("ternary", **how), 1e-3, seed) for seed in seeds]
    three[name] = rise(ternary)
for name, ratios in three.items():
    print(f"{name:14}", *(f"{ratio:.2f}" for ratio in ratios))
matters = better(three["least squares"], three["mean size"])
compare(guess, "yes" if matters else "inconclusive")
assert matters and better(three["mean size"], three["no training"])

# %% [markdown]
# It does: a few steps do not carry a step far. (The rate was chosen beforehand, in the same way.)
#
# And does the *learning* of the step matter? Measured with 32 batches of 4 windows: from the mean size it does (learned 2.05, 1.79, 1.91; fixed 2.29, 1.97, 2.14). From least squares it is inconclusive, with three levels (learned 1.77, 1.53, 1.59; fixed 1.80, 1.57, 1.59) and with 2 bits (learned 1.52, 1.32, 1.39; fixed 1.50, 1.36, 1.38). So LSQ mends a bad start; it adds little to a good one.
#
# ### Steps alone
#
# The other way round: freeze all weights and let only the steps learn, 5,632 numbers.

# %% rtol=0.1
alone = prepared(2).requires_grad_(False)
for step in qat_steps(alone).values():
    step.requires_grad_(True)
print("they are", sum(step.numel() for step in qat_steps(alone).values()), "numbers")
only = rise([trained(alone, 3e-3, seed) for seed in seeds])
print(*(f"{ratio:.2f}" for ratio in only))
assert better(only, two["rounded"]) and not better(two["GPTQ"], only)

# %% [markdown]
# No weight has moved, the integers changed only because the steps did, and the model is as good as GPTQ's.
#
# ## ★ 5 · Integers that answer alike
#
# What was trained is a *simulation*. The promise is only kept if the integers give the same answers. With `activations=8` the simulation rounds each layer's inputs, too, and adds up integers in floats: a float32 holds each whole number up to $2^{24}$ exactly, so no order of adding makes a difference. `convert_qat_` then packs the integers, and chapter 05's kernels multiply them.
#
# **Predict:** of the 2,048 logits a token, what is the largest difference between the simulation and the integers?

# %% atol=0.05
guess = ...  # a number
model = trained(prepared(2, activations=8), 1e-3, 0)
with torch.no_grad():
    simulated = model(texts[0][None, :64]).logits
print(convert_qat_(model).total, "bytes saved")
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
# **Predict:** in which order do before, on and after come, the worst first?

# %% rtol=0.1
guess = ...  # such as "on, before, after"
frozen = [trained(model, 1e-3, seed) for seed, model in enumerate(on_grid["GPTQ"])]
fine = on_grid["no grid, by text"]
when = {
    "before": rise([calibrated(2, seed, model) for seed, model in enumerate(fine)]),
    "on": two["QAT by the teacher"],
    "after": rise(frozen),
}
for name, ratios in when.items():
    print(f"{name:6}", *(f"{ratio:.2f}" for ratio in ratios))
compare(guess, ", ".join(sorted(when, key=lambda name: -sum(when[name]))))

# %% [markdown]
# **Before** is lost: what was learned in floats is rounded away, and GPTQ ends where it did without. **After** is better than GPTQ alone, though none of its integers moves: norms and table make up for much. Against training *on* the grid it is inconclusive, and it needs no grid in training at all. (GPTQ first and then training on the grid did best of all in a longer run: 1.44, 1.36, 1.35.)

# %%
assert better(when["after"], two["GPTQ"])
assert not better(when["before"], two["GPTQ"])

# %% [markdown]
# ## 7 · Zeros that stay
#
# Pruned weights are zeros, and 0 is on every grid without a zero point. So a model can be pruned *and* rounded, if training does not refill the zeros. `hold_masks` (chapter 03) holds them, in prepared layers, too.

# %% rtol=0.05
masks = pruning.layer_mask(pruning.magnitude_scores(dense), 0.5)
thin, held = copy.deepcopy(dense), []
pruning.prune_(thin, masks)
for seed in seeds:
    model = copy.deepcopy(thin)
    prepare_qat_(model, 4)
    with pruning.hold_masks(model, masks):
        train(model, lessons, Recipe(steps, 1e-3, 3, seed=seed), by_teacher, progress=False)
    convert_qat_(model)
    for name, mask in masks.items():
        assert not model.get_submodule(name).integers()[~mask].any()
    held.append(model)

# %% rtol=0.05
quantization.quantize_(thin, 4)
both = {"pruned, rounded": rise([thin] * 3), "pruned, trained on the grid": rise(held)}
print({name: [f"{ratio:.2f}" for ratio in row] for name, row in both.items()})
assert better(both["pruned, trained on the grid"], both["pruned, rounded"])

# %% [markdown]
# Every zero is a zero among the integers. (Hold the model that is *trained*: a copy made within the `with` block is not held.)
#
# Not held, only one integer in ten thousand stopped being a zero in such a run: most latent weights do not get as far as half a step. A grid nearly holds zeros by itself, and *nearly* is not enough for a format that leaves them out.
#
# ## 8 · The ledger
#
# The student, whole and really packed, its table of words in 8 bits. (Chapter 05's integer layers hold 4 or 8 bits for a weight; `codes=True` stores narrower ones as chapter 09's codes. GPTQ's 2 bits stand in 4 here.) Quality: the mean of three texts, one seed each. Latency: a text of 128 tokens.


# %%
def packed(found, prepared=False):
    """Return copies as integers, with the table in 8 bits."""
    copies = [copy.deepcopy(model) for model in found]
    for model in copies:
        if prepared:
            convert_qat_(model, codes=True)
        quantization.quantize_(model, 8, embeddings=8)
    return copies


# %% [markdown]
# Six variants, three models each:

# %%
variants = {
    "floats": [dense] * 3,
    "4 bits, rounded": packed([prepared(4)] * 3, prepared=True),
    "2 bits, GPTQ": packed(on_grid["GPTQ"]),
    "2 bits, on the grid": packed(on_grid["QAT by the teacher"], prepared=True),
    "three levels, on the grid": packed(ternary, prepared=True),
    "half pruned, 4 bits": packed(held),
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
# *Figure: 4 bits keep the quality; 2 bits trained on the grid are smaller, and cost more than a third.*
#
# <details><summary>The figure in words</summary>
#
# Perplexity as a multiple of the float model's over megabytes stored. Floats at 4.5 MB and 1. All others are below 1 MB: 4 bits near 1.02, half pruned and 4 bits near 1.15, 2 bits on the grid at 1.4, GPTQ's 2 bits at 1.5, three levels at 1.7.
#
# </details>
#
# Look at what the last bits cost: from 4 to 2 bits the file becomes a third smaller, and the perplexity rises by more than a third. With training a hundred or a thousand times as long the papers lose far less. For who has minutes and a laptop, **4 bits and a good rounding are the better bargain**; training on the grid is for who must have 2.
#
# ## **Spot the bug**
#
# A layer that trains on the grid, in four lines, as many repositories have it. It runs, its answers are those of the rounded weight, and the loss does not fall. What is wrong, and which test would show it? Find it before you read on.


# %%
def on_grid_with_bug(weight, step):
    """Return the rounded weight. (This is the version with the bug.)"""
    rounded = (weight / step).round().clamp(-2, 1) * step
    return weight + (rounded - weight)


# %%
weight = torch.tensor([0.3, -0.8, 0.1], requires_grad=True)
answer = on_grid_with_bug(weight, 0.5)
answer.sum().backward()
print("answer:", answer.tolist(), " gradient:", weight.grad.tolist())

# %% [markdown]
# <details><summary>Answer</summary>
#
# `weight + (rounded - weight)` has the right value, but autograd sees through it: the two `weight` cancel, and what is left is the gradient of `rounded`, which is 0. The difference has to be hidden from it: `weight + (rounded - weight).detach()`. The test looks at a gradient: behind a straight-through estimator it is 1 inside the grid. (A test of answers cannot tell the two apart. Neither can one that only asks whether a gradient *exists*.)
#
# </details>

# %%
mended = weight + (on_grid_with_bug(weight, 0.5) - weight).detach()
weight.grad = None
mended.sum().backward()
assert torch.equal(mended, answer) and weight.grad.tolist() == [1, 1, 1]

# %% [markdown]
# ## What papers say, and what we measured
#
# | paper | says | we measured | same order? |
# |---|---|---|---|
# | Bengio et al. 2013, 1308.3432 | pretending slope 1 serves best among the estimators they try | it trains; others were not tried | not tested |
# | Esser et al. 2019, 1902.08153 | learned steps train 2 bits better than fixed ones | from a bad start yes; from a good one inconclusive, in 16 to 32 batches | in part |
# | Ma et al. 2024, 2402.17764 | trained from the start, three levels equal floats | a finished model, 16 batches: perplexity times 1.6 to 1.8 | not tested: far too little training |
# | Liu et al. 2023, 2305.17888 (LLM-QAT) | training on the grid by the model's own predictions beats rounding without training, most at few bits | nothing to win at 4, inconclusive at 3, better at 2 | yes: the fewer bits, the more |
#
# ## Summary
#
# - **Pretended** is the slope of rounding, 1; clamped weights really have 0. The float behind each integer collects small steps.
# - **LSQ**: inside, the step's gradient is the error of rounding; outside, the last level. It mended a bad start, and added little to a good one.
# - **At 2 bits** training by the teacher was better than GPTQ and than training by text, at equal data. At 3 bits it was inconclusive, at 4 nothing was left to win.
# - **Integers** answered bit for bit as the simulation did.
# - **When:** fine-tuning before rounding was lost; norms and table trained *after* it were nearly as good as training on the grid.
# - **Zeros** stay zeros if they are held.
#
# ## Further reading
#
# - Esser et al. 2019, *Learned step size quantization* (arXiv 1902.08153): section 2, all of it.
# - Ma et al. 2024, *The era of 1-bit LLMs* (arXiv 2402.17764): two pages are enough.
# - In this repository: `lightcourse/quantization/fake.py`, `learned_steps.py` and `qat.py`.
