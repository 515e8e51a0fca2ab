# %% [markdown]
# # 03 · Pruning — which weights may go, what brings a model back, and why zeros alone save nothing
#
# **You will be able to**
#
# - prune a model by a score and a mask, and choose both;
# - find the part of a model that must be spared, and put the zeros elsewhere;
# - train a pruned model without losing its zeros, beside a control;
# - turn zeros into bytes and into time, and say from which share of zeros on that pays.
#
# **You need:** chapters 00 and 01, and for section 4 what LoRA is (section 4 of chapter 02). **Time:** 61 minutes of reading, 25 for the parts marked ★ (the fast path). The whole notebook runs in about a minute.
#
# Where a paragraph begins with **Predict**, write your guess into the next cell, in place of the dots.

# %%
import copy
import math
from functools import partial

import torch

import lightcourse
from lightcourse import data, layers, lora, metrics, models, plots, pruning
from lightcourse.guessing import compare
from lightcourse.training import Recipe, train

lightcourse.setup()

# %% [markdown]
# Pruning a matrix takes two decisions. A **score** says how much each weight matters; the simplest is its size, $|w|$. A **mask** says which weights are kept: sort the scores, and remove the lowest.

# %%
toy = torch.tensor([[0.2, -0.7, 0.3, 0.1], [0.9, -0.6, 0.1, 0.5], [-1.4, 0.2, -0.2, 1.1]])
toy_mask = pruning.layer_mask(toy.abs(), 0.5)
axes = plots.pruning_steps(toy, toy_mask)

# %% [markdown]
# *Figure: from left to right, one matrix is scored, masked and pruned; it is no smaller than before.*
#
# <details><summary>The figure in words</summary>
#
# Four grids of three rows and four columns. The first holds the weights, positive and negative. The second holds their sizes, the third a 1 for each weight that is kept and a 0 for each that is removed, the fourth what is left. Six cells of twelve are grey: those with the smallest sizes. In the fourth grid they hold 0.
#
# </details>
#
# ## ★ 1 · Size tells a lot
#
# ### A real model, and three texts
#
# The tiny *student* of chapter 01 can be pruned again and again in seconds. Its embeddings stay as they are (they are its output layer, too). Only the matrices of its four layers are pruned.
#
# Unless said otherwise, results are measured on three held-out **texts**. Where chance plays a part, each text has its own **seed**, too.

# %% rtol=0.01
dense = models.load_tiny_lm("student")
tokenizer = models.load_tiny_tokenizer()
learn, held_out = (data.speech_tokens(tokenizer, split) for split in ("validation", "test"))
texts, seeds = data.excerpts(held_out, 3), (0, 1, 2)
whole = [metrics.perplexity(dense, text, window=128) for text in texts]
magnitude = pruning.magnitude_scores(dense)
weights = sum(score.numel() for score in magnitude.values())
parameters = sum(p.numel() for p in dense.parameters())
print(f"{len(magnitude)} matrices, {weights:,} of {parameters:,} parameters, can be pruned")
print("perplexities of the dense model:", [round(value, 1) for value in whole])

# %% [markdown]
# The texts are not equally hard, so all results are ratios to the **dense** model, the one that is not pruned: 1.25 means that perplexity is 1.25 times that of the dense model on the same text.
#
# When is one method better than another? Luck may move such ratios by a few percent. So in this chapter, **better** means: by more than 5 %, on each of the three texts. Otherwise the answer is *inconclusive*.


# %%
def pruned(masks, model=dense):
    model = copy.deepcopy(model)
    pruning.prune_(model, masks)
    return model


def rise(*models):
    """Return perplexity, dense = 1, on each text: of one model, or of one model a text."""
    trials = zip(models * 3, texts, whole, strict=False)
    return [round(metrics.perplexity(m, text, window=128) / one, 2) for m, text, one in trials]


def better(first, second):
    return all(1.05 * a < b for a, b in zip(first, second, strict=True))


# %% [markdown]
# **Predict:** half of the 851,968 weights are removed, the smallest of each matrix (`layer_mask`). By how many percent does the perplexity of the first text rise?

# %%
guess = ...  # percent; write a number in place of the dots

# %% rtol=0.03
half = pruned(pruning.layer_mask(magnitude, 0.5))
random = [pruning.random_scores(dense, seed) for seed in seeds]
chance = rise(*(pruned(pruning.layer_mask(scores, 0.5)) for scores in random))
smallest = rise(half)
compare(guess, 100 * (metrics.perplexity(half, texts[0], window=128) / whole[0] - 1), "%")
print(f"the smallest removed {smallest}, at random {chance}")
assert max(smallest) < 1.35 and min(chance) > 10

# %% [markdown]
# Perplexity is about a quarter higher; with as many zeros at random, it is more than 10 times as high. The size of a weight tells a lot.
#
# And is the model smaller now? Beside ours, PyTorch's own tool, `torch.nn.utils.prune`:

# %%
from torch.nn.utils import prune

theirs = copy.deepcopy(dense)
matrices = [(theirs.get_submodule(name), "weight") for name in magnitude]
prune.global_unstructured(matrices, pruning_method=prune.L1Unstructured, amount=0.5)
for name, model in {"dense": dense, "ours": half, "theirs": theirs}.items():
    print(f"{name}: {metrics.size_in_bytes(model):,} bytes")

# %% [markdown]
# Ours is as large as before, theirs has *grown*: PyTorch keeps each old weight beside its mask. (`prune.remove` brings back the old size, not a smaller one.) Section 5 is about bytes.
#
# ## 2 · Better scores: look at the inputs
#
# ### Wanda: weight times the size of its input
#
# A layer computes $y_i = \sum_j W_{ij} x_j$. A large weight on an input that is always near zero does nothing. **Wanda** (Sun et al. 2023, arXiv 2306.11695) multiplies the size of a weight by the size of its input, measured on some **calibration** text. Such a text is only run through the model, to see what its layers are given. Nothing is trained.
#
# $$S_{ij} = |W_{ij}| \cdot \lVert x_j \rVert_2$$
#
# $\lVert x_j \rVert_2$ (`input_norms`) is the root of the sum of squares of input $j$ over all tokens.
#
# **Predict:** the first output below has the weights 0.5 and −3. Which of them does Wanda remove, if half of each row goes?

# %%
guess = ...  # 0.5 or -3

# %%
matrix = torch.tensor([[0.5, -3.0], [1.0, 2.0]])
x = torch.tensor([[4.0, 0.1], [-4.0, 0.2], [2.0, -0.2]])  # three tokens, two inputs
norms = x.square().sum(0).sqrt()
wanda = matrix.abs() * norms
assert torch.equal(wanda, pruning.wanda_scores(matrix, norms))
compare(guess, matrix[0][~pruning.row_mask(wanda, 0.5)[0]].item())
print("input norms:", [round(norm, 1) for norm in norms.tolist()])

# %% [markdown]
# <details><summary>Why</summary>
#
# The second input never exceeds 0.2, so the weight of −3 adds at most 0.6 to the output. The weight of 0.5 adds up to 0.5 × 4 = 2.
#
# </details>
#
# ### SparseGPT: the weights that stay are adjusted
#
# If two inputs are always equal, one weight can do the work of both: $1 \cdot x + 2 \cdot x = 3 \cdot x$. **Optimal Brain Surgeon** (Hassibi & Stork 1993) removes a weight and *adjusts the others*. For one output with weights $w$, and $H = \sum x x^\top$ over the calibration tokens (`hessians`), the cheapest way to remove weight $q$ is to add $\delta$ to all weights:
#
# $$\delta = -\frac{w_q}{[H^{-1}]_{qq}}\, H^{-1}_{:,q} \qquad\text{and it costs}\qquad \frac{w_q^2}{[H^{-1}]_{qq}}$$
#
# more squared error in the output. ($H$ is called the *Hessian*: up to a factor 2, it is the second derivative of that error. Exercise 5 derives both.) Below, the first two of three inputs are nearly equal.
#
# **Predict:** the weights are 1.0, 2.0 and 0.8. Which one is the cheapest to remove, if the others may be adjusted?

# %%
guess = ...  # 1.0, 2.0 or 0.8

# %%
torch.manual_seed(0)
x = torch.randn(200, 3).double()
x[:, 1] = x[:, 0] + 0.1 * x[:, 1]
w = torch.tensor([1.0, 2.0, 0.8]).double()
inverse = (x.T @ x).inverse()
compare(guess, w[(w.square() / inverse.diagonal()).argmin()].item())
for q in range(3):
    zeroed = w * (torch.arange(3) != q)
    adjusted = w - w[q] / inverse[q, q] * inverse[:, q]
    plain, best = ((x @ (new - w)).square().sum() for new in (zeroed, adjusted))
    left = [round(value, 2) + 0.0 for value in adjusted.tolist()]
    print(f"without {w[q]:.1f}: error {plain:.0f}; adjusted {best:.0f}, with weights {left}")

# %% [markdown]
# Where the others are adjusted, the smallest weight is the *most expensive* to remove: its input is independent of the other two, so no other weight can compensate for it. The weight of 1.0 costs nearly nothing: its neighbour becomes about 3 and does the work of both.
#
# Done exactly, each row needs an inverse of its own, and a new one after each weight that is removed. **SparseGPT** (Frantar & Alistarh 2023, arXiv 2301.00774) goes through the columns from left to right, and adjusts only the columns to the *right*. Then all rows share the same inverses. A small number, the *damping*, is added to the diagonal of $H$, so that it has an inverse.
#
# ### Three methods, and a control
#
# Each method has its usual mask. Magnitude is compared within a matrix (*layer*), Wanda within the weights of one output (*row*), SparseGPT within blocks of 128 columns. So score *and* mask differ; "magnitude, row" is the control that tells them apart. Calibration: 64 windows of 128 tokens, others for each seed. The norms for Wanda are the roots of the diagonal of $H$.

# %%
samples = [next(iter(data.token_batches(learn, 128, 64)(0, seed))) for seed in seeds]
hessians = [pruning.hessians(dense, [sample]) for sample in samples]
norms = [{name: h.diagonal().sqrt() for name, h in found.items()} for found in hessians]
wanda = [pruning.wanda_scores(dense, norm) for norm in norms]


def adjusted(hessian, sparsity, model=dense):
    model = copy.deepcopy(model)
    pruning.sparsegpt_(model, hessian, partial(pruning.layer_mask, sparsity=sparsity))
    return model


# %% rtol=0.03
curves = {name: {} for name in ("magnitude", "magnitude, row", "Wanda", "SparseGPT")}
for s in (0.3, 0.5, 0.7):
    curves["magnitude"][s] = rise(pruned(pruning.layer_mask(magnitude, s)))
    curves["magnitude, row"][s] = rise(pruned(pruning.row_mask(magnitude, s)))
    curves["Wanda"][s] = rise(*(pruned(pruning.row_mask(scores, s)) for scores in wanda))
    curves["SparseGPT"][s] = rise(*(adjusted(hessian, s) for hessian in hessians))
ax = plots.sparsity_curves(curves, "perplexity, dense = 1")
for name, line in curves.items():
    print(f"{name:14} 50 % zeros {line[0.5]}, 70 % {line[0.7]}")
by_size, by_row, wanda_70, best = (line[0.7] for line in curves.values())
print("70 %, magnitude ÷ by row:", [round(a / b, 2) for a, b in zip(by_size, by_row, strict=True)])
assert better(best, wanda_70) and better(wanda_70, by_row)
for at_half in zip(*(line[0.5] for line in curves.values()), strict=True):
    assert max(at_half) < 1.12 * min(at_half)

# %% [markdown]
# *Figure: up to half of the weights the method matters little; at 70 % it matters a lot.*
#
# <details><summary>The figure in words</summary>
#
# Perplexity as a multiple of the dense model's, over 30, 50 and 70 % zeros. Four lines through the means of three texts, bands from the lowest to the highest. At 30 % all four are close to 1, at 50 % between about 1.15 and 1.3. At 70 % they have spread: magnitude is highest, at more than 3, magnitude by row a little lower, then Wanda, and SparseGPT lowest, near 2.
#
# </details>
#
# At 70 %, SparseGPT is better than Wanda, and Wanda than the control with the same mask. So Wanda's lead is the score's, not the mask's. Between magnitude's two masks the last line is too near to the rule to call: about 4 % on one text. At 50 % all four lie within 12 % of each other: when less is removed, the choice of method matters much less.
#
# ### Break it: the wrong text, or too little
#
# A comparison has three outcomes:


# %%
def verdict(first, second):
    """Return how the first does beside the second, by the rule of section 1."""
    ahead = "better" if better(first, second) else "inconclusive"
    return "worse" if better(second, first) else ahead


# %% [markdown]
# **Predict:** 60 % zeros. Wanda is calibrated on random tokens instead of speeches. Is it better than magnitude with the same mask (*row*), worse, or is it inconclusive?

# %%
guess = ...  # "better", "worse" or "inconclusive"

# %% rtol=0.03
noisy, single = [], []
for seed, sample in enumerate(samples):
    torch.manual_seed(seed)
    noise = {"input_ids": torch.randint(2048, (64, 128))}
    scores = pruning.wanda_scores(dense, pruning.input_norms(dense, [noise]))
    noisy.append(pruned(pruning.row_mask(scores, 0.6)))
    window = {"input_ids": sample["input_ids"][:1]}
    single.append(adjusted(pruning.hessians(dense, [window]), 0.6))
by_row, noisy, single = rise(pruned(pruning.row_mask(magnitude, 0.6))), rise(*noisy), rise(*single)
compare(guess, verdict(noisy, by_row))
print(f"Wanda on random tokens {noisy}, SparseGPT on 1 window {single}, magnitude {by_row}")
assert better(by_row, noisy) and better(noisy, single)

# %% [markdown]
# Both are *worse* than magnitude. Random tokens show Wanda how large the inputs are for random tokens. And one window has 128 tokens, where most matrices have 128 inputs, and the `down_proj` even 384: as many unknowns as examples or more. The adjustment fits the accidents of this window, and no other text.
#
# ## 3 · Where the zeros go
#
# ### Which weights are compared with each other
#
# The score ranks weights; the mask decides which weights are ranked together. Here is a matrix whose first output has small weights and whose last output has large ones, pruned in three ways.

# %%
torch.manual_seed(0)
weight = torch.randn(4, 8) * torch.tensor([[0.3], [1.0], [1.0], [2.0]])
masks = {
    "layer": pruning.layer_mask(weight.abs(), 0.5),
    "row": pruning.row_mask(weight.abs(), 0.5),
    "2 of 4": pruning.n_of_m_mask(weight.abs(), 2, 4),
}
axes = plots.weight_maps({"dense": weight} | {name: weight * m for name, m in masks.items()})

# %% [markdown]
# *Figure: "layer" takes nearly everything from the output with small weights; "row" and "2 of 4" take the same from all.*
#
# <details><summary>The figure in words</summary>
#
# The same 4 × 8 weights four times; red and blue are the signs, darker is larger, grey is exactly zero. "Layer" leaves one weight in the first row and most of the last two. "Row" leaves four in every row. "2 of 4" leaves two in every four neighbours of a row.
#
# </details>
#
# `global_mask` is freer still: it compares the weights of the whole model. 2 of 4 (2:4, Mishra et al. 2021, arXiv 2104.08378), whose zeros some GPUs can skip, leaves hardly any choice.
#
# **Predict:** the more freedom, the better the model? All by magnitude, all with 50 % zeros: is *global* better than *layer*, worse, or is it inconclusive?

# %%
guess = ...  # "better", "worse" or "inconclusive"

# %% rtol=0.02
groups = {
    "global": pruning.global_mask(magnitude, 0.5),
    "layer": pruning.layer_mask(magnitude, 0.5),
    "row": pruning.row_mask(magnitude, 0.5),
    "4 of 8": pruning.n_of_m_mask(magnitude, 4, 8),
    "2 of 4": pruning.n_of_m_mask(magnitude, 2, 4),
}
by_group = {name: rise(pruned(masks)) for name, masks in groups.items()}
compare(guess, verdict(by_group["global"], by_group["layer"]))
for name, values in by_group.items():
    print(f"{name:7}", values)
*_, row, wider, narrower = by_group.values()
assert better(row, wider) and better(wider, narrower)

# %% [markdown]
# Row, 4 of 8, 2 of 4: the less choice, the worse, as expected. But *global*, the freest of all, is worse than layer. From where did it take its zeros? The next cell names the two matrices that lost most. Then it gives just these two the usual 50 % and compares all the others globally, so that again half of all weights are zero.

# %% rtol=0.02
taken = {name: 1 - mask.float().mean().item() for name, mask in groups["global"].items()}
two = sorted(taken, key=taken.get)[-2:]
for name in two:
    print(f"{name}: {taken[name]:.0%} removed, mean size {magnitude[name].mean():.3f}")
rest = {name: score for name, score in magnitude.items() if name not in two}
mended = pruned(pruning.global_mask(rest, 0.5) | {name: groups["layer"][name] for name in two})
again, layer_wise = rise(mended), by_group["layer"]
print(f"mended, {metrics.sparsity(mended):.1%} zeros: {again}")
assert better(again, by_group["global"])
assert not better(again, layer_wise) and not better(layer_wise, again)

# %% [markdown]
# Two matrices were the damage: *global* took nearly nine of ten weights from them, because their numbers are small. But sizes of different matrices are not on one scale. Multiply `v_proj` by 4 and divide `o_proj` by 4, and the model computes the same, while *global* would choose other weights. "Global beats local", which one can read, is no law.
#
# ### Which layers must be spared?
#
# Measure each part alone: prune 80 % of *one* attention or feed-forward block (`mlp`), and leave the rest dense. This is measured on validation text, so that the test texts judge the choice and do not make it.
#
# **Predict:** the model has four layers, 0 to 3. In which one is the most sensitive block?

# %%
guess = ...  # 0, 1, 2 or 3

# %% rtol=0.02
trials = data.excerpts(learn[200_000:], 3, apart=20_000)
start = [metrics.perplexity(dense, trial, window=128) for trial in trials]
sensitivity = {}
for block, part in [(block, part) for block in range(4) for part in ("self_attn", "mlp")]:
    inside = {n: score for n, score in magnitude.items() if f"layers.{block}.{part}" in n}
    small = pruned(pruning.layer_mask(inside, 0.8))
    found = [metrics.perplexity(small, trial, window=128) for trial in trials]
    sensitivity[f"layer {block}, {part}"] = [a / b for a, b in zip(found, start, strict=True)]
ax = plots.seed_dots(sensitivity, "perplexity, dense = 1", each="text")
worst = max(sensitivity, key=lambda name: min(sensitivity[name]))
other = max(max(found) for name, found in sensitivity.items() if name != worst)
compare(guess, int(worst[len("layer ")]))
print(f"{worst}: {min(sensitivity[worst]):.1f} or more, all others {other:.2f} or less")
assert min(sensitivity[worst]) > 5 * other

# %% [markdown]
# *Figure: one block of eight carries nearly all of the damage, the feed-forward block of layer 0.*
#
# <details><summary>The figure in words</summary>
#
# Eight rows, one for each block, with a dot for each of three texts; the axis is logarithmic. Seven blocks lie close to 1, none above 1.3. The feed-forward block of layer 0 stands far to the right, above 10.
#
# </details>
#
# A mask cannot know this; a trial shows it. So put the zeros elsewhere: at 70 % in total, this block gets only 50 %, and all others a little more. The control spares the feed-forward block of the *last* layer instead.

# %%
first, last = ([n for n in magnitude if f"layers.{block}.mlp" in n] for block in (0, 3))
spared = sum(magnitude[n].numel() for n in first)
others = (0.7 * weights - 0.5 * spared) / (weights - spared)


def allot(scores, mask, block=first):
    return pruned({n: mask(score, 0.5 if n in block else others) for n, score in scores.items()})


def allot_adjusted(hessian):
    inside = {n: hessian[n] for n in first}
    outside = {n: hessian[n] for n in hessian.keys() - inside.keys()}
    return adjusted(outside, others, adjusted(inside, 0.5))


# %% rtol=0.03
by_size = allot(magnitude, pruning.layer_mask)
spared_first = {
    "magnitude": rise(by_size),
    "Wanda": rise(*(allot(scores, pruning.row_mask) for scores in wanda)),
    "SparseGPT": rise(*map(allot_adjusted, hessians)),
}
control = rise(allot(magnitude, pruning.layer_mask, last))
print(f"{others:.1%} in the others, {metrics.sparsity(by_size):.1%} in total")
for name, values in spared_first.items():
    print(f"{name:10} 70 % everywhere {curves[name][0.7]}, first block spared {values}")
    assert better(values, curves[name][0.7])
print(f"magnitude, last block spared {control}")
assert better(spared_first["magnitude"], curves["SparseGPT"][0.7])
assert better(curves["magnitude"][0.7], control)

# %% [markdown]
# This *allotment* helps all three methods, and SparseGPT stays the best. Wanda's lead over magnitude is gone: now it is inconclusive. But plain magnitude with the allotment is better than SparseGPT without: here it mattered more where the zeros go than how they are scored. And it has to be the *right* block: the control is worse than 70 % everywhere.
#
# ## 4 · Recovery
#
# ### Hold the zeros while training
#
# A pruned model can learn again. **Predict:** 70 % zeros, then one single ordinary training step. What share of the weights is zero now?

# %%
guess = ...  # percent

# %% atol=0.01
masks = pruning.layer_mask(magnitude, 0.7)
lessons = data.token_batches(learn[:200_000], window=64, batch_size=4)
leaky, held = pruned(masks), pruned(masks)
train(leaky, lessons, Recipe(steps=1))
with pruning.hold_masks(held):
    train(held, lessons, Recipe(steps=1))
compare(guess, 100 * metrics.sparsity(leaky), "%")
print(f"with hold_masks: {metrics.sparsity(held):.1%}")

# %% [markdown]
# Nearly all zeros are gone. The optimizer (Adam) moves every weight that has a gradient, by about the learning rate, and a zero is a weight like any other. `hold_masks` clears the gradients of pruned weights, and sets them to zero again after each step.
#
# ### Twenty-five steps
#
# - **masks held**: prune 70 % at once, by magnitude, then train what is left;
# - **LoRA**: the pruned matrices are frozen, an update of rank 8 is trained beside them (chapter 02);
# - the **control**: the *dense* model gets the same steps. It shows what the text teaches without any pruning.


# %%
def trained(model, rate, seed):
    recipe = Recipe(steps=25, learning_rate=rate, warmup_steps=3, seed=seed)
    train(model, lessons, recipe)
    return model


def masks_held(rate, seed):
    with pruning.hold_masks(model := pruned(masks)):
        return trained(model, rate, seed)


def low_rank(rate, seed):
    lora.add_lora_(model := pruned(masks), rank=8, alpha=16)
    return trained(model, rate, seed)


# %% [markdown]
# Each gets the best of three learning rates, the control too: one seed, on validation text that no method learns from. The winner is then trained with the two other seeds.

# %% rtol=0.02
methods = {
    "masks held": (masks_held, (3e-4, 1e-3, 3e-3)),
    "LoRA": (low_rank, (1e-3, 3e-3, 1e-2)),
    "control": (lambda rate, seed: trained(copy.deepcopy(dense), rate, seed), (1e-5, 1e-4, 1e-3)),
}
done = {}
for name, (method, rates) in methods.items():
    found = {rate: method(rate, seed=0) for rate in rates}
    scores = {r: metrics.perplexity(m, trials[0], window=128) / start[0] for r, m in found.items()}
    best = min(scores, key=scores.get)
    done[name] = [found[best], method(best, 1), method(best, 2)]
    print(f"{name:10}", {rate: round(score, 2) for rate, score in scores.items()})

# %% [markdown]
# The control gains nothing at any rate: this text teaches the dense model nothing in 25 steps. Now the test texts. LoRA's update is also **merged**, $W + \frac{\alpha}{r} BA$, and what comes out is pruned again with the same mask.

# %% rtol=0.03
runs = {name: rise(*found) for name, found in done.items()}
for model in done["LoRA"]:
    lora.merge_lora_(model)
refilled = metrics.sparsity(done["LoRA"][0])
runs["LoRA, merged, pruned again"] = rise(*(pruned(masks, model) for model in done["LoRA"]))
start_70 = curves["magnitude"][0.7]
ax = plots.seed_dots({"pruned": start_70} | runs, "perplexity, dense = 1", each="text")
print(runs)
print(f"LoRA, merged: {refilled:.0%} zeros")
held, low, control, again = runs.values()
for lost, left in zip(start_70, held, strict=True):
    loss = math.log(lost / left) / math.log(lost)
    print(f"masks held won back {(lost - left) / (lost - 1):.0%}, of the loss {loss:.0%}")
assert better(held, again) and better(again, start_70) and max(control) < 1.01

# %% [markdown]
# *Figure: masks held and LoRA bring the model back halfway; the control stays where the dense model is, at 1; merging LoRA and pruning again gives much of the gain away.*
#
# <details><summary>The figure in words</summary>
#
# Five rows with a dot for each of three texts. Pruned: above 3. Masks held and LoRA: near 2, and nearly equal. Control: at 1. LoRA merged and pruned again: between pruned and recovered, near 2.5.
#
# </details>
#
# - Twenty-five steps win back about half of the rise in *perplexity*; counted as *loss*, its logarithm, about 40 %. It is really recovery: the control has read the same text and gained nothing.
# - LoRA against masks held is inconclusive. But **merging refills**: $BA$ is dense. To keep both, leave the update beside the matrix and pay for it at run time, or mask the product while training.
#
# (One can also remove weights little by little during the training: Zhu & Gupta 2017, arXiv 1710.01878, `gradual_schedule`. That is made for long trainings.)
#
# ## ★ 5 · Zeros are not bytes, and not time
#
# ### Bytes
#
# A file can leave zeros out. **CSR** (compressed sparse rows) stores each value that is not zero, the number of its column, and where each row starts. **Mask and values** (`save_pruned`) stores one bit for each weight, and the values that are not zero. Here is the matrix of the first figure again:

# %%
import gzip
import tempfile
import warnings
from pathlib import Path

warnings.filterwarnings("ignore", message="Sparse CSR")  # torch calls its CSR a beta
axes = plots.sparse_formats(toy.masked_fill(~toy_mask, 0))

# %% [markdown]
# *Figure: one pruned matrix, written down in three ways; half of it is zero, and CSR is larger than dense.*
#
# <details><summary>The figure in words</summary>
#
# Three by four weights, six of them zero. Dense: twelve values of 4 bytes, 48 bytes. CSR: six values, six column numbers and four row starts of 4 bytes each, 64 bytes. Mask and values: twelve bits, which take 2 bytes, and six values, 26 bytes in all.
#
# </details>
#
# Now a real matrix: 1,536 × 384, from MiniLM. **Predict:** from which share of zeros on is CSR smaller than dense?

# %%
guess = ...  # percent of zeros

# %%
minilm = models.load_minilm()
full = minilm.encoder.layer[0].intermediate.dense.weight.detach()
layer = torch.nn.Linear(384, 1536, bias=False)
shares = [s for s in range(100) if 8 * full.numel() * (1 - s / 100) + 4 * 1537 < full.nbytes]
compare(guess, shares[0], "%")
for s in (0.0, 0.5, 0.7, 0.9):
    layer.weight.data = full.masked_fill(~pruning.layer_mask(full.abs(), s), 0)
    csr = 8 * int((layer.weight != 0).sum()) + 4 * 1537
    with tempfile.TemporaryDirectory() as folder:
        packed = pruning.save_pruned(layer, Path(folder, "one.safetensors")).stat().st_size
    zipped = len(gzip.compress(layer.weight.detach().numpy().tobytes())) / full.nbytes
    print(f"{s:.0%} zeros: dense {full.nbytes:,}, CSR {csr:,}, mask {packed:,}, gzip {zipped:.2f}")

# %% [markdown]
# <details><summary>Where they cross</summary>
#
# CSR takes 8 bytes for each value that is left, and a few for the row starts: smaller than dense only above 50 % zeros. (torch's own CSR has 8-byte indices: above 67 %.) The mask costs 1 bit for each weight, 1/32 of its 4 bytes: it pays above 3.1 %. (Without zeros a matrix is simply stored dense, behind the file's header.) Gzip, shown as a share of the dense bytes, does about as well, but it makes the dense matrix smaller, too: always zip *both*.
#
# </details>
#
# And the whole tiny model with half of its weights zero, saved and loaded again:

# %%
fresh = models.new_tiny_lm("student").eval()
with tempfile.TemporaryDirectory() as folder:
    file = pruning.save_pruned(half, Path(folder, "pruned.safetensors"))
    pruning.load_pruned_(fresh, file)
    print(f"dense {metrics.size_in_bytes(half):,} bytes, file {file.stat().st_size:,} bytes")
assert all(torch.equal(a, b) for a, b in zip(half.parameters(), fresh.parameters(), strict=True))
print(f"dense, in 16 bits: {metrics.size_in_bytes(copy.deepcopy(dense).half()):,} bytes")

# %% [markdown]
# Smaller, and the same model bit for bit. But look at the last line: the *dense* model, with 16 bits for each number instead of 32, is smaller still, and loses nothing (it came in 16 bits). Chapter 04 is about bits.
#
# ### Time
#
# One token is multiplied by the up-projections of all six layers of MiniLM, stacked into one matrix. "Dense zeros" is what `prune_` leaves behind, CSR is torch's. In the smaller matrix, from 50 % on, that share of the rows is really removed.

# %%
tall = torch.cat([block.intermediate.dense.weight.detach() for block in minilm.encoder.layer])
shares, x, calls, times = (0.0, 0.5, 0.8, 0.9, 0.95), torch.ones(1, 384), {}, {}
for s in shares:
    zeros = tall.masked_fill(~pruning.layer_mask(tall.abs(), s), 0)
    calls["dense zeros", s] = partial(torch.matmul, x, zeros.T)
    calls["CSR", s] = partial(torch.mv, zeros.to_sparse_csr(), x[0])
    if s > 0:  # without a row less it would be the dense matrix once more
        calls["smaller matrix", s] = partial(torch.matmul, x, tall[round(len(tall) * s) :].T)
for (name, s), run in metrics.latencies(calls, repeats=25).items():
    low, high = max(run.median - run.spread / 2, run.median / 2), run.median + run.spread / 2
    times.setdefault(name, {})[s] = [1e6 * low, 1e6 * run.median, 1e6 * high]
ax = plots.sparsity_curves(times, "microseconds for one token")

# %% [markdown]
# *Figure: zeros in a dense matrix save no time; CSR begins above that line and falls below it at a share that depends on the machine; rows that are removed save time at once.*
#
# <details><summary>The figure in words</summary>
#
# Microseconds for one token on a logarithmic axis, over the share of zeros; lines are medians of 25 runs, bands their spread. Dense zeros: a flat line, but for noise. CSR starts above it, falls, and crosses it. The smaller matrix is drawn from 50 % on; it lies below dense zeros, and falls nearly in proportion to its rows.
#
# </details>

# %% clock=true
zeros, csr, small = ({s: one[1] for s, one in line.items()} for line in times.values())
for s in shares:
    print(
        f"{s:.0%} zeros:",
        ", ".join(f"{n} {t[s][1] / zeros[0]:.2f} times" for n, t in times.items() if s in t),
    )
assert csr[0] > zeros[0] and csr[0.95] < zeros[0.95] and 3 * small[0.95] < zeros[0.95]
assert max(zeros.values()) < 3 * min(zeros.values())

# %% [markdown]
# Zeros in a dense matrix cost as much as other numbers. From where on CSR is faster depends on processor and caches: look at your own lines above. (Chapter 05 has a kernel for 8-bit integers that skips zeros.)
#
# ### A layer that is really smaller
#
# No kernel is needed if whole **neurons** are removed: a row of the matrix before the activation, and the column of the next matrix that reads it. `remove_neurons_` does that in every feed-forward block, `remove_heads_` does the same with attention heads. A neuron's score is the norm of the scores of its outgoing weights (`neuron_scores`).
#
# Below are six variants of MiniLM. Where no other score is named, it is Wanda's (section 2): the size of a weight times the size of its input, here on 64 reviews.

# %%
words, reviews = models.load_minilm_tokenizer(), data.load_reviews()
read = next(iter(data.text_batches(reviews["train"], words, 64, 32)(0, 0)))
wanda = pruning.wanda_scores(minilm, pruning.input_norms(minilm, [read]))
chance, sizes = pruning.random_scores(minilm), pruning.magnitude_scores(minilm)
feed_forward = {name: score for name, score in wanda.items() if "attention" not in name}


def without_neurons(scores):
    model = copy.deepcopy(minilm)
    neurons = pruning.neuron_scores(model, scores)
    pruning.remove_neurons_(model, pruning.layer_mask(neurons, 0.5))
    return model


# %% clock=true
variants = {
    "dense": minilm,
    "half zeros": pruned(pruning.row_mask(wanda, 0.5), minilm),
    "half zeros, by size": pruned(pruning.row_mask(sizes, 0.5), minilm),
    "half zeros, at random": pruned(pruning.row_mask(chance, 0.5), minilm),
    "half the neurons": without_neurons(wanda),
    "half the neurons, at random": without_neurons(chance),
    "half the neurons, as zeros": pruned(pruning.row_mask(feed_forward, 0.5), minilm),
}
sentence = words("The plot is thin, but the actors are a joy.", return_tensors="pt")
timed = ("dense", "half zeros", "half the neurons")
runs = metrics.latencies({n: partial(variants[n], **sentence) for n in timed}, repeats=25)
for name, run in runs.items():
    print(f"{name:19} {metrics.size_in_bytes(variants[name]):>10,} bytes in memory, {run}")
print(variants["half the neurons"].encoder.layer[0].intermediate.dense)

# %% [markdown]
# The feed-forward blocks do two thirds of the multiplications in MiniLM's matrices, so half of their neurons are a third of the work, and about so much time is saved. Zeros save none.
#
# ## ★ 6 · The ledger
#
# Quality is the **cosine** between a sentence's embedding and that of the dense model (1 = unchanged), the mean over 72 test sentences. Bytes are those of the file that `save_pruned` writes, or of 16-bit numbers.

# %%
judge = data.ordered_batches(reviews["test"].select(range(72)), words, max_length=32)
before, ledger, cosine = models.embed(minilm, judge), metrics.Ledger("cosine"), {}


def enter(name, model, stored, **more):
    angles = torch.cosine_similarity(models.embed(model, judge), before)
    cosine[name] = angles.view(3, 24).mean(1)  # of each third of the sentences
    ledger.add(name, stored, angles.mean().item(), latency=runs.get(name), **more)


# %% rtol=0.02 clock=true
for name, model in variants.items():
    method = name.partition(",")[0]
    with tempfile.TemporaryDirectory() as folder:
        stored = pruning.save_pruned(model, Path(folder, "file")).stat().st_size
    enter(name, model, stored, control_of=method if method != name else None)
light = copy.deepcopy(minilm).half()
enter("dense, 16 bits", copy.deepcopy(light).float(), metrics.size_in_bytes(light))
print(ledger)
ax = plots.ledger(ledger)
_, free, size, chance, removed, unlucky, spread, light = cosine.values()
assert (free > size + 0.1).all() and (size > chance + 0.3).all()
assert (spread > removed + 0.1).all() and (removed > unlucky + 0.04).all()

# %% [markdown]
# *Figure: half of the weights removed one by one cost less quality than half of the neurons, but only the neurons save time; 16 bits save more bytes than either, and lose nothing.*
#
# <details><summary>The figure in words</summary>
#
# Cosine over megabytes stored. The dense model stands at the right end at a cosine of 1, the dense model in 16 bits far to the left, at 1 as well, with half of the bytes. Half zeros: 70 MB and a cosine near 0.87; its controls, by size and at random, lie below at the same bytes, the second far below. Half of the neurons: 76 MB, near 0.76; its control at random lies below, and as many zeros spread over the same matrices lie above, near 0.92, at nearly the same bytes.
#
# </details>
#
# Read it by column. *Bytes*: 16 bits beat half zeros, at no loss. *Time*: with half zeros, only smaller matrices save any. *Quality*: at the same number of zeros it matters a lot which weights go. Wanda keeps far more than size does, with the same mask; free zeros keep far more than whole neurons, at nearly the same bytes. Nothing was trained here: section 4 shows what that wins back.
#
# ## **Spot the bug**
#
# This function finds the right threshold. What is wrong, and which *number* proves it?


# %%
def prune_smallest_(model, sparsity):
    matrices = [layer.weight.data for layer in layers.linear_layers(model).values()]
    threshold = torch.cat([matrix.abs().flatten() for matrix in matrices]).quantile(sparsity)
    for matrix in matrices:
        matrix[matrix < threshold] = 0


broken = copy.deepcopy(dense)
prune_smallest_(broken, 0.5)
assert min(rise(broken)) > 100
print("perplexity: more than 100 times that of the dense model")

# %% [markdown]
# Find it before you read on.
#
# <details><summary>Answer</summary>
#
# The threshold is one for $|w|$, but the comparison looks at $w$. Every negative weight is "smaller" and is removed, however large its size: half of all weights, and then half of the positive ones too. The test that shows it: count the zeros.
#
# </details>

# %%
print(f"50 % were asked for, {metrics.sparsity(broken):.0%} are zero")

# %% [markdown]
# ## Summary
#
# - **Score and mask.** Without the smallest half of each matrix, perplexity is about a quarter higher; with as many zeros at random, more than 10 times as high. At 70 %, SparseGPT is better than Wanda, and Wanda than magnitude; at 50 % all are within 12 % of each other. On random tokens or a single window, both are worse than magnitude.
# - **Where the zeros go.** One block of eight carries the damage. With it spared, plain magnitude was better than SparseGPT with 70 % everywhere. *Global* was worse than *layer*, and 2 of 4 worse than free rows.
# - **Recovery.** One ordinary step refills nearly all zeros; `hold_masks` keeps them. 25 steps won back about half of the rise in perplexity, and about 40 % of the loss; the control gained nothing. Merging LoRA refills all zeros.
# - **Bytes and time.** CSR is smaller than dense above 50 % zeros, mask and values above 3.1 %. Zeros in a dense matrix save no time. Half of the neurons, removed, save about a third of the time, and cost more quality than as many free zeros.
#
# And large models? At 50 % zeros, LLaMA-2-7B goes from a perplexity of 5.12 to 14.89 by magnitude, 6.42 by Wanda and 6.51 by SparseGPT (the README that goes with Sun et al. 2023). So magnitude collapses there at 50 % already. In large models a few inputs are far larger than all others (LLM.int8, arXiv 2208.07339), and Wanda was made for that.
#
# ## Further reading
#
# - Han et al. 2015, *Learning both Weights and Connections* (arXiv 1506.02626): section 3, prune by size, retrain, repeat.
# - Sun et al. 2023, *A Simple and Effective Pruning Approach for Large Language Models* (arXiv 2306.11695): section 3, Wanda in a page.
# - Frantar & Alistarh 2023, *SparseGPT* (arXiv 2301.00774): section 3, from the surgeon to an algorithm.
# - Zhu & Gupta 2017, *To prune, or not to prune* (arXiv 1710.01878): gradual pruning, and large sparse against small dense models.
# - Frankle & Carbin 2018, *The Lottery Ticket Hypothesis* (arXiv 1803.03635): can one train the sparse model from the start?
