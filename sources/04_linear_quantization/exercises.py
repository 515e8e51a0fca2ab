# %% [markdown]
# # 04 · Linear quantization: exercises — a grid, its bits, a bug, a curve, the best scale
#
# Five small functions, from easy to hard. Each is followed by one line that checks it: ✓, or ✗ and what your answer seems to believe. Run that line as often as you like. Nothing here needs more than chapter 04. The formulas of exercise 1 stand in its section 1: close the chapter first, and draw a number line instead.
#
# From the command line, `lightcourse check exercises/04_linear_quantization.ipynb` tells which checks pass.

# %%
import torch

from lightcourse import checks

# %% [markdown]
# ## Exercise 1 · The grid that just fits ★ (10 minutes)
#
# Write `affine_qparams(x, bits)`:
#
# - `x`: a tensor of floats, of any shape;
# - the integers reach from $-2^{b-1}$ to $2^{b-1} - 1$, where $b$ is `bits`;
# - returns `(scale, zero_point)` as two Python numbers: the width of a step, and the integer that stands for a real 0. The range from the smallest to the largest number, widened to hold 0, must just fit. If `x` holds nothing but zeros, the scale is 1.
#
# **Predict** first: `x` is `[20.0, 22.5, 30.0]` and `bits` is 3. What are the scale and the zero point? And for four times 0.7?
#
# <details><summary>Hint 1</summary>Eight levels: how many steps lie between the first and the last?</details>
# <details><summary>Hint 2</summary>Widen: a low above 0 becomes 0, a high below 0 becomes 0. <code>clamp</code> does it.</details>
# <details><summary>Hint 3</summary>The first integer stands for low. How many steps are there from low to 0? So many integers later comes the zero point, rounded to a whole number.</details>


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

# %% [markdown] tags=["solution"]
# **Why.** The range of `[20.0, 22.5, 30.0]` becomes 0 to 30, seven steps of 4.29, and 0 is the first integer, -4. For 0.7 the range is 0 to 0.7: seven steps of 0.1, and the constant is exact. Without the widening it would be 0.7 to 0.7, and 0 / 0. Only nothing but zeros leaves an empty range; any scale would do then, and 1 is as good as any. The minus before `round(low / scale)` is there because low is not positive: the farther down it reaches, the more integers are spent below 0, and the higher the zero point.

# %% tags=["solution"]
for values in ([20.0, 22.5, 30.0], [0.7] * 4, [-1.0, 3.0]):
    scale, zero_point = affine_qparams(torch.tensor(values), 3)
    print(f"{values}: scale {scale:.3f}, zero point {zero_point}")

# %% [markdown]
# ## Exercise 2 · How many bits is "4 bits"? ★★ (15 minutes)
#
# Write `bits_per_weight(bits, group_size, symmetric)`, which returns two numbers of bits for each weight:
#
# 1. **information**: `bits` for the weight itself; each group of `group_size` weights shares one scale of 16 bits, and if `symmetric` is False also one zero point, which needs as many bits as a weight;
# 2. **stored**, in a simple format: a weight of up to 4 bits takes half a byte, above that a whole byte; a scale takes 16 bits; a zero point a whole byte. (Up to 4 bits the course's library stores just this; above, its scales are 32-bit floats, which we leave aside.)
#
# **Predict** first: which takes more, as information: 4 bits in groups of 128, or 3 bits in groups of 16 (both symmetric)? And stored? From which group size on do the scales of 4-bit weights cost less than 0.1 bits a weight?
#
# <details><summary>Hint 1</summary>Count for a whole group first, then divide by its size.</details>
# <details><summary>Hint 2</summary>Check yourself: 4 bits, groups of 32, symmetric: 4.5 and 4.5.</details>
# <details><summary>Hint 3</summary>What differs between the two answers: how wide a weight is, and how wide a zero point is. Nothing else.</details>


# %%
def bits_per_weight(bits, group_size, symmetric):
    """Return the bits of a weight with its share of scale and zero point: (information, stored)."""
    ### BEGIN SOLUTION
    zero_bits, zero_stored = (0, 0) if symmetric else (bits, 8)
    width = 4 if bits <= 4 else 8
    information = bits + (16 + zero_bits) / group_size
    stored = width + (16 + zero_stored) / group_size
    return information, stored
    ### END SOLUTION


# %%
passed = checks.check_bits_per_weight(bits_per_weight)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown] tags=["solution"]
# **Why.** 4 bits in groups of 128 are 4 + 16/128 = 4.125 bits, 3 bits in groups of 16 are 3 + 16/16 = 4: nearly the same, though one says "3" and the other "4". Stored, the latter takes 5, because 3 bits take the room of 4. And 16/g falls below 0.1 from a group size of 160 on. (A scale of 16 bits for each *single* weight would cost four times what the weight costs.)
#
# Now ask the library. Its report tells the bytes saved, from which follow the bits that are stored:

# %% tags=["solution"]
from lightcourse import quantization

for bits, group_size, symmetric in [(4, 32, True), (3, 32, True), (3, 64, False)]:
    layer = torch.nn.Sequential(torch.nn.Linear(256, 64, bias=False))
    report = quantization.quantize_(layer, bits, group_size, symmetric=symmetric)
    stored = 32 - 8 * report.total / (256 * 64)
    information, by_hand = bits_per_weight(bits, group_size, symmetric)
    print(f"{bits} bits, groups of {group_size}: {information} information, {stored} stored")
    assert stored == by_hand

# %% [markdown]
# ## Exercise 3 · Spot the bug ★★ (20 minutes)
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
# - returns a float tensor of the same shape: what is read back after rounding to integers of `bits` bits. 0 is exact, and never are there more than $2^b$ different values.
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

# %% [markdown] tags=["solution"]
# **Why.** The four bugs:
#
# 1. `levels = bits`: 3 bits make 8 levels and 7 steps, not 3 steps; with 8 bits it returns 9 different values instead of 256.
# 2. No inverse: what comes back lies between 0 and 1, whatever x was.
# 3. No zero point: 0 is not on the grid (and with this inverse the smallest number becomes 0).
# 4. Nothing guards an empty range: a constant tensor becomes `nan`.
#
# And who adds a zero point needs a clamp as well: it shifts the grid by up to half of a step, so that a number at the very end may round to a level that does not exist. -3.5 to 3.5 with 3 bits is such a case: seven steps of 1, both ends exactly between two levels.

# %% tags=["solution"]
x = torch.tensor([-3.5, -1.2, 0.0, 2.2, 3.5])
scale, zero_point = affine_qparams(x, 3)
print("without a clamp:", ((x / scale).round() + zero_point).int().tolist(), "of -4 to 3")
print("read back:", round_trip(x, 3).tolist())
assert len(broken(torch.linspace(5, 6, 1000), 8).unique()) == 9
assert len(round_trip(torch.linspace(-1, 2, 3000), 8).unique()) == 256

# %% [markdown]
# ## Exercise 4 · Predict a curve ★★ (20 minutes)
#
# Numbers are spread evenly from `low` to `high`, where low ≤ 0 ≤ high. They are rounded to the asymmetric grid of `bits` bits. What is the mean *squared* error?
#
# Before you write any code, **draw** it over the bits, from 2 to 8, on a logarithmic axis. Is it a straight line, does it bend up, or down? By what factor does it fall from one bit to the next? And if the range is doubled, how many bits more keep the error where it was?
#
# Then derive a formula: a rounding error $e$ is spread evenly from $-s/2$ to $s/2$, where $s$ is the step. Write `expected_error(low, high, bits)`, which returns the mean of $e^2$. (Ignore what the rounding of the zero point does to the very ends.)
#
# <details><summary>Hint 1</summary>The mean of a function over an interval is its integral, divided by the length of the interval.</details>
# <details><summary>Hint 2</summary>∫ e² de = e³/3. Put in both ends.</details>
# <details><summary>Hint 3</summary>The step is that of exercise 1, before anything is rounded.</details>


# %%
def expected_error(low, high, bits):
    """Return the mean squared rounding error of evenly spread numbers."""
    ### BEGIN SOLUTION
    step = (high - low) / (2**bits - 1)
    return step**2 / 12
    ### END SOLUTION


# %%
passed = checks.check_expected_error(expected_error)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown] tags=["solution"]
# **Why.** $\frac{1}{s}\int_{-s/2}^{s/2} e^2\,de = \frac{1}{s}\cdot\frac{2}{3}\Big(\frac{s}{2}\Big)^3 = \frac{s^2}{12}$. One bit more halves the step (nearly: 7 steps become 15), so the squared error falls to a quarter: on a logarithmic axis a straight line, a little steeper at the left. A factor of 4 is 6.02 **decibels** ($10 \log_{10} 4$), the engineers' "six dB a bit". A doubled range doubles the step, so it takes one bit more.
#
# Does it hold? Numbers spread evenly, and, as a control, numbers that are not: normal ones, with some rare large values that widen the range, so that the line lies higher. The slope stays, and so does the formula, since it asks only for the step.

# %% tags=["solution"]
from lightcourse import plots

torch.manual_seed(0)
lines = {"predicted, even": {}, "measured, even": {}, "measured, normal": {}}
even, normal = torch.rand(100_000) * 3 - 1, torch.randn(100_000)
for bits in range(2, 9):
    lines["predicted, even"][bits] = [expected_error(-1, 2, bits)]
    for name, x in {"measured, even": even, "measured, normal": normal}.items():
        found = (round_trip(x, bits) - x).square().mean().item()
        lines[name][bits] = [found]
        if bits > 3:
            guess = expected_error(x.min().item(), x.max().item(), bits)
            assert abs(found / guess - 1) < 0.1
ax = plots.bits_curves(lines, "mean squared error")
label = ax.set(xlabel="bits")

# %% [markdown] tags=["solution"]
# *Figure: mean squared error, on a logarithmic axis, over 2 to 8 bits: three nearly straight lines that fall in parallel, by a factor of four a bit. "Predicted" and "measured" for evenly spread numbers lie on each other; normal numbers lie nearly ten times higher.*

# %% [markdown]
# ## Exercise 5 · The best scale for given integers ★★★ (30 minutes)
#
# Suppose the integers $q$ of a row are settled, symmetric ($z = 0$). The row is read back as $s\,q$. Which $s$ makes the squared error $E(s) = \sum_k (x_k - s\,q_k)^2$ smallest? It need not be the scale with which the integers were made! Derive it with pencil and paper. Then write `improve_scale(x, scale, bits)`:
#
# - `x`: shape (rows, columns); `scale`: shape (rows, 1), positive;
# - first the integers: round `x / scale`, clamped to what `bits` bits hold (from $-2^{b-1}$);
# - returns the best scale for these integers, shape (rows, 1), one for each row. Where all integers of a row are 0, the scale stays as it was.
#
# <details><summary>Hint 1</summary>E(s) is a parabola in s. Where is its derivative 0?</details>
# <details><summary>Hint 2</summary>−2 Σ q (x − s q) = 0. Solve for s. In words: the error must stand at right angles to q.</details>
# <details><summary>Hint 3</summary><code>sum(dim=1, keepdim=True)</code> keeps the shape (rows, 1); <code>torch.where</code> chooses for each row.</details>


# %%
def improve_scale(x, scale, bits):
    """Return for each row the scale that fits its integers best."""
    ### BEGIN SOLUTION
    q = (x / scale).round().clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    squares = (q * q).sum(dim=1, keepdim=True)
    best = (q * x).sum(dim=1, keepdim=True) / squares.clamp(min=1)
    return torch.where(squares > 0, best, scale)
    ### END SOLUTION


# %%
passed = checks.check_improve_scale(improve_scale)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown] tags=["solution"]
# **Why.** $E'(s) = -2 \sum_k q_k (x_k - s\,q_k) = 0$ gives
#
# $$s = \frac{\sum_k q_k x_k}{\sum_k q_k^2} = \frac{\langle q, x\rangle}{\langle q, q\rangle}$$
#
# With a new scale other integers may be nearer. So take turns: integers for the scale, scale for the integers. Each half of a turn can only lower the error (the rounding is the best choice of integers, the fit the best choice of scale), so the error never rises, and it stops where neither has anything to gain. Like many such methods it stops at the nearest valley, not at the deepest one.
#
# (A clamped integer has no better one either: the clamp is the nearest level that exists. The binary quantization of the chapter, $\text{mean}(|w|) \cdot \text{sign}(w)$, is the same formula: with $q = \text{sign}(w)$, $\langle q, w\rangle$ is the sum of sizes and $\langle q, q\rangle$ their number.)

# %% tags=["solution"]
from lightcourse import layers, models

weight = layers.weight_matrix(models.load_tiny_lm("student").model.layers[2].mlp.up_proj).detach()


def error(scale, bits=3):
    """Return the squared error of the matrix, in percent."""
    q = (weight / scale).round().clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return (100 * (q * scale - weight).square().sum() / weight.square().sum()).item()


# %% tags=["solution"]
scale = weight.abs().amax(1, keepdim=True) / 3
errors = [error(scale)]
for _ in range(20):
    scale = improve_scale(weight, scale, bits=3)
    errors.append(error(scale))
    assert errors[-1] <= errors[-2] + 1e-4
print("error in %, after 0, 1, 2, 5, 20 turns:", [round(errors[i], 2) for i in (0, 1, 2, 5, 20)])

# %% [markdown] tags=["solution"]
# Is the valley deep? The library tries a dozen scales for each row (`search_scale`), negative ones among them (then the largest weight may sit on -4, the level that absmax never uses), and one can let the turns begin there. **Predict:** which is better, twenty turns from absmax, or the search?

# %% tags=["solution"]
searched = quantization.search_scale(weight, 3)
polished = searched
for _ in range(20):
    polished = improve_scale(weight, polished, bits=3)
for name, found in {"turns from absmax": scale, "search": searched, "both": polished}.items():
    print(f"{name:18} error {error(found):.2f} %")
assert error(polished) <= error(searched) < error(scale)

# %% [markdown]
# ## Wrap-up
#
# You placed a grid, counted what it really takes, repaired a function with four bugs, predicted how an error falls with the bits, and found the best scale for given integers. Chapter 05 multiplies such integers without turning them back into floats.
