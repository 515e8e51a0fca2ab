# %% [markdown]
# # 04 · Linear quantization — from a number line to a model in a few bits, and what each bit costs
#
# **You will be able to**
#
# - put real numbers on a grid of integers with a scale and a zero point, and say beforehand how large the error can get;
# - choose how many weights share a scale, and count the bits that a weight then really takes;
# - decide what a range should cut off, for weights and for activations, and calibrate it on the right text;
# - quantize embeddings, GPT-2 and a pruned model, name what torch and torchao do differently, and give each layer the bits that it needs.
#
# **You need:** chapters 00 and 01. **Time:** 75 minutes of reading; the whole notebook runs in about a minute.
#
# Where a paragraph begins with **Predict**, write down a number before you run the next cell.

# %%
import copy
import random
import tempfile
import warnings
from pathlib import Path

import torch
from torch import nn

import lightcourse
from lightcourse import data, layers, metrics, models, plots, pruning, quantization

lightcourse.setup()

# %% [markdown]
# ## 1 · A number line with eight marks
#
# A weight is stored in 32 bits. We want to spend 3. Three bits can tell $2^3 = 8$ things apart, so we may keep eight real numbers, call them **levels**, and each weight must become one of them. Which eight?
#
# The simplest choice is an even spacing, like the marks of a ruler. That is what *linear* means here. Six numbers, the smallest -0.9, the largest 1.2: seven steps of 0.3 span them. A seventh number, 1.5, comes later, when the ruler is already made.

# %%
ax = plots.number_line(
    [-0.9, -0.35, 0.0, 0.2, 0.5, 1.2, 1.5], scale=0.3, zero_point=-1, quant_min=-4, quant_max=3
)

# %% [markdown]
# *Figure: a line with eight marks. Below each mark stand its integer, -4 to 3, and the real number that it means, -0.9 to 1.2 in steps of 0.3. Above the line seven numbers, each with an arrow to its nearest mark: -0.35 goes to -0.3, 0.2 to 0.3, 0.5 to 0.6; -0.9, 0 and 1.2 stand on a mark already. The 1.5, drawn as an orange square, is beyond the last mark and is moved to 1.2.*
#
# Everything about linear quantization is in this picture. In symbols, for $b$ bits:
#
# $$s = \frac{\text{high} - \text{low}}{2^b - 1}, \qquad z = q_{\min} - \text{round}\Big(\frac{\text{low}}{s}\Big)$$
#
# $$q = \text{clamp}\Big(\text{round}\Big(\frac{x}{s}\Big) + z,\ q_{\min},\ q_{\max}\Big), \qquad \hat x = s\,(q - z)$$
#
# | symbol | identifier | in the picture |
# |---|---|---|
# | $b$ | `bits` | 3, so there are $2^b$ = 8 levels, and $2^b - 1$ = 7 *steps* between them |
# | $s$ | `scale` | the width of a step, 0.3 |
# | $q$ | `q` | the integer that is stored, from $q_{\min} = -2^{b-1}$ to $q_{\max} = 2^{b-1} - 1$ |
# | $z$ | `zero_point` | the integer that stands for 0, here -1 |
# | clamp | `.clamp` | what lies beyond the last mark goes to the last mark |
# | $\hat x$ | `back` | what is read back; the second half of the formula is the *inverse* |
#
# (Jacob et al. 2017, arXiv 1712.05877, section 2.1.) Line by line:

# %%
x = torch.tensor([[-0.9, -0.35, 0.0], [0.2, 0.5, 1.2]])
bits, quant_min, quant_max = 3, -4, 3
scale = (x.max() - x.min()) / (quant_max - quant_min)
zero_point = quant_min - (x.min() / scale).round()
q = ((x / scale).round() + zero_point).clamp(quant_min, quant_max)
back = (q - zero_point) * scale
print(f"scale {scale:.2f}, zero point {zero_point:.0f}, integers {q.int().tolist()}")

# %% [markdown]
# **Predict:** without looking at the numbers, how far can a number between -0.9 and 1.2 be from what is read back, at most?

# %%
print("read back:", [[round(v, 2) for v in row] for row in back.tolist()])
print(f"largest error {(back - x).abs().max():.2f}, half of a step {scale / 2:.2f}")
assert ((back - x).abs() <= scale / 2 + 1e-6).all()

# %% [markdown]
# Nobody is farther from the nearest mark than half the distance of two marks: $|x - \hat x| \le s / 2$, as long as nothing is clamped. The library's functions do the same, and so does torch's `fake_quantize_per_tensor_affine` ("fake" because it rounds and reads back in one go: the result is on the grid, but still made of floats).

# %%
library_scale, library_zero = quantization.choose_qparams_affine(x, bits=3)
library_q = quantization.quantize_affine(x, library_scale, library_zero, bits=3)
assert library_scale == scale and library_zero == zero_point and (library_q == q).all()
assert torch.equal(quantization.dequantize_affine(library_q, library_scale, library_zero), back)
theirs = torch.fake_quantize_per_tensor_affine(x, scale.item(), int(zero_point), -4, 3)
assert torch.allclose(theirs, back)
print("ours, the library's and torch's agree")

# %% [markdown]
# From here on we use the library's. (Its name for `scale` and `zero_point` together is *qparams*.)
#
# Does the bound hold always? **Predict:** 500 random tensors, of 2 to 8 bits, wide and narrow, shifted to the left or right. What is the largest error of all, in *steps*?


# %%
def fake(x, bits, **how):
    """Round x to a grid that just fits it; return the result and the step."""
    scale, zero_point = quantization.choose_qparams_affine(x, bits, **how)
    return quantization.fake_quantize(x, scale, zero_point, bits), scale


worst = 0.0
for case in range(500):
    torch.manual_seed(case)
    x = torch.randn(100) * 10 ** random.uniform(-3, 3) + random.uniform(-2, 2)
    back, scale = fake(x, bits=2 + case % 7)
    worst = max(worst, ((back - x).abs() / scale).max().item())
print(f"the worst of 50,000 errors is {worst:.2f} steps")
assert 0.49 < worst < 0.5 + 1e-3

# %%
axes = plots.staircase(scale=0.3, zero_point=-1, quant_min=-4, quant_max=3)

# %% [markdown]
# *Figure: left, the number that is read back over the real number: a staircase of eight steps around the diagonal, flat at both ends. Right, the error: a saw whose teeth reach from -0.15 to 0.15, half of a step, at two dashed lines; beyond the ends of the grid the error leaves them and grows without limit.*
#
# Two kinds of error, then: **rounding**, at most half of a step, and **clamping**, without a limit. A wider range rounds more coarsely, a narrower one clamps more. Section 3 is about this trade.
#
# ### Zero stays zero
#
# Why is there an integer for 0 at all? We could put the first mark on the smallest number and go on from there, `low + q * step`; many tutorials do. **Predict:** the numbers reach from -1.0 to 1.1, 3 bits, so the step is 0.3 again. What does 0 become?

# %%
x = torch.tensor([-1.0, 0.0, 0.0, 0.0, 1.1])
low, step = x.min(), (x.max() - x.min()) / 7
shifted = low + ((x - low) / step).round() * step
back, scale = fake(x, bits=3)
print("marks from the smallest:", [round(v, 2) for v in shifted.tolist()])
print("with a zero point:      ", [round(v, 2) for v in back.tolist()])
assert back[1] == 0 and shifted[1] != 0

# %% [markdown]
# Zeros are not like other numbers. There are often very many of them (padding, pruned weights, the output of a *ReLU*, which turns every negative number into 0), and all would be wrong by the *same* -0.1, which adds up: a thousand of them make -100. So the grid is shifted until 0 lies on a mark: that is what the rounding in $z$ does. The price is seen at the ends: -1.0 became -0.9, and 1.1 became 1.2.
#
# Because 0 must be on the grid, the range is widened to hold it. If all numbers lie between 20 and 30, the grid starts at 0 nevertheless.
#
# ### Break it: one outlier
#
# A thousand ordinary numbers, 4 bits. Then *one* of them becomes 100. **Predict:** how many of the other 999 are read back as exactly 0?

# %% rtol=0.01
torch.manual_seed(0)
x = torch.randn(1000)
loud = torch.cat([x[:-1], torch.tensor([100.0])])
for name, values in {"as they came": x, "one outlier": loud}.items():
    back, scale = fake(values, bits=4)
    zeros = (back[:-1] == 0).sum()
    error = (back[:-1] - x[:-1]).square().sum() / x[:-1].square().sum()
    print(f"{name:13} step {scale.item():.2f}, {zeros} become 0, error {error:.1%}")

# %% [markdown]
# All but two: the step is 6.9 now, and everything below 3.4 rounds to 0. The error is measured as the squared error divided by the squared numbers: 0 % is perfect, and whoever returns nothing but zeros has 100 %. One number has ruined a thousand. Who *shares* a scale with an outlier is lost: section 2; whether the outlier deserves so much room: section 3.
#
# ### Break it: a constant tensor
#
# **Predict:** all numbers are 0.7. What is `(high - low) / 7`, and what happens next? And what should happen?

# %%
same = torch.full((4,), 0.7)
step = (same.max() - same.min()) / 7
print("by the naive formula:", ((same - same.min()) / step).tolist())
for values in (same, -same, torch.zeros(4)):
    back, scale = fake(values, bits=3)
    print(f"{values[0]:4.1f}: step {scale.item():.1f}, read back {back[0].item():.1f}")
    assert torch.allclose(back, values)
try:
    fake(torch.tensor([1.0, float("nan")]), bits=3)
except ValueError as error:
    print(error)

# %% [markdown]
# 0 / 0 is "not a number", and it spreads: one constant row in a model (a bias that never moved, a dead neuron) and every answer is `nan`. Because our range holds 0, a constant tensor reaches from 0 to its value, and is exact. Only nothing but zeros has an empty range: then any step will do, and the library takes 1.
#
# One more thing for later. To *train* a model on the grid, one needs gradients, and a staircase has none: flat, flat, flat. `fake_quantize` passes the gradient on as if nothing had been rounded (the **straight-through** estimator, Bengio et al. 2013, arXiv 1308.3432), and stops it where a number was clamped:

# %%
x = torch.tensor([-0.35, 0.2, 1.5], requires_grad=True)
quantization.fake_quantize(x, torch.tensor(0.3), torch.tensor(-1), bits=3).sum().backward()
print("gradient:", x.grad.tolist())

# %% [markdown]
# ## 2 · Who shares a scale
#
# ### Symmetric or not
#
# Weights are usually spread evenly around 0. Then one can do without a zero point: $z = 0$ and $s = \max|x| / q_{\max}$. That is called **symmetric**, ours so far **asymmetric**. Symmetric is simpler to multiply with. It wastes one level (with 4 bits, -8 is never used).
#
# **Predict:** 4 bits, and two kinds of numbers: weights, spread evenly around 0; and the output of a ReLU, which has no negative numbers. How much wider is the symmetric step, in each case?

# %%
torch.manual_seed(0)
x = torch.randn(10_000)
for name, values in {"around 0": x, "after a ReLU": x.relu()}.items():
    (even, even_step), (free, free_step) = fake(values, 4, symmetric=True), fake(values, 4)
    error = [(v - values).square().sum() / values.square().sum() for v in (even, free)]
    print(f"{name:12} step {(even_step / free_step).item():.2f} times as wide", end=", ")
    print(f"error {error[0]:.2%} symmetric, {error[1]:.2%} asymmetric")
assert error[0] > 4 * error[1]

# %% [markdown]
# Around 0 there is hardly a difference. After the ReLU the symmetric grid keeps 8 levels for negative numbers that never come: the step is more than twice as wide, and the squared error more than four times as large.
#
# ### Tensor, row, group
#
# A matrix of 4 outputs and 8 inputs; its first row has small weights, its last row large ones. We round it to 3 bits, symmetric, in three ways: one scale for all, one for each row (each output; also called *per channel*), one for each group of 4 neighbours in a row.

# %%
torch.manual_seed(0)
weight = torch.randn(4, 8) * torch.tensor([[0.1], [0.5], [1.0], [2.0]])


def rounded(weight, bits, shared, symmetric=True):
    """Round a matrix; shared is "tensor", "row", or the size of a group."""
    x = weight if isinstance(shared, str) else quantization.into_groups(weight, shared)
    dim = None if shared == "tensor" else -1  # -1: a scale for each row, or each group
    return fake(x, bits, symmetric=symmetric, dim=dim)[0].view_as(weight)


found = {"as it came": weight}
for shared in ("tensor", "row", 4):
    found[f"a scale a {shared if shared != 4 else 'group of 4'}"] = rounded(weight, 3, shared)
axes = plots.weight_maps(found)

# %% [markdown]
# *Figure: the same 4 × 8 weights four times; red and blue are the signs, darker is larger, grey is exactly zero. As it came, the first row is pale and the last dark. With one scale for the whole tensor, the first row is all grey: it is gone. With a scale a row or a group, every row keeps its pattern, with some grey where weights are small beside their neighbours.*
#
# One scale for all, and the first output is dead: each of its weights is below half of a step that the *last* row needs. The finer the scales, the smaller the damage; but each scale must be stored too.
#
# torch has a function for a scale a row too. The same again:

# %%
scale, zero_point = quantization.choose_qparams_affine(weight, 3, symmetric=True, dim=-1)
theirs = torch.fake_quantize_per_channel_affine(weight, scale[:, 0], zero_point[:, 0], 0, -4, 3)
assert torch.allclose(theirs, rounded(weight, 3, "row"))
print("scales:", [round(value, 2) for value in scale.flatten().tolist()])

# %% [markdown]
# **Predict:** a group of 32 weights at 4 bits shares one scale of 16 bits. How many bits is that for a weight? And with a zero point of 4 bits?


# %%
def width(model, bits, shared, symmetric=True):
    """Return the bits of a weight, its share of scales (and zero points) included."""
    found = [layers.weight_matrix(layer) for layer in layers.linear_layers(model).values()]
    sizes = {"tensor": lambda w: w.numel(), "row": lambda w: w.shape[1]}
    scales = sum(w.numel() / sizes.get(shared, lambda w: shared)(w) for w in found)
    each = 16 if symmetric else 16 + bits
    return bits + each * scales / sum(w.numel() for w in found)


dense = models.load_tiny_lm("student")
for bits in (4, 3):
    ways = {"tensor": "tensor", "row": "row", "groups of 32": 32}
    told = [f"{name} {width(dense, bits, shared):.3f}" for name, shared in ways.items()]
    print(f"{bits} bits: {', '.join(told)}, with zero points {width(dense, bits, 32, False):.3f}")

# %% [markdown]
# 4 + 16/32 = 4.5, and 4 + (16 + 4)/32 = 4.625. "4 bits" is never the whole truth.
#
# ### The tiny language model
#
# What does it cost in quality? The tiny *student* of chapter 01, 1.1 million parameters. Its 28 matrices are rounded; its embedding table, which is also its output layer, waits for section 4. One result is an anecdote, so we take three **texts** of 2,048 guesses each, and call them seeds 0, 1 and 2. When we write that A is better than B, it held for all three, and the cell asserts it. Otherwise the word is *inconclusive*.

# %% rtol=0.01
SEEDS = (0, 1, 2)
tokenizer = models.load_tiny_tokenizer()
learn, held_out = (data.speech_tokens(tokenizer, split) for split in ("validation", "test"))
texts = data.excerpts(held_out, len(SEEDS))


def ppl(model):
    """Return the perplexity on each of the three texts."""
    return [metrics.perplexity(model, text, window=128) for text in texts]


whole = ppl(dense)
print("dense:", [round(value, 1) for value in whole])


# %%
def changed(model, rule):
    """Return a copy of a model with each linear layer's matrix changed by a rule."""
    model = copy.deepcopy(model)
    for layer in layers.linear_layers(model).values():
        weight = layers.weight_matrix(layer).data
        weight.copy_(rule(weight))
    return model


# %% [markdown]
# **Predict:** from a perplexity of 28.6, the mean of the three, to …? For 8, 4, 3 and 2 bits; with one scale for each matrix, and with groups of 32.

# %% rtol=0.02
WAYS = {"tensor": ("tensor", True), "row": ("row", True)}
WAYS |= {"groups of 32": (32, True), "groups, asymmetric": (32, False)}
table = {name: {} for name in WAYS}
for name, (shared, symmetric) in WAYS.items():
    for bits in (8, 4, 3, 2):
        small = changed(dense, lambda w, b=bits, s=shared, e=symmetric: rounded(w, b, s, e))
        table[name][bits] = ppl(small)
    means = {bits: round(sum(values) / 3, 1) for bits, values in table[name].items()}
    print(f"{name:18} {means}")

# %%
ax = plots.bits_curves(
    {
        name: {width(dense, bits, *WAYS[name]): values for bits, values in line.items()}
        for name, line in table.items()
    },
    "perplexity",
)
limits = ax.set(ylim=(25, 150))

# %% [markdown]
# *Figure: perplexity, on a logarithmic axis that ends at 150, over the real bits for each weight. Four lines, each in a band that reaches from the best to the worst text. At 8 bits all are at 28.6. Towards fewer bits they part: with rows or groups the lines are still near 29 at 4 bits, with one scale a tensor the line is at 32, at 3 bits at 68, and then leaves the picture; with a scale a row and with groups of 32 it is at 36 and 32, and leaves the picture before 2 bits; asymmetric groups are at 31, and end at 51 with 2 bits (2.6 in truth).*

# %% rtol=0.01
for seed in SEEDS:
    for bits in (2, 3):
        tensor, row, group, free = (line[bits][seed] for line in table.values())
        assert tensor > 1.3 * row and row > group > free
    assert table["tensor"][4][seed] > table["row"][4][seed] > table["groups of 32"][4][seed]
    for line in table.values():
        assert abs(line[8][seed] / whole[seed] - 1) < 0.01
    close = [line[4][seed] for line in list(table.values())[2:]]
    print(f"4 bits, groups, seed {seed}: symmetric {close[0]:.1f}, asymmetric {close[1]:.1f}")

# %% [markdown]
# - **8 bits are free** on this model, however coarse the scales.
# - **The fewer bits, the more the granularity (who shares a scale) matters.** At 3 and at 2 bits, for each of the three texts: tensor, then row, then groups, then asymmetric groups. At 4 bits the first three still hold that order; asymmetric against symmetric groups is *inconclusive* there.
# - Why does a zero point help, although weights are spread around 0? Two likely reasons. A symmetric grid gives up a level: with 2 bits it has only 3 of 4 (-1, 0, 1), and at so few bits one level is a lot. And in a group of only 32, chance alone makes one end longer than the other, so that a range which fits both ends is narrower.
# - Look along the axis, not only up. Groups of 32 with 3 bits (3.5 in truth) lie far below one scale a tensor with the same "3 bits"; the half bit of scales is well spent. Scales are cheap, bits are dear.
#
# ### An encoder: the same accuracy is not the same model
#
# MiniLM, with a logistic regression (a linear classifier) on its embeddings as the head (trained on 240 sentences of reviews, with the unrounded encoder). 210 other sentences judge, as three sets of 70. Besides the accuracy we count **flips** (chapter 01). And we ask how far each embedding turned away from the old one: the **angle** between the two lists of 384 numbers. 0 degrees are no change; 90 degrees have nothing in common.

# %%
from sklearn.linear_model import LogisticRegression

reviews, words = data.load_reviews(), models.load_minilm_tokenizer()
minilm = models.load_minilm()


def sentences(split, count):
    """Return reviews, shortest first (less padding), as batches, and their labels."""
    rows = reviews[split].select(range(count))
    rows = rows.select(sorted(range(count), key=lambda i: len(rows[i]["text"])))
    batches = data.ordered_batches(rows, words, batch_size=30, max_length=24)
    return batches, torch.tensor(rows["label"][:])


# %% [markdown]
# The head is trained once; a changed encoder must do with it. Of its answers and embeddings we ask:

# %%
batches, truth = sentences("train", 240)
head = LogisticRegression(max_iter=1000).fit(models.embed(minilm, batches), truth)
judge, truth = sentences("test", 210)
before = models.embed(minilm, judge)


# %%
def angles(after, before):
    """Return the mean angle, in degrees, of each of three sets of sentences."""
    found = torch.cosine_similarity(before, after).clamp(max=1).acos().rad2deg()
    return [found[seed::3].mean().item() for seed in SEEDS]


def judged(after):
    """Return accuracy, flips, and the angles of new embeddings."""
    old, new = (torch.tensor(head.predict(features)) for features in (before, after))
    return metrics.accuracy(new, truth), metrics.flips(old, new), angles(after, before)


def turned(model):
    """Return the angles of 60 sentences of middle length: three sets of 20, for small checks."""
    return angles(models.embed(model, judge[3:5]), before[90:150])


# %% [markdown]
# **Predict:** on the tiny language model one scale a tensor was free at 8 bits. Here?

# %% rtol=0.02
plan = {"8 bits, tensor": (8, "tensor"), "8 bits, row": (8, "row"), "4 bits, tensor": (4, "tensor")}
plan |= {"4 bits, row": (4, "row"), "4 bits, groups of 32": (4, 32)}
plan |= {"4 bits, groups, asymmetric": (4, 32, False)}
encoder = {"floats": judged(before)}
for name, how in plan.items():
    small = changed(minilm, lambda w, how=how: rounded(w, *how))
    encoder[name] = judged(models.embed(small, judge))
    told = [round(value, 1) for value in encoder[name][2]]
    print(f"{name:26} {width(minilm, *how):.2f} bits a weight, turned by {told} degrees")

# %% atol=0.02
for name, (right, flipped, _) in encoder.items():
    print(f"{name:26} accuracy {right:.3f}, flips {flipped:.1%}")
for seed in SEEDS:
    wide, row, *four = (found[2][seed] for name, found in encoder.items() if name in plan)
    assert wide > 10 > 3 > row and four[0] > 60 > 30 > four[1] > four[2] > wide > four[3]
assert encoder["8 bits, row"][1] < 0.03 < encoder["8 bits, tensor"][1]
assert encoder["4 bits, tensor"][1] > 0.2

# %% [markdown]
# On this model one scale a tensor costs something even at 8 bits (about 7 in 100 answers flipped), and at 4 bits it makes a ruin of it. A scale for each row costs nothing more than a few bytes; it mends nearly all at 8 bits, and much at 4. Look also at the accuracy: give or take 0.06 for 210 sentences, most of these rows cannot be told apart by it. The flips tell the ruin from the rest (one in ten of 210, give or take 4 points); only the angle orders all six.
#
# Why is MiniLM so much more delicate than the tiny model? Look at how far the largest weight of a matrix stands out:

# %%
for name, model in {"tiny model": dense, "MiniLM": minilm}.items():
    found = {n: layers.weight_matrix(layer) for n, layer in layers.linear_layers(model).items()}
    ratios = {n: (w.abs().max() / w.std()).item() for n, w in found.items()}
    ranked = sorted(ratios, key=ratios.get)
    low, high = ratios[ranked[0]], ratios[ranked[-1]]
    print(f"{name:10} largest weight, in standard deviations: {low:.0f} to {high:.0f}")

# %% [markdown]
# One weight that is 175 standard deviations large! Is that the reason? Give the four matrices that have the largest such weights a scale a row, and leave the other 32 with one scale a tensor. And as a control, spare the four with the smallest.
#
# **Predict:** from about 15 degrees to …?

# %% rtol=0.03
for title, spared in {"the four largest": ranked[-4:], "the four smallest": ranked[:4]}.items():
    small = copy.deepcopy(minilm)
    for name, layer in layers.linear_layers(small).items():
        layer.weight.data = rounded(layer.weight.data, 8, "row" if name in spared else "tensor")
    angle = turned(small)
    print(f"{title:17} spared: {[round(value, 1) for value in angle]} degrees")
    assert max(angle) < 7 if spared == ranked[-4:] else min(angle) > 12

# %% [markdown]
# Four matrices of 36 made most of the damage. It is the outlier of section 1 again: a whole matrix pays for one weight, unless few share its scale.
#
# ### What is information, and what is storage
#
# So far we have rounded *floats*: the model was as large as before. `quantize_` really stores integers. **Predict:** how many bits does it take for a weight with `bits=3` and groups of 32? (A byte has 8.)

# %%
plan = {"8 bits, row": (8, None), "4 bits, groups of 32": (4, 32), "3 bits, groups of 32": (3, 32)}
weights = sum(layers.weight_matrix(m).numel() for m in layers.linear_layers(dense).values())
for name, (bits, group_size) in plan.items():
    for symmetric in (True, False):
        small = copy.deepcopy(dense)
        report = quantization.quantize_(small, bits, group_size, symmetric=symmetric)
        stored = 32 - 8 * report.total / weights
        print(f"{name:21} symmetric {symmetric!s:5} {stored:.3f} bits stored for a weight")

# %% [markdown]
# The same for 3 bits as for 4! Three bits do not divide a byte, so they are stored two in a byte, like four: 4.5 with the scale. The *information* is 3.5 bits, and a format that packs eight 3-bit numbers into three bytes could store it so; ours does not. So be careful when you read "3 bits" anywhere: of what? (Zero points, too, take a byte each here, where 4 bits would do; and the scales of 8-bit rows are 32-bit floats.)
#
# `dequantize_` makes floats again. **Predict:** does that bring the old model back? A tutorial promises just this.

# %% rtol=0.01
small = copy.deepcopy(dense)
quantization.quantize_(small, 3, 32)
four = metrics.size_in_bytes(small), ppl(small)
quantization.dequantize_(small)
again = metrics.size_in_bytes(small), ppl(small)
for name, (size, values) in {"integers": four, "floats again": again}.items():
    print(f"{name:12} {size:,} bytes, perplexity {[round(value, 1) for value in values]}")
print(
    f"as it came   {metrics.size_in_bytes(dense):,} bytes, {[round(value, 1) for value in whole]}"
)
assert all(abs(a - b) < 0.01 * b for a, b in zip(four[1], again[1], strict=True))

# %% [markdown]
# The size is back, the quality is not: rounding is not undone. It never can be; many weights became one level, and the level does not remember which. (The perplexity is lower than with the same bits in the table above, because `quantize_` chooses its scales better: section 3 tells how.) So "quantize, dequantize, done" is the worst of both: the old size, and the new error.
#
# ## 3 · What to cut off
#
# ### Weights: a narrower range
#
# So far the range was as wide as the largest number (this choice is called **absmax**). But how many numbers does it serve? One matrix of the tiny model, and two ranges for it: absmax, and the one that holds 99 % of the weights.

# %%
name = "model.layers.0.mlp.down_proj"
weight = layers.weight_matrix(dense.get_submodule(name)).detach()
ranges = {
    "absmax": quantization.min_max_range(weight),
    "99 % of the weights": quantization.percentile_range(weight, 99),
}
ax = plots.clipping(weight, ranges)

# %% [markdown]
# *Figure: a histogram of the weights of one matrix, with a logarithmic axis of counts. Most weights lie in a narrow hill around 0; single ones stand far out on both sides. Two pairs of vertical lines mark two ranges: absmax at the outermost weights, 99 % of the weights at less than half of that.*
#
# Half of the levels of the absmax grid stand where there is hardly anything. A narrower range **clips** a few weights (moves them to the last mark), and gives all others finer steps. Which is better? Just measure both errors, 3 bits, one scale for the matrix, for shares of the full range.
#
# **Predict:** at which share is the sum of both lowest: 0.9, 0.6, or 0.3?

# %%
most = weight.abs().max()
parts = {"rounded": {}, "clipped": {}, "both": {}}
for share in (0.125, 0.18, 0.25, 0.35, 0.5, 0.7, 1.0):
    qparams = quantization.choose_qparams_affine_with_min_max(-share * most, share * most, 3, True)
    error = (quantization.fake_quantize(weight, *qparams, 3) - weight).square()
    outside = weight.abs() > share * most
    for part, chosen in {"rounded": ~outside, "clipped": outside, "both": outside < 2}.items():
        parts[part][share] = (100 * error[chosen].sum() / weight.square().sum()).item()
ax = plots.error_parts(parts)

# %% [markdown]
# *Figure: squared error in percent over the share of the full range, from 1/8 to 1. "Rounded" (dashed) climbs steeply with the range; "clipped" falls from a high value at 1/8 to 0 at 1. Their sum, the solid line, is a valley with its bottom at about a third of the range.*

# %% rtol=0.01
best = min(parts["both"], key=parts["both"].get)
print(f"absmax {parts['both'][1.0]:.1f} %, at a share of {best} {parts['both'][best]:.1f} %")
low, high = quantization.mse_range(weight, 3, symmetric=True)
qparams = quantization.choose_qparams_affine_with_min_max(low, high, 3, symmetric=True)
error = (quantization.fake_quantize(weight, *qparams, 3) - weight).square().sum()
print(f"the library's search finds {100 * error / weight.square().sum():.1f} %")
assert parts["both"][best] < 0.5 * parts["both"][1.0]
assert 100 * error / weight.square().sum() < 1.02 * parts["both"][best]

# %% [markdown]
# The library's `mse_range` does this search: it returns the range with the **least squared** error of those that it tries. Now all 28 matrices, with one scale a tensor and a scale a row, and the perplexity beside the error. The controls: absmax, and a narrow range that leaves out one weight in ten.


# %%
def clipped(choose, bits, dim):
    """Return the perplexities of the model with clipped weights, and each layer's error."""
    errors = []

    def rule(weight):
        qparams = quantization.choose_qparams_affine_with_min_max(
            *choose(weight, bits, dim), bits, True
        )
        new = quantization.fake_quantize(weight, *qparams, bits)
        errors.append(((new - weight).square().sum() / weight.square().sum()).item())
        return new

    return ppl(changed(dense, rule)), errors


# %%
CHOICES = {
    "absmax": lambda w, bits, dim: quantization.min_max_range(w, dim),
    "99 %": lambda w, bits, dim: quantization.percentile_range(w, 99, dim),
    "90 %": lambda w, bits, dim: quantization.percentile_range(w, 90, dim),
    "least squares": lambda w, bits, dim: quantization.mse_range(w, bits, True, dim),
}

# %% [markdown]
# **Predict:** with 3 bits and one scale a tensor, absmax gave a perplexity of 68 (the mean). What is it with the least squares?

# %% rtol=0.02
cut = {}
for bits, dim in [(4, None), (3, None), (3, -1)]:
    print(f"{bits} bits, a scale a {'tensor' if dim is None else 'row'}")
    for name, choose in CHOICES.items():
        cut[bits, dim, name] = found, errors = clipped(choose, bits, dim)
        print(f"  {name:13} error {sum(errors) / 28:5.1%}, {[round(v, 1) for v in found]}")

# %%
for (bits, dim, _), (_, errors) in cut.items():
    assert sum(cut[bits, dim, "least squares"][1]) <= sum(errors)
for bits, dim, better, worse in [
    (4, None, "least squares", "absmax"),
    (4, None, "absmax", "90 %"),
    (3, None, "least squares", "99 %"),
    (3, None, "least squares", "90 %"),
    (3, None, "90 %", "absmax"),
    (3, -1, "90 %", "99 %"),
    (3, -1, "99 %", "absmax"),
]:
    first, second = cut[bits, dim, better][0], cut[bits, dim, worse][0]
    assert all(a < b for a, b in zip(first, second, strict=True))

# %% [markdown]
# The cheapest improvement of this chapter: the same bits, the same bytes, the same speed, and with one scale a tensor the perplexity falls from 68 to 32.6 at 3 bits, by choosing a better range. The least squares have the smallest error each time (they searched for it). And percentiles? With 4 bits, cutting off 1 % is as good as the least squares (which of the two is better is *inconclusive*), and cutting off 10 % is worse than cutting nothing. With 3 bits and the same one scale, cutting 10 % halves the perplexity of cutting nothing, and cannot be told from cutting 1 % (*inconclusive*). With 3 bits and a scale a row, 10 % is far better than 1 %, and close to the least squares. So there is no share that is right everywhere: a percentile guesses one number for everything, least squares look.
#
# `quantize_` uses such a search up to 4 bits; at 8 bits there is nothing to gain. Note what is minimised: the error of the *weights*. The model cares about its *outputs*, and that is not the same. Methods such as GPTQ (arXiv 2210.17323) and AWQ (arXiv 2306.00978) start from there.
#
# ### Activations: dynamic and static
#
# What flows *into* a layer, its inputs, are called **activations**. If they are integers too, integers can multiply integers, which is what makes large batches faster (chapter 05). Two ways to choose their range:
#
# - **dynamic**: look at the numbers as they come, one scale for each token (`activations=8`);
# - **static**: fix a range for each layer beforehand, by running some **calibration** text through the model (`calibrate`, then `activation_ranges=…`). Cheaper at run time, since no range must be found; but the range is a guess about all future inputs.

# %%
samples = next(iter(data.token_batches(learn, 128, 32)(0, 0)))


def with_activations(model, activations=8, ranges=None):
    """Return a copy with 8-bit weights, and the activations quantized."""
    model = copy.deepcopy(model)
    quantization.quantize_(model, 8, activations=activations, activation_ranges=ranges)
    return model


# %% [markdown]
# **Predict:** the tiny model with 8-bit weights: what do 8-bit activations add to the perplexity, dynamic and static? And if the static range holds 99 % of the calibration's values: as helpful as with weights?

# %% rtol=0.01
ways = {"weights only": (None,), "dynamic": (8,)}
ways["static"] = 8, quantization.calibrate(dense, [samples])
ways["static, 99 %"] = 8, quantization.calibrate(dense, [samples], percent=99)
acts = {name: ppl(with_activations(dense, *how)) for name, how in ways.items()}
acts["99 % of weights"] = clipped(CHOICES["99 %"], 8, None)[0]
for name, values in acts.items():
    print(f"{name:15} {[round(value, 1) for value in values]}")

# %%
for seed in SEEDS:
    for name in ("weights only", "dynamic", "static"):
        assert abs(acts[name][seed] / whole[seed] - 1) < 0.015
    assert acts["static, 99 %"][seed] > 1.15 * acts["static"][seed]
    assert acts["static, 99 %"][seed] > 1.15 * acts["99 % of weights"][seed]

# %% [markdown]
# W8A8 (weights of 8 bits, activations of 8 bits) is nearly free, dynamic or static. But cutting off one percent of the *activations* costs a fifth of the perplexity, where one percent of the *weights* was a gain! The last line is the control: the same cut of the weights, also with 8 bits. There it is no gain, for with 256 levels there is no coarse step to mend; but it costs little. So it is the activations: their few large values seem to carry much more than their number suggests. Clipping is a remedy for few bits, and for weights.
#
# ### Calibrated on the wrong thing
#
# **Predict:** which of these calibration texts ruins the static ranges of the tiny model most: random tokens, eight tokens of a speech, or one single token repeated?

# %% rtol=0.01
torch.manual_seed(0)
strange = {
    "speeches": samples["input_ids"],
    "random tokens": torch.randint(2048, (32, 128)),
    "eight tokens": samples["input_ids"][:1, :8],
    "one token, repeated": torch.full((32, 128), int(samples["input_ids"][0, 0])),
}
wrong = {}
for name, tokens in strange.items():
    ranges = quantization.calibrate(dense, [{"input_ids": tokens}])
    wrong[name] = ppl(with_activations(dense, ranges=ranges))
    print(f"{name:20} {[round(value, 1) for value in wrong[name]]}")
for values in zip(*wrong.values(), strict=True):
    assert abs(values[1] / values[0] - 1) < 0.02 and values[3] > 1.04 * values[0]

# %% [markdown]
# Random tokens do no harm: they are nonsense, but *varied* nonsense, and reach as far as speeches do. What hurts is a text that shows too little: its ranges are too narrow, and real inputs are clamped. The same on MiniLM, whose static ranges are calibrated on reviews, on texts about countries (the CIA's factbook), and on the single word "good":

# %%
country, review = (
    next(iter(data.text_batches(rows["train"], words, 32, 24)(0, 0)))
    for rows in (data.load_factbook(), reviews)
)
word = words(["good"], return_tensors="pt")
word = {name: word[name] for name in ("input_ids", "attention_mask")}
static = {"dynamic": turned(with_activations(minilm))}
for name, batch in {"reviews": review, "countries": country, "one word": word}.items():
    ranges = quantization.calibrate(minilm, [batch])
    static[name] = turned(with_activations(minilm, ranges=ranges))

# %%
for name, values in static.items():
    print(f"{name:10} about {sum(values) / 3:.0f} degrees")
for dynamic, own, other, least in zip(*static.values(), strict=True):
    assert dynamic < own < least - 1 and abs(own - other) < 1

# %% [markdown]
# Dynamic, with a scale for each token, is best; calibrated on one word is worst; and the "wrong domain", countries instead of reviews, is as good as the right one *here*. Both kinds of text seem to reach about as far. Do not rely on it: a model that meets code, another language, or much longer texts may well leave the ranges. Calibrate on what you will run.
#
# ### Outliers, real and SYNTHETIC
#
# Large language models have a few input channels that are far louder than all others, and the larger the model, the worse: from about 6.7 billion parameters on, 8-bit activations ruin it (LLM.int8, arXiv 2208.07339). Ours? For each input of each layer, its norm over the calibration text (the root of the sum of squares), compared with the median of the layer:

# %%
for name, model, batch in [("tiny model", dense, samples), ("MiniLM", minilm, review)]:
    norms = pruning.input_norms(model, [batch]).values()
    loudest = max((norm.max() / norm.median()).item() for norm in norms)
    print(f"{name}: the loudest input is {loudest:.0f} times the median")

# %% [markdown]
# Mild, and W8A8 is nearly free on the tiny model. MiniLM's are louder, and it costs a little there. To see what the large models suffer from we must *imitate* it: multiply two channels of the two norms in each layer of the tiny model by 100, and divide by 100 the weights that read them. The function stays the same.
#
# **Predict:** what happens to the floats, to 8-bit weights, and to W8A8?

# %%
synthetic = copy.deepcopy(dense)
for block in synthetic.model.layers:
    attention, mlp = block.self_attn, block.mlp
    for norm, readers in [
        (block.input_layernorm, (attention.q_proj, attention.k_proj, attention.v_proj)),
        (block.post_attention_layernorm, (mlp.gate_proj, mlp.up_proj)),
    ]:
        norm.weight.data[[5, 77]] *= 100
        for reader in readers:
            reader.weight.data[:, [5, 77]] /= 100
loud = {"floats": ppl(synthetic)}
loud |= {n: ppl(with_activations(synthetic, k)) for n, k in {"weights": None, "W8A8": 8}.items()}

# %% rtol=0.02
for name, values in loud.items():
    print(f"SYNTHETIC outliers, {name:7} {[round(value, 1) for value in values]}")
for plain, floats, light, both in zip(whole, *loud.values(), strict=True):
    assert abs(floats / plain - 1) < 0.001 and abs(light / plain - 1) < 0.02 and both > 1.1 * plain

# %% [markdown]
# With two loud channels a token's scale serves those two, and the other 126 get what is left of the grid. There are two known cures. LLM.int8 computes the few loud channels apart, in 16 bits. SmoothQuant (arXiv 2211.10438) divides the loud channels by a factor and multiplies the weights that read them: our imitation, run backwards.
#
# ## 4 · Practice
#
# ### Embeddings
#
# Chapter 00's surprise: the embedding table is half of MiniLM, and `quantize_` leaves it alone unless it is told not to (`embeddings`). A table is only looked up: no multiplication, no kernel. **Predict:** with 8-bit linear layers the embeddings turn by about 2 degrees. By how much if the tables go to 8 bits, to 4 bits with a scale a row, to 4 bits in groups of 32?

# %%
tables = [n for n, m in minilm.named_modules() if isinstance(m, nn.Embedding)]
found = {}
for name, how in {"linear 8": {}, "linear 8, tables 8": {"embeddings": 8}}.items():
    small = copy.deepcopy(minilm)
    quantization.quantize_(small, 8, **how)
    found[name] = metrics.size_in_bytes(small), turned(small)
for name, group_size in {"tables 4, a scale a row": None, "tables 4, groups of 32": 32}.items():
    small = copy.deepcopy(minilm)
    quantization.quantize_(small, dict.fromkeys(tables, 4), group_size)
    quantization.quantize_(small, 8)
    found[name] = metrics.size_in_bytes(small), turned(small)

# %% rtol=0.03
print(f"{'as it came':24} {metrics.size_in_bytes(minilm):>10,} bytes")
for name, (size, values) in found.items():
    print(f"{name:24} {size:>10,} bytes, degrees {[round(value, 1) for value in values]}")
for linear, eight, coarse, fine in zip(*(values for _, values in found.values()), strict=True):
    assert abs(linear - eight) < 0.5 and linear + 1 < fine < coarse - 2

# %% [markdown]
# From 90 MB to 23 at 8 bits everywhere, for next to nothing. At 4 bits the same lesson again: groups cost far less than a scale a row. (A dict as `bits` names single layers; what is not in it stays. So the tables were quantized first and the linear layers in a second call.)
#
# In torch's own dynamic quantization, passing `nn.Embedding` along with `nn.Linear` fails, although tutorials write it so:

# %%
warnings.filterwarnings("ignore", message="torch.(ao|quantize)")  # "deprecated", says torch
from torch.ao.quantization import float_qparams_weight_only_qconfig, quantize_dynamic

try:
    quantize_dynamic(copy.deepcopy(minilm), {nn.Linear, nn.Embedding})
except AssertionError as error:
    print(error)
how = {nn.Embedding: float_qparams_weight_only_qconfig}
fixed = quantize_dynamic(copy.deepcopy(minilm), how)
print(type(fixed.embeddings.word_embeddings))

# %% [markdown]
# A tied table (chapter 01) is the output layer too. In the tiny model both then share one set of integers:

# %% rtol=0.01
small = copy.deepcopy(dense)
quantization.quantize_(small, 4, 32, embeddings=8)
table_layer, output = small.model.embed_tokens, small.lm_head
assert table_layer.qweight.data_ptr() == output.qweight.data_ptr()
print([type(layer).__name__ for layer in (table_layer, output)])
print(f"{metrics.size_in_bytes(dense):,} bytes -> {metrics.size_in_bytes(small):,}", end=", ")
print(f"perplexity {[round(value, 1) for value in ppl(small)]}")
with tempfile.TemporaryDirectory() as folder:
    file = Path(folder, "small.safetensors")
    quantization.save_quantized(small, file)
    fresh = models.new_tiny_lm("student").eval()
    quantization.load_quantized_(fresh, file)
assert torch.equal(fresh(texts[0][None, :64]).logits, small(texts[0][None, :64]).logits)

# %% [markdown]
# A sixth of the size, and saved and loaded again it is the same model bit for bit.
#
# ### GPT-2
#
# A small GPT-2 with random weights. **Predict:** how many layers does torch's `quantize_dynamic(model, {nn.Linear})` convert? Then see what ours says.

# %%
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Model

config = GPT2Config(n_layer=2, n_embd=64, n_head=2, vocab_size=512, n_positions=64)
made = torch.ao.nn.quantized.dynamic.Linear
for kind in (GPT2Model, GPT2LMHeadModel):
    gpt2 = kind(config)
    theirs = quantize_dynamic(copy.deepcopy(gpt2), {nn.Linear})
    converted = [name for name, m in theirs.named_modules() if isinstance(m, made)]
    print(f"{kind.__name__}: torch converted {len(converted)} layers {converted}", end=", ")
    print("ours:", str(quantization.quantize_(gpt2, 8)).splitlines()[0])

# %%
print("GPT-2's layers:", {type(m).__name__ for n, m in kind(config).named_modules() if "c_" in n})
try:
    quantization.quantize_(nn.Sequential(nn.LayerNorm(4), nn.GELU()), 8)
except ValueError as error:
    print(error)

# %% [markdown]
# GPT-2 keeps its weights in a class of its own, `Conv1D`, which is a linear layer with its matrix transposed, and not an `nn.Linear`. So torch finds nothing, returns the model as it was, and says nothing; whoever then measures "no loss of quality" has measured nothing at all. (The form with a language-model head has one `nn.Linear`, the output layer. torch converts that one, though it shares its weight with the table of embeddings, which stays as it is.) Ours converts `Conv1D`, and where nothing was converted it raises. **Always read the report of what was changed.**
#
# ### A model that was rounded before
#
# The SmolLM2 that this course can load had been rounded to 4 bits before we got it (`help(models.load_smollm2)`). So what would a test of 4-bit quantization on it tell? First, how many different numbers are there in a group of 32 neighbours?

# %%
smollm2 = models.load_smollm2(torch.bfloat16)
matrices = {
    "SmolLM2": smollm2.model.layers[15].self_attn.o_proj.weight.detach().float(),
    "MiniLM": layers.weight_matrix(minilm.encoder.layer[2].intermediate.dense).detach(),
    "tiny model": layers.weight_matrix(dense.get_submodule("model.layers.2.mlp.up_proj")).detach(),
}
smollm2 = None
groups = {name: quantization.into_groups(w[:384], 32).flatten(0, 1) for name, w in matrices.items()}
for name, rows in groups.items():
    most = max(len(row.unique()) for row in rows)
    print(f"{name:10} at most {most} different numbers in a group of 32")

# %% [markdown]
# 16, which is $2^4$. Now round all three to 4 bits in groups of 32: with our grid, on which 0 is exact, and with a grid that begins at the smallest number, `low + q * step` (as in SmolLM2's file format, Q4_1).
#
# (From here on *error* is the length of the difference over the length of the weights: the square root of the measure of section 1. 10 % here were 1 % there.)
#
# **Predict:** on which of the six is the error smallest?


# %%
def from_the_smallest(rows, bits):
    """Round each row to levels from its smallest number to its largest."""
    low, high = quantization.min_max_range(rows, dim=-1)
    step = (high - low) / (2**bits - 1)
    return low + ((rows - low) / step).round() * step


# %% rtol=0.02
again = {}
for name, rows in groups.items():
    for bits in (4, 3):
        grids = {"ours": fake(rows, bits, dim=-1)[0], "theirs": from_the_smallest(rows, bits)}
        for grid, new in grids.items():
            again[name, bits, grid] = ((new - rows).norm() / rows.norm()).item()
        told = [f"{grid} {again[name, bits, grid]:.1%}" for grid in grids]
        print(f"{name:10} {bits} bits: error {', '.join(told)}")
assert again["SmolLM2", 4, "theirs"] < 0.05 * again["MiniLM", 4, "theirs"]
assert abs(again["SmolLM2", 3, "theirs"] / again["MiniLM", 3, "theirs"] - 1) < 0.15

# %% [markdown]
# Rounded a second time to the *same* grid, next to nothing happens (0.1 %, which comes from its 16-bit floats): the other models lose 8 %, this one seems to lose nothing, because the damage was done before. On another grid of as many levels, or with 3 bits, SmolLM2 is a model like any other. So a 4-bit result on it is either too good to be true or a rounding on top of a rounding, never what 4 bits cost. That is why this chapter makes its claims on the tiny model and on MiniLM. Ask of every model you load: **what was done to it before?**
#
# ### The same request, to torch and to torchao
#
# Eight-bit weights and eight-bit dynamic activations for MiniLM, by several programs. `quantize_dynamic` is torch's old one (torchao is to replace it), once as it comes and once with its option for a scale for each row. The control, torchao with 8-bit weights and float activations, shows what is due to the weights.
#
# **Predict:** all say "int8, dynamic". Do they have the same error?

# %%
from torch.ao.quantization import per_channel_dynamic_qconfig
from torchao.quantization import Int8DynamicActivationInt8WeightConfig, Int8WeightOnlyConfig
from torchao.quantization import quantize_ as torchao_quantize_

peers = {name: copy.deepcopy(minilm) for name in ("torchao, weights", "torchao", "ours")}
torchao_quantize_(peers["torchao, weights"], Int8WeightOnlyConfig())
torchao_quantize_(peers["torchao"], Int8DynamicActivationInt8WeightConfig())
quantization.quantize_(peers["ours"], 8, activations=8)
peers["torch"] = quantize_dynamic(copy.deepcopy(minilm), {nn.Linear})
by_row = {nn.Linear: per_channel_dynamic_qconfig}
peers["torch, a scale a row"] = quantize_dynamic(copy.deepcopy(minilm), by_row)
programs = {name: turned(model) for name, model in peers.items()}

# %% rtol=0.2
# So wide a tolerance because of torchao: 5.1 degrees where a processor has no VNNI.
for name, values in programs.items():
    print(f"{name:20} about {sum(values) / 3:.1f} degrees")
for weights_only, ao, ours, theirs, per_row in zip(*programs.values(), strict=True):
    assert weights_only < min(ao, ours) and abs(ao - ours) < 1.5
    assert 2 * max(ao, ours) < per_row < theirs - 3

# %% [markdown]
# torchao and ours nearly agree: both take a scale for each row of the weights and for each token. torch's default loses several times more. Where? Its answer for one layer can be rebuilt by hand: **one** scale for the whole weight; **one** range for *all* tokens of a batch; and for the activations only 7 of the 8 bits (`reduce_range`, a precaution for older processors, whose sums of products could overflow).

# %% rtol=0.02
layer = minilm.encoder.layer[1].intermediate.dense
inputs = before[:30]
y = quantize_dynamic(nn.Sequential(layer), {nn.Linear})(inputs)
weight_scale = layer.weight.detach().abs().max() / 127.5
w = (layer.weight.detach() / weight_scale).round().clamp(-128, 127) * weight_scale
x_scale, x_zero = quantization.choose_qparams_affine(inputs, bits=7)
x = quantization.fake_quantize(inputs, x_scale, x_zero, bits=7)
by_hand = nn.functional.linear(x, w, layer.bias)
exact = layer(inputs)
print(f"torch {((y - exact).norm() / exact.norm()).item():.1%} off", end=", ")
print(f"rebuilt by hand {((by_hand - exact).norm() / exact.norm()).item():.1%}")
assert (y - by_hand).norm() < 0.1 * (y - exact).norm()

# %% [markdown]
# So "int8 dynamic" is not one method. Ask for the granularity of the weights, that of the activations, and the bits that are really used.
#
# ### Pruned and quantized
#
# Half of the weights of the tiny model are set to zero, the smallest of each matrix (chapter 03), and what is left takes 3 bits in groups of 32. **Predict:** does the order matter? And before any pruning: what share of the weights does 3-bit rounding make zero all by itself?


# %%
def prune(model):
    """Return a copy without the smaller half of each matrix."""
    model = copy.deepcopy(model)
    pruning.prune_(model, pruning.layer_mask(pruning.magnitude_scores(model), 0.5))
    return model


def to_three(model):
    """Return a copy with 3-bit weights in groups of 32."""
    return changed(model, lambda w: rounded(w, 3, 32))


orders = {"pruned": prune(dense), "3 bits": to_three(dense)}
orders["pruned, then 3 bits"] = to_three(orders["pruned"])
orders["3 bits, then pruned"] = prune(orders["3 bits"])

# %% rtol=0.02
quality = {name: ppl(model) for name, model in orders.items()}
for name, values in quality.items():
    zeros = metrics.sparsity(orders[name])
    print(f"{name:20} {zeros:4.0%} zeros, {[round(value, 1) for value in values]}")
for pruned, light, first, last in zip(*quality.values(), strict=True):
    assert max(pruned, light) < first < 0.92 * last

# %% [markdown]
# Prune first. After rounding, at most four different sizes are left in a group (0 to 3 steps), and "the smallest half" can no longer see which of them mattered less. The other way round no zero is lost: 0 is exact (the reason why section 1 insisted on it). And rounding alone made 31 % zeros: the two methods take partly the same weights. (`quantize_` enforces this order: it leaves no float matrix behind that could be pruned.)
#
# ## 5 · Bits where they are needed
#
# Why the same number of bits everywhere? Layers differ. **Adaptive** quantization gives each layer bits by its *sensitivity*, within a budget.
#
# First a wrong version, from a tutorial's "adaptive quantization". It keeps numbers in range by taking them *modulo* the number of levels. **Predict:** with steps of 0.1 and 10 levels, what becomes of 0.7, 0.9, 1.1 and 1.3?

# %%
x = torch.tensor([0.7, 0.9, 1.1, 1.3])
modulo = (x / 0.1).round() % 10 * 0.1
print("modulo:", [round(v, 1) for v in modulo.tolist()])
clamp = (x / 0.1).round().clamp(max=9) * 0.1
print("clamp: ", [round(v, 1) for v in clamp.tolist()])
assert (clamp.diff() >= 0).all() and not (modulo.diff() >= 0).all()

# %% [markdown]
# The order is destroyed: 1.1, a large weight, becomes a small one. Clamping is wrong too, but only as much as it must be. And nothing adapts to anything. This does:
#
# Round one matrix to 2 bits, leave all others as they are, and see how much the loss rises, on a validation text (so that the test texts judge the choice and do not make it). Budget: half of the weights may have 3 bits, the other half 2. The matrices that lose most for each of their weights get the 3. (We count *information* here. Our own file keeps 2 and 3 bits in the room of 4, section 2, so all these models have the same bytes; a format that packs them tighter is needed to cash this in. And the scales of groups of 32 add half a bit: 2.5 is 3.0.)
#
# **Predict:** which part of the model is the most sensitive: the beginning, the middle, or the end?

# %%
trial = learn[:1025]
start = metrics.cross_entropy(dense, trial, window=128)
sensitivity, matrices = {}, layers.linear_layers(dense)
for name in matrices:
    small = copy.deepcopy(dense)
    quantization.quantize_(small, {name: 2}, 32)
    rise = metrics.cross_entropy(small, trial, window=128) - start
    sensitivity[name] = rise / matrices[name].weight.numel()
ranked = sorted(sensitivity, key=sensitivity.get, reverse=True)
assert all(".layers.0." in name for name in ranked[:4])
print("most sensitive: ", [name.removeprefix("model.layers.") for name in ranked[:4]])
print("least sensitive:", [name.removeprefix("model.layers.") for name in ranked[-2:]])

# %% [markdown]
# The beginning: the four most sensitive matrices all belong to the very first layer, on which everything later builds. But so do the two *least* sensitive, its queries and keys. Only trying told. Now spend the budget: by sensitivity; and as controls in the reversed order, and at random three times. The two ends, 2 bits and 3 bits for all, stand beside them.
#
# **Predict:** 2.5 bits lie halfway between 2 and 3. Does the perplexity?


# %%
def budget(order, low=2, high=3):
    """Return bits by layer: high for the first in order, while half of the weights lasts."""
    room, bits = weights / 2, {}
    for name in order:
        size = matrices[name].weight.numel()
        bits[name] = high if size <= room else low
        room -= size if size <= room else 0
    return bits


def mixed(bits):
    """Return the perplexities with bits by layer, or the same for all."""
    small = copy.deepcopy(dense)
    quantization.quantize_(small, bits, 32)
    return ppl(small)


# %% atol=0.02
plans = {"2 bits": 2, "by sensitivity": budget(ranked), "reversed": budget(ranked[::-1])}
for seed in SEEDS:
    plans[f"at random, {seed}"] = budget(random.Random(seed).sample(ranked, len(ranked)))
plans["3 bits"] = 3
spent = {name: mixed(bits) for name, bits in plans.items()}
ax = plots.seed_dots(spent, "perplexity")
scale = ax.set_xscale("linear")
for two, chosen, turned_over, *chances, three in zip(*spent.values(), strict=True):
    assert two > turned_over > max(chances) and min(chances) > chosen > three
    gain = [(two - other) / (two - three) for other in (chosen, turned_over)]
    print(f"of what 3 bits gain: {gain[0]:.0%} by sensitivity, {gain[1]:.0%} reversed")
    assert gain[0] > 0.7

# %% [markdown]
# *Figure: seven rows with three dots each, one a seed, over an axis of perplexity. 2 bits everywhere: 35 to 50. By sensitivity: 28 to 40. Reversed: 34 to 47. Three random choices in between. 3 bits everywhere: 27 to 37, a little left of "by sensitivity".*
#
# Half of the extra bits buy more than 70 % of the gain, if they go where they are needed; the same bits in reversed order buy little. (HAWQ, arXiv 1905.03696, ranks layers by the curvature of the loss instead of trying each.) The dict from layer to bits is exactly what `quantize_` takes. A warning, too: *mixing* is not better by itself. The same budget as 3 bits everywhere, spent as 4 for half of the weights and 2 for the others:

# %% rtol=0.02
halves = mixed(budget(ranked, 2, 4))
for mix, same in zip(halves, spent["3 bits"], strict=True):
    print(f"2 and 4 bits {mix:.1f}, 3 bits for all {same:.1f}")
    assert mix > same
bits = budget(ranked, 2, 4)
mean = sum(bits[name] * matrices[name].weight.numel() for name in matrices) / weights
print(f"mean bits {mean:.2f}")

# %% [markdown]
# A loss for each text, though for two of them a small one; no gain, at any rate. The table of section 2 tells why: the step from 2 to 3 bits is worth much more than that from 3 to 4, so taking a bit away costs more than giving one brings.
#
# ## **Spot the bug**
#
# This function stands in tutorials under the name "binary quantization". It runs, it is short, and for this matrix its result even looks fine. Its name is wrong, and so is something that makes it useless for real weights. Which test shows that?


# %%
def binary(weight, bits=4):
    """Quantize a matrix. (This is the version with the bug.)"""
    levels = 2 ** (bits - 1)
    return weight.sign() * (weight.abs() * levels).floor() / levels


torch.manual_seed(0)
weight = torch.rand(64, 64) * 2 - 1
error = (binary(weight) - weight).norm() / weight.norm()
print(f"error below 15 %: {bool(error < 0.15)}")

# %% [markdown]
# Find it before you read on.
#
# <details><summary>Answer</summary>
#
# There is no scale. The step is fixed at 1/8, whatever the numbers are: this is *fixed point*, and it fits numbers between -1 and 1 by luck. Nor is there a clamp: watch "times 10" below. Its error of 1 % is no triumph: the function then returns about 160 different values, and 4 bits hold 16. Weights of a trained model are often around 0.05. The test that tells: multiply the matrix by a constant. A quantizer with a scale makes the same relative error; this one does not. (`floor` is one more blemish: it always rounds towards 0, so that everything becomes smaller, and its error is up to a whole step instead of half of one.)
#
# And *binary* means 1 bit: two levels. The right binary quantization keeps the sign and one scale, $\hat w = \text{mean}(|w|) \cdot \text{sign}(w)$ (XNOR-Net, arXiv 1603.05279): no other scale has a smaller squared error.
#
# </details>

# %% rtol=0.02
for factor in (1, 0.05, 10):
    scaled = weight * factor
    error = [(f(scaled) - scaled).norm() / scaled.norm() for f in (binary, lambda w: fake(w, 4)[0])]
    print(f"times {factor:4}: error {error[0]:.0%}, with a scale {error[1]:.1%}")
assert error[1] < 0.1
real = layers.weight_matrix(dense.get_submodule("model.layers.2.mlp.up_proj")).detach()
zeros = (binary(real) == 0).float().mean()
one_bit = real.abs().mean() * real.sign()
print(
    f"a real matrix: {zeros:.0%} become 0, error {(binary(real) - real).norm() / real.norm():.0%}"
)
print(f"really binary, 1 bit: error {(one_bit - real).norm() / real.norm():.0%}")
assert (one_bit - real).norm() < (binary(real) - real).norm()

# %% [markdown]
# ## What papers say, and what we measured
#
# | the paper says | we measured | same ordering? |
# |---|---|---|
# | integers with a scale and a zero point keep 0 exact (arXiv 1712.05877) | 0 is read back as 0, and without a zero point as -0.1; equal to torch's; the worst of 50,000 errors 0.50 steps | yes |
# | LLaMA-2-7B, rounded to nearest in groups of 128: 5.47, then 5.73 with 4 bits, 6.66 with 3 (arXiv 2306.00978) | tiny model, asymmetric groups of 32: 28.6, then 29.0 and 31.0 | yes: 4 bits cost little, 3 bits clearly more |
# | outliers ruin W8A8 in large models (LLM.int8, arXiv 2208.07339; SmoothQuant, arXiv 2211.10438) | W8A8 is nearly free on the tiny model and costs MiniLM a little; only SYNTHETIC outliers break it | does not show at our size |
# | layers differ in sensitivity, so give them different bits (HAWQ, arXiv 1905.03696) | better than random and than reversed at 2.5 bits; but 4 and 2 bits lost to 3 for all | partly |
# | binary weights are a sign and a scale (arXiv 1603.05279) | 1 bit with a scale beat 4 bits without one, on one real matrix (error 61 % against 67 %; no seeds) | their formula used; their accuracies not tested |
#
# (Theirs are their own models, texts and tokenizers. The columns cannot be compared with each other, only the orderings in them.)
#
# ## Summary
#
# - **The grid.** Scale, zero point, round, clamp, and back. Rounding costs half of a step at most: of 50,000 errors the worst was 0.50 steps. Zero is exact. One outlier among 1,000 made 997 of the other 999 zero.
# - **Who shares a scale.** 8 bits are free on the tiny model, and on MiniLM with a scale a row. At 3 bits: 68 with one scale a tensor, 36 a row, 32 in groups of 32, 31 in asymmetric groups. "4 bits" in groups of 32 are 4.5; "3 bits" stored two in a byte are 4.5, too.
# - **What to cut off.** Weights at 3 bits, one scale: from 68 to about 33 by a better range alone. Of activations at 8 bits, cutting 1 % costs a fifth. Here a calibration text had to be varied, more than to be right.
# - **Practice.** MiniLM with its tables: 90 MB to 23. torch converted 0 layers of GPT-2 and said nothing; its int8 default turned MiniLM's embeddings by 20 degrees, torchao and ours by less than 5. Prune first, then quantize. At 2.5 bits of information (scales not counted), bits by sensitivity gave more than 70 % of what 3 bits gain over 2.
#
# ## Further reading
#
# - Jacob et al. 2017, *Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference* (arXiv 1712.05877): section 2, the scheme; section 3, training on the grid.
# - Frantar et al. 2022, *GPTQ* (arXiv 2210.17323): rounding that makes up for its own errors.
# - Lin et al. 2023, *AWQ* (arXiv 2306.00978): scaling the weights that matter, before rounding.
# - Dettmers et al. 2022, *LLM.int8()* (arXiv 2208.07339), and Xiao et al. 2022, *SmoothQuant* (arXiv 2211.10438): outliers, and two cures.
# - Esser et al. 2019, *Learned Step Size Quantization* (arXiv 1902.08153): the scale as a parameter that is trained.
# - Dettmers et al. 2023, *QLoRA* (arXiv 2305.14314): four bits that are not evenly spaced, and LoRA beside them.
