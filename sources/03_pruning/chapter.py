# %% [markdown]
# # 03 · Pruning — which weights may go, what brings a model back, and why zeros alone save nothing
#
# **You will be able to**
#
# - score weights in four ways, and say which weights are compared with each other: those of the whole model, of a layer, of a row, n of m;
# - find the layers that must be spared, and put the zeros elsewhere;
# - train a pruned model without refilling its zeros, beside a control that shows what the training itself did;
# - turn zeros into bytes and into time, and measure the sparsity from which that pays.
#
# **You need:** chapter 01. Section 4 uses LoRA, which chapter 00 introduced. **Time:** about 90 minutes to read; the whole notebook runs in about a minute and a half.
#
# Where a paragraph begins with **Predict**, write down a number before you run the next cell.

# %%
import copy
import gzip
import math
import tempfile
import warnings
from functools import partial
from pathlib import Path

import torch

import lightcourse
from lightcourse import data, kernels, layers, lora, metrics, models, panels, plots, pruning
from lightcourse.training import Recipe, train

lightcourse.setup()

# %% [markdown]
# ## 1 · A score and a mask
#
# Pruning a matrix takes two decisions. A **score** says how much each weight matters; the simplest is its size, $|w|$ (`magnitude_scores`). A **mask** says which weights are kept (True). It needs a second choice: which scores are compared with each other.
#
# Here is one matrix of 4 outputs and 8 inputs. In each picture half of its weights are removed.

# %%
torch.manual_seed(0)
weight = torch.randn(4, 8) * torch.tensor([[0.3], [1.0], [1.0], [2.0]])
scores = weight.abs()
masks = {
    "at random": pruning.layer_mask(torch.rand(4, 8), 0.5),
    "smallest of the layer": pruning.layer_mask(scores, 0.5),
    "smallest of each row": pruning.row_mask(scores, 0.5),
    "2 of 4": pruning.n_of_m_mask(scores, 2, 4),
}
axes = plots.weight_maps({"as it came": weight} | {name: weight * m for name, m in masks.items()})

# %% [markdown]
# *Figure: the same 4 × 8 weights five times; red and blue are the signs, darker is larger, grey is exactly zero. The first row's weights are small, the last row's large. At random, zeros stand anywhere. "Smallest of the layer" leaves one weight in the first row and most of the last two. "Smallest of each row" makes four zeros in every row. "2 of 4" makes two zeros in every four neighbours.*
#
# Look at the third panel: where all weights of the layer are compared, an output with small weights loses nearly all of them. Whether that is right depends on what the model does with that output, and $|w|$ does not tell.
#
# Making a mask takes two steps: sort the scores, and remove the lowest.

# %%
order = scores.flatten().argsort()
by_hand = torch.ones(32, dtype=torch.bool)
by_hand[order[:16]] = False
assert torch.equal(by_hand.view(4, 8), pruning.layer_mask(scores, 0.5))
for name, mask in masks.items():
    print(f"{name:22} kept in each row: {mask.sum(1).tolist()}")

# %% [markdown]
# ### A real model, and three texts
#
# The tiny *student* of chapter 01 is small enough to be pruned again and again. Its embeddings stay as they are (they are also its output layer); the 28 matrices of its four layers are pruned.

# %%
dense = models.load_tiny_lm("student")
tokenizer = models.load_tiny_tokenizer()
learn, held_out = (data.speech_tokens(tokenizer, split) for split in ("validation", "test"))
magnitude = pruning.magnitude_scores(dense)
weights = sum(score.numel() for score in magnitude.values())
parameters = sum(p.numel() for p in dense.parameters())
print(f"{len(magnitude)} matrices, {weights:,} of {parameters:,} parameters can be pruned")

# %% [markdown]
# One result is an anecdote. So everything below is measured three times, each time on another held-out **text**. Where chance plays a part (random scores, the calibration text, the order of training), the number of the text is also the **seed**. When we write that A is better than B, it was so all three times, and the cell asserts it. Otherwise the word is *inconclusive*. (All of it is one model; section 2 has a second.)

# %%
TEXTS = (0, 1, 2)
excerpts = data.excerpts(held_out, len(TEXTS))
print("the first text begins:", tokenizer.decode(excerpts[0][:14]))

# %% [markdown]
# Two small helpers, used everywhere below:


# %% rtol=0.01
def ppl(model, text):
    """Return the perplexity on one of the three texts."""
    return metrics.perplexity(model, excerpts[text], window=128)


def pruned(masks, model=dense):
    """Return a pruned copy of the model."""
    model = copy.deepcopy(model)
    pruning.prune_(model, masks)
    return model


whole = [ppl(dense, text) for text in TEXTS]
print("dense:", [round(value, 1) for value in whole])

# %% [markdown]
# The three texts are not equally hard, so models are only compared on the same text.
#
# **Predict:** half of all weights are removed, the smallest of each layer. From 25, the perplexity of the first text rises to …? And if the same number is chosen at random?

# %% rtol=0.02
half = pruned(pruning.layer_mask(magnitude, 0.5))
for text in TEXTS:
    chance = pruned(pruning.layer_mask(pruning.random_scores(dense, seed=text), 0.5))
    print(f"text {text}: {ppl(half, text):.1f}, at random {ppl(chance, text):.0f}")
    assert ppl(half, text) < 1.35 * whole[text] < 0.1 * ppl(chance, text)

# %% [markdown]
# Without half of the weights, perplexity is a quarter higher; the control, pruned at random, is at 650 to 690. The size of a weight says a lot.
#
# Does PyTorch agree? It has its own tools, in the module `torch.nn.utils.prune`. The same request must give the same mask. There is one catch: our model came with 16-bit weights, so many have exactly the same size. Where several of them lie at the threshold, it does not matter which are removed.

# %%
from torch.nn.utils import prune

theirs = copy.deepcopy(dense)
targets = [(layer, "weight") for layer in layers.linear_layers(theirs).values()]
prune.global_unstructured(targets, pruning_method=prune.L1Unstructured, amount=0.5)
masks = torch.cat([layer.weight_mask.bool().flatten() for layer, _ in targets])
ours = torch.cat([m.flatten() for m in pruning.global_mask(magnitude, 0.5).values()])
flat = torch.cat([score.flatten() for score in magnitude.values()])
assert ours.sum() == masks.sum() and len(flat[ours != masks].unique()) <= 1
print("the whole model: the same mask, but for weights of one and the same size")
print(f"before {metrics.size_in_bytes(dense):,} bytes, now {metrics.size_in_bytes(theirs):,} bytes")

# %% [markdown]
# And the size? It has *grown*, because PyTorch keeps every old weight beside its mask. (`prune.remove` brings back the old size, not a smaller one.)
#
# ## 2 · Better scores: look at the inputs
#
# ### Wanda: weight times the size of its input
#
# A layer computes $y_i = \sum_j W_{ij} x_j$. A large weight on an input that is always near zero does nothing. **Wanda** (Sun et al. 2023, arXiv 2306.11695) multiplies the weight by the size of its input, measured on some **calibration** text. Such a text is only run through the model, to see what its layers are given; nothing is trained.
#
# $$S_{ij} = |W_{ij}| \cdot \lVert x_j \rVert_2$$
#
# $\lVert x_j \rVert_2$ (`input_norms`) is the root of the sum of squares of input $j$ over all tokens.
#
# **Predict:** which of the two weights of the first output is removed, by magnitude and by Wanda?

# %%
weight = torch.tensor([[0.5, -3.0], [1.0, 2.0]])
x = torch.tensor([[4.0, 0.1], [-4.0, 0.2], [2.0, -0.2]])  # three tokens, two inputs
input_norms = x.square().sum(0).sqrt()
wanda = weight.abs() * input_norms
assert torch.equal(wanda, pruning.wanda_scores(weight, input_norms))
print("input norms:", input_norms.tolist())
print("kept by magnitude:", pruning.row_mask(weight.abs(), 0.5).tolist())
print("kept by Wanda:    ", pruning.row_mask(wanda, 0.5).tolist())

# %% [markdown]
# <details><summary>Why</summary>
#
# By magnitude 3.0 beats 0.5. But the second input never exceeds 0.2, so the weight of 3.0 adds at most 0.6 to the output, while 0.5 × 4 = 2. Wanda keeps the 0.5, and likewise the 1.0 in the second row.
#
# </details>
#
# ### SparseGPT: the weights that stay are adjusted
#
# Suppose two inputs are always equal. Then one weight can do the work of both: $1 \cdot x + 2 \cdot x = 3 \cdot x$. Removing a weight and *adjusting the rest* is an old idea, **Optimal Brain Surgeon** (Hassibi & Stork 1993). For one output with weights $w$, and $H = \sum x x^\top$ over the calibration tokens (`hessians`; $H$ is called the *Hessian*: up to a factor 2, it is the second derivative of the squared error), the cheapest way to remove weight $q$ is
#
# $$\delta = -\frac{w_q}{[H^{-1}]_{qq}}\, H^{-1}_{:,q} \qquad\text{and it costs}\qquad \frac{w_q^2}{[H^{-1}]_{qq}}$$
#
# more squared error in the output. Exercise 5 derives it. Here it is, beside simply setting the weight to zero, on inputs of which the first two are nearly equal.
#
# **Predict:** which of the three weights is the cheapest to remove: 1.0, 2.0 or 0.8? And which costs least if nothing is adjusted?

# %%
torch.manual_seed(0)
x = torch.randn(200, 3).double()
x[:, 1] = x[:, 0] + 0.1 * x[:, 1]
w = torch.tensor([1.0, 2.0, 0.8]).double()
inverse = (x.T @ x).inverse()
for q in range(3):
    zeroed = torch.where(torch.arange(3) == q, 0.0, w)
    adjusted = w - w[q] / inverse[q, q] * inverse[:, q]
    plain, best = ((x @ (v - w)).square().sum() for v in (zeroed, adjusted))
    assert torch.isclose(best, w[q] ** 2 / inverse[q, q])
    left = [round(v, 2) + 0.0 for v in adjusted.tolist()]
    print(f"without weight {q}: error {plain:.0f}, or {best:.0f} and the weights {left}")

# %% [markdown]
# Once the others may be adjusted, the smallest weight is the most expensive one to remove: its input is independent of the other two, so no other weight can compensate for it. Weight 0 costs nearly nothing: weight 1 becomes about 3 and does the work of both.
#
# To do this exactly for every weight of a large matrix would take an inverse for each set of zeros in each row. **SparseGPT** (Frantar & Alistarh 2023, arXiv 2301.00774) goes through the columns from left to right, and adjusts only the columns to the *right* of each. Then all rows share the same inverses, and all of these come out of one Cholesky factor (a triangular matrix whose product with its own transpose is the given one). A small number, the *damping*, is added to the diagonal of $H$ first, so that it has an inverse. Our `sparsegpt` is that algorithm. It *raises* the error of the weights and lowers the error of the output, also on text that it was not calibrated on:

# %% rtol=0.01
samples = [next(iter(data.token_batches(learn, 128, 64)(0, seed))) for seed in TEXTS]
hessians = [pruning.hessians(dense, [sample]) for sample in samples]
name = "model.layers.2.mlp.down_proj"
matrix = layers.weight_matrix(dense.get_submodule(name)).detach()
keep = pruning.layer_mask(matrix.abs(), 0.5)
adjusted = pruning.sparsegpt(matrix, hessians[0][name], partial(pruning.layer_mask, sparsity=0.5))
other = hessians[1][name]  # of other text
for method, new in {"magnitude": matrix * keep, "SparseGPT": adjusted}.items():
    delta = new - matrix
    share = (delta @ other * delta).sum() / (matrix @ other * matrix).sum()
    print(f"{method}: squared error of weights {delta.square().sum():.1f}, of outputs {share:.1%}")

# %% [markdown]
# ### The four scores, as curves
#
# Each method has its usual mask: magnitude is compared within a layer, Wanda within a row, SparseGPT within blocks of 128 columns. So score *and* mask differ. The line "magnitude, row" is the control that separates them. SparseGPT's score is the surgeon's cost $w_q^2/[H^{-1}]_{qq}$, where only columns to the right are adjusted.
#
# The calibration text is 64 windows of 128 tokens, drawn anew for each seed. The norms that Wanda needs are the roots of the diagonal of $H$:

# %%
norms = [{n: h.diagonal().sqrt() for n, h in found.items()} for found in hessians]
for n, norm in pruning.input_norms(dense, [samples[0]]).items():
    assert torch.allclose(norm, norms[0][n], rtol=1e-4)


def surgeon(hessian, mask, block_size=128):
    """Return a copy of the model, pruned by SparseGPT."""
    model = copy.deepcopy(dense)
    pruning.sparsegpt_(model, hessian, mask, block_size)
    return model


# %% [markdown]
# Three shares of zeros, five methods:

# %%
GRID = (0.3, 0.5, 0.7)
curves = {n: {} for n in ("at random", "magnitude", "magnitude, row", "Wanda", "SparseGPT")}
for s in GRID:
    for text in TEXTS:
        chance = pruning.random_scores(dense, seed=text)
        wanda = pruning.wanda_scores(dense, norms[text])
        found = [
            pruned(pruning.layer_mask(chance, s)),
            pruned(pruning.layer_mask(magnitude, s)),
            pruned(pruning.row_mask(magnitude, s)),
            pruned(pruning.row_mask(wanda, s)),
            surgeon(hessians[text], partial(pruning.layer_mask, sparsity=s)),
        ]
        for line, model in zip(curves.values(), found, strict=True):
            line.setdefault(s, []).append(ppl(model, text))

# %% rtol=0.03
ratios = {
    name: {s: [a / b for a, b in zip(line[s], whole, strict=True)] for s in GRID}
    for name, line in curves.items()
}
chances = ratios.pop("at random")
ax = plots.sparsity_curves(ratios, "perplexity, dense = 1")
print(f"random, not drawn: {min(chances[0.3]):.1f} to {max(chances[0.7]):.1f} times dense")
for s in (0.5, 0.7):
    for text, row in enumerate(zip(*(line[s] for line in curves.values()), strict=True)):
        print(f"{s:.0%}, text {text}: {[round(value, 1) for value in row]}")
        chance, by_size, by_row, wanda, adjusted = row
        assert chance > max(by_size, by_row) and min(by_size, by_row) > wanda
        assert wanda > adjusted > whole[text]
        assert by_size > by_row if s == 0.7 else abs(by_row / by_size - 1) < 0.03

# %% [markdown]
# *Figure: perplexity divided by the dense model's on the same text, over the share of zeros: 30, 50 and 70 %. Lines go through the means of three texts, bands from the lowest to the highest. All four lines begin together at 1.03. At 50 % they lie between 1.17 and 1.24. At 70 % they are apart: magnitude at 3.4, magnitude by row 3.1, Wanda 2.6, SparseGPT 2.2. The bands overlap a little; on each single text the order is the same.*
#
# At 50 % and at 70 %, on each of the three texts: random is worst by far, then magnitude, Wanda, SparseGPT. The control lies between: at 70 %, comparing within rows helps magnitude a little, and Wanda's score helps more than that; at 50 % the two masks are within 3 % of each other. At 30 %:

# %% rtol=0.02
for text in TEXTS:
    print(f"text {text}:", {name: round(line[0.3][text], 1) for name, line in curves.items()})
    close = [line[0.3][text] for name, line in curves.items() if name != "at random"]
    assert max(close) < 1.03 * min(close)

# %% [markdown]
# At 30 % all but random are within 3 % of each other, and whether SparseGPT beats Wanda differs from text to text: *inconclusive*. When little is removed, nearly any sensible score will do.
#
# ### The same on a real encoder
#
# Is that so for one tiny model only? We take MiniLM, 22.6 million parameters, and ask how far its embeddings of 24 sentences turn away from those of the dense model: the **cosine**, 1 = unchanged. Calibration: 64 other sentences. A "text" is now 24 sentences; each of the three has its own calibration text.

# %%
minilm, words = models.load_minilm(), models.load_minilm_tokenizer()
reviews = data.load_reviews()
judged = [
    data.ordered_batches(
        reviews["test"].select(range(24 * text, 24 * text + 24)), words, max_length=32
    )
    for text in TEXTS
]
read = [next(iter(data.text_batches(reviews["train"], words, 64, 32)(0, seed))) for seed in TEXTS]
heard = [pruning.input_norms(minilm, [sample]) for sample in read]


def embed(model, text):
    """Return the embeddings of 24 sentences."""
    return models.embed(model, judged[text])


# %% [markdown]
# Half of all weights are removed, in five ways:

# %%
before = [embed(minilm, text) for text in TEXTS]
sizes = pruning.magnitude_scores(minilm)
chosen = {
    "random, layer": pruning.layer_mask(pruning.random_scores(minilm, seed=0), 0.5),
    "magnitude, layer": pruning.layer_mask(sizes, 0.5),
    "magnitude, row": pruning.row_mask(sizes, 0.5),
    "magnitude, global": pruning.global_mask(sizes, 0.5),
}
halves = {name: pruned(masks, minilm) for name, masks in chosen.items()}
cosine = {}
for text in TEXTS:
    wanda = pruning.row_mask(pruning.wanda_scores(minilm, heard[text]), 0.5)
    for name, model in {**halves, "Wanda, row": pruned(wanda, minilm)}.items():
        angle = torch.cosine_similarity(embed(model, text), before[text]).mean()
        cosine.setdefault(name, []).append(angle.item())

# %% atol=0.01
for name, values in cosine.items():
    print(f"{name:17} {[round(value, 2) for value in values]}")
for chance, layer_wise, row_wise, _, wanda in zip(*cosine.values(), strict=True):
    assert chance + 0.3 < layer_wise < row_wise < wanda - 0.1

# %% [markdown]
# The same ordering: magnitude keeps a cosine of 0.70 when it is compared within layers and 0.73 within rows, Wanda 0.87. So most of Wanda's lead is the score's, not the mask's.
#
# ### Break it: the wrong text, or too little
#
# Wanda and SparseGPT depend on their calibration text.
#
# **Predict:** at 50 %, is Wanda still better than magnitude when it is calibrated on random tokens instead of speeches? And SparseGPT, calibrated on 1 window instead of 64?

# %% rtol=0.02
for text in TEXTS:
    torch.manual_seed(text)
    noise = {"input_ids": torch.randint(2048, (64, 128))}
    scores = pruning.wanda_scores(dense, pruning.input_norms(dense, [noise]))
    noisy = ppl(pruned(pruning.row_mask(scores, 0.5)), text)
    window = {"input_ids": samples[text]["input_ids"][:1]}
    adjusted = surgeon(pruning.hessians(dense, [window]), partial(pruning.layer_mask, sparsity=0.5))
    single, plain = ppl(adjusted, text), curves["magnitude"][0.5][text]
    print(f"magnitude {plain:.1f}, Wanda on noise {noisy:.1f}, SparseGPT, 1 window {single:.1f}")
    assert plain < noisy and 1.2 * plain < single

# %% [markdown]
# Both are *worse* than magnitude, which needs no calibration text. One window has 128 tokens. 24 of the 28 matrices have 128 inputs: as many unknowns as examples, so the adjustment fits the accidents of these few tokens. The four `down_proj` have 384 inputs, so there $H$ says nothing at all about two thirds of the directions, and only the damping gives it an inverse. The adjustment fits this one window and no other text. And random tokens show Wanda how large the inputs are for random tokens.
#
# ## 3 · Which weights are compared with each other
#
# ### Global, layer, row, n of m
#
# The score ranks weights; the mask decides which weights are ranked together. The freer the choice, the better the model? `global_mask` may take most of one layer and little of another. With 2 of 4 (2:4, Mishra et al. 2021, arXiv 2104.08378), whose zeros some GPUs can skip, there is hardly any choice.
#
# **Predict:** order these five by perplexity, all by magnitude, all with 50 % zeros.

# %% rtol=0.02
groups = {
    "global": pruning.global_mask(magnitude, 0.5),
    "layer": pruning.layer_mask(magnitude, 0.5),
    "row": pruning.row_mask(magnitude, 0.5),
    "4 of 8": pruning.n_of_m_mask(magnitude, 4, 8),
    "2 of 4": pruning.n_of_m_mask(magnitude, 2, 4),
}
by_group = {}
for name, masks in groups.items():
    by_group[name] = [ppl(pruned(masks), text) for text in TEXTS]
    print(f"{name:7} {[round(value, 1) for value in by_group[name]]}")
for row, wider, narrower in zip(*list(by_group.values())[2:], strict=True):
    assert row < wider < narrower

# %% [markdown]
# Row, 4 of 8, 2 of 4: the less choice, the worse, as expected. Layer and row are within a point of each other: *inconclusive*. But *global*, the freest of all, is clearly worse than layer! Look where it took its zeros:

# %% rtol=0.01
for freest, each in zip(by_group["global"], by_group["layer"], strict=True):
    assert freest > 1.1 * each
taken = {name: 1 - mask.float().mean().item() for name, mask in groups["global"].items()}
for name in sorted(taken, key=taken.get)[:2] + sorted(taken, key=taken.get)[-2:]:
    print(f"{name:32} {taken[name]:.0%} removed, mean size {magnitude[name].mean():.3f}")

# %% [markdown]
# It took nearly nine of ten weights from two matrices of layer 0 that simply have *smaller numbers*. Is that the damage? Give just these two the usual 50 %, and compare all the others globally, so that half of all weights are zero again:

# %% rtol=0.02
two = sorted(taken, key=taken.get)[-2:]
rest = {name: score for name, score in magnitude.items() if name not in two}
kept = {name: groups["layer"][name] for name in two}
mended = pruned(pruning.global_mask(rest, 0.5) | kept)
print(f"zeros: {metrics.sparsity(mended):.1%}")
for text in TEXTS:
    row = by_group["global"][text], ppl(mended, text), by_group["layer"][text]
    print("global {:.1f}, but for two matrices {:.1f}, layer {:.1f}".format(*row))
    assert row[1] < 0.95 * row[0] and row[1] < 1.05 * row[2]

# %% [markdown]
# Now *global* is within 5 % of *layer*: the two matrices were the damage. Sizes of different layers are not on one scale. Multiply `v_proj` by 4 and divide `o_proj` by 4: the model computes exactly the same, but global magnitude chooses other weights.

# %% rtol=0.02
scaled = copy.deepcopy(dense)
attention = scaled.model.layers[0].self_attn
attention.v_proj.weight.data *= 4
attention.o_proj.weight.data /= 4
tokens = excerpts[0][None, :128]
assert torch.equal(scaled(tokens).logits, dense(tokens).logits)
chosen = pruning.global_mask(pruning.magnitude_scores(scaled), 0.5)
for name in two:
    print(f"{name}: {taken[name]:.0%} removed, {1 - chosen[name].float().mean():.0%} when scaled")

# %% [markdown]
# On MiniLM, above, global and layer came out nearly equal. So "global beats local", which one can read, is no law: it depends on the model.
#
# The same for n of m with the other two scores. (`block_size=4`: SparseGPT chooses its mask four columns at a time, as the pattern needs.)

# %% rtol=0.02
two_of_four = []
for text in TEXTS:
    wanda = pruning.n_of_m_mask(pruning.wanda_scores(dense, norms[text]), 2, 4)
    adjusted = surgeon(hessians[text], lambda s: pruning.n_of_m_mask(s, 2, 4), block_size=4)
    row = [by_group["2 of 4"][text], ppl(pruned(wanda), text), ppl(adjusted, text)]
    print("2 of 4: magnitude {:.1f}, Wanda {:.1f}, SparseGPT {:.1f}".format(*row))
    free_choice = [curves[name][0.5][text] for name in ("magnitude", "Wanda", "SparseGPT")]
    assert row[0] > row[1] > row[2] and all(a > b for a, b in zip(row, free_choice, strict=True))
    two_of_four.append(row)

# %% [markdown]
# ### Which layers must be spared?
#
# Measure each part alone: prune 80 % of *one* attention or feed-forward block, by magnitude, and leave the rest dense. This is measured on three pieces of validation text, so that the test text judges the choice and does not make it.
#
# **Predict:** which of the eight is the most sensitive: the first, the last, or one in the middle? By how much?

# %% rtol=0.02
trials = data.excerpts(learn[200_000:], len(TEXTS), apart=20_000)
trial = [metrics.perplexity(dense, piece, window=128) for piece in trials]
sensitivity = {}
for block, part in [(block, part) for block in range(4) for part in ("self_attn", "mlp")]:
    inside = {n: s for n, s in magnitude.items() if f"layers.{block}.{part}" in n}
    small = pruned(pruning.layer_mask(inside, 0.8))
    found = [metrics.perplexity(small, piece, window=128) for piece in trials]
    sensitivity[f"layer {block}, {part}"] = [a / b for a, b in zip(found, trial, strict=True)]
label = "perplexity with 80 % of one block removed, dense = 1"
ax = plots.seed_dots(sensitivity, label, each="text")
for rises in zip(*sensitivity.values(), strict=True):
    assert max(rises) == rises[1] > 10 and sorted(rises)[-2] < 1.3
rest = [rise for name, found in sensitivity.items() if name != "layer 0, mlp" for rise in found]
print(f"the other seven: {min(rest):.2f} to {max(rest):.2f}")

# %% [markdown]
# *Figure: eight rows, one for each block, each with three dots, one for each text, on a logarithmic axis. Seven blocks lie between 1.0 and 1.25. The feed-forward block of layer 0 (`mlp`) stands far to the right, at 14 to 15.*
#
# One block of eight carries nearly all of the damage: the very first feed-forward block. 80 % of any other block costs 2 to 24 %; of this one, more than 1,000 %. The mean sizes of its weights, 0.065 to 0.067 (printed below), lie in the middle of the range, so magnitude does not show it. Only a trial does.
#
# So put the zeros elsewhere. At 70 % in total, the first block gets only 50 %, and all others a little more, so that the sum is the same. All three scores get this *allotment*. The control spares another block.

# %% rtol=0.02
first, last = ([n for n in magnitude if f"layers.{block}.mlp" in n] for block in (0, 3))
spared = sum(magnitude[n].numel() for n in first)
others = (0.7 * weights - 0.5 * spared) / (weights - spared)


def allot(scores, mask, block=first):
    """Return masks with 50 % zeros in one block, and more in all others."""
    return {n: mask(score, 0.5 if n in block else others) for n, score in scores.items()}


by_size, elsewhere = (pruned(allot(magnitude, pruning.layer_mask, b)) for b in (first, last))
print(f"others {others:.1%}, in total {metrics.sparsity(by_size):.1%}")
print("mean sizes in the first block:", [round(magnitude[n].mean().item(), 3) for n in first])

# %% rtol=0.03
for text in TEXTS:
    wanda = allot(pruning.wanda_scores(dense, norms[text]), pruning.row_mask)
    adjusted = copy.deepcopy(dense)
    for names, share in [(first, 0.5), (magnitude.keys() - first, others)]:
        found = {name: hessians[text][name] for name in names}
        pruning.sparsegpt_(adjusted, found, partial(pruning.layer_mask, sparsity=share))
    spare = [ppl(model, text) for model in (by_size, pruned(wanda), adjusted)]
    same = [curves[name][0.7][text] for name in ("magnitude", "Wanda", "SparseGPT")]
    print("70 % everywhere: {:.1f}, {:.1f}, {:.1f}".format(*same), end="; ")
    print("first block spared: {:.1f}, {:.1f}, {:.1f}".format(*spare), end="; ")
    print(f"last block spared, by magnitude: {ppl(elsewhere, text):.1f}")
    assert all(a < b for a, b in zip(spare, same, strict=True)) and spare[2] < min(spare[:2])
    assert spare[0] < same[2] and ppl(elsewhere, text) > same[0]

# %% [markdown]
# The allotment helps all three scores, and SparseGPT is the best again, with it as without it. But plain magnitude with the allotment beats SparseGPT without: here, where the zeros go mattered more than how they are scored. Between magnitude and Wanda, both with the allotment, it is *inconclusive*. And it has to be the *right* block: with the last one spared, magnitude is worse than with 70 % everywhere.
#
# ## 4 · Recovery
#
# ### Hold the zeros while training
#
# A pruned model can learn again. **Predict:** 70 % zeros, then one single ordinary training step. What share is zero now?

# %%
masks = pruning.layer_mask(magnitude, 0.7)
lessons = data.token_batches(learn[:200_000], window=64, batch_size=4)
leaky, held = pruned(masks), pruned(masks)
train(leaky, lessons, Recipe(steps=1))
with pruning.hold_masks(held):
    train(held, lessons, Recipe(steps=1))
print(f"zeros: {metrics.sparsity(leaky):.1%} without holding, {metrics.sparsity(held):.1%} with")

# %% [markdown]
# After one step the zeros are gone. An ordinary training step changes *every* weight, zeros included: the optimizer (Adam) moves every weight that has a gradient at all, by about the learning rate. `hold_masks` clears the gradients of pruned weights, and sets them to zero again after each step.
#
# ### Twenty-five steps, in four ways
#
# - **masks held**: prune 70 % at once, by magnitude, then train;
# - **LoRA**: the pruned matrices are frozen, an update of rank 8 is trained beside them;
# - **gradual**: the zeros come little by little until step $e$, many at first and then fewer, by a cubic curve $s_t = s\,(1 - (1 - t/e)^3)$ (`gradual_schedule`; Zhu & Gupta 2017, arXiv 1710.01878);
# - the **control**: the *dense* model, trained for the same 25 steps. It shows what the training text does without any zeros.


# %%
def trained(model, rate, seed, **more):
    """Return the model after 25 training steps."""
    recipe = Recipe(steps=25, learning_rate=rate, warmup_steps=3, seed=seed)
    train(model, lessons, recipe, **more)
    return model


def at_once(rate, seed):
    """Train a pruned model with its zeros held."""
    with pruning.hold_masks(model := pruned(masks)):
        return trained(model, rate, seed)


# %%
def gradual(end, seed):
    """Train the dense model while its zeros grow to 70 %, at the rate of masks held."""
    model, masks = copy.deepcopy(dense), {}

    def grow(model, step):
        if step <= end:
            share = pruning.gradual_schedule(step, 0, end, 0.7)
            masks.update(pruning.layer_mask(pruning.magnitude_scores(model), share))

    with pruning.hold_masks(model, masks):
        return trained(model, best["masks held"], seed, after_step=grow)


# %% [markdown]
# A training method can only be judged at a learning rate that suits it. So each of them gets its own, the control too, by a search of the same size: three values, one seed, the first piece of validation text from section 3. (*Gradual* trains the same weights as *masks held*, so it takes that rate, and its three values are end steps.) No method learns from that text, and the test texts are used only after the search.


# %%
def low_rank(rate, seed):
    """Freeze a pruned model, and train LoRA's updates beside its matrices."""
    model = pruned(masks)
    lora.add_lora_(model, rank=8, alpha=16)
    return trained(model, rate, seed)


methods = {
    "masks held": (at_once, (3e-4, 1e-3, 3e-3)),
    "LoRA": (low_rank, (1e-3, 3e-3, 1e-2)),
    "control": (lambda rate, seed: trained(copy.deepcopy(dense), rate, seed), (1e-5, 1e-4, 1e-3)),
    "gradual": (gradual, (5, 10, 20)),
}

# %% rtol=0.02
validate = partial(metrics.perplexity, tokens=trials[0], window=128)
print(f"dense {validate(dense):.1f}, pruned {validate(pruned(masks)):.1f}")
best, done = {}, {}
for name, (method, values) in methods.items():
    found = {value: method(value, seed=0) for value in values}
    quality = {value: validate(model) for value, model in found.items()}
    best[name] = min(quality, key=quality.get)
    done[name] = [found[best[name]]]
    print(f"{name:10}", {value: round(score, 1) for value, score in quality.items()})

# %% [markdown]
# LoRA needs a higher rate than the training with masks held, 3e-3 instead of 1e-3. The control is best at the lowest rate, where nearly nothing happens: at every higher one it gets *worse* than the dense model. So 25 steps on this text teach it nothing.
#
# In this search, the earlier the gradual schedule ends, the better. Each winner is now trained with the two other seeds as well, and judged on the test texts:

# %%
for name, (method, _) in methods.items():
    done[name] += [method(best[name], seed) for seed in TEXTS[1:]]
runs = {n: [ppl(m, text) for text, m in enumerate(found)] for n, found in done.items()}
held, again = done["masks held"][-1], "LoRA, merged, pruned again"
added = sum(p.numel() for p in done["LoRA"][0].parameters() if p.requires_grad)
runs[again] = []
for text, beside in enumerate(done["LoRA"]):
    lora.merge_lora_(beside)
    refilled = metrics.sparsity(beside)
    pruning.prune_(beside, masks)
    runs[again].append(ppl(beside, text))

# %% rtol=0.02
start = curves["magnitude"][0.7]
rows = {"pruned": start, **runs, "dense, as it came": whole}
ax = plots.seed_dots(rows, "perplexity", each="text")
print(f"LoRA trained {added:,} parameters beside {parameters:,}")
print(f"zeros: {metrics.sparsity(held):.0%} where masks were held, {refilled:.0%} after the merge")
for text, (first, last, *row) in enumerate(zip(start, whole, *runs.values(), strict=True)):
    held_on, low, control, slowly, cut_again = row
    won, lost = (math.log(first / held_on), math.log(first / last))
    print(f"text {text}: {first:.1f}, then {[round(v, 1) for v in row]}", end=", ")
    print(f"won back {(first - held_on) / (first - last):.0%}, of the loss {won / lost:.0%}")
    assert first > cut_again > 1.1 * held_on and abs(low / held_on - 1) < 0.05
    assert first > slowly > held_on > control and abs(control / last - 1) < 0.01

# %% [markdown]
# *Figure: seven rows with three dots each, one for each text, over a logarithmic axis of perplexity. Pruned: 85 to 110. Masks held: 52 to 72, and LoRA nearly the same. Gradual: 57 to 76. LoRA merged and pruned again: 62 to 87. The control lies where the dense model does: 25 to 35.*
#
# What holds on all three texts:
#
# - Twenty-five steps win back about half of the perplexity that pruning cost (51 to 56 %; of the loss, its logarithm, 37 to 41 %). It is really *recovery*: the control has read the same text and is within 1 % of the dense model.
# - LoRA does as well as the full training (1 to 3 % ahead, too little to call), with 7 % as many parameters trained. But **merging refills**: $W + \frac{\alpha}{r} BA$ has no zeros left, because $BA$ is dense. Prune it again with the same mask, and much of the gain is lost. If you want LoRA *and* zeros, leave the update beside the matrix and pay for it at run time, or mask the product while training.
# - The *gradual* schedule is worse than pruning at once, even with its best end step. A likely reason: zeros that come late leave fewer steps, and lower rates, to recover in. It was proposed for long trainings; ours says nothing about those.

# %% [markdown]
# ## 5 · Zeros are not bytes, and not time
#
# ### Bytes
#
# A matrix of MiniLM, 1,536 × 384, can be written down in four ways: **dense**, every number in four bytes; **CSR** (compressed sparse rows), each value that is not zero with the number of its column, and where each row starts; **mask and values**, one bit for each weight and the values that are not zero (`save_pruned`); and the dense bytes through **gzip**.
#
# **Predict:** at which share of zeros does CSR become smaller than dense? And mask and values?

# %%
warnings.filterwarnings("ignore", message="Sparse CSR")  # torch calls its CSR a beta
tall = torch.cat([block.intermediate.dense.weight.detach() for block in minilm.encoder.layer])
full = tall[:1536]  # the first of the six matrices
layer = torch.nn.Linear(384, 1536, bias=False)
for s in (0.0, 0.3, 0.5, 0.7, 0.9):
    layer.weight.data = full.masked_fill(~pruning.layer_mask(full.abs(), s), 0)
    raw, csr = layer.weight.detach().numpy().tobytes(), layer.weight.detach().to_sparse_csr()
    listed = 8 * csr.values().numel() + 4 * csr.crow_indices().numel()
    with tempfile.TemporaryDirectory() as folder:
        file = pruning.save_pruned(layer, Path(folder, "one.safetensors"))
        packed = file.stat().st_size
    zipped = len(gzip.compress(raw)) / len(raw)
    print(f"{s:.0%} zeros: dense {len(raw):,}, CSR {listed:,}, mask {packed:,}, gzip {zipped:.2f}")

# %% [markdown]
# <details><summary>Where they cross</summary>
#
# CSR takes 8 bytes for each value that is left, so it is smaller than dense only above 50 % zeros. (This is CSR with 4-byte indices, as files have it; it is counted here, not stored. torch's own has 8-byte indices, so 12 bytes a value, and is smaller than dense only above 67 %.) The mask costs 1 bit for each weight, 1/32 of its 4 bytes: it pays from 3 % on, and at sparsity $s$ a weight takes $1 + 32\,(1 - s)$ bits. (A matrix without zeros is simply stored dense; the few bytes more are the file's header.) Gzip, shown as a share of the dense size, compresses the zeros about as well, but it makes the dense matrix a little smaller, too: always zip *both* before you compare.
#
# </details>
#
# Now the tiny model with 70 % zeros, saved, and loaded into a fresh model. (70 % of 852 thousand weights are zero, the other 263 thousand parameters are dense.)

# %%
fresh = models.new_tiny_lm("student").eval()
with tempfile.TemporaryDirectory() as folder:
    file = pruning.save_pruned(held, Path(folder, "pruned.safetensors"))
    pruning.load_pruned_(fresh, file)
    print(f"dense {metrics.size_in_bytes(held):,} bytes, file {file.stat().st_size:,} bytes")
assert all(torch.equal(a, b) for a, b in zip(held.parameters(), fresh.parameters(), strict=True))
assert torch.equal(held(tokens).logits, fresh(tokens).logits)
print(f"the dense model in 16 bits: {metrics.size_in_bytes(copy.deepcopy(dense).half()):,} bytes")

# %% [markdown]
# Less than half, and it is the same model bit for bit. But look at the last line: the *dense* model, with each number in 16 bits instead of 32, is hardly larger, and loses nothing (it came in 16 bits). Zeros and bits can be combined; chapter 04 is about bits.
#
# ### Time
#
# One token is multiplied by the up-projections of all six layers, stacked into one matrix, so that it does not fit into the processor's nearest caches. `dense zeros` is what `prune_` leaves behind. CSR is torch's. In the smaller layer rows are really removed. Two more use integers of 8 bits and this library's own kernels: `linear_w8a8` multiplies zeros like all others, `linear_sparse` reads a bit mask and skips them. (Chapter 05 builds such kernels.)
#
# **Predict:** which of the five falls in proportion to the weights that are left?


# %%
def calls(s):
    """Return five ways to multiply one token by the matrix with a share of zeros."""
    x, zeros = torch.ones(1, 384), tall.masked_fill(~pruning.layer_mask(tall.abs(), s), 0)
    csr, small = zeros.to_sparse_csr(), tall[: round(len(tall) * (1 - s))].contiguous()
    q, scale = kernels.quantize_rows(zeros)
    wide, sparse = panels.pack_w8(q), panels.pack_sparse(q)
    return {
        ("dense zeros", s): lambda: x @ zeros.T,
        ("8 bits, dense", s): lambda: kernels.linear_w8a8(x, wide, scale),
        ("8 bits, zeros skipped", s): lambda: kernels.linear_sparse(x, sparse, scale),
        ("CSR", s): lambda: csr @ x[0],
        ("smaller layer", s): lambda: x @ small.T,
    }


# %% tags=["nbval-ignore-output"]
shares, times = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95), {}
everything = {key: call for s in shares for key, call in calls(s).items()}
for (name, s), run in metrics.latencies(everything, repeats=25).items():
    ends = (max(run.median - run.spread / 2, 1e-6), run.median, run.median + run.spread / 2)
    times.setdefault(name, {})[s] = [1e6 * end for end in ends]
ax = plots.sparsity_curves(times, "microseconds for one token")
for name, line in times.items():
    print(f"{name}: with 95 % zeros {line[0.95][1] / line[0.0][1]:.0%} of its time without")
zeros, wide, _, csr, small = times.values()
pays = [f"{s:.0%}" for s in shares if csr[s][2] < zeros[s][0]]
behind = [f"{s:.0%}" for s in shares if wide[0.0][2] < csr[s][0]]
print(f"CSR is faster than dense zeros at {pays}, slower than 8 bits without zeros at {behind}")
assert csr[0.0][1] > zeros[0.0][1] and csr[0.95][1] < zeros[0.95][1]
assert 3 * small[0.95][1] < zeros[0.95][1]
assert max(zeros.values())[1] < 3 * min(zeros.values())[1]

# %% [markdown]
# *Figure: microseconds for one token, on a logarithmic axis, over the share of zeros; lines are medians of 25 runs, bands their spread. Dense zeros and 8 bits, dense: flat lines, but for noise. CSR starts above dense zeros, falls, and crosses that line at a share that depends on the machine. The line that skips zeros falls, and so does the smaller layer, nearly in proportion to its weights.*
#
# Zeros in a dense matrix cost as much as other numbers. torch's CSR holds 12 bytes for each value that is left: above 67 % zeros it reads fewer bytes than dense, but in a less orderly way. Where it becomes faster depends on processor and caches: **the cell prints it for yours**, and asserts only that CSR is slower without zeros and faster at 95 %. The smaller layer alone gains what one would expect. And where CSR is slower than 8 bits without a single zero, quantizing (chapter 04) saves more time than those zeros do.
#
# ### A layer that is really smaller
#
# No kernel is needed if whole **neurons** are removed: a row of the matrix before the activation, and the column that reads it. `remove_neurons_` takes them out of every feed-forward block, and `remove_heads_` does the same with attention heads. But a neuron takes all of its weights with it, good or bad.
#
# Half of the neurons are removed below, beside the same number of zeros spread freely over the same matrices. A neuron's score is the norm of its outgoing weights' scores (`neuron_scores`).

# %% rtol=0.03
inside = {n: s for n, s in magnitude.items() if "mlp" in n}
spread = pruned(pruning.layer_mask(inside, 0.5))
lost = {"spread": [ppl(spread, text) for text in TEXTS], "Wanda": [], "chance": [], "magnitude": []}
for text in TEXTS:
    wanda = pruning.wanda_scores(dense, norms[text])
    chance = pruning.random_scores(dense, seed=text)
    for name, scores in {"Wanda": wanda, "chance": chance, "magnitude": magnitude}.items():
        small = copy.deepcopy(dense)
        pruning.remove_neurons_(
            small, pruning.layer_mask(pruning.neuron_scores(dense, scores), 0.5)
        )
        lost[name].append(ppl(small, text))
    print({name: round(values[text], 1) for name, values in lost.items()})
print(small.model.layers[0].mlp.up_proj, f"{metrics.size_in_bytes(small):,} bytes")
assert all(a < b < c < d for a, b, c, d in zip(*lost.values(), strict=True))

# %% [markdown]
# Freely spread zeros cost far less quality than whole neurons. And look at the last column: choosing neurons by the size of their outgoing weights is *worse than chance*. A likely reason: a neuron whose activations are large needs no large weights; Wanda measures the activations, magnitude does not.
#
# Removed neurons save time, with no kernel and no file format. MiniLM, one sentence:

# %% clock=true
halved, masked = copy.deepcopy(minilm), halves["magnitude, layer"]
neurons = pruning.neuron_scores(minilm, sizes)
pruning.remove_neurons_(halved, pruning.layer_mask(neurons, 0.5))
sentence = words("The plot is thin, but the actors are a joy.", return_tensors="pt")
contest = {"dense": minilm, "half zeros": masked, "half of the neurons": halved}
ways = {name: lambda m=model: m(**sentence) for name, model in contest.items()}
runs = metrics.latencies(ways, repeats=25)
for name, run in runs.items():
    print(f"{name:19} {metrics.size_in_bytes(contest[name]):>10,} bytes, {run}")
share = runs["half of the neurons"].median / runs["dense"].median
print(f"half of the neurons save {1 - share:.0%} of the time")
assert runs["half zeros"].median > 0.67 * runs["dense"].median and share < 1

# %% [markdown]
# The feed-forward blocks hold two thirds of the multiplications in MiniLM's matrices, so half of their neurons are a third of the work. The time saved is near that; other things cost time too, and smaller matrices fit into nearer caches. The zeros save nothing beyond the noise.
#
# ## **Spot the bug**
#
# This function looks right at first sight, and it finds the right threshold. What is wrong, and which *number* proves it?


# %%
def prune_smallest_(model, sparsity):
    """Set the smallest weights to zero. (This is the version with the bug.)"""
    found = layers.linear_layers(model).values()
    sizes = torch.cat([layer.weight.data.abs().flatten() for layer in found])
    threshold = sizes.quantile(sparsity)
    for layer in found:
        layer.weight.data[layer.weight.data < threshold] = 0


broken = copy.deepcopy(dense)
prune_smallest_(broken, 0.5)
print(f"perplexity {'above' if ppl(broken, 0) > 10_000 else 'below'} 10,000")

# %% [markdown]
# Find it before you read on.
#
# <details><summary>Answer</summary>
#
# The threshold is one for $|w|$, but the comparison looks at $w$. Every negative weight is "smaller" and is removed, however large its size: half of all weights, and then half of the positive ones too. The test that shows it: count the model's zeros.
#
# </details>

# %%
print(f"50 % were asked for, {metrics.sparsity(broken):.0%} are zero")
rest = torch.cat([layer.weight.flatten() for layer in layers.linear_layers(broken).values()])
print(f"smallest weight that is left: {'negative' if (rest < 0).any() else 'zero or positive'}")
assert metrics.sparsity(broken) > 0.7

# %% [markdown]
# ## What papers say, and what we measured
#
# The means over our three texts:


# %% rtol=0.02
def mean(values):
    """Return the mean, to one decimal."""
    return round(sum(values) / len(values), 1)


shown = [curves[name][0.5] for name in ("magnitude", "Wanda", "SparseGPT")]
print("50 %, dense first:", [mean(whole), *map(mean, shown)])
print("2 of 4:", [mean(column) for column in zip(*two_of_four, strict=True)])
for name, found in {"tiny model": norms[0], "MiniLM": heard[0]}.items():
    largest = max(norm.max() / norm.median() for norm in found.values())
    print(f"{name}: the largest input norm of any layer is {largest:.1f} times the median")

# %% [markdown]
# | perplexity | the paper (LLaMA-2-7B) | here (1.1 million parameters) | same ordering? |
# |---|---|---|---|
# | dense | 5.12 | 28.6 | |
# | 50 %: magnitude | 14.89 | 35.3 | yes: magnitude is last |
# | 50 %: Wanda | 6.42 | 34.4 | |
# | 50 %: SparseGPT | 6.51 | 33.4 | no: here SparseGPT leads, there Wanda, by little |
# | 2 of 4: magnitude, Wanda, SparseGPT | 54.59, 11.02, 10.17 | 47.4, 45.1, 41.3 | yes, all three |
# | 2 of 4 costs more than 50 % free | for each score | for each score | yes |
# | magnitude *collapses* at 50 % | 2.9 times dense | 1.2 times dense | does not show |
#
# (Theirs: the README that goes with Wanda, arXiv 2306.11695, on another text, with another tokenizer. The columns cannot be compared with each other, only the orderings in them.) Wanda was made for models in which a few inputs are far larger than all others, as in large language models (LLM.int8, arXiv 2208.07339). In our tiny model the largest input norm is 4 times the median, and at 50 % Wanda is 1 point of perplexity ahead. In MiniLM it is 30 times, and there it halves what magnitude with the same mask loses (1 - 0.73). That fits the explanation; two models do not prove it.
#
# ## Summary
#
# - **Scores and masks.** At 50 and 70 % zeros: random, then magnitude, then Wanda, then SparseGPT, on three texts of three; at 30 % the order is inconclusive. On MiniLM Wanda keeps a cosine near 0.87 where magnitude with the same mask keeps 0.73. Wanda calibrated on noise, and SparseGPT on one window, are worse than magnitude. 2 of 4 costs more than 4 of 8, that more than free rows; *global* was worse than *layer* here.
# - **Sensitivity.** One block of eight carries the damage. Sparing it took 70 % zeros by plain magnitude from 96 to 55, below SparseGPT's 64; SparseGPT with the same allotment reached 46.
# - **Recovery.** 25 steps win back about half of the perplexity that 70 % zeros cost; the control shows that the steps alone improve nothing. Merged LoRA refills all zeros. The gradual schedule was worse than pruning at once, in so short a training, wherever it ended.
# - **Bytes and time.** CSR is smaller than dense above 50 % zeros, mask and values from 3 % on. From where CSR is faster depends on the machine; zeros in a dense matrix save no time anywhere. Half of the neurons, removed, save time at once, and cost more quality.
#
# ## Further reading
#
# - Han et al. 2015, *Learning both Weights and Connections* (arXiv 1506.02626): section 3, prune by size, retrain, repeat.
# - Sun et al. 2023, *A Simple and Effective Pruning Approach for Large Language Models* (arXiv 2306.11695): section 3, Wanda in a page.
# - Frantar & Alistarh 2023, *SparseGPT* (arXiv 2301.00774): section 3, from the surgeon to an algorithm.
# - Zhu & Gupta 2017, *To prune, or not to prune* (arXiv 1710.01878): the cubic schedule, and large sparse against small dense models.
# - Sanh et al. 2020, *Movement Pruning* (arXiv 2005.07683): scores that are learned during fine-tuning.
# - Frankle & Carbin 2018, *The Lottery Ticket Hypothesis* (arXiv 1803.03635): can one train the sparse model from the start?
