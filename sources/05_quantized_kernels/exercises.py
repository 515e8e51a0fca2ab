# %% [markdown]
# # 05 · Quantized kernels: exercises — sums, nibbles, roofs, overflows
#
# Six small functions, each one step of an integer kernel. Each is followed by one line that checks it: ✓, or ✗ and what your answer seems to believe. Run that line as often as you like. Nothing here needs more than chapter 05.
#
# From the command line, `lightcourse check exercises/05_quantized_kernels.ipynb` tells which checks pass.

# %%
import numpy as np
import torch

from lightcourse import checks, panels, quantization

# %% [markdown]
# ## Exercise 1 · The integer dot, with zero points ★ (15 minutes)
#
# Inputs *and* weights are stored as unsigned bytes, each with a zero point. Write `integer_dot(x, w, x_zero, w_zero, x_scale, w_scale)`:
#
# - `x`, `w`: `uint8` tensors of the same length $K$;
# - `x_zero`, `w_zero`: whole numbers, the bytes that stand for a real 0;
# - `x_scale`, `w_scale`: floats, one step of each;
# - returns the real number $\sum_k s_x (x_k - z_x)\, s_w (w_k - z_w)$.
#
# Let no scale into the sum. **Predict** first: if you multiply $(x_k - z_x)(w_k - z_w)$ out, how many sums over $k$ are there, and which of them needs both x and w?
#
# <details><summary>Hint 1</summary>What is <code>torch.tensor([200], dtype=torch.uint8) * 2</code>? Try it.</details>
# <details><summary>Hint 2</summary><code>.long()</code> makes room, before anything is subtracted or multiplied.</details>
# <details><summary>Hint 3</summary>Multiply the bracket out on paper. One of the terms does not depend on k: how often is it added up?</details>


# %%
def integer_dot(x, w, x_zero, w_zero, x_scale, w_scale):
    """Return the dot product of two rows of quantized numbers."""
    ### BEGIN SOLUTION
    x, w = x.long(), w.long()
    total = (x * w).sum() - w_zero * x.sum() - x_zero * w.sum() + len(x) * x_zero * w_zero
    return x_scale * w_scale * total.item()
    ### END SOLUTION


# %%
passed = checks.check_integer_dot(integer_dot)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown] tags=["solution"]
# **Why.** Only Σ x·w needs both; it alone must be computed for each token *and* each output. Σx belongs to the token, Σw to the output (a kernel can store it beside the weights), and $K z_x z_w$ to nobody. So zero points cost next to nothing in a large matrix product. The constant is there for each of the $K$ inputs, so it is added $K$ times: whoever forgets the factor sees a small error in short rows and a large one in long rows.
#
# `((x - x_zero) * (w - w_zero)).sum()` after widening is the same number and just as right; a kernel prefers the four terms because the big sum then runs over the stored bytes.

# %% tags=["solution"]
x, w = torch.tensor([200, 100], dtype=torch.uint8), torch.tensor([30, 90], dtype=torch.uint8)
print("as bytes ", (x * w).tolist())
print("widened  ", (x.long() * w.long()).tolist())
assert integer_dot(x, w, 100, 30, 0.5, 0.1) == 0

# %% [markdown]
# ## Exercise 2 · Two numbers in a byte ★★ (15 minutes)
#
# Write `pack_nibbles(q)`:
#
# - `q`: an `int8` tensor of shape (rows, K) with values from -8 to 7;
# - returns a `uint8` tensor of shape (rows, K / 2, rounded up): the even places 0, 2, 4, … in the low halves of the bytes, the odd ones in the high halves. An odd row is filled up with a 0.
# - A negative number is stored as **two's complement**: the low 4 of its bits, so that -1 is 15 and -8 is 8. (The library's panels add 8 instead. Both are in use.)
#
# **Predict** first: which byte do 1 and -1 share?
#
# <details><summary>Hint 1</summary><code>q &amp; 15</code> keeps the low 4 bits. What is <code>-1 &amp; 15</code>?</details>
# <details><summary>Hint 2</summary><code>q[:, 0::2]</code> are the even places. <code>torch.nn.functional.pad(q, (0, 1))</code> adds a column of zeros.</details>
# <details><summary>Hint 3</summary><code>low | high &lt;&lt; 4</code>, on numbers wide enough, and <code>.to(torch.uint8)</code> last.</details>


# %%
def pack_nibbles(q):
    """Return bytes that hold two 4-bit numbers each."""
    ### BEGIN SOLUTION
    nibbles = torch.nn.functional.pad(q.int(), (0, q.shape[-1] % 2)) & 15
    return (nibbles[:, 0::2] | nibbles[:, 1::2] << 4).to(torch.uint8)
    ### END SOLUTION


# %%
passed = checks.check_pack_nibbles(pack_nibbles)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# And the way back. Write `unpack_nibbles(packed, length)`:
#
# - `packed`: a `uint8` tensor as above;
# - `length`: the number of values in a row, so that the filling can be cut off;
# - returns the integers from -8 to 7, of shape (rows, length).
#
# <details><summary>Hint 1</summary>Both halves are from 0 to 15 at first. From which value on is it a negative number?</details>
# <details><summary>Hint 2</summary>The two halves must alternate again: <code>torch.stack([low, high], dim=-1).flatten(-2)</code>.</details>
# <details><summary>Hint 3</summary><code>torch.where(condition, a, b)</code> chooses for each value.</details>


# %%
def unpack_nibbles(packed, length):
    """Return the 4-bit numbers that the bytes hold."""
    ### BEGIN SOLUTION
    wide = packed.int()
    nibbles = torch.stack([wide & 15, wide >> 4], dim=-1).flatten(-2)
    return torch.where(nibbles < 8, nibbles, nibbles - 16)[:, :length]
    ### END SOLUTION


# %%
passed = checks.check_unpack_nibbles(unpack_nibbles)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown] tags=["solution"]
# **Why.** 1 and -1 share the byte `11110001`, 241. Without `& 15` the -1 would be `11111111` and cover its neighbour with ones; positive numbers alone never show that mistake, so test with negative ones. The way back must restore the sign: the highest bit of a nibble counts -8, not +8. A trick without a condition is `(nibble ^ 8) - 8`. There and back again must be exact for all 16 values:

# %% tags=["solution"]
every = torch.arange(-8, 8, dtype=torch.int8)[None]
packed = pack_nibbles(every)
print([f"{byte:08b}" for byte in packed[0].tolist()])
assert torch.equal(unpack_nibbles(packed, 16), every.int())
assert torch.equal(packed, quantization.pack_int4(every))

# %% [markdown]
# ## Exercise 3 · Which side of the roof? ★★ (15 minutes)
#
# Before you optimize a layer, ask what it waits for. Write `layer_limits(inputs, outputs, rows, bits, bandwidth, peak)`:
#
# - the layer has `inputs` × `outputs` weights of `bits` bits (no scales, to keep it simple), and gets `rows` rows of input;
# - the inputs are read and the outputs written as 32-bit floats;
# - `bandwidth` in bytes a second, `peak` in operations a second;
# - returns a tuple of two times in seconds: for moving the bytes, and for the operations. The layer cannot be faster than the larger of the two.
#
# **Predict** first: a layer of 4,096 × 4,096, 8 bits, one row, on a machine with 30 GB/s and 480 billion operations a second. Which of the two times is larger, and how many times?
#
# <details><summary>Hint 1</summary>How often must a weight be read for 100 rows, if all of them are there at the same time?</details>
# <details><summary>Hint 2</summary>One weight and one input: a multiplication and an addition.</details>
# <details><summary>Hint 3</summary>Three things are moved: weights, x of shape (rows, inputs), y of shape (rows, outputs).</details>


# %%
def layer_limits(inputs, outputs, rows, bits, bandwidth, peak):
    """Return the seconds for moving bytes, and those for computing."""
    ### BEGIN SOLUTION
    weight_bytes = inputs * outputs * bits / 8
    row_bytes = 4 * rows * (inputs + outputs)
    operations = 2 * inputs * outputs * rows
    return (weight_bytes + row_bytes) / bandwidth, operations / peak
    ### END SOLUTION


# %%
passed = checks.check_layer_limits(layer_limits)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# Use it: a layer of 4,096 × 4,096 at several batches. Put in your own machine's limits, from chapter 05.

# %%
for rows in (1, 8, 64):
    for bits in (8, 4):
        print(rows, "rows,", bits, "bits:", layer_limits(4096, 4096, rows, bits, 30e9, 480e9))

# %% [markdown] tags=["solution"]
# **Why.** One row: 560 µs for the bytes against 70 µs for the operations, 8 times as much. Half of the bits is then half of the time. At 64 rows it is 629 against 4,474 µs: the arithmetic decides, and 4 bits gain nothing at all (a kernel that must unpack them first even loses). So "4 bits are twice as fast" is at best true for writing text alone on a machine, if the kernel unpacks as fast as the memory delivers (the chapter clocks what ours gains there), and false for reading long prompts.

# %% [markdown]
# ## Exercise 4 · The offset trick ★★ (15 minutes)
#
# An instruction multiplies unsigned bytes (0 to 255) by signed ones. Your weights are signed. Write `offset_parts(x, w)`:
#
# - `x`: `int8` tensor of shape (rows, K); `w`: `int8` tensor of shape (outputs, K), with all values from -128 to 127;
# - returns a tuple `stored, start`: `stored` of shape (outputs, K) with values from 0 to 255, and `start` of shape (rows,), so that
#
# $$\text{start}_m + \sum_k x_{mk}\,\text{stored}_{nk} = \sum_k x_{mk}\,w_{nk}$$
#
# **Predict** first: what if the *inputs* got the offset instead? Would the correction belong to the row or to the output?
#
# <details><summary>Hint 1</summary>Multiply x · (w + 128) out. Which part is too much?</details>
# <details><summary>Hint 2</summary>100 + 128 does not fit into <code>int8</code>.</details>
# <details><summary>Hint 3</summary>Verify it yourself on small random numbers: <code>start[:, None] + x.long() @ stored.T</code>.</details>


# %%
def offset_parts(x, w):
    """Return unsigned weights, and what the sums of each row start from."""
    ### BEGIN SOLUTION
    stored = w.int() + 128
    start = -128 * x.int().sum(dim=1)
    return stored, start
    ### END SOLUTION


# %%
passed = checks.check_offset_parts(offset_parts)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown] tags=["solution"]
# **Why.** $x(w + 128) = xw + 128x$, so each sum has $128 \sum_k x_k$ too much, whatever the weights are. With the offset on the inputs, $(x + 128)w$ has $128 \sum_k w_k$ too much: the correction then belongs to the *output*, and can be computed once and for all when the weights are packed. The library does the first in its dense kernels and the second in its sparse one, where the weights that are zero must stay zero.
#
# The numbers agree, and the stored bytes are the library's:

# %% tags=["solution"]
generator = torch.Generator().manual_seed(0)
x = torch.randint(-127, 128, (3, 40), generator=generator, dtype=torch.int8)
w = torch.randint(-128, 128, (5, 40), generator=generator, dtype=torch.int8)
stored, start = offset_parts(x, w)
assert torch.equal(start[:, None] + x.int() @ stored.T, x.int() @ w.int().T)
assert (panels.pack_w8(w.numpy())[0, 0, :5] == stored[:, :4].numpy()).all()
print("the sums start at", start.tolist())

# %% [markdown]
# ## Exercise 5 · Find the overflow ★★★ (20 minutes)
#
# A colleague's kernel adds up in 16 bits, "because twice as many sums fit into a register". His test passes. The first matrix here is the one of his test; the second differs from it in one respect. **Predict** which line will be wrong, and why.


# %%
def fast_sums(x, w):
    """Multiply unsigned x by signed w, and add up in 16 bits. (With a bug.)"""
    return (x[:, None, :].astype(np.int16) * w).sum(axis=2, dtype=np.int16)


numbers = np.random.default_rng(0)
for name, high in {"his test": 16, "as inputs really are": 256}.items():
    x, w = numbers.integers(0, high, (4, 8)), numbers.integers(-8, 8, (3, 8), dtype=np.int16)
    wide = x @ w.T.astype(int)
    print(f"{name:21} all sums right: {bool((fast_sums(x, w) == wide).all())}")

# %% [markdown]
# Both are right! With 8 inputs of 8 bits and weights of 4 bits, 16 bits do suffice. But from how many inputs on do they not? A test with random numbers finds that late or never, because random products cancel. So work it out for the worst case. Write `safe_inputs(x_bits, w_bits, sum_bits)`:
#
# - inputs are *unsigned* integers of `x_bits` bits, weights are *signed* ones of `w_bits` bits (2 or more), all values are possible;
# - the sum is a signed integer of `sum_bits` bits; the products themselves are exact;
# - returns the largest $K$ for which *no* sum of $K$ products can overflow.
#
# <details><summary>Hint 1</summary>What is the largest input? What is the weight that is furthest from 0, and is it positive or negative?</details>
# <details><summary>Hint 2</summary>A signed integer of 16 bits goes from -32,768 to 32,767. The two ends are not equally far away: look at both.</details>
# <details><summary>Hint 3</summary><code>//</code> rounds down, which is what "the largest K" wants.</details>


# %%
def safe_inputs(x_bits, w_bits, sum_bits):
    """Return the largest number of products whose sum always fits."""
    ### BEGIN SOLUTION
    x_most, w_least = 2**x_bits - 1, 2 ** (w_bits - 1)
    below = 2 ** (sum_bits - 1) // (x_most * w_least)
    above = (2 ** (sum_bits - 1) - 1) // (x_most * (w_least - 1))
    return min(below, above)
    ### END SOLUTION


# %%
passed = checks.check_safe_inputs(safe_inputs)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# Use it: where do the accumulators of chapter 05 end?

# %%
for x_bits, w_bits, sum_bits in [(8, 8, 32), (8, 8, 16), (8, 4, 16)]:
    print(x_bits, w_bits, sum_bits, "bits:", safe_inputs(x_bits, w_bits, sum_bits))

# %% [markdown] tags=["solution"]
# **Why.** The largest input is 255, the weight furthest from zero is -128 (or -8). The negative end decides: $32{,}768 / (255 \cdot 8)$ = 16.06, so 16 inputs are safe and 17 are not. With weights of 8 bits a *single* product is safe in 16 bits and two are not: that is why `vpmaddubsw`, which adds two, cuts them off, and why the library's AVX2 kernel does not use it. In 32 bits it is 65,793. (The chapter said 66,311: there the unsigned byte is the weight and the signed one an input, which is never -128, so the worst product is 255 · 127.) The library stops at 65,536, a rounder number.
#
# The test that finds the colleague's bug is not a random one, but the worst case, at the limit and one beyond it:

# %% tags=["solution"]
for inputs in (16, 17):
    x, w = np.full((1, inputs), 255), np.full((1, inputs), -8, np.int16)
    print(f"{inputs} inputs: wanted {255 * -8 * inputs}, got {fast_sums(x, w).item()}")

# %% [markdown]
# ## Wrap-up
#
# You moved zero points and offsets out of a sum, packed and unpacked nibbles, found what a layer waits for, and proved when an accumulator is wide enough. These are the parts of a quantized kernel. What is left is to put them into the order in which a processor likes to read: `lightcourse/panels.py` makes that order, `lightcourse/kernels/tiles.py` reads in it, and `lightcourse/kernels/portable.py` is the same sum in plain loops.
