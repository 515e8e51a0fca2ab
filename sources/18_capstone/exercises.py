# %% [markdown]
# # 18 · Capstone: exercises — the front, a promise with an interval, and the brief itself
#
# Two short exercises, 30 minutes together, and the capstone: a submission of your own. Each of the two functions is followed by one line that checks it: ✓, or ✗ and what your answer seems to believe. The submission is measured by the grader. Nothing here needs more than the course.
#
# From the command line, `lightcourse check exercises/18_capstone.ipynb` tells which checks pass.

# %%
import copy
import tempfile

import torch
from torch.nn import functional as F

import lightcourse
from lightcourse import capstone, checks, data, distillation, pruning, quantization
from lightcourse.training import Group, Recipe, train

lightcourse.setup(threads=1)

# %% [markdown]
# ## Exercise 1 · Who is beaten by nobody? ★ (15 minutes)
#
# Write `on_the_front(points)`. `points` is a tensor of shape (submissions, 3): bytes and time, of which less is better, and accuracy, of which more is better. One submission **beats** another if it is no worse in all three, and better in at least one. It returns a list of the places (from 0, in rising order) of those that nobody beats.
#
# **Predict** first: two submissions are equal in all three. Does one beat the other?
#
# <details><summary>Hint 1</summary>Turn the sign of the accuracy: then less is better in all three.</details>
# <details><summary>Hint 2</summary><code>cost[:, None] &lt;= cost</code> compares all pairs, in each of the three.</details>


# %%
def on_the_front(points):
    """Return the places of those that no other one beats."""
    ### BEGIN SOLUTION
    cost = torch.cat([points[:, :2], -points[:, 2:]], dim=1)
    no_worse = (cost[:, None] <= cost).all(dim=-1)
    better = (cost[:, None] < cost).any(dim=-1)
    beaten = (no_worse & better).any(dim=0)
    return [place for place, lost in enumerate(beaten.tolist()) if not lost]
    ### END SOLUTION


# %%
passed = checks.check_on_the_front(on_the_front)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# Roughly as in chapter 18 (the time of counting is a guess): megabytes, a share of the teacher's time, accuracy.

# %%
known = {
    "teacher": (90, 1, 0.978),
    "4 bits": (12, 0.65, 0.980),
    "few words": (57, 1, 0.974),
    "light": (4, 0.3, 0.95),
    "counting, few labels": (0.3, 0.1, 0.936),
}
if passed:
    kept = on_the_front(torch.tensor(list(known.values())))
    print([list(known)[place] for place in kept])

# %% [markdown] tags=["solution"]
# **Why.** Equal ones do not beat each other: neither is better in anything. And a front of many numbers has many on it: the more things count, the fewer are beaten. So decide what counts before you look.

# %% [markdown]
# ## Exercise 2 · Was the promise kept? ★★ (15 minutes)
#
# "At most 4 points below the teacher." Both answer the same texts. Write `kept_promise(teacher, student, points, z)`: two bool tensors of shape (texts,), where each is right; the points that may be lost, of a hundred; and `z`, how many standard errors the interval reaches. It returns four things:
#
# - **gap**: the student's accuracy minus the teacher's, in points;
# - **low, high**: the gap, minus and plus z deviations of the mean change. A text's change is −1, 0 or 1; the variance of the mean is the mean squared distance of the changes from their mean, divided by the number of texts;
# - **verdict**: 1 (met) if even the low end is within the promise, −1 (missed) if even the high end is below it, else 0 (not decided). Just at the limit is within.
#
# **Predict** first: 200 texts, a gap of −3 points. Is "at most 4 points" met?
#
# <details><summary>Hint 1</summary><code>tensor.var(correction=0)</code> divides by the count.</details>
# <details><summary>Hint 2</summary>A limit of 4 points below is −4.</details>


# %%
def kept_promise(teacher, student, points, z):
    """Return the gap in points, its ends, and 1, 0 or -1: met, not decided, missed."""
    ### BEGIN SOLUTION
    changes = student.double() - teacher.double()
    gap = changes.mean().item()
    reach = z * (changes.var(correction=0).item() / len(changes)) ** 0.5
    low, high = 100 * (gap - reach), 100 * (gap + reach)
    return 100 * gap, low, high, int(low >= -points) - int(high < -points)
    ### END SOLUTION


# %%
passed = checks.check_kept_promise(kept_promise)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# How many texts does a verdict take? A student that loses 6 of 100 answers and wins 3:

# %%
if passed:
    for times in (1, 2, 4, 8, 16):
        teacher = torch.tensor([True] * 95 + [False] * 5).repeat(times)
        student = torch.tensor([False] * 6 + [True] * 92 + [False] * 2).repeat(times)
        gap, low, high, verdict = kept_promise(teacher, student, 4, 1.96)
        print(f"{100 * times:5} texts: {gap:+.1f} ({low:+.1f} to {high:+.1f}), verdict {verdict}")

# %% [markdown] tags=["solution"]
# **Why.** With few texts, "−3 points" may be −9 or +3. The gap is the same in every row; what the texts buy is the right to say so.

# %% [markdown]
# ## Exercise 3 · The brief ★★★ (90 minutes)
#
# The capstone. Write `light(large, tokenizer, lessons, length)`:
#
# - `large`: a copy of the teacher, an `EncoderClassifier`, which you may change; `tokenizer`: its own;
# - `lessons`: 2,000 rows with `text` and `label`; `length`: how many tokens of a text are read;
# - returns a model and a tokenizer that fit into the **budget**, which is printed below.
#
# You may use anything of the course, and the texts of the whole training split without their labels. Choose by validation text, and leave the test split to the grader, which uses it unless it has texts of its own. **Leave some room**: another text and a busy machine move the last digits, and the time, which is printed here and not checked, counts for the grader. Where you take words out of the model, give the teacher the same tokenizer and table, or it reads other words than the student.
#
# <details><summary>Hint 1</summary>Which methods does each number of the budget ask for? Section 2 of the chapter.</details>
# <details><summary>Hint 2</summary>Words first: <code>pruning.tokens_of</code>, <code>smaller_tokenizer</code> and <code>remove_tokens_</code>. Then <code>distillation.student_from</code>, training, and <code>quantize_</code> at the end.</details>
# <details><summary>Hint 3</summary>Words that stand in no passage's beginning may be spelled in pieces.</details>

# %%
teacher = capstone.load_teacher()
factbook = data.load_factbook()
lessons = factbook["train"].shuffle(seed=0).select(range(2000))
print(capstone.BUDGET)


# %% [markdown] tags=["solution"]
# Words first. This is a part of the solution below.


# %% tags=["solution"]
def with_few_words_(large, tokenizer, texts, length):
    """Take words out of a model that no text's beginning holds; return its tokenizer."""
    ids = tokenizer(texts, truncation=True, max_length=length)["input_ids"]
    seen = torch.bincount(torch.tensor([token for row in ids for token in set(row)]))
    often = (seen >= 1).nonzero().flatten().tolist()
    keep = sorted({*pruning.tokens_of(tokenizer, ["a"]), *often})
    pruning.remove_tokens_(large, keep)
    return pruning.smaller_tokenizer(tokenizer, keep)


# %% [markdown]
# Here it goes:


# %%
def light(large, tokenizer, lessons, length):
    """Return a small model, and a tokenizer for it."""
    ### BEGIN SOLUTION
    few = with_few_words_(large, tokenizer, lessons["text"][:], length)
    model = distillation.student_from(large, [0, 1]).requires_grad_(True)
    model.encoder.embeddings.requires_grad_(False)
    batches = data.text_batches(lessons, few, 16, max_length=length)
    recipe = Recipe(180, 5e-4, 5, groups=[Group("head", 1e-3)])
    train(model, batches, recipe, as_the(large), progress=False)
    how = {"group_size": 64, "activations": 8, "embeddings": 4, "skip": ["head"]}
    quantization.quantize_(model, 4, **how)
    return model, few
    ### END SOLUTION


# %% [markdown]
# A loss that you may use: the teacher's answers, and its vectors of the texts.


# %%
def as_the(large):
    """Return a loss: how far a model's answers and vectors are from another one's."""

    def loss(model, batch):
        inputs = batch["input_ids"], batch["attention_mask"]
        with torch.no_grad():
            wanted = large.embed(*inputs)
            answers = large.head(wanted)
        given = model.embed(*inputs)
        spread = wanted.var(0).mean()
        return (
            distillation.forward_kl(model.head(given), answers) + F.mse_loss(given, wanted) / spread
        )

    return loss


# %% [markdown]
# The grader looks at it:

# %%
made, report = light(copy.deepcopy(teacher.model), teacher.tokenizer, lessons, 24), None
if made is not None:
    folder = tempfile.mkdtemp()
    size = capstone.save_submission(*made, folder, max_length=24)
    rows = factbook["validation"].select(range(0, 1880, 4))
    report = capstone.measure(folder, rows=rows, teacher=teacher)

# %% clock=true atol=0.05
passed = report is not None and all(report.points[name] for name in ("bytes", "quality"))
print("✓ light" if passed else "✗ light: not within the budget yet")
print(f"{100 * capstone.BUDGET.share_of_time:.0f} % of the time at most")
if report is not None:
    print(f"{100 * report.share_of_time:.0f} % of the time")
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# Then a card, `capstone.claim(folder, report, about, limits)`, and `lightcourse grade --capstone FOLDER`.

# %% [markdown] tags=["solution"]
# **Why.** Words and layers pay for the bytes, layers and integers for the time, the teacher for the quality; cut, then teach, then round. Other answers are as right: three thinner layers, fewer words and more bits. What counts is the grader's report, and that you can say what each part bought.
