# %% [markdown]
# # 04 · Linear quantization: exercises — a grid, a bug, groups, a range, a budget, a recovery
#
# Six functions, from easy to hard, 110 minutes together. Each is followed by one line that checks it: ✓, or ✗ and what your answer seems to believe. Run that line as often as you like. Then comes a cell in which your function works inside a real model, the tiny language model of chapter 04. Nothing here needs more than that chapter.
#
# From the command line, `lightcourse check exercises/04_linear_quantization.ipynb` tells which checks pass.

# %%
import copy
import random
from itertools import pairwise

import torch
from torch.nn.utils import parametrize

import lightcourse
from lightcourse import checks, data, layers, metrics, models, quantization
from lightcourse.training import Recipe, model_loss, train

lightcourse.setup()

# %% [markdown]
# The model, and two helpers. `with_weights` returns a copy of it whose linear layers all have other weights: those that a function makes of the old ones. `tell` prints the perplexity of a model on three texts (lower is better).

# %%
student, tokenizer = models.load_tiny_lm("student"), models.load_tiny_tokenizer()
learn, held_out = (data.speech_tokens(tokenizer, split) for split in ("validation", "test"))
texts = data.excerpts(held_out)


# %%
def with_weights(function):
    """Return a copy of the model, each linear layer's weight replaced by function(weight)."""
    model = copy.deepcopy(student)
    for layer in layers.linear_layers(model).values():
        layer.weight.data = function(layer.weight.data)
    return model


def tell(name, model):
    """Print the perplexity of a model on three texts."""
    found = [metrics.perplexity(model, text, window=128) for text in texts]
    print(f"{name:36}", *(f"{value:8.1f}" for value in found))


# %% [markdown]
# ## Exercise 1 · The grid that just fits ★ (10 minutes)
#
# Write `affine_qparams(x, bits)`:
#
# - `x`: a tensor of floats, of any shape;
# - the integers reach from $-2^{b-1}$ to $2^{b-1} - 1$, where $b$ is `bits`;
# - returns `(scale, zero_point)` as two Python numbers: the width of a step, and the integer that stands for a real 0. The range from the smallest to the largest number, widened to hold 0, must just fit. If `x` holds nothing but zeros, the scale is 1.
#
# **Predict** first: x is `[20.0, 22.5, 30.0]` and `bits` is 3. What are the scale and the zero point? And for four times 0.7?
#
# <details><summary>Hint 1</summary>Eight levels: how many steps lie between the first and the last?</details>
# <details><summary>Hint 2</summary>Widen: a low above 0 becomes 0, a high below 0 becomes 0. <code>clamp</code> does it.</details>
# <details><summary>Hint 3</summary>The first integer stands for low. How many steps are there from low to 0? The zero point comes that many integers later, rounded to a whole number.</details>


# %%
def affine_qparams(x, bits):
    """Return the scale and the zero point of the grid that just fits x."""
    ### BEGIN SOLUTION
    low, high = min(x.min().item(), 0.0), max(x.max().item(), 0.0)
    scale = (high - low) / (2**bits - 1)
    if scale == 0:
        scale = 1.0
    return scale, -(2 ** (bits - 1)) - round(low / scale)
    ### END SOLUTION


# %%
passed = checks.check_affine_qparams(affine_qparams)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# **In the real model.** Each of the 28 weight matrices is rounded to *your* grid, one grid for a whole matrix.


# %%
def on_your_grid(weight, bits):
    """Return what is read back of a weight that was rounded to your grid."""
    scale, zero_point = affine_qparams(weight, bits)
    return quantization.fake_quantize(weight, torch.tensor(scale), torch.tensor(zero_point), bits)


# %% rtol=0.02
tell("floats", student)
for bits in (8, 4, 3) if passed else ():
    tell(f"{bits} bits, on your grid", with_weights(lambda w, bits=bits: on_your_grid(w, bits)))
if not passed:
    print("First solve this exercise: then your grid stands here.")

# %% [markdown] tags=["solution"]
# **Why.** The range of `[20.0, 22.5, 30.0]` becomes 0 to 30, seven steps of 4.29, and 0 is the first integer, -4. For 0.7 the range is 0 to 0.7: seven steps of 0.1, and the constant is exact. Without the widening it would be 0.7 to 0.7, and 0 / 0. Only an all-zero tensor has an empty range; any scale would do then, and 1 is as good as any. The minus before `round(low / scale)` is there because low is not positive: the farther down it reaches, the more integers are spent below 0, and the higher the zero point.

# %% tags=["solution"]
for values in ([20.0, 22.5, 30.0], [0.7] * 4, [-1.0, 3.0]):
    scale, zero_point = affine_qparams(torch.tensor(values), 3)
    print(f"{values}: scale {scale:.3f}, zero point {zero_point}")

# %% [markdown]
# ## Exercise 2 · Spot the bug ★★ (20 minutes)
#
# This function stands in widely copied tutorials. The picture beside it usually looks fine.


# %%
def broken(x, bits):
    """Quantize x and return what is read back. (This is the version with the bugs.)"""
    levels = bits
    q = ((x - x.min()) / (x.max() - x.min()) * levels).round()
    return q / levels


x = torch.tensor([-1.0, 0.0, 0.3, 1.1])
print("read back:", [round(value, 2) for value in broken(x, 3).tolist()])
print("a constant:", broken(torch.full((2,), 0.7), 3).tolist())

# %% [markdown]
# Find the bugs (there are four), and write `round_trip(x, bits)` as it should be:
#
# - `x`: a tensor of floats; one grid for all of it, asymmetric, as in exercise 1;
# - returns a float tensor of the same shape: what is read back after rounding to integers of `bits` bits. 0 is exact, and there are never more than $2^b$ different values.
#
# **Predict** first: how many different values can `broken(x, 8)` return?
#
# <details><summary>Hint 1</summary>Try <code>broken</code> on a hundred numbers between 5 and 6, and on padding zeros. Which of the numbers that come back are impossible?</details>
# <details><summary>Hint 2</summary>Your function of exercise 1 gives you two of the repairs.</details>
# <details><summary>Hint 3</summary>Four steps: divide by the scale and round; add the zero point; clamp to the integers that exist; go back, zero point first. Why the clamp? Try [-3.5, 3.5] with 3 bits.</details>


# %%
def round_trip(x, bits):
    """Return what is read back from the integers."""
    ### BEGIN SOLUTION
    scale, zero_point = affine_qparams(x, bits)
    q = (x / scale).round() + zero_point
    q = q.clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return (q - zero_point) * scale
    ### END SOLUTION


# %%
passed = checks.check_round_trip(round_trip)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# **In the real model.** Now it is not the weights that are rounded but the *activations*: what flows into each of the 28 layers goes through the function first, one grid for all of it. PyTorch calls such a thing a hook.


# %%
def with_inputs(function):
    """Return a copy of the model in which each linear layer is given function(inputs)."""
    model = copy.deepcopy(student)
    for layer in layers.linear_layers(model).values():
        layer.register_forward_pre_hook(lambda layer, given: (function(given[0]), *given[1:]))
    return model


# %% rtol=0.1
tell("floats", student)
tell("8 bits, the broken version", with_inputs(lambda x: broken(x, 8)))
for bits in (8, 6, 4) if passed else ():
    tell(f"{bits} bits, your version", with_inputs(lambda x, bits=bits: round_trip(x, bits)))
if not passed:
    print("First solve this exercise: then your version stands here.")

# %% [markdown] tags=["solution"]
# **Why.** The four bugs:
#
# 1. `levels = bits`: 3 bits make 8 levels and 7 steps, not 3 steps; with 8 bits it returns 9 different values instead of 256.
# 2. No inverse: what comes back lies between 0 and 1, whatever x was.
# 3. No zero point: 0 is not on the grid (and with this inverse the smallest number becomes 0).
# 4. Nothing guards an empty range: a constant tensor becomes `nan`.
#
# And a zero point needs a clamp as well: it shifts the grid by up to half of a step, so that a number at the very end may round to a level that does not exist. -3.5 to 3.5 with 3 bits is such a case: seven steps of 1, both ends exactly between two levels.

# %% tags=["solution"]
x = torch.tensor([-3.5, -1.2, 0.0, 2.2, 3.5])
scale, zero_point = affine_qparams(x, 3)
print("without a clamp:", ((x / scale).round() + zero_point).int().tolist(), "of -4 to 3")
print("read back:", round_trip(x, 3).tolist())
assert len(broken(torch.linspace(5, 6, 1000), 8).unique()) == 9
assert len(round_trip(torch.linspace(-1, 2, 3000), 8).unique()) == 256

# %% [markdown]
# ## Exercise 3 · A scale for each group ★★ (15 minutes)
#
# Write `quantize_groups(weight, bits, group_size)`, what a file format of "4 bits in groups of 32" stores:
#
# - `weight`: shape (rows, columns); `group_size` neighbours in a row share one scale; symmetric, so no zero point;
# - the largest size in a group sits on the last level, $2^{b-1} - 1$; a group of nothing but zeros gets the scale 1;
# - returns `(integers, scales)`: int8 of shape (rows, columns), and floats of shape (rows, columns / group_size);
# - refuses a width that `group_size` does not divide: then it returns an empty tuple, `()`. (A library would raise an error. Here the caller leaves such a layer in floats.)
#
# **Predict** first: with scales of 16 bits, how many bits does a weight of "3 bits" take, in groups of 8? And which is larger, 3 bits in groups of 8 or 4 bits in groups of 32?
#
# <details><summary>Hint 1</summary><code>view(rows, -1, group_size)</code> makes each group a row of its own.</details>
# <details><summary>Hint 2</summary><code>amax(-1, keepdim=True)</code> keeps a dimension of size 1, so that the scales divide the groups.</details>
# <details><summary>Hint 3</summary><code>.to(torch.int8)</code> cuts off what stands behind the point: round before.</details>


# %%
def quantize_groups(weight, bits, group_size):
    """Return (integers, scales), or () where group_size does not divide the columns."""
    ### BEGIN SOLUTION
    rows, columns = weight.shape
    if columns % group_size:
        return ()
    groups = weight.view(rows, -1, group_size)
    scale = groups.abs().amax(-1, keepdim=True) / (2 ** (bits - 1) - 1)
    scale = torch.where(scale > 0, scale, 1.0)
    integers = (groups / scale).round().to(torch.int8)
    return integers.view(rows, columns), scale.squeeze(-1)
    ### END SOLUTION


# %%
passed = checks.check_quantize_groups(quantize_groups)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# **In the real model.** Your integers are read back by multiplying each with the scale of its group. The layers are 128 or 384 wide: a group of 128 is a whole row of most layers, and 48 divides only 384.


# %%
def in_your_groups(weight, bits, group_size):
    """Return what is read back of a weight, or the weight itself where it was refused."""
    found = quantize_groups(weight, bits, group_size)
    if not found:
        return weight
    integers, scales = found
    return integers * scales.repeat_interleave(group_size, dim=1)


# %% rtol=0.02
tell("floats", student)
for group_size in (128, 32, 8) if passed else ():
    model = with_weights(lambda weight, size=group_size: in_your_groups(weight, 3, size))
    tell(f"3 bits in groups of {group_size}: {3 + 16 / group_size} bits", model)
if passed:
    widths = [layer.weight.shape[1] for layer in layers.linear_layers(student).values()]
    refused = sum(quantize_groups(torch.ones(2, width), 3, 48) == () for width in widths)
    print(f"in groups of 48 you refuse {refused} of {len(widths)} layers")
else:
    print("First solve this exercise: then your groups stand here.")

# %% [markdown] tags=["solution"]
# **Why.** 3 + 16/8 = 5 bits, more than the 4 + 16/32 = 4.5 bits of "4 bits in groups of 32". Small groups are one way to spend bits, not a gift. No clamp is needed: the largest weight lands on the last level, and nothing is larger. That is also why -$2^{b-1}$, the lowest level, is never used. (Formats differ in how they make use of it. The library lets the largest weight sit there where that has the smaller error.)
#
# The library's own rounding, told to take the full range, gives the same integers. (Up to 4 bits it rounds the scales to 16 bits as they are stored, so now and then an integer differs.)

# %% tags=["solution"]
weight = student.model.layers[1].mlp.up_proj.weight.detach()
integers, scales = quantize_groups(weight, 4, 32)
q, scale, _ = quantization.round_to_nearest(
    weight, 4, 32, choose_qparams=quantization.choose_qparams_affine
)
print(f"the same integers: more than 99.5 %, {bool((q == integers).float().mean() > 0.995)}")
assert torch.allclose(scale, scales, rtol=1e-3) and (q - integers).abs().max() <= 1

# %% [markdown]
# ## Exercise 4 · What to cut off ★★ (20 minutes)
#
# The full range gives its steps to a few large weights. Let some of them go. Write `clipped_scale(x, bits, shares)`, a search for the range with the least squared error:
#
# - `x`: shape (rows, columns); `shares`: a tensor of shares of the full range to try, such as 1.0, 0.8, 0.6;
# - a share of the row's largest size sits on the last level, $2^{b-1} - 1$, and what lies beyond is clamped; the levels reach from $-2^{b-1}$ to $2^{b-1} - 1$;
# - returns for each row the scale, among those tried, that leaves the least sum of squared errors: shape (rows, 1). A row of nothing but zeros gets the scale 1.
#
# **Predict** first: which rows want the smaller share, those of 32 or those of 384 weights? And do more bits want a larger or a smaller share?
#
# <details><summary>Hint 1</summary>A loop over the shares that remembers, for each row, the least error so far and the scale that had it.</details>
# <details><summary>Hint 2</summary><code>torch.where(error &lt; least, scale, best)</code> chooses for each row; all three have the shape (rows, 1).</details>
# <details><summary>Hint 3</summary>What does your loop make of a row of zeros? 0 / 0 is nan, and a comparison with nan is False: start with a best of 1.</details>


# %%
def clipped_scale(x, bits, shares):
    """Return for each row the scale, of those tried, with the least squared error."""
    ### BEGIN SOLUTION
    most = 2 ** (bits - 1) - 1
    full = x.abs().amax(1, keepdim=True)
    best, least = torch.ones_like(full), torch.full_like(full, torch.inf)
    for share in shares.tolist():
        scale = share * full / most
        q = (x / scale).round().clamp(-most - 1, most)
        error = (q * scale - x).square().sum(1, keepdim=True)
        best = torch.where(error < least, scale, best)
        least = torch.minimum(error, least)
    return best
    ### END SOLUTION


# %%
passed = checks.check_clipped_scale(clipped_scale)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# **In the real model.** Two questions, crossed: how many weights share a scale (a row, or a group of 32), and how that scale is chosen (the full range, or by your search). 3 bits each time.

# %%
few, zero = torch.arange(0.3, 1.01, 0.05), torch.tensor(0)


def searched(weight, shares, group_size=None):
    """Round a weight to 3 bits by your search, a scale for each group."""
    x = weight.view(-1, group_size or weight.shape[1])
    return quantization.fake_quantize(x, clipped_scale(x, 3, shares), zero, 3).view_as(weight)


# %% rtol=0.02
tell("floats", student)
for group_size in (None, 32) if passed else ():
    for name, shares in {"full range": torch.ones(1), "your search": few}.items():
        model = with_weights(lambda w, how=(shares, group_size): searched(w, *how))
        tell(f"{f'groups of {group_size}' if group_size else 'rows'}, {name}", model)
if not passed:
    print("First solve this exercise: then your ranges stand here.")

# %% [markdown] tags=["solution"]
# **Why.** The more weights share a scale, the farther the largest of them stands out, and the more there is to win by letting it go: rows want a smaller share than groups, and gain more by it. More bits have finer steps anyway, so clamping costs more than it brings, and the best share moves towards 1. The mean of the shares that your search chose:

# %% rtol=0.02 tags=["solution"]
weight = student.model.layers[2].mlp.down_proj.weight.detach()
for size in (32, 384):
    x = weight.view(-1, size)
    most = x.abs().amax(1, keepdim=True)
    for bits in (2, 3, 4, 8):
        share = clipped_scale(x, bits, few) * (2 ** (bits - 1) - 1) / most
        print(f"{size:3} weights, {bits} bits: {share.mean():.2f} of the full range")

# %% [markdown] tags=["solution"]
# And once the integers are settled, which scale is best for *them*? The error $\sum (x - s\,q)^2$ is a parabola in $s$; its derivative is 0 where $s = \langle q, x\rangle / \langle q, q\rangle$. That scale need not be the one that made the integers, so it can only help:

# %% rtol=0.02 tags=["solution"]
for name, tried in [("full range", torch.ones(1)), ("your search", few)]:
    scale = clipped_scale(weight, 3, tried)
    q = (weight / scale).round().clamp(-4, 3)
    fitted = (q * weight).sum(1, keepdim=True) / (q * q).sum(1, keepdim=True)
    errors = [((q * s - weight).norm() / weight.norm()).square() for s in (scale, fitted)]
    print(f"{name:11} error {errors[0]:.2%}, with the scale fitted {errors[1]:.2%}")

# %% [markdown]
# ## Exercise 5 · A budget of bytes ★★★ (25 minutes)
#
# Not every layer needs the same bits. For each layer and each number of bits it was measured how much the loss rises when this layer alone is rounded. Write `spend_bits(sizes, rises, choices, budget)`:
#
# - `sizes`: a list with the number of weights of each layer; `choices`: a list of the bits there are to choose from, rising, such as `[2, 3, 4]`;
# - `rises`: a tensor of shape (layers, choices), how much the loss rises; each further bit lowers it, and by less than the one before;
# - `budget`: bytes. All layers together may take that many, and the lowest choice for all always fits. (The scales are left aside.)
# - returns a list with the bits of each layer, such that the sum of all rises is as low as you get it.
#
# The best plan of all is hard to find: 28 layers with three choices make $2 \cdot 10^{13}$ plans. A **greedy** plan is enough. Start with the fewest bits everywhere, and buy one step after the other, each time the step that lowers the loss most *for its bytes*, until nothing fits any more. (The check knows the best plan of small models. It wants 97 % of what that one gains.)
#
# **Predict** first: a large and a small layer lose equally much at 2 bits. Which one gets the third bit?
#
# <details><summary>Hint 1</summary>A step takes one layer from one choice to the next. Its cost is the bits that are added times the weights of the layer; its gain is the difference of two neighbours in a row of <code>rises</code>.</details>
# <details><summary>Hint 2</summary>Each further bit brings less than the one before. So all steps of all layers can be written into one list, as tuples that begin with gain / cost, and sorted once.</details>
# <details><summary>Hint 3</summary>Walk through the list and buy what fits, if the layer has taken all steps before it. A step that does not fit today will never fit, but the step of another layer may. And 8 · budget is the number of bits.</details>


# %%
def spend_bits(sizes, rises, choices, budget):
    """Return bits for each layer that keep within a budget of bytes."""
    ### BEGIN SOLUTION
    plan, left, steps = [choices[0]] * len(sizes), 8 * budget - choices[0] * sum(sizes), []
    for layer, row in enumerate(rises.tolist()):
        for place, (fewer, more) in enumerate(pairwise(choices)):
            cost = (more - fewer) * sizes[layer]
            steps.append(((row[place] - row[place + 1]) / cost, layer, fewer, more, cost))
    for _, layer, fewer, more, cost in sorted(steps, reverse=True):
        if plan[layer] == fewer and cost <= left:
            plan[layer], left = more, left - cost
    return plan
    ### END SOLUTION


# %%
passed = checks.check_spend_bits(spend_bits)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# **In the real model.** First the measurement: each of the 28 layers alone is rounded to 2, 3 and 4 bits in groups of 32, and the loss on a text of 1,024 guesses is compared with that of the floats. That text is not among the three that judge.


# %%
def rounded(weight, bits):
    """Return a weight rounded to groups of 32, the scales chosen by least squares."""
    groups = weight.view(-1, 32)
    return quantization.fake_quantize(
        groups, quantization.search_scale(groups, bits), zero, bits
    ).view_as(weight)


def loss_with(layer, bits):
    """Return the loss with this layer alone rounded."""
    kept = layer.weight.data
    layer.weight.data = rounded(kept, bits)
    loss = metrics.cross_entropy(student, learn[:1025], window=128)
    layer.weight.data = kept
    return loss


# %% [markdown]
# The budget is 2.5 bits for a weight. Your plan stands between 2 bits and 3 bits for all, beside a control that costs the same: your own plan, dealt to the layers at random. (Only layers of the same size swap their bits, so that the bytes stay what they are.)


# %%
def planned(plan):
    """Return a copy of the model with these bits, one for each layer in order."""
    bits = iter(plan)
    return with_weights(lambda weight: rounded(weight, next(bits)))


def dealt(plan, seed):
    """Return a plan in which layers of the same size have swapped their bits at random."""
    order = list(range(len(plan)))
    for size in set(sizes):
        alike = [place for place in order if sizes[place] == size]
        for place, other in zip(alike, random.Random(seed).sample(alike, len(alike)), strict=True):
            order[place] = other
    return [plan[place] for place in order]


# %% rtol=0.02
tell("2 bits for all", planned([2] * 28))
matrices = list(layers.linear_layers(student).values())
sizes = [layer.weight.numel() for layer in matrices]
if passed:
    losses = torch.tensor([[loss_with(layer, b) for b in (2, 3, 4)] for layer in matrices])
    rises = losses - metrics.cross_entropy(student, learn[:1025], window=128)
    plan = spend_bits(sizes, rises, [2, 3, 4], int(2.5 * sum(sizes) / 8))
    tell("2.5 bits, your plan", planned(plan))
    for seed in range(3):
        tell(f"2.5 bits, dealt at random, {seed}", planned(dealt(plan, seed)))
else:
    print("First solve this exercise: then your plan stands here.")
tell("3 bits for all", planned([3] * 28))

# %% [markdown] tags=["solution"]
# **Why.** The third bit goes to the *small* layer: the same gain for fewer bytes. Dividing by the cost is what makes a greedy plan nearly the best one; and because each further bit brings less than the one before, the first step of a layer is never worth less than the second, so nothing is lost by buying them in this order. What a greedy plan can miss is the end: two small steps that together fit better than one large one. Dynamic programming finds that too: it goes through the layers one by one and keeps, for each number of bytes, the best plan so far. Here it is, for bytes counted in steps of 2,048, which divide every layer of this model:

# %% rtol=0.02 tags=["solution"]
best = {0: (0.0, [])}
for size, row in zip(sizes, rises.tolist(), strict=True):
    longer = {}
    for spent, (total, taken) in best.items():
        for bits, more in zip((2, 3, 4), row, strict=True):
            place, found = spent + bits * size // 8 // 2048, (total + more, [*taken, bits])
            longer[place] = min(longer.get(place, found), found)
    best = longer
least, taken = min(found for place, found in best.items() if 8 * 2048 * place <= 2.5 * sum(sizes))
yours = sum(row[bits - 2] for row, bits in zip(rises.tolist(), plan, strict=True))
start = rises[:, 0].sum().item()
print(f"your plan has {(start - yours) / (start - least):.1%} of the best plan's gain")
tell("2.5 bits, the best plan", planned(taken))

# %% [markdown]
# ## Exercise 6 · Training on the grid ★★ (20 minutes)
#
# Rounded to 2 bits, the model is worse. Can it be *trained* back, on the grid? A staircase has no slope: its gradient is 0 nearly everywhere, and nothing would learn. The **straight-through** estimator (Bengio et al. 2013, arXiv 1308.3432) rounds on the way forward, and on the way back lets the gradient pass as if nothing had been rounded. Write both ways in one function, `straight_through(weight, scale, bits, upstream)`:
#
# - `weight`: floats of shape (rows, columns); `scale`: shape (rows, 1); symmetric, no zero point;
# - `upstream`: the gradient of the loss by what is read back, of the weight's shape;
# - returns `(values, gradient)`, both of that shape. `values`: the weight rounded, clamped to the levels from $-2^{b-1}$ to $2^{b-1} - 1$, and read back. `gradient`: that of the loss by the weight: `upstream`, but 0 where the rounded integer had to be clamped.
#
# **Predict** first: why is it 0 there? And 3 bits, scale 1: does a weight of 3.3 get a gradient? And 3.7?
#
# <details><summary>Hint 1</summary>The scale does not occur in the gradient: forward there is a division by it and a multiplication with it.</details>
# <details><summary>Hint 2</summary>Keep the integers before the clamp and after it. Where are they equal?</details>
# <details><summary>Hint 3</summary>A mask of True and False times a tensor keeps its numbers where the mask is True, and makes the others 0.</details>


# %%
def straight_through(weight, scale, bits, upstream):
    """Return (what is read back of the weight, the gradient of the loss by the weight)."""
    ### BEGIN SOLUTION
    nearest = (weight / scale).round()
    q = nearest.clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return q * scale, upstream * (q == nearest)
    ### END SOLUTION


# %%
passed = checks.check_straight_through(straight_through)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# **In the real model.** PyTorch takes your function as an operation with a way forward and a way back, and `parametrize` puts it in front of the weights of each layer: the floats are what is trained, the rounded values are what the layer multiplies with.


# %%
class Rounded(torch.autograd.Function):
    """Your function, as PyTorch wants it: forward gives the values, backward the gradient."""

    @staticmethod
    def forward(ctx, weight, scale, bits):
        ctx.given = weight, scale, bits
        return straight_through(weight, scale, bits, torch.zeros_like(weight))[0]

    @staticmethod
    def backward(ctx, upstream):
        return straight_through(*ctx.given, upstream)[1], None, None


# %%
class OnTheGrid(torch.nn.Module):
    """Rounds a layer's weight to 2 bits in groups of 32 each time the layer is used."""

    def __init__(self, weight):
        super().__init__()
        self.scale = quantization.search_scale(weight.detach().view(-1, 32), 2)

    def forward(self, weight):
        return Rounded.apply(weight.view(-1, 32), self.scale, 2).view_as(weight)


# %% [markdown]
# 30 steps on speeches that are not among the three texts that judge. The control is the same 30 steps in floats, *then* rounded: does training alone do it, or does it take training on the grid? Each of the two gets the best of three learning rates. They are compared on a fourth text, which neither teaches nor judges: whoever chooses on the texts that judge is praised for luck.

# %%
lessons, choosing = data.token_batches(learn[:200_000], 64, batch_size=8), learn[200_000:204_097]


def trained(on_the_grid, rate):
    """Return a copy of the model in 2 bits after 30 steps, on the grid or in floats."""
    model = copy.deepcopy(student)
    matrices = layers.linear_layers(model).values()
    for layer in matrices if on_the_grid else ():
        parametrize.register_parametrization(layer, "weight", OnTheGrid(layer.weight))
    recipe = Recipe(steps=30, learning_rate=rate, warmup_steps=3, seed=0)
    train(model, lessons, recipe, model_loss, progress=False)
    for layer in () if on_the_grid else matrices:
        layer.weight.data = rounded(layer.weight.data, 2)
    return model.eval()


# %% rtol=0.02
def best_of_three(on_the_grid):
    """Return the copy with the rate that did best on the fourth text."""
    runs = [trained(on_the_grid, rate) for rate in (1e-4, 3e-4, 1e-3)]
    return min(runs, key=lambda model: metrics.perplexity(model, choosing, window=128))


tell("floats", student)
tell("2 bits", with_weights(lambda weight: rounded(weight, 2)))
tell("2 bits after 30 steps in floats", best_of_three(on_the_grid=False))
if passed:
    tell("2 bits after 30 steps on your grid", best_of_three(on_the_grid=True))
else:
    print("First solve this exercise: then the steps on your grid stand here.")

# %% [markdown] tags=["solution"]
# **Why.** Beyond the last level a small push changes nothing that is read back, so the loss has no slope there, and a weight that is out there would be pushed farther and farther without anything to stop it. 3.3 is rounded to 3, which exists with 3 bits: its gradient passes. 3.7 becomes 4, is clamped, and gets none.
#
# The usual way to write this needs no class: `w + (rounded - w).detach()` has the value of `rounded` and the gradient of `w`. With a clamp (one that lets all pass that is *rounded* to a level) it becomes:

# %% tags=["solution"]
torch.manual_seed(0)
weight, upstream = (3 * torch.randn(4, 6)).requires_grad_(), torch.randn(4, 6)
scale = torch.full((4, 1), 0.9)
steps = weight / scale
inside = steps.clamp(-4.5, 3.5)  # what lies half a step beyond the last levels is clamped
q = inside + (steps.round().clamp(-4, 3) - inside).detach()
(q * scale).backward(upstream)
yours = straight_through(weight, scale, 3, upstream)[1]
print("the same gradient:", torch.allclose(weight.grad, yours))

# %% [markdown]
# ## Wrap-up
#
# You placed a grid, repaired a function with four bugs, stored integers with a scale for each group, chose what to cut off, spent a budget where it is needed, and trained a model on its grid; each of them has worked inside a language model. Chapter 05 multiplies such integers without turning them back into floats.
