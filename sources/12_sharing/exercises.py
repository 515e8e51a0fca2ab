# %% [markdown]
# # 12 · Sharing, factoring, multi-task: exercises — a shared model counted, a mixture of tasks, a leak between them, factors for a budget, a conflict
#
# Five exercises, 75 minutes together: what a shared model stores and what it runs, how often tasks of several sizes are seen, test texts that a shared encoder knows from another task, the best thin factors that some bytes pay for, and two gradients that pull apart. Each function is followed by one line that checks it: ✓, or ✗ and what your answer seems to believe. Run that line as often as you like. Then comes a cell in which your function works in a real model, beside a control. Nothing here needs more than chapters 02, 03 and 12.
#
# From the command line, `lightcourse check exercises/12_sharing.ipynb` tells which checks pass.

# %%
import copy
import math

import torch
from torch import nn

import lightcourse
from lightcourse import calibration, checks, data, layers, lora, metrics, models, sharing
from lightcourse.training import Recipe, train

lightcourse.setup(threads=1)

# %% [markdown]
# Two real models. The student is the smaller one of the tiny language models: 4 layers, 28 matrices. It learns from some speeches, and is judged by its perplexity on three texts of others (lower is better). MiniLM comes in exercise 2.

# %%
student, tokenizer = models.load_tiny_lm("student"), models.load_tiny_tokenizer()
learn, held_out = (data.speech_tokens(tokenizer, split) for split in ("validation", "test"))
texts, lessons = data.excerpts(held_out), data.token_batches(learn, 64, batch_size=8)


def tell(name, model):
    """Print the perplexity of a model on three texts, and return it."""
    found = torch.tensor([metrics.perplexity(model, text, window=128) for text in texts])
    print(f"{name:42}", *(f"{value:9.1f}" for value in found))
    return found


# %% [markdown]
# ## Exercise 1 · Stored, run, kept ★★ (15 minutes)
#
# "ALBERT has 18 times fewer parameters than BERT" is true, and says nothing of its speed. Write `count_shared(vocabulary, layer, stack, context)` for a decoder whose layers share their weights in groups:
#
# - `vocabulary`: (words, narrow, tied). The table has one row for each word, and a row is `narrow` numbers long. Where that is less than the width of the model, a matrix lies between table and layers, the **bridge**: width × narrow numbers (ALBERT's factored table). Behind the layers, the output layer does the same the other way round: over a bridge back to `narrow` numbers, where there is one, and then against each row of a table. If `tied` is True, that bridge and that table are the first ones. If not, both are its own;
# - `layer`: (width, keys, inner). A layer has seven matrices: width × width for the queries and once more behind the attention; width × keys for the keys and once more for the values; and width × inner for gate, up and down each. It has no biases, and norms are left out;
# - `stack`: (layers, groups). A token goes through so many layers. Each group of neighbours shares one set of matrices;
# - `context`: how many tokens of the text are kept in the cache.
#
# It returns three whole numbers:
#
# - **stored**: the numbers that a file would hold;
# - **run**: by how many of them the activations of **one token** are multiplied, each as often as it happens. Looking up a row multiplies nothing. What activations do with each other, in the attention, is left out;
# - **kept**: the **bytes** of the cache in float16, which has `keys` numbers for a token's key in a layer, and as many for its value.
#
# **Predict** first: 12 layers share one set of weights, and the table is tied. Which of the three become smaller: stored, run, kept?
#
# <details><summary>Hint 1</summary>Three pieces are needed again and again: the numbers of one layer, of one table, of one bridge. The bridge may be 0.</details>
# <details><summary>Hint 2</summary>In stored, a layer counts once for each group, and table and bridge once or twice. In run, who owns a number does not matter.</details>
# <details><summary>Hint 3</summary>Two layers with the same matrices are given different inputs. Can they share keys?</details>


# %%
def count_shared(vocabulary, layer, stack, context):
    """Return the numbers stored, the numbers run, and the bytes kept in the cache."""
    ### BEGIN SOLUTION
    words, narrow, tied = vocabulary
    width, keys, inner = layer
    layers, groups = stack
    block = 2 * width * (width + keys) + 3 * width * inner
    table, bridge = words * narrow, 0 if narrow == width else width * narrow
    stored = groups * block + (1 if tied else 2) * (table + bridge)
    return stored, layers * block + table + 2 * bridge, 4 * layers * keys * context
    ### END SOLUTION


# %%
passed = checks.check_count_shared(count_shared)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# **In the real model.** The student has a tied table of 2,048 words, a width of 128 in queries and keys, 384 inside, and 4 layers. The library lets them share: `share_layers_` gives each layer of a group the weights of the first one. Its numbers are asked from the model itself: matrices that are there, matrices that a token meets, and the cache after 64 tokens (in float32, so it has twice the bytes).


# %%
def in_groups(groups):
    """Return a copy of the student whose 4 layers share in groups."""
    model = copy.deepcopy(student)
    if groups < 4:
        sharing.share_layers_(model, groups)
    return model


@torch.no_grad()
def asked(model):
    """Return what a model itself tells of what is stored, run and kept."""
    stored = sum(p.numel() for p in model.parameters() if p.ndim == 2)
    cache = model(held_out[None, :64], use_cache=True).past_key_values
    kept = sum(part.nbytes for layer in cache.layers for part in (layer.keys, layer.values))
    return stored, lora.counts(model).run, kept // 2


# %% [markdown]
# Then, what sharing costs: all are trained for 12 steps. The control is the student with four layers of its own, trained for 12 steps, too. (It had learned what it could, so these only move it about.)


# %% rtol=0.06
def taught(model):
    train(model, lessons, Recipe(12, 1e-3, warmup_steps=3, seed=0), progress=False)
    return model.eval()


found = {}
for groups in (4, 2, 1):
    counted = asked(model := in_groups(groups))
    print("stored {:9,}, run {:9,}, kept {:,} bytes".format(*counted))
    if passed:
        shape = (2048, 128, True), (128, 128, 384), (4, groups), 64
        assert count_shared(*shape) == counted
    tell(f"  sets of layers: {groups}", model)
    found[groups] = tell(f"  sets of layers: {groups}, 12 steps", taught(model))
assert (found[4] < found[2]).all() and (found[2] < found[1]).all()

# %% [markdown] tags=["solution"]
# **Why.** Only stored. Twelve layers of one set are a twelfth to store. A token still goes through twelve of them, meets each number twelve times, and leaves a key and a value in each. So a shared model is as slow as another one, and its cache is as long. It fits into a smaller file and a smaller memory, and there it may be faster, where the weights of all layers would not have fit into the processor's cache.
#
# The tie is of the same kind: it halves the tables that are stored, and the output layer multiplies as before. Of the three, only the narrow table runs less. That is because it is another model, with smaller matrices.
#
# And the perplexity tells that four layers which had learned different things do not become one by decree. ALBERT was *trained* with shared layers, from the beginning and for long.

# %% tags=["solution"]
for name, vocabulary, groups in (
    ("nothing shared", (30_000, 768, False), 12),
    ("tied", (30_000, 768, True), 12),
    ("tied, 1 group", (30_000, 768, True), 1),
    ("tied, 1 group, narrow", (30_000, 128, True), 1),
):
    stored, run, kept = count_shared(vocabulary, (768, 768, 2048), (12, groups), 512)
    told = f"stored {stored / 1e6:6.1f} million, run {run / 1e6:6.1f} million"
    print(f"{name:22} {told}, kept {kept / 1e6:.1f} MB")

# %% [markdown]
# ## Exercise 2 · How often is a task seen? ★ (10 minutes)
#
# One encoder learns several tasks, and each step takes a batch of one of them. Which one? Drawn in proportion to their sizes, a small task hardly ever comes. Drawn alike, its few rows come again and again. Between the two lies a **temperature** $T$: with sizes $n_i$, the share of a task is
#
# $$p_i = \frac{\min(n_i, L)^{1/T}}{\sum_j \min(n_j, L)^{1/T}}$$
#
# $L$ is a **limit**, beyond which a task counts as no larger. (T5 was trained in such ways, with one of the two or both; Raffel et al. 2019, arXiv 1910.10683.) Write `task_shares(sizes, limit, temperature, rows)`:
#
# - `sizes`: a list of whole numbers, the rows of each task;
# - `limit`: a number, or `math.inf`: there is none;
# - `temperature`: above 0; `math.inf` gives each task the same;
# - `rows`: how many rows training draws in all, which is steps times rows in a batch;
# - returns two lists or tensors: the **shares**, and the **epochs**, which say how often a row of each task is drawn on average. Part of an epoch counts.
#
# **Predict** first: 10,000 rows of one task and 100 of another, and training draws 10,100. How often is a row of the small one seen at $T = 1$, at 2, and at infinity?
#
# <details><summary>Hint 1</summary>In Python, <code>1 / math.inf</code> is 0, and any number to the power of 0 is 1.</details>
# <details><summary>Hint 2</summary>The limit decides which share a task gets. How many rows does it have, whatever the limit is?</details>
# <details><summary>Hint 3</summary>Of all rows drawn, its share belongs to a task. They spread over the rows that it has.</details>


# %%
def task_shares(sizes, limit, temperature, rows):
    """Return each task's share of what is drawn, and how often each of its rows is drawn."""
    ### BEGIN SOLUTION
    counted = torch.tensor([min(n, limit) for n in sizes], dtype=torch.float64)
    weights = counted ** (1 / temperature)
    shares = weights / weights.sum()
    return shares, rows * shares / torch.tensor(sizes)
    ### END SOLUTION


# %%
passed = checks.check_task_shares(task_shares)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# **In the real model.** The second one is MiniLM. It is frozen, and what it sees in a text, 384 numbers, is computed once. Two tasks share a layer on top of that: is a sentence of a review positive (600 rows), and which of 13 sections of the Factbook does a passage come from (60 rows)?

# %%
minilm, words = models.load_minilm(), models.load_minilm_tokenizer()
reviews, passages = data.load_reviews(), data.load_factbook("section")


def some(split, count):
    """Return some rows of a split, always the same ones."""
    draws = torch.Generator().manual_seed(0)
    return split.select(torch.randperm(len(split), generator=draws)[:count].tolist())


def seen(rows):
    """Return what MiniLM sees in each text, and the labels."""
    batches = data.ordered_batches(rows, words, max_length=24)
    return models.embed(minilm, batches), torch.cat([batch["labels"] for batch in batches])


# %%
sentences, fresh = some(reviews["train"], 600), some(reviews["test"], 200)
training = {"sentiment": seen(sentences), "sections": seen(some(passages["train"], 60))}
testing = {"sentiment": seen(fresh), "sections": seen(some(passages["test"], 200))}


# %% [markdown]
# A layer is shared by all tasks, and each one has a head.


# %%
def answers(model, task, x):
    return model[task](model["shared"](x))


def loss_of(model, batch):
    found = answers(model, batch["task"], batch["x"])
    return nn.functional.cross_entropy(found, batch["y"])


def accuracy(model, task, x, y):
    return metrics.accuracy(answers(model, task, x).argmax(dim=1), y)


# %%
def with_heads(tasks, shares, steps, seed=0):
    """Train a shared layer with a head for each task, which come by their shares."""
    torch.manual_seed(seed)
    heads = {name: nn.Linear(64, 1 + int(y.max())) for name, (_, y) in tasks.items()}
    shared = nn.Sequential(nn.Linear(384, 64), nn.ReLU())
    model = nn.ModuleDict({"shared": shared, **heads})
    rows = {name: data.row_batches({"x": x, "y": y}, 16) for name, (x, y) in tasks.items()}
    mixed = sharing.mixed_batches(rows, dict(zip(tasks, map(float, shares), strict=True)))
    train(model, mixed, Recipe(steps, 3e-3, final=1.0, seed=seed), loss_of, progress=False)
    return model


# %% [markdown]
# Each step draws a task by its share, and takes 16 of its rows: 60 steps for each mixture, with three seeds. The control is each task alone, for all 60 steps.

# %% atol=0.03
plans = {"sentiment alone": ([1, 0], [1.6, 0]), "sections alone": ([0, 1], [0, 16])}
mixtures = {"T = 1": (math.inf, 1), "T = 2": (math.inf, 2), "T = inf": (math.inf, math.inf)}
mixtures["T = 1, limit 60"] = 60, 1
if passed:
    plans |= {name: task_shares([600, 60], *each, 60 * 16) for name, each in mixtures.items()}
    theirs = sharing.task_probabilities({"sentiment": 600, "sections": 60}, temperature=2)
    assert all(abs(a - b) < 1e-4 for a, b in zip(plans["T = 2"][0], theirs.values(), strict=True))
found = {}
for name, (shares, epochs) in plans.items():
    made = [with_heads(training, shares, 60, seed) for seed in range(3)]
    scores = [[accuracy(model, task, *testing[task]) for task in training] for model in made]
    found[name] = sentiment, sections = torch.tensor(scores).mean(dim=0).tolist()
    told = "sentiment {:.1f} epochs, {:.3f}   sections {:4.1f} epochs, {:.3f}"
    print(f"{name:16}", told.format(epochs[0], sentiment, epochs[1], sections))
assert not passed or found["T = inf"][1] > found["T = 1"][1] + 0.04

# %% [markdown] tags=["solution"]
# **Why.** At $T = 1$, a row of each task is seen once, whatever its size. At 2 the sizes count as 100 and 10, so the small task gets a share of 1/11, and each of its rows is seen 9 times. At infinity it gets half of all, and each row is seen 50 times, while half of the large task is never seen.
#
# In the cell, the small task gains much, and the large one hardly loses: it has rows enough, and seeing part of them suffices here. A limit of 60 makes both tasks alike, so in this case the two knobs do the same. What they do not do is make data. Alone, the small task sees each row 16 times, and does little better than with 8: then a row is known by heart. So look at the epochs before you choose, and not only at the shares.

# %% tags=["solution"]
for temperature in (1, 2, 5, math.inf):
    shares, epochs = task_shares([10_000, 100], math.inf, temperature, 10_100)
    print(f"T = {temperature}: shares", *(f"{s:.3f}" for s in shares), "epochs", end=" ")
    print(*(f"{e:.1f}" for e in epochs))

# %% [markdown]
# ## Exercise 3 · Spot the leak between tasks ★★ (15 minutes)
#
# Each task was split with care: no text of its training stands in its own test. Then one encoder is trained on all tasks, and each head is tested on its own test. **Predict:** where does the leak come from? Then open the specification.
#
# Write `seen_texts(tasks)`, which finds it.
#
# <details><summary>The specification (think first)</summary>
#
# - `tasks`: a list with one tuple for each task, (training, test): two lists of texts;
# - two texts are the same if they differ only by upper and lower case, by how many blanks or other white space stand in one place, and by white space at their ends. Whatever else differs makes another text;
# - returns two lists, and each of them has one list for each task, in the order of `tasks`: the places in its test (from 0, in rising order) of all texts that stand
#   - in its **own** training, and
#   - in the training of at least one **other** task.
#
# A text may be in both. If it stands twice in a test, both places are listed. Nothing is learned from a test, so two tasks may share a test text.
#
# </details>
#
# <details><summary>Hint 1</summary>A head learns from its own task alone. What lies below the heads?</details>
# <details><summary>Hint 2</summary><code>text.split()</code> without an argument cuts at any white space, and leaves none at the ends.</details>
# <details><summary>Hint 3</summary>Make a set of all training texts for each task first. What the others have learned is a union of sets.</details>


# %%
def seen_texts(tasks):
    """Return the places of test texts that were trained on, by their own task and by others."""

    ### BEGIN SOLUTION
    def key(text):
        return " ".join(text.lower().split())

    learned = [{key(text) for text in training} for training, _ in tasks]
    own, others = [], []
    for here, (_, test) in enumerate(tasks):
        rest = set().union(*learned[:here], *learned[here + 1 :])
        own.append([place for place, text in enumerate(test) if key(text) in learned[here]])
        others.append([place for place, text in enumerate(test) if key(text) in rest])
    return own, others
    ### END SOLUTION


# %%
passed = checks.check_seen_texts(seen_texts)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# **In the real model.** The 600 sentences have two labels: positive or not, and how strong the feeling is, in six classes. Somebody makes two tasks of them. Each one is shuffled by itself, and a fifth of it is kept for the test.

# %%
strength = torch.bucketize(torch.tensor(sentences["valence"]), torch.tensor([-2, -1.2, 0, 1.2, 2]))
x, sentiment = training["sentiment"]
orders = [torch.randperm(600, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)]
(test_1, train_1), (test_2, train_2) = (order.split([120, 480]) for order in orders)
lists = [[sentences["text"][row] for row in rows.tolist()] for rows in (train_1, test_1)]
lists += [[sentences["text"][row] for row in rows.tolist()] for rows in (train_2, test_2)]
own, others = seen_texts([tuple(lists[:2]), tuple(lists[2:])]) if passed else ([[], []],) * 2
told = f"in its own training {len(own[0])} of 120, in the other's {len(others[0])}"
print(f"sentiment: {told}" if passed else "First solve this exercise: then the leak stands here.")

# %% [markdown]
# What does it do? Below, the sentiment head is tested on its own 120 sentences, and on 200 fresh ones that nobody has seen. First as it was split. Then without the leak: the rows that your function found are taken out of the other task's training. The control takes out as many others, which are no leak.


# %%
def tested(rows):
    """Train both tasks, the strength on some rows; return the accuracy on both tests."""
    tasks = {"sentiment": (x[train_1], sentiment[train_1]), "strength": (x[rows], strength[rows])}
    model = with_heads(tasks, [0.5, 0.5], 800)
    tests = (x[test_1], sentiment[test_1]), testing["sentiment"]
    return [accuracy(model, "sentiment", *test) for test in tests]


found = {"as it was split": tested(train_2)}
if passed:
    leak = torch.isin(train_2, test_1[others[0]])
    found["without the leak"] = tested(train_2[~leak])
    harmless = train_2[~leak][: len(train_2) - 2 * int(leak.sum())]
    found["as many others out"] = tested(torch.cat([train_2[leak], harmless]))

# %% atol=0.05
for name, (mine, others_score) in found.items():
    print(f"{name:20} own test {mine:.3f}, fresh sentences {others_score:.3f}")
if passed:
    assert found["as it was split"][0] > found["without the leak"][0] + 0.05
    assert found["as many others out"][0] > found["without the leak"][0] + 0.03

# %% [markdown] tags=["solution"]
# **Why.** The leak comes from below the heads. The shared layer was trained on four fifths of all sentences by the *other* task, and with them on most of this task's test. It has learned by heart how strong each of those sentences is. The sentiment head has never seen them, and need not: it reads the answer from the layer below.
#
# A check of each task by itself finds nothing, since its own split is clean. And fresh sentences show how little is real of what the leak seems to gain: what 100 more sentences teach the shared layer, and no more. The score on the task's own test was too good. With many tasks from many sources this is easily overlooked. One sentence may stand in a set of sentiment, in one of paraphrases and in one of questions. The remedy is to split the texts once, before they become tasks, or to take each task's test texts out of all trainings.
#
# Where the encoder is frozen and each task has an adapter of its own, nothing leaks in this way: no task changes what another one reads.

# %% [markdown]
# ## Exercise 4 · The best factors that a budget pays for ★★ (20 minutes)
#
# A matrix $W$ may become a product $LR$ of two thin ones. The truncated singular value decomposition is the nearest product to $W$. But what shall stay is $Wx$, for inputs that really come. For these, the **second moments** $S = \frac{1}{N}\sum x x^\top$ are known, and the error is
#
# $$\frac{1}{N}\sum \lVert Wx - LRx \rVert^2 = \lVert (W - LR)\, S^{1/2} \rVert^2$$
#
# Write `factors_within(weight, moments, budget)`:
#
# - `weight`: float32 of shape (outputs, inputs); `moments`: shape (inputs, inputs). They may come from **less tokens than inputs**, and have no inverse then;
# - `budget`: **bytes**. Each number takes four;
# - if the whole matrix fits, it returns a list with just that: `[weight]`;
# - if not, it returns `[left, right]`, of shapes (outputs, rank) and (rank, inputs), with the **largest rank that fits** and the least error there is at this rank. Where not even a rank of 1 fits, both are empty: the rank is 0.
#
# Only the product counts: how its size is shared out between the two does not matter.
#
# **Predict** first: a matrix is 128 × 128. Which rank makes two factors as large as the matrix? And for 128 × 384?
#
# <details><summary>Hint 1</summary>One more rank costs one more column of left and one more row of right.</details>
# <details><summary>Hint 2</summary>Do not look for an inverse. Which directions of the <em>output</em> are large? Its second moments are $W S W^\top$, and <code>torch.linalg.svd</code> of them has the directions in the columns of <code>U</code>, the largest first.</details>
# <details><summary>Hint 3</summary>If the columns of $U$ are those directions, then $U U^\top W x$ is the part of the output that lies in them. That is a product of two thin matrices already.</details>


# %%
def factors_within(weight, moments, budget):
    """Return the whole matrix where it fits, else the two best factors that do."""
    ### BEGIN SOLUTION
    outputs, inputs = weight.shape
    if 4 * outputs * inputs <= budget:
        return [weight]
    rank = budget // (4 * (outputs + inputs))
    directions = torch.linalg.svd(weight @ moments @ weight.T).U[:, :rank]
    return [directions, directions.T @ weight]
    ### END SOLUTION


# %%
passed = checks.check_factors_within(factors_within)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# **In the real model.** All 28 matrices of the student get three quarters of their bytes each, then half. The moments come from 4,096 tokens of other speeches. The control is the same function with moments that know nothing (the identity): then the matrix itself is kept as well as can be, whatever is put in.

# %%
moments = calibration.hessians(student, [next(data.token_batches(learn, 128, 32)(0, 0))])


def factored(share, knowing):
    """Return a copy of the student whose matrices have a share of their bytes, each."""
    model = copy.deepcopy(student)
    for name, layer in layers.linear_layers(model).items():
        weight = layer.weight.data
        known = moments[name] if knowing else torch.eye(weight.shape[1])
        left, *right = factors_within(weight, known, int(share * weight.nbytes))
        layer.weight.data = left @ right[0] if right else left
    return model


# %% rtol=0.03
whole = tell("all of their bytes", student)
for share in (0.75, 0.5) if passed else ():
    control = tell(f"{share:.0%} of them, without moments", factored(share, False))
    yours = tell(f"{share:.0%} of them, your factors", factored(share, True))
    assert (whole < yours).all() and (yours < control).all()
if passed:
    assert torch.equal(
        factored(1.0, True)(held_out[None, :9]).logits, student(held_out[None, :9]).logits
    )
print("" if passed else "First solve this exercise: then your factors stand here.", end="")

# %% [markdown] tags=["solution"]
# **Why.** A rank costs outputs plus inputs. For 128 × 128 that is 256, and 64 ranks take as much as the whole matrix. For 128 × 384 it is 96 of 128. So a square matrix has to lose *half* of its ranks before a single byte is saved, and the student's matrices are not of low rank. Rounding to 4 bits saves seven eighths and costs far less.
#
# What the moments bring is large all the same. The library goes the same way: no inverse is needed, so nothing breaks where tokens are few. The way that papers take, multiply by the root of the moments, decompose, divide it out again, gives the same product where the root can be inverted.
#
# Here each matrix got the same share. Some lose much less than others, and `factor_` shares a budget out between them by what each rank gains.

# %% tags=["solution"]
weight, known = (
    student.model.layers[0].mlp.up_proj.weight.detach(),
    moments["model.layers.0.mlp.up_proj"],
)
left, right = factors_within(weight, known, weight.nbytes // 2)
theirs = sharing.low_rank(weight, left.shape[1], known)
gap = (left @ right - theirs[0] @ theirs[1]).norm() / weight.norm()
assert gap < 1e-3
print(f"rank {left.shape[1]} of 128; the library's product is the same")

# %% [markdown]
# ## Exercise 5 · Two tasks that pull apart ★★★ (15 minutes)
#
# Two tasks share parameters, and each has a gradient. Where these point in opposite directions, a step that helps one hurts the other. **PCGrad** (Yu et al. 2020, arXiv 2001.06782) takes off each gradient what points against the other one. Write `without_conflict(first, second, shared)`:
#
# - `first`, `second`: the gradients of the two tasks, each a list of tuples (name, tensor). A list holds the parameters that its task reaches: shared ones, and those of its own head. A shared parameter that it does **not** reach is missing in it: that gradient is 0. Names in both lists that are not in `shared` belong to two different parameters;
# - `shared`: a list of tuples (name, count), the parameters that both tasks may reach, with how many numbers each one has;
# - over the shared parameters, in the order of `shared`, each task has one long vector, $a$ and $b$. It returns two things: their **cosine**, $\frac{a \cdot b}{\lVert a \rVert \lVert b \rVert}$, and the **step**, as long as these vectors;
# - if the cosine is not below 0, the step is $a + b$. If it is, $a$ loses what of it points along $b$, and $b$ what points along $a$, both **as they were given**; then they are added:
#
# $$\left(a - \frac{a \cdot b}{b \cdot b}\, b\right) + \left(b - \frac{a \cdot b}{a \cdot a}\, a\right)$$
#
# A gradient of zeros has no direction: the cosine is 0 then.
#
# **Predict** first: $a$ = (1, 0) and $b$ = (−4, 3). What does the plain sum do to the first task, and what does PCGrad's step?
#
# <details><summary>Hint 1</summary><code>dict(first)</code> makes it easy to look up a name, and to see whether it is there.</details>
# <details><summary>Hint 2</summary>Build both long vectors first: <code>torch.cat</code> of flattened tensors, and zeros where a task does not reach.</details>
# <details><summary>Hint 3</summary>Compute both new vectors before you overwrite one of them.</details>


# %%
def without_conflict(first, second, shared):
    """Return the cosine of two gradients over shared parameters, and PCGrad's step."""

    ### BEGIN SOLUTION
    def long(task):
        found = dict(task)
        parts = [found.get(name, torch.zeros(count)).flatten() for name, count in shared]
        return torch.cat(parts)

    a, b = long(first), long(second)
    dot, lengths = a @ b, a.norm() * b.norm()
    if dot < 0:
        a, b = a - dot / (b @ b) * b, b - dot / (a @ a) * a
    return dot / lengths if lengths > 0 else dot, a + b
    ### END SOLUTION


# %%
passed = checks.check_without_conflict(without_conflict)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# **In the real model.** All parameters of the student are shared. Its old task is to name the next token of a speech. Two others come beside it. One is to name the next token of a Factbook passage. The other is silence: to name the end of the text, whatever came before. Tasks of this kind exist, where a model shall refuse to answer. Here it is asked for both on the same speeches.

# %%
facts = tokenizer(list(some(passages["train"], 60)["text"]), add_special_tokens=False)["input_ids"]
facts = data.token_batches(torch.tensor(sum(facts, [])), 64, batch_size=8)


# %%
def silent(batches):
    """Return batches whose labels are all the end of the text."""

    def hushed(epoch, seed):
        for batch in batches(epoch, seed):
            end = torch.full_like(batch["labels"], tokenizer.eos_token_id)
            yield {"input_ids": batch["input_ids"], "labels": end}

    return hushed


# %% [markdown]
# Your function wants lists of names and gradients.


# %%
def gradient(model, batch):
    """Return a model's gradients on a batch, by the names of its parameters."""
    model.zero_grad()
    model(**batch).loss.backward()
    return [(name, p.grad.clone()) for name, p in model.named_parameters()]


def first_two(batches):
    """Return the first two batches of a task."""
    return [batch for _, batch in zip(range(2), batches(0, 0), strict=False)]


# %% [markdown]
# **First, cosines.** Of each pair of tasks, one gives the gradient of a batch, the other that of another batch. The control are two batches of one task: nobody would say that a task is in conflict with itself. The last row is the student after two steps of silence. First stands the library's cosine, then yours.

# %% atol=0.03
practised = copy.deepcopy(student)
train(practised, silent(lessons), Recipe(2, 1e-3, final=1.0), progress=False)
shared = [(name, p.numel()) for name, p in student.named_parameters()]
pairs = {"next token, and again": (student, lessons, lessons)}
pairs["passages, and again"] = student, facts, facts
pairs["next token and passages"] = student, lessons, facts
pairs["next token and silence"] = student, lessons, silent(lessons)
pairs["the same, two steps later"] = practised, lessons, silent(lessons)
for name, (model, one, two) in pairs.items():
    both = first_two(one)[0], first_two(two)[1]
    (theirs,) = sharing.gradient_cosines(model, {"one": both[0], "two": both[1]}).values()
    found = [gradient(model, batch) for batch in both] if passed else []
    yours = float(without_conflict(*found, shared)[0]) if passed else theirs
    print(f"{name:26} {theirs:6.2f} {yours:6.2f}" if passed else f"{name:26} {theirs:6.2f}")
    assert abs(yours - theirs) < 1e-3

# %% [markdown]
# **Then, a step.** It begins at the model of the last row, and moves all parameters by a distance of 0.05 in all, along the plain sum, or along yours. How do the two losses change, on the batch from which the gradients came? The controls go along one gradient alone.


# %%
def moved(batch, other, step):
    """Return how two losses change when the model moves along a step."""
    model = copy.deepcopy(practised)
    with torch.no_grad():
        before = [model(**each).loss.item() for each in (batch, other)]
        for (name, _), part in zip(shared, step.split([n for _, n in shared]), strict=True):
            parameter = model.get_parameter(name)
            parameter -= 0.05 * (part / step.norm()).view_as(parameter)
        return [model(**e).loss.item() - old for e, old in zip((batch, other), before, strict=True)]


# %% atol=0.01
batch, other = (next(each(0, 0)) for each in (lessons, silent(lessons)))
one, two = gradient(practised, batch), gradient(practised, other)
long = [torch.cat([part.flatten() for _, part in each]) for each in (one, two)]
steps = {"next token alone": long[0], "silence alone": long[1], "plain sum": sum(long)}
steps |= {"your step": without_conflict(one, two, shared)[1]} if passed else {}
changes = {name: moved(batch, other, step) for name, step in steps.items()}
for name, change in changes.items():
    print("{:22} next token {:+.3f}, silence {:+.3f}".format(name, *change))
if passed:
    assert max(changes["your step"]) < 0

# %% [markdown] tags=["solution"]
# **Why.** The sum is (−3, 3). Against the gradient means a step of +3 along the first axis, where the first task wants −1: it gets worse. PCGrad takes off $a$ what points along $b$, and (0.36, 0.48) is left. Off $b$ it takes what points along $a$, and (0, 3) is left. The sum (0.36, 3.48) makes both better, at least for a small step.
#
# The larger gradient wins a plain sum, and that is where PCGrad helps: it promises that a small step hurts neither of two tasks. It promises nothing about where training ends. And conflicts have to be there first. Between speeches and passages the cosine is about 0, and so it is between two batches of speeches, since what the student could learn of these it has learned: what is left is the noise of a batch. Only beside that control does a cosine say something. A negative one that is no larger than the noise is no conflict. (The library leaves out what only one of the tasks reaches, and refuses a gradient of zeros. Here each task reaches everything, so both say the same.)

# %% tags=["solution"]
a, b = torch.tensor([1.0, 0]), torch.tensor([-4.0, 3])
cosine, step = without_conflict([("w", a)], [("w", b)], [("w", 2)])
print(
    f"cosine {cosine:.1f}, plain sum {(a + b).tolist()}, your step {[round(s, 2) for s in step.tolist()]}"
)

# %% [markdown]
# ## Wrap-up
#
# You counted what sharing saves and what it does not, mixed a large and a small task and saw what the small one's rows go through, found a leak that no task could see by itself, paid for factors with bytes and chose them by what really comes in, and took off two gradients what the other one would have had to bear. Sharing is one decision in all of them: what is stored once is run, trained and tested by many.
