# %% [markdown]
# # 00 · Start: measure first — four ways to make one real model light, and what each really saves
#
# **You will be able to**
#
# - say what "light" means in three separate ledgers: what is *stored*, what is *trained*, what is *run*;
# - remove a real language model's weights (prune), store them in fewer bits (quantize), train a small addition (LoRA), and teach a small model by a large one (distill), in a few lines each;
# - put a *control* beside every result, and tell a saving from an illusion.
#
# **You need:** Python, and having seen PyTorch once. **Time:** 39 minutes of reading, 25 for the parts marked ★ (the fast path). The whole notebook runs in about a minute and a half.
#
# Below each **Predict** stands a place for your guess: write it in place of the dots, and run the cell.

# %%
import copy

import torch

import lightcourse
from lightcourse import data, distillation, lora, metrics, models, plots, pruning, quantization
from lightcourse.guessing import compare
from lightcourse.training import Recipe, train

lightcourse.setup(seed=0, threads=2)

# %% [markdown]
# ## ★ 1 · A quarter of the bytes in five minutes
#
# MiniLM is a real language model: six layers that turn a sentence into 384 numbers. On top of it we put one small layer, the **head**, which turns the 384 numbers into two: one for *negative*, one for *positive*. Then the model learns its job from 768 sentences of reviews of films and goods. People have given each its right answer, the **label** (Hutto & Gilbert 2014).
#
# The next cell takes some 20 seconds; section 5 explains it.

# %%
tokenizer, reviews = models.load_minilm_tokenizer(), data.load_reviews()
learn = reviews["train"].select(range(768))
batches = data.text_batches(learn, tokenizer, batch_size=32, max_length=32)
model = models.EncoderClassifier(models.load_minilm(), num_labels=2)
report = lora.add_lora_(model, rank=8, targets=["query", "value"])
model.head.requires_grad_(True)
trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
unmerged = metrics.size_in_bytes(model)
history = train(model, batches, Recipe(steps=48, learning_rate=5e-3))
report = lora.merge_lora_(model)

# %% [markdown]
# Now ask it. Write a sentence of your own in place of ours.

# %% atol=0.05
sentence = "The plot is thin, but the actors are a joy."


def judged(model, sentence):
    """Say how a model judges a sentence, and how sure it is."""
    inputs = tokenizer([sentence], return_tensors="pt", return_token_type_ids=False)
    negative, positive = metrics.predict(model, [dict(inputs)]).softmax(-1)[0]
    return f"positive, {positive:.0%}" if positive > negative else f"negative, {negative:.0%}"


print(judged(model, sentence))
parameters = sum(p.numel() for p in model.parameters())
print(f"{parameters:,} numbers, {metrics.size_in_bytes(model) / 1e6:.1f} MB")

# %% [markdown]
# The percentage is how sure the model says it is. Its numbers, the **parameters**, are floats (numbers with a decimal point), of four bytes each. Now make it light: `quantize_` rounds them to small integers, of one byte each.
#
# **Predict:** how many megabytes does the model take after that?

# %% atol=0.05
guess = ...  # megabytes; write a number in place of the dots
small = copy.deepcopy(model)
report = quantization.quantize_(small, bits=8, embeddings=8)
compare(guess, metrics.size_in_bytes(small) / 1e6, "MB")
print(judged(small, sentence))

# %% [markdown]
# A quarter of the bytes, and the same answer. (If not, your sentence is one of the few where rounding matters.)
#
# **Predict:** the small model is a quarter of the size. Does it answer faster, slower, or in the same time?

# %% clock=true
guess = ...  # "faster", "slower" or "the same"
one = dict(tokenizer([sentence], return_tensors="pt", return_token_type_ids=False))
times = metrics.latencies({"before": lambda: model(**one), "8 bits": lambda: small(**one)})
for name, time in times.items():
    print(f"{name}: {time}")
ratio = times["8 bits"].median / times["before"].median
compare(guess, "slower" if ratio > 1.1 else "faster" if ratio < 0.9 else "the same")
assert ratio > 1.1

# %% [markdown]
# **First surprise: it is slower.** (A time is the median of 20 calls ± half of the distance between the quartiles. Other work of the machine moves it, so compare only times from one cell.) Our simple layer turns its integers back into floats at each call, and only then multiplies as before. Small is not fast. Speed needs a **kernel** (the low-level routine that multiplies) made for small numbers: chapter 05 builds one.
#
# ## ★ 2 · Three ledgers, and a rule for luck
#
# "Light" can mean three different things:
#
# | ledger | its question | who pays |
# |---|---|---|
# | **stored** | how many bytes lie on the disk and in memory? | the phone, the download |
# | **trained** | how many parameters must be changed to learn a job? | whoever trains it |
# | **run** | how long does one answer take? | every user, every time |
#
# Beside all three stands **quality**: how often is the answer right? We ask about 800 sentences that were not used for training. (All sentences are cut after 32 *tokens*: a token is a word, or a piece of a rare one.)

# %%
judge = reviews["test"].select(range(800))
judge = judge.select(sorted(range(800), key=lambda i: len(judge[i]["text"])))  # saves time
test = data.ordered_batches(judge, tokenizer, batch_size=50, max_length=32)
labels = torch.cat([batch["labels"] for batch in test])
always = metrics.accuracy(torch.full_like(labels, labels.mode().values), labels)
print(f"always giving the commonest answer is right for {always:.1%}")

# %% [markdown]
# From now on every model goes into one table, the `Ledger`, with its real bytes and its **accuracy**, the share of the 800 answers that are right. The times follow at the end.


# %%
ledger, variants, answers = metrics.Ledger("accuracy"), {}, {}


def enter(name, model, **more):
    """Enter a model into the ledger, and keep its answers."""
    variants[name] = model
    answers[name] = metrics.predict(model, test).argmax(-1)
    quality = metrics.accuracy(answers[name], labels)
    return ledger.add(name, metrics.size_in_bytes(model), quality, **more)


# %% atol=0.02
whole = enter("as trained", model, trained=trained)
print(f"the model of section 1 is right for {whole.quality:.1%}")
assert 0.7 < whole.quality < 0.9

# %% [markdown]
# When is one model better than another? Both answer the *same* sentences, so only those count where one is right and the other wrong. We count what the second has **gained** (only it is right) and **lost** (only the first is right). Suppose that both are equally good. If luck alone gives so uneven a count less than once in 20 times, the gap is called *decided*; otherwise it is **inconclusive**. `metrics.paired_gap` does this, and prints the gap ± its margin, which decided gaps exceed. (Chapter 01 gives the formula.)


# %% atol=0.02
def gap(first, second):
    """Compare the answers of two models of the ledger."""
    found = metrics.paired_gap(answers[first], answers[second], labels)
    print(f"{first} -> {second}: {found},", "decided" if found.decided else "inconclusive")
    return found


eight = enter("8 bits", small)
found = gap("as trained", "8 bits")
assert abs(found.gap) < 0.02

# %% [markdown]
# Few answers changed, so the margin is small: rounding to 8 bits costs less than two answers in a hundred.
#
# ## ★ 3 · Pruning: set weights to zero
#
# The numbers that a layer multiplies with are its **weights**. A weight near zero does little, so take it out. The **score** of a weight is its size, $|w|$; the **mask** is true where a weight is kept. We rank the weights of all six layers in one list and remove the smaller half; the embeddings stay.
#
# A result needs a **control**: a version that lacks just the idea to be tested, here *which* weights go. So in the control the same number goes, chosen at random.
#
# **Predict:** the accuracy after the smallest half is gone. (Before, it was right for about eight in ten; always the commonest answer, for 0.54.)

# %% atol=0.03
guess = ...  # a share, between 0 and 1
pruned, unlucky = copy.deepcopy(model), copy.deepcopy(model)
report = pruning.prune_(pruned, pruning.global_mask(pruning.magnitude_scores(pruned), 0.5))
report = pruning.prune_(unlucky, pruning.global_mask(pruning.random_scores(unlucky), 0.5))
half = enter("half pruned", pruned)
chance = enter("half, at random", unlucky, control_of="half pruned")
compare(guess, half.quality)
found = gap("half, at random", "half pruned")
assert found.decided and found.gap > 0.05

# %% [markdown]
# The same number of zeros, and very different models: pruned at random, ours is no better than always giving the same answer. *Which* weights go is everything.
#
# **Predict:** half of the weights in the layers are zero now. By how many megabytes has the stored model shrunk?

# %% clock=true
guess = ...  # megabytes
compare(guess, (whole.stored - half.stored) / 1e6, "MB")
times = metrics.latencies({"before": lambda: model(**one), "pruned": lambda: pruned(**one)})
for name, time in times.items():
    print(f"{name}: {time}")
assert times["pruned"].median > 0.7 * times["before"].median

# %% [markdown]
# **Second surprise: nothing, neither bytes nor time.** A zero is a number like any other. It takes four bytes and one multiplication, until a file format or a kernel skips it: chapters 03 and 05.
#
# ## 4 · Quantization: fewer bits
#
# How did the opening work? A weight $w$ is stored as a small integer $q$, and each row of the matrix shares one float, the **scale** $s$, so that $w \approx s \cdot q$. With 8 bits, $q$ lies between −127 and 127:

# %%
row = torch.tensor([0.30, -1.27, 0.004, 0.62])
scale = row.abs().max() / 127
q = (row / scale).round()
print("scale", round(scale.item(), 4), "integers", q.int().tolist())
print("back", [round(value, 2) for value in (q * scale).tolist()])
assert (row - q * scale).abs().max() <= scale / 2

# %% [markdown]
# Here is a corner of one weight matrix, 384 × 384 numbers in whole, and what pruning (here of this corner alone) and a very coarse rounding do to it:

# %%
layer = model.encoder.encoder.layer[0].attention.self.query
corner = layer.weight.detach()[:12, :16].clone()
step = corner.abs().max() / 3
panels = {
    "as trained": corner,
    "pruned: half are zero": corner * pruning.layer_mask(corner.abs(), 0.5),
    "quantized: 7 values": (corner / step).round() * step,
}
axes = plots.weight_maps(panels)
bar = axes[0].figure.colorbar(axes[0].images[0], ax=list(axes), label="weight", shrink=0.6)

# %% [markdown]
# *Figure: pruning sets the smallest weights to zero; quantization moves every weight to one of 7 values, and rounds many small ones to zero.*
#
# <details><summary>The figure in words</summary>
#
# Three times the same 12 × 16 weights. Red is positive, blue is negative, darker is larger, grey is exactly zero. As trained, no cell is grey. Pruned, the palest half of the cells is grey and the others are unchanged. Quantized, only seven different colours are left; the palest cells are grey here, too, because rounding makes small weights zero.
#
# </details>
#
# The opening quantized everything. Most tools, when you do not ask for more, quantize the *linear layers* only: those that multiply a matrix with a vector. Ours does, too. A table stays as it is, then: the **embeddings**, 384 floats for each of 30,522 tokens. They are only looked up.
#
# **Predict:** how many megabytes are left then, of 90?

# %%
guess = ...  # megabytes
linear = copy.deepcopy(model)
report = quantization.quantize_(linear, bits=8)
compare(guess, metrics.size_in_bytes(linear) / 1e6, "MB")
sizes = {}
for name, shown in [("as trained", model), ("8-bit linear", linear), ("8 bits", small)]:
    table, layers = shown.encoder.embeddings, shown.encoder.encoder
    megabytes = (metrics.size_in_bytes(part) / 1e6 for part in (table, layers))
    sizes[name] = dict(zip(["embeddings", "the six layers"], megabytes, strict=True))
ax = plots.stacked_bars(sizes, "megabytes stored")

# %% [markdown]
# *Figure: the table of embeddings is half of this model, and it is no linear layer.*
#
# <details><summary>The figure in words</summary>
#
# Three bars, each cut into embeddings and the six layers. As trained: 48 MB of embeddings and 43 MB of layers. With 8-bit linear layers: the same 48 MB of embeddings and 11 MB of layers. With 8 bits everywhere: 12 MB and 11 MB.
#
# </details>
#
# **Third surprise: half of this model is a table**, and it kept its 32 bits. "8 bits" is a statement about *some* weights; bytes are a statement about the file.
#
# Now 4 bits for the layers: once with a scale for each *group* of 32 weights, and, as its control, with one for each whole row. A scale for few weights fits them more closely, but more scales take more bytes.

# %% atol=0.02
four, coarse = copy.deepcopy(model), copy.deepcopy(model)
report = quantization.quantize_(four, bits=4, group_size=32, embeddings=8)
report = quantization.quantize_(coarse, bits=4, embeddings=8)
groups = enter("4 bits, groups of 32", four)
rows = enter("4 bits, a scale a row", coarse, control_of="4 bits, groups of 32")
print(f"{groups.stored / 1e6:.1f} MB with groups, {rows.stored / 1e6:.1f} MB with a scale a row")
found = gap("4 bits, a scale a row", "4 bits, groups of 32")
for name in ("8 bits", "4 bits, groups of 32", "4 bits, a scale a row"):
    changed = metrics.flips(answers["as trained"], answers[name])
    print(f"{name}: {changed:.1%} of the answers changed")
assert metrics.flips(answers["as trained"], answers["8 bits"]) < 0.03

# %% [markdown]
# At 4 bits a few answers in a hundred have changed, some for the better and some for the worse, so that the accuracy shows little of it. The same accuracy is not the same model (chapter 01). So are groups worth their bytes? Where the cell says *inconclusive*, 800 answers cannot tell: chapter 04 takes a finer measure.
#
# ## 5 · LoRA: train little
#
# How did the model learn its job in section 1? Not by training all of its 22 million parameters. LoRA **freezes** every matrix $W$: training does not change it. Beside some of them (here beside two in each of the six layers, the `query` and the `value` matrix; chapter 01 draws a layer) it trains two thin ones:
#
# $$y = W x + \frac{\alpha}{r}\, B A x$$
#
# The rank $r$ is 8 here, and $\alpha$ is 16: it sets how strongly the update counts. $B$ starts at zero, so the model starts as it was.

# %%
ax = plots.lora_layer(inputs=384, outputs=384, rank=8)

# %% [markdown]
# *Figure: the frozen matrix stays beside two thin ones that are trained.*
#
# <details><summary>The figure in words</summary>
#
# The input x, 384 numbers, goes two ways to the sum y. Above: through W, frozen, 384 × 384 = 147,456 numbers. Below: through A, trained, 8 × 384, and then B, trained, 384 × 8. A and B together have 6,144 numbers, 4.2 % of W.
#
# </details>
#
# Twelve such matrices got an update. And the head was trained:

# %%
print(f"{trained:,} parameters trained, head included: {trained / parameters:.2%} of the model")
print(f"stored beside: {unmerged:,} bytes, merged: {whole.stored:,} bytes")

# %% [markdown]
# Afterwards the update was *merged*: $W + \frac{\alpha}{r} B A$ is one matrix of the old size, so nothing is left to store beside it. LoRA is light in the **trained** ledger. In the **stored** one it saves nothing for one job. For ten jobs on one model it does: ten small updates instead of ten models.
#
# The control: the head alone is trained, for the same steps, on the same sentences. (A step size, `learning_rate`, that suits LoRA need not suit a head alone; with it the control could lose for that reason only. So the head, small and new, gets a larger one.)

# %% atol=0.02
head_only = models.EncoderClassifier(models.load_minilm(), num_labels=2)
head_only.encoder.requires_grad_(False)
history = train(head_only, batches, Recipe(steps=48, learning_rate=3e-2))
alone = enter("head alone", head_only, trained=770, control_of="as trained")
found = gap("head alone", "as trained")

# %% [markdown]
# *Decided* and above zero would mean: LoRA was worth its trouble, on these sentences and for one **seed** (the number from which all random choices start). Chapter 02 trains longer, and with three seeds.
#
# ## ★ 6 · Distillation: a small model learns from a large one
#
# The fourth method takes whole layers away. Keep the first and the last of the six, as they are. What remains is our **student**, and must learn again. The whole model becomes its **teacher**.

# %%
ax = plots.teacher_and_student()

# %% [markdown]
# *Figure: teacher and student read the same text. The student can learn from the teacher's probabilities, from a label, or from both.*
#
# <details><summary>The figure in words</summary>
#
# One text goes to two models: above the teacher, large and frozen; below the student, small and trained. Each gives probabilities. Loss 1 asks how far the student's are from the teacher's; loss 2, how far they are from the label.
#
# </details>
#
# Suppose you have this teacher, but not the sentences that it learned from: only 64 with labels, and as many as you like *without*. The teacher can answer those. (The **loss** is the number that training makes smaller. Chapter 06 derives it, and says what its `temperature` does.)

# %%
start = distillation.student_from(model, layers=[0, 5]).requires_grad_(True)
start.encoder.embeddings.requires_grad_(False)
others = reviews["train"].select(range(768, 768 + 64 + 768))
labelled, unlabelled = (
    data.text_batches(others.select(rows), tokenizer, batch_size=32, max_length=32)
    for rows in (range(64), range(64, 64 + 768))
)
student, untaught = copy.deepcopy(start), copy.deepcopy(start)

# %% [markdown]
# The control is the same student for the same 24 steps, with the 64 labels only. (The step size was chosen on other sentences than the 800; it grows over the first 3 steps, `warmup_steps`.)

# %%
loss = distillation.taught_by(model, temperature=2.0, soft_weight=1.0)  # reads no label
history = train(student, unlabelled, Recipe(24, 2e-4, warmup_steps=3), loss=loss)
history = train(untaught, labelled, Recipe(24, 2e-4, warmup_steps=3))

# %% [markdown]
# **Predict:** which of the two has the higher accuracy, or is it inconclusive?

# %% atol=0.03
guess = ...  # "taught", "labels only" or "inconclusive"
size = sum(p.numel() for p in student.parameters() if p.requires_grad)
enter("2 layers, taught", student, trained=size)
enter("2 layers, labels only", untaught, trained=size, control_of="2 layers, taught")
found = gap("2 layers, labels only", "2 layers, taught")
better = "taught" if found.gap > 0 else "labels only"
compare(guess, better if found.decided else "inconclusive")
assert found.decided and found.gap > 0.03

# %% [markdown]
# **The teacher helps**, by more than luck: its answers to sentences that nobody labelled are worth more than 64 labels. What this does *not* decide: whether true labels for the same 768 sentences would have been better still, and whether it holds for other draws of sentences. Chapter 06 asks again, with three seeds.
#
# ## ★ 7 · Two together: taught, with an 8-bit table
#
# Each method alone disappointed: zeros saved nothing, 8 bits were slow, fewer layers cost answers. Put *two* together. The taught student has fewer layers, and most of what is left of it is the **embeddings**, a table of 384 numbers for each token. A table is only looked up, not multiplied with, so 8 bits cost little time there. The layers stay floats until chapter 05 brings a kernel.

# %% atol=0.02
best, poor = copy.deepcopy(student), copy.deepcopy(untaught)
report = quantization.quantize_(best, bits={}, embeddings=8)
report = quantization.quantize_(poor, bits={}, embeddings=8)
both = enter("2 layers, taught, 8-bit table", best)
enter("the same, untaught", poor, control_of="2 layers, taught, 8-bit table")
print(f"{both.stored / 1e6:.1f} MB: {whole.stored / both.stored:.1f}-fold smaller")
found = gap("the same, untaught", "2 layers, taught, 8-bit table")
cost = gap("as trained", "2 layers, taught, 8-bit table")
assert found.decided and found.gap > 0.03

# %% clock=true
times = metrics.latencies({name: lambda m=m: m(**one) for name, m in variants.items()})
for row in ledger.rows:
    row.latency = times[row.name]
faster = whole.latency.median / both.latency.median
print(f"the whole model takes {faster:.1f} times as long")
assert faster > 1.4

# %% [markdown]
# Less than a third of the bytes, *and* faster: a win in two ledgers, measured. The price is paid in answers: it is the line that begins with "as trained", above. And 8 bits alone are smaller still, and more accurate, but slow. To be small, right *and* fast is what the rest of the course is about.
#
# ## ★ 8 · The ledger: the course in one picture
#
# Everything measured above, each method with its control; `trained` counts what the step itself trained. Read it column by column: *no single method wins them all*.

# %% clock=true atol=0.03
ledger

# %%
ax = plots.ledger(ledger)
assert len(ax.texts) == len(ledger.rows)
line = ax.axhline(always, color="#999999", linestyle="--", zorder=0)
text = ax.annotate("always the commonest answer", (1, always + 0.004), fontsize=9, color="#666666")
for row in ledger.rows:
    found = metrics.paired_gap(answers["as trained"], answers[row.name], labels)
    place = row.stored / 1e6, row.quality
    bar = ax.errorbar(*place, yerr=found.margin, color="#999999", linewidth=1, zorder=0)

# %% [markdown]
# *Figure: to the left is smaller, higher is better; the taught student with an 8-bit table is small, and above its control. A grey bar is the margin of the gap to the model as trained.*
#
# <details><summary>The figure in words</summary>
#
# Accuracy against megabytes stored. Full circles are methods, open grey ones their controls, each tied to its method by a dotted line. On the right, at 90 MB, stand the model as trained and, below it, the half pruned one; far down, at or below the dashed line of always giving the commonest answer, the one pruned at random. In the middle, near 62 MB, stand the two students with two layers, the taught one above the one that had labels only. On the left stand the quantized models: 8 and 4 bits near the height of the model as trained, at 23 and 18 MB, and at 26 MB the taught student with an 8-bit table, lower than they are and above its control.
#
# </details>
#
# ## **Spot the bug**
#
# This function stands, in many versions, in tutorials on pruning. It reports a saving. What is wrong with it?


# %%
def prune_and_report(model, sparsity):
    """Prune a model in place and return its new size. (This is the version with the bug.)"""
    pruning.prune_(model, pruning.global_mask(pruning.magnitude_scores(model), sparsity))
    left = sum(int((p != 0).sum()) for p in model.parameters())
    return left * 4


claimed = prune_and_report(copy.deepcopy(model), 0.5)
print(f"claimed: {claimed / 1e6:.0f} MB, stored: {metrics.size_in_bytes(pruned) / 1e6:.0f} MB")

# %% [markdown]
# <details><summary>Answer</summary>
#
# It counts the weights that are not zero and multiplies by four: a file of that size does not exist. (It claims 69 MB and not 45, because the embeddings were not pruned.) To store only the survivors you must also store *where* they stand, for example with one bit for each weight, and a program must exist that reads such a file. A size is what `size_in_bytes` or the file system says.
#
# </details>
#
# ## Summary
#
# - **Three ledgers.** LoRA trained one parameter in three hundred, and stored as much as before. Quantization stored a quarter and, with our simple layer, ran *slower*. Zeros saved neither. Only taking layers away made the model faster.
# - **Four methods in a few lines each**: `prune_`, `quantize_`, `add_lora_`, and `student_from` with `taught_by`. The taught student with an 8-bit table is more than three times smaller, and faster, but less often right.
# - **Controls.** Pruned at random, head alone, a scale a row, labels only: without them a number says nothing. And where changed answers are about as often lost as gained, the word is *inconclusive*.
#
# ## Further reading
#
# - Hu et al. 2021, *LoRA* (arXiv 2106.09685): section 4, the method in one page.
# - Han et al. 2015, *Deep Compression* (arXiv 1510.00149): pruning, then quantization, then a code that does skip the zeros.
# - Jacob et al. 2017, *Quantization and Training of Neural Networks* (arXiv 1712.05877): section 2, the formula.
# - Sanh et al. 2019, *DistilBERT* (arXiv 1910.01108): a student made from its teacher's own layers.
