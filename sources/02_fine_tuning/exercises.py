# %% [markdown]
# # 02 · Fine-tuning: exercises — a schedule, a stop, a split, a curve, a gradient
#
# Five small functions, each a part of what made chapter 02 honest. Each is followed by one line that checks it: ✓, or ✗ and what your answer seems to believe. Run that line as often as you like. Nothing here needs more than chapters 00 to 02.
#
# From the command line, `lightcourse check exercises/02_fine_tuning.ipynb` tells which checks pass.

# %%
import math

import torch

from lightcourse import checks

# %% [markdown]
# ## Exercise 1 · The rate of a step ★ (10 minutes)
#
# Write `rate(step, steps, peak, warmup)`, the learning rate of one step (`step` counts from 0 to `steps - 1`):
#
# - during the first `warmup` steps it climbs in equal stairs; the *last* of these steps has the rate `peak`;
# - from step `warmup` on it falls from `peak` towards 0 along half a wave of a cosine, which would reach 0 at step number `steps`;
# - `warmup` may be 0.
#
# **Predict** first: 100 steps, 10 of them warm-up. At which step has the rate fallen to half of its peak?
#
# <details><summary>Hint 1</summary>With 10 steps of warm-up, step 0 has a tenth of the peak, and step 9 all of it.</details>
# <details><summary>Hint 2</summary>For the fall you need a number that goes from 0 (at step <code>warmup</code>) to 1 (at step <code>steps</code>).</details>
# <details><summary>Hint 3</summary>cos goes from 1 to -1 while its argument goes from 0 to π. Move and shrink that so that it goes from 1 to 0.</details>


# %%
def rate(step, steps, peak, warmup):
    """Return the learning rate of one step: a climb, then half a cosine."""
    ### BEGIN SOLUTION
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup) / (steps - warmup)
    return peak * (1 + math.cos(math.pi * done)) / 2
    ### END SOLUTION


# %%
passed = checks.check_rate(rate)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown] tags=["solution"]
# **Why.** `step / warmup` looks as natural as `(step + 1) / warmup`, but then step 0 has the rate 0: a step paid for, and nothing learned. And the cosine counts from the end of the warm-up; counted from step 0 the rate would jump down where the two parts meet. The prediction: half of the peak is reached half-way *between warm-up and end*, at step 10 + 90 / 2 = 55.
#
# The library's recipe does the same:

# %% tags=["solution"]
from lightcourse.training import Recipe

recipe = Recipe(steps=100, learning_rate=0.5, warmup_steps=10)
assert all(math.isclose(rate(step, 100, 0.5, 10), recipe.rate(step)) for step in range(100))
print([round(rate(step, 100, 0.5, 10), 3) for step in (0, 9, 10, 55, 99)])

# %% [markdown]
# ## Exercise 2 · When to stop ★★ (15 minutes)
#
# A model is evaluated again and again while it trains. Write `stopping_point(losses, patience)`:
#
# - `losses`: the validation losses in the order in which they *would* be measured, a list of numbers. Lower is better;
# - training stops after `patience` evaluations in a row without a new best (an equal loss is no new best), or when the list ends;
# - returns two whole numbers: how many evaluations were made, and the index (from 0) of the one whose weights are kept.
#
# **Predict** first: `losses = [0.9, 0.7, 0.8, 0.6, 0.65, 0.62, 0.61, 0.3]`. What happens with a patience of 1, and with 3? Does a patience exist that finds the 0.3?
#
# <details><summary>Hint 1</summary>Walk through the list once, as training does. It cannot look ahead.</details>
# <details><summary>Hint 2</summary>Remember one thing only: the index of the best loss so far.</details>
# <details><summary>Hint 3</summary>How many evaluations have passed since the best one? That is a difference of two indices.</details>


# %%
def stopping_point(losses, patience):
    """Return (evaluations made, index of the one that is kept)."""
    ### BEGIN SOLUTION
    best = 0
    for index, loss in enumerate(losses):
        if loss < losses[best]:
            best = index
        if index - best == patience:
            return index + 1, best
    return len(losses), best
    ### END SOLUTION


# %%
passed = checks.check_stopping_point(stopping_point)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown] tags=["solution"]
# **Why.** Two things have to be kept apart: when to *stop*, and which weights to *keep*. Whoever stops in time but keeps the last weights has thrown away the best ones. And "in a row since the best" is not "worse than the time before": a loss that goes 0.60, 0.65, 0.62, 0.61 improves each time at the end, and is still no progress.
#
# The prediction, worked out. Patience is a bet on how long a bad stretch can last:

# %% tags=["solution"]
for patience in (1, 3, 4):
    print(patience, stopping_point([0.9, 0.7, 0.8, 0.6, 0.65, 0.62, 0.61, 0.3], patience))

# %% [markdown]
# ## Exercise 3 · Spot the bug: the split ★★ (15 minutes)
#
# This split is copied from tutorial to tutorial. **Predict:** name three things wrong with it, then open the specification below.


# %%
def copied_split(texts, labels):
    """Return (training rows, test rows)."""
    cut = len(texts) * 4 // 5
    rows = list(range(len(texts)))
    return rows[:cut], rows[cut:]


texts = (
    [f"bad thing {i}" for i in range(7)] + [f"good thing {i}" for i in range(6)] + ["GOOD thing 0 "]
)
labels = [0] * 7 + [1] * 7
train, test = copied_split(texts, labels)
print("labels in the test set:", [labels[row] for row in test])
print("training text 7:", repr(texts[7]), "· test text 13:", repr(texts[13]))

# %% [markdown]
# Write a better one, `split_rows(texts, labels, order)`.
#
# <details><summary>The specification (name the three things first)</summary>
#
# - `texts`, `labels`: lists of equal length; `order`: all row numbers, shuffled;
# - of texts that are equal, apart from upper case and blanks at their ends, only the first one of the *file* is used;
# - the rows are visited in the order of `order`. Of each label the 1st, 6th, 11th, … row that is visited and used goes to the test, the others to training;
# - returns two lists of row numbers, training and test, each in the order of the visits.
#
# </details>
#
# <details><summary>Hint 1</summary>Which answer is always right on this test set? Which text stands on both sides? And where does a label with five rows end up? (The file has an order and duplicates, and a rare label may land wholly on one side.)</details>
# <details><summary>Hint 2</summary>First make a list of keys, <code>text.strip().lower()</code>. A row is a first one if its key stands nowhere before it.</details>
# <details><summary>Hint 3</summary>Keep a counter for each label, for instance in a dict. <code>count % 5 == 1</code> picks the 1st, 6th, 11th.</details>


# %%
def split_rows(texts, labels, order):
    """Return (training rows, test rows): shuffled, every label with two rows or more on both sides."""
    ### BEGIN SOLUTION
    keys = [text.strip().lower() for text in texts]
    counts = dict.fromkeys(labels, 0)
    training, testing = [], []
    for row in order:
        if keys.index(keys[row]) < row:
            continue  # this text has stood in the file before
        counts[labels[row]] += 1
        (testing if counts[labels[row]] % 5 == 1 else training).append(row)
    return training, testing
    ### END SOLUTION


# %%
passed = checks.check_split_rows(split_rows)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown] tags=["solution"]
# **Why.** Each of the three bugs lies in its own direction. A sorted file makes a test of one class, on which a constant answer looks perfect. A duplicate on both sides makes a test that memory alone can pass. And without counting by label, a class with five examples may have all of them on one side.
#
# (`keys.index` searches the list again for every row, which is fine for thousands of rows; for millions you would keep a dict. The library's splits put texts into an order that looks random by a checksum of the text itself, so that nobody needs a seed.)

# %% tags=["solution"]
order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(0)).tolist()
train, test = split_rows(texts, labels, order)
assert {labels[row] for row in test} == {0, 1} and not ({7, 13} <= {*train, *test})
print("test:", test, "labels:", [labels[row] for row in test])

# %% [markdown]
# ## Exercise 4 · How many examples more? ★★ (15 minutes)
#
# You measured the error of a classifier at several sizes of the training set. Your boss asks how many labelled examples an error of `target` would take. Write `examples_needed(counts, errors, target)`:
#
# - assume a power law, $\text{error} = b \cdot n^{-c}$. Then $\ln \text{error} = \ln b - c \ln n$ is a straight line in $\ln n$;
# - fit that line to all points by least squares;
# - return the number of examples, in all, at which the line meets the target (a float will do).
#
# **Predict** first: if $c = 1/2$, how many times more examples halve the error? And if $c = 1/4$?
#
# <details><summary>Hint 1</summary><code>numpy.polyfit(x, y, 1)</code> returns slope and height of the least-squares line.</details>
# <details><summary>Hint 2</summary>The slope is negative: it is -c.</details>
# <details><summary>Hint 3</summary>Solve ln(target) = height + slope · ln n for ln n. Then undo the logarithm.</details>


# %%
def examples_needed(counts, errors, target):
    """Return how many examples a fitted power law wants for an error of ``target``."""
    ### BEGIN SOLUTION
    x, y = (torch.tensor(values, dtype=torch.float64).log() for values in (counts, errors))
    slope = ((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum()
    height = y.mean() - slope * x.mean()
    return ((math.log(target) - height) / slope).exp().item()
    ### END SOLUTION


# %%
passed = checks.check_examples_needed(examples_needed)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown] tags=["solution"]
# **Why.** The function takes the three steps of the task: logarithms, a line (its slope, then its height), and the way back. Halving the error takes $2^{1/c}$ times the examples: 4 times for $c = 1/2$, 16 times for $c = 1/4$, 1,024 times for $c = 1/10$. That is why the exponent must be fitted and not guessed. And why a fit far beyond the last point is a bet: the law may bend, for instance towards an error that no number of examples removes, because people disagree about the labels.

# %% tags=["solution"]
for c in (0.5, 0.25, 0.1):
    errors = [0.4 * (n / 100) ** -c for n in (100, 200, 400)]
    print(f"c = {c}: {examples_needed([100, 200, 400], errors, 0.2):,.0f} examples instead of 100")

# %% [markdown]
# ## Exercise 5 · The gradients of A and B ★★★ (20 minutes)
#
# LoRA computes with $W' = W + \frac{\alpha}{r} B A$. Suppose you know `gradient`, the derivative of the loss by each entry of $W'$, a tensor of shape (outputs, inputs). Derive, on paper, the derivatives by the entries of $A$ and of $B$. Then write `lora_gradients(gradient, a, b, alpha)`:
#
# - `a` of shape (rank, inputs), `b` of shape (outputs, rank), `alpha` a number;
# - returns two tensors: the gradient of A, shaped like `a`, and the gradient of B, shaped like `b`. No autograd, please.
#
# **Predict** first: B is zero. Which gradients are zero at the *second* step? And if A were zero and B random?
#
# <details><summary>Hint 1</summary>Write one entry: $W'_{ij} = W_{ij} + \frac{\alpha}{r}\sum_k B_{ik} A_{kj}$. What does a small change of $B_{ik}$ do to it?</details>
# <details><summary>Hint 2</summary>$B_{ik}$ moves every $W'_{ij}$ of row $i$, by $\frac{\alpha}{r} A_{kj}$. Sum these over $j$, each times its gradient: that is a product of matrices.</details>
# <details><summary>Hint 3</summary>The shapes leave no other way: (outputs, inputs) times (inputs, rank) is shaped like B. What makes (rank, inputs)?</details>


# %%
def lora_gradients(gradient, a, b, alpha):
    """Return the gradients of A and of B, given that of the whole matrix."""
    ### BEGIN SOLUTION
    scaling = alpha / a.shape[0]
    of_a = scaling * b.T @ gradient
    of_b = scaling * gradient @ a.T
    return of_a, of_b
    ### END SOLUTION


# %%
passed = checks.check_lora_gradients(lora_gradients)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown] tags=["solution"]
# **Why.** $\frac{\partial L}{\partial B_{ik}} = \sum_j \frac{\partial L}{\partial W'_{ij}} \cdot \frac{\alpha}{r} A_{kj}$, which is $\frac{\alpha}{r}\, G A^\top$; and in the same way $\frac{\alpha}{r}\, B^\top G$ for A. Each factor's gradient contains the *other* factor. So with B = 0 the gradient of A is zero and that of B is not: B moves first, A from the second step on. So at the second step neither is zero. With A = 0 and B random it is the other way round: A moves first, B follows, and nothing was damaged at the start either; which of the two is zero does not matter. With both at zero, both gradients are zero, for ever: nothing is learned, and no error tells you.
#
# A derivation is checked by numbers. Here on a layer of the library, by autograd, and by a small step in one entry:

# %% tags=["solution"]
from lightcourse.lora import LoRALinear

torch.manual_seed(0)
layer = LoRALinear(torch.nn.Linear(6, 5).double(), rank=2, alpha=3.0).double()
layer.lora_b.data.normal_()
x, wanted = torch.randn(8, 6).double(), torch.randn(8, 5).double()
error = layer(x) - wanted
(error**2).sum().backward()
of_a, of_b = lora_gradients(2 * error.detach().T @ x, layer.lora_a.data, layer.lora_b.data, 3.0)
assert torch.allclose(of_a, layer.lora_a.grad) and torch.allclose(of_b, layer.lora_b.grad)

# %% tags=["solution"]
step = 1e-6
with torch.no_grad():
    before = ((layer(x) - wanted) ** 2).sum()
    layer.lora_b[3, 1] += step
    after = ((layer(x) - wanted) ** 2).sum()
slope = (after - before) / step
print(f"slope by a small step {slope:.3f}, by the formula {of_b[3, 1]:.3f}")
assert math.isclose(slope, of_b[3, 1], rel_tol=1e-3)

# %% [markdown]
# ## Wrap-up
#
# You wrote the schedule and the stop of a careful training loop, the split without which its figures mean nothing, the curve that tells what more data would bring, and the two gradients behind LoRA. Chapter 03 takes weights away, and trains to make up for it.
