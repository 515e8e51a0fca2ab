# %% [markdown]
# # 09 · Codebooks and mixed precision — levels where the weights are, bits where the loss is
#
# **You will be able to**
#
# - find levels for a matrix by k-means, and derive those of NF4;
# - read the small floating-point formats (FP4, MXFP4, NVFP4, FP8), and count all of their bits;
# - say what one bit and three levels cost, and what is not binary though it has one bit;
# - write frequent codes in fewer bits;
# - spend a budget of bytes on the layers that need it.
#
# **You need:** chapters 01, 04 and 08. **Time:** 63 minutes of reading, 25 for the parts marked ★ (the fast path). The whole notebook runs in about a minute.
#
# Below each **Predict**, write your guess into the next cell, in place of the dots.

# %%
import copy
import random
from functools import partial

import torch

import lightcourse
from lightcourse import calibration, data, layers, metrics, models, plots, quantization
from lightcourse.guessing import compare
from lightcourse.quantization import blocks, code_blocks, codebook_, kmeans

lightcourse.setup(threads=1)  # faster for so small a model

# %% [markdown]
# The grids of chapters 04 and 08 are even: all steps are of one size. That makes fast products of integers possible. But weights are not spread evenly: many are small, few are large. This chapter puts the levels where the weights are. Then it asks the same of bits: not as many for each layer, but more where the loss is.
#
# The model is the tiny *student* of chapter 01 again. It is judged as in chapter 08, on three **texts** of the *test* speeches: ratios of perplexity to the **dense** model, which is stored in floats. **Better** means lower by more than 3 % on each of the three texts. Otherwise it is *inconclusive*.

# %%
dense, tokenizer = models.load_tiny_lm("student"), models.load_tiny_tokenizer()
learn, held_out = (data.speech_tokens(tokenizer, split) for split in ("validation", "test"))
texts = data.excerpts(held_out, 3)
whole = [metrics.perplexity(dense, text, window=128) for text in texts]
matrices = {name: layer.weight.detach() for name, layer in layers.linear_layers(dense).items()}


def rise(model):
    """Return a model's perplexity on each text, divided by the dense model's."""
    return [metrics.perplexity(model, t, window=128) / w for t, w in zip(texts, whole, strict=True)]


def better(first, second):
    return all(1.03 * a < b for a, b in zip(first, second, strict=True))


# %% [markdown]
# ## ★ 1 · Levels of its own
#
# ### k-means, by hand
#
# A **codebook** is a short list of levels. Each weight is stored as the place of a level in that list, its **code**: with 16 levels, 4 bits. Which levels leave the smallest squared error? For one number line there is a simple way to good ones, **k-means** (Lloyd 1982):
#
# 1. each value goes to its nearest level;
# 2. each level moves to the mean of the values that came to it;
# 3. again, until nothing moves.
#
# No step can make the error larger: 1 chooses the nearest, and a mean is the number with the smallest squared distance. Six weights and two levels:

# %%
six, levels = torch.tensor([0.0, 0.1, 0.2, 0.3, 1.0, 1.4]), torch.tensor([0.0, 0.3])
for _ in range(4):
    nearest = (six[:, None] - levels).abs().argmin(dim=1)
    error = (six - levels[nearest]).square().sum()
    print([round(level, 2) for level in levels.tolist()], nearest.tolist(), f"error {error:.2f}")
    levels = torch.stack([six[nearest == code].mean() for code in (0, 1)])

# %% [markdown]
# **Predict:** the levels of this run end at 0.15 and 1.2. Would even levels, the smallest weight, 0, and the largest, 1.4, be worse? By which factor is their squared error larger?

# %%
guess = ...  # times
even = torch.tensor([0.0, 1.4])
error_of = {
    name: (six[:, None] - book).abs().amin(dim=1).square().sum().item()
    for name, book in {"even": even, "k-means": levels}.items()
}
compare(guess, error_of["even"] / error_of["k-means"], "times", how="computed")

# %% [markdown]
# ### A real matrix
#
# Now one matrix of the student, 16 levels each: an even grid that reaches from end to end, an even grid of the best step (chapter 04's least squares), and k-means. A matrix's own codebook costs 16 floats, 64 bytes, once.

# %%
weight = matrices["model.layers.1.mlp.down_proj"]
line = torch.linspace(-1, 1, 16)
step = blocks.least_squares(weight.reshape(1, 1, -1), line)[0].float().item()
books = {
    "even, end to end": line * weight.abs().max(),
    "even, least squares": line * step,
    "k-means": kmeans(weight, 4).levels,
}
ax = plots.codebooks(weight.flatten(), books)

# %% [markdown]
# *Figure: k-means puts its levels close together where most weights are, and keeps a few for the rare large ones.*
#
# <details><summary>The figure in words</summary>
#
# Above, a histogram of the weights, a bell around 0. Below, three rows of 16 ticks. "Even, end to end" spreads them over the whole range, most of them where hardly any weight is. "Even, least squares" keeps to the middle and leaves the ends uncovered. "k-means" is dense in the middle and thin outside, and reaches nearly as far as the weights.
#
# </details>


# %%
def share_lost(book):
    """Return the squared error of a codebook, as a share of the squared weights."""
    codes = quantization.nearest_codes(weight, book)
    return ((book[codes.long()] - weight).square().sum() / weight.square().sum()).item()


# %% atol=0.002
lost = {name: share_lost(book) for name, book in books.items()}
print({name: f"{one:.2%}" for name, one in lost.items()})
assert lost["k-means"] < lost["even, least squares"] < lost["even, end to end"]

# %% [markdown]
# k-means on weights is one of three steps of **Deep Compression** (Han et al. 2015, arXiv 1510.00149): prune, share levels, and write the codes in Huffman's words (section 5).
#
# ## ★ 2 · Levels from a distribution: NF4
#
# ### Derive them
#
# To store a codebook for each small block would cost more than it gains. But if all blocks look alike, *one* codebook serves them all, and only a scale is the block's own. Trained weights look like draws from a normal distribution. So take levels that a normal distribution uses about equally often: its **quantiles**. This is **NF4**, "normal float" (QLoRA, Dettmers et al. 2023, arXiv 2305.14314).
#
# Quantiles of evenly spaced probabilities do not hit 0, and 0 should be exact: padding and pruned weights are 0. So the authors take 8 quantiles above 0, 7 below, and 0 itself, and divide by the largest. `ndtri` is the quantile of the standard normal distribution.

# %%
last = 1 - (1 / 32 + 1 / 30) / 2  # probability of the outermost: half a step from 1, in the mean
above, below = (
    torch.special.ndtri(torch.linspace(last, 0.5, count + 1, dtype=torch.float64))[:-1]
    for count in (8, 7)
)
derived = torch.cat([-below, torch.zeros(1), above.flip(0)]) / above[0]
published = [-1.0, -0.6962, -0.5251, -0.3949, -0.2844, -0.1848, -0.0911, 0.0]
published += [0.0796, 0.1609, 0.2461, 0.3379, 0.4407, 0.5626, 0.7230, 1.0]
assert torch.allclose(derived, torch.tensor(published).double(), atol=1e-4)
assert torch.allclose(derived.float(), quantization.normal_levels(4))

# %% [markdown]
# A block of 64 weights is divided by its largest size, so that it lies between -1 and 1; then each weight takes the nearest level. Stored are 64 codes of 4 bits and a scale. (QLoRA rounds the scales to 8 bits, too.)
#
# **Predict:** with a scale of 32 bits for each 64 weights, how many bits does a weight take in NF4?

# %%
guess = ...  # bits
compare(guess, 4 + 32 / 64, "bits", how="computed")
coded = quantization.nf4(weight, block=64)
print(f"really stored: {8 * coded.nbytes / weight.numel():.3f} bits, the codebook among them")
shares = coded.codes.int().flatten().bincount(minlength=16) / weight.numel()
print("least and most used code:", f"{shares.min():.1%}, {shares.max():.1%}")

# %% [markdown]
# "Equally often" is meant for draws from one normal distribution. Divided by the largest of its block, a weight is no such draw any more, so the codes are not used equally often. NF4 is a good codebook, but not the best possible for blocks (Yoshida 2023, arXiv 2306.06965).
#
# ## 3 · Small floats
#
# ### FP4 and its blocks
#
# Hardware has another way to uneven levels: floating-point numbers of few bits. **FP4** has a sign, two bits of exponent and one of mantissa: 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives. Each step up in the exponent doubles the distance between neighbours. New accelerators multiply such numbers directly. What differs is how blocks are scaled:
#
# | format | block | scale | bits of a weight |
# |---|---|---|---|
# | **MXFP4** (Open Compute Project 2023) | 32 | a power of two, 8 bits | 4.25 |
# | **NVFP4** (NVIDIA 2025, arXiv 2509.25149) | 16 | FP8 (E4M3), and one float for the whole matrix | 4.5 |
# | **FP8** (Micikevicius et al. 2022, arXiv 2209.05433) | a row | a float | 8, and a little |
#
# A power of two needs no mantissa, and to multiply by it is to add exponents. MXFP4's rule: the exponent of the block's largest value, less that of the largest level (6 lies between 4 and 8, so its exponent is 2).
#
# **Predict:** a block's largest weight is 13. It lies between 8 and 16, so its exponent is 3, and the scale is $2^{3-2} = 2$. Which number is stored for the 13?

# %%
guess = ...  # a number
row = torch.zeros(1, 32)
row[0, :4] = torch.tensor([13.0, 3.0, 0.4, -1.2])
coded = quantization.mxfp4(row)
print("scale:", coded.scale.float().item(), " stored:", coded.read_back()[0, :4].tolist())
compare(guess, coded.read_back()[0, 0].item(), how="computed")

# %% [markdown]
# 13 divided by 2 is 6.5, and the largest level is 6: the block's *largest* weight is cut off. That is the price of a scale in powers of two; NVFP4 pays half a bit more for a finer scale.
#
# ### Powers of two alone
#
# Without any mantissa the levels are powers of two: a **logarithmic** grid. A product with such a weight is a shift. Small weights are met well, large ones badly: between 4 and 8 there is nothing.
#
# How much do these formats lose, on all matrices of the student? The error is squared, as a share of the squared weights. All of them have 16 levels and blocks of 32; the even grid is the one of chapter 04, and like the logarithmic one it has its best scale by least squares.


# %%
def even_grid(bits, block):
    """Return what rounds to even levels from -1 to 1, times the best scale of a block."""
    levels = torch.linspace(-1, 1, 2**bits)
    return partial(code_blocks, levels=levels, block=block, choose_scale=blocks.least_squares)


# %% atol=0.002
sixteen = {
    "even": even_grid(4, 32),
    "NF4": partial(quantization.nf4, block=32),
    "MXFP4": quantization.mxfp4,
    "powers of two": partial(quantization.log4, block=32),
    "k-means": partial(kmeans, bits=4, block=32),
}
squares, lost = sum(m.square().sum() for m in matrices.values()), {}
for name, code in sixteen.items():
    off = sum((code(m).read_back() - m).square().sum() for m in matrices.values())
    lost[name] = (off / squares).item()
    print(f"{name:14} {lost[name]:.2%}")
assert lost["k-means"] < lost["NF4"] < lost["MXFP4"] < lost["powers of two"]

# %% [markdown]
# (k-means has a codebook for each *matrix*, behind a scale for each block.) An even grid whose scale is *chosen well* beats NF4 whose scale is a block's largest size: the scale counts as much as the levels. Now, do the errors of weights tell what the model loses?
#
# ## 4 · At equal bits
#
# The student with one format after another. What a weight takes in bits is counted from the bytes that are really stored, codes without room between them, scales, and codebooks. "Even" is chapter 04's grid; so that 4 levels are really used, it has no level at 0: with 2 bits it is -1, -1/3, 1/3 and 1 times the scale. GPTQ is chapter 08's, calibrated on 16 windows.
#
# **Predict:** at 4 bits, is any of the codebooks *better* than the even grid (on each text by more than 3 %)? And at 2 bits?

# %%
guess = ...  # "4", "2", "both" or "none"


def coded(code):
    """Return a copy of the student with such codes, and the bits that a weight takes."""
    model = copy.deepcopy(dense)
    codebook_(model, code)
    found = [m for m in model.modules() if isinstance(m, quantization.CodebookLinear)]
    held = sum(b.nbytes for m in found for b in m.buffers())
    return model, 8 * held / sum(m.in_features * m.out_features for m in found)


# %%
families = {
    "even, rows": {bits: even_grid(bits, None) for bits in (4, 3, 2)},
    "even, blocks": {bits: even_grid(bits, 32) for bits in (4, 3, 2)},
    "k-means, matrix": {bits: partial(kmeans, bits=bits) for bits in (4, 3, 2)},
    "k-means, blocks": {bits: partial(kmeans, bits=bits, block=32) for bits in (4, 3, 2)},
    "NF4": {4: sixteen["NF4"]},
    "MXFP4": {4: quantization.mxfp4},
    "NVFP4": {4: quantization.nvfp4},
    "powers of two": {4: sixteen["powers of two"]},
}
found, lines = {}, {}
for family, codes in families.items():
    for bits, code in codes.items():
        model, width = coded(code)
        found[family, bits] = lines.setdefault(family, {})[width] = rise(model)

# %% [markdown]
# A row's scale costs 16 bits. So much is added for GPTQ, which rounds to one grid for each row:

# %% rtol=0.05
calibrating = list(data.token_batches(learn[:200_000], 128, 4)(0, 0))[:4]
width = {
    bits: bits + 16 * sum(map(len, matrices.values())) / sum(m.numel() for m in matrices.values())
    for bits in (4, 3, 2)
}
for bits in (4, 3, 2):
    model = copy.deepcopy(dense)
    quantization.gptq_(model, calibrating, bits, act_order=True, damping=0.1)
    found["GPTQ, rows", bits] = lines.setdefault("GPTQ, rows", {})[width[bits]] = rise(model)
for (family, bits), ratios in found.items():
    print(f"{bits} bits, {family:16}", *(f"{ratio:.2f}" for ratio in ratios))

# %% [markdown]
# - **At 4 bits no codebook is better than the even grid**, only the powers of two are worse. The error of the *weights* differed by a factor of two between NF4 and MXFP4; the model does not notice.
# - **At 2 bits** the four even levels without a 0 do as well as chapter 08's GPTQ does on -2, -1, 0 and 1: there one level of four is used on one side alone.
# - What a codebook buys is a *format*: FP4 because hardware multiplies it, NF4 because no calibration and no zero point are needed.

# %%
for family in ("k-means, blocks", "NF4", "MXFP4", "NVFP4", "GPTQ, rows"):
    assert not better(found[family, 4], found["even, blocks", 4])
assert better(found["even, blocks", 4], found["powers of two", 4])
assert not better(found["GPTQ, rows", 2], found["even, rows", 2])
shown = {name: line for name, line in lines.items() if name not in ("NVFP4", "powers of two")}
ax = plots.bits_curves(shown, "perplexity, dense = 1")

# %% [markdown]
# ## 5 · Three levels, two levels
#
# ### A sign and a scale
#
# How far down does it go? With **one bit** a weight keeps its sign: $w \approx \alpha \cdot \text{sign}(w)$. Which scale $\alpha$ is best for a row of $n$ weights? The squared error is $\sum (|w_i| - \alpha)^2$, and that is smallest at the mean: $\alpha = \frac{1}{n} \sum |w_i|$ (XNOR-Net, Rastegari et al. 2016, arXiv 1603.05279).
#
# Some texts call another thing binary: "round to a fixed point of $b$ bits", with $b = 1$. A fixed point has no scale, so its levels are -1 and 0 (or 0 and 1). Trained weights are far smaller than 1.
#
# **Predict:** of this matrix, which share of the squared weights is lost by sign times mean, and which by -1 and 0?

# %% atol=0.01
guess = ...  # percent, by sign and mean
one_bit = {
    "sign times mean": quantization.binary(weight).read_back(),
    "sign alone": weight.sign(),
    "fixed point, -1 and 0": weight.round().clamp(-1, 0),
}
for name, rounded in one_bit.items():
    lost_here = ((rounded - weight).square().sum() / weight.square().sum()).item()
    print(f"{name:22} {lost_here:.0%}")
off = (one_bit["sign times mean"] - weight).square().sum() / weight.square().sum()
compare(guess, 100 * off.item(), "%")

# %% [markdown]
# The fixed point makes *all* weights 0: nothing is left of the matrix. A sign alone is more than ten times as large as the weights are. Only with its scale is one bit a sketch of the weights, which loses a good third.
#
# **Ternary** weights have a third level, 0: the many small weights need not pretend to be large. BitNet b1.58 (Ma et al. 2024, arXiv 2402.17764) takes the mean size as the scale and rounds $w / \alpha$ to -1, 0 or 1. Three levels are $\log_2 3 = 1.58$ bits; five of them fit into a byte, for $3^5 = 243$. (We store 2 bits each.)
#
# **Predict:** by which factor does the perplexity rise with one bit in every linear layer, and with three levels?

# %%
guess = ...  # times, with one bit
few = {
    "one bit, rows": quantization.binary,
    "one bit, blocks": partial(quantization.binary, block=32),
    "ternary, rows": quantization.ternary,
    "ternary, blocks, best scale": partial(
        code_blocks, levels=torch.linspace(-1, 1, 3), block=32, choose_scale=blocks.least_squares
    ),
}

# %% rtol=0.1
for name, code in few.items():
    model, width_of = coded(code)
    found[name] = rise(model)
    print(f"{name:28} {width_of:.2f} bits", *(f"{ratio:.1f}" for ratio in found[name]))
four = (f"{ratio:.1f}" for ratio in found["even, rows", 2])
print(f"{'four even levels, rows':28} {width[2]:.2f} bits", *four)
compare(guess, sum(found["one bit, rows"]) / 3, "times")
assert better(found["even, rows", 2], found["ternary, blocks, best scale"])

# %% [markdown]
# Rounded to one bit, or three levels, a *finished* model is spoiled. BitNet's models are good with these levels because they were *trained* on them, from the start, and much longer. Chapter 10 trains on such grids.
#
# ## 6 · Short words for frequent codes
#
# ### Huffman
#
# A code of 4 bits can name 16 levels, used or not. If some levels are frequent and others rare, frequent ones may get shorter words: **Huffman's code** (1952) is the best of all that give each level its own word. Its limit is the **entropy**, $-\sum p \log_2 p$ bits, where $p$ is the share of a level. Four levels with shares 1/2, 1/4, 1/8, 1/8:

# %%
lengths = quantization.huffman_lengths(torch.tensor([4, 2, 1, 1]))
print("bits of the words:", lengths.tolist())
p = torch.tensor([4, 2, 1, 1]) / 8
print("in the mean:", (p * lengths).sum().item(), " entropy:", -(p * p.log2()).sum().item())

# %% [markdown]
# Now the codes of a real matrix: NF4, k-means, the even grid from end to end, and, as Deep Compression does, k-means after pruning half of the weights (chapter 03), where a code of its own stands for 0.
#
# **Predict:** which of the four gains most, and how many bits does it take for a weight then?

# %%
guess = ...  # bits, of the one that gains most
kept = weight.abs() > weight.abs().median()
pruned = kmeans(weight[kept][None], 4)
sparse_codes = torch.zeros(weight.shape, dtype=torch.uint8)
sparse_codes[kept] = pruned.codes.flatten() + 1
codes = {
    "NF4": quantization.nf4(weight).codes,
    "k-means": kmeans(weight, 4).codes,
    "even, end to end": quantization.nearest_codes(weight, books["even, end to end"]),
    "half pruned, k-means": sparse_codes,
}

# %% rtol=0.03
coded_bits = {}
for name, numbers in codes.items():
    shares = numbers.int().flatten().bincount() / numbers.numel()
    entropy = -(shares * shares.clamp(min=1e-9).log2()).sum().item()
    packed = quantization.huffman_encode(numbers.flatten())
    coded_bits[name] = 8 * len(packed) / numbers.numel()
    print(f"{name:22} entropy {entropy:.2f}, really written {coded_bits[name]:.2f} bits")
    assert torch.equal(quantization.huffman_decode(packed).flatten(), numbers.flatten())
compare(guess, min(coded_bits.values()), "bits")

# %% [markdown]
# - **Good codes leave little to gain.** NF4 and k-means use their levels nearly evenly.
# - **The even grid from end to end gains much**: most weights lie in few of its levels. It wasted bits, and Huffman gives them back; its *error* stays that of few levels.
# - **Pruning gains:** half of the codes are one and the same, so its word has one bit.
#
# The price: words of different lengths cannot be found without reading all before them. So Huffman's bytes are for disks and networks. Before a kernel can use them, they are decoded.
#
# ## ★ 7 · Bits where the loss is
#
# ### How sensitive is each matrix?
#
# So far each matrix had the same number of bits. But some may matter more. We try: round *one* matrix to 2, 3 or 4 bits, leave all others as they are, and look at the loss on a *validation* text. The table of words counts as a matrix, too.

# %%
judge = data.excerpts(learn, 1)[0]
weights = matrices | {"model.embed_tokens": dense.model.embed_tokens.weight.detach()}
rounded = {
    name: {bits: even_grid(bits, None)(w).read_back() for bits in (2, 3, 4)}
    for name, w in weights.items()
}


def with_bits(chosen):
    """Return a copy of the student whose matrices are rounded to the bits chosen for each."""
    model = copy.deepcopy(dense)
    for name, bits in chosen.items():
        model.get_submodule(name).weight.data = rounded[name][bits]
    return model


# %%
whole_loss = metrics.cross_entropy(dense, judge, window=128)
losses = {
    name: {
        bits: metrics.cross_entropy(with_bits({name: bits}), judge, window=128) - whole_loss
        for bits in (2, 3, 4)
    }
    for name in weights
}
sizes = {
    name: {b: w.numel() * b / 8 + 2 * len(w) for b in (2, 3, 4)} for name, w in weights.items()
}

# %% [markdown]
# **Predict:** which matrix adds most to the loss at 2 bits, one of the first layer, one of the last, or the table?

# %% atol=0.02
guess = ...  # "first layer", "last layer" or "table"
most = sorted(losses, key=lambda name: losses[name][2])[::-1][:4]
for name in most:
    print(f"{name:34}", {bits: round(lost, 3) for bits, lost in losses[name].items()})
ax = plots.layer_bars([losses[name][2] for name in matrices], "loss added at 2 bits, nats")
ax.set(yscale="linear", xlabel="matrix, in the order of the model")
compare(guess, "table")

# %% [markdown]
# *Figure: of the 28 matrices in the layers, those of the first layer add far more to the loss than all others.*
#
# <details><summary>The figure in words</summary>
#
# Bars for the 28 matrices in their order, seven for each of four layers, without the table. Five of the first seven stand out, from 0.02 to 0.10 nats. All others are below 0.015, many near 0.
#
# </details>
#
# ### Spend a budget
#
# Now choose the bits of each matrix so that all bytes together stay within a **budget**, and the sum of the added losses is smallest. (That they add up is an assumption.) It is a *knapsack*: `choose_bits` tries all that could be best, and `choose_bits_greedily` begins with the most bits and takes away where a byte costs least. HAWQ (Dong et al. 2019, arXiv 1905.03696) made the idea known for networks.
#
# A budget of 2.5 bits for each weight in the mean. The controls: bits given out at **random** until the budget is full, three times; the best choice **reversed**, where of matrices of one shape the most sensitive takes what the least sensitive had; and 2 bits everywhere, which is less than the budget.


# %%
def spent(chosen):
    return sum(sizes[name][bits] for name, bits in chosen.items())


def at_random(budget, seed):
    """Raise random matrices by a bit, as long as one fits."""
    dice, chosen = random.Random(seed), dict.fromkeys(weights, 2)
    while fitting := [
        name
        for name, bits in chosen.items()
        if bits < 4 and spent(chosen | {name: bits + 1}) <= budget
    ]:
        chosen[dice.choice(fitting)] += 1
    return chosen


# %%
def reversed_bits(chosen):
    """Within each shape, give the most sensitive matrix the bits of the least sensitive one."""
    swapped = {}
    for shape in {w.shape for w in weights.values()}:
        alike = [name for name, w in weights.items() if w.shape == shape]
        alike.sort(key=lambda name: losses[name][2])
        swapped |= {one: chosen[other] for one, other in zip(alike, alike[::-1], strict=True)}
    return swapped


# %% [markdown]
# **Predict:** with 2 bits everywhere the perplexity rises by a factor of about 2. What is it with half a bit more for each weight, spent where it is needed?

# %% rtol=0.05
guess = ...  # times
spending = {}
for bits in (2.5, 3):
    budget = sum(w.numel() * bits / 8 + 2 * len(w) for w in weights.values())
    best = quantization.choose_bits(losses, sizes, budget)
    ways = {"exact": best, "greedy": quantization.choose_bits_greedily(losses, sizes, budget)}
    ways |= {f"random {seed}": at_random(budget, seed) for seed in range(3)}
    ways |= {"reversed": reversed_bits(best), "all alike": dict.fromkeys(weights, int(bits))}
    for name, chosen in ways.items():
        ratios = spending[name, bits] = rise(with_bits(chosen))
        told = " ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"{bits} bits, {name:9} {told}, {spent(chosen) / 1e3:.0f} kB")
compare(guess, sum(spending["exact", 2.5]) / 3, "times")

# %% [markdown]
# - **At 2.5 bits** the choice is far better than chance, and chance is better than the reversed choice. It is the same integers each time: only *where* they are finer differs.
# - **At 3 bits** the gain over 3 bits everywhere is small. The more bits, the smaller are the losses, and soon they are as small as their noise.
# - The greedy way did as well as the exact one.
#
# ## 8 · Without trying each matrix
#
# We tried 29 matrices with three numbers of bits: 87 readings of a text. For a model of 500 matrices that is much. HAWQ foretells the losses by **curvature** instead: the added loss is about half of the squared error of the weights, times how strongly the loss bends in their direction, which the mean of the Hessian's diagonal tells (its **trace**, divided by the number of weights; HAWQ-V2, Dong et al. 2020, arXiv 1911.03852). A few random vectors estimate it.
#
# **Predict:** does the forecast put the matrices in the same order? A rank correlation of 1 means the same order, 0 none.

# %% atol=0.05
guess = ...  # between -1 and 1
windows = list(data.token_batches(learn[:200_000], 128, 4)(0, 0))[:4]
traces = calibration.hessian_traces(dense, windows)
foretold = {
    name: {
        bits: traces[name] / w.numel() * (rounded[name][bits] - w).square().sum().item() / 2
        for bits in (2, 3, 4)
    }
    for name, w in matrices.items()
}
columns = [[table[name][2] for name in matrices] for table in (foretold, losses)]
ranks = torch.tensor(columns).argsort(dim=1).argsort(dim=1).float()
compare(guess, torch.corrcoef(ranks)[0, 1].item())

# %% rtol=0.05
foretold["model.embed_tokens"] = losses["model.embed_tokens"]  # no trace of a table here
budget = sum(w.numel() * 2.5 / 8 + 2 * len(w) for w in weights.values())
by_trace = quantization.choose_bits(foretold, sizes, budget)
print("by trace:", *(f"{r:.2f}" for r in rise(with_bits(by_trace))))
print("by loss: ", *(f"{r:.2f}" for r in spending["exact", 2.5]))
most = max(matrices, key=lambda name: losses[name][2])
print(f"{most}: foretold {foretold[most][2]:.2f}, measured {losses[most][2]:.2f}")

# %% [markdown]
# The forecast is too small where rounding is coarse (a bend at one point says little about points far away), but the order is nearly right, and the budget is spent about as well. The traces took four windows of 128 tokens; no matrix was rounded for them.
#
# ## 9 · The price of looking up
#
# A kernel multiplies even integers as they are (chapter 05). A code has to be looked up first: each weight becomes a float, and then floats are multiplied. One row times a matrix of 2,048 x 2,048, on one thread:
#
# **Predict:** which is faster, the codebook with 4 bits or the floats with 32?

# %% clock=true
guess = ...  # "codebook" or "floats"
layer = torch.nn.Linear(2048, 2048, bias=False)
kinds = {"floats": layer, "NF4": torch.nn.Sequential(copy.deepcopy(layer))}
codebook_(kinds["NF4"], quantization.nf4)
kinds["integers, 4 bits"] = torch.nn.Sequential(copy.deepcopy(layer))
report = quantization.quantize_(kinds["integers, 4 bits"], 4, group_size=32, activations=8)
row = torch.randn(1, 2048)
calls = {name: torch.no_grad()(lambda kind=kind: kind(row)) for name, kind in kinds.items()}
times = {name: clock.median for name, clock in metrics.latencies(calls, repeats=10).items()}
print(*(f"{name}: {1e3 * seconds:.2f} ms" for name, seconds in times.items()), sep="\n")
compare(guess, "codebook" if times["NF4"] < times["floats"] else "floats")
assert times["integers, 4 bits"] < times["NF4"]

# %% [markdown]
# Our kernel needs about a nanosecond for each weight that it looks up, more than it takes to read a float. New graphics processors multiply FP4 directly. On a laptop's processor even integers are the fast way: **here a codebook buys bytes, not time.**
#
# ## 10 · The ledger
#
# The student, whole: linear layers in one of these formats, really packed, and the table of words in 8 bits. The *mixed* model has the bits that were chosen for 2.5 in the mean (its table 4: our tables have 4 or 8). Latency: a text of 128 tokens on one thread.

# %%
best = quantization.choose_bits(losses, sizes, budget)
packed = {
    "even, 4 bits": even_grid(4, 32),
    "NF4": sixteen["NF4"],
    "k-means, 3 bits": partial(kmeans, bits=3, block=32),
    "even, 3 bits": even_grid(3, None),
    "mixed, 2.5 bits": {name: even_grid(best[name], None) for name in matrices},
    "even, 2 bits": even_grid(2, None),
}
variants = {"floats": dense}
for name, code in packed.items():
    variants[name] = model = copy.deepcopy(dense)
    codebook_(model, code)
    table = 4 if name == "mixed, 2.5 bits" else 8
    report = quantization.quantize_(model, 8, embeddings=table)

# %% clock=true rtol=0.05
ids = texts[0][None, :128]
clocks = metrics.latencies({n: lambda m=m: m(ids) for n, m in variants.items()}, repeats=5)
ledger = metrics.Ledger("perplexity, dense = 1")
for name, model in variants.items():
    ledger.add(name, metrics.size_in_bytes(model), sum(rise(model)) / 3, latency=clocks[name])
print(ledger)
ax = plots.ledger(ledger)

# %% [markdown]
# *Figure: the model of mixed bits is the smallest, and far better than 2 bits everywhere.*
#
# <details><summary>The figure in words</summary>
#
# Perplexity as a multiple of the float model's over megabytes stored. Floats at 4.5 MB and 1. Below 1 MB, from right to left: 4 bits, even and NF4, at 1.02; 3 bits at 1.07 (k-means) and 1.10 (even); 2 bits at 1.5; and leftmost the mixed model, at 1.2.
#
# </details>
#
# All packed models are slower than the floats here, for each weight is looked up. Chapter 04's integers are small *and* fast; what this chapter adds for them is where to spend their bits (`quantize_` takes bits by layer, too).
#
#
# ## **Spot the bug**
#
# This version of NF4 is easily written, and on many matrices it looks fine. What is wrong, and which test would show it? Find it before you read on.


# %%
def nf4_in_blocks(weight, block=64):
    """Return a matrix rounded to NF4. (This is the version with the bug.)"""
    groups = weight.reshape(-1, block)
    scale = groups.amax(dim=1, keepdim=True)
    levels = quantization.normal_levels(4)
    codes = quantization.nearest_codes(groups / scale, levels)
    return (levels[codes.long()] * scale).reshape(weight.shape)


# %% atol=0.01
error = (nf4_in_blocks(weight) - weight).square().sum() / weight.square().sum()
right = (quantization.nf4(weight).read_back() - weight).square().sum() / weight.square().sum()
print(f"lost: {error:.2%}, by the library's {right:.2%}")

# %% [markdown]
# <details><summary>Answer</summary>
#
# The scale is a block's largest *value*, not its largest *size*. Where the farthest weight is negative, it lies below -1 after the division, and -1 is the lowest level: it is cut off. In half of all blocks that is so. The error looks like that of a slightly worse codebook, so no one wonders. The test: a block whose farthest weight is negative, such as (0.1, -1), must come back with its -1.
#
# </details>

# %%
block = torch.zeros(1, 64)
block[0, :2] = torch.tensor([0.1, -1.0])
assert nf4_in_blocks(block)[0, 1] > -0.2 and quantization.nf4(block).read_back()[0, 1] == -1
assert error > 1.2 * right

# %% [markdown]
# ## What papers say, and what we measured
#
# | paper | says | we measured | same order? |
# |---|---|---|---|
# | Han et al. 2015, 1510.00149 | pruning, shared levels and Huffman make networks 35 to 49 times smaller, without loss | a matrix half pruned: 2.8 bits, of which Huffman saves one; nothing trained afterwards | in part |
# | Dettmers et al. 2023, 2305.14314 | NF4 loses less than FP4 and even 4 bits | less error than MXFP4, but an even grid with its best scale had less (0.74 against 0.77 %); in perplexity all within 2 % | in part |
# | Yoshida 2023, 2306.06965 | NF4's codes are not used equally often | from 1.7 % to 9.5 % | yes |
# | Ma et al. 2024, 2402.17764 | ternary from the start equals floats from 3 billion weights on | rounding a finished model: perplexity times 3 to 4 | not tested: chapter 10 trains |
# | Dong et al. 2019 and 2020, 1905.03696, 1911.03852 | bits by sensitivity beat equal bits | at 2.5 bits 1.27 against 1.37 to 1.70 at random; at 3 little | yes, where bits are few |
#
# ## Summary
#
# - **k-means** moves levels to where the weights are; no step can make the error larger.
# - **NF4** is derived from the normal distribution's quantiles; MXFP4, NVFP4 and FP8 are what hardware multiplies. A scale's bits count: 4.25, 4.5, 5.
# - **One bit** is a sign *and a scale*; without it nothing is left. A finished model does not survive it.
# - **Huffman** gives back what an uneven use of levels wastes, on disk only.
# - **Bits by sensitivity:** at 2.5 bits 1.27 instead of 1.6 at random; the table and the first layer get them.
# - At 4 bits none of the codebooks was better than an even grid, and looking up was slower.
#
# ## Further reading
#
# - Han et al. 2015, *Deep Compression* (arXiv 1510.00149): figures 1 to 3.
# - Dettmers et al. 2023, *QLoRA* (arXiv 2305.14314): section 3, NF4.
# - Rouhani et al. 2023, *Microscaling data formats for deep learning* (arXiv 2310.10537): what MXFP4 and its kin are.
# - In this repository: `lightcourse/quantization/levels.py`, `blocks.py` and `budget.py`.
