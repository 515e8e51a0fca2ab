# %% [markdown]
# # 01 · Models and metrics — where a model's weights sit, and how to measure it without fooling yourself
#
# **You will be able to**
#
# - say where the parameters of an encoder and of a decoder sit, and what pretraining and fine-tuning each do;
# - compute perplexity and bits per byte, and say when two such numbers may be compared;
# - choose between accuracy and macro-F1, and count the answers that a change has *flipped*;
# - work out from two numbers of a machine whether a model fits and how fast it can be, and time it properly.
#
# **You need:** chapter 00. **Time:** 50 minutes of reading; the whole notebook runs in about a minute.
#
# Where a paragraph begins with **Predict**, write down a number before you run the next cell.

# %%
import copy
import math
import re
import time
from collections import Counter

import torch

import lightcourse
from lightcourse import data, layers, metrics, models, plots, quantization

lightcourse.setup()

# %% [markdown]
# ## 1 · Where the parameters sit
#
# Whoever wants to make a model light must know where its weight is. We take four models: MiniLM, the *encoder* of chapter 00, and three *decoders*: SmolLM2 and two tiny language models that were trained for this course.

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
# | attention | four matrices: looks at the other tokens | up to $4 d^2$ in each layer (less in SmolLM2, which shares some) |
# | feed-forward | two or three matrices: works on each token alone | about $8 d^2$ in each layer |
# | norms | rescale the numbers | a few $d$ |
#
# **Predict:** MiniLM has $V$ = 30,522, $d$ = 384 and $L$ = 6. What share of its parameters are embeddings?

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
percent = {}
for name, model in zoo.items():
    counts = parts(model)
    percent[name] = {part: 100 * count / counts.total() for part, count in counts.items()}
    print(
        f"{name:13} {counts.total():>11,} parameters, {percent[name]['embeddings']:.1f} % embeddings"
    )
ax = plots.stacked_bars(percent, "percent of the parameters")

# %% [markdown]
# *Figure: one bar for each model, cut into embeddings, attention, feed-forward and norms. Embeddings are 53 % of MiniLM, 21 % of SmolLM2, 12 % of the tiny teacher and 24 % of the tiny student. In all four, feed-forward matrices hold more than attention does, and norms are too thin to see.*
#
# <details><summary>Why more than half?</summary>
#
# The table costs $V \cdot d$ = 30,522 × 384 = 11.7 million. Six layers cost $6 \cdot 12 d^2$ = 10.6 million. The table grows with $d$, the layers with $d^2$: the narrower and shallower a model, the more of it is table. SmolLM2 has a larger table (49,152 × 576), but 30 layers.
#
# </details>
#
# The formulas for attention and feed-forward, checked against the real encoder. They leave out the biases:

# %%
counts = parts(minilm)
layer_formula = 6 * 12 * 384**2
layer_count = counts["attention"] + counts["feed-forward"]
print(f"formula {layer_formula:,}, counted {layer_count:,}")
assert abs(layer_formula - layer_count) < 0.01 * layer_count

# %% [markdown]
# The table matters for one more reason. Our encoder only *looks up* rows in it: that takes memory, but no multiplication. (The head that guessed hidden words in its training was taken off.) A decoder often uses the same table a second time, as its last layer, where it *is* multiplied with. Such weights are called **tied**.

# %%
for name, model in zoo.items():
    print(f"{name:13} tied: {layers.tied_layers(model) or 'nothing'}")

# %% [markdown]
# ### Encoder or decoder: who sees what?
#
# **Predict:** we give a model five tokens, then change the *last* one. Does its output at the *first* token change? Answer for the encoder and for the decoder.

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
# *Figure: from left to right, plain text without labels (billions of words) feeds PRETRAINING (guess hidden words; all weights trained; once and long). Out comes a base model, which knows language and has no task. FINE-TUNING (match the labels; all weights or few; often and short) is fed by hundreds to thousands of labelled examples. Out comes a task model, which answers one question. Below pretraining stand its two forms: an encoder fills in a [MASK] and reads both sides; a decoder names the next word and reads the left side only.*
#
# **Pretraining** makes its own questions out of plain text, so the text can be huge: BERT, the ancestor of MiniLM, read 3.3 billion words (Devlin et al. 2018, arXiv 1810.04805, section 3.1). **Fine-tuning** needs labels, so its sets are small: chapter 00 used 768 sentences. In between, all-MiniLM was tuned on a billion pairs of sentences that belong together (its model card), and SmolLM2 was taught to follow instructions.
#
# Our tiny models were pretrained on much less: speeches of American presidents. Here is the whole "labelling" of a decoder's training text:

# %%
tiny_tokenizer = models.load_tiny_tokenizer()
held_out = data.speech_tokens(tiny_tokenizer, "test")
print(f"{len(data.speech_tokens(tiny_tokenizer, 'train')):,} tokens to learn from")
for end in (2, 3, 4, 5):
    seen, wanted = (tiny_tokenizer.decode(held_out[i:j]) for i, j in [(0, end), (end, end + 1)])
    print(f"{seen!r} -> {wanted!r}")

# %% [markdown]
# Each token is the right answer to the question "what comes next?". No person had to label anything.
#
# ## 2 · Perplexity, and why two perplexities rarely compare
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
# **Predict:** it is a whole number here. Which?

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
# Now a real one. The teacher reads the start of a speech that it was not trained on. `logits` become log-probabilities, and from each row we take the one of the token that came:

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
# The control: a model that was **not** trained. **Predict** its perplexity. (The vocabulary has 2,048 tokens.)

# %%
untrained = models.new_tiny_lm("teacher").eval()
sample = held_out[:2049]
blind, trained = metrics.perplexity(untrained, sample), metrics.perplexity(teacher, sample)
print(f"untrained about {round(blind, -2):,.0f}, trained {trained:.0f}")
assert 2048 < blind < 2300 and trained < 30

# %% [markdown]
# <details><summary>Why a little more than 2,048?</summary>
#
# A model that gave each token exactly 1/2,048 would have perplexity 2,048. Random weights do not do even that: they prefer some tokens by chance, and a probability that is too low costs more than an equally wrong one that is too high gains, because $-\ln p$ is curved.
#
# </details>
#
# ### First trap: the window
#
# A long text does not fit into a model at once. It is cut into **windows**, and at the start of each window the model knows nothing.
#
# **Predict:** the same teacher, the same 2,048 tokens. Its perplexity with windows of 256 tokens is some number $P$. What is it with windows of 16: the same, 10 % more, 30 % more? And whom do you expect to be better: the *teacher* with windows of 16, or the four times smaller *student* with windows of 256?

# %% rtol=0.01
curves = {}
for name, model in {"teacher, 4.3M": teacher, "student, 1.1M": student}.items():
    curves[name] = {w: metrics.perplexity(model, sample, window=w) for w in (4, 16, 64, 256)}
    print(name, {window: round(value, 1) for window, value in curves[name].items()})
ax = plots.curves(curves, "window: tokens that the model sees at once", "perplexity")
large, small = curves["teacher, 4.3M"], curves["student, 1.1M"]
assert large[16] > 1.1 * large[256] and large[256] < small[256] < large[16]

# %% [markdown]
# *Figure: perplexity falls as the window grows from 4 to 256 tokens, steeply at first, for both models. The teacher's line lies below the student's at every window; but the student with a window of 256 lies below the teacher with a window of 16.*
#
# From 22.4 to 29.4: a third more, by cutting alone. With a short window a model has less to go by. Nothing about the model has changed, only the ruler: at unequal windows the student seems to beat its teacher. Papers do the same to you: the *same* LLaMA-2-7B stands at 5.12 in one paper and at 5.47 in another (Wanda, arXiv 2306.11695; AWQ, arXiv 2306.00978), because they measured with other context lengths.
#
# ### Second trap: the tokenizer
#
# SmolLM2 is thirty times larger than our teacher and has read vastly more; its 1.7-billion sister read 11 *trillion* tokens (arXiv 2502.02737). We let both read the same 800 characters of two speeches, of 1815 and of 2015. Both fit into one window, so the window cannot mislead us here.
#
# **Predict:** how much lower is SmolLM2's perplexity, in 1815 and in 2015?

# %% rtol=0.01
speeches = {row["year"]: row["text"][:800] for row in data.load_speeches("test")}
readers = {
    "tiny teacher": (teacher, tiny_tokenizer),
    "SmolLM2": (smollm2, models.load_smollm2_tokenizer()),
}
per_token, per_byte = {}, {}
for name, (model, tokenizer) in readers.items():
    for year in (1815, 2015):
        text, key = speeches[year], (name, year)
        length = len(tokenizer(text, add_special_tokens=False)["input_ids"])
        per_byte[key] = metrics.bits_per_byte(model, tokenizer, text)
        per_token[key] = 2 ** (per_byte[key] * len(text.encode()) / length)
        print(f"{name:13} {year}: {length} tokens, perplexity {per_token[key]:.1f}")

# %% [markdown]
# By perplexity, our 4-million-parameter model beats SmolLM2 at both speeches! Look at the number of tokens before you believe it. SmolLM2 cuts the same text into *fewer, longer* tokens (its vocabulary is 24 times larger). A longer token is a harder guess: to say "Representatives" in one step is harder than to say it in three easy steps.
#
# So count what the *text* costs, not what a token costs. A mean loss of $\ell$ for each of $N$ tokens, over $B$ bytes of text, makes
#
# $$\text{bits per byte} = \frac{N \cdot \ell}{\ln 2 \cdot B}$$
#
# Bytes are the same for every tokenizer. (It is also the size to which this model could pack the text: at 1.2 bits per byte, to 1.2/8 of the file.)
#
# **Predict** again: who is better, now in bits per byte?

# %% rtol=0.01
for (name, year), bits in per_byte.items():
    print(f"{name:13} {year}: {bits:.2f} bits per byte")
assert all(per_token["tiny teacher", y] < per_token["SmolLM2", y] for y in (1815, 2015))
assert per_byte["SmolLM2", 2015] < per_byte["tiny teacher", 2015] - 0.1
assert abs(per_byte["SmolLM2", 1815] - per_byte["tiny teacher", 1815]) < 0.15

# %% [markdown]
# <details><summary>What to take from this</summary>
#
# In 2015 the order is turned around: SmolLM2 spends clearly fewer bits on the same text, and perplexity had named the wrong winner. In 1815, where perplexity saw one model about four times better than the other, they are close to each other. That our tiny model keeps up there at all has a simple reason: it has read nothing *but* such speeches, those of 1814 and 1816 among them.
#
# And an honest word about SmolLM2's figures: these speeches are public, and a model that read much of the web may have seen them. Our tiny models have not: years that end in 5 were kept out of their training. To call a test text *held out*, you must know the training text. SmolLM2's weights had also been rounded to 4 bits before we got them, which costs it a little.
#
# </details>
#
# **Rule:** perplexities compare at the same tokenizer *and* the same window. Bits per byte compare across tokenizers, with windows that hold the same amount of text.
#
# ## 3 · Accuracy and macro-F1: who is overlooked?
#
# Back to the reviews and to MiniLM. The encoder stays as it is; we only want its 384 numbers for each sentence, the mean of its outputs over the sentence's tokens: `models.embed` returns them.

# %%
reviews, tokenizer = data.load_reviews(), models.load_minilm_tokenizer()
learn, judge = reviews["train"].select(range(768)), reviews["test"].select(range(400))
test_batches = data.ordered_batches(judge, tokenizer, max_length=32)
x = models.embed(minilm, data.ordered_batches(learn, tokenizer, max_length=32))
x_test = models.embed(minilm, test_batches)
y, y_test = torch.tensor(learn["label"][:]), torch.tensor(judge["label"][:])
print(tuple(x.shape), tuple(x_test.shape))

# %% [markdown]
# In real life, classes are rarely equal. Suppose that nine of ten customers are content, and your job is to find the tenth. We keep all positive sentences and one negative for nine of them.


# %%
def skewed(labels):
    """Return the rows of all positives, and of one negative for nine of them."""
    positive, negative = (labels == 1).nonzero()[:, 0], (labels == 0).nonzero()[:, 0]
    return torch.cat([positive, negative[: len(positive) // 9]])


rows, rows_test = skewed(y), skewed(y_test)
truth = y_test[rows_test]
print(f"test: {int((truth == 1).sum())} positive, {int((truth == 0).sum())} negative")

# %% [markdown]
# Three candidates: one that has learned nothing and always says "positive"; a plain logistic regression; and one that gives every class the same weight in its loss (`balanced`), however rare it is.
#
# **Predict:** the accuracy of the one that has learned nothing. Is it the best or the worst of the three?

# %%
from sklearn.linear_model import LogisticRegression

answers = {"always positive": torch.ones_like(truth)}
for name, weight in [("plain", None), ("balanced", "balanced")]:
    regression = LogisticRegression(max_iter=1000, class_weight=weight).fit(x[rows], y[rows])
    answers[name] = torch.tensor(regression.predict(x_test[rows_test]))
for name, answer in answers.items():
    found = int(((answer == 0) & (truth == 0)).sum())
    wronged = int(((answer == 0) & (truth == 1)).sum())
    share = metrics.accuracy(answer, truth)
    print(f"{name:15}  accuracy {share:.2f}, finds {found} negatives, wrongs {wronged} positives")

# %% [markdown]
# By accuracy, knowing nothing wins or nearly wins, and the one that finds the most unhappy customers comes last. Accuracy counts *sentences*, and nine of ten sentences are positive.
#
# **F1** looks at one class: how many it hits (`TP`), names wrongly (`FP`) and misses (`FN`). **Macro-F1** is the plain mean over the classes, so each class counts the same:
#
# $$F_1 = \frac{2\,TP}{2\,TP + FP + FN} \qquad \text{macro-}F_1 = \frac{1}{C}\sum_{c=1}^{C} F_1(c)$$
#
# **Predict:** the macro-F1 of "always positive". Its F1 for the positives is nearly 1; what is it for the negatives?

# %% atol=0.01
positives, negatives = int((truth == 1).sum()), int((truth == 0).sum())
f1_positive = 2 * positives / (2 * positives + negatives + 0)
f1_negative = 0 / (0 + 0 + negatives)
print(
    f"by hand: ({f1_positive:.3f} + {f1_negative:.3f}) / 2 = {(f1_positive + f1_negative) / 2:.3f}"
)
for name, answer in answers.items():
    print(f"{name:15}  macro-F1 {metrics.macro_f1(answer, truth):.3f}")

# %%
from sklearn.metrics import f1_score

scores = {name: metrics.macro_f1(answer, truth) for name, answer in answers.items()}
for name, answer in answers.items():
    assert math.isclose(scores[name], f1_score(truth, answer, average="macro"), rel_tol=1e-6)
right = {name: metrics.accuracy(answer, truth) for name, answer in answers.items()}
assert (
    right["balanced"] < right["always positive"] and scores["balanced"] > scores["always positive"]
)

# %% [markdown]
# The same numbers as scikit-learn's. And the order is turned around: macro-F1 puts "balanced" above the one that learned nothing. Neither measure is *the* right one. They answer different questions: "how many sentences are judged rightly?" and "how well is each class served?" On a skewed set, report both, and next to them the score of always giving the most common answer. But mind the give or take of chapter 00: with two dozen negatives, one sentence more or less moves their F1 by several points. That "balanced" beats "plain" is *inconclusive* here; that both find what "always positive" never can is not.
#
# <details><summary>A caution about the name</summary>
#
# *Micro*-F1 over all classes is, for questions with one answer, the same number as accuracy. *Weighted* F1 weighs the classes by their size and hides the rare ones again. And F1 of the mean precision and the mean recall is a third thing with the same name (Opitz & Burst 2019, arXiv 1911.03347). Say which one you mean.
#
# </details>
#
# ## 4 · The same accuracy is not the same model
#
# Chapter 00 met something odd: at 4 bits the accuracy hardly moved, but answers had changed. Now we count. The classifier is a plain logistic regression on *all* 768 sentences; the encoder is quantized to 8 and to 4 bits, one scale for each row. It is not trained again.
#
# **Predict:** the accuracy on 400 sentences moves by one or two points, so at least 4 to 8 answers have changed. How many do you think have changed at 4 bits?

# %% atol=0.01
regression = LogisticRegression(max_iter=1000).fit(x, y)
before = torch.tensor(regression.predict(x_test))
after = {}
for bits in (8, 4):
    quantized = copy.deepcopy(minilm)
    report = quantization.quantize_(quantized, bits=bits)
    after[bits] = torch.tensor(regression.predict(models.embed(quantized, test_batches)))
    gained = ((before != y_test) & (after[bits] == y_test)).float().mean()
    lost = ((before == y_test) & (after[bits] != y_test)).float().mean()
    print(f"{bits} bits: {gained:.1%} of the answers became right, {lost:.1%} became wrong")

# %% atol=0.01
for bits, answer in after.items():
    moved = metrics.accuracy(answer, y_test) - metrics.accuracy(before, y_test)
    print(
        f"{bits} bits: accuracy moves by {moved:+.3f}, {metrics.flips(before, answer):.3f} flipped"
    )
assert metrics.flips(before, after[8]) < 0.03
assert metrics.flips(before, after[4]) > 0.03
assert metrics.flips(before, before) == 0

# %% [markdown]
# At 8 bits next to nothing has changed. At 4 bits about one answer in fifteen has changed, yet in both directions: gains and losses partly cancel, and the accuracy, which only sees their *difference*, moves by a point or so: less than the give or take of 0.04 that chapter 00 found for 400 sentences. The **flips** (Dutta et al. 2024, arXiv 2407.09141) see their *sum*. A customer whose review was judged correctly yesterday and wrongly today does not care about the average.
#
# ### KL: also what is not (yet) an answer
#
# An answer flips only when the *largest* probability changes hands. Probabilities can drift a long way before. The Kullback-Leibler divergence measures that drift, from the old probabilities $p$ to the new ones $q$:
#
# $$\mathrm{KL}(p \,\|\, q) = \sum_i p_i \ln\frac{p_i}{q_i}$$
#
# **Predict:** is KL(p ‖ q) the same as KL(q ‖ p)?

# %%
p, q = torch.tensor([0.5, 0.5]), torch.tensor([0.9, 0.1])
by_hand = (p * (p / q).log()).sum().item()
assert math.isclose(by_hand, metrics.kl_divergence(p.log(), q.log()), rel_tol=1e-5)
print(f"KL(p||q) = {by_hand:.3f}, KL(q||p) = {metrics.kl_divergence(q.log(), p.log()):.3f}")

# %% [markdown]
# No: the first is weighted by what the *old* model finds likely, which is what we want to keep. It is 0 only where both agree everywhere.
#
# Now the tiny teacher as a language model, 2,048 guesses of a next token, quantized with one scale for each row. The model against itself is the control.
#
# **Predict:** by how much does the perplexity rise at 4 bits? And for what share of the positions does the *most likely* next token change?

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
# At 4 bits the perplexity rises by 2 %, but the first guess changes at 10 of 100 places. (A **nat** is the unit of whatever is made with $\ln$; it is 1.44 bits.) One number for quality is not enough: beside the quality, report **how far the model has moved** from the one it replaces.
#
# ## 5 · Will it fit, how fast can it be?
#
# Two numbers of a machine tell most of the story: how many **bytes** it can read from memory in a second (`bandwidth`), and how many **operations** it can do in a second (`peak`). Two numbers of a job go with them.
#
# - To make *one* token, a decoder reads every weight once and does about two operations with it: one multiplication, one addition.
# - To read a *prompt* of 64 tokens it also reads every weight once, but does 2 × 64 operations with it.
#
# So the time cannot be shorter than
#
# $$t \ge \max\Big(\frac{\text{bytes}}{\text{bandwidth}},\ \frac{\text{operations}}{\text{peak}}\Big)$$
#
# We measure this machine, on one thread: a large matrix times *one* vector is all reading; a square matrix times a square matrix is nearly all arithmetic. SmolLM2 is timed in the same rounds, so that whatever else your machine is doing slows all alike. Its `past_key_values` are what it remembers of the prompt, so that it need not read it again for each token.

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
# **Predict:** SmolLM2 has 134.5 million parameters in 32-bit floats, so 538 million bytes. If your machine reads 10 GB in a second, how many tokens can it write in a second at most? And is a prompt of 64 tokens read at the same speed, for each token?

# %% clock=true
stored = metrics.size_in_bytes(smollm2)
bandwidth = matrix.nbytes / times["reading"].median
peak = 2 * 1024**3 / times["computing"].median
written, read = 1 / times["token"].median, 64 / times["prompt"].median
print(f"this machine, 1 thread: {bandwidth / 1e9:.1f} GB/s, {peak / 1e9:.0f} billion operations/s")
limit = bandwidth / stored
print(f"writes {written:.1f} tokens/s, limit {limit:.1f} tokens/s, by reading {stored:,} bytes")
can_read = peak / (2 * smollm2.num_parameters())
print(f"reads {read:.0f} tokens/s, limit {can_read:.0f} tokens/s, by computing")
assert written < 2 * limit and read < 2 * can_read
assert read > 1.5 * written
matrix = None  # gives back 268 MB

# %% [markdown]
# Two divisions gave the right order of magnitude: on an idle machine both speeds stay below their limits, by a factor of two or three at most. (The bandwidth is itself a measurement: on a busy machine a speed may come out slightly above its limit.) With 10 GB a second the limit would be 10 / 0.538 = 18.6 tokens a second. Reading a prompt is several times faster for each token than writing: the weights are fetched once and used 64 times.
#
# Now other machines. The figures below are typical of data sheets; they are *assumptions* for you to edit, and a real program reaches perhaps half to three quarters of them. (× 16: operations in a cycle of one core.) For writing, the bandwidth alone sets the limit, so the next cell uses no peak.
#
# | machine | memory | bandwidth | operations |
# |---|---|---|---|
# | a board such as Raspberry Pi 5 | 8 GB | LPDDR4X-4267, 4 bytes wide: 17 GB/s | 4 cores × 2.4 GHz × 16: 154 billion/s |
# | a phone | 8 GB | LPDDR5-6400, 8 bytes wide: 51 GB/s | CPU, assumed: 200 billion/s |
#
# **Predict:** a model of 7 billion parameters on that phone, where half of the memory is free for it. Do its weights fit with 16 bits? With 4 bits, how many tokens a second at most?

# %%
machines = {"board": (17e9, 154e9), "phone": (51e9, 200e9)}  # bandwidth, peak: edit me
free = 4e9
widths = {"32 bits": 32, "16 bits": 16, "4 bits, groups of 32": 4 + 16 / 32}
for name, parameters in {"SmolLM2": 134_515_008, "1 billion": 1e9, "7 billion": 7e9}.items():
    for form, width in widths.items():
        size = parameters * width / 8
        speeds = [f"{machine} {reads / size:5.1f}" for machine, (reads, _) in machines.items()]
        fits = ", ".join(speeds) + " tokens/s" if size <= free else "does not fit"
        print(f"{name:9} {form:20} {size / 1e9:5.2f} GB  {fits}")

# %% [markdown]
# <details><summary>Why 4.5 bits?</summary>
#
# In common file formats each group of 32 weights shares one scale of 16 bits: 4 + 16/32. (Our own `quantize_` does the same.) At 16 bits, 7 billion parameters take 14 GB and fit nowhere here. At 4.5 bits they take 3.94 GB: the weights fit, and the phone writes 13 tokens a second at most. This, not arithmetic, is why everybody quantizes the weights of language models.
#
# But *only* the weights fit. A decoder also keeps a **cache**, what it remembers of the text so far. For a model of this size that is half a megabyte for each token (32 layers × 2 × 4,096 numbers × 2 bytes), so the last 60 MB are full after about a hundred tokens.
#
# </details>
#
# All of this in one picture, the **roofline**. To the right: more operations for each byte read. Under the slope, the memory is the limit; under the flat roof, the arithmetic.

# %%
work = {
    "write a token, 32 bits": 2 / 4,
    "the same, 4 bits": 2 * 8 / 4.5,
    "read 64, 32 bits": 64 * 2 / 4,
}
ax = plots.roofline({**machines, "this machine, 1 thread": (bandwidth, peak)}, work)

# %% [markdown]
# *Figure: three roofs over the operations for each byte. Each rises along a slope, where memory is the limit, and then turns flat, where arithmetic is. Three dotted lines mark jobs: writing a token with 32-bit weights (0.5 operations a byte) lies far to the left, under the slopes; with 4-bit weights (3.6) seven times further to the right, near the bends; reading a prompt of 64 tokens (32) under the flat roofs.*
#
# Read two lessons from it. Writing tokens is limited by bytes: fewer bits can make it faster, *if* the kernel reads the packed bits. Reading a long prompt, or judging a long sentence with an encoder, is limited by arithmetic: there fewer bits alone gain nothing.
#
# ### Latency done wrong, and right
#
# Limits are one thing; the clock is another. Many tutorials time a model like this: start the clock, load, call, stop.
#
# **Predict:** how many times too long is that for one sentence through MiniLM?

# %% clock=true
sentence = tokenizer("The plot is thin, but the actors are a joy.", return_tensors="pt")
start = time.perf_counter()
models.load_minilm()(**sentence)
once = time.perf_counter() - start
proper = metrics.latency(lambda: minilm(**sentence), repeats=30)
print(f"load and first call {once * 1e3:.0f} ms; one call {proper}")
print(f"{once / proper.median:.0f} times too long, most of it for loading")
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
# *Figure: the times of 60 calls of the same function, one dot each, with their median as a line. No two calls take the same time, though the function and its input never changed. Slow calls often come in blocks.*
#
# Compare two *single* calls, and you may "prove" that a model is faster than itself. Time model A before such a slow block and model B during it, and A "wins": that is why we measure in turns. And two comparisons that were never fair: other inputs, and other numbers of threads.

# %% clock=true
long = tokenizer(" ".join(["thin plot"] * 80), return_tensors="pt")
texts = {"short text": lambda: minilm(**sentence), "long text": lambda: minilm(**long)}
runs = metrics.latencies(texts, repeats=5)
for threads in (1, 2):
    torch.set_num_threads(threads)
    runs[f"square, {threads}"] = metrics.latency(lambda: square @ square, repeats=5)
torch.set_num_threads(1)
for name, run in runs.items():
    print(f"{name:10} {run}")
assert runs["long text"].median > 1.5 * runs["short text"].median
assert [run.threads for run in runs.values()] == [1, 1, 1, 2]

# %% [markdown]
# The same model twice: a longer text costs several times more. The same matrix product twice: on an idle machine a second thread takes about half of the time away, on a busy one it may even cost time. Who times the old model on one thread and the quantized one on two has measured the threads. **Rule:** same input, same threads, in turns (`metrics.latencies`), warm-up, median and spread.
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
assert wrong > true

# %% [markdown]
# ## Summary
#
# - **Where the weight is.** Embeddings are 53 % of MiniLM and 21 % of SmolLM2; an encoder looks both ways, a decoder only back. Pretraining makes its own questions from plain text; fine-tuning needs labels, but few.
# - **Perplexity** compares at the same tokenizer and window only. At unequal windows our student seemed to beat its teacher; across tokenizers our 4-million model seemed to beat SmolLM2 on a speech of 2015. **Bits per byte** set that right.
# - **Accuracy** of 0.90 was reached by an answer that had learned nothing; its macro-F1 was 0.47. **Flips**: at 4 bits the accuracy moved by about a point, and about one answer in fifteen changed.
# - **Two divisions** tell whether a model fits and how fast it can be: 7 billion parameters at 16 bits are 14 GB; at 4.5 bits 3.94 GB, and 13 tokens a second at most on a phone with 51 GB/s. Then the clock decides: warm-up, median, spread, threads.
#
# ## Further reading
#
# - Devlin et al. 2018, *BERT* (arXiv 1810.04805): section 3, pretraining and fine-tuning in their first clear form.
# - Gao et al. 2020, *The Pile* (arXiv 2101.00027): section 3.1, why bits per byte.
# - Dutta et al. 2024, *Accuracy is Not All You Need* (arXiv 2407.09141): flips and KL of compressed models.
# - Opitz & Burst 2019, *Macro F1 and Macro F1* (arXiv 1911.03347): two formulas, one name.
# - Williams, Waterman & Patterson 2009, *Roofline*, Communications of the ACM 52(4): the picture and its use.
# - Pope et al. 2022, *Efficiently Scaling Transformer Inference* (arXiv 2211.05102): section 2, the same arithmetic for very large models.
