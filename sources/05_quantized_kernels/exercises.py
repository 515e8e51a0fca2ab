# %% [markdown]
# # 05 · Quantized kernels: exercises — sums, nibbles, roofs, overflows, and a kernel
#
# Seven functions: six steps of an integer kernel, then a whole one. Each is followed by one line that checks it: ✓, or ✗ and what your answer seems to believe. Run that line as often as you like. After it your function computes inside MiniLM, and a control that needs no answer of yours is printed above it. Nothing here needs more than chapter 05.
#
# From the command line, `lightcourse check exercises/05_quantized_kernels.ipynb` tells which checks pass.

# %%
import copy

import numpy as np
import torch
from numba import njit
from torch.nn.functional import cosine_similarity

import lightcourse
from lightcourse import checks, data, kernels, layers, metrics, models, panels, quantization
from lightcourse.kernels import limits

lightcourse.setup()

# %%
minilm, reviews = models.load_minilm(), data.load_reviews()["test"].select(range(5))
batches = data.ordered_batches(reviews, models.load_minilm_tokenizer(), max_length=24)
embedded = models.embed(minilm, batches)
library = copy.deepcopy(minilm)
report = quantization.quantize_(library, bits=8, activations=8)

# %% [markdown]
# So much for the model, five reviews, and what MiniLM makes of them in floats. `library` is a copy that runs on the library's kernels for 8 bits. `minilm_with(make)` returns a copy of MiniLM whose linear layers multiply in another way: `make(weight)` is asked once for each layer, and returns a function that is given the layer's inputs, of shape (rows, inputs). `closeness` says how far a copy's embeddings are from those of the floats: 1 is the same direction.


# %%
def minilm_with(make):
    """Return a copy of MiniLM whose linear layers multiply by the functions that make returns."""
    model = copy.deepcopy(minilm)
    for layer in layers.linear_layers(model).values():
        product, bias = make(layer.weight.detach()), layer.bias
        layer.forward = lambda x, f=product, b=bias: f(x.flatten(0, 1)).view(*x.shape[:2], -1) + b
    return model


def closeness(model):
    """Return the mean cosine between a model's embeddings of the reviews and MiniLM's."""
    return cosine_similarity(models.embed(model, batches), embedded).mean().item()


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

# %% [markdown]
# **In the model:** the first token of a review enters a layer in the middle of MiniLM. Its inputs and the layer's weights become bytes, each with a zero point, and your function computes the 1,536 outputs. The control multiplies the bytes as they are stored and forgets what their zeros are.

# %%
layer, seen = minilm.encoder.layer[3].intermediate.dense, []
hook = layer.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
again = models.embed(minilm, batches)
hook.remove()
token, weight = seen[0][0, 0], layer.weight.detach()
(x_scale, x_zero), (w_scale, w_zero) = map(quantization.choose_qparams_affine, (token, weight))
x = quantization.quantize_affine(token, x_scale, x_zero).int() + 128
w = quantization.quantize_affine(weight, w_scale, w_zero).int() + 128
rest = x_zero.item() + 128, w_zero.item() + 128, x_scale.item(), w_scale.item()


# %% atol=0.02
def tell_closeness(name, outputs):
    """Print how close the layer's outputs are to those of the floats."""
    close = cosine_similarity(outputs, weight @ token, dim=0).item()
    print(f"{name:21} closeness to the floats {close:.3f}")


tell_closeness("zero points forgotten", (w @ x).float())
if passed:
    yours = [integer_dot(x.byte(), row, *rest) for row in w.byte()]
    tell_closeness("your function", torch.tensor(yours))
else:
    print("First solve the exercise: then your function runs here.")

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
packs = checks.check_pack_nibbles(pack_nibbles)
### BEGIN HIDDEN TESTS
assert packs
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

# %% [markdown]
# **In the model:** all linear layers of MiniLM are rounded to 4 bits in groups of 32. The control keeps each weight in a byte of its own; you keep two in one. What comes back should be the same.


# %%
def kept_in(pack, unpack):
    """Return MiniLM with weights of 4 bits that were packed and unpacked, and the bytes stored."""
    stored = []

    def make(weight):
        q, scale, _ = quantization.round_to_nearest(weight, bits=4, group_size=32)
        stored.append(pack(q))
        back = unpack(stored[-1], q.shape[1]).unflatten(1, (-1, 32)) * scale[:, :, None]
        return lambda rows: rows @ back.flatten(1).T

    return minilm_with(make), sum(packed.nbytes for packed in stored)


# %% atol=0.02
ways = {"whole bytes": (lambda q: q, lambda q, length: q)}
if passed and packs:
    ways["your nibbles"] = pack_nibbles, unpack_nibbles
for name, way in ways.items():
    model, size = kept_in(*way)
    print(f"{name:12} {size / 1e6:4.1f} MB, closeness {closeness(model):.3f}")
if not (passed and packs):
    print("First solve both parts: then your functions run here.")

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
# **In the model:** first the library's kernels run the whole of MiniLM on the five reviews, and a clock measures it. Then your function adds up the limits of all linear layers, computed from the bandwidth and the peak of this machine. No kernel can be faster; how close does the library come?

# %% clock=true
rows = batches[0]["input_ids"].numel()
took = metrics.latency(lambda: models.embed(library, batches), repeats=5)
print(f"{rows} rows, 8 bits: the whole model, measured {1e3 * took.median:7.2f} ms")
if passed:
    peak = np.nan_to_num(limits.int8_peak(), nan=50e9)  # the portable path has no peak
    machine = limits.stream_read(), peak
    shapes = [layer.weight.T.shape for layer in layers.linear_layers(minilm).values()]
    times = [layer_limits(*shape, rows, 8, *machine) for shape in shapes]
    for name, seconds in zip(("bytes", "operations"), zip(*times, strict=True), strict=True):
        print(f"limit of the linear layers: {name:10} {1e3 * sum(seconds):7.2f} ms")
else:
    print("First solve the exercise: then your function runs here.")

# %% tags=["solution"]
for rows in (1, 64):
    reading, computing = layer_limits(4096, 4096, rows, 8, 30e9, 480e9)
    print(
        f"{rows:2} rows: {1e6 * reading:.0f} µs to move the bytes, {1e6 * computing:.0f} to compute"
    )

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

# %% [markdown]
# **In the model:** all linear layers of MiniLM store unsigned bytes, and their sums start where your function says. The control is the library's kernels, which must agree with them.


# %%
def with_offset(weight):
    q, scale, _ = quantization.round_to_nearest(weight, bits=8)

    def product(rows):
        x, x_scale = map(torch.from_numpy, kernels.quantize_rows(rows))
        stored, start = offset_parts(x, q)
        # Whole numbers below 2^53: in float64 their products are exact, and faster than as int64.
        return (
            (start[:, None] + x.double() @ stored.double().T).float() * x_scale[:, None] * scale.T
        )

    return product


# %% atol=0.002
print(f"closeness: the library's {closeness(library):.4f}")
if passed:
    print(f"closeness: yours         {closeness(minilm_with(with_offset)):.4f}")
else:
    print("First solve the exercise: then your function runs here.")

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
# A colleague's kernel adds up in 16 bits, "because twice as many sums fit into a register". Inputs are unsigned bytes, weights have 4 bits, all numbers are random. His test has 8 inputs, and it passes.
#
# **Predict** first: a product is at most 255 · 8 = 2,040 in size, and 16 bits end at 32,767. Of the three lines below, 8, 64 and 1,024 inputs, which can *not* have a wrong sum, whatever the numbers are?


# %%
def fast_sums(x, w):
    """Multiply unsigned x by signed w, and add up in 16 bits. (With a bug.)"""
    return (x[:, None, :].astype(np.int16) * w).sum(axis=2, dtype=np.int16)


numbers = np.random.default_rng(0)
for inputs in (8, 64, 1024):
    x = numbers.integers(0, 256, (40, inputs))
    w = numbers.integers(-8, 8, (30, inputs), dtype=np.int16)
    right = fast_sums(x, w) == x @ w.T.astype(int)
    print(f"{inputs:5} inputs: {(~right).sum():4} of {right.size} sums are wrong")

# %% [markdown]
# With 8 inputs no sum can be wrong: 8 · 2,040 = 16,320. With 64 it can, but random products mostly cancel, so a test finds it late or never. From how many inputs on is it possible? So work it out for the worst case. Write `safe_inputs(x_bits, w_bits, sum_bits)`:
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
# **In the model:** MiniLM's weights have 4 bits now, with one scale per output, and its inputs 8. The products are added up in 16 bits, first over a whole row (the control), then in parts as long as your function allows, which are added up in 32 bits.


# %%
def in_16_bits(length):
    def make(weight):
        q, scale, _ = quantization.round_to_nearest(weight, bits=4)

        def product(rows):
            x_scale, x_zero = quantization.choose_qparams_affine(rows, dim=-1)
            x = quantization.quantize_affine(rows, x_scale, x_zero).double() + 128
            parts = zip(x.split(length, 1), q.double().split(length, 1), strict=True)
            total = sum((a @ b.T).long().short().long() for a, b in parts)  # short: 16 bits
            return (total - (x_zero + 128) * q.long().sum(1)).float() * x_scale * scale.T

        return product

    return make


# %% atol=0.05
print(f"whole rows:         closeness {closeness(minilm_with(in_16_bits(10**6))):.1f}")
if passed:
    length = safe_inputs(x_bits=8, w_bits=4, sum_bits=16)
    close = closeness(minilm_with(in_16_bits(length)))
    print(f"parts of {length} inputs: closeness {close:.1f}")
else:
    print("First solve the exercise: then your function runs here.")

# %% [markdown] tags=["solution"]
# Where do the accumulators of chapter 05 end?

# %% tags=["solution"]
for bits in [(8, 8, 32), (8, 8, 16), (8, 4, 16)]:
    print(*bits, "bits:", safe_inputs(*bits))

# %% [markdown] tags=["solution"]
# **Why.** The largest input is 255, the weight furthest from zero is -128 (or -8). The negative end decides: $32{,}768 / (255 \cdot 8)$ = 16.06, so 16 inputs are safe and 17 are not. With weights of 8 bits a *single* product is safe in 16 bits and two are not: that is why `vpmaddubsw`, which adds two, cuts them off, and why the library's AVX2 kernel does not use it. In 32 bits it is 65,793. (The chapter said 66,311: there the unsigned byte is the weight and the signed one an input, which is never -128, so the worst product is 255 · 127.) The library stops at 65,536, a rounder number.
#
# The test that finds the colleague's bug is not a random one, but the worst case, at the limit and one beyond it:

# %% tags=["solution"]
for inputs in (16, 17):
    x, w = np.full((1, inputs), 255), np.full((1, inputs), -8, np.int16)
    print(f"{inputs} inputs: wanted {255 * -8 * inputs}, got {fast_sums(x, w).item()}")

# %% [markdown]
# ## Exercise 6 · A kernel of your own ★★★ (25 minutes)
#
# Write `linear_int8(x_q, x_scale, w_q, w_scale)`, a whole kernel, in plain loops that Numba compiles:
#
# - `x_q`: `int8` array of shape (rows, K); `x_scale`: `float32` array of shape (rows,);
# - `w_q`: `int8` array of shape (outputs, K); `w_scale`: `float32` array of shape (outputs,);
# - returns a `float32` array of shape (rows, outputs): $y_{mn} = s_m\,t_n \sum_k \bar x_{mk}\,\bar w_{nk}$, where a bar marks an integer.
#
# Rows, outputs and K may be any numbers, odd ones too. While you write, leave `@njit` away: then each line runs as Python, and `print` shows what you like. Numba does not look whether an index is inside an array (`@njit(boundscheck=True)` does).
#
# **Predict** first: for 24 rows of 384 inputs and 1,536 outputs, how many times is `w_scale` used if it stands in the innermost loop, and how many times if it waits outside?
#
# <details><summary>Hint 1</summary>Three loops: rows, outputs, K. <code>weight_only</code> in chapter 05 has the same three.</details>
# <details><summary>Hint 2</summary>In Python, <code>np.int8(100) * np.int8(100)</code> does not fit: make both <code>np.int32</code> first.</details>
# <details><summary>Hint 3</summary>Numba adds in 64 bits where nothing else is said. <code>np.int32(…)</code> around the whole new sum keeps it at 32 bits, and twice as many fit into a register.</details>


# %%
@njit
def linear_int8(x_q, x_scale, w_q, w_scale):
    """Return the product of quantized rows and a quantized matrix, as floats."""
    ### BEGIN SOLUTION
    y = np.empty((len(x_q), len(w_q)), np.float32)
    for row in range(len(x_q)):
        for output in range(len(w_q)):
            total = np.int32(0)
            for k in range(w_q.shape[1]):
                total = np.int32(total + np.int32(x_q[row, k]) * np.int32(w_q[output, k]))
            y[row, output] = total * x_scale[row] * w_scale[output]
    return y
    ### END SOLUTION


# %%
passed = checks.check_linear_int8(linear_int8)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# **In the model:** MiniLM reads a single token, and then the five reviews: in floats, with layers that dequantize, on the library's kernel, and, once the check says ✓, with every linear layer on yours.


# %%
def on_your_kernel(weight):
    q, scale, _ = quantization.round_to_nearest(weight, bits=8)
    w_q, w_scale = q.numpy(), scale[:, 0].contiguous().numpy()
    compiled = linear_int8 if hasattr(linear_int8, "py_func") else njit(linear_int8)
    return lambda rows: torch.from_numpy(compiled(*kernels.quantize_rows(rows), w_q, w_scale))


# %% clock=true atol=0.002
slow = copy.deepcopy(minilm)
report = quantization.quantize_(slow, bits=8)
short = [{name: values[:1, :1] for name, values in batches[0].items() if name != "labels"}]
variants = {"floats": minilm, "dequantized in each call": slow, "the library's": library}
if passed:
    variants["your kernel"] = minilm_with(on_your_kernel)
for tokens, texts in {"1 token": short, "5 reviews": batches}.items():
    turns = {name: lambda m=m, t=texts: models.embed(m, t) for name, m in variants.items()}
    for name, run in metrics.latencies(turns, repeats=9).items():
        close = closeness(variants[name])
        print(f"{tokens:9} {name:24} {1e3 * run.median:7.2f} ms, closeness {close:.4f}")
if not passed:
    print("First solve the exercise: then your function runs here.")

# %% [markdown] tags=["solution"]
# **Why.** The scale of an output is used 24 · 384 · 1,536 times in the innermost loop, and 24 · 1,536 times outside of it. And inside, the sum would be one of floats. The three loops are the kernel; what is left to the library is speed.
#
# For one token a quarter of the bytes is what counts, and your kernel keeps up with the floats. For five reviews it falls behind: it reads the matrix once for each row, and the compiler finds two products for each lane of a register where VNNI has four. The library works on several rows and 16 outputs at a time, in registers, and writes the instruction down by name.

# %% [markdown]
# ## Wrap-up
#
# You moved zero points and offsets out of a sum, packed and unpacked nibbles, found what a layer waits for, proved when an accumulator is wide enough, and wrote a kernel. What is left is to put them into the order in which a processor likes to read: `lightcourse/panels.py` makes that order, `lightcourse/kernels/tiles.py` reads in it, and `lightcourse/kernels/portable.py` is the same sum in plain loops.
