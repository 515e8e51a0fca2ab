# %% [markdown]
# # 01 · Models and metrics — where a model's weights sit, and how to measure it without fooling yourself
#
# **You will be able to**
#
# - say where the parameters of an encoder and of a decoder sit, and what pretraining and fine-tuning each do;
# - compute perplexity and bits per byte, and say when two such numbers may be compared;
# - decide by a paired test whether one model is better than another, and choose between accuracy and macro-F1;
# - work out from two numbers of a machine whether a model fits and how fast it can be, and time it properly.
#
# **You need:** chapter 00. **Time:** 62 minutes of reading, 25 for the parts marked ★ (the fast path). The whole notebook runs in about a minute.
#
# Below each **Predict** stands a place for your guess: write it in place of the dots, and run the cell.

# %%
import copy
import math
import re
import time
from collections import Counter

import torch

import lightcourse
from lightcourse import data, layers, metrics, models, plots, quantization
from lightcourse.guessing import compare

lightcourse.setup()

# %% [markdown]
# ## ★ 1 · Where the parameters sit
#
# Whoever wants to make a model light must know where its weight is. We take four models: MiniLM, the *encoder* of chapter 00, and three *decoders*: SmolLM2 and two tiny language models that were trained for this course. An encoder reads a whole text, to judge it; a decoder sees only what comes before, and writes on. (MiniLM was made light itself before we got it: it was distilled from a larger model, Wang et al. 2020, arXiv 2002.10957, and then every second of its twelve layers was dropped, as its model card says.)

# %%
minilm, smollm2 = models.load_minilm(), models.load_smollm2()
teacher, student = models.load_tiny_lm("teacher"), models.load_tiny_lm("student")
zoo = {"MiniLM": minilm, "SmolLM2": smollm2, "tiny teacher": teacher, "tiny student": student}

# %% [markdown]
# All four are built from the same parts. With $V$ tokens in the vocabulary, a width of $d$ and $L$ layers:
#
# | part | what it does | parameters |
# |---|---|---|
# | embeddings | a table: token number in, $d$ numbers out | about $V \cdot d$, once |
# | attention | four matrices: looks at the other tokens | up to $4 d^2$ in each layer |
# | feed-forward | two or three matrices: works on each token alone | about $8 d^2$ in each layer |
# | norms | rescale the numbers | a few $d$ |
#
# This is one layer of MiniLM, as a row for each token passes through it:


# %%
PARTS = {"norms": "(?i)norm", "embeddings": "embed", "attention": "att", "feed-forward": "."}


def parts(model):
    """Count a model's parameters by the part that they belong to."""
    counts = Counter(dict.fromkeys(["embeddings", "attention", "feed-forward", "norms"], 0))
    for name, parameter in model.named_parameters():
        part = next(part for part, pattern in PARTS.items() if re.search(pattern, name))
        counts[part] += parameter.numel()
    return counts


# %%
block = minilm.encoder.layer[0]
steps = {
    "attention": block.attention.self,
    "mix and add": block.attention.output.dense,
    "norm": block.attention.output.LayerNorm,
    "feed-forward\nand add": torch.nn.ModuleList([block.intermediate, block.output.dense]),
    "norm ": block.output.LayerNorm,
}
ax = plots.transformer_block(
    {name: sum(p.numel() for p in part.parameters()) for name, part in steps.items()}
)

# %% [markdown]
# *Figure: most of a layer's parameters are in its feed-forward part.*
#
# <details><summary>The figure in words</summary>
#
# A chain of boxes from left to right. In: one row for each token. Attention (three matrices, which let a token look at the others), 443,520 parameters. Mix and add (the fourth matrix of attention; its result is added to what came in), 147,840. Norm, 768. Feed-forward and add, 1,181,568. Norm, 768. Out: rows of the same shape.
#
# </details>
#
# **Predict:** MiniLM has $V$ = 30,522, $d$ = 384 and $L$ = 6. What share of its parameters are embeddings?

# %%
guess = ...  # percent
percent = {}
for name, model in zoo.items():
    counts = parts(model)
    percent[name] = {part: 100 * count / counts.total() for part, count in counts.items()}
    print(f"{name:13} {counts.total():>11,} parameters")
compare(guess, percent["MiniLM"]["embeddings"], "%")
ax = plots.stacked_bars(percent, "percent of the parameters")
for bars in ax.containers:
    ax.bar_label(bars, fmt=lambda size: f"{size:.0f}" if size > 3 else "", label_type="center")

# %% [markdown]
# *Figure: embeddings are half of the narrow encoder, and a small part of the deep decoder.*
#
# <details><summary>The figure in words</summary>
#
# One bar for each model, cut into embeddings, attention, feed-forward and norms. Embeddings are 53 % of MiniLM, 21 % of SmolLM2, 12 % of the tiny teacher and 24 % of the tiny student. In all four, feed-forward matrices hold more than attention does, and norms are too thin to see.
#
# </details>
#
# <details><summary>Why more than half?</summary>
#
# The table costs $V \cdot d$ = 30,522 × 384 = 11.7 million. Six layers cost $6 \cdot 12 d^2$ = 10.6 million. The table grows with $V$ and $d$, the layers with $L$ and $d^2$: a large vocabulary makes the share larger, more layers and a greater width make it smaller.
#
# </details>
#
# The table matters for one more reason. Our encoder only *looks up* rows in it: that takes memory, but no multiplication. A decoder often uses the same table a second time, as its last layer, where it *is* multiplied with. Such weights are called **tied**. (`lm_head` is the name of that last layer.)

# %%
for name, model in zoo.items():
    print(f"{name:13} tied: {layers.tied_layers(model) or 'nothing'}")

# %% [markdown]
# ## Encoder or decoder: who sees what?
#
# We give a model five tokens, then change the *last* one. Does its output at the *first* token change?

# %%
tokens = torch.tensor([[101, 500, 600, 700, 800]])
changed = torch.tensor([[101, 500, 600, 700, 900]])
for name in ("MiniLM", "tiny teacher"):
    with torch.no_grad():
        first, second = zoo[name](tokens)[0], zoo[name](changed)[0]
    print(f"{name:13} first token's output changes: {not torch.equal(first[0, 0], second[0, 0])}")

# %% [markdown]
# An encoder reads the whole text, left and right. A decoder sees only what comes before: it *must* not look ahead, because its job is to say what comes next. This decides how each of them can be trained without labels, and what each is good for: an encoder for judging a text, a decoder for writing one.

# %%
ax = plots.training_stages()

# %% [markdown]
# *Figure: pretraining makes its own questions from plain text; fine-tuning needs labels, but few.*
#
# <details><summary>The figure in words</summary>
#
# From left to right, plain text without labels (billions of words) feeds PRETRAINING (guess hidden words; all weights trained; once and long). Out comes a base model, which knows language and has no task. FINE-TUNING (match the labels; all weights or few; often and short) is fed by hundreds to thousands of labelled examples. Out comes a task model, which answers one question. Below pretraining stand its two forms: an encoder fills in a [MASK] and reads both sides; a decoder names the next word and reads the left side only.
#
# </details>
#
# **Pretraining** makes its own questions out of plain text, so the text can be huge: BERT, the ancestor of MiniLM, read 3.3 billion words (Devlin et al. 2018, arXiv 1810.04805, section 3.1). **Fine-tuning** needs labels, so its sets are small: chapter 00 used 768 sentences.
#
# Our tiny models were pretrained on much less: speeches of American presidents. This is all the "labelling" that a decoder needs, shown on a speech that was held out:

# %%
tiny_tokenizer = models.load_tiny_tokenizer()
held_out = data.speech_tokens(tiny_tokenizer, "test")
print(f"{len(data.speech_tokens(tiny_tokenizer, 'train')):,} tokens to learn from")
for end in (2, 3, 4, 5):
    seen, wanted = (tiny_tokenizer.decode(held_out[i:j]) for i, j in [(0, end), (end, end + 1)])
    print(f"{seen!r} -> {wanted!r}")

# %% [markdown]
# ## ★ 2 · The same accuracy is not the same model
#
# Chapter 00 met something odd: at 4 bits the accuracy hardly moved, but answers had changed. Now we count. MiniLM stays as it is; we only want its 384 numbers for each sentence of the reviews, the mean of its outputs over the sentence's tokens: `models.embed` returns them. A plain logistic regression (one linear layer, as the head of chapter 00) learns the job from them.

# %%
from sklearn.linear_model import LogisticRegression

reviews, tokenizer = data.load_reviews(), models.load_minilm_tokenizer()
learn, judge = reviews["train"].select(range(768)), reviews["test"].select(range(400))
test_batches = data.ordered_batches(judge, tokenizer, max_length=32)
x = models.embed(minilm, data.ordered_batches(learn, tokenizer, max_length=32))
x_test = models.embed(minilm, test_batches)
y, y_test = torch.tensor(learn["label"][:]), torch.tensor(judge["label"][:])
regression = LogisticRegression(max_iter=1000).fit(x, y)
before = torch.tensor(regression.predict(x_test))
print(tuple(x.shape), tuple(x_test.shape))

# %% [markdown]
# Then the encoder is quantized to 8 and to 4 bits, one scale for each row. The regression is not trained again.
#
# **Predict:** what percentage of the 400 answers are different at 4 bits?

# %% atol=0.015
guess = ...  # percent
after = {}
for bits in (8, 4):
    quantized = copy.deepcopy(minilm)
    report = quantization.quantize_(quantized, bits=bits)
    after[bits] = torch.tensor(regression.predict(models.embed(quantized, test_batches)))
    moved = metrics.accuracy(after[bits], y_test) - metrics.accuracy(before, y_test)
    flipped = metrics.flips(before, after[bits])
    print(f"{bits} bits: {flipped:.1%} of the answers changed, accuracy {moved:+.3f}")
compare(guess, 100 * metrics.flips(before, after[4]), "%")
assert metrics.flips(before, after[8]) < 0.03 < metrics.flips(before, after[4])

# %% [markdown]
# At 4 bits about one answer in fifteen has changed, in both directions: gains and losses partly cancel, and the accuracy sees only their *difference*. The **flips** (Dutta et al. 2024, arXiv 2407.09141) are their *sum*. (The paper counts changes from right to wrong and from wrong to right. With two classes every change is one of those; with more, give `flips` the labels.) A customer whose review was judged correctly yesterday and wrongly today does not care about the average.
#
# ### Is one model better than another?
#
# Both answered the *same* sentences, so the answers are **paired**, and those that both have right or both have wrong say nothing about which is better. Of $n$ answers count the `gained` (only the second model is right) and the `lost` (only the first is):
#
# $$\text{gap} = \frac{\text{gained} - \text{lost}}{n} \qquad \text{margin} = \frac{2\sqrt{\text{gained} + \text{lost}}}{n}$$
#
# Why this margin? If the models were equally good, each changed answer would be a throw of a coin: gained or lost. Over $m$ throws the difference of the two counts has a standard deviation of $\sqrt m$, and the margin is twice that. The **sign test** makes it exact: it asks how often $m$ coins would fall at least as one-sidedly. That is the `p_value`. (For paired answers it is also called McNemar's test.) The rule of this course: below 0.05 a gap is **decided**, otherwise it is **inconclusive**.

# %% atol=0.02
always = torch.ones_like(y_test)
for name, other in {"8 bits": after[8], "4 bits": after[4], "always positive": always}.items():
    gap = metrics.paired_gap(before, other, y_test)
    verdict = "decided" if gap.decided else "inconclusive"
    print(f"{name:15} {gap}: {verdict}")
assert gap.decided and not metrics.paired_gap(before, after[8], y_test).decided

# %% [markdown]
# The control is the last line: a rule that could not tell a model from a constant answer would be of no use. Now with real coins: 26 changed answers, 10 of them gained and 16 lost.

# %% atol=0.01
gap = metrics.PairedGap(gained=10, lost=16, count=400)
heads = torch.randint(0, 2, (20_000, 26)).sum(1)
as_uneven = (heads <= 10) | (heads >= 16)
print(f"{gap}: {as_uneven.double().mean():.3f} of the throws are as uneven")
print(f"p value {gap.p_value:.3f}")

# %% [markdown]
# A margin for *one* accuracy $p$, $2\sqrt{p(1-p)/n}$, is a different thing: it says how far the accuracy on other sentences may be. It is too wide for a gap between two models that agree on most answers. And the test speaks of these *sentences*: another seed of the training is another question, which only more seeds answer.
#
# ## 3 · Perplexity, and why two perplexities can rarely be compared
#
# A language model gives a probability to every possible next token. We judge it by the probability that it gave to the token that really came. Suppose a model reads two tokens and had given them 1/4 and 1/16:
#
# | token that came | probability $p$ | loss $-\ln p$ |
# |---|---|---|
# | dog | 1/4 | 1.386 |
# | barked | 1/16 | 2.773 |
#
# The mean loss (`cross_entropy`) is 2.079. **Perplexity** is the exponential of the mean loss:
#
# $$\text{perplexity} = \exp\Big(-\frac{1}{N}\sum_{i=1}^{N} \ln p_i\Big)$$
#
# %%
p = torch.tensor([1 / 4, 1 / 16])
loss = -p.log().mean()
print(f"mean loss {loss:.3f}, perplexity {loss.exp():.3f}")

# %% [markdown]
# <details><summary>How to read the number</summary>
#
# A model that hesitates among 8 equally likely tokens gives each 1/8, and has perplexity 8. Our model was better than that at one token and worse at the other: on average it was as unsure as a fair choice among 8. Perplexity is the *geometric* mean of $1/p$: √(4 × 16) = 8.
#
# </details>
#
# Now a real one. The teacher reads the start of a speech that it was not trained on. The `logits`, one score for each token of the vocabulary, become log-probabilities, and from each row we take the one of the token that came:

# %% atol=0.001
some = held_out[:65]
with torch.no_grad():
    logits = teacher(some[None, :-1]).logits[0]
losses = -logits.log_softmax(-1)[torch.arange(64), some[1:]]
by_hand = losses.mean().exp().item()
assert math.isclose(by_hand, metrics.perplexity(teacher, some), rel_tol=1e-4)
for place in losses.topk(2).indices.tolist() + (-losses).topk(2).indices.tolist():
    print(
        f"{tiny_tokenizer.decode(some[place + 1])!r:>12} had probability {(-losses[place]).exp():.4f}"
    )

# %% [markdown]
# By hand and by `metrics.perplexity`: the same, and from here on we use the library's. The two most surprising and the two least surprising tokens are shown.
#
# The control: a model that was **not** trained.
#
# **Predict:** its perplexity. (The vocabulary has 2,048 tokens.)

# %% rtol=0.02
guess = ...  # a number
untrained = models.new_tiny_lm("teacher").eval()
sample = held_out[:2049]
blind, trained = metrics.perplexity(untrained, sample), metrics.perplexity(teacher, sample)
compare(guess, blind)
print(f"trained: {trained:.1f}")
assert 2048 < blind < 2300 and trained < 30

# %% [markdown]
# <details><summary>Why a little more than 2,048?</summary>
#
# A model that gave each token exactly 1/2,048 would have perplexity 2,048. Random weights prefer some tokens by chance, and are surprised by the others.
#
# </details>
#
# ### First trap: the window
#
# A long text does not fit into a model at once. It is cut into **windows**, and at the start of each window the model knows nothing.
#
# **Predict:** the teacher with windows of 16 tokens against the four times smaller *student* with windows of 256. Which has the lower perplexity?

# %% rtol=0.01
guess = ...  # "teacher" or "student"
curves = {}
for name, model in {"teacher, 4.3M": teacher, "student, 1.1M": student}.items():
    curves[name] = {w: metrics.perplexity(model, sample, window=w) for w in (4, 16, 64, 256)}
    print(name, {window: round(value, 1) for window, value in curves[name].items()})
ax = plots.curves(curves, "window: tokens that the model sees at once", "perplexity")
large, small = curves["teacher, 4.3M"], curves["student, 1.1M"]
compare(guess, "student" if small[256] < large[16] else "teacher")
assert large[16] > 1.1 * large[256] and large[256] < small[256] < large[16]

# %% [markdown]
# *Figure: the shorter the window, the higher the perplexity, for the same model and the same text.*
#
# <details><summary>The figure in words</summary>
#
# Perplexity falls as the window grows from 4 to 256 tokens, steeply at first, for both models. The teacher's line lies below the student's at every window; but the student with a window of 256 lies below the teacher with a window of 16.
#
# </details>
#
# With windows of 16 the teacher's perplexity is a third higher than with 256, by cutting alone. With a short window a model has less to go by. Nothing about the model has changed, only the ruler: at unequal windows the student seems to beat its teacher. Papers do the same to you: the *same* LLaMA-2-7B stands at 5.12 in one paper and at 5.47 in another (Wanda, arXiv 2306.11695; AWQ, arXiv 2306.00978), because they measured with other context lengths.
#
# ### Second trap: the tokenizer
#
# SmolLM2 is thirty times larger than our teacher and has read vastly more (arXiv 2502.02737). We let both read the same 800 characters of two speeches, of 1815 and of 2015. Both fit into one window, so the window cannot mislead us here.

# %% rtol=0.01
speeches = {row["year"]: row["text"][:800] for row in data.load_speeches("test")}
readers = {
    "tiny teacher": (teacher, tiny_tokenizer),
    "SmolLM2": (smollm2, models.load_smollm2_tokenizer()),
}
per_token, counts = {}, {}
for name, (model, reader) in readers.items():
    for year in (1815, 2015):
        ids, key = reader(speeches[year], add_special_tokens=False)["input_ids"], (name, year)
        start = reader.bos_token_id or reader.eos_token_id  # stands before the text
        counts[key] = len(ids)
        per_token[key] = metrics.perplexity(model, torch.tensor([start, *ids]))
        print(f"{name:13} {year}: {len(ids)} tokens, perplexity {per_token[key]:.1f}")

# %% [markdown]
# By perplexity, our 4-million-parameter model beats SmolLM2 at both speeches! Look at the number of tokens before you believe it. SmolLM2 cuts the same text into *fewer, longer* tokens (its vocabulary is 24 times larger). A longer token is a harder guess: to say "Representatives" in one step is harder than to say it in three easy steps.
#
# So count what the *text* costs, not what a token costs. A mean loss of $\ell$ for each of $N$ tokens, over $B$ bytes of text, makes
#
# $$\text{bits per byte} = \frac{N \cdot \ell}{\ln 2 \cdot B}$$
#
# Bytes are the same for every tokenizer, and `metrics.bits_per_byte` does it all. (It is also the size to which this model could pack the text: at 1.2 bits per byte, to 1.2/8 of the file.)
#
# **Predict:** in bits per byte, who is better at the speech of 2015?

# %% rtol=0.01
guess = ...  # "tiny teacher" or "SmolLM2"
per_byte = {}
for (name, year), count in counts.items():
    nats = count * math.log(per_token[name, year])
    bits = per_byte[name, year] = nats / (math.log(2) * len(speeches[year].encode()))
    print(f"{name:13} {year}: {bits:.2f} bits per byte")
compare(guess, min(readers, key=lambda name: per_byte[name, 2015]))
assert all(per_token["tiny teacher", y] < per_token["SmolLM2", y] for y in (1815, 2015))
assert per_byte["SmolLM2", 2015] < per_byte["tiny teacher", 2015] - 0.1
assert abs(per_byte["SmolLM2", 1815] - per_byte["tiny teacher", 1815]) < 0.15

# %% [markdown]
# <details><summary>What to take from this</summary>
#
# In 2015 the order is turned around: SmolLM2 spends clearly fewer bits on the same text, and perplexity had named the wrong winner. In 1815, where perplexity saw one model far better than the other, they are close to each other. Our tiny model keeps up because it has read nothing *but* such speeches, those of 1814 and 1816 among them.
#
# And a caution about SmolLM2's figures: these speeches are public, and it may have read them. Our tiny models have not: years that end in 5 were kept out of their training. To call a test text *held out*, you must know the training text.
#
# </details>
#
# **Rule:** perplexities can be compared at the same tokenizer *and* the same window. Bits per byte can be compared across tokenizers, with windows that hold the same amount of text.
#
# ### KL: how far the probabilities have moved
#
# Section 2 counted answers. An answer flips only when the *largest* probability changes hands. Probabilities can drift a long way before. The Kullback-Leibler divergence measures that drift, from the old probabilities $p$ to the new ones $q$:
#
# $$\mathrm{KL}(p \,\|\, q) = \sum_i p_i \ln\frac{p_i}{q_i}$$

# %%
p, q = torch.tensor([0.5, 0.5]), torch.tensor([0.9, 0.1])
by_hand = (p * (p / q).log()).sum().item()
assert math.isclose(by_hand, metrics.kl_divergence(p.log(), q.log()), rel_tol=1e-5)
print(f"KL(p||q) = {by_hand:.3f}, KL(q||p) = {metrics.kl_divergence(q.log(), p.log()):.3f}")

# %% [markdown]
# The two differ: the first is weighted by what the *old* model finds likely, which is what we want to keep. It is 0 only where both agree everywhere.
#
# Now the tiny teacher as a language model, 2,048 guesses of a next token, quantized with one scale for each row. The model against itself is the control.

# %% atol=0.01
windows = [{"input_ids": sample[:2048].view(8, 256)}]
old = metrics.predict(teacher, windows)
kl, flipped = {}, {}
for bits in (32, 8, 4, 3):
    small = copy.deepcopy(teacher)
    report = quantization.quantize_(small, bits=bits) if bits < 32 else None
    new = metrics.predict(small, windows)
    kl[bits] = metrics.kl_divergence(old, new)
    flipped[bits] = metrics.flips(old.argmax(-1).flatten(), new.argmax(-1).flatten())
    rise = metrics.perplexity(small, sample) / metrics.perplexity(teacher, sample) - 1
    moved = f"KL {kl[bits]:.3f} nats, {flipped[bits]:5.1%} flipped"
    print(f"{bits:2} bits: perplexity {rise:+z7.1%}, {moved}")
assert kl[32] == flipped[32] == 0 and kl[8] < 0.01 < kl[4] < kl[3]
assert flipped[8] < 0.05 < flipped[4] < flipped[3]

# %% [markdown]
# At 4 bits the perplexity rises by a few percent at most, but the first guess changes at about one place in ten. (A **nat** is the unit of whatever is made with $\ln$; it is 1.44 bits.) One number for quality is not enough: beside the quality, report **how far the model has moved** from the one it replaces.
#
# ## 4 · Accuracy and macro-F1: who is overlooked?
#
# In real life, classes are rarely equal. Suppose that nine of ten customers are content, and your job is to find the tenth. We keep all positive sentences, and one negative for every nine positives.


# %%
def skewed(labels):
    """Return the rows of all positives, and of one negative for every nine positives."""
    positive, negative = (labels == 1).nonzero()[:, 0], (labels == 0).nonzero()[:, 0]
    return torch.cat([positive, negative[: len(positive) // 9]])


rows, rows_test = skewed(y), skewed(y_test)
truth = y_test[rows_test]
print(f"test: {int((truth == 1).sum())} positive, {int((truth == 0).sum())} negative")

# %% [markdown]
# Four candidates: one that has learned nothing and always says "positive"; a plain logistic regression; one that gives every class the same weight in its loss (`balanced`), however rare it is; and a control that names as many negatives as "balanced" does, but at random.
#
# **Predict:** the accuracy of the one that has learned nothing.

# %% atol=0.03
guess = ...  # a share, between 0 and 1
answers = {"always positive": torch.ones_like(truth)}
for name, weight in [("plain", None), ("balanced", "balanced")]:
    fitted = LogisticRegression(max_iter=1000, class_weight=weight).fit(x[rows], y[rows])
    answers[name] = torch.tensor(fitted.predict(x_test[rows_test]))
answers["as many, at random"] = answers["balanced"][torch.randperm(len(truth))]
for name, answer in answers.items():
    found = metrics.accuracy(answer[truth == 0], truth[truth == 0])
    share = metrics.accuracy(answer, truth)
    print(f"{name:18}  accuracy {share:.2f}, finds {found:.0%} of the negatives")
compare(guess, metrics.accuracy(answers["always positive"], truth))

# %% [markdown]
# By accuracy, knowing nothing wins or nearly wins, and the one that finds the most unhappy customers is behind. Accuracy counts *sentences*, and nine of ten sentences are positive. The control shows that naming many negatives is not enough: it finds far fewer.
#
# **F1** looks at one class: how many it hits (`TP`), names wrongly (`FP`) and misses (`FN`). **Macro-F1** is the plain mean over the classes, so each class counts the same:
#
# $$F_1 = \frac{2\,TP}{2\,TP + FP + FN} \qquad \text{macro-}F_1 = \frac{1}{C}\sum_{c=1}^{C} F_1(c)$$
#
# "Always positive" has an F1 near 1 for the positives, and 0 for the negatives, of which it hits none.

# %% atol=0.03
from sklearn.metrics import f1_score

scores = {name: metrics.macro_f1(answer, truth) for name, answer in answers.items()}
for name, answer in answers.items():
    assert math.isclose(scores[name], f1_score(truth, answer, average="macro"), rel_tol=1e-6)
    print(f"{name:18}  macro-F1 {scores[name]:.3f}")
gap = metrics.paired_gap(answers["always positive"], answers["balanced"], truth)
print(f"accuracy of balanced, against always positive: {gap}")
assert scores["balanced"] > max(scores["always positive"], scores["as many, at random"])

# %% [markdown]
# The same numbers as scikit-learn's. And the order is turned around: macro-F1 puts "balanced" above the one that learned nothing. Neither measure is *the* right one. They answer different questions: "how many sentences are judged rightly?" and "how well is each class served?" On a skewed set, report both, and next to them the score of always giving the commonest answer. With two dozen negatives, one sentence more or less moves their F1 by points, so we make nothing of the order of "plain" and "balanced". (And say which F1 you mean: two formulas go by the name of macro-F1, Opitz & Burst 2019, arXiv 1911.03347.)
#
# ## ★ 5 · Will it fit, how fast can it be?
#
# Two numbers of a machine tell most of the story: how many **bytes** it can read from memory in a second (`bandwidth`), and how many **operations** it can do in a second (`peak`).
#
# - To make *one* token, a decoder reads every weight once and does about two operations with it: one multiplication, one addition.
# - To read a *prompt* of 64 tokens it also reads every weight once, but does 2 × 64 operations with it.
#
# So the time cannot be shorter than
#
# $$t \ge \max\Big(\frac{\text{bytes}}{\text{bandwidth}},\ \frac{\text{operations}}{\text{peak}}\Big)$$
#
# We measure this machine, on one thread: a large matrix times *one* vector is all reading; a square matrix times a square matrix is nearly all arithmetic. SmolLM2 is timed in the same rounds. Its `past_key_values` are what it remembers of the prompt, so that it need not read it again for each token.

# %%
matrix, vector, square = torch.ones(8192, 8192), torch.ones(8192), torch.ones(1024, 1024)
prompt = torch.arange(1000, 1064)[None]
cache = smollm2(prompt).past_key_values
times = metrics.latencies(
    {
        "reading": lambda: matrix @ vector,
        "computing": lambda: square @ square,
        "token": lambda: smollm2(prompt[:, :1], past_key_values=cache),
        "prompt": lambda: smollm2(prompt),
    },
    repeats=5,
    warmup=1,
)

# %% [markdown]
# **Predict:** SmolLM2 has 134.5 million parameters in 32-bit floats, so 538 million bytes. If a machine reads 10 GB in a second, how many tokens can it write in a second at most?

# %% clock=true
guess = ...  # tokens a second; compare it with the third line
stored = metrics.size_in_bytes(smollm2)
bandwidth = matrix.nbytes / times["reading"].median
peak = 2 * 1024**3 / times["computing"].median
written, read = 1 / times["token"].median, 64 / times["prompt"].median
print(f"this machine, 1 thread: {bandwidth / 1e9:.1f} GB/s, {peak / 1e9:.0f} billion operations/s")
limit = bandwidth / stored
print(f"writes {written:.1f} tokens/s, limit {limit:.1f} tokens/s, by reading {stored:,} bytes")
print(f"at 10 GB/s, by division: {10e9 / stored:.1f} tokens/s at most")
can_read = peak / (2 * smollm2.num_parameters())
print(f"reads {read:.0f} tokens/s, limit {can_read:.0f} tokens/s, by computing")
assert written < 2 * limit and read < 2 * can_read and read > 1.5 * written
matrix = None  # gives back 268 MB

# %% [markdown]
# Two divisions gave the right order of magnitude. (The bandwidth is itself a measurement: on a busy machine a speed may come out slightly above its limit.) Reading a prompt is faster for each token than writing: the weights are fetched once and used 64 times.
#
# Now other machines. The figures below are typical of data sheets; they are *assumptions* for you to edit, and a real program reaches perhaps half to three quarters of them. (× 16: operations in a cycle of one core.) For writing, the bandwidth alone sets the limit, so the next cell uses no peak.
#
# | machine | memory | bandwidth | operations |
# |---|---|---|---|
# | a board such as Raspberry Pi 5 | 8 GB | LPDDR4X-4267, 4 bytes wide: 17 GB/s | 4 cores × 2.4 GHz × 16: 154 billion/s |
# | a phone | 8 GB | LPDDR5-6400, 8 bytes wide: 51 GB/s | CPU, assumed: 200 billion/s |
#
# Take a model of 7 billion parameters, and a phone where half of the memory is free for it. Do its weights fit?

# %%
machines = {"board": (17e9, 154e9), "phone": (51e9, 200e9)}  # bandwidth, peak: edit me
free = 4e9
widths = {"32 bits": 32, "16 bits": 16, "4 bits, groups of 32": 4 + 16 / 32}
for name, parameters in {"SmolLM2": 134_515_008, "1 billion": 1e9, "7 billion": 7e9}.items():
    for form, width in widths.items():
        size = parameters * width / 8
        speeds = [f"{machine} {reads / size:5.1f}" for machine, (reads, _) in machines.items()]
        fits = ", ".join(speeds) + " tokens/s" if size < free else "does not fit"
        print(f"{name:9} {form:20} {size / 1e9:5.2f} GB  {fits}")

# %% [markdown]
# <details><summary>Why 4.5 bits, and is 3.94 GB small enough?</summary>
#
# In common file formats each group of 32 weights shares one scale of 16 bits: 4 + 16/32. At 4.5 bits, 7 billion parameters take 3.94 GB: the weights fit, and the phone writes 13 tokens a second at most.
#
# But *only* the weights fit. A decoder also keeps a **cache**, what it remembers of the text so far. For a model of this size that is half a megabyte for each token (32 layers × 2 × 4,096 numbers × 2 bytes), so the last 60 MB are full after about a hundred tokens. A billion parameters in 32 bits, exactly 4.00 GB, leave no room for any cache: the table says so.
#
# </details>
#
# ## The roofline
#
# All of this in one picture. To the right: more operations for each byte read. Under the slope, the memory is the limit; under the flat roof, the arithmetic.

# %%
moved = {"write a token": (2 / 4, written), "read 64": (64 * 2 / 4, read)}
reached = {
    name: [(intensity, speed * 2 * smollm2.num_parameters())]
    for name, (intensity, speed) in moved.items()
}
ax = plots.roofline({**machines, "this machine, 1 thread": (bandwidth, peak)}, points=reached)
for place, limit in {0.1: "memory", 0.65: "arithmetic"}.items():
    text = ax.annotate(f"limit: {limit}", (place, 0.93), xycoords="axes fraction", fontsize=11)

# %% [markdown]
# *Figure: writing tokens lies under the slope, where memory is the limit; reading a prompt under the flat roof, where arithmetic is.*
#
# <details><summary>The figure in words</summary>
#
# Three roofs over the operations done for each byte read, both axes logarithmic. Each rises along a slope, where memory is the limit, and then turns flat, where arithmetic is. Two dots show what SmolLM2 reached on this machine with 32-bit weights: writing a token, 0.5 operations a byte, lies to the left near the slope of this machine; reading a prompt of 64 tokens, 32 operations a byte, to the right below its flat roof.
#
# </details>
#
# Read two lessons from it. Writing tokens is limited by bytes: fewer bits can make it faster, *if* the kernel reads the packed bits. Reading a long prompt, or judging a long sentence with an encoder, is limited by arithmetic: there fewer bits alone gain nothing.
#
# ## 6 · Latency done wrong, and right
#
# Limits are one thing; the clock is another. Many tutorials time a model like this: start the clock, load, call, stop.
#
# **Predict:** how many times too long is that for one sentence through MiniLM: nearest to 2, to 20 or to 200?

# %% clock=true
guess = ...  # 2, 20 or 200 times
sentence = tokenizer("The plot is thin, but the actors are a joy.", return_tensors="pt")
start = time.perf_counter()
models.load_minilm()(**sentence)
once = time.perf_counter() - start
proper = metrics.latency(lambda: minilm(**sentence), repeats=30)
print(f"load and first call {once * 1e3:.0f} ms; one call {proper}")
compare(guess, once / proper.median, "times")
assert once > 2 * proper.median

# %% [markdown]
# `metrics.latency` calls a few times without timing (warm-up: memory is fetched, code is loaded), then many times with it, and reports the **median**, the **spread** and the **threads**. Each of the three is needed. Look at single calls of one and the same function:

# %%
seconds = []
with torch.inference_mode():
    for _ in range(60):
        start = time.perf_counter()
        minilm(**sentence)
        seconds.append(time.perf_counter() - start)
ax = plots.call_times(seconds)

# %% [markdown]
# *Figure: calls of the same function differ, so one call proves nothing: look at the median.*
#
# <details><summary>The figure in words</summary>
#
# The times of 60 calls of the same function, one dot each, with their median as a line. The function and its input never changed. Slow calls often come in blocks.
#
# </details>
#
# Compare two *single* calls, and you may "prove" that a model is faster than itself. Time model A before such a slow block and model B during it, and A "wins": that is why we measure in turns. And two comparisons that were never fair: other inputs, and other numbers of threads.

# %% clock=true
long = tokenizer(" ".join(["thin plot"] * 80), return_tensors="pt")


def product(threads):
    torch.set_num_threads(threads)
    return square @ square


work = {"short text": lambda: minilm(**sentence), "long text": lambda: minilm(**long)}
work |= {f"product, threads: {count}": lambda n=count: product(n) for count in (2, 1)}
runs = metrics.latencies(work, repeats=7)
for name, run in runs.items():
    print(f"{name:18} {run.median * 1e3:.1f} ms ± {run.spread * 1e3 / 2:.1f}")
assert runs["long text"].median > 1.5 * runs["short text"].median

# %% [markdown]
# The same model twice: a longer text costs several times more. The same matrix product twice: a second thread may gain nothing, or nearly halve the time. Who times the old model on one thread and the quantized one on two has measured the threads. **Rule:** same input, same threads, in turns (`metrics.latencies`), warm-up, median and spread.
#
# ## **Spot the bug**
#
# This function stands, in many versions, in tutorials on language models. It looks just like the real one. What is wrong with it?


# %% rtol=0.01
def perplexity_of_text(model, tokens, window):
    """Return the perplexity of a text. (This is the version with the bug.)"""
    pieces = tokens.split(window + 1)
    found = [metrics.perplexity(model, piece, window) for piece in pieces if len(piece) > 1]
    return sum(found) / len(found)


for window in (16, 64):
    right = metrics.perplexity(teacher, sample, window)
    ratio = perplexity_of_text(teacher, sample, window) / right
    print(f"window {window:2}: {ratio:.1f} times the right value")

# %% [markdown]
# Find it before you read on. (There is a second, smaller bug, in how the text is cut.)
#
# <details><summary>Answer</summary>
#
# It takes the mean of the windows' *perplexities*; the mean must be taken of the *losses*, and the exponential last. One hard window with a perplexity of 1,000 then outweighs a hundred easy ones. Among windows of equal length the result is never too low, because the exponential bends upwards (Jensen's inequality). A short last window counts as much as a full one, which can push the result either way. And the second bug: `split` gives each piece its own first token, which nothing predicts, so one token in `window + 1` is never charged.
#
# </details>
#
# The test that tells them apart: two windows with the losses 1 and 3. Change the numbers. When do the two ways agree?

# %%
window_losses = torch.tensor([1.0, 3.0])
wrong, true = window_losses.exp().mean(), window_losses.mean().exp()
print(f"mean of the perplexities {wrong:.2f}, perplexity of the mean loss {true:.2f}")
assert wrong >= true

# %% [markdown]
# <details><summary>Answer</summary>
#
# Only where both losses are equal. Else the mean of the perplexities is the larger.
#
# </details>
#
# ## Summary
#
# | question | measure | compares only at equal | what misled above |
# |---|---|---|---|
# | how good is a language model? | perplexity; across tokenizers bits per byte | tokenizer and window; text | the student ahead of its teacher, a 4-million model ahead of SmolLM2 in 2015 |
# | how many answers are right? | accuracy, beside the commonest answer | test set | 0.90 by an answer that had learned nothing, macro-F1 0.47 |
# | is one model better? | paired gap and sign test | the very same sentences | the margin of *one* accuracy |
# | is it still the same model? | flips, KL | the very same inputs | at 4 bits the accuracy hardly moved, one answer in fifteen changed |
# | how fast? | median and spread, in turns | input, threads | a first call |
#
# - **Where the weight is.** Embeddings are 53 % of MiniLM and 21 % of SmolLM2; an encoder looks both ways, a decoder only back. Pretraining makes its own questions from plain text; fine-tuning needs labels, but few.
# - **Two divisions** tell whether a model fits and how fast it can be: 7 billion parameters at 16 bits are 14 GB; at 4.5 bits 3.94 GB, and 13 tokens a second at most on a phone with 51 GB/s. Then the clock decides.
#
# ## Further reading
#
# - Devlin et al. 2018, *BERT* (arXiv 1810.04805): section 3, pretraining and fine-tuning in their first clear form.
# - Gao et al. 2020, *The Pile* (arXiv 2101.00027): section 3.1, why bits per byte.
# - Dutta et al. 2024, *Accuracy is Not All You Need* (arXiv 2407.09141): flips and KL of compressed models.
# - Opitz & Burst 2019, *Macro F1 and Macro F1* (arXiv 1911.03347): two formulas, one name.
# - Williams, Waterman & Patterson 2009, *Roofline*, Communications of the ACM 52(4): the picture and its use.
# - Pope et al. 2022, *Efficiently Scaling Transformer Inference* (arXiv 2211.05102): section 2, the same arithmetic for very large models.
