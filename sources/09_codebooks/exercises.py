# %% [markdown]
# # 09 · Codebooks and mixed precision: exercises — quantiles, k-means, a budget, one bit, all bytes
#
# Five exercises, 80 minutes together: levels out of a distribution, one step of k-means, the best plan for a budget of bytes, a "binary" quantizer that is none, and all the bytes of a codebook. Each function is followed by one line that checks it: ✓, or ✗ and what your answer seems to believe. Run that line as often as you like. Then comes a cell in which your function works in a real model, beside a control. Nothing here needs more than chapters 01, 04 and 09.
#
# From the command line, `lightcourse check exercises/09_codebooks.ipynb` tells which checks pass.

# %%
import copy
import heapq
import math
from functools import partial
from itertools import pairwise

import torch

import lightcourse
from lightcourse import checks, data, layers, metrics, models, quantization
from lightcourse.quantization import blocks

lightcourse.setup(threads=1)

# %% [markdown]
# The real model is the student, the smaller one of the tiny language models: 4 layers, 28 matrices. It is judged by its perplexity on three held-out texts (lower is better), divided by that of the floats. Its matrices are judged by their squared error, as a share of the squared weights.

# %%
student, tokenizer = models.load_tiny_lm("student"), models.load_tiny_tokenizer()
learn, held_out = (data.speech_tokens(tokenizer, part) for part in ("validation", "test"))
texts = data.excerpts(held_out)
dense = [metrics.perplexity(student, text, window=128) for text in texts]
matrices = {name: layer.weight.detach() for name, layer in layers.linear_layers(student).items()}


def told(numbers, digits=2):
    """Return numbers as a line of text."""
    return " ".join(f"{number:.{digits}f}" for number in numbers)


# %%
def rise(stored):
    """Return the perplexity on each text with other matrices in place, in floats it is 1."""
    model = copy.deepcopy(student)
    for name, layer in layers.linear_layers(model).items():
        layer.weight.data = stored[name]
    return [metrics.perplexity(model, t, window=128) / d for t, d in zip(texts, dense, strict=True)]


def share_lost(weights, code):
    """Return the squared error of some matrices, as a share of their squares."""
    off = sum((code(w).read_back() - w).square().sum() for w in weights)
    return (off / sum(w.square().sum() for w in weights)).item()


# %% [markdown]
# ## Exercise 1 · Levels from quantiles ★★ (15 minutes)
#
# NF4 puts its levels where a normal distribution has them used about equally often: at quantiles of evenly spaced probabilities. Write `quantile_levels(below, above, last)`, which does so for any numbers of levels:
#
# - `below`, `above`: how many levels there are below 0 and above 0, each at least 1;
# - `last`: the probability of the outermost level above 0, between 1/2 and 1;
# - returns a tensor of shape (below + 1 + above,), **ascending**.
#
# **Above 0** stand the quantiles of `above` probabilities: they go from 1/2, which is left out, in even steps to `last`, which is counted in. **Below 0** stand `below` quantiles, found in the same way, with a minus. Between them stands **0, once**. All are divided by the largest, so that they end at -1 and 1.
#
# The quantile of a probability $p$ is the value that a draw from the standard normal distribution stays below with probability $p$: `torch.special.ndtri`.
#
# **Predict** first: what happens to the levels when `last` comes near 1?
#
# <details><summary>Hint 1</summary><code>torch.linspace(0.5, last, n)</code> has n numbers, both ends among them. You need one more than there are levels, and drop the first.</details>
# <details><summary>Hint 2</summary>The two sides have other steps, for there are more levels on one of them. So each side needs a row of probabilities of its own.</details>
# <details><summary>Hint 3</summary><code>torch.cat([-lower, torch.zeros(1), upper])</code> holds all of them, and <code>.sort().values</code> brings them in order.</details>


# %%
def quantile_levels(below, above, last):
    """Return levels from -1 to 1 that a normal distribution uses about equally often."""
    ### BEGIN SOLUTION
    lower, upper = (
        torch.special.ndtri(torch.linspace(0.5, last, count + 1, dtype=torch.float64)[1:])
        for count in (below, above)
    )
    levels = torch.cat([-lower, torch.zeros(1), upper]).sort().values
    return levels / levels.max()
    ### END SOLUTION


# %%
passed = checks.check_quantile_levels(quantile_levels)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# **In the real model.** All matrices of the student are rounded in blocks of 64, by 16 levels: an even row of them, and yours, with the `last` of NF4. The first control is a model whose weights are *not* spread like a bell: the same matrices, filled with numbers that are equally often anywhere between -1 and 1. There your levels must lose.

# %%
generator = torch.Generator().manual_seed(0)
flat = [2 * torch.rand(w.shape, generator=generator) - 1 for w in matrices.values()]
nf4_last = 1 - (1 / 32 + 1 / 30) / 2  # the middle of the outermost of 16 equal parts, and of 15


def in_blocks(levels):
    """Return what rounds a matrix to levels, block by block."""
    return partial(
        quantization.code_blocks, levels=levels, block=64, choose_scale=blocks.largest_value
    )


# %% atol=0.001
books = {"even": torch.linspace(-1, 1, 16)}
if passed:
    books["yours"] = quantile_levels(7, 8, nf4_last).float()
    assert torch.allclose(books["yours"], quantization.normal_levels(4))
for name, weights in {"the student": matrices.values(), "flat weights": flat}.items():
    found = {book: share_lost(weights, in_blocks(levels)) for book, levels in books.items()}
    print(f"{name} loses", {book: f"{share:.2%}" for book, share in found.items()})
    assert not passed or (found["yours"] < found["even"]) == (name == "the student")
print("" if passed else "First solve this exercise: then your levels stand here.", end="")

# %% [markdown] tags=["solution"]
# **Why.** Near 1 a quantile grows without bound. The outermost level is divided by itself, and stays 1; all others are divided by something large, and crowd around 0. So `last` decides how the levels between are shared out. It is no detail: with 0.999 the levels lose three times as much as with the best choice. Nor is NF4's own the best one for these weights, though it is near: a block's largest weight always sits on 1 or -1, and so these two levels are used whatever the distribution says.

# %% atol=0.001 tags=["solution"]
for last in (0.6, 0.8, 0.9, 0.95, nf4_last, 0.99, 0.999):
    levels = quantile_levels(7, 8, last).float()
    lost = share_lost(matrices.values(), in_blocks(levels))
    print(f"last {last:.4f}: next to the end {levels[-2]:.2f}, lost {lost:.2%}")

# %% [markdown]
# ## Exercise 2 · One step of k-means ★★ (15 minutes)
#
# k-means looks for levels by two things in turn: each value goes to its nearest level, and each level goes to the mean of its values. Write one such step, `kmeans_step(values, levels)`:
#
# - `values`: shape (n,), more of them than there are levels; `levels`: shape (count,), ascending;
# - returns two tensors: the **codes**, whole numbers of shape (n,), for each value the place of its nearest level among those that were given; and the **levels after they moved**, shape (count,), in the order of the codes.
#
# A level that has values goes to their **mean**. A level to which no value came goes to the value that is **farthest from its own level** (as it was given). If there are several such levels, the first of them takes the farthest value, the second one the second farthest, and so on. In this step these values still count in the mean of the level that they came from.
#
# No value is just in the middle between two levels, and no two are equally far from theirs.
#
# **Predict** first: the values are 0, 1, 2 and 10, and the levels 1 and 20. Where do the levels go, and which is the code of each value in the next step?
#
# <details><summary>Hint 1</summary><code>values[:, None] - levels</code> has the shape (n, count): each value's differences from all levels.</details>
# <details><summary>Hint 2</summary><code>argmin(dim=1)</code> tells at which place the smallest of each row stands, and <code>amin(dim=1)</code> tells that smallest one: each value's distance from its own level.</details>
# <details><summary>Hint 3</summary><code>argsort(descending=True).tolist()</code> of these distances is a list of places, the farthest value's first. <code>pop(0)</code> takes the first one out of a list.</details>


# %%
def kmeans_step(values, levels):
    """Return each value's code, and the levels after they moved."""
    ### BEGIN SOLUTION
    distances = (values[:, None] - levels).abs()
    codes = distances.argmin(dim=1)
    farthest = distances.amin(dim=1).argsort(descending=True).tolist()
    moved = levels.clone()
    for code in range(len(levels)):
        mine = values[codes == code]
        moved[code] = mine.mean() if len(mine) else values[farthest.pop(0)]
    return codes, moved
    ### END SOLUTION


# %%
passed = checks.check_kmeans_step(kmeans_step)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# **In the real model.** A matrix of the student gets 16 levels by 100 of your steps. The start is bad on purpose: even levels from 0 to four times the largest weight, so that most of them are nobody's. The control starts from the same place and takes the same steps, but levels that are nobody's stay where they are.

# %%
weight = matrices["model.layers.1.mlp.down_proj"].flatten()
start = torch.linspace(0, 4 * weight.max().item(), 16)


def run(rescue, steps=100):
    """Return the share that is lost before each step, and how many levels are used in the last."""
    levels, lost = start, []
    for _ in range(steps):
        codes, moved = kmeans_step(weight, levels)
        used = torch.isin(torch.arange(16), codes)
        lost.append(((levels[codes] - weight).square().sum() / weight.square().sum()).item())
        levels = torch.where(used | rescue, moved, levels).sort().values
    return lost, used.sum().item()


# %% atol=0.002
book = quantization.kmeans_codebook(weight, 4)
off = book[quantization.nearest_codes(weight, book).long()] - weight
library = (off.square().sum() / weight.square().sum()).item()
print(f"the library's, from an even start: lost {library:.2%}")
best = {}
for name, rescue in {"yours": True, "nobody's levels stay": False}.items() if passed else ():
    lost, used = run(rescue)
    steps = {step: f"{lost[step]:.2%}" for step in (0, 1, 3, 10, 30, 99)}
    print(f"{name}: lost after so many steps {steps}, {used} levels used")
    assert (used == 16) == rescue and all(a > b - 1e-6 for a, b in pairwise(lost))
    best[name] = lost[-1]
assert not passed or library < best["yours"] < best["nobody's levels stay"] / 2
print("" if passed else "First solve this exercise: then your steps stand here.", end="")

# %% [markdown] tags=["solution"]
# **Why.** In the first step all four values go to the level 1. It moves to their mean, 3.25. To 20 comes nobody, so it goes to the value farthest from its own level, 10. In the next step 0, 1 and 2 have code 0, and 10 has code 1; and then the levels are 1 and 10, and nothing moves any more.
#
# Without the rescue, the levels that begin far outside never get a value: they are stored, their codes are reserved, and nobody uses them. Nothing raises an error. What is lost only looks like a codebook of fewer bits. So look at how many levels are used, also where somebody else's function made them.

# %% tags=["solution"]
values, levels = torch.tensor([0.0, 1.0, 2.0, 10.0]), torch.tensor([1.0, 20.0])
for _ in range(3):
    codes, levels = kmeans_step(values, levels)
    print("codes", codes.tolist(), "then levels", levels.tolist())

# %% [markdown]
# ## Exercise 3 · The best plan in a budget ★★★ (20 minutes)
#
# In chapter 04 you spent a budget step by step, and that was nearly the best, since each further bit brought less than the one before. Measured losses do not always do you that favour: a layer may be no better with 3 bits than with 2, and much better with 4. Now find **the best plan of all**. Write `best_plan(losses, sizes, budget)`:
#
# - `losses`: a tensor of shape (layers, choices): how much the loss rises if this layer alone takes this choice;
# - `sizes`: a list with a list for each layer, whole numbers: the bytes of each choice;
# - `budget`: a whole number, how many bytes all layers may take together. All of it may be used;
# - returns a list with a whole number for each layer: the **place of its choice** in its row, from 0 on. The sum of the losses is the smallest that the budget allows. If not even the smallest choices fit, the list is empty.
#
# To try all plans passes the check, which asks for seven layers at most. But the cell below asks for 28, which have $2 \cdot 10^{13}$ plans, and would never end. This does: go through the layers one by one, and for each number of bytes that may be spent so far, keep only the best plan. What the layers after it do depends on the bytes that are left, and on nothing else.
#
# **Predict** first: what will the best plan of the real model win over the greedy one: a tenth of the loss, a hundredth, or less?
#
# <details><summary>Hint 1</summary>A dictionary from bytes to (loss, plan) begins with <code>{0: (0.0, [])}</code>: no layer, no bytes, no loss. For each layer it is made anew.</details>
# <details><summary>Hint 2</summary>Each plan so far can be continued by each choice of the layer, if the bytes allow it. Two continued plans with the same bytes: the one with the smaller loss stays.</details>
# <details><summary>Hint 3</summary>Tuples are compared by their first entries, so <code>min</code> of two tuples (loss, plan) is the better one. At the end, <code>min</code> of all values has the plan; with nothing in the dictionary it needs a <code>default</code>.</details>


# %%
def best_plan(losses, sizes, budget):
    """Return for each layer the place of its choice, such that all losses together are small."""
    ### BEGIN SOLUTION
    plans = {0: (0.0, [])}
    for lost, row in zip(losses.tolist(), sizes, strict=True):
        longer = {}
        for used, (total, plan) in plans.items():
            for place, size in enumerate(row):
                if used + size <= budget:
                    found = total + lost[place], [*plan, place]
                    longer[used + size] = min(found, longer.get(used + size, found))
        plans = longer
    return min(plans.values(), default=(0.0, []))[1]
    ### END SOLUTION


# %%
passed = checks.check_best_plan(best_plan)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# **In the real model.** First the measurement: each matrix alone is rounded to k-means levels of 2, 3 and 4 bits, in blocks of 32, and the loss is taken on a text of 1,024 guesses, which is none of the three that judge. Bytes are those of the codes and scales. (The levels are left out: each choice has a few.)

# %%
choices, plain = (2, 3, 4), metrics.cross_entropy(student, learn[:1025], window=128)
coded = {
    name: [quantization.kmeans(w, bits, block=32) for bits in choices]
    for name, w in matrices.items()
}
stored = {name: [each.read_back() for each in row] for name, row in coded.items()}
sizes = [[each.nbytes - 4 * len(each.levels) for each in row] for row in coded.values()]


def loss_with(layer, matrix):
    """Return by how much the loss rises with one matrix in place of a layer's own."""
    kept, layer.weight.data = layer.weight.data, matrix
    loss = metrics.cross_entropy(student, learn[:1025], window=128)
    layer.weight.data = kept
    return loss - plain


# %% [markdown]
# The budget is half of what 2 bits and 3 bits for all would take together. Your plan stands beside the library's greedy one, and beside two controls: your own plan, dealt at random to other layers of the same size, and 2 bits for all, which costs less.

# %%
inside = layers.linear_layers(student)
losses = torch.tensor([[loss_with(inside[n], each) for each in row] for n, row in stored.items()])
budget = sum(row[0] + row[1] for row in sizes) // 2


def greedily(losses, sizes, budget):
    """Return the library's greedy plan, as places."""
    rows = [
        {str(layer): dict(enumerate(row)) for layer, row in enumerate(part)}
        for part in (losses.tolist(), sizes)
    ]
    return list(quantization.choose_bits_greedily(*rows, budget).values())


# %%
def dealt(plan, seed):
    """Return a plan in which layers of the same size have swapped their choices at random."""
    generator, new = torch.Generator().manual_seed(seed), torch.tensor(plan)
    for size in sorted({tuple(row) for row in sizes}):
        same = torch.tensor([tuple(row) == size for row in sizes])
        new[same] = new[same][torch.randperm(int(same.sum()), generator=generator)]
    return new.tolist()


# %% [markdown]
# For each plan the bytes, the sum of the measured losses, and the perplexity when all layers are rounded together:

# %% rtol=0.05
plans = {"2 bits for all": [0] * 28, "greedy": greedily(losses, sizes, budget)}
if passed:
    plans["yours"] = best_plan(losses, sizes, budget)
    plans |= {f"dealt at random, {seed}": dealt(plans["yours"], seed) for seed in (1, 2)}
total, found = {}, {}
for name, plan in plans.items():
    used, total[name] = (sum(r[p] for r, p in zip(t, plan, strict=True)) for t in (sizes, losses))
    found[name] = rise({n: row[p] for (n, row), p in zip(stored.items(), plan, strict=True)})
    print(f"{name}: {used / budget:.0%} of the budget, losses {total[name]:.3f},", end=" ")
    print("perplexity times", told(found[name]))
if passed:
    assert total["yours"] <= total["greedy"] + 1e-6
    assert max(found["yours"]) < min(found["dealt at random, 1"] + found["dealt at random, 2"])
print("" if passed else "First solve this exercise: then your plan stands here.", end="")

# %% [markdown] tags=["solution"]
# **Why.** The best plan wins hardly anything over the greedy one, less than a hundredth: with 28 layers there is nearly always a small step that fills the budget. What it wins is certainty: no plan has a smaller sum. Where layers are few, greedy may be far off. Below, 120 bytes are to become 110. The library's greedy plan takes the step on which a *byte* costs least, and that is 60 bytes of the second layer: ten would have been enough, and no step is taken back.
#
# How sure is the sum itself? It leaves out how the errors of several layers meet, and each loss was measured on one short text. Plans that differ by less than that noise are equally good, whatever their sums say. The gap to the plans dealt at random is much larger: *which* layers get the bits is what matters.

# %% tags=["solution"]
few, bytes_of = torch.tensor([[1, 0.4, 0.2], [1, 0.9, 0]]), [[10, 40, 50], [10, 30, 70]]
for name, plan in {"best": best_plan, "greedy": greedily}.items():
    places = plan(few, bytes_of, 110)
    lost, used = (sum(r[p] for r, p in zip(t, places, strict=True)) for t in (few, bytes_of))
    print(f"{name}: {places}, {used} bytes, losses {lost:.1f}")

# %% [markdown]
# ## Exercise 4 · "Binary" that is not ★★ (15 minutes)
#
# This function goes around in tutorials. It is said to quantize weights to `bits` bits, and with `bits=1` to make them binary:


# %%
def tutorial(weight, bits):
    """Return weights "quantized to so many bits", as it circulates."""
    steps = 2 ** (bits - 1)
    return weight.sign() * (weight.abs() * steps).floor() / steps


# %% [markdown]
# **First, spot it.** Write `audit(weight, stored)`, which believes no name and looks at what is left of a matrix:
#
# - `weight`: shape (rows, columns), not all zeros; `stored`: the same shape, what a quantizer made of it;
# - returns three things. First, an int: **how many different values** stand in a row, in the row that has the most. (A row may have a scale of its own, so that the whole matrix may have many more.) Second, an int: **how many bits** a code needs for that many levels; for a single level none. Third, a float: the **squared error as a share**, the sum of the squared errors divided by the sum of the squared weights.
#
# **Predict** first: the student's largest weight is 0.71. What does the function above make of its matrices with one bit? And how many levels does it use with two?
#
# <details><summary>Hint 1</summary><code>set(row)</code> of a list holds each value once, and <code>stored.tolist()</code> is a list of rows.</details>
# <details><summary>Hint 2</summary>Three bits write the codes 0 to 7. The largest code is one less than the number of levels, and <code>(7).bit_length()</code> is 3.</details>


# %%
def audit(weight, stored):
    """Return the levels of a row, the bits of a code, and the share that is lost."""
    ### BEGIN SOLUTION
    levels = max(len(set(row)) for row in stored.tolist())
    error = (stored - weight).square().sum() / weight.square().sum()
    return levels, (levels - 1).bit_length(), error.item()
    ### END SOLUTION


# %%
spotted = checks.check_audit(audit)
### BEGIN HIDDEN TESTS
assert spotted
### END HIDDEN TESTS

# %% [markdown]
# **Then, mend it.** Write `binary_rows(weight)`, for one bit, as XNOR-Net has it (Rastegari et al. 2016, arXiv 1603.05279):
#
# - `weight`: shape (rows, columns);
# - returns a matrix of the same shape: the **sign** of each weight, + for a weight of 0, times **one scale for each row**, the one that leaves the smallest squared error.
#
# Which scale is that? A row $w$ with signs $b$ is to be near $\alpha b$. The error is $\sum (w_i - \alpha b_i)^2$. Each $b_i^2$ is 1, and each $w_i b_i$ is $|w_i|$; so it is $\sum w_i^2 - 2 \alpha \sum |w_i| + n \alpha^2$. Where is its slope 0?
#
# <details><summary>Hint 1</summary>The slope in α is −2 Σ|w| + 2 n α. So α is a mean.</details>
# <details><summary>Hint 2</summary><code>sign()</code> of 0 is 0, which would be a third level. <code>torch.where(weight &lt; 0, a, b)</code> has only two.</details>


# %%
def binary_rows(weight):
    """Return the sign times the mean size of each row."""
    ### BEGIN SOLUTION
    scale = weight.abs().mean(dim=1, keepdim=True)
    return torch.where(weight < 0, -scale, scale)
    ### END SOLUTION


# %%
mended = checks.check_binary_rows(binary_rows)
### BEGIN HIDDEN TESTS
assert mended
### END HIDDEN TESTS

# %% [markdown]
# **In the real model.** All matrices of the student, by the tutorial's function with several bits, by signs alone, and by yours. The control has your scales, and signs that were thrown by a coin. (A ratio of 1000 stands for all that is more.)

# %%
made = {f"tutorial, {bits} bits": partial(tutorial, bits=bits) for bits in (1, 2, 4, 8)}
made["signs alone"] = torch.sign
if mended:
    made["yours"] = binary_rows
    coin = partial(torch.randn, generator=torch.Generator().manual_seed(0))
    made["your scales, signs by a coin"] = lambda w: binary_rows(w).abs() * coin(w.shape).sign()

# %% rtol=0.05
found = {}
for name, function in made.items():
    stored = {key: function(w) for key, w in matrices.items()}
    found[name] = [min(ratio, 1000) for ratio in rise(stored)]
    print(f"{name}: perplexity times", told(found[name], 1))
    if spotted:
        seen = [audit(w, stored[key]) for key, w in matrices.items()]
        levels, bits, lost = (max(column) for column in zip(*seen, strict=True))
        print(f"  {levels} levels, {bits} bits, {min(lost, 10):.0%} lost at most")
if mended:
    others = [min(found[name]) for name in found if name not in ("yours", "tutorial, 8 bits")]
    assert max(found["yours"]) < min(others)
print("" if spotted and mended else "First solve both parts: then all of it stands here.", end="")

# %% [markdown] tags=["solution"]
# **Why.** With one bit the function makes `floor` of sizes below 1: *all* weights are 0. That is one level, no bit, and everything lost. With two bits the steps are a half: a few weights of the student survive as -0.5 and 0.5, all others are 0. Its "bits" are the places of a **fixed point** number, which reaches from -1 to 1 whatever the weights are. Sizes below 1 leave it $2^b - 1$ levels, so with one bit a single one, and sizes above 1 as many as they like. Nothing about it is binary.
#
# What is missing is a scale. The signs alone do not help: 1 stands where 0.07 was, and the error is many times as large as the weights. With the scale, two levels a row keep nearly two thirds of the squares: of a row like a bell $2 / \pi$, 64 %. And the coin shows that it is the signs that know something, not the scales. A model that was not trained for it is ruined by one bit all the same, only less so. To train on such grids is a chapter of its own.

# %% atol=0.02 tags=["solution"]
row = torch.randn(1, 100_000, generator=torch.Generator().manual_seed(0))
levels, bits, lost = audit(row, binary_rows(row))
print(f"a bell: {levels} levels, {bits} bit, kept {1 - lost:.3f}, and 2 / pi is {2 / math.pi:.3f}")
for factor in (0.8, 0.9, 1.0, 1.1, 1.2):
    print(f"the scale times {factor}: lost {audit(row, factor * binary_rows(row))[2]:.3f}")

# %% [markdown]
# ## Exercise 5 · All the bytes of a codebook ★★ (15 minutes)
#
# "Four bits a weight" is what the codes take. A file holds more. Write `codebook_bytes(counts, block)`, which counts it all, for a matrix stored in two ways:
#
# - `counts`: a list of whole numbers, how often each code occurs; there are as many levels as entries, two or more, and at least one of them occurs;
# - `block`: so many weights share a scale; the last block may have fewer, and has a scale all the same;
# - returns two whole numbers of bytes. **First** with words of one length: the bits that the codes of all levels need, the same for each weight, without room between them. **Second** with Huffman's words.
#
# Beside the codes both hold the levels, 4 bytes each, and the scales, 2 bytes each. Huffman's words can only be read by who knows how long each level's word is: one more byte for each level. The codes' bits begin a byte, and fill up the last one: round up.
#
# How many bits do Huffman's words have together? Take how often each code occurs, but for those that never do. Join the two rarest groups to one: each time, the words of both become one bit longer, which costs **as many bits as both together occur**. Put the joined group back, and go on until one is left. A single code, with nothing to join, has a word of one bit.
#
# **Predict** first: 16 codes that occur equally often. How much does Huffman save? And if one of them makes up half of all weights?
#
# <details><summary>Hint 1</summary>You need no words, and no tree: only the sum of all joined groups.</details>
# <details><summary>Hint 2</summary><code>heapq.heapify(numbers)</code> makes a list ready, <code>heapq.heappop(numbers)</code> takes the smallest out of it, and <code>heapq.heappush(numbers, 7)</code> puts a 7 in. To sort the list anew before each step does the same.</details>
# <details><summary>Hint 3</summary>16 levels have the codes 0 to 15, and <code>(15).bit_length()</code> is 4. <code>math.ceil</code> rounds up.</details>


# %%
def codebook_bytes(counts, block):
    """Return all bytes with words of one length, and with Huffman's."""
    ### BEGIN SOLUTION
    number, levels = sum(counts), len(counts)
    beside = 4 * levels + 2 * math.ceil(number / block)
    packed = math.ceil(number * (levels - 1).bit_length() / 8)
    groups = [count for count in counts if count]
    heapq.heapify(groups)
    bits = number if len(groups) == 1 else 0
    while len(groups) > 1:
        joined = heapq.heappop(groups) + heapq.heappop(groups)
        bits += joined
        heapq.heappush(groups, joined)
    return packed + beside, math.ceil(bits / 8) + levels + beside
    ### END SOLUTION


# %%
passed = checks.check_codebook_bytes(codebook_bytes)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# **In the real model.** One matrix of the student in several codebooks of 16 levels, in blocks of 64. The library really writes the words: your second number must be its bytes, but that its table has 256 lengths and the number of codes stands in front. The control are codes drawn at random, all equally often.

# %%
weight = matrices["model.layers.1.mlp.down_proj"]
pruned = weight * (weight.abs() > weight.abs().quantile(0.7))  # the smallest 70 % are 0
coded = {
    "NF4": quantization.nf4(weight),
    "k-means": quantization.kmeans(weight, 4, block=64),
    "pruned by 70 %, NF4": quantization.nf4(pruned),
}
codes = {name: each.codes for name, each in coded.items()}
draw = torch.Generator().manual_seed(0)
codes["at random"] = torch.randint(16, weight.shape, dtype=torch.uint8, generator=draw)

# %% rtol=0.01
for name, each in codes.items():
    counts = each.flatten().bincount(minlength=16).tolist()
    written = len(quantization.huffman_encode(each))
    print(f"{name}: most used {max(counts) / each.numel():.1%}, written", end=" ")
    print(f"{8 * written / each.numel():.2f} bits")
    if passed:
        found = codebook_bytes(counts, 64)
        beside = 4 * 16 + 2 * each.numel() // 64
        assert found[1] - 16 - beside == written - 256 - 8
        print("  in your count", told(8 * bytes_ / each.numel() for bytes_ in found), "bits")
print("" if passed else "First solve this exercise: then your bytes stand here.", end="")

# %% [markdown] tags=["solution"]
# **Why.** Codes that occur equally often have words of 4 bits, and the table of lengths is paid for nothing: Huffman makes the file larger. If one code makes up half of all weights, its word has one bit, and each other one about five: 3 bits in the mean. So a codebook that was made to use all its levels evenly, as NF4 nearly does, leaves Huffman nothing, and pruning, which makes one code frequent, leaves it much. That is why Deep Compression has its steps in this order: prune, share levels, and only then write shorter words.
#
# A price stands against it. To read the thousandth weight, all words before it must be read first: fine for a file, and useless for a kernel that looks up weights as it multiplies.

# %% tags=["solution"]
for name, counts in {"even": [1000] * 16, "one makes up half": [15_000] + [1000] * 15}.items():
    found = [8 * count / sum(counts) for count in codebook_bytes(counts, 64)]
    print(f"{name}: {told(found)} bits a weight, {0.25 + 8 * 4 * 16 / sum(counts):.2f} beside")
