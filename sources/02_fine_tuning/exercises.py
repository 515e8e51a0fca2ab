# %% [markdown]
# # 02 · Fine-tuning: exercises — a split, a stop, a rate, LoRA's layer and its gradients, a rehearsal
#
# Six small functions, each a part of what makes fine-tuning honest. Each is followed by one line that checks it: ✓, or ✗ and what your answer seems to believe. Run that line as often as you like. Below it your function works with a real model. Nothing here needs more than chapters 00 to 02.
#
# From the command line, `lightcourse check exercises/02_fine_tuning.ipynb` tells which checks pass.

# %%
import copy
import math

import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import RidgeClassifier

import lightcourse
from lightcourse import checks, data, layers, lora, metrics, models
from lightcourse.training import Recipe, train

lightcourse.setup()
reviews = data.load_reviews()

# %% [markdown]
# ## Exercise 1 · Spot the bug: the split ★★ (15 minutes)
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
rows = copied_split(texts, labels)[1]
print("labels in the test set:", [labels[row] for row in rows])
print("training text 7:", repr(texts[7]), "· test text 13:", repr(texts[13]))

# %% [markdown]
# Write a better one, `split_rows(texts, labels, order)`.
#
# <details><summary>The specification (name the three things first)</summary>
#
# - `texts`, `labels`: lists of equal length; `order`: all row numbers, shuffled;
# - **no text twice:** texts that are equal, apart from upper case and blanks at their ends, are one text. Of them only the row that stands first in the *file* is used. (Which of them stays does not matter. The rule is there so that it does not depend on the shuffling.)
# - **shuffled:** walk through `order`, and leave out the rows that are not used;
# - **every label on both sides:** of each label's rows, in the order of the walk, the first goes to the test, the next four to training, then again one to the test and four to training, and so on. So a fifth of each label is tested, and a label with two rows has one on each side;
# - returns two lists of row numbers, training and test, each in the order of the walk.
#
# </details>
#
# <details><summary>Hint 1</summary>Which answer is always right on this test set? Which text stands on both sides? And where does a label with five rows end up? (The file has an order and duplicates, and a rare label may land wholly on one side.)</details>
# <details><summary>Hint 2</summary>First make a list of keys, <code>text.strip().lower()</code>. A row is a first one if its key stands nowhere before it.</details>
# <details><summary>Hint 3</summary>Keep a counter for each label, for instance in a dict. One row of five goes to the test: those for which <code>count % 5</code> has one certain value.</details>


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

# %% [markdown]
# A real model that counts words (TF-IDF), on 500 sentences of reviews in a file that is sorted by label, as files often are. Every fourth sentence stands in it twice. What does each split tell of the same model?

# %% atol=0.03
some = reviews["train"].select(range(500))
file = sorted(zip(some["label"], some["text"], strict=True))
twice = [row for i, row in enumerate(file) for _ in range(1 + (i % 4 == 0))]
labels, texts = map(list, zip(*twice, strict=True))
shuffled = torch.randperm(len(texts), generator=torch.Generator().manual_seed(0)).tolist()
splits = {"copied": copied_split(texts, labels)}
splits |= {"yours": split_rows(texts, labels, shuffled)} if passed else {}
for name, (train_rows, test_rows) in splits.items():
    counter, model = TfidfVectorizer(), RidgeClassifier()
    counts = counter.fit_transform([texts[row] for row in train_rows])
    model.fit(counts, [labels[row] for row in train_rows])
    truth = [labels[row] for row in test_rows]
    right = model.score(counter.transform([texts[row] for row in test_rows]), truth)
    print(f"{name}: labels in the test set {sorted(set(truth))}, accuracy {right:.3f}")
print("" if passed else "first solve exercise 1", end="")

# %% [markdown] tags=["solution"]
# **Why.** Each of the three bugs lies in its own direction. A sorted file makes a test of one class, on which a constant answer looks perfect. A duplicate on both sides makes a test that memory alone can pass. And without counting by label, a class with five examples may have all of them on one side.
#
# (`keys.index` searches the list again for every row, which is fine for thousands of rows; for millions you would keep a dict. The library's splits put texts into an order that looks random by a checksum of the text itself, so that nobody needs a seed.)

# %% [markdown]
# ## Exercise 2 · When to stop ★★ (15 minutes)
#
# A model is evaluated again and again while it trains. Write `stopping_point(losses, patience)`:
#
# - `losses`: the validation losses in the order in which they *would* be measured, a list of numbers. Lower is better;
# - training stops after `patience` evaluations in a row without a new best (an equal loss is no new best), or when the list ends;
# - returns two whole numbers: how many evaluations were made, and the index (from 0) of the one whose weights are kept.
#
# An example: `stopping_point([0.9, 0.7, 0.8, 0.75, 0.6], 2)` is `(4, 1)`. The best is the 0.7 at index 1; the two evaluations after it are no new best, so training stops after four evaluations, and never sees the 0.6.
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

# %% [markdown]
# A real training: a small network on MiniLM's features of 128 sentences, evaluated after every eight steps on 256 others. The losses below are those of a run to its end; your function tells where it would have stopped.

# %%
minilm, words = models.load_minilm(), models.load_minilm_tokenizer()
few = reviews["train"].select(range(384))
batches = data.ordered_batches(few, words, max_length=24)
x, y = models.embed(minilm, batches), torch.cat([batch["labels"] for batch in batches])
net = torch.nn.Sequential(torch.nn.Linear(384, 128), torch.nn.ReLU(), torch.nn.Linear(128, 2))


def loss_of(model, batch):
    """Return the cross-entropy of a batch of features."""
    return torch.nn.functional.cross_entropy(model(batch["x"]), batch["y"])


# %% atol=0.03
rows = data.row_batches({"x": x[:128], "y": y[:128]}, batch_size=32)
aside = {"x": x[128:], "y": y[128:]}
recipe = Recipe(steps=320, learning_rate=2e-3, final=1.0, evaluate_every=8)
history = train(net, rows, recipe, loss_of, lambda m: loss_of(m, aside).item(), progress=False)
losses = [loss for _, loss in history.evaluations]
print(f"to the end: loss {losses[-1]:.2f}, the lowest of all {min(losses):.2f}")
for patience in (1, 3, 8):
    made, kept = stopping_point(losses, patience) if passed else (0, 0)
    saved = 1 - made / len(losses)
    told = f"{saved:.0%} of the steps saved, loss {losses[kept]:.2f}"
    print(f"patience {patience}: {told if passed else 'first solve exercise 2'}")

# %% [markdown] tags=["solution"]
# **Why.** Two things have to be kept apart: when to *stop*, and which weights to *keep*. Whoever stops in time but keeps the last weights has thrown away the best ones. And "in a row since the best" is not "worse than the time before": a loss that goes 0.60, 0.65, 0.62, 0.61 improves each time at the end, and is still no progress.
#
# The prediction, worked out. Patience is a bet on how long a bad stretch can last:

# %% tags=["solution"]
for patience in (1, 3, 4):
    print(patience, stopping_point([0.9, 0.7, 0.8, 0.6, 0.65, 0.62, 0.61, 0.3], patience))

# %% [markdown]
# ## Exercise 3 · Choose a rate without the test set ★★ (15 minutes)
#
# Each learning rate was tried with some seeds, and after each run two losses were measured, one on validation text and one on test text. Write `choose_rate(rates, validation, test)`:
#
# - `rates`: a list of learning rates;
# - `validation`, `test`: for each rate a list of losses, one for each seed. Lower is better. Some rates were tried with more seeds than others;
# - returns three numbers: **the rate** to use, that with the lowest *mean* validation loss; **the loss to report**, the mean test loss of that rate; and **the flattery**: by how much lower a loss one would have reported by choosing the rate whose mean test loss is lowest.
#
# **Predict** first: twenty rates are all equally good, and only chance makes their losses differ. Is the flattery zero?
#
# <details><summary>Hint 1</summary>The test losses play no part in the choice.</details>
# <details><summary>Hint 2</summary><code>means.index(min(means))</code> is the place of the lowest mean.</details>
# <details><summary>Hint 3</summary>The flattery is a difference of two means of test losses, and never negative.</details>


# %%
def choose_rate(rates, validation, test):
    """Return (the rate chosen on validation text, its test loss, the flattery)."""
    ### BEGIN SOLUTION
    on_validation = [sum(losses) / len(losses) for losses in validation]
    on_test = [sum(losses) / len(losses) for losses in test]
    chosen = on_validation.index(min(on_validation))
    return rates[chosen], on_test[chosen], on_test[chosen] - min(on_test)
    ### END SOLUTION


# %%
passed = checks.check_choose_rate(choose_rate)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# Now a real search. The tiny student, which has read nothing but speeches, is trained on Factbook passages for 8 steps, at three rates and with two seeds. Validation and test texts are of countries of their own.

# %%
tiny, factbook = models.load_tiny_tokenizer(), data.load_factbook()


def tokens_of(split, count):
    """Return the tokens of the first passages of a split, an end token behind each."""
    encoded = tiny(factbook[split]["text"][:count], add_special_tokens=False, verbose=False)
    return torch.tensor([t for ids in encoded["input_ids"] for t in [*ids, tiny.eos_token_id]])


lessons = data.token_batches(tokens_of("train", 400), window=64, batch_size=8)
texts_aside = [tokens_of(split, 60)[:513] for split in ("validation", "test")]

# %% rtol=0.02
rates, found = [1e-4, 1e-3, 1e-2], {"validation": [], "test": []}
for rate in rates:
    runs = [copy.deepcopy(models.load_tiny_lm("student")) for _ in range(2)]
    for seed, model in enumerate(runs):
        train(model, lessons, Recipe(8, rate, warmup_steps=2, seed=seed), progress=False)
    for losses, text in zip(found.values(), texts_aside, strict=True):
        losses.append([metrics.cross_entropy(model, text, window=64) for model in runs])
    print(f"rate {rate:g}: validation {sum(found['validation'][-1]) / 2:.2f}")
if passed:
    chosen, reported, flattery = choose_rate(rates, *found.values())
    print(f"chosen: {chosen:g}; test loss to report {reported:.2f}; flattery {flattery:.2f}")
else:
    print("first solve exercise 3")

# %% [markdown] tags=["solution"]
# **Why.** The lowest of many means is low partly by luck, and the luck is spent on the text that it was found on. So the figure to report must come from a text that chose nothing. Taking the best *seed* instead of the mean makes it worse: it is one more choice. The prediction: the flattery is *not* zero. Here are twenty rates that differ by chance alone:

# %% tags=["solution"]
torch.manual_seed(5)
equal = [(2 + 0.1 * torch.randn(20, 3)).tolist() for _ in range(2)]
print("chosen on validation, reported and flattery:")
print([round(value, 3) for value in choose_rate(list(range(20)), *equal)[1:]])

# %% [markdown]
# ## Exercise 4 · LoRA's layer, beside and merged ★★ (15 minutes)
#
# Write the layer itself, `lora_layer(x, weight, bias, a, b, alpha)`:
#
# - `x`: shape (…, inputs), any number of dimensions before the last one;
# - `weight`: shape (outputs, inputs), frozen; `bias`: shape (outputs,);
# - `a`: shape (rank, inputs); `b`: shape (outputs, rank); `alpha`: a number;
# - returns two tensors: the **output** of the layer with its update beside the frozen matrix, $W x + \text{bias} + \frac{\alpha}{r} B (A x)$; and the **merged** matrix, with which an ordinary layer computes the same.
#
# Compute the output without ever making a matrix of the shape of `weight`: that is what keeps training light.
#
# **Predict** first: with 384 inputs and outputs and a rank of 8, how many multiplications does the update add for one token, beside the 147,456 of the frozen matrix? And how many after merging?
#
# <details><summary>Hint 1</summary>The vectors are the rows of x, so W x is <code>x @ weight.T</code>.</details>
# <details><summary>Hint 2</summary>First down to `rank` numbers, with A; then up again, with B.</details>
# <details><summary>Hint 3</summary>The merged matrix has the shape of `weight`. The bias stays where it is.</details>


# %%
def lora_layer(x, weight, bias, a, b, alpha):
    """Return the output with LoRA beside the matrix, and the merged matrix."""
    ### BEGIN SOLUTION
    scaling = alpha / len(a)
    output = x @ weight.T + bias + scaling * (x @ a.T) @ b.T
    return output, weight + scaling * b @ a
    ### END SOLUTION


# %%
passed = checks.check_lora_layer(lora_layer)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# Your layer in a real model: `Beside` computes by your function, and only its a and b are trained. It takes the place of all 28 linear layers of the tiny student, which then learns the passages of exercise 3. Afterwards your merged matrices go back into ordinary layers.


# %%
class Beside(torch.nn.Module):
    def __init__(self, base):
        super().__init__()
        self.weight, outputs = base.weight.detach(), base.out_features
        self.bias, self.alpha = torch.zeros(outputs), 16.0
        self.a = torch.nn.Parameter(torch.randn(8, base.in_features) / math.sqrt(base.in_features))
        self.b = torch.nn.Parameter(torch.zeros(outputs, 8))

    def forward(self, x):
        return lora_layer(x, self.weight, self.bias, self.a, self.b, self.alpha)[0]

    def merged(self):
        x = self.weight[:1]
        return lora_layer(x, self.weight, self.bias, self.a, self.b, self.alpha)[1].detach()


# %% rtol=0.02
model = models.load_tiny_lm("student").requires_grad_(False)
before = metrics.perplexity(model, texts_aside[1], window=64)
print(f"perplexity on unseen passages: before {before:.1f}", end=", ")
if not passed:
    print("first solve exercise 4")
else:
    beside = {name: Beside(base) for name, base in layers.linear_layers(model).items()}
    merged = copy.deepcopy(model)
    for name, layer in beside.items():
        layers.replace_(model, name, layer)
    train(model, lessons, Recipe(8, 1e-2, warmup_steps=2), progress=False)
    print(f"beside {metrics.perplexity(model, texts_aside[1], window=64):.1f}", end=", ")
    for name, own in beside.items():
        merged.get_submodule(name).weight.data = own.merged()
    print(f"merged {metrics.perplexity(merged, texts_aside[1], window=64):.1f}")

# %% [markdown] tags=["solution"]
# **Why.** `x @ a.T` has only 8 numbers for each token, so the update costs 384 × 8 + 8 × 384 = 6,144 multiplications more, 4 %. `x @ (b @ a).T` gives the same numbers, and makes a whole matrix for it. After merging nothing is added: the model is an ordinary one again. The bias belongs to the output once, not to the update.

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

# %% [markdown]
# In a real model: one matrix of the tiny student carries an update whose B is no longer zero. Autograd differentiates the loss of eight passages by A and by B; your function gets nothing but the gradient of the matrix.

# %%
torch.manual_seed(0)
student, target = models.load_tiny_lm("student"), "model.layers.1.mlp.down_proj"
lora.add_lora_(student, rank=4, alpha=8.0, targets=[target])
update = student.get_submodule(target)
update.lora_b.data.normal_(std=0.02)
update.base.weight.requires_grad_(True)
student(**next(iter(lessons(0, 0)))).loss.backward()
print("autograd's gradients:", tuple(update.lora_a.grad.shape), tuple(update.lora_b.grad.shape))
if passed:
    ours = lora_gradients(update.base.weight.grad, update.lora_a.data, update.lora_b.data, 8.0)
    for name, got, wanted in zip("AB", ours, (update.lora_a.grad, update.lora_b.grad), strict=True):
        error = (got - wanted).abs().max() / wanted.abs().max()
        print(f"{name}: largest difference below 0.1 %: {bool(error < 1e-3)}")
else:
    print("first solve exercise 5")

# %% [markdown] tags=["solution"]
# **Why.** $\frac{\partial L}{\partial B_{ik}} = \sum_j \frac{\partial L}{\partial W'_{ij}} \cdot \frac{\alpha}{r} A_{kj}$, which is $\frac{\alpha}{r}\, G A^\top$; and in the same way $\frac{\alpha}{r}\, B^\top G$ for A. Each factor's gradient contains the *other* factor. So with B = 0 the gradient of A is zero and that of B is not: B moves first, A from the second step on. So at the second step neither is zero. With A = 0 and B random it is the other way round: A moves first, B follows, and nothing was damaged at the start either; which of the two is zero does not matter. With both at zero, both gradients are zero, for ever: nothing is learned, and no error tells you.
#
# A derivation is checked by numbers: above by autograd, and here by a small step in one entry of B of a layer of the library.

# %% tags=["solution"]
from lightcourse.lora import LoRALinear

torch.manual_seed(5)
layer = LoRALinear(torch.nn.Linear(6, 5).double(), rank=2, alpha=3.0).double()
layer.lora_b.data.normal_()
x, wanted = torch.randn(8, 6).double(), torch.randn(8, 5).double()
gradient = 2 * (layer(x) - wanted).detach().T @ x
of_a, of_b = lora_gradients(gradient, layer.lora_a.data, layer.lora_b.data, 3.0)
with torch.no_grad():
    earlier = ((layer(x) - wanted) ** 2).sum()
    layer.lora_b[3, 1] += 1e-6
    slope = (((layer(x) - wanted) ** 2).sum() - earlier) / 1e-6
print(f"slope by a small step {slope:.3f}, by the formula {of_b[3, 1]:.3f}")
assert math.isclose(slope, of_b[3, 1], rel_tol=1e-3)

# %% [markdown]
# ## Exercise 6 · Rehearse against forgetting ★★ (15 minutes)
#
# A model that is trained on new text forgets the old. The oldest remedy: let some of the training windows come from the old text. Write `rehearse(new, old, share)`:
#
# - `new`, `old`: tensors of tokens, one window in each row, equally wide;
# - `share`: the share of *all* windows that shall be old, from 0 to below 1;
# - returns one tensor of windows: every new window once, and beside them so many old ones, rounded to a whole number, that their share of all is `share`. The old windows are taken in their order; where they run out, begin again with the first;
# - in which order the windows stand does not matter: the training shuffles them.
#
# **Predict** first: 300 new windows, and a quarter of all shall be old. How many old windows is that?
#
# <details><summary>Hint 1</summary>With k old windows there are len(new) + k in all. Which k makes k / (len(new) + k) = share?</details>
# <details><summary>Hint 2</summary>Solve it for k: what is len(new) as a share of all?</details>
# <details><summary>Hint 3</summary><code>torch.arange(k) % len(old)</code> counts 0, 1, 2, … and begins again.</details>


# %%
def rehearse(new, old, share):
    """Return all new windows, and so many old ones that they are a share of all."""
    ### BEGIN SOLUTION
    count = round(share * len(new) / (1 - share))
    places = torch.arange(count) % len(old)
    return torch.cat([new, old[places]])
    ### END SOLUTION


# %%
passed = checks.check_rehearse(rehearse)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# The tiny student learns Factbook passages in 20 steps, without old windows and with a quarter of them. The old ones are speeches that it has not been tested on. What does each run learn, and what does it forget?

# %% rtol=0.03
new = tokens_of("train", 400)[: 256 * 64].view(-1, 64)
old = data.speech_tokens(tiny, "validation")[: 40 * 64].view(-1, 64)
speech = data.speech_tokens(tiny, "test")[:1025]
model = models.load_tiny_lm("student")
print(f"before: passages {before:.1f}, speech {metrics.perplexity(model, speech, window=64):.1f}")
for share in (0.0, 0.25) if passed else ():
    mixed = rehearse(new, old, share)
    rows, model = {"input_ids": mixed, "labels": mixed}, models.load_tiny_lm("student")
    batches = data.row_batches(rows, batch_size=8)
    train(model, batches, Recipe(20, 1e-3, warmup_steps=3), progress=False)
    both = [metrics.perplexity(model, text, window=64) for text in (texts_aside[1], speech)]
    print(f"{share:.0%} old: passages {both[0]:.1f}, speech {both[1]:.1f}")
print("" if passed else "first solve exercise 6", end="")

# %% [markdown] tags=["solution"]
# **Why.** The share is one of *all* windows. If a quarter is old, three quarters are new, so there are 300 / 0.75 = 400 in all, and 100 of them are old. 300 × 0.25 = 75 would be a fifth. In the runs above the one with a quarter of old windows forgets less, and learns less: fewer of the same number of steps are spent on the new text.

# %% [markdown]
# ## Wrap-up
#
# You wrote the split, the stop and the choice of a rate without which no figure of a fine-tuned model means anything, LoRA's layer with its two gradients, and the remedy against forgetting. Chapter 03 takes weights away, and trains to make up for it.
