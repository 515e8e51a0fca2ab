# %% [markdown]
# # 05 · Quantized kernels — how fewer bits become less time, and when they do not
#
# **You will be able to**
#
# - say why a model with small weights can be slower than its floats, and what its kernel must not do;
# - move scales and offsets out of a sum of integers, and say when such a sum overflows;
# - read how 8-bit and 4-bit weights lie in memory;
# - tell from two divisions whether a layer waits for the memory or for the arithmetic;
# - say what 4 bits and zeros gain, and what they cost in quality.
#
# **You need:** chapters 01, 03 and 04. **Time:** 61 minutes of reading, 24 for the parts marked ★ (the fast path); the whole notebook runs in about half a minute.
#
# Below each **Predict**, write your answer in place of the dots before you run the cell.

# %%
import copy

import numpy as np
import torch
from numba import njit

import lightcourse
from lightcourse import data, kernels, metrics, models, panels, plots, pruning, quantization
from lightcourse.guessing import compare
from lightcourse.kernels import limits
from lightcourse.reference import INPUTS_LIMIT, quantize_rows

lightcourse.setup()
rng = np.random.default_rng(0)
minilm = models.load_minilm()

# %% [markdown]
# ## ★ 1 · Int8 is not speed by itself
#
# A layer with 2,048 inputs and 2,048 outputs has 4.2 million weights. They take 16.8 MB as 32-bit floats, and 4.2 MB as int8. A **kernel** is the small program that does such a layer's multiplication. We compare four of them:
#
# | kernel | weights | what it does in each call |
# |---|---|---|
# | `float` | 32 bits | PyTorch's own multiplication |
# | `dequantize` | int8 | writes a matrix of floats, and multiplies by that |
# | `weight-only` | int8 | turns each integer into a float inside the processor; writes no matrix |
# | `integers` | int8 | rounds the inputs to int8 too, and multiplies integers |
#
# **Predict:** `float` reads 16.8 MB of weights in a call. How many MB does `dequantize` move, reading and writing together?

# %%
guess = ...  # MB; write a number in place of the dots
K = N = 2048
moved = {
    "float": {"floats read": 4 * K * N},
    "dequantize": {"floats read": 4 * K * N, "floats written": 4 * K * N, "int8 read": K * N},
    "weight-only": {"int8 read": K * N},
}
ax = plots.bytes_moved(moved)
compare(guess, sum(moved["dequantize"].values()) / 1e6, "MB", how="computed")

# %% [markdown]
# *Figure: writing floats back costs far more bytes than int8 saves.*
#
# <details><summary>The figure in words</summary>
#
# Three horizontal bars show the megabytes that one call moves. `float` reads 16.8 MB of floats. `dequantize` reads 4.2 MB of int8, writes 16.8 MB of floats and reads these again: 37.7 MB. `weight-only` reads 4.2 MB of int8 and nothing else.
#
# </details>
#
# `integers` moves as little as `weight-only`. `weight-only` is short enough to write here. **Numba** (`@njit`) compiles a Python function to machine code; `fastmath` allows it to add floats up in another order, many of them side by side.


# %%
@njit(fastmath=True)
def weight_only(x, w_q, w_scale):
    """Multiply floats by int8 weights; no float matrix is written."""
    y = np.empty((len(x), len(w_q)), np.float32)
    for row in range(len(x)):
        for output in range(len(w_q)):
            total = np.float32(0)
            for k in range(w_q.shape[1]):
                total += x[row, k] * np.float32(w_q[output, k])
            y[row, output] = total * w_scale[output]
    return y


# %% atol=0.01
q = rng.integers(-127, 128, (N, K)).astype(np.int8)
scale = rng.uniform(0.5, 1.5, N).astype(np.float32) / 1000
integers, row_scale = torch.from_numpy(q), torch.from_numpy(scale)[:, None]
weight, packed = integers * row_scale, panels.pack_w8(q)  # the order of bytes: section 3
contest = {
    "float": lambda x, floats, ints, packs: x @ floats.T,
    "dequantize": lambda x, floats, ints, packs: (x @ ints.float().T) * row_scale.T,
    "weight-only": lambda x, floats, ints, packs: weight_only(x.numpy(), ints.numpy(), scale),
    "integers": lambda x, floats, ints, packs: kernels.linear_w8a8(x, packs, scale),
}
x = torch.randn(1, K)
want = x.double() @ weight.double().T
for name, multiply in contest.items():
    error = (torch.as_tensor(multiply(x, weight, integers, packed)) - want).abs().mean()
    print(f"{name:11} error {(error / want.abs().mean()).item():.1%}")

# %% [markdown]
# Only `integers` has an error to be seen: it rounds the inputs, too.
#
# Now the clock. Each kernel multiplies 16 times in a row: either by *one* matrix, which may then stay in the processor's cache, or by 16 copies of it. The copies are 268 MB of floats or 67 MB of int8, more than the cache of a laptop holds, so they come from memory. (The *cache* is a small fast memory inside the processor. Some servers have one of 300 MB; there "memory" below is the outer cache.) A time is the median of several rounds ± half of the width of the middle 50 % of them.
#
# **Predict:** at a batch of 1 (one token) the figure lets `weight-only` win. At a batch of 32, is it `"faster"` or `"slower"` than `float`?

# %%
guess = ...  # "faster" or "slower"
copies = [(weight.clone(), integers.clone(), packed.copy()) for _ in range(16)]
cases, runs = {"1, cache": copies[:1] * 16, "1, memory": copies, "32, memory": copies}, {}
for case, matrices in cases.items():
    batch = int(case.split(",")[0])
    x = torch.randn(batch, K)
    turns = {
        name: lambda f=multiply, x=x, matrices=matrices: [f(x, *each) for each in matrices]
        for name, multiply in contest.items()
    }
    runs[case] = metrics.latencies(turns, repeats=15 if batch == 1 else 5, warmup=1)

# %% clock=true
print(" " * 12 + "".join(f"batch {case:15}" for case in runs))
for name in contest:
    told = [(run[name].median / 16e-3, run[name].spread / 32e-3) for run in runs.values()]
    print(f"{name:11}" + "".join(f" {time:6.2f} ms ± {spread:<8.2f}" for time, spread in told))
one = {name: runs["1, cache"][name].median + runs["1, memory"][name].median for name in contest}
many = {name: run.median for name, run in runs["32, memory"].items()}
assert one["dequantize"] > 1.2 * one["float"]
if kernels.path() != "portable":  # plain loops of integers may be slower than floats
    assert 1.1 * max(one["weight-only"], one["integers"]) < one["float"]
    assert 1.1 * many["integers"] < many["weight-only"]
compare(guess, "slower" if many["weight-only"] > many["float"] else "faster")

# %% [markdown]
# **At batch 1 `dequantize` loses to the floats that it replaces.** It moves 37.7 MB instead of 16.8. Much published code does this, and so does `quantize_` as chapter 01 used it.
#
# **`weight-only` wins at batch 1, although it multiplies floats.** It reads a quarter of the bytes and writes no matrix. Where a kernel waits for its weights, that is all it takes; integer arithmetic is not needed. Bytes alone explain a factor of at most 4. If you see clearly more, a cache holds the int8 matrix but not the floats.
#
# **At batch 32 `weight-only` loses.** There is as much to multiply as with floats, and each integer is turned into a float again for each row. (A better kernel would do that once for many rows, and could match the floats.) Only `integers` makes the arithmetic cheaper: one instruction multiplies four times as many int8 numbers as floats where the processor has VNNI, an instruction set made for this, and twice as many where it has AVX2.
#
# So int8 helps in two ways: fewer bytes at a small batch, cheaper arithmetic at a large one. The rest of this chapter is about the kernel that has both.
#
# ## ★ 2 · The scales leave the sum
#
# When both inputs and weights are integers, the long loop needs no float at all:

# %%
ax = plots.integer_product()

# %% [markdown]
# *Figure: floats come in, floats go out, and between them only integers are multiplied.*
#
# <details><summary>The figure in words</summary>
#
# Four boxes from left to right, joined by arrows: inputs x, floats; round(x / s), 8-bit integers x_q with a scale s; the sum of products, all integers, the sum in 32 bits; times s · t, floats again. A fifth box, the weights w_q, 8-bit integers with scales t, points to the sum of products.
#
# </details>
#
# Write each input as $x_k \approx s\,\bar x_k$ and each weight as $w_{nk} \approx t_n\,\bar w_{nk}$. The bar marks the integer, which chapter 04 called $q$; in code it is `x_q` or `w_q`:
#
# $$y_n = \sum_k s\,\bar x_k \cdot t_n\,\bar w_{nk} = s\,t_n \underbrace{\sum_k \bar x_k\,\bar w_{nk}}_{\text{integers only}}$$
#
# Here $s$ (`x_scale`) is one scale for each row of inputs, that is per *token*, and $t_n$ (`w_scale`) one for each row of the weight, per *output* (per-channel). Both are the same for all $k$, so they wait outside the sum (Jacob et al. 2017, arXiv 1712.05877, section 2.2). Two tokens, two outputs, four inputs:

# %%
x = np.array([[1.0, -0.5, 0.25, 0.0], [8.0, 2.0, -4.0, 1.0]], np.float32)
w_q = np.array([[10, -20, 30, 40], [-128, 127, 0, 5]], np.int8)
w_scale = np.array([0.01, 0.02], np.float32)
x_q, x_scale = quantize_rows(x)
sums = x_q.astype(np.int32) @ w_q.T.astype(np.int32)
by_hand = sums * x_scale[:, None] * w_scale
print("x_q ", x_q.tolist())
print("sums", sums.tolist())
assert np.allclose(by_hand, (x_q * x_scale[:, None]) @ (w_q * w_scale[:, None]).T)
assert np.allclose(by_hand, kernels.linear_w8a8(x, panels.pack_w8(w_q), w_scale))

# %% [markdown]
# This is the product of the dequantized floats, and what the library's kernel returns. All rounding happens before the sum and after it. A sum of integers is exact, so a kernel may add in any order, and in any number of parts.
#
# Could each *input* have a scale of its own, for instance because one input is always large? No: in $\sum_k s_k\,\bar x_k\,\bar w_{nk}$ each term has another factor, and nothing can be taken out. This is why activations are quantized per token and weights per channel. (SmoothQuant, arXiv 2211.10438, moves such a factor into the weights beforehand; LLM.int8, arXiv 2208.07339, keeps those few inputs in 16 bits.)
#
# ## 3 · From integers to bytes in memory
#
# ### An offset leaves the sum, too
#
# If a weight is stored with an offset $z$, it means $\bar w_{nk} - z$. Multiply out:
#
# $$\sum_k \bar x_k\,(\bar w_{nk} - z) = \sum_k \bar x_k\,\bar w_{nk} \;-\; z \sum_k \bar x_k$$
#
# The last sum has nothing to do with the weights: it is *one* number for each token, taken once for all outputs. Kernels use this twice. The **zero point** of chapter 04 is such an offset. And the fastest byte instruction of many x86 processors (`vpdpbusd`) multiplies *unsigned* bytes by *signed* ones, while our inputs and weights are both signed. So the library stores each weight plus 128, from 0 to 255, and lets all outputs of a token *start* at $-128 \sum_k \bar x_k$ instead of at 0. What if one forgets that?

# %%
stored = w_q.astype(int) + 128
start = -128 * x_q.sum(axis=1, dtype=int)
assert stored.min() >= 0 and stored.max() <= 255
assert (start[:, None] + x_q.astype(int) @ stored.T == sums).all()
assert (panels.pack_w8(w_q)[0, 0, :2] == stored).all()
print("forgotten, the sums are", (x_q.astype(int) @ stored.T).tolist())
print("instead of             ", sums.tolist())

# %% [markdown]
# 15,670 - 3,510 = 12,160 = 128 · 95: the integers of the first token add up to 95. All outputs of a token are off by the same number. The last `assert` looks into the library's own bytes: this is what it stores.
#
# ### Break it: an accumulator that is too small
#
# Say that we add up in 16 bits, which end at 32,767. All inputs and weights are 127, so each product is 16,129.
#
# **Predict:** after how many products is the sum wrong for the first time?

# %%
guess = ...  # products
products = np.full(6, 127 * 127)
wide, narrow = (np.cumsum(products, dtype=dtype) for dtype in (np.int32, np.int16))
print("32 bits:", wide.tolist())
print("16 bits:", narrow.tolist())
print(f"32 bits hold {(2**31 - 1) // (255 * 127):,} products of 255 · 127,", end=" ")
print(f"the library allows {INPUTS_LIMIT:,}")
compare(guess, int((wide != narrow).argmax()) + 1, "products")

# %% [markdown]
# The third sum turns negative, without a warning. So products are added up in 32 bits, and the library refuses layers with more than 65,536 inputs.
#
# ### Panels
#
# A vector instruction works on a **register**, which holds many numbers side by side. With VNNI one instruction multiplies 64 bytes of weights: 4 inputs of 16 outputs. If a matrix is stored row by row, those 64 bytes stand in 16 different places of the memory. So the library cuts the matrix into **panels** of 16 outputs, and puts what is needed together in one piece.
#
# We let it pack one panel, 16 outputs by 8 inputs, and ask where each weight went.
#
# **Predict:** output 0's first four inputs lie at bytes 0 to 3. At which byte does its *fifth* input lie?

# %%
guess = ...  # byte
numbers = np.arange(128).reshape(16, 8) - 64
place = panels.pack_w8(numbers).ravel().argsort().reshape(16, 8)
ax = plots.byte_grid(place.tolist(), (place // 64).tolist(), "byte at which each weight lies")
names = ax.set(xlabel="input 0 to 7", ylabel="outputs, 0 at the top")
compare(guess, int(place[0, 4]))

# %% [markdown]
# *Figure: the first 64 bytes hold four inputs of all 16 outputs.*
#
# <details><summary>The figure in words</summary>
#
# A grid of 16 rows (outputs) by 8 columns (inputs) shows the byte at which each weight lies. Row 0 reads 0 1 2 3 and then 64 to 67; row 1 reads 4 5 6 7 and 68 to 71; row 15 ends with 60 to 63 and 124 to 127. The left half, block 0, has one colour, the right half, block 1, another.
#
# </details>
#
# A panel consists of **blocks** of 16 outputs by 4 inputs. The kernel walks through block 0, then block 1, and so on, straight through the memory. It keeps 16 sums, one for each output, and never adds one to another.
#
# With 4 bits, two weights share a byte. Half of a byte is a **nibble**. We pack a row whose input 0 is -4 and input 4 is 5; these two share the first byte. Before it is stored, each number gets an offset of 8.

# %%
pair = np.zeros((1, 8), int)
pair[0, 0], pair[0, 4] = -4, 5
byte = int(panels.pack_w4(pair)[0, 0, 0, 0])
title = f"input 4: {byte >> 4} - 8 | input 0: {byte & 15} - 8"
ax = plots.byte_grid([[*f"{byte:08b}"]], [[1] * 4 + [0] * 4], title)
assert (byte & 15) - 8 == pair[0, 0] and (byte >> 4) - 8 == pair[0, 4]

# %% [markdown]
# *Figure: one byte holds two weights.*
#
# <details><summary>The figure in words</summary>
#
# The eight bits of the byte are 1 1 0 1 0 1 0 0. The left four, 13, stand for input 4, which is 13 - 8 = 5; the right four, 4, for input 0, which is 4 - 8 = -4.
#
# </details>
#
# Why does input 0 share with input 4, not with input 1? One `and` with 15 leaves inputs 0 to 3 of all 16 outputs in the order of the panel above; one shift and the same `and` leave inputs 4 to 7.
#
# ### Tiles
#
# VNNI multiplies 64 bytes of weights by 4 inputs of *one* row. Intel's server processors since 2023 have **AMX**, too: registers of 16 rows by 64 bytes, called **tiles**. A tile of x holds 64 inputs of 16 rows, a tile of weights 16 blocks of a panel. One instruction adds all their products to 16 × 16 sums: 16,384 multiplications. In NumPy it does this (without the offset, which leaves the sum as before):

# %%
x, w = rng.integers(-127, 128, (2, 16, 64))
tile = panels.pack_w8(w)[0]  # 16 blocks, 16 outputs, 4 inputs: just as it lies in memory
sums = np.einsum("rki,koi->ro", x.reshape(16, 16, 4), tile.astype(int))
assert np.array_equal(sums - 128 * x.sum(1, keepdims=True), x @ w.T)

# %% [markdown]
# So panels are what tiles want, and nothing is stored anew. With one row of x, 15 of 16 rows of the tile would be idle: below 3 rows the library takes VNNI's instruction. On a Xeon with AMX, 128 rows by a matrix of (2048, 8192) ran at 2,174 billion operations/s on tiles and at 673 with VNNI alone; one row took as long as before.
#
# ## 4 · Batch 1 is bandwidth, batch 128 is arithmetic
#
# Chapter 01 drew rooflines for floats. The two limits for int8, on one thread, are `stream_read`, the bytes that your machine reads from memory in a second, and `int8_peak`, the operations that it does in a second when it need not wait for any byte.
#
# A layer of $K$ inputs and $N$ outputs reads its $K \cdot N$ bytes of weights *once* for all $M$ rows of a batch, but multiplies for each row:
#
# $$\frac{\text{operations}}{\text{bytes}} = \frac{2\,M K N}{K N + 4\,M\,(K + N)} \approx 2 M$$
#
# (The second term below the line, x and y as 32-bit floats, counts only when $M$ is large.)
#
# **Predict:** say a machine reads 30 GB and computes 480 billion operations in a second. From which batch on does it wait for the arithmetic?

# %%
guess = ...  # rows
copies, runs = [packed.copy() for _ in range(16)], {}
for batch in (1, 4, 16, 128):
    x = rng.standard_normal((batch, K)).astype(np.float32)
    turns = {
        place: lambda x=x, m=matrices: [kernels.linear_w8a8(x, each, scale) for each in m]
        for place, matrices in {"cache": copies[:1] * 16, "memory": copies}.items()
    }
    runs[batch] = metrics.latencies(turns, repeats=5, warmup=1)
bandwidth, peak = limits.stream_read(), limits.int8_peak()
compare(guess, 480 // 30 // 2, "rows", how="computed")

# %% [markdown]
# The two limits meet at 480 / 30 = 16 operations per byte, and a batch of 8 does about 16. Below that, a perfect kernel would do seven more rows for almost nothing; above it, fewer bytes gain nothing.
#
# And your machine? Each measured time becomes two rates:

# %% clock=true
reached = {"cache": {}, "memory": {}}
for batch, results in runs.items():
    operations, moved = 2 * batch * K * N, K * N + 4 * batch * (K + N)
    for place, run in results.items():
        time, spread = run.median / 16, run.spread / 32
        reached[place][batch] = operations / moved, operations / time
        print(f"batch {batch:3}, {place:6} {1e3 * time:5.2f} ms ± {1e3 * spread:.2f}, ", end="")
        rates = moved / time / 1e9, operations / time / 1e9
        print("{:5.1f} GB/s, {:4.0f} billion operations/s".format(*rates))
best = max(rate for _, rate in reached["memory"].values())
peak = best if np.isnan(peak) else peak  # the portable path has no peak of its own
print(f"limits: {bandwidth / 1e9:.1f} GB/s, {peak / 1e9:.0f} billion operations/s", end="")
print(f", they meet at {peak / bandwidth:.1f} operations/byte")

# %%
memory = reached["memory"]
assert all(rate < 2 * min(bandwidth * work, peak) for work, rate in memory.values())
assert memory[128][1] > 1.2 * memory[1][1]
dots = {f"batch {batch}": [dot] for batch, dot in memory.items()}
ax = plots.roofline({"this machine, 1 thread": (bandwidth, peak)}, points=dots)
names = ax.set(ylabel="billion operations/s: limit and reached")
for side, name in {"right": "waits for memory  ", "left": "  waits for arithmetic"}.items():
    place = {"ha": side, "transform": ax.get_xaxis_transform()}
    text = ax.text(peak / bandwidth, 0.93, name, fontsize=11, **place)

# %% [markdown]
# *Figure: as the batch grows, the layer climbs along the memory's limit towards that of the arithmetic; marks far below the roof have met other programs, or overheads that the roof leaves out.*
#
# <details><summary>The figure in words</summary>
#
# Over the operations for each byte stands the roof of this machine: a slope on the left, where memory is the limit, then a flat part on the right, where arithmetic is. Four marks below the roof or close to it are the layer, from memory, at batches of 1, 4, 16 and 128, from left to right.
#
# </details>
#
# Where the bytes come from should matter less at batch 128 than at batch 1, because the kernel waits for them less. (Compare "cache" with "memory"; if both differ as much, something else used your processor.) So *why* int8 helps depends on the batch. A decoder that writes for one user has a batch of 1: it gains because it reads a quarter of the bytes. An encoder, or a prompt, is a batch of hundreds: it gains because one instruction multiplies more bytes than floats. (A real kernel reaches neither limit near the corner. Without VNNI or AVX2, plain loops wait for the arithmetic at a small batch already. With AMX the arithmetic's limit is so high that a batch of 128 still waits for memory.)
#
# ### Two threads
#
# Two cores can share the panels, so that each reads and multiplies half of the weights. But a thread that sleeps must be woken, and that can take longer than the whole product. Therefore the library's threads stay awake for half a millisecond after each product, and what is too small is not shared at all.

# %% clock=true
for batch in (1, 128):
    x = rng.standard_normal((batch, K)).astype(np.float32)
    for threads in (1, min(2, kernels.max_threads())):
        kernels.set_threads(threads)
        run = metrics.latency(lambda x=x: kernels.linear_w8a8(x, packed, scale), warmup=20)
        print(f"batch {batch:3}, kernels on {threads}: {1e3 * run.median:.3f} ms")
kernels.set_threads(1)

# %% [markdown]
# With two free cores the second line of each pair should be about half of the first; on a Xeon it was 0.4 to 0.6. If yours is not, another program has your second core, or there is none.
#
# Three machines side by side, a matrix of (2048, 8192) in 8 bits, from our reports in `benchmarks/results/` (November 2026; the AMD's before the threads were our own):
#
# | milliseconds on 1 / 2 threads | 1 row | 32 rows | 128 rows |
# |---|---|---|---|
# | AMD EPYC, VNNI | 0.69 / 0.69 | 2.80 / 2.77 | 10.3 / 5.42 |
# | Intel Xeon, VNNI | 1.16 / 0.69 | 2.69 / 1.50 | 7.72 / 4.44 |
# | Intel Xeon, AMX | 1.16 / 0.64 | 1.30 / 0.59 | 2.54 / 1.56 |
#
# One row follows the memory, not the instruction: both Xeons take the same time. Many rows follow the instruction.
#
# ## 5 · Fewer bytes: four bits, and zeros
#
# ### Four bits need groups
#
# With only 16 values, one scale for a whole row is too coarse. With **groups** of 32 inputs each group is an integer sum of its own, and its scale leaves *that*:
#
# $$y_n = s \sum_g t_{ng} \Big( \underbrace{\sum_{k \in g} \bar x_k\,\bar w_{nk}}_{\text{integers only}} \Big)$$
#
# We take a real matrix, the one in the middle of MiniLM that widens 384 numbers to 1,536. `QuantizedLinear` with `activations=8` runs on the integer kernels.

# %% rtol=0.01
middle = minilm.encoder.layer[3].intermediate.dense.weight.detach()
x = torch.randn(256, middle.shape[1])
want = x @ middle.T
errors = {}
for name, bits, group_size in [("8 bits, one scale per row", 8, None)] + [
    (f"4 bits, {size or 'one scale per row'}", 4, size) for size in (None, 128, 32)
]:
    layer = quantization.QuantizedLinear(middle, None, bits, group_size, activations=8)
    errors[name] = ((layer(x) - want).abs().mean() / want.abs().mean()).item()
    width = 8 * metrics.size_in_bytes(layer) / middle.numel()
    print(f"{name:25} {width:.2f} bits per weight, error {errors[name]:.1%}")
assert sorted(errors.values()) == [errors[n] for n in [*errors][:1] + [*errors][:0:-1]]

# %% [markdown]
# Groups of 32 take almost a quarter of the error away and cost half a bit (a scale of 16 bits for 32 weights). This is why nearly every 4-bit format in use has groups.
#
# ### Zeros, and from where on they pay
#
# Chapter 03 showed that zeros in a dense matrix gain nothing: 0 is multiplied like any number. `pack_sparse` stores only the weights that are *not* zero. For each block of 16 outputs by 4 inputs it adds 64 bits, which say what is there, and 4 bytes, which say where the block stands. A block of zeros only is left out altogether. Three ways to make zeros, each removing the smallest weights:


# %%
def patterns(size):
    """Return masks by name: True where a weight is kept."""
    blocks = size.unflatten(0, (-1, 16)).unflatten(2, (-1, 4)).mean(dim=(1, 3))
    masks = {"50 %, 2 of 4": pruning.n_of_m_mask(size, 2, 4)}
    for percent in (50, 75, 90):
        masks[f"{percent} %, one by one"] = pruning.layer_mask(size, percent / 100)
        whole = pruning.layer_mask(blocks, percent / 100)
        masks[f"{percent} %, whole blocks"] = whole.repeat_interleave(16, 0).repeat_interleave(4, 1)
    return masks


# %% [markdown]
# **Predict:** of each block's 64 weights, half are zero, one by one. What is stored, in percent of the dense block's 64 bytes?

# %% rtol=0.02
guess = ...  # percent
ties = rng.random((N, K), dtype=np.float32)  # equal weights must go in some order
sparse, real = {}, patterns(middle.abs())
for name, mask in patterns(torch.from_numpy(np.abs(q) + ties)).items():
    left = np.where(mask.numpy(), q, 0).astype(np.int8)
    sparse[name] = panels.pack_sparse(left)
    error = ((x @ (middle * real[name]).T - want).abs().mean() / want.abs().mean()).item()
    share = sparse[name].nbytes / q.nbytes
    print(f"zeros {name:18} {share:4.0%} of the dense bytes, error {error:.0%}")
    if name == "90 %, one by one":
        zeros = panels.pack_w8(left)
compare(guess, 100 * sparse["50 %, one by one"].nbytes / q.nbytes, "%")

# %% [markdown]
# 32 bytes for the weights that are left, 8 for the bits, 4 for the place: 44 of 64. Beside it stands the price: the error that such zeros make in MiniLM's matrix, where 8 bits made 1.1 % and 4 bits in groups 8.6 %. (A layer that always answers 0 has an error of 100 %.) The pattern that stores least does the most harm, and all of them do far more harm than 4 bits. (Training afterwards repairs some of it: chapter 03.)
#
# Now the clock, from memory. The control is the *dense* kernel fed with zeros, 90 % one by one; and 4 bits run along. The ten take turns, and their 4 copies together are 95 MB: before its next turn, a copy has left most caches.

# %%
half, groups = panels.pack_w4(q >> 4), panels.pack_groups(np.ones((N, K // 32), np.float16))
contest = {name: (kernels.linear_sparse, stored, scale) for name, stored in sparse.items()}
contest["dense"] = kernels.linear_w8a8, packed, scale
contest["dense, 90 % are zeros"] = kernels.linear_w8a8, zeros, scale
contest["4 bits, no zeros"] = kernels.linear_w4a8, half, groups
runs = {}
for batch in (1, 32):
    x = rng.standard_normal((batch, K)).astype(np.float32)
    turns = {}
    for name, (multiply, *stored) in contest.items():
        matrices = [copy.deepcopy(stored) for _ in range(4)]
        turns[name] = lambda f=multiply, x=x, m=matrices: [f(x, *each) for each in m]
    runs[batch] = metrics.latencies(turns, repeats=15, warmup=1)

# %% clock=true
faster, wide = {1: {}, 32: {}}, {}
print("how many times as fast as the dense kernel")
for name in contest:
    for batch, results in runs.items():
        faster[batch][name] = results["dense"].median / results[name].median
    wide[name] = runs[1][name].spread / runs[1][name].median / 2
    print(
        f"{name:22} batch 1: {faster[1][name]:5.2f} times ± {faster[1][name] * wide[name]:.2f}, ",
        end="",
    )
    print(f"batch 32: {faster[32][name]:5.2f} times")
for ratios in faster.values():
    assert ratios["90 %, whole blocks"] > 1.2 * ratios["50 %, one by one"]
assert faster[1]["90 %, whole blocks"] > 1.2 * faster[1]["50 %, whole blocks"]
assert faster[32]["50 %, one by one"] < 1 and faster[32]["4 bits, no zeros"] < 1.5

# %% [markdown]
# At a batch of 1, as a figure:

# %%
time = {}
for name, ratio in faster[1].items():
    band = min(wide[name], 0.9)  # a disturbed clock may spread further
    time[name] = [(1 + side * band) / ratio for side in (-1, 0, 1)]
lines = {"dense": {0.0: time["dense"], 0.9: time["dense, 90 % are zeros"]}}
lines |= {"4 bits": {0.0: time["4 bits, no zeros"]}, "2 of 4": {0.5: time["50 %, 2 of 4"]}}
for kind in ("one by one", "whole blocks"):
    lines[kind] = {level / 100: time[f"{level} %, {kind}"] for level in (50, 75, 90)}
ax = plots.sparsity_curves(lines, "time at batch 1, the dense int8 kernel = 1")

# %% [markdown]
# *Figure: whole blocks of zeros save far more time than zeros one by one.*
#
# <details><summary>The figure in words</summary>
#
# Time at batch 1 over the share of zeros, on a logarithmic axis where the dense int8 kernel is 1; bands are spreads. The dense kernel's line stays near 1. "Whole blocks" fall steeply from 50 to 90 %; "one by one" and "2 of 4" lie above them. A single mark at no zeros stands for 4 bits.
#
# </details>
#
# First look at the control. Zeros cannot change the dense kernel's time, so its distance from 1 is noise, and a gain or loss that is no larger, or no larger than its own spread, is *inconclusive*. Where the control is off by more than a tenth, as it may be at batch 32 on a busy machine, believe none of that column. Then read your own break-even off the table:
#
# - **Whole blocks** leave out bytes *and* multiplications. They gain more the more of them are zero, at both batches.
# - **One by one** leaves out bytes alone, and to put each weight back into its place takes time. Half of them can gain at most 64 / 44 = 1.45 times, and gain less. At batch 32, near the corner of the roof, there is still less to gain.
# - **4 bits** are 4.5 / 8 of the bytes: at most 1.78 times as fast where reading decides. Unpacking nibbles costs extra, so expect less at batch 1, and no gain at 32.
#
# So "sparse is faster" is a claim about a *kernel*, a *pattern* and a *batch*, never about zeros. (Without AVX-512, to put single weights back into their places takes longer than to multiply by zeros: there only whole blocks gain.) Beware of comparisons with *floats*, which dense int8 beats already: quantize first, then ask whether zeros pay on top.
#
# ## ★ 6 · The ledger: MiniLM in 8 and in 4 bits
#
# MiniLM reads reviews, as in chapter 01, and a logistic regression on top of it answers. We round the linear layers of four copies: `8 bits` and `4 bits` (in groups of 32) round the inputs of each layer to int8 as well, and run on integer kernels. Beside them stand two controls that store what `8 bits` stores. `float inputs` dequantizes the same integers in each call; `half zeros` sets 2 of every 4 weights to zero first.

# %%
from sklearn.linear_model import LogisticRegression

reviews, tokenizer = data.load_reviews(), models.load_minilm_tokenizer()
learn, judge = reviews["train"].select(range(512)), reviews["test"].select(range(400))
batches = data.ordered_batches(judge, tokenizer, max_length=24)
truth = torch.tensor(judge["label"][:])
features = models.embed(minilm, data.ordered_batches(learn, tokenizer, max_length=24))
head = LogisticRegression(max_iter=1000).fit(features, learn["label"][:])

# %%
forms = {"8 bits": (8, None, 8), "float inputs": (8, None, None)}
forms |= {"half zeros": (8, None, 8), "4 bits": (4, 32, 8)}
light = {"floats": minilm} | {name: copy.deepcopy(minilm) for name in forms}
masks = pruning.n_of_m_mask(pruning.magnitude_scores(minilm), 2, 4)
pruned = pruning.prune_(light["half zeros"], masks)
for name, form in forms.items():
    report = quantization.quantize_(light[name], *form)
answers = {
    name: torch.tensor(head.predict(models.embed(model, batches))) for name, model in light.items()
}

# %% [markdown]
# **Predict:** of 400 answers, how many percent change when MiniLM computes in 8 bits?

# %% atol=0.02
guess = ...  # percent
gaps = {}
for name, answer in answers.items():
    gap = gaps[name] = metrics.paired_gap(answers["floats"], answer, truth)
    print(f"{name:12} accuracy {metrics.accuracy(answer, truth):.3f}, ", end="")
    print(f"{gap.gained / 400:.1%} became right, {gap.lost / 400:.1%} wrong: {gap}")
compare(guess, 100 * metrics.flips(answers["floats"], answers["8 bits"]), "%")
assert gaps["8 bits"].p_value > 0.01 and gaps["4 bits"].p_value > 0.01
assert gaps["half zeros"].decided and gaps["half zeros"].gap < 0

# %% [markdown]
# All models answered the same questions, so only the answers that changed tell which is better; the last column is the gain in accuracy ± two standard deviations. 8 bits change few answers, 4 bits nearly a tenth. Is `4 bits` *better* than the floats? When this was written, 24 of its answers became right and 14 wrong. A fair coin thrown 38 times falls at least as unevenly in 14 of 100 cases (a **sign test**), so the gain is *inconclusive*. The loss by zeros is not. (Your processor may round a few answers differently.)
#
# Now the time of one review.
#
# **Predict:** is `float inputs` `"faster"` or `"slower"` than `floats`?

# %% clock=true atol=0.02
guess = ...  # "faster" or "slower"
one = data.ordered_batches(judge.select([0]), tokenizer, max_length=24)
turns = {name: lambda model=model: models.embed(model, one) for name, model in light.items()}
ledger, times = metrics.Ledger("accuracy"), metrics.latencies(turns, repeats=9)
compare(guess, "slower" if times["float inputs"].median > times["floats"].median else "faster")
controls = dict.fromkeys(["float inputs", "half zeros"], "8 bits")
for name, model in light.items():
    size, quality = metrics.size_in_bytes(model), metrics.accuracy(answers[name], truth)
    row = ledger.add(name, size, quality, latency=times[name], control_of=controls.get(name))
print(ledger)
assert times["float inputs"].median > 1.2 * times["floats"].median
ax = plots.ledger(ledger)

# %% [markdown]
# *Figure: 8 and 4 bits save bytes at no loss that 400 answers show; zeros lose accuracy, and save nothing here.*
#
# <details><summary>The figure in words</summary>
#
# Accuracy over megabytes stored. `floats` stands on the right, at 90 MB. `8 bits` stands at 58 MB, at about the height of the floats, and `4 bits` at 54 MB, not lower. Two open grey marks, the controls of `8 bits`, stand at 58 MB as well: `float inputs` at about the same height, `half zeros` well below all others.
#
# </details>
#
# `float inputs` stores what `8 bits` stores, but writes its matrices back as floats in each call, and is *slower* than the floats: that is section 1 in a real model. `half zeros` does the same work as `8 bits`, for a dense kernel multiplies zeros: how far the two times lie apart is the noise of your clock. `4 bits` need not beat `8 bits`: some 20 tokens of one review are no batch of 1. (The embedding table stays at 32 bits, hence two thirds of the bytes and not a quarter.)
#
# ## **Spot the bug**
#
# This function stands, in many versions, in code that quantizes on the fly. Its error is small, and so is the loss of accuracy on a test set. And yet no one should use it in a service. What is wrong?


# %%
def linear_int8(x, w_q, w_scale):
    """Multiply in integers. (This is the version with the bug.)"""
    x_scale = np.abs(x).max() / 127
    x_q = np.rint(x / x_scale).astype(np.int32)
    return (x_q @ w_q.T.astype(np.int32)) * w_scale * x_scale


x = rng.standard_normal((8, K)).astype(np.float32)
want = x @ weight.numpy().T
error = np.abs(linear_int8(x, q, scale) - want).mean() / np.abs(want).mean()
print(f"error below 3 %: {error < 0.03}")

# %% [markdown]
# Find it before you read on.
#
# <details><summary>Answer</summary>
#
# There is *one* scale for the whole batch. So a text's answer depends on what else is in the batch: alone it gets one answer, beside a neighbour with large values another. One user's input spoils another's. The test that shows it sends the same row alone and in company. One scale for each *row* makes rows independent and costs nothing, since it leaves the sum just as well.
#
# (If you said "a batch of zeros divides by 0": right too, but that one announces itself.)
#
# </details>

# %%
company = np.concatenate([x[:1], 50 * x[1:]])
for name, function in {
    "one scale per batch": lambda x: linear_int8(x, q, scale),
    "one scale per row": lambda x: kernels.linear_w8a8(x, packed, scale),
}.items():
    alone, together = function(x[:1])[0], function(company)[0]
    print(f"{name:19} the same answer in company: {np.allclose(alone, together, rtol=1e-5)}")

# %% [markdown]
# ## Summary
#
# - **Int8 is faster at batch 1 if no float matrix is written.** A kernel that converts each weight inside the processor beats the floats; one that writes the matrix back as floats moves 37.7 MB instead of 16.8, and loses to them. At a large batch only cheaper arithmetic helps: integers.
# - **Integer sums are exact,** and scales per token and per channel leave them, as offsets do. 16 bits overflow at the third product of 127 · 127; 32 bits hold 66,311 of the largest products.
# - **Bytes lie in the order in which they are read:** panels of 16 outputs, blocks of 4 inputs; two 4-bit weights in a byte.
# - **The roofline says what to expect:** about $2M$ operations per byte. Bytes decide at batch 1, arithmetic at batch 128.
# - **Fewer bytes are not always less time.** 4 bits in groups of 32 are 4.5 bits, and gain at most 1.78 times at batch 1. Half of the weights removed one by one leave 69 % of the bytes, and gain at most 1.45 times; whole blocks are fast, and do the most harm. MiniLM in 8 or in 4 bits lost no accuracy that a sign test sees; with half of its weights at zero it lost 8 points.
#
# ## Further reading
#
# - Jacob et al. 2017, *Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference* (arXiv 1712.05877): section 2, the formulas of our sections 2 and 3.
# - Dettmers et al. 2022, *LLM.int8()* (arXiv 2208.07339): sections 2 and 3, scales per row and what outliers do.
# - Frantar et al. 2024, *MARLIN* (arXiv 2408.11743): a weight-only kernel for GPUs, and the batches up to which it keeps its gain.
# - Goto & van de Geijn 2008, *Anatomy of High-Performance Matrix Multiplication*, ACM TOMS 34(3): why kernels pack panels.
# - Williams, Waterman & Patterson 2009, *Roofline*, Communications of the ACM 52(4).
# - Mishra et al. 2021, *Accelerating Sparse Deep Neural Networks* (arXiv 2104.08378): section 2, what 2:4 needs from the hardware. On GPUs made for it, 2:4 doubles the speed of the multiplication; no CPU has such a unit.
# - In this repository: `lightcourse/kernels/portable.py`, the kernels as plain loops, then `tiles.py` and `vnni.py`, which write the instruction down that compilers do not find, `amx_tiles.py`, `neon.py` for ARM, and `pool.py`, the threads.
