# %% [markdown]
# # 04 · Linear quantization — from a number line to a model in a few bits, and what each bit costs
#
# **You will be able to**
#
# - put real numbers on a grid of integers, and say beforehand how large the error can get;
# - choose how many weights share a scale and which range it covers, and count the bits;
# - tell the two choices for activations apart, and calibrate them;
# - spend a budget of bits where it helps, and check that it did;
# - prune, retrain and quantize a small GPT-2, with a ledger of each step and its control.
#
# **You need:** chapters 00, 01 and 03. **Time:** 63 minutes of reading, 25 for the parts marked ★ (the fast path); the whole notebook runs in about a minute.
#
# Below each **Predict**, write your guess before you run the cell.

# %%
import copy
import random
import tempfile
from pathlib import Path
from statistics import fmean

import torch

import lightcourse
from lightcourse import data, layers, metrics, models, plots, pruning, quantization
from lightcourse.guessing import compare
from lightcourse.quantization import choose_qparams_affine, choose_qparams_mse, fake_quantize
from lightcourse.training import Recipe, train

lightcourse.setup()

# %% [markdown]
# ## ★ 1 · The grid: real numbers become integers, and come back
#
# A weight is usually stored in 32 bits. We want to spend 3. Three bits can tell $2^3 = 8$ things apart, so each weight becomes one of eight real numbers, called **levels**. *Linear* means that they are evenly spaced, like the marks of a ruler.
#
# The numbers in the picture reach from -0.9 to 1.2. Eight marks, seven steps of 0.3, span them. One more number, 1.5, comes after the ruler was made.

# %%
ax = plots.number_line(
    [-0.9, -0.35, 0.0, 0.2, 0.5, 1.2, 1.5], scale=0.3, zero_point=-1, quant_min=-4, quant_max=3
)

# %% [markdown]
# *Figure: each number moves to its nearest mark; a number beyond the last mark moves to the last mark.*
#
# <details><summary>The figure in words</summary>
#
# A line with eight marks. Below each mark stand its integer, -4 to 3, and the real number that it means, -0.9 to 1.2 in steps of 0.3. Above the line are seven numbers, each with an arrow to its nearest mark: -0.35 goes to -0.3, 0.2 to 0.3, 0.5 to 0.6; -0.9, 0 and 1.2 stand on a mark already. The 1.5, an orange square, lies beyond the last mark and is moved to 1.2.
#
# </details>
#
# In symbols, for $b$ bits and a range from low to high:
#
# $$s = \frac{\text{high} - \text{low}}{2^b - 1}, \qquad z = q_{\min} - \text{round}\Big(\frac{\text{low}}{s}\Big)$$
#
# $$q = \text{clamp}\Big(\text{round}\Big(\frac{x}{s}\Big) + z,\ q_{\min},\ q_{\max}\Big), \qquad \hat x = s\,(q - z)$$
#
# | symbol | identifier | in the picture |
# |---|---|---|
# | $s$ | `scale` | the width of a step, 0.3 |
# | $q$ | `q` | the integer that is stored, from $q_{\min} = -4$ to $q_{\max} = 3$ |
# | $z$ | `zero_point` | the integer that stands for the real 0, here -1 |
# | $\hat x$ | `back` | the real number that is read back |
#
# $\text{clamp}(v, q_{\min}, q_{\max})$ leaves $v$ as it is between these two ends, and moves what lies beyond to the nearer end. A map that stretches and shifts, as $\hat x = s\,(q - z)$ does, is called **affine**. Its $s$ and $z$ together are the quantization parameters, in code **qparams**: the library's `choose_qparams_affine` chooses both from the range of some numbers.
#
# The same, line by line:

# %%
x = torch.tensor([[-0.9, -0.35, 0.0], [0.2, 0.5, 1.2]])
bits, quant_min, quant_max = 3, -4, 3
scale = (x.max() - x.min()) / (2**bits - 1)
zero_point = quant_min - (x.min() / scale).round()
q = ((x / scale).round() + zero_point).clamp(quant_min, quant_max)
back = (q - zero_point) * scale
print(f"scale {scale:.2f}, zero point {zero_point:.0f}, integers {q.int().tolist()}")

# %% [markdown]
# **Predict:** how far can a number between -0.9 and 1.2 be from what is read back, at most? We send 100,000 random numbers through the library's `fake_quantize`, which does the same as the lines above.

# %%
guess = ...  # a number, such as 0.3
many = torch.rand(100_000) * 2.1 - 0.9
assert torch.equal(fake_quantize(x, scale, zero_point, bits), back)
worst = (fake_quantize(many, scale, zero_point, bits) - many).abs().max()
compare(guess, round(worst.item(), 3))
assert worst <= scale / 2 + 1e-6

# %% [markdown]
# Half of a step: $|x - \hat x| \le s / 2$. This **rounding error** has a bound. A number beyond the last mark is **clipped**, and that error has none. A wider range rounds more coarsely, a narrower one clips more.
#
# (`fake_quantize` is called "fake" because its result lies on the grid but is still stored in floats.)
#
# ### Zero stays zero
#
# Why is there an integer for 0? We could put the first mark on the smallest number and count on from there. The numbers below reach from -1.0 to 1.1, so the step is 0.3 again. What becomes of the zeros?


# %%
def fitted(x, bits, **how):
    """Round x to a grid that just fits it; return the result and the step."""
    scale, zero_point = choose_qparams_affine(x, bits, **how)
    return fake_quantize(x, scale, zero_point, bits), scale


x = torch.tensor([-1.0, 0.0, 0.0, 1.1])
shifted = x.min() + ((x - x.min()) / 0.3).round() * 0.3
print("marks from the smallest:", [round(value, 2) for value in shifted.tolist()])
print("with a zero point:      ", [round(value, 2) for value in fitted(x, 3)[0].tolist()])
assert fitted(x, 3)[0][1] == 0 and shifted[1] != 0

# %% [markdown]
# Without a zero point every 0 becomes -0.1. A model holds many zeros (padding, pruned weights), and all would be wrong by the *same* amount, which adds up. So the grid is shifted until one mark lies on 0, and the ends pay: -1.0 became -0.9.
#
# Weights lie evenly around 0. For them one can set $z = 0$ and $s = \max|x| / q_{\max}$. This grid is called **symmetric**, the other one **asymmetric**. It needs no zero point, and leaves the level $q_{\min}$ unused.
#
# ### Break it: a constant tensor
#
# If all numbers are 0.7, `high - low` is 0, and the formula divides by it:

# %%
same = torch.full((4,), 0.7)
step = (same.max() - same.min()) / 7
print("without a guard:", ((same - same.min()) / step).tolist())
print("the library:    ", [round(value, 2) for value in fitted(same, 3)[0].tolist()])
assert torch.allclose(fitted(same, 3)[0], same) and (fitted(0 * same, 3)[0] == 0).all()

# %% [markdown]
# 0 / 0 is `nan` ("not a number"), and one such row makes every answer of a model `nan`. The library widens each range until it holds 0, so a constant tensor comes back exactly. Only an all-zero tensor has an empty range.
#
# ### Break it: one outlier
#
# We round a thousand ordinary numbers to 4 bits. Then *one* of them becomes 100. **Predict:** how many of the other 999 are read back as exactly 0?

# %%
guess = ...  # a whole number
torch.manual_seed(0)
x = torch.randn(1000)
loud = torch.cat([x[:-1], torch.tensor([100.0])])
back, scale = fitted(loud, 4)
print(f"without it {(fitted(x, 4)[0] == 0).sum()} become 0; the step is now {scale.item():.1f}")
compare(guess, int((back[:-1] == 0).sum()))

# %% [markdown]
# The step is now 6.9 wide, and all between -3.4 and 3.4 rounds to 0. Every number that shares the outlier's scale is ruined. Two remedies: let fewer numbers share a scale, or choose a range that leaves the outlier out.
#
# ## ★ 2 · Who shares a scale, and which range it covers
#
# ### Who shares: tensor, row, group
#
# A matrix of 4 outputs and 8 inputs has small weights in its first row and large ones in its last. Three ways to share: one scale for the whole **tensor**; one per **row**, that is for each output (the field says **per-channel**); one per **group** of neighbours in a row, here 4. (`dim=-1` asks for one scale for all numbers along the last dimension. `quantize_affine` returns the integers, before they are read back.)

# %%
torch.manual_seed(0)
weight = torch.randn(4, 8) * torch.tensor([[0.1], [0.5], [1.0], [2.0]])
groups = quantization.into_groups(weight, 4)  # shape (4, 2, 4)
for name, values, dim in [("tensor", weight, None), ("row", weight, -1), ("group", groups, -1)]:
    scale, zero_point = choose_qparams_affine(values, 3, symmetric=True, dim=dim)
    q = quantization.quantize_affine(values, scale, zero_point, 3).reshape(4, 8)
    print(f"{name:6} {scale.numel()} scales, zeros in each row: {(q == 0).sum(1).tolist()}")
ax = plots.integer_grid(q, scale.squeeze(-1))

# %% [markdown]
# *Figure: what is stored for groups of 4: small integers, and one scale for each colour.*
#
# <details><summary>The figure in words</summary>
#
# A grid of 4 rows and 8 columns, an integer from -3 to 3 in each cell. The left four and the right four cells of each row have colours of their own, and at the end of each row stand two scales in these colours. The scales of the first row are less than a tenth of those of the last, but the integers of both rows reach 3 or -3.
#
# </details>
#
# With one scale for the tensor, the first row holds nothing but zeros: its output is dead, because the last row needs such wide steps. One scale per row saves it. But scales must be stored, too.
#
# **Predict:** weights of 4 bits in groups of 32, and one scale of 16 bits for each group. How many bits does a weight take?

# %%
guess = ...  # bits
dense = models.load_tiny_lm("student")
matrices = layers.linear_layers(dense)
weights = sum(layer.weight.numel() for layer in matrices.values())
rows = sum(layer.out_features for layer in matrices.values())
sharing = {"tensor": weights / len(matrices), "row": weights / rows, "groups": 32}
width = {who: {bits: bits + 16 / count for bits in (4, 3, 2)} for who, count in sharing.items()}
print(f"4 bits, one scale per tensor {width['tensor'][4]:.3f}, per row {width['row'][4]:.2f}")
compare(guess, width["groups"][4], "bits", how="computed")

# %% [markdown]
# 4 + 16/32 = 4.5. "4 bits" is never the whole truth. (The *student* is the tiny language model of chapter 01.)
#
# ### Which range: everything, or the least squared error
#
# The range need not reach as far as the largest number. Of these eight weights one is large. (Under `lightcourse lab` sliders move the grid: make the range narrower, and watch the error in the title.)

# %%
few = torch.tensor([-0.9, -0.6, -0.3, 0.0, 0.3, 0.5, 0.8, 2.1])
plots.number_line_slider(few, bits=3)

# %% [markdown]
# *Figure: one large weight makes the steps so wide that all others share three marks.*
#
# <details><summary>The figure in words</summary>
#
# A line with seven marks, -3 to 3, from -2.1 to 2.1 in steps of 0.7. Eight numbers stand above it, with arrows to their nearest marks. Seven of them lie between -0.9 and 0.8 and share the three marks in the middle; 2.1 has the last mark for itself, and the marks at -2.1, -1.4 and 1.4 are empty. The title gives the squared error in percent.
#
# </details>
#
# How narrow should it be? `choose_qparams_mse` tries a dozen ranges and takes the one with the **least squared error** of these weights (*mse* is the mean squared error). It may also give the unused level to the longer side. At 2 bits that makes four levels of three, so a part of its gain there is that level.

# %%
RANGES = {"full range": choose_qparams_affine, "least squares": choose_qparams_mse}
for name, choose in RANGES.items():
    error = fake_quantize(few, *choose(few, 3, symmetric=True), 3) - few
    print(f"{name:13} squared error {error.square().sum() / few.square().sum():.1%}")

# %% [markdown]
# ### The two choices crossed, on a language model
#
# Now the student's 28 matrices are rounded; its embedding table is not. We judge on three held-out **texts** and divide each perplexity by the dense model's on the same text: 1.0 means that nothing was lost. Where we write that A is better than B, it was so on all three texts, and a cell asserts it.


# %%
tokenizer = models.load_tiny_tokenizer()
learn, held_out = (data.speech_tokens(tokenizer, split) for split in ("validation", "test"))
texts = data.excerpts(held_out, 3)


def ratios(model, start=(1, 1, 1)):
    """Return the perplexity on each of the three texts, divided by what it was at the start."""
    pairs = zip(texts, start, strict=True)
    return [metrics.perplexity(model, text, window=128) / before for text, before in pairs]


whole = ratios(dense)


# %%
def changed(model, bits, choose, who):
    """Return a copy whose matrices are rounded; who shares a scale: tensor, row or groups."""
    model = copy.deepcopy(model)
    for layer in layers.linear_layers(model).values():
        weight = layer.weight.data
        x = quantization.into_groups(weight, 32) if who == "groups" else weight
        qparams = choose(x, bits, symmetric=True, dim=None if who == "tensor" else -1)
        layer.weight.data = fake_quantize(x, *qparams, bits).reshape(weight.shape)
    return model


# %% [markdown]
# First the full range:


# %% rtol=0.03
def crossed(range_name):
    """Print and return the ratios of one range, by sharing and bits."""
    found = {who: {} for who in sharing}
    for who in sharing:
        for bits in (4, 3, 2):
            model = changed(dense, bits, RANGES[range_name], who)
            found[who][bits] = ratios(model, whole)
        told = [f"{bits} bits {fmean(values):.2f}" for bits, values in found[who].items()]
        print(f"{range_name}, {who:7}", ", ".join(told))
    return found


full = crossed("full range")

# %% [markdown]
# With the full range, who shares matters a lot: at 3 bits one scale per tensor multiplies the perplexity by 2.4, groups of 32 by 1.13. The gap is 1.27.
#
# **Predict:** if *both* choose their range by least squares, how much of this gap is left at 3 bits? 90 %, 50 % or 10 %?

# %% rtol=0.03 atol=0.02
guess = ...  # percent
least = crossed("least squares")
gaps = [fmean(line["tensor"][3]) - fmean(line["groups"][3]) for line in (full, least)]
compare(guess, 100 * gaps[1] / gaps[0], "%")
assert gaps[1] < 0.2 * gaps[0]
for bits in (4, 3, 2):
    for tensor, row, groups in zip(*(line[bits] for line in least.values()), strict=True):
        assert tensor > row > groups
    for who in sharing:
        assert all(a < b for a, b in zip(least[who][bits], full[who][bits], strict=True))

# %% [markdown]
# Less than a tenth. The same as a picture, over the real bits of a weight:

# %%
panels = {
    title: {who: {width[who][bits]: line[who][bits] for bits in (4, 3, 2)} for who in sharing}
    for title, line in {"full range": full, "least squares": least}.items()
}
axes = plots.bits_panels(panels, "perplexity, dense = 1")
limits = axes[0].set(ylim=(0.97, 3))

# %% [markdown]
# *Figure: with ranges chosen by least squares, the three ways to share a scale lie close together; with the full range they do not.*
#
# <details><summary>The figure in words</summary>
#
# Two panels with one vertical axis, perplexity divided by the dense model's, from 1 to 3; the horizontal axis is the real bits of a weight, scales included. In each panel three lines, in bands from the best to the worst text. On the left, with the full range, all lines leave the picture at the top, between 2.8 and 3 real bits. On the right, by least squares, all three run close together, from about 1.02 at 4 bits to about 1.1 at 3 bits; at 2 bits they end between 1.4 and 2.1, groups lowest, but at 2.5 real bits.
#
# </details>
#
# - **A good range does nearly all that sharing less does,** and costs no bits: at 3 bits, one scale per tensor loses 16 %, full-range groups 13 % for half a bit more. At 2 bits the range matters far more.
# - **Finer scales still help,** on each text and at each of these widths; at 2 bits a lot. But look along the axis of the right panel: at equal *real* bits none of the three is clearly ahead.
#
# ## 3 · A second model, and what is really stored
#
# ### 8 bits are not always free
#
# Does it hold for MiniLM, the encoder of chapter 00? We ask how far each sentence's embedding turns: 0 degrees is no change, at 90 degrees nothing is left in common.


# %%
minilm, words = models.load_minilm(), models.load_minilm_tokenizer()
reviews = data.load_reviews()["test"].select(range(60))
batches = data.ordered_batches(reviews, words, batch_size=30, max_length=24)
before = models.embed(minilm, batches)


def angles(model):
    """Return the mean angle between old and new embeddings, for three sets of 20 sentences."""
    after = models.embed(model, batches)
    found = torch.cosine_similarity(before, after).clamp(max=1).acos().rad2deg()
    return [found[part::3].mean().item() for part in range(3)]


# %% rtol=0.03
turned = {}
for case in [(8, "tensor"), (8, "row"), (4, "row"), (4, "groups")]:
    turned[case] = [angles(changed(minilm, case[0], way, case[1])) for way in RANGES.values()]
    told = zip(RANGES, map(fmean, turned[case]), strict=True)
    print(case, ", ".join(f"{name} {angle:.1f} degrees" for name, angle in told))
for model in (dense, minilm):
    found = [layer.weight for layer in layers.linear_layers(model).values()]
    print(f"largest weight: {max(w.abs().max() / w.std() for w in found):.0f} standard deviations")
assert min(turned[8, "tensor"][1]) > 3 * max(turned[8, "row"][1])

# %% [markdown]
# On MiniLM a better range is not enough: at 8 bits, one scale per tensor turns the embeddings by 9 degrees even with least squares, one scale per row by less than 2. (Its largest weight is 175 standard deviations large: to keep it ruins the others, to clip it changes the model.) So at 8 bits one scale per row is enough, whatever the range; at 4 bits take **both** remedies, as `quantize_` does.
#
# ### What is information, and what is storage
#
# So far we rounded *floats*, so no model became smaller. `quantize_` stores integers. How many bits for a weight of 3 bits in groups of 32? And what does `dequantize_` bring back?

# %% rtol=0.02
small = copy.deepcopy(dense)
report = quantization.quantize_(small, 3, 32)
print(
    f"{metrics.size_in_bytes(small):,} bytes, {32 - 8 * report.total / weights:.1f} bits a weight"
)
quantization.dequantize_(small)
size, loss = metrics.size_in_bytes(small), fmean(ratios(small, whole))
print(f"dequantized: {size:,} bytes, perplexity {loss:.2f} times dense")

# %% [markdown]
# Three bits do not divide a byte, so they are stored like four: 4.5 with the scale. Their *information* is 3.5 bits. And "dequantizing restores the model" (a tutorial) is wrong: the old size is back, the rounding error stays, because a level does not remember which weights it was made of.
#
# ## 4 · Activations: two separate choices
#
# What flows *into* a layer, its inputs, are called **activations**. If they are integers too, integers can multiply integers (chapter 05). Keep two questions apart:
#
# - **When is the range chosen?** **Static**: beforehand, by running a **calibration** text through the model. **Dynamic**: at each call, from the numbers that come.
# - **Who shares the scale?** All numbers of a call (**per-tensor**), or only those of one token (**per-token**).
#
# Static and per-token do not go together, since nobody knows the tokens beforehand. We compare the three other cases, with weights in floats. (A *hook* is a function that PyTorch calls before a layer; what it returns is what the layer is given.)


# %%
def with_inputs(model, bits, ranges=None, dim=None):
    """Return a copy that rounds each linear layer's inputs; dim=-1 is per token."""
    model = copy.deepcopy(model)
    for name, layer in layers.linear_layers(model).items():

        def rule(layer, inputs, name=name):
            ends = ranges[name] if ranges else quantization.min_max_range(inputs[0], dim)
            qparams = quantization.choose_qparams_affine_with_min_max(*ends, bits)
            return fake_quantize(inputs[0], *qparams, bits)

        layer.register_forward_pre_hook(rule)
    return model


# %% [markdown]
# **Predict:** at 4 bits, which step helps more: from static to dynamic, or from per-tensor to per-token?

# %% rtol=0.03
guess = ...  # "dynamic" or "per-token"
samples = next(iter(data.token_batches(learn, window=128, batch_size=32)(0, 0)))
calibrated = quantization.calibrate(dense, [samples])
cases = {"static, per-tensor": (calibrated,), "dynamic, per-tensor": (None,)}
cases["dynamic, per-token"] = (None, -1)
acts = {}
for name, how in cases.items():
    acts[name] = [ratios(with_inputs(dense, bits, *how), whole) for bits in (8, 4)]
    print(f"{name:20} 8 bits {fmean(acts[name][0]):.2f}, 4 bits {fmean(acts[name][1]):.2f}")
for static, dynamic, token in zip(*(four for _, four in acts.values()), strict=True):
    assert dynamic - token > 3 * (static - dynamic)
gains = {"dynamic": static - dynamic, "per-token": dynamic - token}
compare(guess, max(gains, key=gains.get))

# %% [markdown]
# At 8 bits all three are nearly free. At 4 bits "dynamic" alone gains little; nearly all comes from one scale per token.
#
# And if the hardware wants static ranges? They may leave out the outermost 0.1 % of the calibration's values (`percent=99.9`), or 1 %:

# %% rtol=0.03
clip = {}
for percent in (100, 99.9, 99):
    ranges = quantization.calibrate(dense, [samples], percent=percent)
    clip[percent] = [ratios(with_inputs(dense, bits, ranges), whole) for bits in (8, 4)]
    eight, four = map(fmean, clip[percent])
    print(f"{percent} % of the values kept: 8 bits {eight:.2f}, 4 bits {four:.2f}")
for full_range, most, fewer in zip(*(found[1] for found in clip.values()), strict=True):
    assert most < min(0.8 * full_range, fewer)
assert max(clip[99.9][0]) < 1.04 and min(clip[99][0]) > 1.1

# %% [markdown]
# At 4 bits, leaving out one value in a thousand takes away most of the loss. At 8 bits the same cut changes hardly anything, and cutting 1 % costs a fifth: among 256 levels there is no coarse step to mend. Choose the share by the bits, on a validation text.
#
# ### Calibrated on the wrong thing
#
# Now the ranges come from other texts: random tokens, eight tokens of a speech, one token repeated; three of each. 8 bits, static, full range.
#
# **Predict:** which is worst: "random tokens", "eight tokens" or "one token"?

# %% rtol=0.02
guess = ...  # "random tokens", "eight tokens" or "one token"
torch.manual_seed(0)
ids = samples["input_ids"]
strange = {"speeches": [ids], "random tokens": [torch.randint(2048, ids.shape) for _ in range(3)]}
strange["eight tokens"] = [ids[row : row + 1, :8] for row in range(3)]
strange["one token"] = [ids[row, 0].expand(ids.shape) for row in range(3)]
wrong = {}
for name, draws in strange.items():
    found = [quantization.calibrate(dense, [{"input_ids": tokens}]) for tokens in draws]
    wrong[name] = [ratios(with_inputs(dense, 8, ranges), whole) for ranges in found]
    print(f"{name:14}", ", ".join(f"{fmean(values):.2f}" for values in wrong[name]))
assert max(map(max, wrong["random tokens"])) < 1.015 < 1.05 < min(map(min, wrong["one token"]))
compare(guess, max(wrong, key=lambda name: fmean(map(fmean, wrong[name]))))

# %% [markdown]
# Random tokens calibrated as well as speeches, and eight different tokens nearly so. One repeated token did not: its ranges are likely too narrow.
#
# ### One request, two programs
#
# "int8, dynamic" for MiniLM: torch's default, and ours (one scale per row and per token).

# %% rtol=0.2
# Wide: torch computes otherwise on processors without VNNI.
import warnings

from torch.ao.quantization import quantize_dynamic

warnings.filterwarnings("ignore", message="torch.(ao|quantize)")  # "deprecated", says torch
theirs, ours = quantize_dynamic(copy.deepcopy(minilm), {torch.nn.Linear}), copy.deepcopy(minilm)
report = quantization.quantize_(ours, 8, activations=8)
torch_angles, our_angles = angles(theirs), angles(ours)
print(f"torch {fmean(torch_angles):.1f} degrees, ours {fmean(our_angles):.1f} degrees")
assert min(torch_angles) > 2 * max(our_angles)

# %% [markdown]
# torch's default takes one scale per weight *tensor*, and one range for all tokens of a call. Ask any program for the granularity of both.
#
# In large language models, from about 6.7 billion parameters on, a few input channels are far louder than all others, and 8-bit activations ruin the model unless these are treated apart (LLM.int8, arXiv 2208.07339) or their size is moved into the weights (SmoothQuant, arXiv 2211.10438). Our models are too small to show it.
#
# ## 5 · A bit budget
#
# Layers differ, so they need not have the same bits. Our budget: half of the weights may have 3 bits, the other half 2, in groups of 32. Who gets the third bit?
#
# We measure each matrix's **sensitivity**: round it alone to 2 bits, and see how much the loss rises per weight. That is done on *validation* text; the test texts only judge.

# %%
trial, sensitivity = learn[:4097], {}
start = metrics.cross_entropy(dense, trial, window=128)
for name, layer in matrices.items():
    small = copy.deepcopy(dense)
    report = quantization.quantize_(small, {name: 2}, 32)
    rise = metrics.cross_entropy(small, trial, window=128) - start
    sensitivity[name] = rise / layer.weight.numel()
ranked = sorted(sensitivity, key=sensitivity.get, reverse=True)
print("most sensitive:", sorted(name.removeprefix("model.layers.") for name in ranked[:3]))

# %% [markdown]
# All three stand in the first layer, on which the others build. Spend the budget in this order; the controls are the reversed order, and eight *random* ones.


# %%
def budget(order):
    """Return bits by layer: 3 for the first in order, while half of the weights lasts."""
    room, bits = weights / 2, {}
    for name in order:
        size = matrices[name].weight.numel()
        bits[name] = 3 if size <= room else 2
        room -= size if size <= room else 0
    return bits


orders = {"by sensitivity": ranked, "reversed": ranked[::-1]}
for seed in range(8):
    orders[f"at random, {seed}"] = random.Random(seed).sample([*matrices], len(matrices))

# %% [markdown]
# **Predict:** going from 2 to 3 bits everywhere is 100 % of the gain. We pay for half of the extra bits, and spend them by sensitivity. How many percent of the gain do we get?

# %% rtol=0.05
guess = ...  # percent
plans = {"2 bits": 2, "3 bits": 3} | {name: budget(order) for name, order in orders.items()}
spent = {}
for name, bits in plans.items():
    small = copy.deepcopy(dense)
    report = quantization.quantize_(small, bits, 32)
    spent[name] = ratios(small, whole)
ends = list(zip(spent.pop("2 bits"), spent.pop("3 bits"), strict=True))
gains = {
    name: [(two - a) / (two - three) for a, (two, three) in zip(found, ends, strict=True)]
    for name, found in spent.items()
}
chances = [fmean(run) for name, run in gains.items() if "random" in name]
print(f"at random {min(chances):.0%} to {max(chances):.0%}, {fmean(chances):.0%} on average")
compare(guess, 100 * fmean(gains["by sensitivity"]), "%")

# %%
ax = plots.seed_dots(gains, "share of what 3 bits gain over 2", each="text")
axis = ax.set(xscale="linear", xlim=(0, 1))
for chosen, turned_over, *drawn in zip(*gains.values(), strict=True):
    assert chosen > max(drawn) + 0.02 and min(drawn) > turned_over + 0.02

# %% [markdown]
# *Figure: the order by sensitivity is ahead of the reversed one and of all random ones, and these differ a lot among themselves.*
#
# <details><summary>The figure in words</summary>
#
# Ten rows with three dots each, one for each text, over the share of the gain from 0 to 1. "By sensitivity": all dots near 0.84. "Reversed": 0.15 to 0.2. The eight random rows spread from 0.25 to 0.77; in some of them the three texts differ by more than 0.1.
#
# </details>
#
# Half of the extra bits, by sensitivity, bring about five sixths of the gain; random orders bring three tenths to three quarters. And our file becomes *no smaller* by this plan: it stores 2 and 3 bits in the room of 4.
#
# ## 6 · One job, from end to end
#
# ### GPT-2
#
# Everything together, on a small GPT-2 that was trained on the same speeches. **Predict:** many tutorials call torch's `quantize_dynamic(gpt2, {nn.Linear})`. How many of the 16 matrices in GPT-2's blocks does it convert?

# %%
guess = ...  # a whole number
gpt2 = models.load_tiny_lm("gpt2")
theirs = quantize_dynamic(copy.deepcopy(gpt2), {torch.nn.Linear})
converted = [name for name, m in theirs.named_modules() if "dynamic" in type(m).__module__]
print("torch converted:", converted)
print("ours:", str(quantization.quantize_(copy.deepcopy(gpt2), 8)).splitlines()[0])
compare(guess, sum(name.startswith("transformer.h.") for name in converted))

# %% [markdown]
# None. GPT-2 keeps its matrices in a class of its own, `Conv1D`: a linear layer with its matrix transposed, and no `nn.Linear`. torch converts the output layer alone, and says nothing about the rest. **Read the report of what was changed.**
#
# ### Embeddings
#
# The embedding table, a quarter of all parameters, is also the output layer (chapter 01). torch's function refuses it, though tutorials write it so. Ours wants its bits named: `embeddings=8`.

# %%
try:
    quantize_dynamic(copy.deepcopy(gpt2), {torch.nn.Linear, torch.nn.Embedding})
except AssertionError as error:
    print(error)
small, fresh = copy.deepcopy(gpt2), models.new_tiny_lm("gpt2").eval()
report = quantization.quantize_(small, 8, embeddings=8)
print(f"{metrics.size_in_bytes(gpt2):,} bytes -> {metrics.size_in_bytes(small):,} bytes")
with tempfile.TemporaryDirectory() as folder:
    file = quantization.save_quantized(small, Path(folder, "small.safetensors"))
    report = quantization.load_quantized_(fresh, file)
assert torch.equal(fresh(texts[0][None, :64]).logits, small(texts[0][None, :64]).logits)

# %% [markdown]
# A quarter; saved and loaded again, it is the same model bit for bit. (For torch's function an embedding needs `float_qparams_weight_only_qconfig`.)
#
# ### Prune, recover, and only then quantize
#
# Half of the weights go, the smallest of each matrix. Then 60 steps of training with the masks held (chapter 03). Prune first: rounded weights have only a few sizes, so "the smallest half" can no longer be told. Zeros, once made, stay: 0 is exact on the grid.
#
# The control, *not* pruned, trains for the same 60 steps. Each of the two gets the best of three learning rates, chosen on a part of the validation speeches that neither learned from.


# %%
lessons, judge = data.token_batches(learn[:200_000], 64, batch_size=4), learn[200_000:204_097]
scores, half, best = pruning.magnitude_scores(gpt2), copy.deepcopy(gpt2), {}
report = pruning.prune_(half, pruning.layer_mask(scores, 0.5))


def trained(sparsity, rate):
    """Return a copy that was pruned and trained for 60 steps, and its validation perplexity."""
    model = copy.deepcopy(gpt2)
    with pruning.hold_masks(model, pruning.layer_mask(scores, sparsity)):
        train(model, lessons, Recipe(60, learning_rate=rate, warmup_steps=5))
    return model, metrics.perplexity(model, judge, window=128)


# %% rtol=0.02
for name, sparsity in {"recovered": 0.5, "control": 0.0}.items():
    runs = {rate: trained(sparsity, rate) for rate in (1e-4, 3e-4, 1e-3)}
    best[name] = min(runs.values(), key=lambda run: run[1])[0]
    print(f"{name:9} by rate", {rate: round(found, 1) for rate, (_, found) in runs.items()})

# %% [markdown]
# ## 7 · The ledger
#
# Quality is the perplexity divided by that of the model as trained, the mean of three texts: *lower is better*. Bytes are those of a file: `save_pruned` stores a mask and the values that are left, `save_quantized` the integers. The quantized models round activations to 8 bits, too, per token; 4 bits come in groups of 32.

# %%
entries = {
    "as trained": (gpt2, None),
    "same steps, not pruned": (best["control"], "as trained"),
    "50 % pruned": (half, None),
    "recovered": (best["recovered"], None),
}
for start in ("recovered", "as trained"):
    for bits, group_size in ((8, None), (4, 32)):
        small = copy.deepcopy(entries[start][0])
        report = quantization.quantize_(small, bits, group_size, activations=8, embeddings=8)
        control_of = f"recovered, {bits} bits" if start == "as trained" else None
        entries[f"{start}, {bits} bits"] = small, control_of

# %% clock=true rtol=0.02
ledger, quality, one = metrics.Ledger("perplexity ratio"), {}, texts[0][None, :64]
first, parameters = ratios(gpt2), sum(p.numel() for p in gpt2.parameters())
times = metrics.latencies({name: lambda m=m: m(one) for name, (m, _) in entries.items()})
with tempfile.TemporaryDirectory() as folder:
    for name, (model, control_of) in entries.items():
        integers = layers.integer_layers(model)
        save = quantization.save_quantized if integers else pruning.save_pruned
        size = save(model, Path(folder, "model.safetensors")).stat().st_size
        quality[name] = ratios(model, first)
        count = parameters if name.startswith(("recovered", "same")) else 0
        row = ledger.add(name, size, fmean(quality[name]), count, times[name], control_of)
ledger

# %% [markdown]
# The same as a picture:

# %%
ax = plots.ledger(ledger)
_, control, pruned, recovered, eight, four, _, rival = quality.values()
for text in range(3):
    assert pruned[text] > recovered[text] + 0.03 > control[text] + 0.08
    assert abs(control[text] - 1) < 0.03 and abs(eight[text] / recovered[text] - 1) < 0.01
    assert recovered[text] < four[text] < 1.04 * recovered[text] and rival[text] < 1.04

# %% [markdown]
# *Figure: follow each dotted line down from a method to its control (open circle): same bytes, never pruned, lower perplexity.*
#
# <details><summary>The figure in words</summary>
#
# Perplexity ratio over megabytes stored; lower is better. At 4.5 MB, the model as trained and its control at 1.0. "50 % pruned" and "recovered" stand at 3.0 MB, the first near 1.2, the second near 1.14. At 1.2 and at 0.8 MB stand the recovered model with 8 and with 4 bits, a little higher than "recovered". Their controls, quantized but never pruned, stand at the same bytes close to 1.0.
#
# </details>
#
# - **Training won back about a third** of what pruning cost. It was recovery: the same steps do nothing for the model that was not pruned.
# - **After recovery, 8 bits cost nothing and 4 bits about 1 %,** at a quarter and less than a fifth of the bytes.
# - **The controls are ahead.** Quantized without any pruning, the model has the same bytes and loses next to nothing: our integers store a zero like any other number. Pruning pays only with a format or kernel that skips zeros (chapters 03 and 05). Without these rows the ledger would have praised it.
# - **Latency:** no difference in this column is larger than its ±, so neither zeros nor integers show a gain on so small a model (chapter 05).
#
# One can also *train* on the grid. Rounding is a staircase, and has no slope; `fake_quantize` passes the gradient on as if nothing had been rounded (the **straight-through** estimator, Bengio et al. 2013, arXiv 1308.3432). An exercise recovers a 2-bit model that way.
#
# ## **Spot the bug**
#
# A widely copied tutorial gives this formula for "binary quantization": `sign(w)*floor(abs(w)*2^(b-1))`. Here it is, as it stands there, with b = 4. Find what is wrong before you read on. Which test shows it?


# %%
def binary(w, b=4):
    """Quantize a matrix. (This is the version with the bug.)"""
    return w.sign() * (w.abs() * 2 ** (b - 1)).floor()


def really_binary(w):
    """Keep one bit for each weight, and one scale for each row."""
    return w.abs().mean(dim=1, keepdim=True) * w.sign()


example = torch.tensor([[0.9, -0.5, 0.07, -0.07]])
print("their formula:", binary(example).tolist())
print("times 0.1:    ", binary(example * 0.1).tolist())


# %% [markdown]
# <details><summary>Answer</summary>
#
# There is no **scale**. The step is fixed at 1/8, whatever the numbers are (this is called *fixed point*). The test: multiply the matrix by a constant. With a scale the relative error stays the same; here everything below 1/8 becomes 0, and most trained weights are below 1/8. There is no way **back**: 0.9 became 7. `floor` errs by up to a whole step. And *binary* means 1 bit: a sign, and one scale. $\hat w = \text{mean}(|w|) \cdot \text{sign}(w)$ has the least squared error of these (XNOR-Net, arXiv 1603.05279).
#
# </details>
#
# What does it do to the GPT-2? We help it and divide by 8, so that there is a way back:

# %% rtol=0.03
for name, rule in {"4 bits, no scale": lambda w: binary(w) / 8, "1 bit": really_binary}.items():
    small = copy.deepcopy(gpt2)
    for layer in layers.linear_layers(small).values():
        layer.weight.data = rule(layers.weight_matrix(layer).detach()).T.contiguous()  # Conv1D
    quality[name] = ratios(small, first)
    print(
        f"{name:17} {metrics.sparsity(small):4.0%} zeros, perplexity {fmean(quality[name]):.1f} times"
    )
assert min(quality["4 bits, no scale"]) > 2 * max(quality["1 bit"])

# %% [markdown]
# One bit with a scale beats four bits without one.
#
# ## Summary
#
# - **The grid.** Rounding costs half of a step at most: 0.15 where a step is 0.3. Zero stays exact. One outlier among 1,000 made 997 of the others 0.
# - **Sharing and range.** At 3 bits on the language model, one scale per tensor cost 2.4 times the perplexity, groups of 32 1.13; with least squares 1.16 and 1.07. On MiniLM the range alone was not enough. Use both, and count the scales: "4 bits" in groups of 32 are 4.5.
# - **Activations.** Static or dynamic, per-tensor or per-token are two choices; at 4 bits nearly all depended on the second. Clipping 0.1 % helped greatly at 4 bits and changed hardly anything at 8. One repeated token calibrated badly.
# - **A bit budget.** By sensitivity, half of the extra bits brought five sixths of the gain, random orders three tenths to three quarters.
# - **The job.** torch converted none of GPT-2's blocks. Training recovered a third of what 50 % pruning cost, and 4 bits cost 1 % more; but quantized without pruning the model was as small, and better.
#
# ## Further reading
#
# - Jacob et al. 2017 (arXiv 1712.05877): section 2, the scheme; section 3, training on the grid.
# - Dong et al. 2019, *HAWQ* (arXiv 1905.03696): bits by the curvature of the loss.
# - Frantar et al. 2022, *GPTQ* (arXiv 2210.17323), and Lin et al. 2023, *AWQ* (arXiv 2306.00978): they lower the error of a layer's outputs, not that of its weights.
