# %% [markdown]
# # 09 · Codebooks and mixed precision — levels where the weights are, bits where the loss is
#
# **You will be able to**
#
# - find levels for a matrix by k-means, and derive those of NF4;
# - read the small floating-point formats (FP4, MXFP4, NVFP4, FP8), and count all of their bits;
# - say what one bit and three levels cost;
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
# The grids of chapters 04 and 08 are even: all steps are of one size. But weights are not spread evenly: many are small, few are large. This chapter puts the levels where the weights are. Then it asks the same of bits: not the same number for each layer, but more where rounding costs more.
#
# The model is the tiny *student* again, judged as in chapter 08 on three **texts** of the *test* speeches: ratios of perplexity to the **dense** model, in floats. **Better** means lower by more than 3 % on each of the three texts. Otherwise it is *inconclusive*.

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
# ## ★ 1 · A matrix's own levels
#
# ### k-means, by hand
#
# A **codebook** is a short list of levels. Each weight is stored as the place of a level in that list, its **code**: with 16 levels, 4 bits. Which levels leave the smallest squared error? For one number line there is a simple way to good ones, **k-means** (Lloyd 1982):
#
# 1. each value goes to its nearest level;
# 2. each level moves to the mean of the values that came to it;
# 3. again, until nothing moves.
#
# No step can make the error larger: 1 chooses the nearest, and a mean is the number with the smallest squared distance. (Where it ends depends on the start.) Six weights and two levels:

# %%
six, levels = torch.tensor([0.0, 0.1, 0.2, 0.3, 1.0, 1.4]), torch.tensor([0.0, 0.3])
for _ in range(4):
    nearest = (six[:, None] - levels).abs().argmin(dim=1)
    error = (six - levels[nearest]).square().sum()
    print([round(level, 2) for level in levels.tolist()], nearest.tolist(), f"error {error:.2f}")
    levels = torch.stack([six[nearest == code].mean() for code in (0, 1)])

# %% [markdown]
# **Predict:** the levels of this run end at 0.15 and 1.2. By which factor is the squared error of two even levels, the smallest weight, 0, and the largest, 1.4, larger?

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
# Now one matrix of the student, and three sets of 16 levels: an even grid that reaches from end to end, an even grid of the best step (chapter 04's least squares), and k-means. A matrix's own codebook costs 16 floats, 64 bytes, once.

# %%
weight = matrices["model.layers.1.mlp.down_proj"]
even = {bits: torch.linspace(-1, 1, 2**bits) for bits in (4, 3, 2)}
step = blocks.least_squares(weight.reshape(1, 1, -1), even[4])[0].float().item()
books = {
    "even, end to end": even[4] * weight.abs().max(),
    "even, least squares": even[4] * step,
    "k-means": kmeans(weight, 4).levels,
}
ax = plots.codebooks(weight.flatten(), books)

# %% [markdown]
# *Figure: k-means puts its levels close together where most weights are, and leaves a few for the rest.*
#
# <details><summary>The figure in words</summary>
#
# Above, a histogram of the weights, a bell around 0. Below, three rows of 16 ticks. "Even, end to end" spreads them over the whole range, half of them where hardly any weight is. "Even, least squares" keeps to the middle and leaves the ends uncovered. "k-means" is dense in the middle and thin outside, and reaches a little farther than "least squares".
#
# </details>


# %%
def share_lost(book):
    """Return the squared error of a codebook, as a share of the squared weights."""
    codes = quantization.nearest_codes(weight, book)
    return ((book[codes.long()] - weight).square().sum() / weight.square().sum()).item()


def best_scale(levels, block):
    """Return what rounds to these levels, times the best scale of each block."""
    return partial(code_blocks, levels=levels, block=block, choose_scale=blocks.least_squares)


# %% atol=0.002
lost = {name: share_lost(book) for name, book in books.items()}
print({name: f"{one:.2%}" for name, one in lost.items()})
assert lost["k-means"] < lost["even, least squares"] < lost["even, end to end"]

# %% [markdown]
# This is a step of **Deep Compression** (Han et al. 2015, arXiv 1510.00149): prune, share levels and train them, and write the codes in Huffman's words (section 6).
#
# ## ★ 2 · Levels from a distribution: NF4
#
# ### Derive them
#
# A codebook for each small block would cost more than it gains. But if all blocks look alike, *one* serves them all, and only a scale is the block's own. Trained weights look like draws from a normal distribution. So take levels that a normal distribution uses about equally often: its **quantiles** (the quantile of 0.9 is what nine of ten draws lie below). This is **NF4**, "normal float" (QLoRA, Dettmers et al. 2023, arXiv 2305.14314).
#
# Quantiles of evenly spaced probabilities do not hit 0, and 0 should be exact: padding and pruned weights are 0. So the authors take 8 quantiles above 0, 7 below, and 0 itself, and divide by the largest. The outermost probability is the mean of two: the middle of the last of 16 equal parts lies 1/32 below 1, that of 15 parts 1/30. `ndtri` is the quantile of the standard normal distribution.

# %%
last = 1 - (1 / 32 + 1 / 30) / 2
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
# A block of 64 weights is divided by its largest size, so that it lies between -1 and 1; then each weight takes the nearest level. We store 64 codes of 4 bits and a scale. (QLoRA rounds the scales to 8 bits, too: 4.13 bits.)
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
# Divided by the largest of its block, a weight is no draw from a normal distribution any more, so the codes are not used equally often. NF4 is a good codebook, but not the best possible for blocks (Yoshida 2023, arXiv 2306.06965).
#
# ## 3 · Small floats
#
# ### FP4 and its blocks
#
# Hardware gets uneven levels by floating-point numbers of few bits. **FP4** has a sign, two bits of exponent (which power of two) and one of mantissa (where between two powers): 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives. From 2 on, each step up in the exponent doubles the distance between neighbours. What differs is how blocks are scaled:
#
# | format | block | scale | bits of a weight |
# |---|---|---|---|
# | **MXFP4** (Open Compute Project 2023) | 32 | a power of two, 8 bits | 4.25 |
# | **NVFP4** (NVIDIA 2025, arXiv 2509.25149) | 16 | FP8 (E4M3), and one float for the whole matrix | 4.5 |
# | **FP8** (Micikevicius et al. 2022, arXiv 2209.05433), levels up to 448 (E4M3: 4 bits of exponent, 3 of mantissa) | here a row | a float | 8, and a little |
#
# MXFP4's rule for its scale: the exponent of the block's largest value, less that of the largest level (6 lies between 4 and 8, so its exponent is 2).
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
# 13 divided by 2 is 6.5, and the largest level is 6: the block's *largest* weight is cut off. That is the price of rounding the scale *down*, as the standard suggests. Rounded up, to 4, nothing would be cut, but 3 would become 4. NVFP4 pays a quarter of a bit more: a scale for each 16 weights, and not only powers of two.
#
# ### Powers of two alone
#
# Without any mantissa the levels are powers of two: a **logarithmic** grid, whose products are shifts. Between 4 and 8 there is nothing.
#
# How much do these formats lose, on all matrices of the student? All have codes of 4 bits and blocks of 32. NF4 stands there twice: its scale is the block's largest size, or the best one by least squares, as for the even grid and the powers of two.

# %% atol=0.002
sixteen = {
    "even": best_scale(even[4], 32),
    "NF4": partial(quantization.nf4, block=32),
    "NF4, best scale": best_scale(quantization.normal_levels(4), 32),
    "MXFP4": quantization.mxfp4,
    "powers of two": partial(quantization.log4, block=32),
    "k-means": partial(kmeans, bits=4, block=32),
}
squares, lost = sum(m.square().sum() for m in matrices.values()), {}
for name, code in sixteen.items():
    off = sum((code(m).read_back() - m).square().sum() for m in matrices.values())
    lost[name] = (off / squares).item()
    print(f"{name:16} {lost[name]:.2%}")
assert lost["NF4, best scale"] < lost["even"] < lost["MXFP4"] < lost["powers of two"]

# %% [markdown]
# (k-means has one codebook for a *matrix*, and a block's largest size for a scale.) With the same rule for the scale NF4 is better than even levels, with its own rule it is not: **the scale counts as much as the levels.** Now, do the errors of weights tell what the model loses?
#
# ## 4 · At bits really counted
#
# The student with one format after another. Bits are counted from the bytes that are really stored: codes, scales, codebooks. "Even" has no level at 0, so that all are used: with 2 bits it is -1, -1/3, 1/3 and 1 times the scale. GPTQ is chapter 08's, calibrated on 16 windows.
#
# **Predict:** at which number of bits is any codebook *better* (on each text by more than 3 %) than the even grid in blocks?

# %%
guess = ...  # such as 2, or "none"


def with_code(code):
    """Return a copy of the student with such codes, and the bits that a weight takes."""
    model = copy.deepcopy(dense)
    codebook_(model, code)
    found = [m for m in model.modules() if isinstance(m, quantization.CodebookLinear)]
    held = sum(b.nbytes for m in found for b in m.buffers())
    return model, 8 * held / sum(m.in_features * m.out_features for m in found)


# %%
families = {
    "even, rows": {bits: best_scale(even[bits], None) for bits in (4, 3, 2)},
    "even, blocks": {bits: best_scale(even[bits], 32) for bits in (4, 3, 2)},
    "k-means, matrix": {bits: partial(kmeans, bits=bits) for bits in (4, 3, 2)},
    "k-means, blocks": {bits: partial(kmeans, bits=bits, block=32) for bits in (4, 3, 2)},
    "NF4": {4: quantization.nf4},
    "MXFP4": {4: quantization.mxfp4},
    "NVFP4": {4: quantization.nvfp4},
    "powers of two": {4: sixteen["powers of two"]},
}
found, lines = {}, {}
for family, codes in families.items():
    for bits, code in codes.items():
        model, width = with_code(code)
        found[family, bits] = lines.setdefault(family, {})[width] = rise(model)

# %% [markdown]
# A row's scale costs 16 bits: the same for GPTQ, which rounds to one grid for each row. Its control rounds to the same grid, without the compensation:

# %% rtol=0.05
calibrating = list(data.token_batches(learn[:200_000], 128, 4)(0, 0))[:4]
a_row = 16 * sum(map(len, matrices.values())) / sum(m.numel() for m in matrices.values())
lines["GPTQ, rows"] = {}
for bits in (4, 3, 2):
    model, control = copy.deepcopy(dense), copy.deepcopy(dense)
    quantization.gptq_(model, calibrating, bits, act_order=True, damping=0.1)
    found["GPTQ, rows", bits] = lines["GPTQ, rows"][bits + a_row] = rise(model)
quantization.quantize_(control, 2, choose_qparams=quantization.choose_qparams_mse)
found["GPTQ's control", 2] = rise(control)
for (family, bits), ratios in found.items():
    print(f"{bits} bits, {family:16}", *(f"{ratio:.2f}" for ratio in ratios))

# %% [markdown]
# - **No codebook is better than the even grid**, neither at 4 bits nor at 2; only the powers of two are worse. (The error of the *weights* differed by a factor of 1.7 between NF4 and MXFP4; the model does not notice.)
# - **At 2 bits** GPTQ's compensation gains much on its grid of -2, -1, 0 and 1; four levels without a 0 gain as much, without any calibration.
# - What a codebook buys is a *format*: FP4 since hardware multiplies it, NF4 since a block needs only its largest size. Codebooks that gain at 2 bits weight what counts (SqueezeLLM, arXiv 2306.07629) or hold levels for several numbers at once (AQLM, arXiv 2401.06118).

# %%
gains = [key for key, ratios in found.items() if better(ratios, found["even, blocks", key[1]])]
compare(guess, gains or "none")
assert min(found["powers of two", 4]) > max(found["even, blocks", 4])
shown = {name: line for name, line in lines.items() if name not in ("NVFP4", "powers of two")}
ax = plots.bits_curves(shown, "perplexity, dense = 1")

# %% [markdown]
# *Figure: from 3 bits on all lie close together; at 2 bits k-means with one codebook for a matrix loses most.*
#
# <details><summary>The figure in words</summary>
#
# Perplexity, divided by that of the floats, over bits for each weight from 2 to 4.5; bands reach from the best to the worst of three texts. All lines fall: from 1.4 to 1.8 near 2 bits, to about 1.1 near 3, and 1.02 above 4.
#
# </details>
#
# ## 5 · Three levels, two levels
#
# ### A sign and a scale
#
# With **one bit** a weight keeps its sign: $w \approx \alpha \cdot \text{sign}(w)$. Which scale $\alpha$ is best for a row of $n$ weights? The squared error is $\sum (|w_i| - \alpha)^2$, and that is smallest at the mean: $\alpha = \frac{1}{n} \sum |w_i|$ (XNOR-Net, Rastegari et al. 2016, arXiv 1603.05279).
#
# Some texts call another thing binary: "a fixed point of $b$ bits", with $b = 1$. That has no scale of its own; its levels are -1 and 0.
#
# **Predict:** of this matrix, which share of the squared weights is lost by sign times mean?

# %% atol=0.01
guess = ...  # percent
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
# The fixed point makes *all* weights 0, for they are far smaller than 1. A sign alone is more than ten times too large (the root of 134). Only with its scale is one bit a sketch, which loses a good third.
#
# **Ternary** weights have a third level, 0, for the many small ones. BitNet b1.58 (Ma et al. 2024, arXiv 2402.17764) takes the mean size as the scale and rounds $w / \alpha$ to -1, 0 or 1 (one $\alpha$ for a matrix; here one for a row). Three levels are $\log_2 3 = 1.58$ bits. (We store 2.)
#
# **Predict:** by which factor does the perplexity rise with one bit in every linear layer?

# %%
guess = ...  # times
three = torch.linspace(-1, 1, 3)
few = {
    "one bit, rows": quantization.binary,
    "ternary, rows": quantization.ternary,
    "ternary, rows, best scale": best_scale(three, None),
    "ternary, blocks, best scale": best_scale(three, 32),
}

# %% rtol=0.1
for name, code in few.items():
    model, width = with_code(code)
    found[name] = rise(model)
    print(f"{name:28} {width:.2f} bits", *(f"{ratio:.1f}" for ratio in found[name]))
four = (f"{ratio:.1f}" for ratio in found["even, rows", 2])
print(f"{'four even levels, rows':28} {2 + a_row:.2f} bits", *four)
compare(guess, sum(found["one bit, rows"]) / 3, "times")
assert better(found["even, rows", 2], found["ternary, blocks, best scale"])

# %% [markdown]
# Rounded to one bit, or three levels, a *finished* model is spoiled; with the mean size more than with the best scale, for that rule is made for training. BitNet's models were *trained* on these levels from the start. Chapter 10 trains on such grids.
#
# ## 6 · Short words for frequent codes
#
# ### Huffman
#
# A code of 4 bits can name 16 levels, used or not. If some levels are frequent and others rare, frequent ones may get shorter words: **Huffman's code** (1952). The two rarest levels are joined into one, again and again, and each join makes the words of all in it a bit longer. Its limit is the **entropy**, $-\sum p \log_2 p$ bits for a level of share $p$. Four levels with shares 1/2, 1/4, 1/8, 1/8:

# %%
lengths = quantization.huffman_lengths(torch.tensor([4, 2, 1, 1]))
print("bits of the words:", lengths.tolist())
p = torch.tensor([4, 2, 1, 1]) / 8
print("in the mean:", (p * lengths).sum().item(), " entropy:", -(p * p.log2()).sum().item())

# %% [markdown]
# Now a real matrix: k-means and even grids from end to end; and, as Deep Compression does, k-means after pruning half of the weights (chapter 03), where a code of its own stands for 0.
#
# **Predict:** the even grid has 16 levels. How many bits does a weight take in Huffman's words?

# %%
guess = ...  # bits
kept = weight.abs() > weight.abs().median()
sparse = torch.where(kept, weight, 0)
books |= {
    "k-means, 3 bits": kmeans(weight, 3).levels,
    "even, 27 levels": torch.linspace(-1, 1, 27) * weight.abs().max(),
    "half pruned, k-means": torch.cat(
        [torch.zeros(1), kmeans(weight[kept][None], 4).levels]
    ).sort()[0],
}

# %% rtol=0.03
written = {}
for name, book in books.items():
    source = sparse if "pruned" in name else weight
    codes = quantization.nearest_codes(source, book)
    shares = codes.int().flatten().bincount() / codes.numel()
    entropy = -(shares * shares.clamp(min=1e-9).log2()).sum().item()
    packed = quantization.huffman_encode(codes.flatten())
    assert torch.equal(quantization.huffman_decode(packed).flatten(), codes.flatten())
    written[name] = 8 * len(packed) / codes.numel()
    off = (book[codes.long()] - weight).square().sum() / weight.square().sum()
    print(f"{name:20} entropy {entropy:.2f}, written {written[name]:.2f} bits; lost {off:.1%}")
compare(guess, written["even, end to end"], "bits")

# %% [markdown]
# - **The even grid from end to end gains much**: most weights lie in few of its levels. At equal bits it now loses *less* than k-means: 16 levels against k-means with 3 bits, 27 against 4 bits. k-means is best only for words of equal length; before Huffman's words, even levels are nearly the best (Gish and Pierce 1968).
# - **Pruning** gives half of the codes one word of one bit. (A mask and 4 bits for what is left would be 3.0.) But the error is far larger: Deep Compression trains afterwards.
#
# The price: a word cannot be found without reading those before, unless places to jump to are stored (DFloat11, arXiv 2504.11651). So Huffman's bytes are mostly for disks and networks.
#
# ## ★ 7 · Bits where the loss is
#
# ### How sensitive is each matrix?
#
# Some matrices may matter more than others. We try: round *one* matrix to 2, 3 or 4 bits, leave all others as they are, and look at the loss on a *validation* text. The table of words, which is the output layer as well, counts as a matrix, too; it holds a quarter of all weights.

# %%
judge = data.excerpts(learn, 1)[0]
weights = matrices | {"model.embed_tokens": dense.model.embed_tokens.weight.detach()}
rounded = {
    name: {bits: best_scale(even[bits], None)(w).read_back() for bits in (2, 3, 4)}
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
where = {"model.layers.0": "first layer", "model.layers.3": "last layer"}
compare(guess, where.get(most[0][:14], "table"))

# %% [markdown]
# *Figure: five of the first layer's seven matrices add more to the loss than any other one in the layers.*
#
# <details><summary>The figure in words</summary>
#
# Bars for the 28 matrices in their order, seven for each of four layers, without the table. Five of the first seven stand out, from 0.02 to 0.10 nats. All others are below 0.015, many near 0.
#
# </details>
#
# ### Spend a budget
#
# Now choose the bits of each matrix so that all bytes stay within a **budget**, and the sum of the added losses is smallest. It is a *knapsack*: `choose_bits` finds the best choice, and `choose_bits_greedily` begins with the most bits and takes away where a byte costs least. (HAWQ: Dong et al. 2019, arXiv 1905.03696.)
#
# The controls: bits given out at **random** until the budget is full, three times; the best choice **reversed**, so that of matrices of one shape the most sensitive takes what the least sensitive had; 2 bits everywhere, which is less; and a **habit**: 3 bits for the table and the first layer, 2 for the rest.


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
habit = {n: 3 if n == "model.embed_tokens" or ".layers.0." in n else 2 for n in weights}


def reversed_bits(chosen):
    """Within each shape, give the most sensitive matrix the bits of the least sensitive one."""
    swapped = {}
    for shape in {w.shape for w in weights.values()}:
        alike = [name for name, w in weights.items() if w.shape == shape]
        alike.sort(key=lambda name: losses[name][2])
        swapped |= {one: chosen[other] for one, other in zip(alike, alike[::-1], strict=True)}
    return swapped


# %% [markdown]
# **Predict:** with 2 bits everywhere, the table too, the perplexity rises by a factor of about 2. What is it with half a bit more for each weight, spent where it is needed?

# %% rtol=0.05
guess = ...  # times
spending = {}
for bits in (2.5, 3):
    budget = sum(w.numel() * bits / 8 + 2 * len(w) for w in weights.values())
    best = quantization.choose_bits(losses, sizes, budget)
    ways = {"exact": best, "greedy": quantization.choose_bits_greedily(losses, sizes, budget)}
    ways |= {f"random {seed}": at_random(budget, seed) for seed in range(3)}
    ways |= {"reversed": reversed_bits(best), "all alike": dict.fromkeys(weights, int(bits))}
    ways |= {"habit": habit}
    for name, chosen in ways.items():
        ratios = spending[name, bits] = rise(with_bits(chosen))
        told = " ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"{bits} bits, {name:9} {told}, {spent(chosen) / 1e3:.0f} kB")
compare(guess, sum(spending["exact", 2.5]) / 3, "times")

# %% atol=0.02
assert all(better(spending["exact", 2.5], spending[f"random {seed}", 2.5]) for seed in range(3))
budget = sum(w.numel() * 2.5 / 8 + 2 * len(w) for w in weights.values())
best = quantization.choose_bits(losses, sizes, budget)
print("3 bits or more:", *(name.removeprefix("model.") for name, bits in best.items() if bits > 2))
together = metrics.cross_entropy(with_bits(best), judge, window=128) - whole_loss
alone = sum(losses[name][bits] for name, bits in best.items())
print(f"losses added up {alone:.2f}, measured together {together:.2f} nats")

# %% [markdown]
# - **At 2.5 bits** the choice is better than all three random ones. The reversed choice is like the worst two of them. All cost the same bytes; only *where* the bits go differs. Much of the gain is a habit: finer at the table and in the first layer.
# - **At 3 bits** the gain over 3 bits everywhere is inconclusive, and random bits are worse than equal ones.
# - The greedy way did as well as the exact one. That losses add up is assumed; together they are somewhat more.
#
# ## 8 · Without trying each matrix
#
# We read a text 87 times. For a model of 500 matrices that is much. HAWQ predicts the losses by **curvature** instead. After training the slope of the loss is near 0, so what is left is
#
# $$\text{added loss} \approx \tfrac12 \cdot \text{curvature} \cdot \text{squared error of the weights}$$
#
# The curvature is the mean of the second derivatives, one for each weight. (Their sum is the **trace** of the Hessian, the table of all second derivatives; a few random vectors estimate it: HAWQ-V2, Dong et al. 2020, arXiv 1911.03852.)
#
# **Predict:** does the forecast put the matrices in the same order? A rank correlation of 1 means the same order, 0 none.

# %% atol=0.05
guess = ...  # between -1 and 1
traces = calibration.hessian_traces(dense, calibrating)
predicted = {
    name: {
        bits: traces[name] / w.numel() * (rounded[name][bits] - w).square().sum().item() / 2
        for bits in (2, 3, 4)
    }
    for name, w in matrices.items()
}
columns = [[table[name][2] for name in matrices] for table in (predicted, losses)]
ranks = torch.tensor(columns).argsort(dim=1).argsort(dim=1).float()
compare(guess, torch.corrcoef(ranks)[0, 1].item())

# %% rtol=0.05
predicted["model.embed_tokens"] = losses["model.embed_tokens"]  # no trace of a table here
by_trace = quantization.choose_bits(predicted, sizes, budget)
print("by trace:", *(f"{r:.2f}" for r in rise(with_bits(by_trace))))
most = max(matrices, key=lambda name: losses[name][2])
print(f"{most}: predicted {predicted[most][2]:.2f}, measured {losses[most][2]:.2f}")

# %% [markdown]
# For the worst matrix the forecast is too small. But the order is nearly right, and the budget (with the measured losses of the table) is spent about as well.
#
# ## 9 · The price of looking up
#
# A kernel multiplies even integers as they are (chapter 05). A code has to be looked up first. One row times a matrix of 2,048 x 2,048, on one thread:
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

# %% [markdown]
# Our kernel makes a float of each code, in about a nanosecond on the Xeon of this printout. (llama.cpp's IQ4_NL looks up 8-bit integers, many with one instruction, and multiplies those.) **Here a codebook buys bytes, not time.**
#
# ## 10 · The ledger
#
# The student, whole: linear layers really packed, the table of words in 8 bits; in the last two it has 4. (Our tables have 4 or 8, so the *mixed* model is a little larger and better than in section 7.) Latency: a text of 128 tokens on one thread.

# %%
packed = {
    "even, 4 bits": best_scale(even[4], 32),
    "NF4": quantization.nf4,
    "k-means, 3 bits, blocks": partial(kmeans, bits=3, block=32),
    "even, 3 bits, rows": best_scale(even[3], None),
    "mixed bits, rows": {name: best_scale(even[best[name]], None) for name in matrices},
    "even, 2 bits, rows": best_scale(even[2], None),
}
variants = {"floats": dense}
for name, code in packed.items():
    variants[name] = model = copy.deepcopy(dense)
    codebook_(model, code)
    table = 4 if name in ("mixed bits, rows", "even, 2 bits, rows") else 8
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
# *Figure: mixed bits take a tenth more than 2 bits everywhere, and are far better.*
#
# <details><summary>The figure in words</summary>
#
# Perplexity as a multiple of the float model's over megabytes stored. Floats at 4.5 MB and 1. Below 1 MB, from right to left: 4 bits, even and NF4, at 1.02; 3 bits at 1.07 (k-means in blocks) and 1.10 (even, in rows); the mixed model at 1.2; and leftmost 2 bits, near 1.6.
#
# </details>
#
# All packed models are slower than the floats here. Chapter 04's integers are small *and* fast; what this chapter adds for them is where to spend their bits (`quantize_` takes bits by layer, too).
#
# ## **Spot the bug**
#
# This version of NF4 is easily written. What is wrong, and which test would show it? Find it before you read on.


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
# The scale is a block's largest *value*, not its largest *size*. Where the farthest weight is negative, it lies below -1 after the division, and -1 is the lowest level: it is cut off. In half of all blocks that is so. The test: a block whose farthest weight is negative, such as (0.1, -1), must come back with its -1.
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
# | Han et al. 2015, 1510.00149 | pruning, shared levels and Huffman make networks 35 to 49 times smaller, without loss | a matrix half pruned: 2.8 bits, 7 % of it lost; nothing trained afterwards | not tested |
# | Dettmers et al. 2023, 2305.14314 | NF4 loses less than FP4 and even 4 bits | in error of weights, with the same rule for the scale; in perplexity all within 2 % | yes, but not visible |
# | Ma et al. 2024, 2402.17764 | ternary from the start equals floats from 3 billion weights on | a finished model, rounded: perplexity times 2 to 4 | not tested: chapter 10 trains |
# | Dong et al. 2019, 2020, 1905.03696, 1911.03852 | bits by sensitivity beat equal bits | at 3 bits inconclusive; at 2.5 1.27 against 1.44 to 1.60 at random | in part |
#
# ## Summary
#
# - **k-means** moves levels to where the weights are; no step can make the error larger.
# - **NF4** is derived from the normal distribution's quantiles; MXFP4, NVFP4 and FP8 are what hardware multiplies. A scale's bits count: 4.25, 4.5.
# - **One bit** is a sign *and a scale*. A finished model does not survive it.
# - **Huffman** gives back what an uneven use of levels wastes, mostly on disk; behind it even levels are the better ones.
# - **Bits by sensitivity:** at 2.5 bits 1.27 instead of 1.44 to 1.60 at random; the table and the first layer get them.
# - At 4 bits none of the codebooks was better than an even grid, and looking up was slower.
#
# ## Further reading
#
# - Rouhani et al. 2023, *Microscaling data formats for deep learning* (arXiv 2310.10537): what MXFP4 and its kin are.
# - In this repository: `lightcourse/quantization/levels.py`, `blocks.py` and `budget.py`.
