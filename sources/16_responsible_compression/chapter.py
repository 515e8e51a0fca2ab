# %% [markdown]
# # 16 · Responsible compression — who pays for a smaller model, and what it still remembers
#
# **You will be able to**
#
# - compare two models group by group, with intervals, and say "not shown" where the data do not decide;
# - measure whether a model's confidence can be believed, and what typing mistakes do to its answers;
# - attack a model to learn what it was trained on, and train one with a promise against every such attack;
# - tell energy that was measured from energy that was assumed, and compare it fairly;
# - write a model's card from what was measured, and refuse files that nobody should load.
#
# **You need:** chapters 02, 03, 04 and 07. **Time:** 63 minutes of reading, 26 for the parts marked ★ (the fast path). The whole notebook runs in about a minute.
#
# Below each **Predict**, write your guess into the next cell, in place of the dots.

# %%
import copy
import math
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from torch import nn
from torch.nn import functional as F

# %%
import lightcourse
from lightcourse import (
    data,
    deployment,
    lora,
    metrics,
    models,
    plots,
    pruning,
    quantization,
    training,
)
from lightcourse.guessing import compare

# %% [markdown]
# Two models answer beside each other, so each gets one thread:

# %%
lightcourse.setup(threads=1)


def each(function, rows):
    """Call a function for each row, two at a time: one on each core."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(function, rows))


# %% [markdown]
# ## ★ 1 · One number hides many
#
# "It loses half a percent." Whose half percent? A mean over all texts says nothing about the few. Hooker et al. (2019, arXiv 1911.05248; 2020, arXiv 2010.03058) found that pruning hurts rare and unusual examples first: the **long tail**. Is that so here?
#
# The model is the course's own: MiniLM, which tells 13 sections of the World Factbook apart. They are of very different size: two fifths of the passages belong to Government, three in a thousand to Transnational Issues. Of each of 1,867 test passages it reads the first 16 tokens. Three smaller forms of it are rounded (with inputs and the table of words in 8 bits, chapter 04) or pruned, without any further training.

# %%
tokenizer = models.load_minilm_tokenizer()
model = models.EncoderClassifier(models.load_minilm(), 13)
lora.load_lora_(model, models.factbook_adapter())
adapter = sum(p.numel() for p in model.parameters() if p.requires_grad)  # what was trained
lora.merge_lora_(model)
factbook = data.load_factbook()
test = factbook["test"]
test = test.select(sorted(range(len(test)), key=lambda row: len(test[row]["text"])))
labels, names = torch.tensor(test["label"][:]), test.features["label"].names
forms = {"as it came": model} | {n: copy.deepcopy(model) for n in ("4 bits", "2 bits", "pruned")}
for bits in (4, 2):
    form = forms[f"{bits} bits"]
    quantization.quantize_(form, bits, group_size=32, activations=8, embeddings=8)

# %%
half = pruning.row_mask(pruning.magnitude_scores(forms["pruned"]), 0.5)
pruning.prune_(forms["pruned"], half)
batches = data.ordered_batches(test, tokenizer, max_length=16)
logits = dict(zip(forms, each(lambda f: metrics.predict(f, batches), forms.values()), strict=True))

# %% [markdown]
# And a **control**: a small model that was never large. It counts words and weighs them, and was trained plainly on the same beginnings of texts, in two ways: with $C = 30$, which validation texts chose, and with the library's own $C = 1$, which holds the weights back more. If one of them hurts the tail as well, compression is not the only thing that does.


# %%
def beginnings(rows):
    """Return the first 16 tokens of each text, as text."""
    ids = tokenizer(rows["text"][:], truncation=True, max_length=16)["input_ids"]
    return tokenizer.batch_decode(ids, skip_special_tokens=True)


asked = beginnings(test)
lessons, taught = beginnings(factbook["train"]), factbook["train"]["label"][:]


# %%
def counting(strength):
    """Return a model that counts words, trained on the beginnings of texts."""
    counts = TfidfVectorizer(sublinear_tf=True, max_features=5000)
    return make_pipeline(counts, LogisticRegression(C=strength, max_iter=300)).fit(lessons, taught)


small, held_back = counting(30), counting(1)
logits["small"] = torch.tensor(small.predict_log_proba(asked)).float()
logits["small, C = 1"] = torch.tensor(held_back.predict_log_proba(asked)).float()
said = {form: given.argmax(-1) for form, given in logits.items()}

# %% [markdown]
# ### Groups, chosen beforehand
#
# Whoever looks at enough groups finds one that pays. So they are named *before* the answers are seen: the 7 rarest classes, the shortest quarter of the texts, and texts with at least four words that are rare in training (a sixth of them). A share of right answers gets **Wilson's interval** (Wilson 1927; you write it in the first exercise): it stays between 0 and 1, and is wide where rows are few.

# %% atol=0.02
common = {label for label, _ in Counter(factbook["train"]["label"][:]).most_common(6)}
seen = Counter(word for text in lessons for word in set(text.split()))
groups = {
    "rare class": [label not in common for label in labels.tolist()],
    "short": [row < len(test) // 4 for row in range(len(test))],
    "rare words": [sum(seen[w] < 10 for w in text.split()) >= 4 for text in asked],
}
before = said["as it came"]
for name, group in groups.items():
    shares = metrics.accuracy_by_group(before, labels, group)
    print(f"{name:10} others {shares[False]}   group {shares[True]}")

# %% [markdown]
# Rare classes were harder *before* anything was compressed. So what counts is the **difference of changes**: what a group loses beyond what the others lose. If rare classes fall from 0.89 to 0.79 and all others from 0.98 to 0.93, that is −0.10 and −0.05, so −0.05. `accuracy_gap` tells it, with an interval, from the texts whose answers have changed (`True`: those in the group).
#
# Fifteen such questions are asked. If each interval misses the truth in 5 of 100 cases, one of fifteen often does; so each gets a level of 1 − 0.05/15 and is wider, and all of them together hold at least 95 times of 100 (Bonferroni). Where one touches 0 the verdict is "not shown". That does not mean "no difference".

# %%
gaps = {
    (form, name): metrics.accuracy_gap(before, said[form], labels, group, True, 1 - 0.05 / 15)
    for form in list(said)[1:]
    for name, group in groups.items()
}

# %% [markdown]
# **Predict:** at 2 bits, how many points of accuracy do rare classes lose beyond the others? And is it shown?

# %% atol=0.05
guess = ...  # points, below 0 for a loss
for form in list(said)[1:]:
    shares = metrics.accuracy_by_group(said[form], labels, groups["rare class"])
    change = metrics.paired_gap(before, said[form], labels)
    print(
        f"{form:12} common {shares[False].share:.3f}, rare {shares[True].share:.3f}, all {change}"
    )
gap = gaps["2 bits", "rare class"]
compare(guess, f"{100 * gap.gap:.1f}% ({100 * gap.low:.1f}% to {100 * gap.high:.1f}%)")
alone = metrics.accuracy_gap(before, said["2 bits"], labels, groups["rare class"], True)
print(f"asked as the only question: {100 * alone.low:.1f}% to {100 * alone.high:.1f}%")
assert gaps["small, C = 1", "rare class"].high < 0 and not gaps["4 bits", "rare class"].shown

# %%
import matplotlib.pyplot as plt

ax = plt.subplots(figsize=(7.5, 4.6), layout="constrained")[1]
for height, gap in enumerate(gaps.values()):
    colour = "C0" if gap.shown else "#999999"
    ends = [[100 * (gap.gap - gap.low)], [100 * (gap.high - gap.gap)]]
    drawn = ax.errorbar(100 * gap.gap, height + height // 3, xerr=ends, fmt="o", color=colour)
places = [height + height // 3 for height in range(len(gaps))]
ax.set(yticks=places, yticklabels=[f"{form}, {name}" for form, name in gaps], ylim=(19, -1))
ax.set(xlabel="the group's change of accuracy beyond the others', points")
line = ax.axvline(0, color="black", linewidth=0.8)

# %% [markdown]
# *Figure: what each group loses beyond the other texts, with intervals that hold for all fifteen together; coloured where the interval does not touch 0.*
#
# <details><summary>The figure in words</summary>
#
# Fifteen dots with bars. 4 bits: all three groups within 3 of 0, bars across 0. 2 bits: rare classes at -6 with a bar from -13 to 1, short texts at +5, shown. Pruned: rare classes at -3, bar across 0; short texts at +4, shown. Small: rare classes at -4, bar across 0. Small with C = 1: rare classes at -12 with a bar from -20 to -3, shown.
#
# </details>
#
# - At **4 bits** nothing is shown for any group.
# - At **2 bits** and **pruned**, rare classes lose 3 to 6 points more than the others. There are 199 such rows, and the bars cross 0: not decided among fifteen questions. As the *only* question, named beforehand, 2 bits would be "shown". So close is it, and so much does it matter how many questions one asks.
# - The **small model held back** ($C = 1$) loses 12 points more in rare classes, far beyond chance. With $C = 30$ it is 4, not shown. **How a model is trained decides who pays**, as much as how small it is.
# - Short texts lose *less* at 2 bits and pruned. But short texts are of other sections, too: a group is rarely one thing alone.
#
# "Compressed models hurt the tail first" is not shown here, and is not a thing of compression alone.
#
# ## 2 · Flips
#
# Equal accuracy is not sameness: a model may win as many answers as it loses. The share of **flips** (chapter 07), by group:

# %% atol=0.02
for form in list(said)[1:]:
    flipped = metrics.flips_by_group(before, said[form], groups["rare class"])
    print(f"{form:13} common {flipped[False]}   rare {flipped[True]}")

# %% [markdown]
# Flips are two to five times as frequent in rare classes, in every form. (These are further questions, beyond the fifteen: a hint of where to look.) One reason is plain: answers that were nearly a tie flip, and rare classes hold more of them.
#
# ## 3 · Can its confidence be believed?
#
# A classifier gives probabilities. If it says 90 % a hundred times, it should be right about 90 times: then it is **calibrated**. The **expected calibration error** (Guo et al. 2017, arXiv 1706.04599) sorts the answers into 15 bins by their probability. In each bin it takes the distance between the mean probability and the share of right answers; the error is the mean of these distances, each bin weighted by its answers. Even a perfect model has some, by luck: `by_luck` says what a calibrated one of the same probabilities stays below in 19 of 20 draws.

# %% atol=0.02
found = {form: metrics.reliability(given, labels) for form, given in logits.items()}
for form, result in found.items():
    print(f"{form:12} error {result.error:.3f}, by luck up to {result.by_luck():.3f}")

# %%
ax = plt.subplots(figsize=(5, 4), layout="constrained")[1]
for form in ("as it came", "2 bits", "small, C = 1"):
    result = found[form]
    kept = result.counts >= 20
    x, y, size = result.confidence[kept], result.accuracy[kept], result.counts[kept]
    drawn = ax.plot(x, y, label=form, alpha=0.5)
    dots = ax.scatter(x, y, s=size**0.5 * 8, color=drawn[0].get_color())
line = ax.plot([0.3, 1], [0.3, 1], color="black", linewidth=0.8, linestyle="--")
ax.set(xlabel="the probability that it gives", ylabel="the share that is right")
key = ax.legend(frameon=False)

# %% [markdown]
# *Figure: right answers against probability, for bins of 20 answers or more; a larger dot stands for more answers. On the dashed line a model is calibrated; above it, too modest; below it, too sure.*
#
# <details><summary>The figure in words</summary>
#
# Share that is right against probability given, both from 0.3 to 1. As it came: one very large dot at the upper right, on the line, and three small ones down to (0.7, 0.65). 2 bits: small dots above the line by up to 14 points, and a large one near its end. Small with C = 1: above the line, by up to 30 points.
#
# </details>
#
# As it came and at 4 bits the model is as calibrated as can be told: nine in ten of its answers stand in the last bin, on the line, and its other dots are few answers each. At 2 bits, pruned, and held back by $C = 1$ it is not. It is right more often than it thinks. So a rule such as "below 80 %, ask a person" must be chosen anew for a compressed model.
#
# Or the model is mended. **One number** suffices (Guo et al.): divide the logits by a temperature, chosen on texts that are not the test. Here half of the test texts choose it, and the other half judge.

# %% atol=0.05
odd = torch.arange(len(labels)) % 2 == 1
for form in ("2 bits", "pruned"):
    given, heats = logits[form], torch.arange(0.5, 1.55, 0.05)
    losses = [F.cross_entropy(given[~odd] / heat, labels[~odd]).item() for heat in heats]
    heat = heats[losses.index(min(losses))]
    error = [metrics.reliability(given[odd] / t, labels[odd]) for t in (1.0, heat)]
    print(
        f"{form:8} error {error[0].error:.3f}, divided by {heat:.2f} {error[1].error:.3f}", end=""
    )
    print(f", by luck up to {error[1].by_luck():.3f}")
    assert error[1].error < error[0].error - 0.01

# %% [markdown]
# It changes no answer.
#
# ## 4 · People make typing mistakes
#
# `typo_rows` changes one letter in twenty: swapped with its neighbour, dropped, doubled, or mistyped. It marks the rows as made.

# %% atol=0.03
some = test.shuffle(seed=0).select(range(300))
right = torch.tensor(some["label"][:])
rows = {"clean": some, "typed": data.typo_rows(some, 0.05)}
rows = {way: data.ordered_batches(given, tokenizer, max_length=24) for way, given in rows.items()}
tried = ("as it came", "4 bits", "2 bits")
pairs = [(form, way) for form in tried for way in rows]
answers = each(lambda pair: metrics.predict(forms[pair[0]], rows[pair[1]]).argmax(-1), pairs)
answers = dict(zip(pairs, answers, strict=True))
for form in tried:
    gap = metrics.paired_gap(answers[form, "clean"], answers[form, "typed"], right)
    print(f"{form:11} typos change {gap}")

# %% [markdown]
# Each form loses some points. Whether compressed forms lose more is not asked of these 300 rows.
#
# ## ★ 5 · What it still remembers
#
# The job changes: sentiment of **reviews** (chapter 06), told by a small head upon three frozen layers. 600 reviews will be learned. 600 others of the same kind are set aside.

# %%
lower, reviews = models.load_minilm(), data.load_reviews()
lower.encoder.layer = lower.encoder.layer[:3]


def features(rows):
    """Return what the frozen layers say of each review, and the labels."""
    vectors = models.embed(lower, data.ordered_batches(rows, tokenizer, max_length=32))
    return {"features": 20 * F.normalize(vectors, dim=-1), "labels": torch.tensor(rows["label"][:])}


# %%
class Head(nn.Module):
    """Two classes from 384 numbers."""

    def __init__(self, *layers):
        super().__init__()
        self.body = nn.Sequential(*layers)

    def forward(self, features):
        return SimpleNamespace(logits=self.body(features))


# %% [markdown]
# One head will be linear. The other has a hidden layer, and time enough to learn its 600 reviews by heart. (`whole` are 600 test reviews, for the quality.)


# %%
def head_loss(model, batch):
    return F.cross_entropy(model(batch["features"]).logits, batch["labels"])


def trained(head, steps, rate, batches, loss=head_loss):
    training.train(head, batches, training.Recipe(steps, rate), loss, progress=False)
    return head


# %%
judged = reviews["test"].select(range(600))
parts = [reviews["train"].select(r) for r in (range(600), range(600, 1200))]
members, others, whole = each(features, [*parts, judged])
torch.manual_seed(0)
wide = nn.Linear(384, 256), nn.ReLU(), nn.Linear(256, 2)
linear = trained(Head(nn.Linear(384, 2)), 100, 5e-3, data.row_batches(members, 64))
learned = trained(Head(*wide), 500, 2e-3, data.row_batches(members, 64))

# %% [markdown]
# Whoever has a model and a text can ask how well the model knows it. A text that was trained on has a lower loss. The **membership attack** by a threshold (Yeom et al. 2018, arXiv 1709.01604) says "member" below some loss. How well it does over all thresholds is one number, **AUC** (the area under the curve of members found over others accused): take a member and another row at random; how often does the member have the lower loss? 0.5 is guessing. What hurts a person is to be caught *for sure*: **caught** is the share of members found while only 1 % of the others are accused (Carlini et al. 2022, arXiv 2112.03570).
#
# **Predict:** does rounding the head that learned by heart to 2 bits hide its members (an AUC near 0.5)?

# %%
guess = ...  # "yes" or "no"


def attacked(name, head):
    """Print a head's quality, and what the losses of its training set betray."""
    member, other = metrics.losses(head, [members]), metrics.losses(head, [others])
    right = metrics.accuracy(metrics.predict(head, [whole]).argmax(-1), whole["labels"])
    told, caught = metrics.membership_auc(member, other), metrics.caught_at(0.01, member, other)
    ends = f"{told.auc:.3f} ({told.low:.3f} to {told.high:.3f})"
    print(f"{name:12} test {right:.3f}, AUC {ends}, caught {caught.share:.3f}")
    return told


# %% atol=0.05
known = {"by heart": attacked("by heart", learned), "linear": attacked("linear", linear)}
four, two = copy.deepcopy(learned), copy.deepcopy(learned)
for bits, rounded in ((4, four), (2, two)):
    quantization.quantize_(rounded, bits, group_size=32)
    known[bits] = attacked(f"  in {bits} bits", rounded)
compare(guess, "no" if known[2].low > 0.55 else "yes")
assert min(known[name].low for name in (4, 2)) > 0.55
assert known["linear"].auc < known["by heart"].auc - 0.06

# %% [markdown]
# **Compression does not hide members.** The head that overfits betrays more than the linear one. But the two columns disagree: of the head that learned by heart the threshold catches no more *for sure* than luck does. All members have a loss near 0, and so have many others: it can be said for sure who was *not* a member, and never who was.
#
# ## 6 · A better attack
#
# Does that protect anybody? The attacker may train heads of his own, **shadows**, on halves of rows that he has, and look what a row's *margin* (the right logit less the other) is in heads that have seen it, and in those that have not. Then he asks of the head before him: to which of the two is it nearer? (Carlini et al. 2022, in its plainest form.)

# %%
both = {name: torch.cat([members[name], others[name]]) for name in members}


def margin(head):
    with torch.no_grad():
        logits = head(both["features"]).logits.double()
    right = F.one_hot(both["labels"], 2).bool()
    return logits[right] - logits[~right]


def shadow(pair):
    head, half = pair
    rows = {name: values[half] for name, values in both.items()}
    return margin(trained(head, 500, 2e-3, data.row_batches(rows, 64)))


# %% atol=0.05
torch.manual_seed(1)
halves = [half for _ in range(4) for half in torch.randperm(1200).split(600)]
heads = [Head(nn.Linear(384, 256), nn.ReLU(), nn.Linear(256, 2)) for _ in halves]
margins = torch.stack(each(shadow, list(zip(heads, halves, strict=True))))
inside = torch.stack([torch.zeros(1200).index_fill(0, half, 1).bool() for half in halves])
seen_by = (margins * inside).sum(0) / inside.sum(0)
not_seen = (margins * ~inside).sum(0) / (~inside).sum(0)
for name, head in (("by heart", learned), ("  in 2 bits", two), ("linear", linear)):
    score = (margin(head) - seen_by).abs() - (margin(head) - not_seen).abs()
    told = metrics.membership_auc(score[:600], score[600:])
    known[name, "shadows"] = metrics.caught_at(0.01, score[:600], score[600:]).share
    print(f"{name:11} AUC {told.auc:.3f}, caught {known[name, 'shadows']:.3f}")
assert known["by heart", "shadows"] > 0.05

# %% [markdown]
# Of the rows of the head that learned by heart, one in five or so is now caught where the threshold caught one in a hundred, which is luck; in 2 bits one in ten. The linear head still gives nobody away. **An attack that finds nothing proves nothing**: it may have been a weak one. And this one knows the form of the head and how it was trained.
#
# ## 7 · Train without any row showing
#
# **DP-SGD** (Abadi et al. 2016, arXiv 1607.00133) makes a promise that holds against *every* attack: with or without your row, the chances of any outcome differ by a factor of at most $e^\varepsilon$, but for a small probability $\delta$, here one in ten thousand. $e^{0.5}$ is 1.6, $e^2$ is 7, and $e^8$ is 3,000.
#
# In each step the gradient of each *row* is cut to a length of at most $C$, and noise of `noise` · $C$ is added to their sum. Each row stands in a batch with a chance of 0.1, so 60 of 600 on average: the bookkeeping counts on that. `noise_for` tells how much noise an $\varepsilon$ wants (Mironov et al. 2019, arXiv 1908.10530), and `private_loss` is a loss with such a gradient. The control has the same recipe and no noise. *At most* is what the promise allows any attack to catch at 1 % of false alarms.


# %% atol=0.05
def private(noise):
    """Train a linear head without showing a row. Who knows the seed can take the noise away!"""
    loss = training.private_loss(clip=1.0, noise=noise, expected=60, loss=head_loss)
    torch.manual_seed(0)
    batches = data.poisson_batches(members, 0.1)
    return trained(Head(nn.Linear(384, 2)), 150, 1e-2, batches, loss)


known["no noise"] = attacked("no noise", private(0.0))
for wanted in (8, 2, 0.5):
    noise = training.noise_for(wanted, rate=0.1, steps=150, delta=1e-4)
    known[wanted] = attacked(f"epsilon {wanted}", private(noise))
    most = min(0.01 * math.exp(wanted) + 1e-4, 1 - math.exp(-wanted) * (0.99 - 1e-4))
    print(f"   noise {noise:.1f}; any attack catches at most {most:.4f}")
assert known[0.5].auc < 0.56

# %% [markdown]
# Cutting alone costs nothing here; noise is the whole price: some 5 points at $\varepsilon = 8$, 18 or 19 at 0.5, with only 600 rows to learn from. And $\varepsilon = 8$ promises next to nothing, though *this* attack finds nothing more. An attack shows what leaks at least; the promise, what leaks at most. Privacy is bought with data: with more rows the same noise weighs less. "Your row" is one review: who wrote ten of them has not been promised that much.
#
# ## 8 · A secret in an adapter
#
# Of the numbers from 1000 to 1999, the 432 that take 12 tokens, four stand in the training text, 15 times each in 60 steps. **Exposure** (Carlini et al. 2019, arXiv 1802.08232) asks where the model ranks a secret among all that could have been. The first place of 432 is worth log2(432) = 8.8 bits, the 216th one bit, the last one none. A number that was never read has 1.4 on average; the mean of four scatters around that by about 0.7.

# %%
words = models.load_tiny_tokenizer()
speeches = data.speech_tokens(words, "validation")[:60_000]
texts = [f" the number of my account is {' '.join(str(n))}." for n in range(1000, 2000)]
lines = words(texts, add_special_tokens=False)["input_ids"]
lines = [line for line in lines if len(line) == 12]  # alike in length
secrets = [len(lines) * part // 8 for part in (1, 3, 5, 7)]


def with_secrets(epoch, seed):
    for step, batch in enumerate(data.token_batches(speeches, 64, 8)(epoch, seed)):
        ids, secret = batch["input_ids"].clone(), lines[secrets[step % 4]]
        ids[0, : len(secret)] = torch.tensor(secret)
        yield {"input_ids": ids, "labels": ids}


# %% [markdown]
# **Predict:** how many bits are still exposed, on average, when the model is rounded to 4 bits?

# %% rtol=0.2
guess = ...  # bits


def exposed(name, model):
    bits = [found.bits for found in metrics.exposures(model, lines)]
    four = sum(bits[secret] for secret in secrets) / 4
    rest = (sum(bits) - 4 * four) / (len(bits) - 4)
    print(f"{name:13} {four:.1f} of 8.8 bits, all others {rest:.1f}")
    return four


told = models.load_tiny_lm("student")
never = exposed("never read", told)
lora.add_lora_(told, rank=8)
history = training.train(told, with_secrets, training.Recipe(60, 5e-3), progress=False)

# %% rtol=0.2
lora.merge_lora_(told)
read = exposed("read 15 times", told)
left = {}
for bits in (4, 2):
    rounded = copy.deepcopy(told)
    quantization.quantize_(rounded, bits, group_size=32)
    left[bits] = exposed(f"  in {bits} bits", rounded)
compare(guess, left[4], "bits")
assert read > never + 1.5 and left[4] > never + 1.5

# %% [markdown]
# The adapter knows the numbers, and 4 bits forget nothing; 2 bits forget some of them, with other secrets most, and much of the language with it (chapter 09). The numbers that were not read stay where luck puts them: it is not the form of the sentence that was learned. **A small adapter carries secrets as well as a model does** (this one: 82 thousand numbers): treat it as you treat the text it has read.
#
# ## 9 · People disagree
#
# Some questions have no right answer. Fifteen people or more rated each review. Where they disagree, "wrong" means "unlike most of them". `agreement` is the share of raters who are on the label's side (the others are on the other side, or felt nothing). The frozen layers are rounded to 2 bits; whose answers change?

# %% atol=0.05
quantization.quantize_(lower, 2, group_size=32)
rounded = features(judged)
first, second = (metrics.predict(linear, [given]).argmax(-1) for given in (whole, rounded))
agree = ["all" if a == 1 else "most" if a >= 0.8 else "fewer" for a in judged["agreement"][:]]
for form, given in (("as it came", first), ("2 bits", second)):
    shares = metrics.accuracy_by_group(given, whole["labels"], agree)
    print(f"{form:11}", *(f"{kind} {shares[kind].share:.3f}" for kind in ("all", "most", "fewer")))
for kind in ("all", "fewer"):
    gap = metrics.accuracy_gap(first, second, whole["labels"], agree, kind)
    print(f"beyond the others, {kind:5} {gap.gap:+.3f} ({gap.low:+.3f} to {gap.high:+.3f})")

# %% [markdown]
# Where raters disagree the model is right less often, before and after. Whether those reviews or the clear ones pay more for 2 bits is not shown: both bars hold 0.
#
# ## 10 · What an answer costs: joules
#
# Energy is power times time: one **joule** is one watt for one second. Some processors have a meter inside (RAPL, *Running Average Power Limit*; on Linux usually only the administrator may read it). `energy` reads it where it can. Where it cannot, it multiplies the seconds by the watts that you state, and *says so*. Such a figure tells nothing that the seconds do not tell.
#
# The watts here are an assumption: 15, a laptop's processor at work on one core. A fair comparison has the same texts and the same answers asked for, a call before the clock starts, and a control: the same work under two names.
#
# **Predict:** how many times less energy does a text need when 64 are answered together?

# %%
guess = ...  # a number, such as 3


def batch_of(rows):
    (batch,) = data.ordered_batches(test.select(rows), tokenizer, max_length=16)
    return {name: part for name, part in batch.items() if name != "labels"}


def spent(form, rows):
    """Return the joules of one answer of a form, by the meter or by 15 watts."""
    batch = batch_of(rows)
    with torch.inference_mode():
        found = metrics.energy(lambda: forms[form](**batch), watts=15)
    return found.joules / len(rows)


# %% [markdown]
# The 4 bits of the chapter so far round the inputs too. Beside them stands the same without that, where each call makes floats of the integers again.

# %% clock=true
forms["4 bits, float inputs"] = copy.deepcopy(model)
quantization.quantize_(forms["4 bits, float inputs"], 4, group_size=32, embeddings=8)
turns = ("as it came", "4 bits", "4 bits, float inputs", "pruned", "as it came")
joules = {form: spent(form, [900]) for form in turns[:-1]}
joules |= {"as it came, again": spent(turns[-1], [900])}
joules |= {"one of 64 texts": spent("as it came", range(900, 964))}
few = metrics.energy(lambda: small.predict(asked[900:901]), watts=15)
joules |= {"small": few.joules}
for form, amount in joules.items():
    print(f"{form:21} {1000 * amount:6.1f} mJ a text")
ratio = joules["as it came"] / joules["one of 64 texts"]
compare(guess, ratio, "times")
assert ratio > 1.5 and joules["4 bits, float inputs"] > joules["4 bits"]

# %% tags=["nbval-ignore-output"]
assert few.source.startswith("measured" if few.measured else "assumed")
print("joules are", few.source)

# %% [markdown]
# - First look at the control: *as it came* was measured first and last. Differences between other rows that are no larger than between these two are noise.
# - Fewer **bytes** are not fewer joules. Four bits with inputs in floats need *more* than the model as it came; half pruned weights, stored as zeros, need the same.
# - Four bits with 8-bit inputs and integer products (chapter 05) need less.
# - **Answering together** saves more than four bits do, with the same model.
# - A small model that was never large needs an order of magnitude less.
#
# ## 11 · The ledger, and a card
#
# Quality, bytes and time, as in every chapter. The time is that of one text.

# %% clock=true atol=0.02
one_text = batch_of([900])
clocks = {form: lambda m=forms[form]: m(**one_text) for form in list(said)[:4]}
clocks = metrics.latencies(clocks | {"small": lambda: small.predict(asked[900:901])}, 9)
stored = {form: metrics.size_in_bytes(forms[form]) for form in list(said)[:4]}
weights, words_of = small[1].coef_.size + small[1].intercept_.size, small[0].vocabulary_
stored["small"] = 4 * (weights + len(words_of)) + sum(len(word.encode()) for word in words_of)
trained_of = dict.fromkeys(stored, adapter) | {"small": weights}
ledger = metrics.Ledger("accuracy")
for form, latency in clocks.items():
    right = metrics.accuracy(said[form], labels)
    ledger.add(form, stored[form], right, trained_of[form], latency)
print(ledger)
ax = plots.ledger(ledger)

# %% [markdown]
# *Figure: accuracy over megabytes; the small one has next to no bytes, and is nearly as good as the large one.*
#
# <details><summary>The figure in words</summary>
#
# Five dots. As it came at 90 MB and 0.967, pruned at 90 MB and 0.93, 4 bits at 18 MB and 0.965, 2 bits at 18 MB and 0.92, small near 0 MB at 0.96.
#
# </details>
#
# (2 bits are stored in 4 here, as chapter 10 explains, and zeros as numbers.) Look at what no column tells: the small model is near the large one by accuracy, and far ahead by bytes and time; but MiniLM's layers serve other tasks, too.
#
# A **model card** (Mitchell et al. 2019, arXiv 1810.03993) tells whoever did not make the model what it is, how well it does for whom, and what was not looked at. `ModelCard` fills nothing in: what was not measured is refused. It writes the file README.md that the hub shows, with licences, and with a hash of each file, by which a damaged or exchanged file is seen (if the card itself comes from a place that you trust).

# %%
folder = Path(tempfile.mkdtemp())
quantization.save_quantized(forms["4 bits"], folder / "model.safetensors")
sections = [names[label] for label in labels.tolist()]
card = deployment.ModelCard(
    about="Tells which section of the World Factbook a passage stands in. Rounded to 4 bits.",
    limits="Nothing but these passages was tried. Typing mistakes cost it some points.",
    row=ledger["4 bits"],
    measure=ledger.measure,
    groups={"section": metrics.accuracy_by_group(said["4 bits"], labels, sections)},
    paths=[folder / "model.safetensors"],
    licence="apache-2.0",
    base_model="sentence-transformers/all-MiniLM-L6-v2",
    data={"World Factbook": "PDDL-1.0"},
)
path = card.save(folder)

# %% tags=["nbval-ignore-output"]
from IPython.display import Markdown

text = path.read_text()
assert text.count("model.safetensors") == 1 and len(text.split("SHA-256")) == 2
Markdown(text.split("---", 2)[2].replace("\n#", "\n####"))

# %% [markdown]
# (Had one of the files been a **pickle**, a program that nobody should load from a stranger, `ModelCard` would have refused it: chapter 14.)
#
# ## **Spot the bug**
#
# An auditor suspects that a firm trained its head on the *clear* reviews, those about which all raters agree. The attack tells clear ones from disputed ones:

# %% atol=0.05
clear = torch.tensor([share == 1 for share in judged["agreement"][:]])
given = metrics.losses(linear, [whole])
found = metrics.membership_auc(given[clear], given[~clear])
print(f"clear against disputed: {found.auc:.3f} ({found.low:.3f} to {found.high:.3f})")
assert found.low > 0.58

# %% [markdown]
# "As good as against the head that learned by heart. So the clear reviews were in its training set." What is missing? Find it before you read on.
#
# <details><summary>Answer</summary>
#
# A control. These are the *test* reviews: the head has seen none of them. Clear reviews are easier for any model, seen or not. Members and others must be of the same kind, drawn from one pot by chance, as our two times 600 were; or a model that has certainly not seen them must be attacked beside it. Attacks on language models were believed for a while because "others" were *newer* texts than the members (Duan et al. 2024, arXiv 2402.07841).
#
# </details>

# %% [markdown]
# ## What papers say, and what we measured
#
# | paper | says | we measured | same order? |
# |---|---|---|---|
# | Hooker et al. 2020, 2010.03058 | pruned in training to equal accuracy, underrepresented groups lose most | without any training, rare classes lose 3 to 6 points more, not shown; a held-back small model 12, shown | same sign, another setting |
# | Guo et al. 2017, 1706.04599 | one temperature makes networks calibrated again | it does so at 2 bits and pruned | yes |
# | Yeom et al. 2018, 1709.01604 | overfitting is enough for a leak (not: needed) | by heart 0.66, linear 0.55 | yes |
# | Carlini et al. 2022, 2112.03570 | shadow models catch some for sure where a threshold catches next to none | so it is, in 2 bits too | yes |
# | Abadi et al. 2016, 1607.00133 | small $\varepsilon$ costs accuracy | 5 to 19 points with 600 rows | yes |
# | Carlini et al. 2019, 1802.08232 | a repeated secret is remembered | from 2 to 5 of 9 bits; 4 bits forget nothing | yes |
#
# ## Summary
#
# - **Ask who pays**, with groups named beforehand, the difference of changes, an interval that counts all questions, and a control that was never compressed.
# - **Confidence** must be measured again after each change; one temperature can mend it.
# - **Compression is no privacy.** What learns by heart leaks, in 2 bits too. DP-SGD promises, and its price is accuracy or data.
# - **Joules** that were assumed are seconds in other clothes. Fewer bytes need not be fewer joules.
# - **A card** says what was measured, and for whom; hashes and licences belong to it, and pickles do not.
#
# ## Further reading
#
# - Mitchell et al. 2019, *Model cards for model reporting* (arXiv 1810.03993).
