# %% [markdown]
# # 05 · Quantized kernels — how fewer bits become less time, and when they do not
#
# **You will be able to**
#
# - say why a model with small weights may be slower than its floats, and what its kernel must not do;
# - move scales, zero points and offsets out of a sum of integers, and show that nothing is lost;
# - tell from two divisions whether a layer waits for the memory or for the arithmetic, and what fewer bits gain there;
# - read how 8-bit and 4-bit weights lie in memory, and say from which share of zeros on they save time.
#
# **You need:** chapters 01 and 03. **Time:** 80 minutes of reading; the whole notebook runs in about a minute. (The first run on a machine takes some seconds more: the kernels are compiled.)
#
# Where a paragraph begins with **Predict**, write down a number before you run the next cell.

# %%
import copy
import math
import re

import numpy as np
import torch
from numba import njit

import lightcourse
from lightcourse import data, kernels, metrics, models, panels, plots, pruning, quantization
from lightcourse.kernels import jobs, limits, paths
from lightcourse.reference import INPUTS_LIMIT, quantize_rows

lightcourse.setup()
rng = np.random.default_rng(0)

# %% [markdown]
# ## 1 · Int8 is not speed by itself
#
# A layer with 2,048 inputs and 2,048 outputs has 16.8 MB of weights as 32-bit floats, and 4.2 MB as int8. A **kernel** is the small program that does such a layer's multiplication. We compare four:
#
# | kernel | weights | what it does |
# |---|---|---|
# | `float` | 32 bits | PyTorch's own multiplication |
# | `dequantize` | int8 | writes a float matrix, does the same, and scales the answer |
# | `weight-only` | int8 | turns each integer into a float inside the processor; writes no matrix |
# | `integers` | int8 | rounds the inputs to int8 too, and multiplies integers |
#
# The third is short enough to write here. **Numba** (`@njit`) compiles a Python function to machine code; `fastmath` lets it add the floats up in another order, many side by side.


# %%
@njit(fastmath=True)
def weight_only(x, q, scale):
    """Multiply floats by int8 weights; no float matrix is written."""
    y = np.empty((len(x), len(q)), np.float32)
    for row in range(len(x)):
        for output in range(len(q)):
            total = np.float32(0)
            for k in range(q.shape[1]):
                total += x[row, k] * np.float32(q[output, k])
            y[row, output] = total * scale[output]
    return y


# %%
K = N = 2048
q = rng.integers(-127, 128, (N, K)).astype(np.int8)
scale = rng.uniform(0.5, 1.5, N).astype(np.float32) / 1000
integers, row_scale = torch.from_numpy(q), torch.from_numpy(scale)[:, None]
weight = integers * row_scale
packed = panels.pack_w8(q)
print(f"float {weight.nbytes:,} bytes, int8 {q.nbytes:,} bytes and {scale.nbytes:,} of scales")

# %% [markdown]
# Before we time them: do all four compute the same?

# %% atol=0.01
contest = {
    "float": lambda x, floats, ints, packs: x @ floats.T,
    "dequantize": lambda x, floats, ints, packs: (x @ ints.float().T) * row_scale.T,
    "weight-only": lambda x, floats, ints, packs: weight_only(x.numpy(), ints.numpy(), scale),
    "integers": lambda x, floats, ints, packs: kernels.linear_w8a8(x, packs, scale),
}
x = torch.randn(1, K)
want = x.double() @ weight.double().T
for name, multiply in contest.items():
    got = torch.as_tensor(multiply(x, weight, integers, packed))
    print(f"{name:11} error {((got - want).abs().mean() / want.abs().mean()).item():.1%}")

# %% [markdown]
# Only `integers` rounds more than floats do: its inputs. Now the clock. Where the weights come from matters, so each kernel multiplies 16 times in a row, either by *one* matrix, which may then stay in the processor's cache, or by 16 copies of it, 268 MB of floats or 67 MB of int8. Few caches hold those: they come from memory. A time is the median of several rounds, ± half of the range of their middle half.
#
# **Predict:** with a batch of 1 (one token), is `weight-only` faster or slower than `float`, and how many times? And with a batch of 32?

# %%
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

# %% [markdown]
# **`dequantize` loses to the floats that it replaces.** PyTorch reads 4.2 MB of integers to write 16.8 MB of floats, and reads these again: 37.7 MB, where the plain floats need 16.8. (And at each call the operating system must hand out memory for the new matrix.) Much published code does this, and so does `quantize_` as chapter 01 used it; both multiply the scales into the matrix, too, which writes a second one.
#
# **`weight-only` wins at batch 1, and it multiplies floats.** It reads a quarter of the bytes and writes no matrix back. Where the kernel waits for its weights, that is all it takes; integer arithmetic is not needed. (MARLIN, arXiv 2408.11743, does this on GPUs, with 4-bit weights.) Bytes alone explain a factor of at most 4: if you see more, a cache holds the int8 matrix and not the floats. (`integers` reads as many bytes. It may be ahead by its order of bytes or its cheaper arithmetic; we do not separate the two.)
#
# **At batch 32 `weight-only` is out.** There is as much to multiply as with floats, and each integer is turned into a float again for each row. (A better one converts a weight once for many rows. Where arithmetic is the limit it can then match the floats, not beat them.) What gets cheaper there is the arithmetic, and only for `integers`: one VNNI instruction multiplies four times as many bytes as floats, one of AVX2 twice as many.
#
# So small weights help in two ways: fewer bytes at a small batch, cheaper arithmetic at a large one. The rest of this chapter is about the kernel that has both, and asks three questions: is the result still right (section 2)? How must the bytes lie (section 3)? What limits the speed (section 4)?
#
# ## 2 · What integers allow
#
# **Predict:** the same 10,000 numbers are added up forwards and backwards. Is the sum the same, for floats and for integers?

# %%
floats = rng.standard_normal(10_000).astype(np.float32)
steps = np.rint(floats * 30).astype(np.int32)
for name, values in {"floats": floats, "integers": steps}.items():
    forwards, backwards = np.cumsum(values)[-1], np.cumsum(values[::-1])[-1]
    print(f"{name:8} the same sum in both directions: {bool(forwards == backwards)}")

# %% [markdown]
# A float sum is rounded after each addition, so its order matters. Sums of integers are never rounded. A kernel may add them up in any order and in any number of parts, and the answer is the same bit for bit. All rounding happens *before* (when numbers become integers) and *after* (when the sum becomes a float), never in between.
#
# ### The scales leave the sum
#
# A layer's inputs are also called its **activations**. Write each input as $x_k \approx s_x\,q_k$ and each weight as $w_{nk} \approx s_n\,p_{nk}$:
#
# $$y_n = \sum_k s_x q_k \cdot s_n p_{nk} = s_x\, s_n \underbrace{\sum_k q_k\, p_{nk}}_{\text{integers only}}$$
#
# | symbol | identifier | one for |
# |---|---|---|
# | $q_k$, $s_x$ | `x_q`, `x_scale` | each row of x: each *token* |
# | $p_{nk}$, $s_n$ | `w_q`, `w_scale` | each row of the weight: each *output* |
#
# Both scales are the same for all $k$, so they wait outside (Jacob et al. 2017, arXiv 1712.05877, section 2.2). Two tokens, two outputs, four inputs:

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
# The same as multiplying the dequantized floats, and the same as the library's kernel. From here on we use the library's.
#
# Could each *input* have a scale of its own ($s_k$ instead of $s_x$), for instance because one input is always large? No: $\sum_k s_k\,q_k\,p_{nk}$ has a different factor at each term, and nothing can be taken out. Each product would have to be multiplied by a float. This is why activations are quantized per token and weights per output (per-channel), and why methods that must treat single inputs differently move the factor into the weights *beforehand* (SmoothQuant, arXiv 2211.10438).
#
# ### The zero point leaves it too
#
# If real zero is stored as the integer $z$, each weight means $p_{nk} - z$. Multiply out:
#
# $$\sum_k q_k\,(p_{nk} - z) = \sum_k q_k\,p_{nk} \;-\; z \sum_k q_k$$
#
# The second sum has nothing to do with the weights: it is *one* number for each token, taken once and used for all outputs.

# %%
z = 3
direct = x_q.astype(int) @ (w_q.astype(int) - z).T
outside = sums - z * x_q.sum(axis=1, dtype=int)[:, None]
print("sums of x_q:", x_q.sum(axis=1, dtype=int).tolist())
assert (direct == outside).all()

# %% [markdown]
# ### The offset trick
#
# The fastest byte instruction of many x86 processors (`vpdpbusd`) multiplies *unsigned* bytes by *signed* ones. Our inputs and weights are both signed. The way out is the same formula once more: store $p + 128$, which is from 0 to 255, and take the offset out again:
#
# $$\sum_k q_k\,p_{nk} = \sum_k q_k\,(p_{nk} + 128) - 128 \sum_k q_k$$
#
# The correction costs next to nothing, one sum for each token: all of its outputs *start* at $-128 \sum_k q_k$ instead of at 0. What if one forgets it?

# %%
stored = w_q.astype(int) + 128
start = -128 * x_q.sum(axis=1, dtype=int)
assert stored.min() >= 0 and stored.max() <= 255
assert (start[:, None] + x_q.astype(int) @ stored.T == sums).all()
assert (panels.pack_w8(w_q)[0, 0, :2] == stored).all()
print("forgotten, the sums are", (x_q.astype(int) @ stored.T).tolist())
print("instead of             ", sums.tolist())

# %% [markdown]
# 15,670 - 3,510 = 12,160 = 128 · 95: the sum of the first token's integers was 95. All outputs of a token are off by the same number, those of the next token by another. The third `assert` looks into the library's own bytes: this is what it stores.
#
# ### Break it: an accumulator that is too small
#
# A product of two bytes needs 16 bits. **Predict:** we also *add up* in 16 bits, which end at 32,767. All inputs and weights are 127, so each product is 16,129. How many products until the sum is wrong?

# %%
products = np.full(6, 127 * 127)
print("32 bits:", np.cumsum(products, dtype=np.int32).tolist())
print("16 bits:", np.cumsum(products, dtype=np.int16).tolist())
assert (np.cumsum(products, dtype=np.int16)[:2] == np.cumsum(products)[:2]).all()

# %% [markdown]
# The third one turns negative, without a warning. So products are added up in 32 bits. How many of them fit? The worst case is $255 \cdot 127$ for each input.

# %%
worst = 255 * 127
print(f"at most {(2**31 - 1) // worst:,} inputs; the library allows {INPUTS_LIMIT:,}")
assert worst * INPUTS_LIMIT < 2**31
try:
    wide = np.zeros((16, 65_540), np.int8)
    kernels.linear_w8a8(np.ones((1, 65_540)), panels.pack_w8(wide), np.ones(16))
except ValueError as error:
    print(error)

# %% [markdown]
# ### Break it: one outlier in a token
#
# The scale of a token is its largest value divided by 127. Now one of the 2,048 inputs of the second token becomes 200 times larger than usual. What happens to the second token's answer, and to the first's?

# %%
x = rng.standard_normal((2, K)).astype(np.float32)
loud = x.copy()
loud[1, 7] = 200
for name, tokens in {"as usual": x, "one outlier": loud}.items():
    rounded, _ = quantize_rows(tokens)
    got = kernels.linear_w8a8(tokens, packed, scale)
    rest = np.delete(tokens, 7, axis=1) @ np.delete(weight.numpy(), 7, axis=1).T
    want = tokens @ weight.numpy().T
    error = np.abs(got - want).mean(axis=1) / np.abs(rest).mean(axis=1)
    zeros = (rounded == 0).mean(axis=1)
    print(f"{name:11} become 0: {zeros.round(2)}, error of the answer: {error.round(2)}")

# %% [markdown]
# With the outlier, a step of the second token is 1.57 wide, and more than half of its values round to 0. The part of the answer that comes from the other 2,047 inputs is wrong by four tenths of its size. The first token has a scale of its own and stays as it was. Large language models do have such inputs: LLM.int8 (Dettmers et al. 2022, arXiv 2208.07339) keeps those few inputs in 16 bits.
#
# ## 3 · How the bytes lie
#
# A processor's **register** holds a few numbers. A *vector* register holds, say, 16 sums side by side, each in its **lane**, and one instruction works on all lanes at once. AVX2 and VNNI are names of such sets of instructions. With VNNI, one instruction multiplies 64 bytes of weights: 4 inputs of 16 outputs. If a matrix is stored row by row, those 64 bytes stand in 16 different places of the memory. So the library cuts the matrix into **panels** of 16 outputs, and stores what is needed together in one piece.
#
# We let it pack one panel, a matrix of 16 outputs by 8 inputs, and ask where each weight went. Output 0's first four inputs lie at bytes 0 to 3. **Predict:** at which byte does the first input of output 1 lie, and at which the fifth input of output 0?

# %%
numbers = np.arange(128).reshape(16, 8) - 64
place = panels.pack_w8(numbers).ravel().argsort().reshape(16, 8)
ax = plots.byte_grid(place.tolist(), (place // 64).tolist(), "byte at which each weight lies")
names = ax.set(xlabel="input 0 to 7", ylabel="outputs, 0 at the top")
assert place[1, 0] == place[0, 3] + 1 and place[0, 4] == 64

# %% [markdown]
# *Figure: the first 64 bytes hold four inputs of all 16 outputs. A grid of 16 rows (outputs) by 8 columns (inputs) shows the byte at which each weight lies. Row 0 reads 0 1 2 3 and then 64 to 67; row 1 reads 4 5 6 7 and 68 to 71; row 15 ends with 60 to 63 and 124 to 127. The left half, block 0, has one colour, the right half, block 1, another.*
#
# So a panel consists of **blocks** of 16 outputs by 4 inputs, 64 bytes each. A vector kernel walks through block 0, then block 1, and so on: straight through the memory. With each step it reads 64 bytes of weights, and 4 inputs, which it copies 16 times. It keeps 16 sums, one for each output, and never adds one to another.
#
# With 4 bits, two weights share a byte: half of a byte is a **nibble**. We pack a row whose input 0 is -4, input 4 is 5, all others 0; the two share the first byte. Before it is stored, each number gets an offset of 8.

# %%
pair = np.zeros((1, 8), int)
pair[0, 0], pair[0, 4] = -4, 5
byte = int(panels.pack_w4(pair)[0, 0, 0, 0])
bits = [*f"{byte:08b}"]
ax = plots.byte_grid(
    [bits], [[1] * 4 + [0] * 4], f"input 4: {byte >> 4} - 8 | input 0: {byte & 15} - 8"
)
assert (byte & 15) - 8 == pair[0, 0] and (byte >> 4) - 8 == pair[0, 4]

# %% [markdown]
# *Figure: one byte holds two weights. Its bits are 1 1 0 1 0 1 0 0. The left four, 13, stand for input 4, which is 13 - 8 = 5; the right four, 4, for input 0, which is 4 - 8 = -4.*
#
# Why does input 0 share with input 4, not with input 1? One `and` with 15 in each byte leaves inputs 0 to 3 of all 16 outputs, one shift and the same `and` inputs 4 to 7. Both are in the order of the panel above, ready to be multiplied.
#
# ### What the compiler made of our loop
#
# The plain loop below is the heart of the library's portable kernel. We let Numba compile it, and search the machine code for instructions that multiply.


# %%
@njit
def dot(a, b):
    """Multiply bytes, and add up in 32 bits."""
    total = np.int32(0)
    for k in range(len(a)):
        total = np.int32(total + np.int32(a[k]) * np.int32(b[k]))
    return total


a, b = rng.integers(-127, 128, (2, 1000)).astype(np.int8)
assert dot(a, b) == int(a.astype(int) @ b.astype(int))


# %%
def multiplications(compiled):
    """Return each kind of multiplying instruction on integers in a compiled function."""
    lines = "\n".join(compiled.inspect_asm().values()).splitlines()
    words = {line.split()[0] for line in lines if line.startswith("\t") and line.split()}
    return sorted(
        word for word in words if re.search("pm(add|ul)|pdp|ml[as]|[su]mull|dot|macc", word)
    )


print("found in our loop:", bool(multiplications(dot)))

# %% [markdown]
# The library has three **paths** of kernels, `vnni`, `avx2` and `portable`, and takes the first that your processor can run. We compile the one for this processor a second time, and look inside: does it multiply with the same instruction?

# %% tags=["nbval-ignore-output"]
found = {"our loop": multiplications(dot)}
path = paths.chosen()
if path.needs:  # of the processor; the portable kernel, which needs nothing, *is* our loop
    found["the library's kernel"] = multiplications(njit(jobs.SIGNATURE)(path.cores["w8"]))
print(f"path {path.name!r}: {found}")
assert all(found.values())

# %% [markdown]
# <details><summary>How to read the names</summary>
#
# | instruction | where | what one of its lanes does |
# |---|---|---|
# | `vpmaddwd` | x86 with AVX2 | 2 products of 16-bit numbers, added into 32 bits; the bytes must be widened first |
# | `vpdpbusd` | x86 with VNNI | 4 products of unsigned by signed bytes, added to a sum of 32 bits, all in one |
# | `smull`, `smlal` | ARM | a wide product of narrow numbers; `smlal` adds it to a sum |
# | `sdot` | newer ARM | 4 products of signed bytes, added to a sum of 32 bits |
#
# LLVM, Numba's compiler, did not make `vpdpbusd` from the plain loop. On the path `vnni` the library writes it down by name, in LLVM's own language (`lightcourse/kernels/vnni.py`), and so gets four products from each lane where the loop gets two. On the path `avx2` both use `vpmaddwd`; what the library gains there is order: sums that stay in registers and bytes in panels. On the path `portable` the loop *is* the kernel.
#
# </details>
#
# ## 4 · Batch 1 is bandwidth, batch 128 is arithmetic
#
# Chapter 01 drew rooflines for floats. The two limits for int8, on one thread, are `stream_read`, the bytes that your machine reads from memory in a second, and `int8_peak`, the operations that it does in a second with everything in registers.
#
# A layer of $K$ inputs and $N$ outputs reads its $K \cdot N$ bytes of weights *once* for the whole batch of $M$ rows, but multiplies for each row:
#
# $$\frac{\text{operations}}{\text{bytes}} = \frac{2\,M K N}{K N + 4\,M\,(K + N)} \approx 2 M$$
#
# (The second term below the line: x and y are 32-bit floats. It counts when $M$ is large: at 128 the result is 171 instead of 256.) We measure batches of 1, 4, 16 and 128, from cache and from memory as in section 1.
#
# **Predict:** say a machine reads 30 GB and computes 480 billion operations in a second. From which batch on does it wait for the arithmetic?

# %%
copies, runs = [packed.copy() for _ in range(16)], {}
for batch in (1, 4, 16, 128):
    x = rng.standard_normal((batch, K)).astype(np.float32)
    turns = {
        place: lambda x=x, m=matrices: [kernels.linear_w8a8(x, each, scale) for each in m]
        for place, matrices in {"cache": copies[:1] * 16, "memory": copies}.items()
    }
    runs[batch] = metrics.latencies(turns, repeats=5, warmup=1)
bandwidth, peak = limits.stream_read(), limits.int8_peak()

# %% [markdown]
# The time of each batch becomes two rates, and the smaller of two limits stands above those from memory:

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
peak = best if math.isnan(peak) else peak  # the portable path has no peak of its own
print(f"limits: {bandwidth / 1e9:.1f} GB/s, {peak / 1e9:.0f} billion operations/s", end="")
print(f", they meet at {peak / bandwidth:.1f} operations/byte")

# %%
memory = reached["memory"]
assert all(rate < 2 * min(bandwidth * work, peak) for work, rate in memory.values())
assert memory[128][1] > 1.2 * memory[1][1]
dots = {f"batch {batch}": [dot] for batch, dot in memory.items()}
ax = plots.roofline({"this machine, 1 thread": (bandwidth, peak)}, points=dots)
names = ax.set(ylabel="billion operations/s: limit and reached")

# %% [markdown]
# *Figure: the layer climbs along the memory's limit towards that of the arithmetic, as the batch grows. Over the operations for each byte stands the roof of this machine: a slope where memory is the limit, then a flat part where arithmetic is. Four dots, below it or close to it, are the layer from memory at batches of 1, 4, 16 and 128, from left to right.*
#
# <details><summary>The prediction</summary>
#
# The two limits meet at 480 / 30 = 16 operations per byte. A batch of $M$ does about $2M$, so that is a batch of 8. Below it the limit is reading the weights: a perfect kernel would do seven more tokens for almost nothing. Above it the limit is the arithmetic, and fewer bytes gain nothing. A real kernel reaches neither limit near the corner. On the path `portable` plain loops are so far from the processor's peak that they wait for the arithmetic already at a small batch.
#
# </details>
#
# Where the bytes come from can matter only while the kernel waits for them: compare "cache" with "memory" at small batches, and at 128. So *why* int8 helps depends on the batch. A decoder that writes for one user has a batch of 1: it gains because a quarter of the bytes is read. An encoder, or a prompt, is a batch of hundreds: it gains because one instruction multiplies more bytes than floats.
#
# ## 5 · Four bits
#
# At batch 1 half of the bytes could mean half of the time; section 6 measures whether it does. But with only 16 values a row needs more than one scale. With **groups** of 32 inputs each group is an integer sum of its own, and its scale leaves *that*:
#
# $$y_n = s_x \sum_g s_{ng} \Big( \underbrace{\sum_{k \in g} q_k\,p_{nk}}_{\text{integers only}} \Big)$$
#
# We take a real matrix: the one in the middle of MiniLM that widens 384 numbers to 1,536. `QuantizedLinear` with `activations=8` runs on the integer kernels.
#
# **Predict:** groups of 32 with scales of 16 bits: how many bits does a weight take, scales included?

# %% rtol=0.01
minilm = models.load_minilm()
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
# <details><summary>Where the numbers come from</summary>
#
# 4 + 16/32 = 4.5 bits. With the same rule for the scale a step at 4 bits would be 127/7 = 18 times as wide as at 8 bits. The error grows only ten times, for two reasons: the 1.1 % hold two roundings of about the same size, that of the weights and that of the activations; and at 4 bits the library tries a dozen scales (`search_scale`) and keeps the one with the least error. A smaller group has a smaller largest value, hence a smaller step: that is all that groups do.
#
# </details>
#
# Groups of 32 win back almost a quarter of the error and cost half a bit. This is why nearly every 4-bit format in use has groups.
#
# ## 6 · Zeros, and from where on they pay
#
# Chapter 03 showed that zeros in a dense matrix gain nothing: 0 is multiplied like any number. `pack_sparse` stores the weights that are *not* zero and, for each block of 16 outputs by 4 inputs, one bit per weight that says whether it is there. A block of zeros only is left out altogether. Three ways to make zeros, each removing the smallest weights:


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
# **Predict:** half of the weights, one by one, are zero. How many bytes are stored, as a share of the dense matrix? (Each weight of 8 bits costs one more bit to say where it is.)
#
# Beside the bytes stands the price in quality: the error that such zeros make in MiniLM's matrix of section 5, where 8 bits made 1.1 % and 4 bits in groups of 32 made 8.6 %.

# %% rtol=0.02
ties = rng.random((N, K), dtype=np.float32)  # equal weights must go in some order
sparse, real = {}, patterns(middle.abs())
for name, mask in patterns(torch.from_numpy(np.abs(q) + ties)).items():
    sparse[name] = panels.pack_sparse(np.where(mask.numpy(), q, 0).astype(np.int8))
    error = ((x @ (middle * real[name]).T - want).abs().mean() / want.abs().mean()).item()
    share = sparse[name].nbytes / q.nbytes
    print(f"zeros {name:18} {share:4.0%} of the dense bytes, error {error:.0%}")
    if name == "90 %, one by one":
        zeros = panels.pack_w8(np.where(mask.numpy(), q, 0).astype(np.int8))
half, groups = panels.pack_w4(q >> 4), panels.pack_groups(np.ones((N, K // 32), np.float16))

# %% [markdown]
# One by one: half of the bytes for the weights that are left, an eighth for the bits, and for each block 4 bytes that say where it stands, a sixteenth: 69 %. Whole blocks need neither bits nor place for what is gone. But the pattern that stores least does the most harm, and all of them do far more than 4 bits. (Training afterwards repairs some of it: chapter 03.)
#
# Now the clock: from cache and from memory at a batch of 1, and from memory at a batch of 32. The control is the *dense* kernel fed with the same zeros, 90 % one by one. And 4 bits run along. The ten take turns, and together their 4 copies are 95 MB: before its next turn, a copy has left most caches.

# %%
contest = {name: (kernels.linear_sparse, stored, scale) for name, stored in sparse.items()}
contest["dense"] = kernels.linear_w8a8, packed, scale
contest["dense, 90 % are zeros"] = kernels.linear_w8a8, zeros, scale
contest["4 bits, no zeros"] = kernels.linear_w4a8, half, groups
runs = {}
for case, count in {"1, cache": 1, "1, memory": 4, "32, memory": 4}.items():
    x = rng.standard_normal((int(case.split(",")[0]), K)).astype(np.float32)
    turns = {}
    for name, (multiply, *stored) in contest.items():
        matrices = [copy.deepcopy(stored) for _ in range(count)] * (4 // count)
        turns[name] = lambda f=multiply, x=x, m=matrices: [f(x, *each) for each in m]
    runs[case] = metrics.latencies(turns, repeats=9, warmup=1)

# %% clock=true
print("times as fast as dense" + "".join(f"  batch {case:11}" for case in runs))
faster, wide = {case: {} for case in runs}, {case: {} for case in runs}
for name in contest:
    print(f"{name:22}", end="")
    for case, results in runs.items():
        ratio = faster[case][name] = results["dense"].median / results[name].median
        wide[case][name] = results[name].spread / results[name].median / 2
        print(f" {ratio:5.2f} times ± {ratio * wide[case][name]:.2f}", end="")
    print()
for case, ratios in faster.items():
    assert ratios["90 %, whole blocks"] > 1.2 * ratios["50 %, one by one"]
    assert 0.4 < ratios["dense, 90 % are zeros"] < 2.5
    assert case == "32, memory" or ratios["90 %, whole blocks"] > 1.2 * ratios["50 %, whole blocks"]
loser = faster["32, memory"]
assert loser["50 %, one by one"] < 1 and loser["4 bits, no zeros"] < 1.5

# %% [markdown]
# At a batch of 1, from memory, as a figure:

# %%
time = {}
for name, ratio in faster["1, memory"].items():
    band = min(wide["1, memory"][name], 0.9)  # a disturbed clock may spread further
    time[name] = [(1 + side * band) / ratio for side in (-1, 0, 1)]
lines = {"dense": {0.0: time["dense"], 0.9: time["dense, 90 % are zeros"]}}
lines |= {"4 bits": {0.0: time["4 bits, no zeros"]}, "2 of 4": {0.5: time["50 %, 2 of 4"]}}
for kind in ("one by one", "whole blocks"):
    lines[kind] = {level / 100: time[f"{level} %, {kind}"] for level in (50, 75, 90)}
ax = plots.sparsity_curves(lines, "time, the dense int8 kernel = 1")

# %% [markdown]
# *Figure: whole blocks of zeros save far more time than zeros one by one. Time over the share of zeros, on a logarithmic axis where the dense int8 kernel is 1; bands are spreads. The dense kernel's line stays near 1. "Whole blocks" fall steeply from 50 to 90 %; "one by one" and "2 of 4" lie above them. A single mark at no zeros stands for 4 bits.*
#
# First look at the control: zeros cannot change the dense kernel's time, so its distance from 1 is noise, and a gain no larger than that, or than its own spread, is *inconclusive*. Then read your own break-even off the table:
#
# - **Whole blocks** gain more the more of them are zero, in each column: they leave out bytes *and* multiplications.
# - **One by one** leaves out bytes alone, and putting each weight back into its place takes time. At a batch of 1 half of them can gain at most 1 / 0.69 = 1.45 times, and gain less; at a batch of 32, where the kernel waits for arithmetic, they *lose*.
# - **4 bits**, with their scales, are 4.5 / 8 of the bytes: at most 1.78 times as fast where reading decides. Unpacking nibbles and a float scale per group cost extra, so they gain less at a batch of 1, and nothing at 32. (An Intel with AMX gained 1.6 times from cache and 1.1 from memory; an AMD with VNNI more from memory.) The roofline gives a *limit*; a kernel need not reach it.
#
# So "sparse is faster" is a claim about a *kernel*, a *pattern* and a *batch*, never about zeros. (The sparse kernel has vector instructions on the path `vnni` only. On the others it is a plain loop that looks at each bit, and loses to the dense kernel.) Beware of comparisons with *floats*, which dense int8 beats already (section 1): quantize first, then ask whether zeros pay on top.
#
# ## 7 · Two real models
#
# ### An encoder: does the answer hold?
#
# Reviews again, as in chapter 01: MiniLM, and a logistic regression on top. Then all its linear layers run on integer kernels. The control is `activations=None`: the same int8 weights, multiplied as floats.
#
# **Predict:** of 400 answers, how many change?

# %%
from sklearn.linear_model import LogisticRegression

reviews, tokenizer = data.load_reviews(), models.load_minilm_tokenizer()
learn, judge = reviews["train"].select(range(512)), reviews["test"].select(range(400))
batches = data.ordered_batches(judge, tokenizer, max_length=24)
truth = torch.tensor(judge["label"][:])
features = models.embed(minilm, data.ordered_batches(learn, tokenizer, max_length=24))
head = LogisticRegression(max_iter=1000).fit(features, learn["label"][:])

# %%
forms = {"floats": None, "W8": (8, None, None), "W8A8": (8, None, 8), "W4A8": (4, 32, 8)}
light, answers = {}, {}
for name, form in forms.items():
    light[name] = copy.deepcopy(minilm)
    report = quantization.quantize_(light[name], *form) if form else None
    answers[name] = torch.tensor(head.predict(models.embed(light[name], batches)))
flipped = {name: metrics.flips(answers["floats"], answer) for name, answer in answers.items()}

# %% [markdown]
# (W8A8: weights of 8 bits, activations of 8 bits. W8: such weights, multiplied as floats.)

# %% atol=0.02
for name, answer in answers.items():
    before, after = answers["floats"] == truth, answer == truth
    gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
    fewer = sum(math.comb(gained + lost, heads) for heads in range(min(gained, lost) + 1))
    assert 2 * fewer / 2 ** (gained + lost) > 0.01  # a fair coin is as uneven as that
    print(f"{name:6} accuracy {metrics.accuracy(answer, truth):.3f}; ", end="")
    print(f"{gained / 400:.1%} became right, {lost / 400:.1%} became wrong")
assert flipped["floats"] == 0 and flipped["W8A8"] < 0.04 < flipped["W4A8"]

# %% [markdown]
# Add the two shares of a line. W8 and W8A8 change a few of the 400 answers, too few to tell the two apart; W4A8 changes nearly a tenth. Is its accuracy now *better*? The two models answered the same questions, so only the answers that changed count: when this was written, 24 became right and 14 wrong. A fair coin thrown 38 times falls at least as unevenly in 14 of 100 cases (a **sign test**), so the gain is *inconclusive*. Accuracy sees gains minus losses alone; it does not tell how many answers are others. (Your processor may round a few answers differently.)
#
# And the ledger of chapter 00: quality, bytes, and the time of one review.

# %% clock=true atol=0.02
one = data.ordered_batches(judge.select([0]), tokenizer, max_length=24)
turns = {name: lambda model=model: models.embed(model, one) for name, model in light.items()}
ledger, times = metrics.Ledger("accuracy"), metrics.latencies(turns, repeats=9)
for name, model in light.items():
    size, quality = metrics.size_in_bytes(model), metrics.accuracy(answers[name], truth)
    row = ledger.add(name, size, quality, latency=times[name])
print(ledger)
assert kernels.path() == "portable" or times["W8"].median > 1.2 * times["W8A8"].median

# %% [markdown]
# W8 and W8A8 store the same bytes. But W8's layers dequantize their matrices at each call, and W8A8's multiply the integers: that is section 1 in a real model. (The table of embeddings stays at 32 bits, hence two thirds of the bytes and not a quarter.)
#
# ### A decoder: does it still write?
#
# SmolLM2 continues two sentences, always with the likeliest token. One thing first: the copy of SmolLM2 that this course can load has linear weights that were *already* rounded to 4 bits (`help(models.load_smollm2)`), so int8 weights can lose hardly anything here. What is tested is the rounding of the *activations*: all linear layers now compute in integers.

# %% atol=0.01
smollm2, words = models.load_smollm2(), models.load_smollm2_tokenizer()
whole = copy.deepcopy(smollm2)
report = quantization.quantize_(whole, bits=8, activations=8)
speech = data.load_speeches("test")[0]["text"][:800]
bits = [metrics.bits_per_byte(model, words, speech) for model in (smollm2, whole)]
print(f"{len(report.changed)} layers; bits per byte: {bits[0]:.1f} and {bits[1]:.1f}")
assert abs(bits[1] - bits[0]) < 0.02

# %% tags=["nbval-ignore-output"]
settings = {"max_new_tokens": 14, "do_sample": False, "pad_token_id": words.eos_token_id}
for sentence in ("To bake bread, you need", "The capital of France is"):
    prompt = words(sentence, return_tensors="pt")
    written = [model.generate(**prompt, **settings)[0] for model in (smollm2, whole)]
    for name, tokens in zip(("floats", "W8A8"), written, strict=True):
        print(f"{name:6} {words.decode(tokens)!r}")
    read = prompt["input_ids"].shape[1]
    assert torch.equal(written[0][: read + 1], written[1][: read + 1])

# %% [markdown]
# Where two texts part depends on the processor, too, since it sums floats in its own order. On an AMD (Zen 4) and an Intel with AMX the second pair parted after "Paris.\n\nThe". How likely were the two next words there?

# %% atol=0.01
start = words("The capital of France is Paris.\n\nThe", return_tensors="pt")
with torch.no_grad():
    chances = smollm2(**start).logits[0, -1].softmax(dim=0)
for word in (" answer", " United"):
    print(f"{word!r}: {chances[words.encode(word)[0]].item():.0%}")

# %% [markdown]
# Neither was likely, so a small change decided. Two texts prove little; the bits per byte of a speech, which hardly moved, say more.
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
# There is *one* scale for the whole batch. So a text's answer depends on what else is in the batch: alone it gets one answer, beside a neighbour with large values another. Answers cannot be repeated, and one user's input spoils another's. The test that shows it sends the same row alone and in company. One scale for each *row* makes rows independent, and costs nothing, since it leaves the sum just as well.
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
# ## What theory says, and what we measured
#
# | theory or paper | here | same? |
# |---|---|---|
# | int8 reads a quarter of the bytes, so it is up to 4 times as fast at batch 1 | faster than floats, with integer arithmetic or without it | yes, if no float matrix is written |
# | 2:4 doubles the speed (arXiv 2104.08378, on a GPU made for it) | no such unit in a CPU: like other zeros one by one, 69 % of the bytes | no |
# | half of the bytes is half of the time at batch 1 | 4 bits gained less, and at batch 32 nothing | no |
# | W8A8 keeps a model's accuracy | about one in fifty of 400 answers changed, and the accuracy by less than a sign test sees | yes |
#
# ## Summary
#
# - **Int8 is faster at batch 1 if no float matrix is written.** A kernel that converts each weight inside the processor beats the floats with float arithmetic; one that dequantizes the matrix first moves more than twice the bytes of the floats, and loses to them. At a large batch only cheaper arithmetic helps: integers.
# - **Integer dot products are exact.** The scales of a token and of an output leave the sum, a zero point leaves it as $z \sum q_k$, and the offset of the unsigned bytes is where the sum starts. 16 bits overflow at the third product; 32 bits hold 65,536 of them.
# - **The roofline** says what to expect: about $2M$ operations per byte. Bytes decide at batch 1, the instruction at batch 128.
# - **Bytes lie in the order in which they are read:** panels of 16 outputs by 4 inputs; two 4-bit weights in a byte. 4 bits in groups of 32 are 4.5 bits, with about eight times the error of 8 bits.
# - **Zeros** pay from a share that depends on the pattern, the kernel and the batch. Half of the weights, removed one by one, leave 69 % of the bytes. Whole blocks are fast, and do the most harm.
#
# ## Further reading
#
# - Jacob et al. 2017, *Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference* (arXiv 1712.05877): section 2, the formulas of our section 2.
# - Dettmers et al. 2022, *LLM.int8()* (arXiv 2208.07339): sections 2 and 3, scales per row and what outliers do.
# - Frantar et al. 2024, *MARLIN* (arXiv 2408.11743): a weight-only kernel for GPUs, and the batches up to which it keeps its gain.
# - Xiao et al. 2022, *SmoothQuant* (arXiv 2211.10438): section 4, how to move an input's scale into the weights.
# - Goto & van de Geijn 2008, *Anatomy of High-Performance Matrix Multiplication*, ACM TOMS 34(3): why kernels pack panels.
# - Williams, Waterman & Patterson 2009, *Roofline*, Communications of the ACM 52(4).
# - Mishra et al. 2021, *Accelerating Sparse Deep Neural Networks* (arXiv 2104.08378): section 2, what 2:4 needs from the hardware.
# - In this repository: `lightcourse/kernels/portable.py`, the kernels as plain loops, then `tiles.py` and `vnni.py` beside it.
