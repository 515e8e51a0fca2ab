# %% [markdown]
# # 06 · Knowledge distillation: exercises — soften, mix, shift, match, compare, derive
#
# Six functions, 105 minutes together: a soft answer, the loss, its form for a language model, answers that have lost their texts, the control of a claim, and the gradient behind $T^2$. Each is followed by one line that checks it: ✓, or ✗ and what your answer seems to believe. Run that line as often as you like. Then comes a cell in which your function works with the teachers and students of chapter 06.
#
# From the command line, `lightcourse check exercises/06_knowledge_distillation.ipynb` tells which checks pass.

# %%
import copy
import math

import torch
from torch.nn import functional as F

import lightcourse
from lightcourse import checks, data, distillation, lora, metrics, models
from lightcourse.training import Recipe, train

lightcourse.setup()

# %% [markdown]
# The classifier of chapter 06 and its student, which is made of layers 0 and 5 and has not been taught anything yet. They tell 13 sections of the CIA World Factbook apart. 288 passages are there to learn from, 200 others judge.

# %%
factbook, words = data.load_factbook("section"), models.load_minilm_tokenizer()
sections = factbook["test"].features["label"].names
teacher = models.EncoderClassifier(models.load_minilm(), num_labels=len(sections))
report = lora.load_lora_(teacher, models.factbook_adapter()), lora.merge_lora_(teacher)
untaught = distillation.student_from(teacher, [0, 5]).requires_grad_(True)
untaught.encoder.embeddings.requires_grad_(False)
pool = data.ordered_batches(factbook["train"].select(range(288)), words, 12, batch_size=288)[0]
judge = data.ordered_batches(factbook["test"].select(range(200)), words, 12, batch_size=60)
truth = torch.cat([batch["labels"] for batch in judge])
with torch.no_grad():
    pool["teacher"] = teacher(pool["input_ids"], pool["attention_mask"]).logits


# %%
def accuracy(model):
    """Return the accuracy of a classifier on the texts that judge."""
    return metrics.accuracy(metrics.predict(model, judge).argmax(-1), truth)


def taught(loss, rows, start=untaught, seed=0, steps=20):
    """Return a student after some steps of 12 texts; loss(student's logits, batch)."""
    student, names = copy.deepcopy(start), ("input_ids", "attention_mask")

    def of_batch(model, batch):
        return loss(model(*(batch[name] for name in names)).logits, batch)

    recipe = Recipe(steps, learning_rate=3e-4, warmup_steps=2, seed=seed)
    train(student, data.row_batches(rows, 12), recipe, of_batch, progress=False)
    return student.eval()


# %% [markdown]
# ## Exercise 1 · Soften ★ (10 minutes)
#
# Write `soften(logits, temperature)`:
#
# - `logits`: a tensor of shape (batch, classes); `temperature`: a number above 0;
# - returns two tensors: the softened probabilities, of the same shape, each row summing to 1; and the entropy of each row in nats, of shape (batch,).
#
# **Predict** first: logits (2, 0), so two classes. What are the probabilities at T = 1, and at T = 2? Do they halve their distance from 1/2?
#
# <details><summary>Hint 1</summary>The temperature acts before the softmax, not after it.</details>
# <details><summary>Hint 2</summary>A softmax wants to know along which dimension it shall sum to 1: the last.</details>
# <details><summary>Hint 3</summary>The entropy is the sum of -p ln p over the classes. <code>torch.log</code> is the natural logarithm.</details>


# %%
def soften(logits, temperature):
    """Return (probabilities at a temperature, entropy of each row in nats)."""
    ### BEGIN SOLUTION
    probabilities = (logits / temperature).softmax(-1)
    return probabilities, -(probabilities * probabilities.log()).sum(-1)
    ### END SOLUTION


# %%
passed = checks.check_soften(soften)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# **In the real model.** The teacher is asked about a sentence; what its logits mean, your function tells.

# %% atol=0.02
sentence = words("Soldiers guard the oil pipeline.", return_tensors="pt")
with torch.no_grad():
    asked = teacher(sentence["input_ids"], sentence["attention_mask"]).logits
print(f"largest logit {asked.max():.2f}, for {sections[asked.argmax()]}")
for T in (1, 2, 4) if passed else ():
    p, entropy = soften(asked, T)
    told = [f"{sections[i]} {p[0, i]:.2f}" for i in p[0].topk(3).indices]
    print(f"T = {T}: {', '.join(told)}; entropy {entropy[0]:.2f} nats")
if not passed:
    print("First solve this exercise: then the teacher's soft answers stand here.")

# %% [markdown] tags=["solution"]
# **Why.** Dividing *probabilities* by T leaves their ratios as they were; dividing *logits* takes the T-th root of each ratio: 7.4 to 1 becomes 2.7 to 1. So the distance from 1/2 does not simply halve: 0.881 becomes 0.731. (Where a probability is exactly 0, `p * p.log()` is not a number; `torch.special.entr` knows that 0 · ln 0 counts as 0.)

# %% tags=["solution"]
for T in (1, 2, 4):
    p, entropy = soften(torch.tensor([[2.0, 0.0]]), T)
    print(f"T = {T}: {[round(v, 3) for v in p[0].tolist()]}, entropy {entropy[0]:.3f}")
assert torch.allclose(entropy, torch.special.entr(p).sum(-1))

# %% [markdown]
# ## Exercise 2 · The loss ★★ (15 minutes)
#
# Write `soft_loss(student_logits, teacher_logits, labels, temperature, soft_weight)`:
#
# $$(1 - w)\,\mathrm{CE}(\text{label}, s) + w\,T^2\,\mathrm{KL}\big(\mathrm{softmax}(t/T) \,\|\, \mathrm{softmax}(s/T)\big)$$
#
# - both logits are of shape (batch, classes), `labels` of shape (batch,); $w$ is `soft_weight`;
# - returns one number, the mean over the batch. `F.cross_entropy` may be used.
#
# **Predict** first: student and teacher have equal logits. What is the loss for $w = 1$? And does it depend on T?
#
# <details><summary>Hint 1</summary>Two parts. The first one knows nothing of T.</details>
# <details><summary>Hint 2</summary>KL of one row is the sum over its classes of p · (ln p - ln q). <code>log_softmax</code> gives both logarithms safely.</details>
# <details><summary>Hint 3</summary>Sum over classes, mean over rows. <code>F.kl_div</code> with <code>reduction="mean"</code> divides by both; <code>"batchmean"</code> does what is wanted.</details>


# %%
def soft_loss(student_logits, teacher_logits, labels, temperature, soft_weight):
    """Return (1 - w) · CE + w · T² · KL(teacher ‖ student), the mean over the batch."""
    ### BEGIN SOLUTION
    log_p = (teacher_logits / temperature).log_softmax(-1)
    log_q = (student_logits / temperature).log_softmax(-1)
    soft = (log_p.exp() * (log_p - log_q)).sum(-1).mean()
    hard = F.cross_entropy(student_logits, labels)
    return (1 - soft_weight) * hard + soft_weight * temperature**2 * soft
    ### END SOLUTION


# %%
passed = checks.check_soft_loss(soft_loss)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# **In the real model.** Three students learn for 20 steps with *your* loss: from the 288 true labels alone, from the teacher alone, and from both.

# %% atol=0.03
print(f"before: {accuracy(untaught):.2f}, the teacher {accuracy(teacher):.2f}")
for weight in (0.0, 1.0, 0.5) if passed else ():
    student = taught(
        lambda logits, b, w=weight: soft_loss(logits, b["teacher"], b["labels"], 2.0, w), pool
    )
    print(f"soft_weight {weight}: {accuracy(student):.2f}")
if not passed:
    print("First solve this exercise: then the students of your loss stand here.")

# %% [markdown] tags=["solution"]
# **Why.** Each part has its usual accident. Without $T^2$ the teacher's part shrinks by 9 at T = 3. With the temperature on one side only, student and teacher can never agree. With the two swapped, KL is another measure. And PyTorch's default reduction divides by the number of classes: for a language model of 2,048 tokens, the teacher would hardly be heard. With equal logits the soft part is 0 at every T.
#
# With `F.kl_div` the soft part is one line; mind the order of its arguments, and that the *first* is the student's, in logarithms:

# %% tags=["solution"]
torch.manual_seed(0)
ours, told, labels, T = torch.randn(6, 5), torch.randn(6, 5), torch.arange(6) % 5, 3.0
one_line = F.kl_div((ours / T).log_softmax(-1), (told / T).softmax(-1), reduction="batchmean")
assert torch.isclose(T**2 * one_line, soft_loss(ours, told, labels, T, 1.0))
assert soft_loss(told, told, labels, T, 1.0).abs() < 1e-6

# %% [markdown]
# ## Exercise 3 · Spot the bug: a language model's teacher ★★ (20 minutes)
#
# For a language model, "labels are shifted by one": the answer at position t is the token at t + 1. Somebody knew that, and wrote this. **Predict:** name three things wrong with it, then open the specification below.


# %%
def copied_kl(student_logits, teacher_logits, attention_mask):
    """Return KL(teacher ‖ student). (This is the version with the bugs.)"""
    student, teacher = student_logits[:, :-1], teacher_logits[:, 1:]
    return F.kl_div(student.log_softmax(-1), teacher.softmax(-1), reduction="batchmean")


torch.manual_seed(3)
same = torch.randn(2, 6, 5)
real = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]])
print("equal logits give 0:", bool(copied_kl(same, same, real).abs() < 1e-6))
noise = same.clone()
noise[1, 4] = 0
print(
    "padding counts for nothing:", bool(copied_kl(same, same, real) == copied_kl(noise, same, real))
)

# %% [markdown]
# Write a better one, `next_token_kl(student_logits, teacher_logits, attention_mask)`.
#
# <details><summary>The specification (name the three things first)</summary>
#
# - both logits are of shape (batch, time, vocabulary), `attention_mask` of shape (batch, time), 1 for a real token and 0 for padding, which stands on the right;
# - a position counts if there is a *next* token and it is real;
# - returns KL(teacher ‖ student) at T = 1, the mean over all positions that count: each position counts the same, in whichever text.
#
# </details>
#
# <details><summary>Hint 1</summary>Which question does the student answer at position t? And the teacher, at the same position? Does anything have to be shifted between the two?</details>
# <details><summary>Hint 2</summary>The last position of the window has no next token. Neither has the last real token of a short text. Both are known from <code>attention_mask[:, 1:]</code>.</details>
# <details><summary>Hint 3</summary><code>values[mask.bool()].mean()</code> divides by the positions that count; "batchmean" divides by the number of texts.</details>


# %%
def next_token_kl(student_logits, teacher_logits, attention_mask):
    """Return KL(teacher ‖ student), the mean over positions whose next token is real."""
    ### BEGIN SOLUTION
    log_p, log_q = teacher_logits.log_softmax(-1), student_logits.log_softmax(-1)
    each = (log_p.exp() * (log_p - log_q)).sum(-1)
    return each[:, :-1][attention_mask[:, 1:].bool()].mean()
    ### END SOLUTION


# %%
passed = checks.check_next_token_kl(next_token_kl)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# **In the real model.** The tiny language models: a teacher, and as a student the first and the last layer of the smaller one. It learns from 128 texts of 16 to 64 tokens, padded with zeros. The control is the copied version.

# %%
tokenizer = models.load_tiny_tokenizer()
big, half = models.load_tiny_lm("teacher"), models.load_tiny_lm("student")
half = distillation.student_from(half, [0, 3])
speeches, held_out = (data.speech_tokens(tokenizer, part) for part in ("validation", "test"))
texts = data.excerpts(held_out)
ids = speeches[: 128 * 64].view(128, 64)
lengths = torch.randint(16, 65, (128, 1), generator=torch.Generator().manual_seed(0))
mask = (torch.arange(64) < lengths).long()
with torch.no_grad():
    answers = torch.cat([big(rows).logits for rows in (ids * mask).split(16)])
padded = {"input_ids": ids * mask, "mask": mask, "answers": answers}


# %% [markdown]
# `healed` returns the student after 16 steps with any loss of its own logits and a batch; `tell` prints perplexities on three texts (lower is better).


# %%
def healed(loss, rows):
    """Return the halved model after 16 steps of 8 texts; loss(student's logits, batch)."""
    student, recipe = copy.deepcopy(half), Recipe(16, 1.2e-3, warmup_steps=3, seed=0)

    def of_batch(model, batch):
        return loss(model(batch["input_ids"]).logits, batch)

    train(student, data.row_batches(rows, 8), recipe, of_batch, progress=False)
    return student.eval()


def tell(name, model):
    """Print the perplexity of a model on three texts."""
    found = [metrics.perplexity(model, text, window=64) for text in texts]
    print(f"{name:28}", *(f"{value:8.1f}" for value in found))


# %% rtol=0.1
tell("before", half)
copied = healed(lambda logits, b: copied_kl(logits, b["answers"], b["mask"]), padded)
tell("the copied version", copied)
if passed:
    yours = healed(lambda logits, b: next_token_kl(logits, b["answers"], b["mask"]), padded)
    tell("your version", yours)
else:
    print("First solve this exercise: then the student of your loss stands here.")

# %% [markdown] tags=["solution"]
# **Why.** *Labels* are shifted, because the token at t + 1 is the answer to the question at t. *Logits* are not: student and teacher answer the same question at the same position. The copied version asks the student at t to say what the teacher says at t + 1, after it has seen one more token. Its second bug: "batchmean" divides by the number of texts, so the loss grows with their length. Its third: padding is learned from.
#
# The library's loss does the same, and takes Hugging Face's labels, where -100 marks what does not count:

# %% tags=["solution"]
ours, told = torch.randn(2, 6, 5), torch.randn(2, 6, 5)
labels = torch.randint(5, (2, 6)).masked_fill(real == 0, -100)
theirs = distillation.causal_distillation_loss(ours, told, labels, 1.0, soft_weight=1.0)
assert torch.isclose(theirs, next_token_kl(ours, told, real))
assert next_token_kl(same, same, real).abs() < 1e-6
assert next_token_kl(noise, same, real) == next_token_kl(same, same, real)

# %% [markdown]
# ## Exercise 4 · Answers that have lost their texts ★★ (20 minutes)
#
# A teacher's logits were computed once and kept. Since then somebody shuffled the texts, and a few were cut or tokenized anew. Nothing raises an error: all shapes fit, and the loss falls. But most texts now learn from the answers to another text: the logits are **stale**.
#
# The cache does not say what it was made of. But the logits of a language model do: they are guesses of what comes next. Under its own answers a text has a low loss, under those of another text a high one. Write `match_answers(logits, ids, mask, limit)`:
#
# - `logits`: shape (rows, time, vocabulary), the answers that were kept; `ids` and `mask`: shape (texts, time), the texts of today, where the mask is 1 for a real token and 0 for padding, which stands on the right;
# - the loss of a text under a row of answers: the mean of $-\ln p$ of the next token, over the positions whose next token is real;
# - returns a tensor of shape (texts,): for each text the number of the row under which its loss is least, and -1 where even the least loss is above `limit`: the teacher has never seen that text as it is now.
#
# **Predict** first: a teacher of 2,048 tokens. How many nats would the loss be if it knew nothing? And under the answers to *another* text: less than that, or more?
#
# <details><summary>Hint 1</summary>The logits at position t are about token t + 1: cut the last position off the logits and the first token off the ids.</details>
# <details><summary>Hint 2</summary>For one text and all rows at once: <code>log_p[:, torch.arange(time), tokens]</code> has the shape (rows, time).</details>
# <details><summary>Hint 3</summary>Choose the real positions before you take the mean. Then <code>argmin</code> over the rows, and a look at the limit.</details>


# %%
def match_answers(logits, ids, mask, limit):
    """Return for each text the row of its answers, or -1 where there is none."""
    ### BEGIN SOLUTION
    log_p, found = logits[:, :-1].log_softmax(-1), []
    for text, real in zip(ids[:, 1:], mask[:, 1:].bool(), strict=True):
        losses = -log_p[:, torch.arange(len(text)), text][:, real].mean(1)
        found.append(int(losses.argmin()) if losses.min() <= limit else -1)
    return torch.tensor(found)
    ### END SOLUTION


# %%
passed = checks.check_match_answers(match_answers)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# **In the real model.** 128 windows and the teacher's answers to them. Then the windows are shuffled, and 16 of them are cut anew, one token later, as happens when a tokenizer adds a token at the beginning and then no longer does. First the losses: how do a text's own answers differ from those to another text?

# %% rtol=0.05
with torch.no_grad():
    kept = torch.cat([big(rows).logits for rows in ids.split(16)])
today = ids[torch.randperm(128, generator=torch.Generator().manual_seed(1))].clone()
today[:16] = today[:16].roll(-1, 1)
under = {"its own": kept, "another text's": kept.roll(1, 0)}
for name, rows in under.items():
    loss = F.cross_entropy(rows[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    print(f"loss under {name} answers: {loss:.2f} nats")
print(f"of a teacher that knows nothing: {math.log(2048):.2f} nats")


def kl(logits, batch):
    """Return KL(teacher ‖ student), the teacher's answers lying in the batch."""
    return distillation.forward_kl(logits, batch["answers"])


# %% rtol=0.1
tell("before", half)
tell("taught by stale answers", healed(kl, {"input_ids": today, "answers": kept}))
if passed:
    places = match_answers(kept, today, torch.ones_like(today), limit=5.0)
    there = places >= 0
    right = (ids[places[there]] == today[there]).all(1).sum()
    print(f"{there.sum()} of 128 texts found, {right} right")
    mended = {"input_ids": today[there], "answers": kept[places[there]]}
    tell("taught by your mended answers", healed(kl, mended))
else:
    print("First solve this exercise: then a student of the mended answers stands here.")

# %% [markdown] tags=["solution"]
# **Why.** A teacher that knows nothing has a loss of $\ln 2048 = 7.6$ nats. Under the answers to another text it is *more*: such answers are sure of the wrong thing, which is worse than to know nothing. So the two are far apart, and a limit between them is easy to choose. The texts that were cut anew are not in the cache, although each of their tokens but one is: all answers are one place off. Ask the teacher again about these.
#
# It is better not to need this: keep the token ids beside the logits, as the library's `cache_logits` does, and it refuses a batch that is not the one it was asked about. What no check of shapes can see is an answer to the wrong question.

# %% [markdown]
# ## Exercise 5 · Find the control ★★ (15 minutes)
#
# "The student has 0.87, because the teacher taught it." Because? A **control** tells: a run that is alike in *all* settings but the one that gets the credit. Write `find_control(runs, claim)`:
#
# - `runs`: a list of `(settings, scores)`. The settings are a tuple such as `("teacher's layers", "labels", 20)`: where the student starts, from whose answers it learns, for how many steps. The scores are its accuracies, one for each seed, in the same order in all runs;
# - `claim`: `(run, place, instead)`. It says: run number `run` is better because its setting number `place` is what it is, and not `instead`;
# - returns `(control, wins)`: the number of the run that is the control, and in how many seeds the run's accuracy is higher than the control's. If the control is missing: `(-1, 0)`.
#
# **Predict** first, for the claim that run 0 is better because it learned from the teacher and not from labels: which run is its control?
#
# | run | starts from | learns from | steps | three seeds |
# |---|---|---|---|---|
# | 0 | teacher's layers | teacher | 20 | 0.87, 0.86, 0.86 |
# | 1 | plain layers | labels | 20 | 0.73, 0.71, 0.75 |
# | 2 | teacher's layers | shuffled | 20 | 0.39, 0.39, 0.40 |
# | 3 | teacher's layers | labels | 40 | 0.83, 0.81, 0.82 |
#
# <details><summary>Hint 1</summary>Write down the settings that the control must have: those of the run, with one place changed. A tuple cannot be changed, a list can.</details>
# <details><summary>Hint 2</summary><code>enumerate</code> gives each run with its number.</details>
# <details><summary>Hint 3</summary><code>zip</code> of both scores gives the pairs of each seed. A tie is no win.</details>


# %%
def find_control(runs, claim):
    """Return (number of the control, seeds in which the run is ahead), or (-1, 0)."""
    ### BEGIN SOLUTION
    run, place, instead = claim
    settings, scores = runs[run]
    wanted = list(settings)
    wanted[place] = instead
    for number, (others, other_scores) in enumerate(runs):
        if list(others) == wanted:
            return number, sum(a > b for a, b in zip(scores, other_scores, strict=True))
    return -1, 0
    ### END SOLUTION


# %%
passed = checks.check_find_control(find_control)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# **In the real model.** Five runs that are made here and now, three seeds each: a seed draws the order of the texts. The plain layers are those of MiniLM before anybody fine-tuned it, with a new head; a run of 0 steps is the student before it was taught.

# %%
torch.manual_seed(5)
plain = models.EncoderClassifier(models.load_minilm(), num_labels=len(sections))
plain = distillation.student_from(plain, [0, 5]).requires_grad_(True)
plain.encoder.embeddings.requires_grad_(False)
starts = {"teacher's layers": untaught, "plain layers": plain}
shuffled = pool | {"teacher": pool["teacher"].roll(1, 0)}


def soft(logits, batch):
    """Return T² · KL(teacher ‖ student) at T = 2."""
    return distillation.forward_kl(logits, batch["teacher"], 2.0)


lessons = {"teacher": (soft, pool), "shuffled": (soft, shuffled)}
lessons["labels"] = lambda logits, batch: F.cross_entropy(logits, batch["labels"]), pool


# %% atol=0.05
table = [("teacher's layers", answers, 15) for answers in ("teacher", "shuffled")]
table += [("plain layers", "labels", 15), ("teacher's layers", "teacher", 0)]
runs = []
for start, answers, steps in table if passed else table[-1:]:
    students = [starts[start]] * 3
    if steps:
        students = [taught(*lessons[answers], starts[start], seed, steps) for seed in range(3)]
    runs.append(((start, answers, steps), tuple(accuracy(student) for student in students)))
    told = (f"{score:.2f}" if score > 0.5 else "<0.5" for score in runs[-1][1])
    print(f"{start:17} {answers:9} {steps:2} steps", *told)

# %% [markdown]
# And what may be claimed of run 0, the one that learned from the teacher?

# %%
claims = {"right answers matter": (1, "shuffled"), "the 15 steps matter": (2, 0)}
claims |= {"the teacher is better than labels": (1, "labels")}
claims |= {"the teacher's layers matter": (0, "plain layers")}
for claim, (place, instead) in claims.items() if passed else ():
    control, wins = find_control(runs, (0, place, instead))
    verdict = "no control" if control < 0 else f"ahead of run {control} in {wins} of 3 seeds"
    print(f"{claim:34} {verdict}")
if not passed:
    print("First solve this exercise: then the verdicts of your function stand here.")

# %% [markdown] tags=["solution"]
# **Why.** No run is the control of that claim. Run 1 differs in where it starts, run 3 in its steps, and both look like controls if one reads only the column "learns from". A student that starts from its teacher's layers has much of the teacher in it already, so run 1 says nothing about the labels. The runs that are missing are ("teacher's layers", "labels", 15), and ("plain layers", "teacher", 15): make the first one, and see.

# %% atol=0.05 tags=["solution"]
students = {name: taught(*lessons[name], untaught, 0, 15) for name in ("labels", "teacher")}
by = {name: metrics.predict(model, judge).argmax(-1) for name, model in students.items()}
gap = metrics.paired_gap(by["labels"], by["teacher"], truth)
print(f"the teacher's student against that of the labels: {gap}, decided: {gap.decided}")

# %% [markdown] tags=["solution"]
# So the claim that the teacher teaches *better* than labels has its control now, and it is inconclusive: the two students differ in a few texts, now in favour of one, now of the other. What the teacher does is something else: it replaces 288 labels that somebody would have had to write.

# %% [markdown]
# ## Exercise 6 · The gradient, and its limit ★★★ (25 minutes)
#
# You have seen both results in section 2. The exercise is to get there without looking, and then to check by code. Derive on paper, for one row of $C$ classes, the derivative of
#
# $$\mathrm{KL}(p \,\|\, q) = \sum_i p_i \ln\frac{p_i}{q_i}, \qquad p = \mathrm{softmax}(t/T),\quad q = \mathrm{softmax}(s/T)$$
#
# by each student logit $s_i$. Then the limit of $T^2$ times that derivative for $T \to \infty$. Write `soft_gradient(student_logits, teacher_logits, temperature)`:
#
# - both logits are of shape (classes,);
# - returns two tensors of that shape: the gradient of KL at this temperature (*without* a factor $T^2$), and the limit. No autograd, please.
#
# **Predict** first: add 5 to all of the student's logits. Which of the two results changes?
#
# <details><summary>Hint 1</summary>$\sum_i p_i \ln p_i$ does not depend on the student. What is left is $-\sum_i p_i \ln q_i$, and $\ln q_i = s_i / T - \ln \sum_j e^{s_j / T}$.</details>
# <details><summary>Hint 2</summary>The derivative of $\ln \sum_j e^{s_j/T}$ by $s_i$ is $q_i / T$. And the $p_i$ sum to 1.</details>
# <details><summary>Hint 3</summary>For a large T, $e^{s_i/T} \approx 1 + s_i/T$ and the sum of all is about $C\,(1 + \bar s / T)$, so $q_i \approx \frac{1}{C}\big(1 + \frac{s_i - \bar s}{T}\big)$, with the mean $\bar s$.</details>


# %%
def soft_gradient(student_logits, teacher_logits, temperature):
    """Return (gradient of KL by the student's logits, limit of T² times it)."""
    ### BEGIN SOLUTION
    p = (teacher_logits / temperature).softmax(-1)
    q = (student_logits / temperature).softmax(-1)
    gap = student_logits - teacher_logits
    return (q - p) / temperature, (gap - gap.mean()) / len(gap)
    ### END SOLUTION


# %%
passed = checks.check_soft_gradient(soft_gradient)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# **In the real model.** No autograd, no optimizer: a new head on the frozen layers of the student learns by *your* gradient alone. For a text with features $f$ and logits $W f$, the gradient by $W$ is the gradient by the logits times $f$. How often does it say what the teacher says?

# %%
with torch.no_grad():
    features = untaught.embed(pool["input_ids"], pool["attention_mask"])
    unseen = torch.cat([untaught.embed(b["input_ids"], b["attention_mask"]) for b in judge])
says = metrics.predict(teacher, judge).argmax(-1)


def agreement(head):
    """Return how often a head says the same as the teacher on the texts that judge."""
    return metrics.accuracy((unseen @ head.T).argmax(-1), says)


# %% atol=0.03
print(f"a head of zeros: {agreement(torch.zeros(13, 384)):.2f}")
for place, name in enumerate(("gradient at T = 2", "limit")) if passed else ():
    head = torch.zeros(13, 384)
    for _ in range(30):
        pairs = zip(features @ head.T, pool["teacher"], strict=True)
        by_logits = torch.stack([soft_gradient(s, t, 2.0)[place] for s, t in pairs])
        head -= 2.0 * by_logits.T @ features / len(features)
    print(f"30 steps by your {name}: {agreement(head):.2f}")
if not passed:
    print("First solve this exercise: then a head that learned by your gradient stands here.")

# %% [markdown] tags=["solution"]
# **Why.** $\frac{\partial}{\partial s_i}\big(-\sum_k p_k s_k / T + \ln \sum_j e^{s_j/T}\big) = -\frac{p_i}{T} + \frac{q_i}{T}$, where the $p_k$ in front of the logarithm summed to 1. For a large T the difference $q_i - p_i$ is $\frac{1}{CT}$ times the centred difference of the logits, so the whole gradient is $\frac{1}{C T^2}$ times it, and $T^2$ takes that away. Adding 5 to all logits changes neither: softmax does not see it, and the centring removes it. (A squared error of logits that are *not* centred does see it. That is one way in which it asks more of the student than any probability shows.)
#
# By autograd, by a small step in one entry, and towards the limit:

# %% tags=["solution"]
torch.manual_seed(0)
s, t = torch.randn(5).double(), 3 * torch.randn(5).double()


def kl(s, t, T):
    """Return KL(softmax(t / T) ‖ softmax(s / T))."""
    log_p, log_q = (t / T).log_softmax(-1), (s / T).log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum()


variable = s.clone().requires_grad_()
kl(variable, t, 2.0).backward()
assert torch.allclose(variable.grad, soft_gradient(s, t, 2.0)[0])
slope = (kl(s + 1e-6 * torch.eye(5)[1], t, 2.0) - kl(s, t, 2.0)) / 1e-6
assert math.isclose(slope, soft_gradient(s, t, 2.0)[0][1], rel_tol=1e-3)

# %% tags=["solution"]
limit = soft_gradient(s, t, 1.0)[1]
for T in (1, 10, 100, 1000):
    away = (T**2 * soft_gradient(s, t, T)[0] - limit).norm() / limit.norm()
    print(f"T = {T:4}: {away:.4f} away from the limit")
assert away < 0.01

# %% [markdown]
# ## Wrap-up
#
# You wrote a soft answer, the loss that learns from it, and its form for language models, with everything shifted that must be and nothing that must not. You gave stale answers back to their texts, found which claims lack their control, and derived the gradient that explains $T^2$; each of them has worked with a real teacher or student. What no check can do for you is the student beside it that was *not* taught: never report one without the other.
