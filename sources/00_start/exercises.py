# %% [markdown]
# # 00 · Start: exercises — a mask, a size, what LoRA stores, a decision
#
# Four small functions. Each is followed by one line that checks it: ✓, or ✗ and what your answer seems to believe. Run that line as often as you like. Below it your function works in a real model. Nothing here needs more than chapter 00.
#
# From the command line, `lightcourse check exercises/00_start.ipynb` tells which checks pass.

# %%
import copy

import torch
from sklearn.linear_model import LogisticRegression

import lightcourse
from lightcourse import checks, data, distillation, layers, lora, metrics, models
from lightcourse.quantization import quantize_

lightcourse.setup(seed=0, threads=2)

# %% [markdown]
# The real model is the one of the chapter: MiniLM, which judges whether a sentence of a review is positive. Its encoder is frozen, and its head is fitted to 256 sentences, in one step, by a **logistic regression** (a linear classifier). Its accuracy is measured on 200 others.


# %%
reviews, tokenizer = data.load_reviews(), models.load_minilm_tokenizer()
learn = data.ordered_batches(reviews["train"].select(range(256)), tokenizer, max_length=24)
test = data.ordered_batches(reviews["test"].select(range(200)), tokenizer, max_length=24)
learn_labels, labels = (torch.cat([batch["labels"] for batch in found]) for found in (learn, test))


def fit_head_(model):
    """Fit the head of a classifier to the training sentences, in place, and return the model."""
    fit = LogisticRegression(max_iter=1000).fit(models.embed(model.encoder, learn), learn_labels)
    for parameter, found in ((model.head.weight, fit.coef_), (model.head.bias, fit.intercept_)):
        half = torch.tensor(found, dtype=torch.float32) / 2
        parameter.data = torch.cat([-half, half])
    return model


# %% atol=0.02
def accuracy(model):
    """Return the share of the test sentences that a model judges rightly."""
    return metrics.accuracy(metrics.predict(model, test).argmax(-1), labels)


dense = fit_head_(models.EncoderClassifier(models.load_minilm(), num_labels=2))
most = max(labels.bincount()).item() / len(labels)
print(f"accuracy {accuracy(dense):.3f}; the same answer for all sentences: {most:.3f}")

# %% [markdown]
# ## Exercise 1 · Who may stay? ★ (10 minutes)
#
# Magnitude pruning for one tensor. Write `keep_mask(weight, sparsity)`:
#
# - `weight`: a tensor of any shape;
# - `sparsity`: the fraction of its values to *remove*, from 0 to 1;
# - returns a tensor of bool of the same shape, **True where a weight is kept**. Exactly `round(sparsity * weight.numel())` values are removed, those nearest to zero.
#
# <details><summary>Hint 1</summary>How near a value is to zero does not depend on its sign.</details>
# <details><summary>Hint 2</summary><code>torch.argsort</code> on the flattened tensor tells you in which order the values should go.</details>
# <details><summary>Hint 3</summary>Begin with a mask full of True, and write False at the places that come first in that order.</details>


# %%
def keep_mask(weight, sparsity):
    """Return True where a weight survives magnitude pruning."""
    ### BEGIN SOLUTION
    remove = round(sparsity * weight.numel())
    mask = torch.ones(weight.numel(), dtype=torch.bool)
    mask[weight.abs().flatten().argsort()[:remove]] = False
    return mask.view(weight.shape)
    ### END SOLUTION


# %%
passed = checks.check_keep_mask(keep_mask)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# Your mask in the real model: half of the weights of each linear layer are removed. The control removes as many weights at random: your mask of random numbers instead of weights.

# %% atol=0.03
if not passed:
    print(f"with all weights {accuracy(dense):.3f}; first solve exercise 1")
else:
    torch.manual_seed(0)
    smallest, control = copy.deepcopy(dense), copy.deepcopy(dense)
    for model, noisy in ((smallest, False), (control, True)):
        for layer in layers.linear_layers(model.encoder).values():
            scores = torch.rand_like(layer.weight) if noisy else layer.weight
            layer.weight.data *= keep_mask(scores.detach(), 0.5)
    shares = [metrics.sparsity(model.encoder) for model in (smallest, control)]
    print(f"zeros in the linear layers: {shares[0]:.1%}, in the control {shares[1]:.1%}")
    print(f"accuracy {accuracy(smallest):.3f}, in the control {accuracy(control):.3f}")

# %% [markdown] tags=["solution"]
# **Why.** The sign is the trap: `weight.argsort()` puts the most negative values first, and those may be the most important ones. A threshold, `weight.abs() > t`, works as well, but then you must find the `t` that removes the right number, and several equal values at the threshold would all go or all stay. Sorting meets the count exactly.

# %% [markdown]
# ## Exercise 2 · What is really stored? ★★ (10 minutes)
#
# A weight matrix is quantized to `bits` bits, in groups of `group_size` weights along each row. Write `stored_bytes(rows, columns, bits, group_size)`: the bytes that this matrix takes when
#
# - the integers are packed tightly (two 4-bit integers to a byte, four 2-bit integers to a byte);
# - each group has one scale of its own, a 16-bit float.
#
# `columns` is a multiple of `group_size`, and a row always fills whole bytes.
#
# **Predict** first: for a 384 × 384 matrix at 4 bits, how many bits does one weight cost in truth, with groups of 32? The cell below the check prints it.
#
# <details><summary>Hint 1</summary>Two parts: the integers, and the scales.</details>
# <details><summary>Hint 2</summary>How many groups are in one row? How many in the matrix?</details>
# <details><summary>Hint 3</summary>The integers take rows × columns × bits / 8 bytes.</details>


# %%
def stored_bytes(rows, columns, bits, group_size):
    """Return the bytes of packed integers and float16 scales."""
    ### BEGIN SOLUTION
    integers = rows * columns * bits // 8
    scales = rows * (columns // group_size) * 2
    return integers + scales
    ### END SOLUTION


# %%
passed = checks.check_stored_bytes(stored_bytes)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# Your size against what the library really stores for all linear layers of the encoder, at 4 bits with groups of 32:

# %%
four = copy.deepcopy(dense)
report = quantize_(four.encoder, bits=4, group_size=32)
stored = sum(four.get_submodule(f"encoder.{name}").qweight.nbytes for name in report.changed)
stored += sum(four.get_submodule(f"encoder.{name}").scale.nbytes for name in report.changed)
print(f"the library stores {stored:,} bytes of integers and scales", end="; ")
if not passed:
    print("first solve exercise 2")
else:
    shapes = [layer.weight.shape for layer in layers.linear_layers(dense.encoder).values()]
    print(f"you say {sum(stored_bytes(*shape, 4, 32) for shape in shapes):,}")
    print("bits for each weight:", stored_bytes(384, 384, 4, 32) * 8 / 384**2)

# %% [markdown] tags=["solution"]
# **Why.** "4 bits" is the width of an integer, not the price of a weight. With groups of 32, every 32 weights share 16 bits of scale: half a bit more each, so a weight costs 4.5 bits. Smaller groups fit the weights better and cost more: that trade is the subject of chapter 04. The library agrees, byte for byte.

# %% [markdown]
# ## Exercise 3 · What LoRA trains and stores ★★ (10 minutes)
#
# One linear layer has a frozen matrix of `outputs` × `inputs` values (no bias). LoRA of rank `rank` is put beside it. Write `lora_ledger(inputs, outputs, rank)`, which returns three *numbers of parameters*:
#
# 1. how many are trained;
# 2. how many are stored while the update stands beside the matrix;
# 3. how many are stored after merging.
#
# <details><summary>Hint 1</summary>A has shape (rank, inputs), B has shape (outputs, rank).</details>
# <details><summary>Hint 2</summary>Freezing a matrix does not make it disappear.</details>
# <details><summary>Hint 3</summary>What is the shape of B A?</details>


# %%
def lora_ledger(inputs, outputs, rank):
    """Return the parameters trained, stored beside, and stored merged."""
    ### BEGIN SOLUTION
    trained = rank * (inputs + outputs)
    matrix = inputs * outputs
    return trained, matrix + trained, matrix
    ### END SOLUTION


# %%
passed = checks.check_lora_ledger(lora_ledger)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# Your numbers for a rank of 8 beside the query and value matrices of all six layers, and what is there when the library has done it:

# %%
tuned = copy.deepcopy(dense)
lora.add_lora_(tuned.encoder, rank=8, targets=["query", "value"])
trained = sum(p.numel() for p in tuned.parameters() if p.requires_grad) - 770  # without the head
print(f"the library trains {trained:,} parameters", end="; ")
if not passed:
    print("first solve exercise 3")
else:
    of_each, beside, merged = lora_ledger(384, 384, 8)
    print(f"you say {12 * of_each:,}")
    print(f"the twelve matrices store {12 * beside:,} beside, {12 * merged:,} merged")

# %% [markdown] tags=["solution"]
# **Why.** The trained ledger shrinks a lot: for 384 × 384 and rank 8, from 147,456 parameters to 6,144. The stored ledger *grows*, by just those 6,144, until merging; then the product $BA$, which has the matrix's own shape, is added into it and nothing remains of the two thin ones. What LoRA does save in storage is a different thing: ten jobs on one base need ten small updates, not ten models.

# %% [markdown]
# ## Exercise 4 · Which one would you ship? ★★ (15 minutes)
#
# A ledger is there to decide with. Write `choose_row(rows, most_bytes, most_ms, margin)`:
#
# - `rows`: a list of tuples `(name, bytes, milliseconds, quality)`, one for each variant of a model; no two have equally many bytes;
# - a variant **fits** if it takes at most `most_bytes` bytes and at most `most_ms` milliseconds;
# - qualities that differ by at most `margin` count as equal: such a gap is inconclusive. So of all rows that fit, those are **as good as the best** whose quality is at most `margin` below the best quality *among the rows that fit*;
# - returns the name of the *smallest* row (in bytes) that is as good as the best; or the text `"none"` if no row fits.
#
# **Predict** first: two rows, one of 90 MB with a quality of 0.75 and one of 13 MB with 0.73. Which is returned for a margin of 0.05, and which for a margin of 0.01?
#
# <details><summary>Hint 1</summary>Three steps: who fits, what is the best quality among them, who is close enough to it.</details>
# <details><summary>Hint 2</summary>A variant that does not fit does not count at all, also not as the best.</details>
# <details><summary>Hint 3</summary><code>min(rows, key=lambda row: row[1])</code> is the row with the fewest bytes.</details>


# %%
def choose_row(rows, most_bytes, most_ms, margin):
    """Return the name of the smallest row that fits and is as good as the best."""
    ### BEGIN SOLUTION
    fitting = [row for row in rows if row[1] <= most_bytes and row[2] <= most_ms]
    if not fitting:
        return "none"
    best = max(row[3] for row in fitting)
    as_good = [row for row in fitting if best - row[3] <= margin]
    return min(as_good, key=lambda row: row[1])[0]
    ### END SOLUTION


# %%
passed = checks.check_choose_row(choose_row)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# Now a real ledger. Four variants of the classifier: as it came; 8-bit linear layers; 4 bits, the table of word embeddings too; and two of the six layers, with a head fitted anew.

# %%
variants = {"as it came": dense, "8 bits": copy.deepcopy(dense), "4 bits": copy.deepcopy(dense)}
quantize_(variants["8 bits"], bits=8)
quantize_(variants["4 bits"], bits=4, group_size=32, embeddings=4)
variants["2 layers"] = fit_head_(distillation.student_from(dense, layers=[0, 5]))

# %% clock=true atol=0.03
ledger, one = metrics.Ledger("accuracy"), {k: v[:1] for k, v in test[0].items() if k != "labels"}
ways = {name: lambda m=model: m(**one) for name, model in variants.items()}
times = metrics.latencies(ways, repeats=15)
for name, model in variants.items():
    size, quality = metrics.size_in_bytes(model), accuracy(model)
    ledger.add(name, size, quality, latency=times[name])
print(ledger)

# %% [markdown]
# Which one for which budget? The margin is 0.06, twice the standard error of an accuracy on 200 sentences (chapter 01 has a better rule for two models that answer the same sentences). Change the budgets to those of your own device.

# %%
rows = [(r.name, r.stored, 1e3 * r.latency.median, r.quality) for r in ledger.rows]
half_time = 0.6 * rows[0][2]
budgets = {
    "any size, any time": (1e9, 1e9),
    "60 % of the time": (1e9, half_time),
    "10 MB": (10e6, 1e9),
}
for name, budget in budgets.items():
    print(f"{name}:", choose_row(rows, *budget, 0.06) if passed else "first solve exercise 4")

# %% [markdown] tags=["solution"]
# **Why.** The order of the three steps matters. The best of *all* rows may not fit, and then nothing that fits would be close to it. And without the margin you would ship 90 MB for a hundredth that may be luck. The prediction: with a margin of 0.05 the 13 MB are returned, with 0.01 the 90 MB.
#
# Notice what the ledger cannot decide for you: what a point of accuracy is worth in megabytes. That stands in the budgets and in the margin, and people choose those.

# %% [markdown]
# ### Your text
#
# Write a sentence of your own. Each row of the ledger judges it: the printed number is the probability of *positive*. Can you find a sentence on which the small variants and the original disagree?

# %% atol=0.05
yours = "The plot is thin, but the actors are a joy."  # change me
tokens = tokenizer(yours, return_tensors="pt", return_token_type_ids=False)
for name, model in variants.items():
    with torch.inference_mode():
        answer = model(**tokens).logits.softmax(-1)
    print(f"{name:10} {answer[0, 1]:.2f}")

# %% [markdown]
# ## Wrap-up
#
# You wrote the mask behind pruning, the true size behind quantization, what LoRA trains and stores, and the decision that a ledger is for. Distillation waits for chapter 06; first, chapter 01 sharpens the measuring tape.
