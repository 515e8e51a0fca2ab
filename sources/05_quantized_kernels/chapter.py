# %% [markdown]
# # 05 · Quantized kernels — how fewer bits become less time, and when they do not
#
# **You will be able to**
#
# - say why a model with small weights may well be slower, and what the multiplication must do instead;
# - move scales, zero points and offsets out of a sum of integers, and show that nothing is lost;
# - tell from two divisions whether a layer waits for the memory or for the arithmetic, and what fewer bits gain it;
# - read how 8-bit and 4-bit weights lie in memory, and name the sparsity from which zeros pay.
#
# **You need:** chapters 01 and 03. **Time:** 50 minutes of reading; the whole notebook runs in about a minute. (The first run on a machine takes some seconds more: the kernels are compiled.)
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
# A layer with 2,048 inputs and 2,048 outputs: 16.8 MB of weights as 32-bit floats, 4.2 MB as int8. A **kernel** is the small program that does such a layer's multiplication. Three of them:
#
# - `float`: 32-bit weights, and PyTorch's own multiplication;
# - `dequantize`: int8 weights, turned back into floats (`q * scale`), then the same multiplication. Much published code does this, and so does `quantize_` as chapter 01 used it;
# - `integers`: int8 weights, and inputs that are rounded to int8 too; integers multiply integers. This chapter takes it apart.

# %%
K = N = 2048
q = rng.integers(-127, 128, (N, K)).astype(np.int8)
scale = rng.uniform(0.5, 1.5, N).astype(np.float32) / 1000
integers, row_scale = torch.from_numpy(q), torch.from_numpy(scale)[:, None]
weight = integers * row_scale
packed = panels.pack_w8(q)
print(f"float {weight.nbytes:,} bytes, int8 {q.nbytes:,} bytes and {scale.nbytes:,} of scales")

# %% [markdown]
# **Predict:** with a batch of 1 (one token), how do the three compare? And with a batch of 64?

# %% clock=true
runs = {}
for batch in (1, 64):
    x = torch.randn(batch, K)
    contest = {
        "float": lambda x=x: x @ weight.T,
        "dequantize": lambda x=x: x @ (integers * row_scale).T,
        "integers": lambda x=x: kernels.linear_w8a8(x, packed, scale),
    }
    runs[batch] = metrics.latencies(contest, repeats=9, warmup=2)
    told = [f"{name} {run.median * 1e3:.2f} ms" for name, run in runs[batch].items()]
    print(f"batch {batch:2}: {', '.join(told)}")
one = {name: run.median for name, run in runs[1].items()}
assert one["dequantize"] > 1.2 * one["float"] and one["integers"] < one["dequantize"]

# %% [markdown]
# <details><summary>Why does "dequantize" lose to the floats that it replaces?</summary>
#
# PyTorch turns 4.2 MB of integers into 16.8 MB of floats, reads those to write 16.8 MB of *scaled* floats, and reads these to multiply: 71 MB where the plain floats need 16.8. And both float matrices are new at each call, so that the operating system must hand their memory out afresh: that can cost more than the traffic alone. (Even a perfect "dequantize" in one step would move 37.7 MB.) At a batch of 64 the detour is the same, but there is more to multiply, so that it hurts less.
#
# </details>
#
# And the integers? At batch 1 they read a quarter of the bytes; at 64 one instruction multiplies four times as many numbers. So four times as fast as floats would be fair, at either batch. On an idle AMD with VNNI (Zen 4) it was five to seven times; on a busy machine it may be less. (What goes beyond four tells of a smaller matrix that stays in a cache, or of a slow float routine, not of int8.)
#
# So a small *file* is one thing, a fast *multiplication* another. To be faster, the kernel must compute with the integers as they are. Three questions follow, one a section: is the result still right? how must the bytes lie? and what limits the speed?
#
# ## 2 · What integers allow
#
# First a plain question. **Predict:** the same 10,000 numbers are added up forwards and backwards. Is the sum the same, for floats and for integers?

# %%
floats = rng.standard_normal(10_000).astype(np.float32)
steps = np.rint(floats * 30).astype(np.int32)
for name, values in {"floats": floats, "integers": steps}.items():
    forwards, backwards = np.cumsum(values)[-1], np.cumsum(values[::-1])[-1]
    print(f"{name:8} the same sum in both directions: {bool(forwards == backwards)}")

# %% [markdown]
# A processor's **register** holds a few numbers; a *vector* register holds, say, 16 sums side by side, each in a **lane**, and one instruction works on all lanes at once. AVX2 and VNNI are names of such instruction sets. The library has three **paths**, `vnni`, `avx2` and `portable`, and takes the first that your processor has. **Numba** (`@njit`) compiles a Python function to machine code. A layer's inputs are also called its **activations**.
#
# A float sum is rounded after each addition, so its order matters. Sums of integers are never rounded. A kernel may add them up in any order, on any number of lanes and threads, and the answer is the same bit for bit. All rounding happens *before* (when numbers become integers) and *after* (when the sum becomes a float), never in between.
#
# ### The scales leave the sum
#
# Write each input as $x_k \approx s_x\,q_k$ and each weight as $w_{nk} \approx s_n\,p_{nk}$:
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
# **Predict:** could each *input* have a scale of its own ($s_k$ instead of $s_x$), for instance because one input is always large?
#
# <details><summary>Answer</summary>
#
# No: $\sum_k s_k\,q_k\,p_{nk}$ has a different factor at each term, and nothing can be taken out. One would have to multiply each product by a float, which is the work that we wanted to be rid of. This is why activations are quantized for each token and weights for each output, and why methods that must treat single inputs differently move the factor into the weights *beforehand* (SmoothQuant, arXiv 2211.10438).
#
# A middle way exists: groups of neighbouring inputs. Each group is an integer sum with its own scale. Section 5 uses that.
#
# </details>
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
# The correction costs next to nothing, one sum a token: instead of at 0, each of its outputs *starts* at $-128 \sum_k q_k$. **Predict:** by how much is the first sum wrong if one forgets it?

# %%
stored = w_q.astype(int) + 128
start = -128 * x_q.sum(axis=1, dtype=int)
assert stored.min() >= 0 and stored.max() <= 255
assert (start[:, None] + x_q.astype(int) @ stored.T == sums).all()
assert (panels.pack_w8(w_q)[0, 0, :2] == stored).all()
print("forgotten, the sums are", (x_q.astype(int) @ stored.T).tolist())
print("instead of             ", sums.tolist())

# %% [markdown]
# 15,670 - 3,510 = 12,160 = 128 · 95: the sum of the first token's integers was 95. Note that *all* outputs of a token are off by the same number, and the next token's by another. The third `assert` looks into the library's own bytes: this is what it stores.
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
# The third one turns negative, without a warning. (There is an x86 instruction, `vpmaddubsw`, that adds *two* products of unsigned by signed bytes in 16 bits and cuts off what does not fit. $2 \cdot 255 \cdot 127$ = 64,770 does not fit.) So products are added up in 32 bits. Is that enough? The worst case is $255 \cdot 127$ for each input. **Predict:** is a layer of 65,536 inputs still safe?

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
# The scale of a token is its largest value divided by 127. **Predict:** one of 2,048 inputs of the second token becomes 200 times larger than usual. What happens to the second token's answer, and what to the first's?

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
# With the outlier, a step of the second token is 1.57 wide, and more than half of its values round to 0. What the other 2,047 inputs have to say comes out wrong by four tenths of its size. The first token has a scale of its own and notices nothing. Large language models do have such inputs: LLM.int8 (Dettmers et al. 2022, arXiv 2208.07339) keeps those few inputs in 16 bits.
#
# ## 3 · How the bytes lie
#
# One vector instruction multiplies 64 bytes of weights: 4 inputs of 16 outputs. If a matrix is stored row by row, those 64 bytes stand in 16 different places of the memory. So the library cuts the matrix into **panels** of 16 outputs, and stores what is needed together in one piece.
#
# We let it pack one panel, a matrix of 16 outputs by 8 inputs, and ask where each weight went. Output 0's first four inputs lie at bytes 0 to 3. **Predict:** at which byte does the first input of output 1 lie, and at which the fifth input of output 0?

# %%
numbers = np.arange(128).reshape(16, 8) - 64
place = panels.pack_w8(numbers).ravel().argsort().reshape(16, 8)
ax = plots.byte_grid(place.tolist(), (place // 64).tolist(), "byte at which each weight lies")
names = ax.set(xlabel="input 0 to 7", ylabel="outputs, 0 at the top")
assert place[1, 0] == place[0, 3] + 1 and place[0, 4] == 64

# %% [markdown]
# *Figure: a grid of 16 rows (outputs) by 8 columns (inputs); in each cell stands the byte at which that weight lies. Row 0 reads 0 1 2 3 and then 64 65 66 67; row 1 reads 4 5 6 7 and 68 to 71; row 15 ends with 60 to 63 and 124 to 127. The left half, bytes 0 to 63, is one colour: block 0. The right half, bytes 64 to 127, is another: block 1.*
#
# So a panel consists of **blocks** of 16 outputs by 4 inputs, 64 bytes each, one block after the other. A vector kernel walks through block 0, then block 1, and so on: straight through the memory. With each step it reads 64 bytes of weights, and 4 inputs, which it copies 16 times. There are 16 sums, one for each output, and none of them must ever be added to another.
#
# With 4 bits, two weights share a byte: half of a byte is a **nibble**. We pack a row whose input 0 is -4, input 4 is 5, all others 0; the two share the first byte. **Predict:** with the offset of 8, which four bits stand for -4?

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
# *Figure: eight cells with the bits of one byte, 1 1 0 1 0 1 0 0. The left four, 13, stand for input 4, which is 13 - 8 = 5. The right four, 4, stand for input 0, which is 4 - 8 = -4.*
#
# Why is input 0's partner not input 1? Because of what comes next: one `and` with 15 in each byte leaves inputs 0 to 3 of all 16 outputs, one shift and the same `and` inputs 4 to 7. Both are in the order of the panel above, ready to be multiplied.
#
# ### What the compiler made of our loop
#
# The plain loop below is, but for its name, the heart of the library's portable kernel. We let Numba compile it, and search the machine code for instructions that multiply.


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
# The library's kernel for this processor is compiled a second time, so that we can look inside. **Predict:** does it multiply with the same instruction?

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
# | `smull`, `smlal` | ARM | `smull` makes a wide product of narrow numbers; `smlal` also adds it to a sum |
# | `sdot` | newer ARM | 4 products of signed bytes, added to a sum of 32 bits |
#
# In our measurements LLVM, Numba's compiler, never made `vpdpbusd` from a plain loop. On the path `vnni` the library writes it down by name, in LLVM's own language (`lightcourse/kernels/vnni.py`), and so gets four products from each lane where the loop gets two. On the path `avx2` both use `vpmaddwd`; what the library gains there is order: sums that stay in registers and bytes in panels. On the path `portable` the loop *is* the kernel.
#
# The one-line cast `np.int32(…)` matters too. Without it Numba adds up in 64 bits, and half as many lanes fit into a register.
#
# </details>
#
# ## 4 · Batch 1 is bandwidth, batch 128 is arithmetic
#
# Chapter 01 drew rooflines for floats; here are your machine's two limits for bytes, on one thread: `stream_read`, the bytes that it reads from memory in a second, and `int8_peak`, the operations that its byte instruction does in a second with everything in registers.
#
# A layer of $K$ inputs and $N$ outputs reads its $K \cdot N$ bytes of weights *once* for the whole batch of $M$ rows, but multiplies for each row:
#
# $$\frac{\text{operations}}{\text{bytes}} = \frac{2\,M K N}{K N + 4\,M\,(K + N)} \approx 2 M$$
#
# (The second term below the line: x and y are 32-bit floats. "≈" holds while $M$ is far below $KN / 4(K + N)$, here 256; at 128 it is 171 instead of 256.) We measure batches of 1, 4, 16 and 128. So that the weights come from memory and not from a cache, we go around 16 copies of the matrix, 67 MB in all.
#
# **Predict:** say a machine reads 30 GB and computes 480 billion operations in a second. From which batch on does it wait for the arithmetic?

# %%
copies, seconds = [packed.copy() for _ in range(16)], {}
for batch in (1, 4, 16, 128):
    x = rng.standard_normal((batch, K)).astype(np.float32)
    turn = metrics.latency(
        lambda x=x: [kernels.linear_w8a8(x, copy, scale) for copy in copies], repeats=3, warmup=1
    )
    seconds[batch] = turn.median / len(copies)
bandwidth, peak = limits.stream_read(), limits.int8_peak()

# %% [markdown]
# The time of each batch becomes two rates, and the smaller of two limits stands above them:

# %% clock=true
reached = {}
for batch, time in seconds.items():
    operations, moved = 2 * batch * K * N, K * N + 4 * batch * (K + N)
    reached[batch] = operations / moved, operations / time
    print(f"batch {batch:3}: {operations / moved:5.1f} operations a byte, ", end="")
    print(f"{moved / time / 1e9:5.1f} GB/s, {operations / time / 1e9:4.0f} billion operations/s")
best = max(rate for _, rate in reached.values())
peak = best if math.isnan(peak) else peak  # the portable path has no peak of its own
print(f"limits: {bandwidth / 1e9:.1f} GB/s, {peak / 1e9:.0f} billion operations/s", end="")
print(f", they meet at {peak / bandwidth:.1f} operations/byte")
assert all(rate < 5 * min(bandwidth * work, peak) for work, rate in reached.values())
assert reached[128][1] > 1.2 * reached[1][1]

# %%
dots = {f"batch {batch}": [dot] for batch, dot in reached.items()}
ax = plots.roofline({"this machine, 1 thread": (bandwidth, peak)}, points=dots)
names = ax.set(ylabel="billion operations/s: limit and reached")

# %% [markdown]
# *Figure: over the operations for each byte, the roof of this machine: a slope where memory is the limit, then a flat part where arithmetic is. Four dots stand for the same layer at batches of 1, 4, 16 and 128, from left to right. With VNNI the first dot lies near the slope, the last under the flat roof.*
#
# <details><summary>The prediction</summary>
#
# The two limits meet at 480 / 30 = 16 operations a byte. A batch of $M$ does about $2M$, so that is a batch of 8. Below it the *limit* is that of reading the weights: a perfect kernel would do seven more tokens for almost nothing. Above it the limit is that of the arithmetic, and fewer bytes gain nothing. A real kernel reaches neither limit near the corner. Compare your batch 4 and batch 16 with batch 1.
#
# On the path `portable` this looks different: its plain loops are so far from the processor's peak that they wait for the arithmetic already at a small batch.
#
# </details>
#
# So *why* int8 helps depends on the batch. A decoder that writes for one user has a batch of 1: it gains because a quarter of the bytes is read. An encoder, or a prompt, is a batch of hundreds: it gains because one instruction multiplies four times as many bytes as floats.
#
# ## 5 · Four bits
#
# At batch 1 half of the bytes could mean half of the time; section 6 puts that to the clock. But with only 16 values a row needs more than one scale. With **groups** of 32 inputs each group is an integer sum of its own, and its scale leaves *that*:
#
# $$y_n = s_x \sum_g s_{ng} \Big( \underbrace{\sum_{k \in g} q_k\,p_{nk}}_{\text{integers only}} \Big)$$
#
# We take a real matrix: the one in the middle of MiniLM that widens 384 numbers to 1,536. `QuantizedLinear` with `activations=8` runs on the integer kernels.
#
# **Predict:** bits a weight, scales included, for groups of 32 with scales of 16 bits? And how many times larger than at 8 bits is the error?

# %% rtol=0.01
minilm = models.load_minilm()
middle = minilm.encoder.layer[3].intermediate.dense.weight.detach()
x = torch.randn(256, middle.shape[1])
want = x @ middle.T
errors = {}
for name, bits, group_size in [("8 bits, a scale a row", 8, None)] + [
    (f"4 bits, {size or 'a scale a row'}", 4, size) for size in (None, 128, 32)
]:
    layer = quantization.QuantizedLinear(middle, None, bits, group_size, activations=8)
    errors[name] = ((layer(x) - want).abs().mean() / want.abs().mean()).item()
    width = 8 * metrics.size_in_bytes(layer) / middle.numel()
    print(f"{name:22} {width:.2f} bits a weight, error {errors[name]:.1%}")
assert sorted(errors.values()) == [errors[n] for n in [*errors][:1] + [*errors][:0:-1]]

# %% [markdown]
# <details><summary>Where the numbers come from</summary>
#
# 4 + 16/32 = 4.5 bits. With the same scale rule a step at 4 bits would be 127/7 = 18 times as wide as at 8 bits. The error grows only ten times, for two reasons: the 1.1 % hold two roundings of about the same size, that of the weights and that of the activations; and at 4 bits the library tries a dozen scales (`search_scale`), of which some cut the largest weight off and serve all others better, and keeps the one with the least error. A smaller group has a smaller largest value, hence a smaller step: that is all that groups do.
#
# </details>
#
# Groups of 32 win back a quarter of the error and cost half a bit. This is why nearly every 4-bit format in use has groups. What it does to a whole model's answers, chapter 01 counted: at 4 bits they move.
#
# ## 6 · Zeros, and from where on they pay
#
# Chapter 03 showed that zeros in a dense matrix gain nothing: 0 times something is multiplied like anything else. `pack_sparse` stores the weights that are *not* zero, and for each block of 16 × 4 one bit a weight that says where they stand. A block of zeros only is left out altogether. Three ways to make zeros, each removing the smallest:

# %%
size = torch.from_numpy(np.abs(q.astype(np.float32)) + rng.random((N, K), dtype=np.float32))
blocks = size.view(N // 16, 16, K // 4, 4)


def whole_blocks(sparsity):
    """Return a mask that removes the 16 x 4 blocks with the smallest mean."""
    keep = pruning.layer_mask(blocks.mean(dim=(1, 3)), sparsity)
    return keep[:, None, :, None].expand_as(blocks).reshape(N, K)


masks = {"50 %, 2 of 4": pruning.n_of_m_mask(size, 2, 4)}
for percent in (50, 75, 90):
    masks[f"{percent} %, one by one"] = pruning.layer_mask(size, percent / 100)
    masks[f"{percent} %, whole blocks"] = whole_blocks(percent / 100)

# %% [markdown]
# **Predict:** half of the weights, one by one, are zero. How many bytes are stored, as a share of the dense matrix? One half? (A mask costs one bit for each weight of 8.) And if they go in whole blocks?

# %%
sparse = {
    name: panels.pack_sparse(np.where(mask.numpy(), q, 0).astype(np.int8))
    for name, mask in masks.items()
}
for name, stored in sparse.items():
    print(f"zeros {name:18} {stored.nbytes / q.nbytes:4.0%} of the dense bytes")
zeros = panels.pack_w8(np.where(masks["90 %, one by one"].numpy(), q, 0).astype(np.int8))
half, groups = panels.pack_w4(q >> 4), panels.pack_groups(np.ones((N, K // 32), np.float16))

# %% [markdown]
# One by one: half of the bytes for the weights that are left, an eighth for the bits, and for each block 4 bytes that say where it stands, a sixteenth: 69 %. Whole blocks need neither bits nor place for what is gone.
#
# Now the clock, at a batch of 1. The control is the *dense* kernel fed with the same zeros: 90 % one by one. And 4 bits run along: does half of the bytes give half of the time?
#
# **Predict:** from which share of zeros on does each kind beat the dense int8 kernel?

# %% clock=true
x = rng.standard_normal((1, K)).astype(np.float32)
contest = {n: lambda w=stored: kernels.linear_sparse(x, w, scale) for n, stored in sparse.items()}
contest["dense"] = lambda: kernels.linear_w8a8(x, packed, scale)
contest["dense, 90 % are zeros"] = lambda: kernels.linear_w8a8(x, zeros, scale)
contest["4 bits, no zeros"] = lambda: kernels.linear_w4a8(x, half, groups)
times = {name: r.median for name, r in metrics.latencies(contest, repeats=15, warmup=2).items()}
faster = {name: times["dense"] / time for name, time in times.items()}
for name, ratio in faster.items():
    print(f"{name:22} {ratio:5.2f} times as fast as dense")
assert faster["90 %, whole blocks"] > 1.2 * faster["50 %, whole blocks"]
assert faster["90 %, whole blocks"] > 1.2 * faster["50 %, one by one"]
assert 0.3 < faster["dense, 90 % are zeros"] < 3

# %%
lines = {"the dense kernel": {0.0: [1.0], 0.9: [1 / faster["dense, 90 % are zeros"]]}}
for kind in ("one by one", "whole blocks"):
    lines[kind] = {level / 100: [1 / faster[f"{level} %, {kind}"]] for level in (50, 75, 90)}
ax = plots.sparsity_curves(lines, "time, the dense int8 kernel = 1")

# %% [markdown]
# *Figure: time over the share of zeros, from none to 90 %, on a logarithmic axis where the dense kernel without zeros is 1. The dense kernel's line would stay at 1 all the way if nothing disturbed the clock; how far its end is from 1 shows the noise. "One by one" and "whole blocks" fall as zeros become more; below 1 zeros pay. At 90 % whole blocks are fastest.*
#
# First look at the control: zeros cannot change the dense kernel's time, so its distance from 1 is the noise, and a gain no larger than that is *inconclusive*. Then read your own break-even off the figure. For comparison, an idle AMD (Zen 4) on the path `vnni`, where one instruction puts the stored weights into their places (times, dense = 1):
#
# | zeros | 2 of 4 | one by one | whole blocks |
# |---|---|---|---|
# | 50 % | about 1 | 1.06 | 0.66 to 0.8 |
# | 75 % | | 0.7 to 0.9 | 0.34 to 0.53 |
# | 90 % | | 0.7 to 0.87 | 0.11 to 0.41 |
#
# There half of the weights, one by one, gained nothing, and whole blocks gained at once. (Where other programs use the machine, as yours may, each figure moves by some tenths, to either side.) And this is a batch of 1: from a batch of 32 on, zeros one by one lost to dense, by a factor of 1.6 to 2.6, since the dense kernel no longer waits for bytes. On the other paths a plain loop looks at each single bit; there only whole blocks at 90 % may pay at all. "Sparse is faster" is a claim about a *kernel*, a *pattern* and a *batch*, never about zeros.
#
# And 4 bits? Half of the bytes, but not half of the time. Our matrix lies in the cache of most machines, so fewer bytes gain little, and unpacking nibbles and one float scale a group cost extra. Where the weights had to come from memory, as in section 4, 4 bits took 0.6 to 0.8 of 8 bits' time on that idle machine, and from a batch of 32 on 1.15 times as long. The roofline gives a *limit*; a kernel need not reach it.
#
# And beware of what pays against *floats*. Dense int8 is already several times faster than those. Quantize first; then ask whether zeros pay on top.
#
# ## 7 · Two real models
#
# ### An encoder: does the answer hold?
#
# Reviews again, as in chapter 01: MiniLM stays as it is, a logistic regression on top. Then all its linear layers run on integer kernels. The control is `activations=None`: the same int8 weights, multiplied as floats. What the *activations'* rounding adds is the difference of the two.
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
forms = {"floats": None, "W8, floats": (8, None, None), "W8A8": (8, None, 8), "W4A8": (4, 32, 8)}
answers = {}
for name, form in forms.items():
    model = copy.deepcopy(minilm)
    report = quantization.quantize_(model, *form) if form else None
    answers[name] = torch.tensor(head.predict(models.embed(model, batches)))
flipped = {name: metrics.flips(answers["floats"], answer) for name, answer in answers.items()}
right = {name: metrics.accuracy(answer, truth) for name, answer in answers.items()}

# %% [markdown]
# (W8A8: weights of 8 bits, activations of 8 bits.)

# %% atol=0.02
for name, answer in answers.items():
    gained = ((answers["floats"] != truth) & (answer == truth)).float().mean()
    lost = ((answers["floats"] == truth) & (answer != truth)).float().mean()
    print(
        f"{name:11} accuracy {right[name]:.3f}; {gained:.1%} became right, {lost:.1%} became wrong"
    )
assert flipped["floats"] == 0 and flipped["W8A8"] < 0.04 < flipped["W4A8"]

# %% [markdown]
# Add the two shares of a line: W8 changes hardly any of the 400 answers, W8A8 about one in fifty, since the activations are rounded too. W4A8 changes nearly a tenth, and more of them to right than to wrong. So its accuracy even *rises*, by less than the give or take of 400 answers: the accuracy, which sees only gains minus losses, does not tell how many answers are others. (Your processor may round a few answers differently.)
#
# ### A decoder: does it still write?
#
# SmolLM2 continues two sentences, always with the likeliest token. One thing first: the copy of SmolLM2 that this course can load has linear weights that were *already* rounded to 4 bits (`help(models.load_smollm2)`), so int8 weights can lose hardly anything here. What is tested is the rounding of the *activations*. **Predict:** all linear layers now compute in integers. At which word do the texts part?

# %% atol=0.01
smollm2, words = models.load_smollm2(), models.load_smollm2_tokenizer()
light = copy.deepcopy(smollm2)
report = quantization.quantize_(light, bits=8, activations=8)
speech = data.load_speeches("test")[0]["text"][:800]
bits = [metrics.bits_per_byte(model, words, speech) for model in (smollm2, light)]
print(f"{len(report.changed)} layers; bits per byte: {bits[0]:.1f} and {bits[1]:.1f}")
assert abs(bits[1] - bits[0]) < 0.02

# %% tags=["nbval-ignore-output"]
settings = {"max_new_tokens": 14, "do_sample": False, "pad_token_id": words.eos_token_id}
for sentence in ("To bake bread, you need", "The capital of France is"):
    prompt = words(sentence, return_tensors="pt")
    written = [model.generate(**prompt, **settings)[0] for model in (smollm2, light)]
    for name, tokens in zip(("floats", "W8A8"), written, strict=True):
        print(f"{name:6} {words.decode(tokens)!r}")
    read = prompt["input_ids"].shape[1]
    assert torch.equal(written[0][: read + 1], written[1][: read + 1])

# %% [markdown]
# Where the texts part depends on the processor, too, since floats are summed in another order there. On an AMD (Zen 4) the first pair never parted, on an Intel with AMX at the very end; the second pair parted on both after "Paris.\n\nThe". How likely were the two words there?

# %% atol=0.01
start = words("The capital of France is Paris.\n\nThe", return_tensors="pt")
with torch.no_grad():
    chances = smollm2(**start).logits[0, -1].softmax(dim=0)
for word in (" answer", " United"):
    print(f"{word!r}: {chances[words.encode(word)[0]].item():.0%}")

# %% [markdown]
# No word was likely, so a small change decided. Two texts prove little; the bits per byte over 800 characters of a speech, which hardly moved, say a little more. (What is left at 32 bits is the table of the vocabulary, which is also the last layer.)
#
# ## **Spot the bug**
#
# This function stands, in many versions, in code that quantizes on the fly. Each line is right by itself, its error is small, and its accuracy on a test set is fine. And yet no one should use it in a service. What is wrong?


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
# There is *one* scale for the whole batch. So a text's answer depends on who else happens to be in the batch: alone it gets one answer, beside a loud neighbour another. Answers cannot be repeated, and one user's input spoils another's. The test that tells them apart sends the same row alone and in company. One scale a *row* makes rows independent, and costs nothing, since it leaves the sum just as well.
#
# (If you said "a batch of zeros divides by 0": right too, but that one announces itself.)
#
# </details>

# %%
company = np.concatenate([x[:1], 50 * x[1:]])
for name, function in {
    "one scale a batch": lambda x: linear_int8(x, q, scale),
    "one scale a row": lambda x: kernels.linear_w8a8(x, packed, scale),
}.items():
    alone, together = function(x[:1])[0], function(company)[0]
    print(f"{name:17} the same answer in company: {np.allclose(alone, together, rtol=1e-5)}")

# %% [markdown]
# ## What theory says, and what we measured
#
# | theory or paper | here | same? |
# |---|---|---|
# | int8 reads a quarter of the bytes, so it is up to 4 times as fast at batch 1 | only if the kernel multiplies integers; dequantizing first is *slower* than floats | no, and yes |
# | integer sums are exact; scales and zero points leave them (arXiv 1712.05877) | equal to the last bit in any order; `assert` after each formula | yes |
# | $2M$ operations a byte: a batch of a few tokens is limited by reading | batch 1 below the slope, batch 128 below the flat roof, on a vector path | yes; plain loops wait for arithmetic sooner |
# | `vpdpbusd` does 4 products a lane, `vpmaddwd` 2 (the processors' manuals) | our loop became the second; the first had to be asked for by name | yes |
# | an outlier ruins a scale (LLM.int8, arXiv 2208.07339) | one input of 2,048 wiped out more than half of its token, and no other token | yes |
# | 2:4 doubles the speed (arXiv 2104.08378, on a GPU made for it) | no such unit in a CPU: like other zeros one by one, 69 % of the bytes | no |
# | half of the bytes is half of the time at batch 1 | 4 bits: little or nothing from the cache; from memory 0.6 to 0.8 of the time, on an idle machine | no |
# | W8A8 keeps a model's accuracy | the accuracy moved by 0.013, and 7 of 400 answers changed | yes |
#
# ## Summary
#
# - **Dequantizing is a detour.** Four times fewer bytes stored, four times as many moved: slower than the floats that it replaces, at batch 1. An integer kernel beat it.
# - **Integers dot exactly.** Scales of a token and of an output leave the sum, a zero point leaves it as $z \sum q_k$, the offset of the unsigned bytes is where the sum starts. 16 bits overflow at the third product; 32 bits hold 65,536 of them.
# - **The roofline** says what to expect: about $2M$ operations a byte. Bytes decide at batch 1, the instruction at batch 128.
# - **Bytes lie in the order in which they are read:** panels of 16 outputs by 4 inputs; two nibbles in a byte. 4 bits in groups of 32 are 4.5 bits, with an error several times that of 8 bits.
# - **Zeros** pay from a sparsity that depends on the pattern and on the kernel. Half of them, one by one, still take 69 % of the bytes.
#
# ## Further reading
#
# - Jacob et al. 2017, *Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference* (arXiv 1712.05877): section 2, the formulas of our section 2.
# - Dettmers et al. 2022, *LLM.int8()* (arXiv 2208.07339): sections 2 and 3, scales a row and what outliers do.
# - Xiao et al. 2022, *SmoothQuant* (arXiv 2211.10438): section 4, how to move an input's scale into the weights.
# - Goto & van de Geijn 2008, *Anatomy of High-Performance Matrix Multiplication*, ACM TOMS 34(3): why kernels pack panels.
# - Williams, Waterman & Patterson 2009, *Roofline*, Communications of the ACM 52(4).
# - Mishra et al. 2021, *Accelerating Sparse Deep Neural Networks* (arXiv 2104.08378): section 2, what 2:4 needs from the hardware.
# - In this repository: `lightcourse/kernels/portable.py`, the kernels as plain loops, then `tiles.py` and `vnni.py` beside it.
