# %% [markdown]
# # 06 · Knowledge distillation — a small model learns from what a large one almost said
#
# **You will be able to**
#
# - read a teacher's soft answers, and say what a temperature shows and hides;
# - derive the loss of distillation with its $T^2$, and what becomes of it at a high temperature;
# - teach a small classifier and a small language model, each beside the controls without which nothing is shown;
# - choose what to match: probabilities, logits, or only the teacher's text.
#
# **You need:** chapters 00 and 01; of chapter 02 only the idea of fine-tuning; of chapter 04, for the ledger, layers and embeddings in 8 bits. **Time:** 62 minutes of reading, 23 for the parts marked ★ (the fast path); the whole notebook runs in less than a minute and a half.
#
# Where a paragraph begins with **Predict**, write your guess in place of the dots in the next cell, and then run it.

# %%
import copy

import torch
from torch.nn import functional as F

import lightcourse
from lightcourse import data, distillation, lora, metrics, models, plots, quantization
from lightcourse.guessing import compare
from lightcourse.training import Recipe, train

lightcourse.setup(threads=2)
ax = plots.teacher_and_student()

# %% [markdown]
# *Figure: teacher and student read the same text, and only the student changes.*
#
# <details><summary>The figure in words</summary>
#
# One text goes into two models: a large teacher, which is frozen, and a small student, which is trained. Each returns probabilities; those of the teacher are called soft targets. Loss 1 compares the student's probabilities with the teacher's. Loss 2 compares them with the label.
#
# </details>
#
# ## ★ 1 · What a teacher says about the wrong answers
#
# Our **teacher** is MiniLM, fine-tuned to tell from which of 13 sections of the CIA World Factbook a passage comes. It learned from 11,560 labelled passages, which takes longer than this chapter may. So the course ships the result: the LoRA update and the head that fine-tuning added (chapters 00 and 02). We merge them into MiniLM.

# %%
factbook, tokenizer = data.load_factbook("section"), models.load_minilm_tokenizer()
sections = factbook["test"].features["label"].names
teacher = models.EncoderClassifier(models.load_minilm(), num_labels=len(sections))
report = lora.load_lora_(teacher, models.factbook_adapter())
report = lora.merge_lora_(teacher)


def asked(text):
    """Return the teacher's logits for one text."""
    with torch.no_grad():
        return teacher(**tokenizer(text, return_tensors="pt", return_token_type_ids=False)).logits[
            0
        ]


# %% [markdown]
# We ask it about a sentence that nobody has labelled: "Soldiers guard the oil pipeline." Its first choice is Military and Security.
#
# **Predict:** what is its second choice: Energy, Terrorism or Transportation?

# %%
guess = ...  # "Energy", "Terrorism" or "Transportation"

# %%
text = "Soldiers guard the oil pipeline."
logits = asked(text)
compare(guess, sections[logits.topk(2).indices[1]])
said = {f"T = {T}": (logits / T).softmax(-1).tolist() for T in (1, 2, 4)}
ax = plots.class_bars(said, sections, title=text)

# %% [markdown]
# *Figure: at T = 1 the teacher names one section and leaves a little for three others; a higher temperature makes its doubts visible.*
#
# <details><summary>The figure in words</summary>
#
# Three bars for each of the 13 sections. At T = 1, Military and Security has about 0.7, Terrorism about 0.13, Geography and Environment a little, and all others next to nothing. At T = 2 the same four lead, and nearly every section has a bar that can be seen. At T = 4 Military and Security has only about 0.2, and no section has less than 0.02.
#
# </details>
#
# A label would say "Military and Security", and no more. The teacher also says that the sentence is a little like Terrorism, and hardly at all like People and Society. Such an answer is called a **soft target**; a label is a **hard** one. One soft answer carries some of what the teacher learned from thousands of passages.
#
# A wrong class with a probability of 0.01 hardly counts in a loss. So the logits of both models can be divided by a **temperature** $T$ before the softmax:
#
# $$p_i = \frac{e^{t_i / T}}{\sum_j e^{t_j / T}}$$
#
# | symbol | in code | |
# |---|---|---|
# | $t$, $s$ | `teacher_logits`, `student_logits` | one number for each class |
# | $T$ | `temperature` | 1: unchanged; larger: softer; smaller: sharper |
# | $p$, $q$ | | the softened probabilities of teacher and student |
#
# The **entropy** $-\sum_i p_i \ln p_i$, in nats, measures how soft an answer is. It is 0 when one class has all the probability.
#
# **Predict:** what does the entropy of an answer over 13 classes tend to, when $T$ grows without end?

# %%
guess = ...  # nats; write a number in place of the dots

# %% atol=0.02
for sentence in (text, "A satellite was launched to watch the forests."):
    logits = asked(sentence)
    print(f"{sentence} {sections[logits.argmax()]}; entropy at T =", end="")
    for T in (0.1, 1, 2, 4, 1000):
        entropy = torch.special.entr((logits / T).softmax(-1)).sum().item()
        print(f" {T}: {entropy:.2f}", end="\n" if T == 1000 else ";")
compare(guess, entropy, "nats")

# %% [markdown]
# Near $T = 0$ only the first choice is left, which is a hard label. At a very high temperature all 13 sections become equally likely, with an entropy of $\ln 13$ = 2.565: every sentence gets the same answer, and the answer says nothing. At T = 1 the teacher has doubts about the first sentence and nearly none about the second. For the second, a label says almost all that the teacher knows.
#
# ## 2 · The loss, and what $T^2$ is for
#
# How far the student's answer is from the teacher's is measured by the KL divergence of chapter 01:
#
# $$\mathrm{KL}(p \,\|\, q) = \sum_i p_i \ln \frac{p_i}{q_i}, \qquad p = \mathrm{softmax}(t / T),\quad q = \mathrm{softmax}(s / T)$$
#
# Training follows its gradient. Only $-\sum_i p_i \ln q_i$ depends on the student's logits, and $\ln q_i = s_i/T - \ln \sum_j e^{s_j / T}$. The derivative is short (exercise 6 does it step by step):
#
# $$\frac{\partial\, \mathrm{KL}}{\partial s_i} = \frac{1}{T}\,(q_i - p_i)$$
#
# So the student raises each class to which it gives less than the teacher does. Autograd agrees:

# %%
torch.manual_seed(0)
student_logits, teacher_logits = 2 * torch.randn(13), 4 * torch.randn(13)
T = 4.0
s = student_logits.clone().requires_grad_()
log_p, log_q = (teacher_logits / T).log_softmax(-1), (s / T).log_softmax(-1)
kl = (log_p.exp() * (log_p - log_q)).sum()
kl.backward()
assert torch.allclose(s.grad, (log_q.exp() - log_p.exp()).detach() / T, atol=1e-7)
assert torch.isclose(T**2 * kl, distillation.forward_kl(s[None], teacher_logits[None], T))
print("the gradient is (q - p) / T, and forward_kl is T² times this KL")

# %% [markdown]
# Why does the library multiply by $T^2$? At a large $T$ all softened probabilities are near $1/C$ ($C$ classes), and $q_i - p_i$ shrinks too. With $e^x \approx 1 + x$ for small $x$:
#
# $$q_i - p_i \approx \frac{(s_i - \bar s) - (t_i - \bar t)}{C\,T} \qquad\Longrightarrow\qquad \frac{\partial\, \mathrm{KL}}{\partial s_i} \approx \frac{1}{T^2} \cdot \frac{(s_i - \bar s) - (t_i - \bar t)}{C}$$
#
# ($\bar s$, $\bar t$: the mean logits.) This tells two things. At a high temperature the gradient falls as $1/T^2$, and the factor $T^2$ makes up for it. And what is left is the gradient of a **squared error between centred logits**: at a high temperature, matching probabilities becomes matching logits. Section 4 shows what that does to a student.
#
# **Predict:** from T = 1 to T = 4, by what factor does the gradient of KL fall, without $T^2$?

# %%
guess = ...  # times; write a number in place of the dots

# %% rtol=0.01
sizes = {}
for T in (1, 4, 16, 32, 100):
    s = student_logits.clone().requires_grad_()
    distillation.forward_kl(s[None], teacher_logits[None], T).backward()
    sizes[T] = s.grad.norm().item() / T**2
    print(f"T = {T:3}: gradient of KL {sizes[T]:.6f}, of T² · KL {s.grad.norm():.3f}")
compare(guess, sizes[1] / sizes[4], "times")
gap = student_logits - teacher_logits
limit = (gap - gap.mean()) / 13
print(f"squared error of centred logits: gradient {limit.norm():.3f}")
assert (s.grad - limit).norm() < 0.05 * limit.norm()

# %% [markdown]
# From T = 1 to 4 it falls by less than $4^2$, since these temperatures are not yet high; from 16 to 32 it falls nearly by $2^2$.
#
# The whole loss, for an example with a true label, mixes two parts ($w$: `soft_weight`; the cross-entropy CE is always taken at temperature 1):
#
# $$\text{loss} = (1 - w)\,\mathrm{CE}(\text{label}, s) + w\,T^2\,\mathrm{KL}(p \,\|\, q)$$
#
# Without $T^2$, a higher $T$ would silently turn the teacher's part down (Hinton, Vinyals and Dean 2015, arXiv 1503.02531, section 2).
#
# If $w = 1$, $T^2$ only multiplies the gradient: plain SGD would take larger steps, Adam (chapter 02) takes the same. So such a run cannot show that $T^2$ helps. If labels are mixed in, $T^2$ decides between the two parts. No student of this chapter mixes them: each learns from one of the two.
#
# ## ★ 3 · A classifier: the teacher replaces 256 labels
#
# Text is cheap, labels are not. Here **32** passages are labelled, drawn at random, so that some sections do not occur at all. Another **256** passages have no label, but the teacher can answer them. (It has seen none of these passages in training; the file beside its adapter says how it was made.)
#
# The student has two of MiniLM's six layers. What a teacher gives is two things, its *layers* and its *answers*, so we need controls for both:
#
# | student | begins as | learns from | texts |
# |---|---|---|---|
# | no teacher | layers 0 and 5 of plain MiniLM, a new head | true labels | the 32 |
# | teacher's layers | layers 0 and 5 and the head of the teacher | true labels | the 32 |
# | teacher's answers | the same | the teacher's probabilities: KL (chapter 01) at T = 1 | the 256 |
# | true labels | the same | true labels, as if somebody had paid for them | the 256 |
# | shuffled | the same | the teacher's answers, each handed on to the next text in the file, so that every text gets another text's | the 256 |
#
# Embeddings stay frozen, and every text is cut to 12 tokens, which saves time. First the beginnings:


# %%
def half_of(model):
    """Return layers 0 and 5, ready to be trained, with frozen embeddings."""
    student = distillation.student_from(model, [0, 5]).requires_grad_(True)
    student.encoder.embeddings.requires_grad_(False)
    return student


def read(part, count):
    """Return batches of the first texts of a split, and their labels."""
    batches = data.ordered_batches(factbook[part].select(range(count)), tokenizer, 12)
    return batches, torch.cat([batch["labels"] for batch in batches])


# %% atol=0.02
plain = half_of(models.EncoderClassifier(models.load_minilm(), num_labels=len(sections)))
start = half_of(teacher)
(choose, truth_to_choose), (judge, truth) = read("validation", 240), read("test", 600)
by_teacher, untaught = (metrics.predict(model, judge) for model in (teacher, start))
for name, logits in {"teacher": by_teacher, "two of its layers": untaught}.items():
    print(f"{name}: accuracy {metrics.accuracy(logits.argmax(-1), truth):.2f}")
p = by_teacher.softmax(-1)
print(f"the teacher's mean entropy: {torch.special.entr(p).sum(-1).mean():.2f} nats")
print(f"the mean probability of its first choice: {p.amax(-1).mean():.2f}")

# %% [markdown]
# Two of the teacher's layers, *not trained at all* after the cut, are right in four of five texts. To report only the final accuracy gives distillation the credit for what the copied layers brought along.
#
# The last two lines matter as well. This teacher is nearly always sure, so its answers are hardly softer than labels, and this job *cannot* show what softness is worth. The language model of section 4 can.
#
# One loss serves all students. A true label can be written as an answer too: all of the probability on one class. Its logits are 0 for the label ($e^0 = 1$) and $-\infty$ for every other class ($e^{-\infty} = 0$). KL to this answer is the cross-entropy to the label. Each of three seeds draws 32 passages and 256 others:

# %%
batches, labels = read("train", 640)
pool = {n: torch.cat([batch[n] for batch in batches]) for n in ("input_ids", "attention_mask")}
said, true = metrics.predict(teacher, batches), F.one_hot(labels, len(sections)).float().log()
draws = [torch.randperm(640, generator=torch.Generator().manual_seed(s)) for s in range(3)]
few, many = [order[:32] for order in draws], [order[32:288] for order in draws]
contestants = {
    "no teacher": (plain, true, few),
    "teacher's layers": (start, true, few),
    "teacher's answers": (start, said, many),
    "true labels": (start, true, many),
}

# %% [markdown]
# Each of these four gets the same search for a learning rate. Of three rates it takes the one that, in the first draw, had the best accuracy on 240 *validation* texts; the other two draws are taught at that rate alone. (The shuffled student takes the rate of the teacher's answers.) Training is 22 steps of 12 texts: each of the 256 once (four in the last step), or the 32 several times.


# %%
def taught(begin, answers, rows, rate, seed):
    """Return a student that learned for 22 steps of 12 texts."""

    def loss(student, batch):
        logits = student(batch["input_ids"], batch["attention_mask"]).logits
        return distillation.forward_kl(logits, batch["answers"])

    student, texts = copy.deepcopy(begin), pool | {"answers": answers}
    batches = data.row_batches({name: tensor[rows] for name, tensor in texts.items()}, 12)
    recipe = Recipe(steps=22, learning_rate=rate, warmup_steps=2, seed=seed)
    train(student, batches, recipe, loss, progress=False)
    return student


# %%
def searched(begin, answers, rows):
    """Return the students of three draws at the rate that was best in the first, and it."""
    tried, right = {}, {}
    for rate in (5e-5, 2e-4, 8e-4):
        tried[rate] = taught(begin, answers, rows[0], rate, seed=0)
        chosen = metrics.predict(tried[rate], choose).argmax(-1)
        right[rate] = metrics.accuracy(chosen, truth_to_choose)
    best = max(right, key=right.get)
    return [tried[best], *(taught(begin, answers, rows[s], best, s) for s in (1, 2))], best


# %% [markdown]
# **Predict:** on the same 256 texts, which student is better: the one with the *true labels*, the one with the *teacher's answers*, or is it *inconclusive*: not decided in every draw?

# %%
guess = ...  # "true labels", "teacher's answers" or "inconclusive"

# %%
students, rates = {}, {}
for name, how in contestants.items():
    students[name], rates[name] = searched(*how)
nonsense, rate = said.roll(1, 0), rates["teacher's answers"]
students["shuffled"] = [taught(start, nonsense, many[s], rate, s) for s in range(3)]

# %% [markdown]
# Only now do the 600 test texts judge, from countries that no student has seen.

# %% atol=0.03
answers = {
    name: [metrics.predict(student, judge).argmax(-1) for student in found]
    for name, found in students.items()
}
right = {name: [metrics.accuracy(a, truth) for a in found] for name, found in answers.items()}
for name, found in right.items():
    print(f"{name:17}", *(f"{value:.3f}" for value in found))

# %% [markdown]
# All students of a draw answered the same 600 texts. So `paired_gap` counts the texts that only one of two students has right. A gap is *decided* or *inconclusive* by the rule of chapter 01.

# %% atol=0.03
clear = []
for name in ("no teacher", "teacher's layers", "true labels"):
    for seed, taught_answers in enumerate(answers["teacher's answers"]):
        gap = metrics.paired_gap(answers[name][seed], taught_answers, truth)
        print(f"from {name:16} to teacher's answers, draw {seed}: {gap}")
        clear += [gap.gap > 0] if name == "true labels" and gap.decided else []
        assert name != "no teacher" or (gap.decided and gap.gap > 0.05)
        assert name != "true labels" or abs(gap.gap) < 0.04
outcome = "teacher's answers" if all(clear) else "true labels"
compare(guess, outcome if len(clear) == 3 else "inconclusive")
assert len(clear) < 3

# %%
names = ["no teacher", "teacher's layers", "teacher's answers"]
ahead = {
    name: [100 * (a - b) for a, b in zip(right[name], right["true labels"], strict=True)]
    for name in names
}
ax = plots.seed_dots(ahead, "points of accuracy, against true labels on the 256 texts", each="draw")
scale, line = ax.set_xscale("linear"), ax.axvline(0, color="#666666", linestyle=":")
assert max(right["shuffled"]) < min(right["teacher's layers"]) - 0.1

# %% [markdown]
# *Figure: the teacher's answers do no worse than true labels on the same texts; 32 labels alone do.*
#
# <details><summary>The figure in words</summary>
#
# Three rows, a mark for each of three draws. Each mark shows how many points of accuracy a student is ahead of the one with true labels on the same 256 texts, which is the dotted line at 0. The last row, the students of the teacher's answers, lies at the line, with one mark about three points to the right. The second row, the teacher's layers taught with 32 labels, lies between the line and about seven points to the left, and the first, without a teacher, more than fifteen points to the left.
#
# </details>
#
# - **The teacher replaced 256 labels.** On the same texts its answers taught as much as true labels did, within about three points, and not every draw decides between them.
# - **Without any teacher**, two layers of plain MiniLM and 32 labels are far behind, in all three draws. The second row shows how much of this gap the teacher's layers make up; its answers to more texts make up the rest.
# - **Shuffled answers ruin the student.** They are as soft as the right ones. What is in them counts.
#
# None of this came for free: the teacher itself once learned from 11,560 labels.
#
# ## 4 · A language model: what softness is worth
#
# A language model answers one question after each token: what comes next? Its 2,048 possible answers leave room for doubt. The text shows *one* of them; the teacher also says what else might have come.
#
# The teacher is the tiny language model of 4.3 million parameters. The student is the smaller one, cut to the first and the last of its four layers.

# %% atol=0.02
tiny_tokenizer = models.load_tiny_tokenizer()
big, small = models.load_tiny_lm("teacher"), models.load_tiny_lm("student")
half = distillation.student_from(small, [0, 3])
speeches, held_out = (data.speech_tokens(tiny_tokenizer, part) for part in ("validation", "test"))
to_choose, unseen = speeches[-2049:], data.excerpts(held_out)
pieces = speeches[: 64 * 4_000].view(64, 4_000)
windows = pieces[:, :64]
with torch.no_grad():
    heard = {"input_ids": windows, "teacher": big(windows).logits[:, :-1]}
p = heard["teacher"].softmax(-1)
print(f"the teacher's mean entropy: {torch.special.entr(p).sum(-1).mean():.2f} nats")
print(f"the mean probability of its first choice: {p.amax(-1).mean():.2f}")
hits = (p.argmax(-1) == windows[:, 1:]).float().mean()
print(f"how often this is the token that came next: {hits:.2f}")

# %% [markdown]
# Much softer than the classifier's 0.1 nats. Both models have read the training speeches, so the student learns on the validation speeches, and their end is kept for choosing. The teacher was asked once, about 64 windows of 64 tokens, and its logits are kept in memory. (For more text, `distillation.cache_logits` writes the largest 64 of each position to disk.)
#
# What shall the student make small? Four losses, from the text alone to the teacher alone:
#
# | way | the answer for each position |
# |---|---|
# | text | the token that came next |
# | text, smoothed | the same token with 0.9, all 2,048 tokens share the rest: soft, but without a teacher (*label smoothing*) |
# | first choices | the teacher's likeliest token, as if it were the text: a teacher without softness |
# | KL, T = 1 | all of the teacher's probabilities |
#
# `s` and `t` are the logits of student and teacher.


# %%
def hard(s, answers, smoothing=0.0):
    """Return the cross-entropy to one answer for each position."""
    return F.cross_entropy(s.flatten(0, 1), answers.flatten(), label_smoothing=smoothing)


ways = {
    "text": lambda s, t, following: hard(s, following),
    "text, smoothed": lambda s, t, following: hard(s, following, smoothing=0.1),
    "first choices": lambda s, t, following: hard(s, t.argmax(-1)),
    "KL, T = 1": lambda s, t, following: distillation.forward_kl(s, t),
}

# %% [markdown]
# Each way gets the same search again: three learning rates in run 0, judged on a text of the validation speeches. Two more runs take the best rate. The runs differ in the order of the batches, and each is judged by an unseen text of its own. Texts are not equally hard, so compare a run only with the same run of another way.


# %%
def healed(way, rate, seed, texts=heard, steps=14):
    """Return the halved model after some steps of 8 windows."""
    model = copy.deepcopy(half)

    def loss(model, batch):
        s = model(input_ids=batch["input_ids"]).logits[:, :-1]
        return way(s, batch.get("teacher"), batch["input_ids"][:, 1:])

    recipe = Recipe(steps, rate, warmup_steps=3, seed=seed)
    train(model, data.row_batches(texts, 8), recipe, loss, progress=False)
    return model


# %%
def best_of(way, **more):
    """Return the perplexity of three runs, at the rate that was best in the first."""
    tried = {rate: healed(way, rate, 0, **more) for rate in (2e-4, 5e-4, 1.25e-3)}
    rate = min(tried, key=lambda rate: metrics.perplexity(tried[rate], to_choose, window=64))
    runs = [tried[rate], *(healed(way, rate, seed, **more) for seed in (1, 2))]
    pairs = zip(runs, unseen, strict=True)
    return [metrics.perplexity(model, text, window=64) for model, text in pairs]


# %% [markdown]
# **Predict:** the student of the teacher's first choices: will it be *better* or *worse* than the student of the text?

# %%
guess = ...  # "better" or "worse"

# %% rtol=0.02
reached = {"start": [metrics.perplexity(half, text, window=64) for text in unseen]}
reached |= {name: best_of(way) for name, way in ways.items()}
for name, found in reached.items():
    print(f"{name:15} perplexity", *(f"{value:.1f}" for value in found))
for _, plain_text, smoothed, first, soft in zip(*reached.values(), strict=True):
    assert soft + 1 < min(plain_text, smoothed) and first > plain_text + 1
    assert abs(smoothed / plain_text - 1) < 0.03
worse = all(a > b for a, b in zip(reached["first choices"], reached["text"], strict=True))
compare(guess, "worse" if worse else "better")

# %% [markdown]
# Now softness is shown, and in all three runs:
#
# - **All probabilities** (KL) beat the text. **The first choices** of the same teacher are *worse* than the text: the teacher's likeliest token is often not the one that came next (printed above), and its doubts are gone.
# - **Label smoothing** is soft too, and gains nothing. So it is not softness by itself that helps, but what the teacher says about the other tokens.
#
# ### High temperature, squared error: one finding
#
# Many tutorials take T = 4. Others match logits by their squared error (Ba and Caruana 2013, arXiv 1312.6184). Section 2 showed that KL *becomes* such a squared error when the temperature is high. So these are points on one line: T = 1, 4, 100, and squared error at its end (but for a shift of all logits, which KL cannot see and `logit_mse` can). We train a student at each.
#
# The squared error of *probabilities* is something else. Its gradient has the factor $q_i$ in front: a class that the student thinks impossible gets no push, even if the teacher is sure of it. Here the teacher says class 0, and the student is more and more sure of class 1:

# %%
losses = {
    "KL": distillation.forward_kl,
    "squared error, logits": distillation.logit_mse,
    "squared error, probabilities": lambda s, t: (s.softmax(-1) - t.softmax(-1)).square().sum(),
}
for name, loss in losses.items():
    found = []
    for sure in (0.0, 4.0, 12.0):
        s = torch.tensor([[0.0, sure, 0.0]], requires_grad=True)
        loss(s, torch.tensor([[12.0, 0.0, 0.0]])).backward()
        found.append(s.grad.norm().item())
    print(f"{name:28} gradient", *(f"{value:8.4f}" for value in found))
assert found[2] < 0.01 * found[0]

# %% [markdown]
# The surer the student is of the wrong class, the harder KL and the squared error of logits push. The squared error of probabilities pushes less and less, and at last not at all.
#
# One more student has no teacher at all, but *twice the text*: twice as many windows and steps.

# %%
more_ways = {
    "KL, T = 4": lambda s, t, following: distillation.forward_kl(s, t, 4.0),
    "KL, T = 100": lambda s, t, following: distillation.forward_kl(s, t, 100.0),
    "squared, logits": lambda s, t, following: distillation.logit_mse(s, t),
    "squared, probabilities": lambda s, t, following: F.mse_loss(s.softmax(-1), t.softmax(-1)),
}
reached |= {name: best_of(way) for name, way in more_ways.items()}
both = {"input_ids": torch.cat([windows, pieces[:, 64:128]])}
reached["twice the text"] = best_of(ways["text"], texts=both, steps=28)

# %% rtol=0.02
shown = {name: found for name, found in reached.items() if name not in ("start", "text")}
ratios = {n: [a / b for a, b in zip(f, reached["text"], strict=True)] for n, f in shown.items()}
ax = plots.seed_dots(ratios, "perplexity ÷ that of the student of the text", each="run")
scale, line = ax.set_xscale("linear"), ax.axvline(1, color="#666666", linestyle=":")
for name, found in ratios.items():
    print(f"{name:22}", *(f"{value:.3f}" for value in found))
for run in range(3):
    one = ratios["KL, T = 1"][run]
    four, limit, logits, probabilities = (ratios[name][run] for name in more_ways)
    assert one + 0.02 < four < limit - 0.02 and abs(limit - logits) < 0.05
    assert min(limit, logits, probabilities) > 1

# %% [markdown]
# *Figure: left of the line is better than the text alone. The higher the temperature, the further right, until KL and the squared error of logits come near each other.*
#
# <details><summary>The figure in words</summary>
#
# A row for each way to learn, three dots each, one for each run. A dot is the run's perplexity divided by that of the student of the text in the same run; the dotted line at 1 means as good as the text. KL at T = 1 lies left of it, and so does twice the text. Label smoothing and KL at T = 4 lie at the line. First choices, KL at T = 100, the squared error of logits and that of probabilities lie to the right.
#
# </details>
#
# - **A high temperature and a squared error of logits are one finding.** At T = 100 the student is like that of the squared error, and both are worse than without a teacher. T = 4 lies on the way: it gains nothing over the text. A likely reason: both give all 2,048 logits the same weight, and most belong to tokens that nobody would say. A temperature is a setting to try, like a learning rate; "T above 1 is better" does not show here.
# - **The squared error of probabilities** is worse than the text too, probably because its gradient vanishes where $q_i$ is near 0 (see the gradients above).

# %%
size, step = (sum(p.numel() for p in model.parameters()) for model in (big, half))
teaching, learning = 64 * 64 * 2 * size / 1e9, 14 * 8 * 64 * 6 * step / 1e9
print(f"KL: {teaching:.1f} for the teacher, {learning:.1f} for the student,", end="")
print(f" together {teaching + learning:.1f} billion operations; twice the text: {2 * learning:.1f}")

# %% [markdown]
# - **Equal steps are not equal cost.** By the count of chapter 01 (two operations for each parameter and token in a forward pass, three times that in a step of training), asking this teacher even once about each window makes KL a little dearer than twice the text, which comes close to it. A teacher pays where text is short, where its answers are used again and again, or where it knows what no text at hand says, as in section 3.
#
# What else could be matched?
#
# - KL the other way round (`reverse_kl`): the student may leave out a part of what the teacher thinks possible (MiniLLM, arXiv 2306.08543).
# - Hidden states, which are the outputs of a layer (`hidden_loss`, FitNets, arXiv 1412.6550).
# - Attention maps: which token looks at which (`attention_loss`, MiniLM, arXiv 2002.10957).
#
# Before you judge such an added term, print its share of the gradient: a term with hardly any can neither help nor harm.
#
# ## 5 · Teacher and student with different vocabularies
#
# KL compares the teacher's probability of token 45 with the student's of token 45. Do both mean the same token by 45? MiniLM and our tiny models split the same sentence like this:

# %%
for name, one in {"MiniLM": tokenizer, "tiny models": tiny_tokenizer}.items():
    ids = one(text, add_special_tokens=False)["input_ids"]
    print(f"{name}, {len(one):,} tokens: {[one.decode([i]) for i in ids]} {ids}")
try:
    distillation.forward_kl(torch.zeros(1, len(tiny_tokenizer)), torch.zeros(1, len(tokenizer)))
except ValueError as error:
    print(error)

# %% [markdown]
# Neither the ids nor the places match, so there is nothing to compare. (Two vocabularies of equal size are worse: no error is raised, and the loss compares unrelated tokens. Compare the tokenizers, not the shapes.) Two ways remain:
#
# - **Match answers that both models have.** A classifier's sections are the same whatever the tokenizer: section 3 would work for any student.
# - **Learn from text that the teacher wrote** (sequence-level distillation, Kim and Rush 2016, arXiv 1606.07947). Text is a string, and each model may split it in its own way. It is also all that a teacher behind an API gives. (Its terms of use may forbid it: read them.)
#
# The second, measured: our teacher reads the first 8 tokens of each window and writes 56 more. What it wrote is turned into a string, and the student's tokenizer splits the string anew.

# %% rtol=0.02
begun = windows[:, :8]
written = distillation.generate_targets(big, begun, length=56)
strings = tiny_tokenizer.batch_decode(written)
assert all(map(str.startswith, strings, tiny_tokenizer.batch_decode(begun)))
ids = torch.tensor(tiny_tokenizer("".join(strings))["input_ids"])
its_text = {"input_ids": ids[: len(ids) // 64 * 64].view(-1, 64)}
found = best_of(ways["text"], texts=its_text)
print("the teacher went on from", repr(tiny_tokenizer.decode(begun[0])), "and 63 other beginnings")
for name, values in {"its text": found, **{n: reached[n] for n in ("start", "text")}}.items():
    print(f"{name:9} perplexity", *(f"{value:.1f}" for value in values))
assert all(own < begin - 4 for own, begin in zip(found, reached["start"], strict=True))

# %% [markdown]
# Without a single logit, the student came nearly as far as with real text. The teacher's probabilities on real text took it further: a written text shows one token where KL shows all. (Here both models happen to share a tokenizer; the string between them would serve any two.)
#
# ## 6 · The ledger: what the student is worth
#
# Back to the classifier: bytes, time, accuracy, and how many answers differ from the *teacher's* (flips, chapter 01). On top of the student come integers: 8 bits for the linear layers and for what goes into them, and then for the table of embeddings as well (chapter 04).
#
# MiniLM has 22.6 million parameters: 11.9 million in its embeddings, the rest in six equal layers.
#
# **Predict:** the student keeps two of the six layers. How many percent of the teacher's bytes does it store?

# %%
guess = ...  # percent; write a number in place of the dots

# %%
student = students["teacher's answers"][0]
integers, small_table = copy.deepcopy(student), copy.deepcopy(student)
quantization.quantize_(integers, bits=8, activations=8)
report = quantization.quantize_(small_table, bits=8, activations=8, embeddings=8)
contest = {
    "teacher": teacher,
    "its answers": student,
    "no teacher": students["no teacher"][0],
    "256 true labels": students["true labels"][0],
    "8 bits": integers,
    "8 bits, table too": small_table,
}
compare(guess, 100 * metrics.size_in_bytes(student) / metrics.size_in_bytes(teacher), "percent")

# %% [markdown]
# Every model answers the test texts. Then each is timed with one thread:

# %%
one = {name: judge[0][name][:1] for name in ("input_ids", "attention_mask")}
told = {name: metrics.predict(model, judge).argmax(-1) for name, model in contest.items()}
torch.set_num_threads(1)
times = metrics.latencies({name: lambda m=model: m(**one) for name, model in contest.items()})
learned = sum(p.numel() for p in student.parameters() if p.requires_grad)

# %% clock=true atol=0.03
ledger = metrics.Ledger("accuracy")
for name, model in contest.items():
    more = {} if name == "teacher" or "8 bits" in name else {"trained": learned}
    more |= {"control_of": "its answers"} if name in ("no teacher", "256 true labels") else {}
    size, quality = metrics.size_in_bytes(model), metrics.accuracy(told[name], truth)
    row = ledger.add(name, size, quality, latency=times[name], **more)
    apart = [metrics.flips(told[other], told[name]) for other in ("teacher", "its answers")]
    print(f"{name:17} flips: {apart[0]:5.1%} against the teacher, {apart[1]:5.1%} the student")
assert ledger["its answers"].latency.median < 0.67 * times["teacher"].median
assert ledger["8 bits, table too"].stored < ledger["teacher"].stored / 5
ledger

# %% [markdown]
# Quality against bytes:

# %%
ax = plots.ledger(ledger)
limits, ticks = ax.set_xlim(left=-18), ax.set_xticks(range(0, 101, 20))

# %% [markdown]
# *Figure: dropping layers moves the model left and down; 8 bits move it further left at the same height. Of the two controls (open circles), one lies close to the student.*
#
# <details><summary>The figure in words</summary>
#
# Accuracy against megabytes stored. The teacher stands at the top right, at 90 MB. At 62 MB stand the student of its answers and its two controls, drawn as open circles. The one with 256 true labels lies a little below the student. The one without a teacher lies far below, tied to the student by a dotted line. The same student in 8 bits stands level with the student at 51 MB, and with its table in 8 bits at 16 MB.
#
# </details>
#
# - **Two of six layers are 31 % fewer bytes, not 67 %:** the table of embeddings is half of this model and stays whole. The *time* falls with the layers.
# - **Integers take the rest:** with the table in 8 bits too, the student stores less than a fifth of the teacher's bytes, and its answers are nearly all those of the student in floats (flips above). Distillation and quantization save in different places, so they add up.
# - **The price:** some points of accuracy, and about one answer in ten that is not the teacher's. DistilBERT (Sanh et al. 2019, arXiv 1910.01108) reports the same kind of deal: 77.0 on GLUE against its teacher's 79.5, 40 % smaller, 60 % faster (that is 1.6 times as fast).
#
# ## **Spot the bug:** three versions that circulate
#
# The first:


# %%
def copied_loss(student_logits, teacher_logits):
    """Return what the student should make small. (This is the version with the bug.)"""
    return F.kl_div(student_logits, teacher_logits.softmax(-1), reduction="batchmean")


row = torch.tensor([[4.0, 1.0, -2.0]])
print(f"a student equal to its teacher: loss {copied_loss(row, row):.2f}")

# %% [markdown]
# Find the bug before you read on. What would a test need?
#
# <details><summary>Answer</summary>
#
# KL compares *probabilities*, and the student's are raw logits here. (PyTorch's `kl_div` wants the student's **log**-probabilities first and the teacher's probabilities second, and checks neither.) A student equal to its teacher must get 0, and no other student may get less. This loss can be pushed down without end, by adding a number to all of the student's logits, which changes no probability:
#
# </details>

# %%
for push in (0, 10, 100):
    broken, sound = copied_loss(row + push, row), distillation.forward_kl(row + push, row)
    print(f"all logits + {push:3}: copied loss {broken:7.2f}, KL {abs(sound):.2f}")

# %% [markdown]
# **Second: the teacher's output is the student's input.** "The student learns from the teacher", so its input is the teacher's guesses; its target is still the true text:

# %% rtol=0.05
guesses = torch.cat([windows[:, :1], heard["teacher"].argmax(-1)], dim=1)
for name, given in {"the text": windows, "the teacher's guesses": guesses}.items():
    fed = {"input_ids": given, "teacher": windows[:, 1:]}  # the answers are the text, both times
    student = healed(lambda s, answers, _: hard(s, answers), 5e-4, 0, fed, steps=28)
    print(f"fed with {name}: perplexity {metrics.perplexity(student, unseen[0], window=64):.1f}")

# %% [markdown]
# Fed with guesses, the student is even worse than before it was taught (66.0). It has probably learned to correct its teacher's guesses, and on the day of use there is no teacher. Both models must get the *same* input.
#
# **Third: the teacher is trained along.** Its parameters are in the optimizer, and its logits are not *detached* (cut off from the gradient).

# %%
t, s = row.clone().requires_grad_(), torch.zeros_like(row).requires_grad_()
careless = (t.softmax(-1) * (t.log_softmax(-1) - s.log_softmax(-1))).sum()
careless.backward()
print(f"gradient on the teacher {t.grad.norm():.2f}, on the student {s.grad.norm():.2f}")

# %% [markdown]
# The teacher has a gradient too, so a step of training would pull it towards its untrained student. (The library's losses detach it.)
#
# In all three the loss can fall. It only says how well the student does what it was *asked*. Whether that was worth asking shows beside a student that was not taught.
#
# ## Summary
#
# - **Soft answers** tell what a teacher thinks of the wrong classes. A temperature makes them visible, and takes the entropy from 0 to $\ln C$.
# - **The loss** is $(1 - w)$ CE + $w\,T^2$ KL. At a high temperature the gradient of KL falls as $1/T^2$, which the factor makes up for. The loss is then a squared error of logits, and for our language model that was worse than the text alone.
# - **A classifier:** the teacher's answers did no worse than true labels on the same 256 texts, far ahead of 32 labels without a teacher. Two of the teacher's layers had 0.8 before any teaching: always print the start.
# - **Softness** helped the language model, whose teacher has doubts: all probabilities beat the text, first choices were behind it, label smoothing gained nothing.
# - **Different vocabularies** have no common logits: match classes, or learn from the teacher's text.
# - **The ledger:** two of six layers store 69 % of the bytes; with 8 bits on top, less than a fifth.
#
# ## Further reading
#
# - Hinton, Vinyals & Dean 2015, *Distilling the Knowledge in a Neural Network* (arXiv 1503.02531): sections 1 to 3, the loss, the temperature, the large-T limit.
# - Sanh et al. 2019, *DistilBERT* (arXiv 1910.01108): sections 2 and 3, a student made of its teacher's layers.
# - Turc et al. 2019, *Well-Read Students Learn Better* (arXiv 1908.08962): pretrain the small model first, then distill; and what unlabelled text is worth.
# - Kim & Rush 2016, *Sequence-Level Knowledge Distillation* (arXiv 1606.07947): section 3, from tokens to whole texts.
