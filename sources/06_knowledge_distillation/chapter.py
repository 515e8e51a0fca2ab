# %% [markdown]
# # 06 · Knowledge distillation — a small model learns from what a large one almost said
#
# **You will be able to**
#
# - read a teacher's soft answers, and say what a temperature shows and hides;
# - derive the loss of distillation with its $T^2$, and say when that factor matters;
# - teach a small classifier and a small language model, each beside the two controls without which nothing is shown;
# - choose what to match when you have a teacher's logits, its insides, or only its text.
#
# **You need:** chapters 00 and 01; of chapter 02 only the idea of fine-tuning. **Time:** 60 minutes of reading; the whole notebook runs in less than a minute and a half.
#
# Where a paragraph begins with **Predict**, write down a number before you run the next cell.

# %%
import copy
import itertools
import tempfile
from pathlib import Path

import torch
from torch.nn import functional as F

import lightcourse
from lightcourse import data, distillation, lora, metrics, models, plots, quantization
from lightcourse.training import Recipe, model_loss, train

lightcourse.setup(threads=2)

# %% [markdown]
# ## 1 · What a teacher says about the wrong answers
#
# Our **teacher** is MiniLM, fine-tuned to tell from which of 13 sections of the CIA World Factbook a passage comes. It learned from 11,560 labelled passages, which took longer than this chapter may. So the course ships the result: not the model, but the LoRA update and the head that the fine-tuning added (chapters 00 and 02), which we merge into MiniLM.

# %%
factbook, tokenizer = data.load_factbook("section"), models.load_minilm_tokenizer()
sections = factbook["test"].features["label"].names
adapter = models.factbook_adapter()
teacher = models.EncoderClassifier(models.load_minilm(), num_labels=len(sections))
report = lora.load_lora_(teacher, adapter)
report = lora.merge_lora_(teacher)
size = (adapter / "adapter_model.safetensors").stat().st_size
print(f"{size:,} bytes turn MiniLM into a teacher of {len(sections)} sections:")
print(", ".join(sections))

# %% [markdown]
# Ask it about a sentence that nobody has labelled: "Soldiers guard the oil pipeline."
#
# **Predict:** its first choice, its second, and its third.

# %%
text = "Soldiers guard the oil pipeline."


def asked(text):
    """Return the teacher's logits for one text."""
    with torch.no_grad():
        words = tokenizer(text, return_tensors="pt", return_token_type_ids=False)
        return teacher(**words).logits[0]


logits = asked(text)
said = {f"T = {T}": (logits / T).softmax(-1).tolist() for T in (1, 2, 4)}
ax = plots.class_bars(said, sections, title=text)

# %% [markdown]
# *Figure: three bars for each of the 13 sections. At T = 1, Military and Security has 0.71, Terrorism 0.13, Geography 0.07, Environment 0.03, all others next to nothing. At T = 2 the same four lead, with 0.37, 0.15, 0.12 and 0.07, and nearly every section has a bar that can be seen. At T = 4 Military and Security has 0.19, and the others between 0.03 and 0.12.*
#
# A label would say "Military and Security", and no more. The teacher says as well: *a little like Terrorism, and about a place, and hardly at all like People and Society.* Such an answer is called a **soft target**; a label is a **hard** one. What a teacher thinks of the wrong classes was learned from thousands of passages, and a student can have it for one.
#
# But a wrong class with a probability of 0.01 hardly counts in a loss. So both models' logits are divided by a **temperature** $T$ before the softmax:
#
# $$p_i = \frac{e^{t_i / T}}{\sum_j e^{t_j / T}}$$
#
# | symbol | in code | |
# |---|---|---|
# | $t$, $s$ | `teacher_logits`, `student_logits` | one number for each class |
# | $T$ | `temperature` | 1: as it is; larger: softer; smaller: sharper |
# | $p$, $q$ | | the softened probabilities of teacher and student |
#
# How soft is an answer? Its **entropy** $-\sum_i p_i \ln p_i$ tells, in nats. It is larger the less sure an answer is.
#
# **Predict:** the entropy for $T \to 0$ and for $T \to \infty$. And which of these is the teacher surest of: the sentence above, "The army built a new airport.", or "A satellite was launched to watch the forests."?

# %% atol=0.02
sentences = [
    text,
    "The army built a new airport.",
    "A satellite was launched to watch the forests.",
]
for sentence in sentences:
    logits = asked(sentence)
    first, second = (sections[i] for i in logits.topk(2).indices)
    print(f"{sentence} {first}, then {second}; entropy at T =", end="")
    for T in (0.1, 1, 2, 4, 100):
        p = (logits / T).softmax(-1)
        print(f" {T}: {torch.special.entr(p).sum():.2f}", end=";" if T < 100 else "\n")

# %% [markdown]
# At T = 1 the first two leave room for doubt (an army builds, but airports are transport, and the teacher thinks of spaceports, too), the third hardly any: there a label says it all. Towards $T = 0$ only the first choice is left, a hard label: entropy 0. Towards infinity all 13 sections become equally likely, entropy $\ln 13$ = 2.565: every answer is the same, and says nothing.
#
# ## 2 · The loss, and what $T^2$ is for
#
# The student shall say what the teacher says. How far it is from that, the KL divergence of chapter 01 measures:
#
# $$\mathrm{KL}(p \,\|\, q) = \sum_i p_i \ln \frac{p_i}{q_i}, \qquad p = \mathrm{softmax}(t / T),\quad q = \mathrm{softmax}(s / T)$$
#
# What does it do to the student's logits? Only $-\sum_i p_i \ln q_i$ depends on them, and $\ln q_i = s_i/T - \ln \sum_j e^{s_j / T}$. Its derivative is short (exercise 5 does it step by step):
#
# $$\frac{\partial\, \mathrm{KL}}{\partial s_i} = \frac{1}{T}\,(q_i - p_i)$$
#
# The student raises each class of which it says too little. By autograd:

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
print("the same gradient, and the same KL as the library's (but for a factor T²)")

# %% [markdown]
# Where does the library's $T^2$ come from? There is a $1/T$ in the gradient already. And for a large $T$ all softened probabilities are near $1/C$ ($C$ classes), so that $q_i - p_i$ shrinks, too: as $e^x \approx 1 + x$ for small $x$,
#
# $$q_i - p_i \approx \frac{(s_i - \bar s) - (t_i - \bar t)}{C\,T} \qquad\Longrightarrow\qquad \frac{\partial\, \mathrm{KL}}{\partial s_i} \approx \frac{1}{T^2} \cdot \frac{(s_i - \bar s) - (t_i - \bar t)}{C}$$
#
# ($\bar s$, $\bar t$: the mean logits.) Two things can be read from it. At a large $T$, distillation is a *squared error of centred logits*. And its gradient falls as $1/T^2$, which the factor $T^2$ makes up for.
#
# **Predict:** from T = 1 to T = 16, by what factor does the size of the gradient fall without $T^2$? And with it?

# %% rtol=0.01
sizes = {"KL alone": {}, "T² · KL": {}}
for T in (1, 2, 4, 8, 16):
    for name, factor in zip(sizes, (1, T**2), strict=True):
        s = student_logits.clone().requires_grad_()
        kl = distillation.forward_kl(s[None], teacher_logits[None], T) / T**2
        (factor * kl).backward()
        sizes[name][T] = s.grad.norm().item()
for name, found in sizes.items():
    print(f"{name:9}", {T: round(size, 4) for T, size in found.items()})
assert sizes["KL alone"][1] > 150 * sizes["KL alone"][16]
assert max(sizes["T² · KL"].values()) < 2 * min(sizes["T² · KL"].values())

# %% [markdown]
# Without the factor the gradient falls 178-fold (not 256-fold: $1/T^2$ is the law for large T, and T = 1 is not large yet); with it, it grows by less than half. That matters where the teacher's part stands beside another one. The whole loss, for an example with a true label, is
#
# $$\text{loss} = (1 - w)\,\mathrm{CE}(\text{label}, s) + w\,T^2\,\mathrm{KL}(p \,\|\, q)$$
#
# ($w$: `soft_weight`; CE, the cross-entropy, is always taken at temperature 1.) Without $T^2$, a change of $T$ would silently turn $w$ down. Hinton, Vinyals and Dean 2015 (arXiv 1503.02531, section 2) give this reason.
#
# ### And under Adam?
#
# Adam, the optimizer that nearly everybody uses (chapter 02), divides each gradient by its own usual size. So what if there is *no* other part, $w = 1$?
#
# **Predict:** a tiny student is trained twice from the same start at T = 4, with and without $T^2$ (a factor of 16). How far apart do the two end, in percent of the way they went? By plain gradient descent (SGD), and by Adam?


# %%
def way(optimizer, learning_rate, factor, soft_weight=1.0, T=4.0):
    """Train a tiny student from a fixed start; return how its weights have changed."""
    torch.manual_seed(1)
    x, student = torch.randn(64, 16), torch.nn.Linear(16, 13)
    answers, start = 3 * torch.randn(16, 13), student.weight.detach().clone()
    step = optimizer(student.parameters(), lr=learning_rate)
    for _ in range(30):
        step.zero_grad()
        soft = distillation.forward_kl(student(x), x @ answers, T) / T**2
        hard = F.cross_entropy(student(x), (x @ answers[:, torch.randperm(13)]).argmax(-1))
        ((1 - soft_weight) * hard + soft_weight * factor * soft).backward()
        step.step()
    return student.weight.detach() - start


# %% atol=0.02
for name, optimizer, rate in [("SGD", torch.optim.SGD, 0.5), ("Adam", torch.optim.Adam, 0.02)]:
    for soft_weight in (1.0, 0.5):
        plain, scaled = (way(optimizer, rate, factor, soft_weight) for factor in (1, 16))
        apart = (scaled - plain).norm() / scaled.norm()
        print(f"{name:4}, soft_weight {soft_weight}: {apart:.0%} apart")
        assert (apart < 0.01) == (name == "Adam" and soft_weight == 1)

# %% [markdown]
# By SGD, with the teacher alone, the factor is nothing but a learning rate 16 times as large: the student without it has hardly left its start. By Adam with the teacher alone, they are the same: the factor is divided away (all but a trace; where gradients are *clipped*, that is, shortened if they are longer than some limit, it shows again). Mix labels in, and it matters to Adam as well, because it now decides *between* two parts. (Here the labels are wrong on purpose, so that the two parts disagree.)
#
# So with `soft_weight=1` and Adam, nobody can show you that $T^2$ helped. It belongs into the loss nevertheless: the day somebody mixes labels in, it is needed.
#
# ## 3 · A classifier: labels are few, texts are many
#
# The question for the rest of the chapter: *does a teacher make a better student?* Better than what? Three things must be there, or the answer means nothing:
#
# 1. the **same student** on the **same texts** for the same steps, **without** a teacher;
# 2. a student with a **teacher that knows nothing** (a *random* one: its answers belong to other texts), to see whether soft targets do good all by themselves;
# 3. the student **before** it was taught. It comes from its teacher's layers, so it may know a lot already.
#
# The student: layers 0 and 5 of the teacher, with its embeddings (frozen, which saves time) and its head. The job: only **32** passages are labelled, drawn at random: about a dozen are Government, and five or six of the 13 sections do not occur at all. Besides them there are 256 passages *without* a label. Text is cheap; labels are not. (The teacher has seen none of these 288, see the README beside its adapter. To save time everything reads 12 tokens of a passage; the teacher was trained on 24.)
#
# **Predict:** the student's accuracy *before* anybody teaches it.

# %% atol=0.02
pool = data.ordered_batches(factbook["train"].select(range(640)), tokenizer, 12, batch_size=640)[0]
judge = data.ordered_batches(factbook["test"].select(range(300)), tokenizer, 12, batch_size=60)
truth = torch.cat([batch["labels"] for batch in judge])
with torch.no_grad():
    pool["teacher"] = teacher(pool["input_ids"], pool["attention_mask"]).logits
by_teacher = metrics.predict(teacher, judge).argmax(-1)
start = distillation.student_from(teacher, [0, 5]).requires_grad_(True)
start.encoder.embeddings.requires_grad_(False)
untaught = metrics.accuracy(metrics.predict(start, judge).argmax(-1), truth)
print(f"teacher {metrics.accuracy(by_teacher, truth):.2f}, two of its layers {untaught:.2f}")

# %% [markdown]
# Two of six layers, *not trained in any way* after the cut, and it is right in four of five. Whoever reports only the student's final accuracy gives distillation the credit for what the copied layers brought along.
#
# Five students, three seeds. A seed draws the 32 labelled passages and the 256 others.
#
# | student | learns from | texts |
# |---|---|---|
# | labels | true labels | the 32 |
# | soft | the teacher's answers (T = 2, `soft_weight` 1) | the same 32 |
# | soft, many | the teacher's answers | 256 without labels |
# | first choice, many | only the *name* that the teacher gives, as if it were a label | the same 256 |
# | shuffled, many | to each text the soft answer that belongs to *another* text | the same 256 |
#
# Each has its own learning rate, the best of a few on validation texts (the shuffled one has that of "soft, many"). Rule 1, the same texts without a teacher, holds for "soft" against "labels". For "soft, many" there is no such control: without a teacher its texts have no labels. "First choice, many" is its rival on the same texts, and "labels" is what one had to do without the teacher.

# %%
texts = ("input_ids", "attention_mask")


def soft(student, batch):
    """Return T² · KL to the teacher's answers that lie in the batch."""
    student_logits = student(**{name: batch[name] for name in texts}).logits
    return distillation.forward_kl(student_logits, batch["teacher"], temperature=2.0)


def hard(student, batch):
    """Return the cross-entropy to the labels that lie in the batch."""
    return student(**{name: batch[name] for name in texts}, labels=batch["labels"]).loss


# %%
def taught(loss, rows, learning_rate, seed):
    """Return a student that learned for 20 steps of 12 texts."""
    student = copy.deepcopy(start)
    recipe = Recipe(steps=20, learning_rate=learning_rate, warmup_steps=2, seed=seed)
    train(student, data.row_batches(rows, 12), recipe, loss, progress=False)
    return student


def drawn(seed):
    """Return the rows of a seed for each of the five students."""
    order = torch.randperm(640, generator=torch.Generator().manual_seed(seed))
    few, many = ({k: v[rows] for k, v in pool.items()} for rows in (order[:32], order[32:288]))
    named = many | {"labels": many["teacher"].argmax(-1)}
    return few, few, many, named, many | {"teacher": many["teacher"].roll(1, 0)}


# %% [markdown]
# **Predict:** the five accuracies. By how much does *soft* beat *labels* on the same 32 texts? By how much does *soft, many* beat *first choice, many*? And where does the shuffled one end, which started at the number above?

# %%
recipes = {
    "labels": (hard, 1e-4),
    "soft": (soft, 1e-4),
    "soft, many": (soft, 4e-4),
    "first choice, many": (hard, 1e-4),
    "shuffled, many": (soft, 4e-4),
}
right, students = {name: [] for name in recipes}, {}
for seed in range(3):
    for (name, (loss, rate)), rows in zip(recipes.items(), drawn(seed), strict=True):
        student = taught(loss, rows, rate, seed)
        students.setdefault(name, student)  # the first seed's, for section 6
        answers = metrics.predict(student, judge).argmax(-1)
        right[name].append(metrics.accuracy(answers, truth))

# %% atol=0.03
ax = plots.seed_dots(right, "accuracy on unseen countries")
line = ax.axvline(untaught, color="#666666", linestyle=":")
scale = ax.set_xscale("linear")
for name, found in right.items():
    print(f"{name:19}", *(f"{value:.3f}" for value in found))
always = metrics.accuracy(torch.full_like(truth, sections.index("Government")), truth)
print(f"{'always Government':19} {always:.3f}")
for labels, alone, many, named, chance in zip(*right.values(), strict=True):
    assert min(many, named) > labels + 0.01 and many > alone
    assert max(abs(many - named), abs(labels - alone)) < 0.04 and chance < always + 0.04

# %% [markdown]
# *Figure: a row for each student, a dot for each seed; the dotted line, at 0.81, is the student before it was taught. "Labels" and "soft" lie on both sides of that line, from 0.77 to 0.83. "Soft, many" and "first choice, many" lie to the right of it, at 0.86 to 0.90. "Shuffled, many" lies far to the left, at 0.34 to 0.39.*
#
# - **Unlabelled text, answered by the teacher, is what made the student better**: in all three seeds, by 3 to 12 points over the 32 labels. Mind that the give or take of 300 texts is 0.04 (chapter 00): the *order* is what we saw three times, not the points. (In trials with other draws the gap was once next to nothing.)
# - **Soft or hard on the same 32 texts: inconclusive.** The two are a point apart, far less than the give or take; in trials on other texts it was the other one that was ahead.
# - **Soft answers or just the name: inconclusive.** Level for two seeds; for the third the name is ahead by 4 points, no more than the give or take. Probably because this teacher is mostly sure, and then its first choice holds nearly all that it knows. Naming 256 sections is already most of what it has to give.
# - **Shuffled answers ruin the student:** it is no better than always saying "Government", which is right for 0.39 of these texts. Soft targets do no good by being soft; what is in them counts.
# - **And the first thing to beat was 0.81**, for nothing. 32 labels alone did not reliably beat it.
#
# ## 4 · A language model: half of its layers
#
# A language model answers one question after each token: what comes next? Its 2,048 possible answers are where soft targets have room. A label names *one* of them, and the text happened to go on that way; the teacher says what else might have come.
#
# The teacher is the tiny language model of 4.3 million parameters. The student comes from the smaller one: of its four layers we keep the first and the last.

# %% rtol=0.01
tiny_tokenizer = models.load_tiny_tokenizer()
big, small = models.load_tiny_lm("teacher"), models.load_tiny_lm("student")
half = distillation.student_from(small, [0, 3])
speeches, held_out = (data.speech_tokens(tiny_tokenizer, part) for part in ("validation", "test"))
unseen = data.excerpts(held_out)
for name, model in {"teacher": big, "small one": small, "half of it": half}.items():
    found = [metrics.perplexity(model, text, window=64) for text in unseen]
    size = sum(p.numel() for p in model.parameters())
    print(f"{name:10} {size:>9,} parameters, perplexity", *(f"{value:.1f}" for value in found))

# %% [markdown]
# The three figures are for three texts, one for each seed. They are not equally hard, so compare within a column. (A seed decides the text to be judged by, and the order of the batches.)
#
# Asking the teacher costs more than training the student. So it is asked **once**, and its answers go to the disk: not all 2,048 numbers for a token, but the 64 largest probabilities and one for all the rest together.
#
# **Predict:** for 24 batches of 8 windows of 64 tokens, how many megabytes are that? All logits as 32-bit floats would be 24 · 8 · 64 · 2,048 · 4 bytes.

# %%
folder = tempfile.TemporaryDirectory()
windows = list(itertools.islice(data.token_batches(speeches, window=64, batch_size=8)(0, 0), 24))
written = distillation.cache_logits(big, folder.name, windows, k=64)
stored = sum(file.stat().st_size for file in Path(folder.name).iterdir())
print(f"all logits {24 * 8 * 64 * 2048 * 4 / 1e6:.0f} MB, the 64 largest {stored / 1e6:.1f} MB")
cached = distillation.cached_batches(folder.name)

# %% [markdown]
# Training is the loop of chapter 02 with another loss. `taught_by_cache(soft_weight)` mixes text and teacher as above (T = 1 here); a `soft_weight` of 0 is plain cross-entropy. The teacher that knows nothing is again a shuffled one: each window gets the answers that belong to the window before it in its batch (the first gets the last one's).

# %%
from_text, from_teacher = (distillation.taught_by_cache(soft_weight) for soft_weight in (0.0, 1.0))


def shuffled(epoch, seed):
    """Yield the cached batches, each window with another one's answers."""
    for batch in cached(epoch, seed):
        answers = {name: batch[name].roll(1, 0) for name in ("teacher_ids", "teacher_log_probs")}
        yield batch | answers


# %%
def healed(seed, learning_rate, loss=from_teacher, batches=cached, steps=24):
    """Return the perplexity of the halved model after some steps, and what happened."""
    model = copy.deepcopy(half)
    recipe = Recipe(steps, learning_rate, warmup_steps=3, seed=seed)
    history = train(model, batches, recipe, loss, progress=False)
    return metrics.perplexity(model, unseen[seed], window=64), history


# %% [markdown]
# **Predict:** the perplexity after 24 steps from the text alone, from the teacher alone, and from shuffled answers.

# %% rtol=0.02
variants = {
    "text": {"learning_rate": 6e-4, "loss": from_text},
    "teacher": {"learning_rate": 1.2e-3},
    "shuffled": {"learning_rate": 1.2e-3, "batches": shuffled},
}
runs = {name: [healed(seed, **how) for seed in range(3)] for name, how in variants.items()}
reached = {name: [perplexity for perplexity, _ in found] for name, found in runs.items()}
for name, found in reached.items():
    print(f"{name:9} perplexity", *(f"{value:.1f}" for value in found))
for text_only, with_teacher, chance in zip(*reached.values(), strict=True):
    assert with_teacher < text_only - 1 and chance > 4 * text_only

# %% [markdown]
# The teacher's student is ahead of the one that read the same text without a teacher, for all three texts, by 1.4 to 3 points. (Each has the best of a few learning rates, on validation text.) The shuffled one is ruined.
#
# This time the teacher's *answers* must be what helped, for both have seen the same tokens in the same order. Of 2,048 possible answers, the text shows one. (That their softness did it is likely, but not shown: a student of the teacher's first choices alone, as in section 3, is not among the controls.)
#
#
# ### Two more questions
#
# **Predict:** (1) At T = 2 instead of 1, is the student better? (2) What does the teacher cost? By the count of chapter 01, two operations for a parameter and a token, its forward pass takes 8.6 million operations a token. A step of the student, forward and then twice that backward, takes 4.1 million. So what if we save the teacher, and give the student *twice as much text* and twice the steps? Which of the two is better?
#
# For (1) the 64 largest will not do: at a higher temperature more of the probability lies in the tail. So this time all logits are kept, in memory; a batch finds its own by the sum of its token numbers, a poor man's fingerprint.

# %% atol=0.02
with torch.no_grad():
    known = {int(window["input_ids"].sum()): big(window["input_ids"]).logits for window in windows}
assert len(known) == len(windows)
for T in (1, 2, 4):
    kept = [(logits / T).softmax(-1).topk(64).values.sum(-1).mean() for logits in known.values()]
    print(f"T = {T}: the 64 largest of 2,048 hold {sum(kept) / len(kept):.0%}")


# %%
def at(T):
    """Return a loss that matches all of the teacher's answers at a temperature."""

    def loss(student, batch):
        logits = student(input_ids=batch["input_ids"]).logits
        return distillation.forward_kl(logits, known[int(batch["input_ids"].sum())], T)

    return loss


# %% [markdown]
# Each temperature for each seed, and then the longer reading:

# %%
for T in (1, 2, 4):
    found = [healed(seed, 1.2e-3, loss=at(T)) for seed in range(3)]
    reached[f"all logits, T = {T}"] = [perplexity for perplexity, _ in found]
more_text = {"loss": model_loss, "batches": data.token_batches(speeches, 64, 8), "steps": 48}
reached["text, twice as much"] = [healed(seed, 6e-4, **more_text)[0] for seed in range(3)]

# %% rtol=0.02
starts = [metrics.perplexity(half, text, window=64) for text in unseen]
shown = {"start": starts, **{name: v for name, v in reached.items() if name != "shuffled"}}
ax = plots.seed_dots(shown, "perplexity of unseen speeches")
for name, found in shown.items():
    print(f"{name:19}", *(f"{value:.1f}" for value in found))
for alone, kept, _, one, two, four, more in zip(*reached.values(), strict=True):
    assert one < two + 0.3 and max(one, two) + 1 < four and max(one, two) + 1 < alone
    assert one < kept and more + 0.3 < min(kept, alone) and four > alone - 1

# %% [markdown]
# *Figure: a row of three dots each, one for each text, on a logarithmic scale; compare a text's own dots. From the start at 66, 55 and 84 all have come down. The students of the teacher at T = 1 and T = 2 lie to the left of the one from text alone, the one at T = 4 level with it. "Text, twice as much" lies furthest to the left, or with the best.*
#
# - **T = 2 against T = 1: inconclusive**: behind for all three texts, but for two of them by 0.3 only, which we take for nothing. **T = 4 was worse for all three texts**, and no better than no teacher at all. A temperature is a setting to try, like a learning rate (each has the rate that was best at T = 1); that "a temperature above 1 is better" does not show here.
# - **Keeping 64 of 2,048 answers cost about a point**, in all three seeds. At T = 2 they would hold less than half of what the teacher says: choose the two together.
# - **Twice as much text, and no teacher,** was better than the teacher from the cache in all three seeds, and against all logits it is *inconclusive*: ahead for two texts, level for the third. And it is cheaper: 8.2 million operations for each token of the 24 batches, against 12.7. *Equal steps* is not *equal cost*. A teacher pays where text is short, where its answers are used again and again (several epochs, that is, passes over the same text; several students: the cache is paid once), or where it knows what no text at hand says, as in section 3.
#
# ## 5 · What to match
#
# So far the student matched probabilities, by KL. A teacher offers more, or less:
#
# | what is matched | what you need | the library's |
# |---|---|---|
# | probabilities, by KL(teacher ‖ student) | its logits | `forward_kl` |
# | probabilities, by KL(student ‖ teacher) | its logits | `reverse_kl` |
# | logits, by squared error (Ba & Caruana 2013, arXiv 1312.6184) | its logits | `logit_mse` |
# | hidden states, through a learned projection where the widths differ (FitNets, arXiv 1412.6550) | its insides | `hidden_loss` |
# | attention maps: where each token looks (MiniLM, arXiv 2002.10957) | its insides | `attention_loss` |
# | its text, as if a person had written it (Kim & Rush 2016, arXiv 1606.07947) | an API | `generate_targets` |
#
# ### Forward or reverse?
#
# Why would anybody turn KL around? Here is a teacher with *two* bumps, and a student that can only make *one*: it must choose where to put it (`mean`) and how wide (`width`).
#
# **Predict:** where does the best student stand under KL(teacher ‖ student), and where under KL(student ‖ teacher)?

# %%
x = torch.linspace(-6, 6, 241)


def bump(mean, width):
    """Return the log-probabilities of a bump over the points of x."""
    return (-(((x - mean) / width) ** 2) / 2).log_softmax(-1)


# %% atol=0.05
two = (0.65 * bump(-2, 0.7).exp() + 0.35 * bump(2.5, 0.7).exp()).log()
choices = list(itertools.product(torch.linspace(-4, 4, 81), torch.linspace(0.4, 4, 37)))
ones = torch.stack([bump(mean, width) for mean, width in choices])
costs = {
    "forward": (two.exp() * (two - ones)).sum(-1),
    "reverse": (ones.exp() * (ones - two)).sum(-1),
}
best = {name: int(cost.argmin()) for name, cost in costs.items()}
for name, index in best.items():
    print(f"{name}: mean {choices[index][0]:.1f}, width {choices[index][1]:.1f}")
ax = plots.densities(x, two.exp(), {name: ones[index].exp() for name, index in best.items()})

# %% [markdown]
# *Figure: the teacher's density, grey, has a large bump at -2 and a smaller one at 2.5. The forward student is one low, wide hill over both, highest at -0.5, between the bumps, where the teacher has next to nothing. The reverse student stands over the large bump, and higher, since all its probability is there, and ignores the small one.*
#
# Forward KL is weighted by the *teacher*: wherever it says something, the student must say something too, and so it says a little of everything. Reverse KL is weighted by the *student*: wherever it speaks, the teacher must agree, and so it keeps to what it can do well. For a model that *writes*, the second may be the better vice (MiniLLM, arXiv 2306.08543). We judge by perplexity, which is itself a forward measure: it punishes whoever calls impossible what then comes. So guess.
#
# ### All of them, on one language model
#
# The teacher is asked once more about the first 8 batches, this time for its insides as well. (Attention maps are only returned by the plain way to compute them, which is called `eager`.) Its hidden states are 256 wide, the student's 128, so a projection is trained along, and thrown away afterwards.

# %%
first = torch.cat([window["input_ids"] for window in windows[:8]])
for model in (big, half):
    model.set_attn_implementation("eager")
insides = {"output_hidden_states": True, "output_attentions": True}
with torch.no_grad():
    found = big(first, **insides)
heard = {"input_ids": first, "labels": first, "logits": found.logits}
heard |= {"hidden": found.hidden_states[-1], "attention": found.attentions[-1]}
prompts = speeches[: 64 * 400].view(64, 400)[:, :8]
dictated = distillation.generate_targets(big, prompts, length=56)
print({name: tuple(tensor.shape) for name, tensor in heard.items()})
print("the teacher wrote:", repr(tiny_tokenizer.decode(dictated[0])[:90]))

# %% [markdown]
# The last way needs no insides and no logits. We give the teacher the first 8 tokens of 64 windows, it writes 56 more, and the student learns from that text alone. As many tokens as the others have.
#
# **Predict:** which of the seven is the best, and is any of them worse than text alone?

# %%
d = distillation
ways = {
    "text alone": lambda model, out, b: out.loss,
    "KL": lambda model, out, b: d.forward_kl(out.logits, b["logits"]),
    "reverse KL": lambda model, out, b: d.reverse_kl(out.logits, b["logits"]),
    "squared error": lambda model, out, b: d.logit_mse(out.logits, b["logits"]),
    "text + hidden": lambda model, out, b: (
        out.loss + 0.1 * d.hidden_loss(out.hidden_states[-1], b["hidden"], model.projection)
    ),
    "text + attention": lambda model, out, b: (
        out.loss + 0.1 * d.attention_loss(out.attentions[-1], b["attention"])
    ),
}


# %%
def matched(way, batches, seed):
    """Return the perplexity of the seed's text after 14 steps of one way to learn."""
    model = copy.deepcopy(half)
    torch.manual_seed(seed)
    model.projection = torch.nn.Linear(128, 256, bias=False)

    def loss(model, batch):
        given = {"input_ids": batch["input_ids"], "labels": batch["labels"]}
        return way(model, model(**given, **insides), batch)

    train(model, batches, Recipe(14, 6e-4, warmup_steps=3, seed=seed), loss, progress=False)
    return metrics.perplexity(model, unseen[seed], window=64)


# %% [markdown]
# Seven short runs for each seed:

# %% rtol=0.02
batches = data.row_batches(heard, 8)
by_way = {n: [matched(way, batches, seed) for seed in range(3)] for n, way in ways.items()}
by_api = data.row_batches({"input_ids": dictated, "labels": dictated}, 8)
by_way["its text"] = [matched(ways["text alone"], by_api, seed) for seed in range(3)]
for name, found in by_way.items():
    print(f"{name:17}", *(f"{value:.1f}" for value in found))
for alone, kl, reverse, squares, *inner, dictation in zip(*by_way.values(), strict=True):
    assert kl + 1 < min(alone, reverse, squares, *inner, dictation)
    assert squares > alone + 1 and all(abs(value - alone) < 1 for value in inner)

# %% [markdown]
# (Hidden states and attention maps were added to the text's own loss, with a weight of 0.1, tried beside 1.0, which was no better. All have the same learning rate, the better of two for each but KL, which did well at both.) Compare within a column; gaps below one we take for nothing.
#
# - **KL is ahead** of all others, by more than a point in all three seeds.
# - **Squared error is behind text alone**, in all three. A likely reason: it spends its effort on 2,048 logits alike, and most of them belong to tokens that nobody would say.
# - **Reverse KL** is behind text alone for two texts and level with it for the third: *inconclusive*. Judged by a forward measure it could not shine, and this says little about the *texts* that it would write.
# - **Hidden states and attention maps** gained nothing in so few steps: 14 steps are few, a new projection (for the hidden states) must first be learned, and our student is far shallower than its teacher.
# - **Its text alone** against real text: a little better twice, level once, so *inconclusive*, and good news. It is the case of a teacher behind an API: no logits, and any vocabulary. (The student learns the teacher's mistakes along with the rest, and the API's terms of use may forbid all this: read them.)
#
# What to match is a question of what you *have*. With logits, start with KL.
#
# ## 6 · What the student is worth
#
# Back to the classifier, and to the ledger of chapter 00: bytes, time, accuracy, and how often each model's answer differs from the *teacher's* (flips, chapter 01). On top of the student come integers: 8 bits for the linear layers and for what goes into them, on this library's kernels, and then for the table of embeddings as well (chapter 04).
#
# **Predict:** the student has 2 of 6 layers. What share of the teacher's bytes does it store, and what share of the time does it take?

# %%
student, untold = students["soft, many"], students["labels"]
integers, small_table = copy.deepcopy(student), copy.deepcopy(student)
quantization.quantize_(integers, bits=8, activations=8)
report = quantization.quantize_(small_table, bits=8, activations=8, embeddings=8)
contest = {
    "teacher": teacher,
    "2 layers, taught": student,
    "2 layers, 32 labels": untold,
    "8 bits": integers,
    "8 bits, table too": small_table,
}

# %% [markdown]
# The times, all with one thread, as our kernels have one unless told otherwise; and what the student itself answers:

# %%
one = {name: pool[name][:1] for name in texts}
torch.set_num_threads(1)
times = metrics.latencies({name: lambda m=model: m(**one) for name, model in contest.items()})
by_student = metrics.predict(student, judge).argmax(-1)
learned = sum(p.numel() for p in student.parameters() if p.requires_grad)

# %% clock=true atol=0.02
ledger = metrics.Ledger("accuracy")
for name, model in contest.items():
    answers = metrics.predict(model, judge).argmax(-1)
    more = {"trained": learned} if name.startswith("2 layers") else {}
    more |= {"control_of": "2 layers, taught"} if "labels" in name else {}
    quality, size = metrics.accuracy(answers, truth), metrics.size_in_bytes(model)
    ledger.add(name, size, quality, latency=times[name], **more)
    apart = metrics.flips(by_teacher, answers), metrics.flips(by_student, answers)
    print(f"{name:20} flips: {apart[0]:5.1%} against the teacher, {apart[1]:.1%} the student")
rows = {row.name: row for row in ledger.rows}
assert rows["2 layers, taught"].latency.median < 0.67 * rows["teacher"].latency.median
assert rows["8 bits, table too"].stored < rows["teacher"].stored / 5
assert abs(rows["8 bits"].quality - rows["2 layers, taught"].quality) < 0.03
ledger

# %% [markdown]
# Quality against bytes:

# %%
ax = plots.ledger(ledger)
limits, ticks = ax.set_xlim(left=-18), ax.set_xticks(range(0, 101, 20))
assert len(ax.texts) == len(ledger.rows)

# %% [markdown]
# *Figure: accuracy against megabytes. The teacher stands at the top right, at 90 MB. At 62 MB stand the taught student and, below it, tied to it by a dotted line, the one with 32 labels. The same taught student in 8 bits stands level with it at 51 MB, and with its table in 8 bits at 16 MB.*
#
# - **Two of six layers are 31 % fewer bytes, not 67 %:** the table of embeddings is half of this model and stays whole. (Two thirds of the *layers'* time are gone, however.) DistilBERT has the same arithmetic.
# - **Integers on top take the rest:** with the table in 8 bits too, it is a sixth of the teacher, and the answers are the student's own, but for a text or two. Distillation and quantization save in different places, so they add up. And here 8 bits are *faster*, unlike in chapter 00: these layers multiply integers with a kernel made for them (chapter 05). The two rows with 2 layers of floats are equally large, so any gap between their times is noise.
# - **The price:** about nine points of accuracy, and one answer in nine that is not the teacher's. Is that a good deal? For this job word counts may be a better one (with thousands of labels, chapter 02). The ledger shows the deal; it does not make it.
#
# ## **Spot the bug:** five versions that circulate
#
# In four of the five the loss falls, or can be pushed down at will; in one it has nowhere to go. The first:


# %%
def copied_loss(student_logits, teacher_logits):
    """Return what the student should make small. (This is the version with the bug.)"""
    return F.kl_div(student_logits, teacher_logits.softmax(-1), reduction="batchmean")


row = teacher_logits[None]
equal = copied_loss(row, row)
print("a student equal to its teacher gets a loss of 0:", bool(equal.abs() < 0.01))

# %% [markdown]
# Find it before you read on. What would a test need?
#
# <details><summary>Answer</summary>
#
# KL compares *probabilities*, and the student's are raw logits here. (PyTorch's `kl_div` wants the student's **log**-probabilities first and the teacher's probabilities second, and checks neither.) Two tests tell: a student equal to its teacher must get 0, and no other student may get less. This one can be pushed down without end, by adding a number to all of the student's logits:
#
# </details>

# %% rtol=0.01
for push in (0, 10, 100):
    broken, sound = copied_loss(row + push, row), distillation.forward_kl(row + push, row)
    print(f"all logits + {push:3}: copied loss {broken:6.1f}, KL {abs(sound):.1f}")
assert broken < equal - 99 and abs(sound) < 1e-3

# %% [markdown]
# A constant added to all logits changes no probability, so KL does not move, and the copied loss falls and falls. (Its relative, the squared error between *probabilities*, has its minimum in the right place but hardly any slope where the student is surely wrong.)
#
# **Second: the teacher's output is the student's input.** "The student learns from the teacher", so feed it what the teacher said. Here the language model's student gets the teacher's guesses in place of the text. **Predict:** the loss, and the perplexity.


# %%
def fed(epoch, seed):
    """Yield batches whose input is what the teacher guessed. (The version with the bug.)"""
    for batch in cached(epoch, seed):
        yield {"input_ids": batch["teacher_ids"][..., 0].long(), "labels": batch["labels"]}


perplexity, history = healed(0, 1.2e-3, loss=model_loss, batches=fed)
print(f"loss {history.losses[0]:.0f} -> {history.losses[-1]:.0f}", end=", ")
print(f"perplexity {starts[0]:.0f} -> more than 200: {perplexity > 200}")
assert history.losses[-1] < history.losses[0] - 2 and perplexity > 200

# %% [markdown]
# The loss falls by more than two nats, and the model is ruined: it has learned to correct its teacher's guesses, and on the day of use there is no teacher. Both get the *same* input.
#
# **Third: the teacher is trained along.** Its parameters are in the optimizer, and its logits are not *detached* (cut off from the gradient). **Fourth: the teacher's own checkpoint (its saved weights) is the student.** **Predict** for the third: who moves towards whom?

# %% atol=0.02
for detached in (False, True):
    torch.manual_seed(0)
    x, knows, learns = torch.randn(256, 16), torch.nn.Linear(16, 4), torch.nn.Linear(16, 4)
    told, losses = knows(x).argmax(-1), []
    step = torch.optim.Adam([*knows.parameters(), *learns.parameters()], lr=0.05)
    for _ in range(60):
        log_p, log_q = knows(x).log_softmax(-1), learns(x).log_softmax(-1)
        log_p = log_p.detach() if detached else log_p
        losses.append((log_p.exp() * (log_p - log_q)).sum(-1).mean())
        step.zero_grad()
        losses[-1].backward()
        step.step()
    still = metrics.accuracy(knows(x).argmax(-1), told)
    print(f"{detached=}: loss {losses[0]:.2f} -> {losses[-1]:.2f}, old answers kept {still:.0%}")
    assert losses[-1] < 0.02 and (still == 1) == detached

# %%
try:
    distillation.taught_by(teacher)(teacher, {})
except ValueError as error:
    print(error)
twin = copy.deepcopy(half)
batch = {"input_ids": windows[0]["input_ids"]}
loss = distillation.taught_by(half, soft_weight=1.0)(twin, batch)
loss.backward()
print(f"loss {loss:.4f}, largest gradient {max(p.grad.abs().max() for p in twin.parameters()):.4f}")

# %% [markdown]
# Third: they met half-way, and agreement was bought by spoiling the teacher. Detached, the same loop falls just as low, and the teacher is as it was: no loss curve tells the two apart. The library detaches it. Fourth: a copy of the teacher agrees with it from the start. The loss is 0, the gradient is 0, and whatever such a notebook shows afterwards came from somewhere else.
#
# **Fifth: "the loss fell, so the student has improved".** You have the data already. Remember the student with shuffled answers, whose perplexity went from 66 to hundreds:

# %%
_, history = runs["shuffled"][0]
first_steps, last_steps = (sum(part) / 4 for part in (history.losses[:4], history.losses[-4:]))
print(f"its training loss fell: {last_steps < first_steps - 1}")
print(f"its perplexity rose: {reached['shuffled'][0] > 4 * starts[0]}")
folder.cleanup()
assert last_steps < first_steps - 1 and reached["shuffled"][0] > 4 * starts[0]

# %% [markdown]
# A loss says how well the student does what it was *asked*. Whether that was worth asking only shows beside a student that was not taught.
#
# ## What papers say, and what we measured
#
# | paper says | we measured | same ordering? |
# |---|---|---|
# | DistilBERT (Sanh et al. 2019, arXiv 1910.01108): GLUE (a set of language tasks, higher is better) 77.0 against the teacher's 79.5, 40 % smaller, 60 % faster | 0.87 against 0.96; 31 % smaller; two thirds of the time saved | **yes**: somewhat worse, smaller and faster; our student is far shallower and learned from 256 texts |
# | Hinton et al. 2015 (arXiv 1503.02531): (section 6) soft targets let a student learn from a small part of the data | 32 labelled texts, soft or hard; and 256 without labels | soft against hard: **inconclusive**; unlabelled text helped, but the teacher's mere first choice did as well, so the *softness* is **not shown** |
# | the same: answers are softened, with a temperature above 1 | T = 1, 2 and 4, a tiny language model, three seeds | **does not show**: T = 2 inconclusive, T = 4 worse |
# | Kim & Rush 2016 (arXiv 1606.07947): text that the teacher wrote is enough to learn from | 64 windows written by the teacher against 64 real ones, three seeds | level: **inconclusive** |
# | MiniLM (Wang et al. 2020, arXiv 2002.10957): attention maps of the last layer teach | attention maps beside the text's loss, three seeds | **does not show** |
#
# Their figures are theirs, on their models and data; only the orderings can be compared.
#
# ## Summary
#
# - **Soft answers** tell what a teacher thinks of the wrong classes; a temperature makes them visible, and from 0 to infinity takes the entropy from 0 to $\ln C$.
# - **The loss** is $(1 - w)$ CE + $w\,T^2$ KL. The gradient of KL alone falls as $1/T^2$, which the factor makes up for. Under Adam, with the teacher's part alone, the factor is divided away.
# - **A classifier:** 256 unlabelled texts with the teacher's answers beat 32 labels for all three seeds; soft against hard answers stayed inconclusive. Two of the teacher's layers had 0.81 before any teaching.
# - **A language model:** on the same text the teacher's student was ahead for all three seeds, at T = 1 and T = 2, not at T = 4. Twice as much text without a teacher was as good, and cheaper.
# - **What to match:** KL of the logits was ahead for all three seeds, squared error behind; the teacher's text could not be told from real text.
# - **What it is worth:** a third of the time and 31 % fewer bytes; with 8 bits on top, a sixth of the bytes; and one answer in nine is another one.
# - **A falling loss shows nothing.** In four wrong versions the loss fell or could be pushed down, and in one it was zero from the start. Beside each student stands one that was not taught, one that was taught nonsense, and the one that it was before.
#
# ## Further reading
#
# - Hinton, Vinyals & Dean 2015, *Distilling the Knowledge in a Neural Network* (arXiv 1503.02531): sections 1 to 3, the loss, the temperature, the large-T limit.
# - Sanh et al. 2019, *DistilBERT* (arXiv 1910.01108): sections 2 and 3, a student made of its teacher's layers.
# - Turc et al. 2019, *Well-Read Students Learn Better* (arXiv 1908.08962): pretrain the small model first, then distill; and what unlabelled text is worth.
# - Kim & Rush 2016, *Sequence-Level Knowledge Distillation* (arXiv 1606.07947): section 3, from tokens to whole texts.
# - Agarwal et al. 2023, *GKD* (arXiv 2306.13649): learn on the student's own text, and forward against reverse KL.
