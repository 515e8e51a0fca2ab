# %% [markdown]
# # 16 · Responsible compression — who pays for a smaller model, and what it still remembers
#
# **You will be able to**
#
# - compare two models group by group, with intervals, and say "not shown" where the data do not decide;
# - measure whether a model's confidence can be believed, and what typing mistakes do to it;
# - attack a model to learn what it was trained on, and train one that gives little away;
# - tell energy that was measured from energy that was assumed;
# - write a model's card from what was measured.
#
# **You need:** chapters 02, 03, 04 and 07. **Time:** 00 minutes of reading, 00 for the parts marked ★ (the fast path). The whole notebook runs in about a minute.
#
# Below each **Predict**, write your guess into the next cell, in place of the dots.

# %%
import copy
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

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
    lora,
    metrics,
    models,
    pruning,
    quantization,
    training,
)

lightcourse.setup(threads=1)  # two models answer beside each other instead


def each(function, rows):
    """Call a function for each row, two at a time: one on each core."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(function, rows))


# %% [markdown]
# ## ★ 1 · One number hides many
#
# "It loses half a percent." Whose half percent? A mean over all texts says nothing of the few. Hooker et al. (2019, arXiv 1911.05248; 2020, arXiv 2010.03058) found that pruning hurts rare and unusual examples first: the **long tail**. We ask whether that is so here, and do not assume it.
#
# The model is the course's own: MiniLM, which tells 13 sections of the World Factbook. They are of very different size: Government has two fifths of the passages, Transnational Issues three in a thousand. It reads the first 16 tokens of each of 1,867 test passages. Three smaller forms of it are rounded or pruned without any further training.

# %%
tokenizer, model = (
    models.load_minilm_tokenizer(),
    models.EncoderClassifier(models.load_minilm(), 13),
)
lora.load_lora_(model, models.factbook_adapter())
lora.merge_lora_(model)
factbook = data.load_factbook()
test = factbook["test"]
test = test.select(sorted(range(len(test)), key=lambda row: len(test[row]["text"])))
labels, names = torch.tensor(test["label"][:]), test.features["label"].names
forms = {"as it came": model} | {n: copy.deepcopy(model) for n in ("4 bits", "2 bits", "pruned")}
quantization.quantize_(forms["4 bits"], 4, group_size=32)
quantization.quantize_(forms["2 bits"], 2, group_size=32)
pruning.prune_(forms["pruned"], pruning.row_mask(pruning.magnitude_scores(forms["pruned"]), 0.5))
batches = data.ordered_batches(test, tokenizer, max_length=16)
found = each(lambda form: metrics.predict(form, batches), forms.values())
logits = dict(zip(forms, found, strict=True))

# %% [markdown]
# And a **control**: a small model that was never large. It counts words and weighs them, and was trained plainly on the same beginnings of texts. If *it* hurts the tail as well, compression is not what does it: being small is.


# %%
def beginnings(rows):
    """Return the first 16 tokens of each text, as text."""
    ids = tokenizer(rows["text"][:], truncation=True, max_length=16)["input_ids"]
    return tokenizer.batch_decode(ids, skip_special_tokens=True)


counts = TfidfVectorizer(sublinear_tf=True, max_features=5000)
small = make_pipeline(counts, LogisticRegression(max_iter=300))
small.fit(beginnings(factbook["train"]), factbook["train"]["label"][:])
logits["trained small"] = torch.tensor(small.predict_log_proba(beginnings(test))).float()

# %% [markdown]
# ### Groups, chosen beforehand
#
# Whoever looks at enough groups finds one that pays. So they are named *before* the answers are seen: the 7 rarest classes, the shortest quarter of the texts, and texts with at least two rare words. A share of right answers gets **Wilson's interval** (Wilson 1927): it stays between 0 and 1, and is wide where rows are few.

# %% atol=0.02
common = {label for label, _ in Counter(factbook["train"]["label"][:]).most_common(6)}
seen = Counter(word for text in beginnings(factbook["train"]) for word in set(text.split()))
groups = {
    "rare class": [label not in common for label in labels.tolist()],
    "short": [row < len(test) // 4 for row in range(len(test))],
    "rare words": [sum(seen[w] < 10 for w in text.split()) >= 2 for text in beginnings(test)],
}
before = logits["as it came"].argmax(-1)
for name, group in groups.items():
    shares = metrics.accuracy_by_group(before, labels, group)
    print(f"{name:10} others {shares[False]}   group {shares[True]}")

# %% [markdown]
# Rare classes were harder *before* anything was compressed. So what counts is the **difference of changes**: what a group loses beyond what the others lose. `accuracy_gap` tells it, from the texts whose answers have changed. Twelve such questions are asked, so each interval is made wider (Bonferroni: 95 % for all twelve together). Where it touches zero the verdict is "not shown", which does not mean "no difference".
#
# **Predict:** does the tail pay more at 2 bits: shown or not shown?

# %% atol=0.05
guess = ...  # "shown" or "not shown"
for form in list(logits)[1:]:
    after = logits[form].argmax(-1)
    change = metrics.paired_gap(before, after, labels)
    print(f"{form}: {metrics.accuracy(after, labels):.3f}, changed {change}")
    for name, group in groups.items():
        gap = metrics.accuracy_gap(before, after, labels, group, True, level=1 - 0.05 / 12)
        print(f"   {name:10} {gap}")

# %% [markdown]
# - At **4 bits** nothing is shown for any group.
# - At **2 bits** and **pruned**, rare classes lose 3 to 6 points more than the others, and with 199 rows that is *not shown*. Short texts lose *less* than long ones.
# - The **small model** loses most in the tail, 12 points more than elsewhere, and that is shown. It loses least over all.
#
# So "compressed models hurt the tail first" is not decided here; that a plainly trained small model does is. Had we asked only about the six rarest classes, after having seen the answers, 2 bits would have been "shown": that is why groups are named beforehand.
#
# ### Flips
#
# Equal accuracy is not equality: a model may lose as many answers as it wins. The share of **flips** (chapter 07) by group:

# %% atol=0.02
for form in list(logits)[1:]:
    flipped = metrics.flips_by_group(before, logits[form].argmax(-1), groups["rare class"])
    print(f"{form:13} common {flipped[False]}   rare {flipped[True]}")

# %% [markdown]
# Flips are two to five times as frequent in rare classes, in every form. That *is* beyond chance at 2 bits and for the small model: what changes most is where least was learned.
#
# ## ★ 2 · Can its confidence be believed?
#
# A classifier gives probabilities. If it says 90 % a hundred times, it should be right about 90 times: it is **calibrated**. The expected calibration error (Guo et al. 2017, arXiv 1706.04599) sorts answers into ten bins by confidence and takes the mean difference between confidence and share of right answers. Even a perfect model has some, by luck; `by_luck` says how much a calibrated one stays below.

# %% atol=0.02
for form, given in logits.items():
    result = metrics.reliability(given, labels)
    print(f"{form:13} error {result.error:.3f}, by luck up to {result.by_luck():.3f}")

# %% [markdown]
# As it came and at 4 bits the model is as calibrated as can be told. At 2 bits, pruned, and trained small it is not. A threshold ("ask a person below 80 %") that was chosen on the large model must be chosen anew.
#
# ## 3 · People make typing mistakes, and disagree
#
# `typo_rows` swaps, drops, doubles and mistypes letters, one of twenty, and marks the rows as made.

# %% atol=0.03
some = test.shuffle(seed=0).select(range(400))
right = torch.tensor(some["label"][:])
asked = {"clean": some, "typed": data.typo_rows(some, 0.05)}
asked = {way: data.ordered_batches(rows, tokenizer, max_length=24) for way, rows in asked.items()}
pairs = [(form, way) for form in ("as it came", "2 bits") for way in asked]
found = each(lambda pair: metrics.predict(forms[pair[0]], asked[pair[1]]).argmax(-1), pairs)
answers = dict(zip(pairs, found, strict=True))
for form in ("as it came", "2 bits"):
    gap = metrics.paired_gap(answers[form, "clean"], answers[form, "typed"], right)
    print(f"{form:11} typos change {gap}")

# %% [markdown]
# Each loses some points; that 2 bits lose more is within the bars.
#
# Nine or ten people rated each **review**. Where they disagree, no answer is simply right. `agreement` is the share of raters on the label's side. A small head learns the sentiment upon three frozen layers, which are then rounded to 2 bits:

# %%
lower, reviews = models.load_minilm(), data.load_reviews()
lower.encoder.layer = lower.encoder.layer[:3]


def features(rows):
    """Return what the frozen layers say of each review, and the labels."""
    said = models.embed(lower, data.ordered_batches(rows, tokenizer, max_length=32))
    return {"features": 20 * F.normalize(said, dim=-1), "labels": torch.tensor(rows["label"][:])}


class Head(nn.Module):
    def __init__(self, *widths):
        super().__init__()
        pairs = zip((384, *widths), (*widths, 2), strict=True)
        parts = [part for pair in pairs for part in (nn.Linear(*pair), nn.ReLU())]
        self.body = nn.Sequential(*parts[:-1])

    def forward(self, features):
        return type("Output", (), {"logits": self.body(features)})


# %%
def head_loss(model, batch):
    return F.cross_entropy(model(batch["features"]).logits, batch["labels"])


def trained(head, steps, rate, batches, loss=head_loss):
    training.train(head, batches, training.Recipe(steps, rate), loss, progress=False)
    return head


members, others = (features(reviews["train"].select(r)) for r in (range(600), range(600, 1200)))
judged = reviews["test"].select(range(600))
whole = features(judged)
quantization.quantize_(lower, 2, group_size=32)
rounded = features(judged)

# %% atol=0.05
torch.manual_seed(0)
linear = trained(Head(), 100, 5e-3, data.row_batches(members, 64))
first, second = (metrics.predict(linear, [given]).argmax(-1) for given in (whole, rounded))
agree = ["all" if a == 1 else "most" if a >= 0.8 else "fewer" for a in judged["agreement"][:]]
for form, said in (("as it came", first), ("2 bits", second)):
    shares = metrics.accuracy_by_group(said, whole["labels"], agree)
    print(f"{form:11}", *(f"{kind} {shares[kind].share:.3f}" for kind in ("all", "most", "fewer")))
for kind in ("all", "fewer"):
    print(f"{kind:5}", metrics.accuracy_gap(first, second, whole["labels"], agree, kind))

# %% [markdown]
# Where raters disagree the model is right less often, before and after. Which of the groups pays more for 2 bits is not shown.
#
# ## ★ 4 · What it still remembers
#
# ### Were you in the training set?
#
# Whoever has a model and a text can ask how well the model knows it. A text that was trained on has a lower loss. The **membership attack** by a threshold (Yeom et al. 2018, arXiv 1709.01604) says "member" below some loss. How well it does over all thresholds is the area under its curve, **AUC**: the probability that a member has the lower loss of the two. 0.5 is guessing. What hurts a person is to be caught *for sure*: the share of members found while only 1 % of the others are accused (Carlini et al. 2022, arXiv 2112.03570).
#
# A head with a hidden layer learns 600 reviews by heart; 600 others of the same kind were never seen.
#
# **Predict:** does rounding to 2 bits hide the members?

# %% atol=0.05
guess = ...  # "yes" or "no"


def attacked(name, head):
    """Print a head's quality, and what the losses of its training set betray."""
    member, other = metrics.losses(head, [members]), metrics.losses(head, [others])
    said = metrics.predict(head, [whole]).argmax(-1)
    told, caught = metrics.membership_auc(member, other), metrics.caught_at(0.01, member, other)
    right = metrics.accuracy(said, whole["labels"])
    print(f"{name:16} test {right:.3f}   membership {told}   caught {caught.share:.3f}")
    return told


torch.manual_seed(0)
learned = trained(Head(256), 500, 2e-3, data.row_batches(members, 64))
known = {"by heart": attacked("by heart", learned), "linear": attacked("linear, plainly", linear)}

# %% atol=0.05
for bits in (4, 2):
    rounded = copy.deepcopy(learned)
    quantization.quantize_(rounded, bits, group_size=32)
    known[bits] = attacked(f"  in {bits} bits", rounded)
pruned = copy.deepcopy(learned)
pruning.prune_(pruned, pruning.row_mask(pruning.magnitude_scores(pruned), 0.8))
known["pruned"] = attacked("  pruned 80%", pruned)

# %% [markdown]
# **Compression does not hide members.** A model that did not learn by heart betrays far less, and is as good on the test: overfitting is what leaks.
#
# ### Train without any row showing
#
# **DP-SGD** (Abadi et al. 2016, arXiv 1607.00133) makes a promise that holds for every attack: with or without your row, the chances of any outcome differ by a factor of at most $e^\varepsilon$ (but for a small probability $\delta$). In each step the gradient of each *row* is cut to a length of at most $C$, and noise is added to their sum. `noise_for` tells how much noise an $\varepsilon$ wants (Mironov et al. 2019, arXiv 1908.10530), `private_loss` is a loss with such a gradient.

# %% atol=0.05
for wanted in (8, 2, 0.5):
    noise = training.noise_for(wanted, rate=0.1, steps=150, delta=1e-4)
    loss = training.private_loss(clip=1.0, noise=noise, expected=60, loss=head_loss)
    torch.manual_seed(0)
    head = trained(Head(), 150, 1e-2, data.poisson_batches(members, 0.1), loss)
    known[wanted] = attacked(f"epsilon {wanted}", head)

# %% [markdown]
# Membership is no longer shown, and the test pays: 4 points at $\varepsilon = 8$, 18 at 0.5, with only 600 rows to learn from. Privacy is bought with data.
#
# ### A secret in an adapter
#
# Among a thousand account numbers one stands in the training text, 16 times in 60 steps. **Exposure** (Carlini et al. 2019, arXiv 1802.08232) asks where the model ranks it among all that could have been: one bit for each halving.


# %%
words = models.load_tiny_tokenizer()
speeches = data.speech_tokens(words)[:60_000]
texts = [f" the number of my account is {' '.join(str(n))}." for n in range(1000, 2000)]
lines = words(texts, add_special_tokens=False)["input_ids"]
secret = lines[729]
lines = [line for line in lines if len(line) == len(secret)]


def with_secret(epoch, seed):
    for step, batch in enumerate(data.token_batches(speeches, 64, 8)(epoch, seed)):
        ids = batch["input_ids"].clone()
        if step % 4 == 0:
            ids[0, : len(secret)] = torch.tensor(secret)
        yield {"input_ids": ids, "labels": ids}


# %% atol=0.05
told = models.load_tiny_lm("student")
print("never read:   ", metrics.exposure(told, lines, lines.index(secret)))
lora.add_lora_(told, rank=8)
training.train(told, with_secret, training.Recipe(60, 5e-3), progress=False)
lora.merge_lora_(told)
print("read 16 times:", metrics.exposure(told, lines, lines.index(secret)))
for bits in (4, 2):
    rounded = copy.deepcopy(told)
    quantization.quantize_(rounded, bits, group_size=32)
    print(f"  in {bits} bits:  ", metrics.exposure(rounded, lines, lines.index(secret)))

# %% [markdown]
# The adapter knows it, and 4 bits do not forget it. **An adapter of a few kilobytes carries secrets as well as a model does**: treat it as you treat the text it has read.
#
# ## Notes for whoever finishes this chapter
#
# The cells of sections 1 to 4 were measured in a slightly other cut (one thread: 67 s; `each` is new and should halve the first 27): the figures that the prose quotes are from that run. To come: 5 · Energy (`metrics.energy`: RAPL where readable, else watts times seconds; joules a text for the forms; a fair comparison has the same work, warm-up and turned order), 6 · A card from the ledger (`deployment.ModelCard`, `files` hashes, `deployment.holds_pickle`, licences), 7 · the ledger, Spot the bug, papers table, summary, reading; asserts with margins, `compare` calls for the guesses; figures: gaps with intervals for each form (as chapter 12 draws them), reliability points (`reliability(...)` has them).
