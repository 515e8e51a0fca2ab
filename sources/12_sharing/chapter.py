# %% [markdown]
# # 12 · Sharing, factoring, multi-task — weights that serve more than once, and what that saves
#
# **You will be able to**
#
# - let layers share their weights, and tell what that saves (bytes) and what it does not (time);
# - split a matrix into two thin ones, by its weights or by its outputs, under a budget of bytes;
# - answer three tasks with one encoder, and measure whether they are in each other's way;
# - sample tasks of very different sizes;
# - decide which layers to freeze, by how much data there is.
#
# **You need:** chapters 02, 04, 07 and 08. **Time:** 63 minutes of reading, 24 for the parts marked ★ (the fast path). The whole notebook runs in about a minute.
#
# Below each **Predict**, write your guess into the next cell, in place of the dots.

# %%
import copy
import functools
import itertools
import math
import statistics
from concurrent.futures import ThreadPoolExecutor

import matplotlib.pyplot as plt
import torch
from datasets import Dataset
from torch import nn

# %%
import lightcourse
from lightcourse import (
    calibration,
    data,
    layers,
    metrics,
    models,
    plots,
    pruning,
    quantization,
    sharing,
)
from lightcourse.guessing import compare
from lightcourse.training import Group, Recipe, train

# %% [markdown]
# Two models are trained beside each other, so each gets one thread:

# %%
lightcourse.setup(threads=1)
seeds = (0, 1, 2)


def each(function, *rows):
    """Call a function for each row, two at a time: one on each core."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(function, *rows))


# %% [markdown]
# ## ★ 1 · One layer, used again and again
#
# A transformer is a stack of layers that are built alike. **ALBERT** (Lan et al. 2019, arXiv 1909.11942) asks whether they need weights of their own: in it *one* layer is run twelve times. `share_layers_(model, groups)` does that to any stack: neighbouring layers use the same weights, and there are `groups` sets of them.
#
# The model is the tiny *student*: four layers, and a table of 2,048 words that is its output layer, too. (Such a **tied** table is sharing as well, and nearly all small models do it.)
#
# **Predict:** with one layer in place of four, how many percent of the model's bytes are left?

# %%
guess = ...  # percent
dense, tokenizer = models.load_tiny_lm("student"), models.load_tiny_tokenizer()
shared = copy.deepcopy(dense)
sharing.share_layers_(shared, groups=1)
first, *_, last = shared.model.layers
assert first.mlp.up_proj.weight is last.mlp.up_proj.weight
compare(guess, 100 * metrics.size_in_bytes(shared) / metrics.size_in_bytes(dense), "%", "counted")

# %% [markdown]
# More than a quarter, for the table of words is not in any layer. And how much time is saved? A text of 128 tokens, with four layers, with one that is run four times, and with one layer and nothing else (`remove_layers_`, chapter 07):

# %% clock=true
once = copy.deepcopy(dense)
pruning.remove_layers_(once, [1, 2, 3])
some = {"4 layers": dense, "1, four times": shared, "1, once": once}
ids = torch.arange(128)[None]
calls = {name: torch.no_grad()(lambda model=model: model(ids)) for name, model in some.items()}
clocks = {name: c.median for name, c in metrics.latencies(calls, repeats=9).items()}
for name, seconds in clocks.items():
    print(f"{name:14} {metrics.size_in_bytes(some[name]):9,} bytes, {1e3 * seconds:.1f} ms")
assert clocks["1, once"] < 0.8 * clocks["1, four times"]

# %% [markdown]
# **Sharing saves bytes, not work**: four layers are run, whoever owns the weights. Each has keys and values of its own in the cache, too.
#
# ## 2 · What a trained model loses
#
# ALBERT is trained with shared layers from the start. We have a model that is already trained. So there is a rival of *exactly* the same bytes: keep the same layers, and run each of them once. Its layers do half of the work, or a quarter.
#
# Both are **healed** for 12 steps on other speeches than they are judged on. Each gets a search of two rates, judged on validation text, and three seeds, each with a text of its own.

# %%
learn, held_out = (data.speech_tokens(tokenizer, split) for split in ("validation", "test"))
lessons, validation = data.token_batches(learn[:200_000], 64, 4), learn[200_000:202_049]
passages = data.excerpts(held_out, 3, length=1_025)


def perplexity(model, text):
    return metrics.perplexity(model, text, window=128)


def rise(three):
    """Return the perplexity of three models, each on a text of its own, by that of the dense."""
    found, whole = each(perplexity, three, passages), each(perplexity, [dense] * 3, passages)
    return [one / before for one, before in zip(found, whole, strict=True)]


# %%
ways = {
    "2, each twice": lambda model: sharing.share_layers_(model, 2),
    "2, each once": lambda model: pruning.remove_layers_(model, [1, 3]),
    "1, four times": lambda model: sharing.share_layers_(model, 1),
    "1, once": lambda model: pruning.remove_layers_(model, [1, 2, 3]),
}


def healed(way, rate, seed):
    model = copy.deepcopy(dense)
    ways[way](model)
    if rate:
        train(model, lessons, Recipe(12, rate, 3, seed=seed), progress=False)
    return model


# %% [markdown]
# **Predict:** at equal bytes and equal steps, which is better: two layers, each run twice, or the two run once?

# %% rtol=0.08
guess = ...  # "twice" or "once"
rates, mended = (1e-3, 3e-3), {}
for way in ways:
    tried = each(healed, [way] * 2, rates, (0, 0))
    rate, best = min(
        zip(rates, tried, strict=True), key=lambda pair: perplexity(pair[1], validation)
    )
    mended[way] = rise([best, *each(healed, [way] * 2, [rate] * 2, (1, 2))])
    broken = rise([healed(way, None, 0)] * 3)
    print(f"{way:14} at once", *(f"{one:5.2f}" for one in broken), end="   healed ")
    print(*(f"{one:.2f}" for one in mended[way]))
compare(guess, "once" if sum(mended["2, each once"]) < sum(mended["2, each twice"]) else "twice")
for again, gone in (("2, each twice", "2, each once"), ("1, four times", "1, once")):
    assert all(1.03 * b < a for a, b in zip(mended[again], mended[gone], strict=True))

# %% [markdown]
# Perplexity, dense = 1. **Once is better, with less work**: with so little healing, sharing is the wrong way to save bytes. The layers have learned to follow each other, and a layer that meets its own output is at a loss. To share wants long training, best from the start (a trained model can be converted, too: Bae et al. 2024, arXiv 2410.20672). Even then it has a price: in ALBERT's paper one set of weights in place of twelve takes the mean score over five tasks from 81.6 to 80.1.
#
# ## 3 · One matrix as two thin ones
#
# ### The best product
#
# A matrix $W$ of $m \times n$ may be written as $LR$, with $L$ of $m \times r$ and $R$ of $r \times n$. Stored *and* run are then $r(m + n)$ numbers for $mn$. That saves something below $r = mn / (m + n)$: for a square matrix, below half of its rank.
#
# The best $LR$ for a given $r$ keeps the $r$ largest **singular values** (Eckart and Young 1936). What is lost, $\lVert W - LR \rVert^2$, is the sum of the squares of the others.
#
# **Predict:** a matrix of MiniLM, 384 × 384, shall take half of its bytes: that leaves rank 96. How many percent of $\lVert W \rVert^2$ are kept?

# %%
guess = ...  # percent
encoder = models.load_minilm()
weight = encoder.encoder.layer[2].attention.self.query.weight.detach()
rank = sharing.rank_within(weight.shape, weight.nbytes // 2)
left, right = sharing.low_rank(weight, rank)
values = torch.linalg.svdvals(weight)
lost = (weight - left @ right).square().sum()
assert rank == 96 and torch.isclose(lost, values[96:].square().sum(), rtol=1e-3)
compare(guess, 100 * (1 - lost / weight.square().sum()).item(), "%", how="computed")

# %% [markdown]
# How does that compare with a matrix that has no structure? The same numbers, shuffled:

# %%
torch.manual_seed(0)
shuffled = weight.flatten()[torch.randperm(weight.numel())].view_as(weight)
lines = {}
for name, matrix in {"trained": weight, "shuffled": shuffled}.items():
    energy = torch.linalg.svdvals(matrix).square()
    kept = 100 * energy.cumsum(0) / energy.sum()
    lines[name] = {r: kept[r - 1].item() for r in (16, 48, 96, 144, 192, 288, 384)}
ax = plots.curves(lines, "rank", "percent of the squares kept")
assert all(lines["trained"][r] > lines["shuffled"][r] for r in (16, 96, 192))
assert lines["trained"][96] < 90

# %% [markdown]
# *Figure: a trained matrix is only somewhat nearer to low rank than the same numbers shuffled.*
#
# <details><summary>The figure in words</summary>
#
# Percent of the squares kept, over the rank from 16 to 384. Both lines rise steeply and flatten towards 100 % at 384. At rank 96 the trained matrix keeps 75 %, the shuffled one 62 %; at rank 192, where nothing is saved any more, 95 and 89 %.
#
# </details>
#
# "Neural networks are low-rank" is half a truth. *Updates* of fine-tuning may be (chapter 11). Trained *matrices* of small models are hardly.
#
# ### Best for the outputs
#
# What counts is not $W$ but $Wx$, for the $x$ that occur. With the **second moments** $H = \frac{1}{N}\sum x x^T$ of a layer's inputs, which chapter 08 collected for GPTQ, the mean squared change of the outputs is
#
# $$\tfrac{1}{N}\sum \lVert (W - LR)x \rVert^2 = \operatorname{tr}\big((W - LR)\,H\,(W - LR)^T\big).$$
#
# With a root $S$, $H = SS^T$, that is $\lVert (W - LR)S \rVert^2$: so take the singular values of $WS$, and multiply $R$ by $S^{-1}$ (SVD-LLM, Wang et al. 2024, arXiv 2403.07378). `low_rank(weight, rank, second_moments)` does it.

# %%
moments = calibration.hessians(dense, list(itertools.islice(lessons(0, 0), 24)))
name = "model.layers.1.mlp.gate_proj"
weight, second = dense.get_submodule(name).weight.detach(), moments[name]
for told, how in (("weights", None), ("outputs", second)):
    left, right = sharing.low_rank(weight, 48, how)
    off = weight - left @ right
    in_weights = (off.square().sum() / weight.square().sum()).item()
    in_outputs = ((off @ second * off).sum() / (weight @ second * weight).sum()).item()
    print(
        f"best for the {told}: lost {in_weights:.3f} of the weights, {in_outputs:.3f} of the outputs"
    )

# %% [markdown]
# ### A budget for the whole model
#
# `factor_(model, num_bytes)` shares bytes out among all layers: the next rank goes where it takes away the most error of the *weights* for its bytes (in both rows), and a layer stays dense where two thin matrices would not be smaller. Beside them the model rounded in rows (chapter 04); nothing is trained afterwards.
#
# **Predict:** at *half* of the bytes, what will the perplexity be, dense = 1, by the outputs?

# %% rtol=0.1
guess = ...  # times the perplexity of the dense model
whole = sum(layer.weight.nbytes for layer in layers.linear_layers(dense).values())
quality = {}
for share, (told, how) in itertools.product((0.75, 0.5), (("weights", None), ("outputs", moments))):
    model = copy.deepcopy(dense)
    sharing.factor_(model, int(share * whole), how)
    quality[share, told] = rise([model] * 3)
for bits in (8, 4):
    model = copy.deepcopy(dense)
    quantization.quantize_(model, bits)
    quality[bits / 32, f"{bits} bits"] = rise([model] * 3)
for (share, told), three in quality.items():
    print(f"{share:6.1%} of the bytes, {told:8}", *(f"{one:5.2f}" for one in three))
compare(guess, sum(quality[0.5, "outputs"]) / 3, "times")

# %%
by_outputs, by_weights = quality[0.5, "outputs"], quality[0.5, "weights"]
assert all(1.1 * a < b for a, b in zip(by_outputs, by_weights, strict=True))
assert max(quality[4 / 32, "4 bits"]) < min(quality[0.75, "outputs"])

# %% [markdown]
# The outputs are the better guide, by far at half of the bytes. But the comparison that matters is the last two rows: **rounding to 4 bits takes an eighth of the bytes and loses less** than factors at three quarters. Factors save *work* as well, in plain floats on any processor, and they can be rounded in turn.
#
# ## ★ 4 · One encoder, three heads
#
# Three tasks: in which **section** of the Factbook a passage stands (13 of them); the **era** of a sentence from a speech, before or after 1900; the **sentiment** of a review. Three encoders, or one with three small linear layers upon it, its **heads**?
#
# To train in seconds, the encoder is only the lower third of MiniLM, two layers, and texts are cut to 12 tokens. The tables and the first layer are **frozen**: only the second layer and the heads learn.

# %%
base = models.load_minilm()
for part in base.modules():
    if isinstance(part, nn.Dropout):
        part.p = 0.0  # two threads would draw it from one generator
pruning.remove_layers_(base, [2, 3, 4, 5])
print(sharing.freeze_layers_(base, 1))

# %% [markdown]
# The texts: 480 of each task to learn from, 150 to choose rates, 240 to judge. Sentences stay in the split of their speech.


# %%
def eras(split):
    """Return sentences of speeches, and whether they were spoken after 1900."""
    found = {"text": [], "label": []}
    for speech in data.load_speeches(split):
        some = speech["text"].split(". ")[9::9]
        found["text"] += some
        found["label"] += [int(speech["year"] > 1900)] * len(some)
    return Dataset.from_dict(found)


# %%
tasks = {"section": 13, "era": 2, "sentiment": 2}
counts = {"train": 480, "validation": 150, "test": 240}
whole = {"section": data.load_factbook(), "sentiment": data.load_reviews()}
whole["era"] = {split: eras(split) for split in counts}
texts = {
    (task, split): whole[task][split].shuffle(seed=0).select(range(count))
    for task in tasks
    for split, count in counts.items()
}
words = models.load_minilm_tokenizer()
asked = {key: data.ordered_batches(some, words, 12, 75) for key, some in texts.items()}
truth = {key: torch.cat([batch["labels"] for batch in asked[key]]) for key in asked}

# %% [markdown]
# `MultiTaskClassifier` puts heads upon the encoder, and `mixed_batches` makes one stream of the tasks: each batch is of one task, here in turn.


# %%
def model_for(names, seed):
    torch.manual_seed(seed)
    return sharing.MultiTaskClassifier(copy.deepcopy(base), {name: tasks[name] for name in names})


@functools.cache  # each text is cut into tokens once
def batches_of(task, part):
    return data.text_batches(texts[task, "train"].select(part), words, 16, max_length=12)


def lessons_of(parts, probabilities=None):
    """Return batches of some tasks, each with the rows of it that are given."""
    own = {task: batches_of(task, part) for task, part in parts.items()}
    return sharing.mixed_batches(own, probabilities)


# %%
def learn_(model, batches, steps, rate, seed):
    recipe = Recipe(steps, rate, 3, seed=seed, groups=[Group("heads", learning_rate=1e-2)])
    train(model, batches, recipe, progress=False)


def answers(model, task, split="test"):
    return metrics.predict(model.for_task(task), asked[task, split]).argmax(-1)


def right(model, task, split="test"):
    return metrics.accuracy(answers(model, task, split), truth[task, split])


# %% [markdown]
# The search, as before: two rates, judged on validation texts, then three seeds.


# %%
def searched(parts, steps, made=model_for, rates=(3e-4, 1e-3)):
    """Return the models of three seeds; ``parts(seed)`` tells the rows of each task."""

    def learned(rates, seeds):
        some = [made(parts(seed), seed) for seed in seeds]
        each(learn_, some, [lessons_of(parts(s)) for s in seeds], [steps] * 2, rates, seeds)
        return some

    tried = learned(rates, (0, 0))
    scores = each(lambda m: sum(right(m, name, "validation") for name in m.heads), tried)
    best = scores.index(max(scores))
    return [tried[best], *learned([rates[best]] * 2, (1, 2))]


# %% [markdown]
# *Alone* is an encoder for each task, with 20 steps each, or with 7. *Together* is one encoder with three heads and the same steps for each task: 60 in all, or 21.
#
# **Predict:** one encoder with 21 steps was trained about as long as *one* of the three. How many percent of the answers does that cost, against 60 steps?

# %%
guess = ...  # percent
everything, ways = range(480), {}
for steps in (20, 7):
    own = {task: searched(lambda s, task=task: {task: everything}, steps) for task in tasks}
    joint = searched(lambda s: dict.fromkeys(tasks, everything), 3 * steps)
    ways |= {f"alone, {steps}": own, f"together, {steps}": dict.fromkeys(tasks, joint)}

# %% atol=0.05
said = {(w, t): each(answers, three[t], [t] * 3) for w, three in ways.items() for t in tasks}
known, quality = {task: truth[task, "test"] for task in tasks}, {}
for score in (metrics.accuracy, metrics.macro_f1):
    for way in ways:
        means = {t: statistics.fmean(score(one, known[t]) for one in said[way, t]) for t in tasks}
        quality.setdefault(way, statistics.fmean(means.values()))  # the accuracy, which is first
        told = (f"{task} {mean:.3f}" for task, mean in means.items())
        print(f"{score.__name__:8} {way:12}", *told, sep="   ")
floor = (f"{t} {k.bincount().max().item() / len(k):.3f}" for t, k in known.items())
print("always the commonest ", *floor, sep="   ")
compare(guess, 100 * (quality["together, 20"] - quality["together, 7"]), "%")
assert quality["together, 20"] > quality["together, 7"] + 0.04

# %% [markdown]
# Seven steps are too few: sentiment falls below the commonest answer, and **macro-F1**, which counts all classes alike, falls more than accuracy. But is company to blame? It is judged by a **paired gap** (chapter 07) on the same 240 test texts, at equal steps for the task: a difference of accuracies, with a bar for what chance could do (95 %).

# %%
ax = plt.subplots(figsize=(7.5, 3.2), layout="constrained")[1]
rows = list(itertools.product(tasks, (20, 7)))
gaps = []
for height, (task, steps) in enumerate(rows):
    pairs = zip(said[f"alone, {steps}", task], said[f"together, {steps}", task], strict=True)
    for seed, pair in enumerate(pairs):
        gap, place = metrics.paired_gap(*pair, known[task]), height + 0.2 * (seed - 1)
        bar = {"xerr": 100 * gap.margin, "fmt": "o", "color": f"C{height % 2}"}
        drawn = ax.errorbar(100 * gap.gap, place, **bar)
        gaps.append(gap.gap)
ax.set(xlabel="together against alone, percent of the answers", ylim=(5.6, -0.6))
ax.set(yticks=range(6), yticklabels=[f"{task}, {steps} steps" for task, steps in rows])
line = ax.axvline(0, color="black", linewidth=0.8)
assert abs(statistics.fmean(gaps)) < 0.06

# %% [markdown]
# *Figure: at 20 steps company changes little; at 7 it rather helps.*
#
# <details><summary>The figure in words</summary>
#
# Changes for each task, at 20 and at 7 steps, a dot and a bar for each of three seeds. At 20 steps the dots lie between -6 and 9, and nearly all bars cross 0. At 7 steps sections gain 4 to 6 with each seed, the others from -8 to 13.
#
# </details>
#
# At 20 steps gains and losses are mostly within chance. At 7, sections *gain* with each seed: the shared layer has had 21 steps, an own one 7. So the price was one of **steps, not of company**.
#
# ### Bytes and time
#
# Three questions about one text: three encoders run three times, `all_logits` runs one encoder once and each head upon it.

# %% clock=true
one = model_for(tasks, 0).eval()
apart = {task: copy.deepcopy(one).for_task(task) for task in tasks}
text = {key: value[:1] for key, value in asked["era", "test"][0].items() if key != "labels"}
calls = {
    "three encoders": lambda: [model(**text) for model in apart.values()],
    "three heads": lambda: one.all_logits(**text),
}
with torch.no_grad():
    clocks = {name: c.median for name, c in metrics.latencies(calls, repeats=9).items()}
sizes = [sum(metrics.size_in_bytes(m) for m in apart.values()), metrics.size_in_bytes(one)]
for (name, seconds), size in zip(clocks.items(), sizes, strict=True):
    print(f"{name:15} {size / 1e6:6.1f} MB, {1e3 * seconds:.1f} ms")
assert sizes[0] > 2.9 * sizes[1] and clocks["three encoders"] > 1.5 * clocks["three heads"]

# %% [markdown]
# A third of both: here sharing saves *work*, too, for the text is read once.
#
# But look again at what is equal. The tables and the first layer of our three encoders were frozen, and are the same numbers three times over. Keep them once, with a second layer for each task: **no task is in another's way, nothing is lost, and it is nearly as small.** That is the idea of chapter 11's adapters. The ledger at the end has it.
#
# ## 5 · Are they in each other's way?
#
# ### The angle between two gradients
#
# A step for one task moves the shared weights against that task's gradient. Is it a step back for another? The **cosine** of the two gradients tells: 1 is the same direction, 0 has nothing to do with it, below 0 is a **conflict** (Yu et al. 2020, arXiv 2001.06782). Other rows of the *same* task show what to expect, for that is not 1 either. The models are those of 7 steps, the texts validation texts.

# %%
cosines = {"same task": [], "another task": []}
pairs = [(task, part) for task in tasks for part in (0, 1)]
batches = {key: asked[key[0], "validation"][key[1]] | {"task": key[0]} for key in pairs}
for found in each(sharing.gradient_cosines, ways["together, 7"]["era"], [batches] * 3):
    for ((task, _), (other, _)), cosine in found.items():
        cosines["same task" if task == other else "another task"].append(cosine)

# %%
ax = plt.subplots(figsize=(7, 2.4), layout="constrained")[1]
for height, values in enumerate(cosines.values()):
    dots = ax.plot(values, [height] * len(values), "o", alpha=0.6)
ax.set(xlabel="cosine of two gradients", yticks=(0, 1), yticklabels=list(cosines), ylim=(-0.6, 1.6))
line = ax.axvline(0, color="black", linewidth=0.8)
own, other = (statistics.fmean(values) for values in cosines.values())
assert own > other + 0.15 and abs(other) < 0.3

# %% [markdown]
# *Figure: gradients of one task agree; those of two tasks average near 0, and some conflict.*
#
# <details><summary>The figure in words</summary>
#
# Dots for the cosines of pairs of gradients. Nine pairs of the same task: from 0.4 to 1. 36 pairs of different tasks: around 0, from about -0.4 to 0.2.
#
# </details>
#
# So in the mean there is neither help nor conflict; single pairs reach -0.4. Whether that costs answers, section 4 told: hardly, at equal steps.
#
# ### Where there is no room
#
# As a control, a case in which there must be interference: *all* that is shared is one matrix, the `neck`, from the 384 numbers that the frozen encoder says of a text to 2 numbers, or to 16. The heads see only those.

# %%
features = {}
for task, split in itertools.product(tasks, ("train", "test")):
    found = models.embed(base, asked[task, split])
    features[task, split] = nn.functional.layer_norm(found, (384,))


def neck_loss(model, batch):
    logits = model[batch["task"]](model["neck"](batch["x"]))
    return nn.functional.cross_entropy(logits, batch["labels"])


# %%
def necked(names, width, seed):
    """Return a neck of some width with its heads, each task taught in 60 steps."""
    torch.manual_seed(seed)
    heads = {name: nn.Linear(width, tasks[name]) for name in names}
    model = nn.ModuleDict({"neck": nn.Linear(384, width)} | heads)
    own = {}
    for name in names:
        some = {"x": features[name, "train"], "labels": truth[name, "train"]}
        own[name] = data.row_batches(some, 32)
    recipe = Recipe(60 * len(names), 1e-2, 3, seed=seed)
    train(model, sharing.mixed_batches(own), recipe, neck_loss, progress=False)
    return model


# %% [markdown]
# **Predict:** through 2 numbers, how many percent of the answers does company cost, in the mean over tasks? Each task has 60 steps, alone as together.

# %% atol=0.05
guess = ...  # percent
lost = {}
for width in (2, 16):
    costs = []
    for task, seed in itertools.product(tasks, seeds):
        pair = necked(list(tasks), width, seed), necked([task], width, seed)
        two = [m[task](m["neck"](features[task, "test"])).argmax(-1) for m in pair]
        costs.append(metrics.paired_gap(*two, truth[task, "test"]).gap)
    lost[width] = statistics.fmean(costs)
    print(f"{width:2} numbers: {100 * lost[width]:.1f}%")
compare(guess, 100 * lost[2], "%")
assert lost[2] > lost[16] + 0.005

# %% [markdown]
# Two numbers are too few for three tasks; sixteen are enough. **Room matters**: before you look for a cure of conflicts, see whether the shared part is too small.
#
# ## 6 · Tasks of different sizes
#
# Let there be 480 rows of sections, 120 of sentiment and 20 of eras. If each *row* counts the same, the small task is hardly seen. If each *task* counts the same, its 20 rows come again and again. Between the two stands a **temperature** $T$ (Arivazhagan et al. 2019, arXiv 1907.05019): a task with $n_i$ rows is drawn with the probability
#
# $$p_i = \frac{n_i^{1/T}}{\sum_j n_j^{1/T}}.$$
#
# **Predict:** how many of 24 batches are of eras at $T = 1$, $2$ and $\infty$?

# %%
guess = ...  # three numbers: "…, …, …"
sizes = {"section": 480, "sentiment": 120, "era": 20}
few = {task: range(size) for task, size in sizes.items()}
drawn = {T: sharing.task_probabilities(sizes, T) for T in (1, 2, math.inf)}
for T, probabilities in drawn.items():
    print(f"T = {T}:", *(f"{task} {p:.3f}" for task, p in probabilities.items()), sep="   ")
compare(guess, ", ".join(f"{24 * p['era']:.1f}" for p in drawn.values()), how="computed")

# %% [markdown]
# What comes of it?

# %% atol=0.05
scores = {}
for T in (1, math.inf):
    made = [model_for(tasks, seed) for seed in seeds]
    each(learn_, made, [lessons_of(few, drawn[T])] * 3, [24] * 3, [1e-3] * 3, seeds)
    for task in ("section", "era"):
        scores[task, T] = each(right, made, [task] * 3)
        print(f"T = {T}: {task:8} {statistics.fmean(scores[task, T]):.3f}")
assert sum(scores["section", 1]) > sum(scores["section", math.inf]) + 0.03

# %% [markdown]
# Turns for the small task help it (at $T = 1$ nearly half of all runs never see it), though its 20 rows come again and again, and cost the large one as much. So a temperature is a choice of who pays.
#
# ## 7 · Transfer: what to freeze
#
# A model that was trained on one kind of text is to learn another. How many of its layers should learn? The lower ones are said to hold what all texts need (Howard and Ruder 2018, arXiv 1801.06146). With few rows, a large trained part may learn them by heart; with many, a frozen part may be in the way.
#
# Sections again, from 20 or from 160 rows (other rows for each seed): both layers learn, or only the second. (`freeze_layers_(model, 0)` freezes the tables alone.)
#
# **Predict:** from 20 rows, how many percent of the answers does it *cost* to freeze? And from 160?

# %%
guess = ...  # two numbers in percent, below 0 where freezing helps: "…, …"


def both_layers(names, seed):
    model = model_for(names, seed).requires_grad_(True)
    sharing.freeze_layers_(model, 0)
    return model


def some_rows(count):
    return lambda seed: {"section": range(count * seed, count * seed + count)}


# %% atol=0.05
known, costs = truth["section", "test"], {}
for count in (20, 160):
    models_of = {"both": searched(some_rows(count), 10, both_layers)}
    models_of |= {"one": searched(some_rows(count), 10)}
    two = {name: each(answers, three, ["section"] * 3) for name, three in models_of.items()}
    for name, three in two.items():
        mean = statistics.fmean(metrics.accuracy(one, known) for one in three)
        print(f"{count:3} rows, {name:4} learn: {mean:.3f}")
    costs[count] = [metrics.paired_gap(*pair, known) for pair in zip(*two.values(), strict=True)]
means = [-100 * statistics.fmean(gap.gap for gap in three) for three in costs.values()]
assert means[0] < means[1] - 1
compare(guess, ", ".join(f"{mean:.1f}%" for mean in means))

# %% [markdown]
# From 20 rows freezing does no harm; from 160 rows, in 10 steps, it costs. A habit that fits: freeze much where there is little data, and free layers from the top down as rows come in.
#
# ## 8 · The ledger
#
# The three tasks, with what each way stores and trains (numbers), and what it takes for all three answers to one text. The quality is the mean accuracy over tasks and seeds. *One base* is what section 4 ended with: the frozen part once, and a second layer for each task.

# %%
lower = copy.deepcopy(base)
pruning.remove_layers_(lower, [1])


def one_base():
    """Answer three questions with one frozen part and a second layer for each task."""
    hidden, mask = lower(**text).last_hidden_state, text["attention_mask"]
    logits = {}
    for task, (model, *_) in ways["alone, 20"].items():
        found = model.encoder.encoder.layer[1](hidden, mask[:, None, None].bool())
        logits[task] = model.heads[task]((found * mask[..., None]).sum(1) / mask.sum())
    return logits


# %%
parts = lower, base.encoder.layer[1], one.heads
frozen, top, heads = (sum(p.numel() for p in part.parameters()) for part in parts)
with torch.no_grad():
    for task, logits in one_base().items():
        wanted = ways["alone, 20"][task][0](**text, task=task).logits
        assert torch.allclose(logits, wanted, atol=1e-4)

# %% [markdown]
# So `one_base` answers as the three encoders do. The ledger:

# %% clock=true atol=0.03
with torch.no_grad():
    clocks = metrics.latencies(calls | {"one base": one_base}, repeats=9)
clocks["7 steps"] = clocks["three heads"]
ledger = metrics.Ledger("accuracy, mean of three tasks")
for name, way, bases, tops in (
    ("three encoders", "alone, 20", 3, 3),
    ("three heads", "together, 20", 1, 1),
    ("one base", "alone, 20", 1, 3),
    ("7 steps", "together, 7", 1, 1),
):
    trained = tops * top + heads
    ledger.add(name, 4 * (bases * frozen + trained), quality[way], trained, clocks[name])
print(ledger)
ax = plots.ledger(ledger)

# %% [markdown]
# *Figure: one frozen base with a layer for each task is as good as three encoders, and nearly as small as one.*
#
# <details><summary>The figure in words</summary>
#
# Accuracy, mean of three tasks, over megabytes. Three encoders at 186 MB, three heads at 62 MB, one base with three layers at 76 MB: all at 0.71. Three heads with 7 steps for each task, at 62 MB: 0.6.
#
# </details>
#
# *One base* is as good as three encoders, for it *is* the three, with what they have in common stored and run once. Three heads are smaller still and nearly twice as fast as that, if each task gets its steps; with 7 of them many answers are lost. Bytes alone never tell.
#
# ## **Spot the bug**
#
# Somebody shares layers by hand, in one line. Training works, and the loss falls. What is wrong, and which test would show it? Find it before you read on.


# %%
def share_by_hand_(model):
    """Let all layers be the first one. (This is the version with the bug.)"""
    first, count = model.model.layers[0], len(model.model.layers)
    model.model.layers = nn.ModuleList([first] * count)


by_hand = copy.deepcopy(dense)
share_by_hand_(by_hand)
ids = torch.arange(40)[None]
with torch.no_grad():
    both = [model(ids, use_cache=False).logits for model in (by_hand, shared)]
assert torch.allclose(*both, atol=1e-4)

# %% [markdown]
# <details><summary>Answer</summary>
#
# A layer knows its place: by it, it finds its keys and values in the cache. One module four times has *one* place, so four layers write into the same part of the cache, and read each other's words. Without a cache nothing is wrong. The test: with a cache, the answers must be those without. `share_layers_` therefore shares the *weights* of four modules, which keep their places.
#
# </details>

# %%
with torch.no_grad():
    cached = [model(ids, use_cache=True).logits for model in (by_hand, shared)]
assert not torch.allclose(cached[0], both[0], atol=0.1)
assert torch.allclose(cached[1], both[1], atol=1e-4)

# %% [markdown]
# ## What papers say, and what we measured
#
# | paper | says | we measured | same order? |
# |---|---|---|---|
# | Lan et al. 2019, 1909.11942 (ALBERT) | sharing costs 1.5 points | shared *after* training, worse than leaving layers out | another setting |
# | Wang et al. 2024, 2403.07378 (SVD-LLM) | guided by inputs, much less is lost than by plain SVD, with a fifth to three fifths removed | outputs are the better guide; rounding is far better than both | yes, for the guide |
# | Yu et al. 2020, 2001.06782 | conflict hurts where sizes differ and the curvature is high | mean near 0, some pairs at -0.4 | a few conflicts, no clear cost |
# | Arivazhagan et al. 2019, 1907.05019 | a temperature above 1 lifts small tasks and costs large ones | so it was | yes |
# | Howard and Ruder 2018, 1801.06146 | lower layers should move less | a frozen first layer does no harm with 20 rows, and costs with 160 | with few rows only |
#
# ## Summary
#
# - **Sharing layers** saves what is stored, not what is run. It wants long training: after a few steps of healing, leaving layers out is better at the same bytes.
# - **Two thin matrices** save both, if the rank is small; trained matrices of small models are hardly of low rank. What the layer is given tells which directions count.
# - **One encoder, many heads** saves bytes and time. Count steps honestly: each task wants its own, and compare with a floor.
# - **Interference** is measured: by gaps with intervals, by cosines beside those of the same task, and by a control that must show it.
# - **A temperature** shares steps out between tasks: who gains, and who pays?
# - **What is frozen can be shared for nothing.**
#
# ## Further reading
#
# - Lan et al. 2019, *ALBERT* (arXiv 1909.11942): section 4, on sharing and small tables.
# - Wang et al. 2024, *SVD-LLM* (arXiv 2403.07378): section 3.
# - In this repository: `lightcourse/sharing/`.
