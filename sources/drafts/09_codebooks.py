# %% [markdown]
# # 09 · Codebooks and mixed precision — levels where the weights are, bits where the loss is
#
# **You will be able to**
#
# - find levels for a matrix by k-means, and derive those of NF4;
# - read the small floating-point formats (FP4, MXFP4, NVFP4, FP8), and count all of their bits;
# - say what one bit and three levels cost, and what is not binary though it has one bit;
# - write frequent codes in fewer bits;
# - spend a budget of bytes on the layers that need it, and notice when that gains nothing.
#
# **You need:** chapters 01, 04 and 08. **Time:** 60 minutes of reading, 25 for the parts marked ★ (the fast path). The whole notebook runs in about a minute.
#
# Below each **Predict**, write your guess into the next cell, in place of the dots.

# %%
import copy
from functools import partial

import torch

import lightcourse
from lightcourse import data, layers, metrics, models, plots, quantization
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

# %% atol=0.002
sixteen = {
    "even": partial(code_blocks, levels=line, block=32, choose_scale=blocks.least_squares),
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
# (k-means has a codebook for each *matrix*, behind a scale for each block.) Now, do the errors of weights tell what the model loses?
#
# ## 4 · At equal bits
#
# The student with one format after another. What a weight takes in bits is counted from the bytes that are really stored, codes without room between them, scales, and codebooks. "Even" is chapter 04's grid; so that 4 levels are really used, it has no level at 0: with 2 bits it is -1, -1/3, 1/3 and 1 times the scale. GPTQ is chapter 08's, on even grids, calibrated on 16 windows.
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


def even_grid(bits, block):
    book = torch.linspace(-1, 1, 2**bits)
    return partial(code_blocks, levels=book, block=block, choose_scale=blocks.least_squares)


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
ax = plots.bits_curves(lines, "perplexity, dense = 1")

# %% [markdown]
# ## 5 · Three levels, two levels
#
# Draft: ternary and binary (measured on the student, three texts): sign times the mean size of a row 7.7, 6.8, 5.7; ternary by BitNet's rule 4.1, 3.2, 3.3; the three levels -1, 0, 1 with a scale by least squares for each 32 weights 2.2, 2.1, 2.0. The sign without a scale, and a "fixed point" of one bit whose levels are 0 and 1, are no binary networks. To train on such grids is chapter 10's subject.
#
# ## 6 · Fewer bits for frequent codes
#
# Draft: Huffman's bytes of the codes above, pruned and not; the entropy as the limit.
#
# ## ★ 7 · Bits where the loss is
#
# Draft: the loss that each of the 28 matrices adds at 2, 3 and 4 bits, on a validation text (layer 0 is by far the most sensitive: 0.10 nats for its down_proj at 2 bits, others below 0.01); `choose_bits` exact and greedy; controls: uniform, three random allocations, and the reversed one. Measured: at 2.5 bits in the mean 1.18, 1.15, 1.16, against 1.31 to 1.55 at random, 1.53 reversed, and 1.60 with 2 bits everywhere; at 3 bits 1.10, 1.09, 1.09 against 1.12, 1.12, 1.07 uniform; at 4 bits 1.04 against 1.03 uniform: where sensitivities are as small as their noise, a budget is spent on noise. Does `calibration.hessian_traces` times the squared error foretell the losses?
#
# ## 8 · The price of looking up
#
# Draft: `CodebookLinear` takes about 1 ns a weight with one row, on one thread; integers of 4 bits take a tenth of it.
#
# ## 9 · The ledger
#
# ## **Spot the bug**
#
# Draft: the scale of a block from its largest *value*, not its largest size: negative ends are cut off.
