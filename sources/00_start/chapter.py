# %% [markdown]
# # 00 · Start: measure first — four ways to make one real model light, and what each really saves
#
# **You will be able to**
#
# - say what "light" means in three separate ledgers: what is *stored*, what is *trained*, what is *run*;
# - prune, quantize, fine-tune with LoRA and distill a real language model in a few lines;
# - put a *control* beside every result, and tell a saving from an illusion.
#
# **You need:** Python, and having seen PyTorch once. **Time:** 35 minutes of reading; the whole notebook runs in about a minute.
#
# How to read: where a paragraph begins with **Predict**, write down a number before you run the next cell. Being wrong is the point.

# %%
import copy

import torch

import lightcourse
from lightcourse import data, distillation, lora, metrics, models, plots, pruning, quantization
from lightcourse.training import Recipe, train

lightcourse.setup(seed=0, threads=2)

# %% [markdown]
# ## One model, one job
#
# Our model is a real one: the encoder `all-MiniLM-L6-v2`, six transformer layers that turn a sentence into 384 numbers. The job: is a sentence of a review *positive* or *negative*?
#
# How large is it? Let the program count.

# %%
encoder = models.load_minilm()
parameters = sum(p.numel() for p in encoder.parameters())
print(f"{parameters:,} parameters, {metrics.size_in_bytes(encoder):,} bytes stored")

# %% [markdown]
# Four bytes for each parameter: 32-bit floats. "Make it light" can now mean three different things, and most confusion in this field comes from mixing them up:
#
# | ledger | its question | who pays |
# |---|---|---|
# | **stored** | how many bytes lie on the disk and in memory? | the phone, the download |
# | **trained** | how many parameters must be changed to learn a job? | whoever fine-tunes |
# | **run** | how long does one answer take? | every user, every time |
#
# And beside all three stands **quality**: how often is the answer right?
#
# Here is one corner of one weight matrix of this model, and what three methods do to such a matrix. Look at the picture; the code behind it will make sense later.

# %%
corner = encoder.encoder.layer[0].attention.self.query.weight.detach()[:12, :16].clone()
step = corner.abs().max() / 3
update = torch.outer(corner[:, 2], corner[7, :])
panels = {
    "as it came": corner,
    "pruned: half are zero": corner * pruning.layer_mask(corner.abs(), 0.5),
    "quantized: 7 values": (corner / step).round() * step,
    "LoRA: the shape of an update": update * (corner.abs().max() / update.abs().max()),
}
axes = plots.weight_maps(panels)

# %% [markdown]
# *Figure: the same 12 × 16 weights. Red and blue are the two signs, darker is larger, grey is exactly zero. Pruning makes the smallest half exactly zero. Quantization keeps only seven different values (rounding makes small weights zero, too). LoRA leaves the matrix alone and trains an update beside it, one column times one row; the one shown is invented, to show the stripes that such a product has.*
#
# The fourth method needs no picture of a matrix: we drop whole layers, and **distillation** trains the small model that remains to imitate the large one.
#
# ## The baseline: a head on a frozen encoder
#
# The sentences come from real reviews of films and goods; people rated each of them (Hutto & Gilbert 2014). We keep a small part, so that everything below runs in a minute on a laptop.

# %%
reviews = data.load_reviews()
tokenizer = models.load_minilm_tokenizer()
learn = reviews["train"].select(range(768))
judge = reviews["test"].select(range(400))
for label in (0, 1):
    row = next(r for r in judge if r["label"] == label and len(r["text"]) < 80)
    print(judge.features["label"].int2str(label), "·", row["text"])
print(f"{sum(judge['label'])} of {len(judge)} test sentences are positive")

# %% [markdown]
# We put one linear layer on top of the encoder: the `head`, 384 numbers in, 2 out, one for each answer. The encoder is *frozen*: none of its weights changes, only the head is trained. This is the plain solution that everything later must beat. (Sentences are cut after 32 tokens, to save time.)

# %%
judge = judge.select(sorted(range(400), key=lambda i: len(judge[i]["text"])))  # less padding
test = data.ordered_batches(judge, tokenizer, batch_size=50, max_length=32)
batches = data.text_batches(learn, tokenizer, batch_size=32, max_length=32)
labels = torch.cat([batch["labels"] for batch in test])
one = {key: value[:1] for key, value in test[2].items() if key != "labels"}

classifier = models.EncoderClassifier(encoder, num_labels=2)
classifier.encoder.requires_grad_(False)
history = train(classifier, batches, Recipe(steps=24, learning_rate=3e-2))
before = metrics.predict(classifier, test).argmax(-1)

# %% [markdown]
# **Predict:** what share of the 400 test sentences does it get right? (Always giving the same answer gets about half.)

# %% atol=0.02
baseline = metrics.accuracy(before, labels)
margin = 2 * (baseline * (1 - baseline) / len(labels)) ** 0.5
print(f"accuracy {baseline:.3f}, give or take {margin:.3f}")
assert 0.68 < baseline < 0.85

# %% [markdown]
# Note the *give or take*: with 400 sentences, a model's accuracy may be off by so much through luck alone. As a rough rule we call a gap between two models that is smaller than this **inconclusive**.
#
# From now on every model goes into one table, the `Ledger`, and always in the same way: with its real bytes and with its accuracy on the test sentences. The times follow at the end.

# %%
ledger, variants = metrics.Ledger("accuracy"), {}


def enter(name, model, **more):
    """Enter a model into the ledger; return its row and its answers."""
    variants[name] = model
    answers = metrics.predict(model, test).argmax(-1)
    quality = metrics.accuracy(answers, labels)
    return ledger.add(name, metrics.size_in_bytes(model), quality, **more), answers


# %% [markdown]
# ## Method 1 · LoRA: train little
#
# Can the encoder itself learn the job, without training its 22 million parameters? LoRA freezes every matrix $W$ and adds a thin update beside it:
#
# $$y = W x + \frac{\alpha}{r}\, B A x$$
#
# $r$ is the `rank`: $A$ (`lora_a`) has $r$ rows, $B$ (`lora_b`) has $r$ columns and starts at zero. $\alpha$ (`alpha`, here 16) sets how strongly the update counts. Only $A$, $B$ and the head are trained.
#
# **Predict:** what percentage of all parameters is that, for rank 8 on the query and value matrices of six layers? (Each is 384 × 384.)

# %%
tuned = copy.deepcopy(classifier)
report = lora.add_lora_(tuned, rank=8, targets=["query", "value"])
tuned.head.requires_grad_(True)
trained = sum(p.numel() for p in tuned.parameters() if p.requires_grad)
print(report)
print(f"{trained:,} are trained, head included; the encoder has {parameters:,}")
print(f"that is {trained / parameters:.2%}")

# %% [markdown]
# Twelve matrices, each with 8 × 384 + 384 × 8 = 6,144 new parameters, and the head. The control: the *head alone*, which gets the same extra steps on the same sentences.

# %%
recipe = Recipe(steps=24, learning_rate=3e-3, warmup_steps=3)
history = train(tuned, batches, recipe)
head_only = copy.deepcopy(classifier)
history = train(head_only, batches, Recipe(steps=24, learning_rate=3e-2))

# %% [markdown]
# Is the model smaller now? Nothing was removed, something was added. But the update can be *merged*: $W + \frac{\alpha}{r} B A$ is one matrix again, and answers as before.

# %%
beside, size_beside = metrics.predict(tuned, [one]), metrics.size_in_bytes(tuned)
report = lora.merge_lora_(tuned)
assert torch.allclose(beside, metrics.predict(tuned, [one]), atol=1e-4)
print(f"stored beside {size_beside:,} bytes, merged {metrics.size_in_bytes(tuned):,} bytes")

# %% [markdown]
# So LoRA is light in the **trained** ledger, and in that one only. Merged, the model has its old matrices, of the old size (the 3,080 bytes more than the bare encoder are the head). This `tuned` model becomes the first row of the table, and whatever follows is made from it.

# %% atol=0.02
full, answers = enter("LoRA, merged", tuned, trained=trained)
alone, _ = enter("head alone", head_only, trained=770, control_of="LoRA, merged")
print(f"LoRA {full.quality:.3f}, head alone {alone.quality:.3f}, give or take {margin:.3f}")
assert full.quality > alone.quality - margin

# %% [markdown]
# Is the gap larger than the *give or take*? If not, the honest word is *inconclusive*: 768 sentences are little to learn from. Compare also with the accuracy of the head before its extra steps: more training is not always better. Chapter 02 trains longer, and with three seeds.
#
# ## Method 2 · Pruning: set weights to zero
#
# A weight near zero does little, so take it out. The **score** of a weight is its size, $|w|$; the **mask** is True where a weight is kept. Here half of all weights in the linear layers go: the smallest of the whole model (`global_mask`).
#
# **Predict:** the accuracy after that. And the control: the accuracy when the same number of weights is chosen *at random*.

# %%
pruned, unlucky = copy.deepcopy(tuned), copy.deepcopy(tuned)
report = pruning.prune_(pruned, pruning.global_mask(pruning.magnitude_scores(pruned), 0.5))
pruning.prune_(unlucky, pruning.global_mask(pruning.random_scores(unlucky), 0.5))
print(str(report).splitlines()[0])
print(
    f"zeros in the linear layers: {metrics.sparsity(pruned):.1%}, {metrics.sparsity(unlucky):.1%}"
)

# %% atol=0.03
small, _ = enter("half pruned", pruned)
chance, _ = enter("half, at random", unlucky, control_of="half pruned")
print(f"smallest gone {small.quality:.3f}, at random {chance.quality:.3f}")
assert small.quality > chance.quality + 0.05

# %% [markdown]
# The same number of zeros, and very different models: pruned at random, ours is no better than always giving the same answer. *Which* weights go is everything. (What pruning by size did lose, training can win back: chapter 03.)
#
# **Predict:** half of the weights in the linear layers are zero now, 24 % of all parameters. What happens to the bytes and to the time? (A time is printed as the median of 20 runs ± half of the distance between the quartiles.)

# %% clock=true
print(f"stored: {full.stored:,} before, {small.stored:,} after")
times = metrics.latencies({"before": lambda: tuned(**one), "after": lambda: pruned(**one)})
print(f"time for a sentence: {times['before']} before, {times['after']} after")
assert small.stored == full.stored
assert times["after"].median > 0.7 * times["before"].median

# %% [markdown]
# **First surprise: nothing.** A zero is a number like any other. It takes four bytes and one multiplication, until a file format or a *kernel* (the low-level routine that does the multiplying) skips it: chapters 03 and 05. Whoever writes "we pruned 50 %, so the model is half as large" has not measured.
#
# ## Method 3 · Quantization: fewer bits
#
# A weight is stored as a small integer `q`, and each row shares one `scale`: $w \approx s \cdot q$. `quantize_` replaces each linear layer by a `QuantizedLinear` that really holds integers: one byte each for 8 bits, two in a byte for 4.
#
# **Predict:** 32 bits become 8, a quarter. So how large is the whole model: a quarter of 90 MB?

# %%
eight = copy.deepcopy(tuned)
report = quantization.quantize_(eight, bits=8)
print(str(report).splitlines()[0])
print(f"{metrics.size_in_bytes(tuned):,} bytes -> {metrics.size_in_bytes(eight):,} bytes")

# %%
sizes = {}
for name, model in [("as it came", tuned), ("8-bit linear", eight)]:
    embeddings, layers = model.encoder.embeddings, model.encoder.encoder
    sizes[name] = {
        "embeddings": metrics.size_in_bytes(embeddings) / 1e6,
        "the six layers": metrics.size_in_bytes(layers) / 1e6,
    }
ax = plots.stacked_bars(sizes, "megabytes stored")

# %% [markdown]
# *Figure: two bars. As it came, the model stores 48 MB of embeddings and 43 MB of layers; with 8-bit linear layers the same 48 MB of embeddings and 11 MB of layers.*
#
# **Second surprise: the table of word embeddings is half of this model**, and it is no linear layer. "8 bits" is a statement about some of the weights; bytes are a statement about the file. (Chapter 04 quantizes the table too.)
#
# Now 4 bits, twice: with one scale for each *group* of 32 weights, and as a control with one scale for each whole row. (The control of the 8-bit model is `tuned` itself.)

# %%
four, coarse = copy.deepcopy(tuned), copy.deepcopy(tuned)
quantization.quantize_(four, bits=4, group_size=32)
quantization.quantize_(coarse, bits=4)
layer = four.encoder.encoder.layer[0].attention.self.query
print(
    "packed:", tuple(layer.qweight.shape), layer.qweight.dtype, "scales:", tuple(layer.scale.shape)
)

# %% atol=0.02
row8, answers8 = enter("8 bits", eight)
row4, answers4 = enter("4 bits, groups of 32", four)
rowc, answersc = enter("4 bits, a scale a row", coarse, control_of="4 bits, groups of 32")
for row, other in [(row8, answers8), (row4, answers4), (rowc, answersc)]:
    changed = metrics.flips(answers, other)
    print(f"{row.name}: accuracy {row.quality:.3f}, {changed:.1%} of the answers changed")
assert metrics.flips(answers, answers8) < 0.03
assert metrics.flips(answers, answers4) < metrics.flips(answers, answersc) + 0.03

# %% [markdown]
# Look at the last number of each line: at 4 bits several answers in a hundred have *changed*, though the accuracy hardly has: some right ones became wrong, some wrong ones right. The same accuracy is not the same model (chapter 01 counts such **flips**).
#
# **Predict:** integers are small. Is the 8-bit model faster?

# %% clock=true
shown = {"32-bit floats": tuned, "8 bits": eight, "4 bits": four}
times = metrics.latencies({name: lambda m=model: m(**one) for name, model in shown.items()})
for name, time in times.items():
    print(f"{name}: {time}")
assert times["8 bits"].median > 0.8 * times["32-bit floats"].median

# %% [markdown]
# No, slower, and 4 bits more so: our layer first unpacks its integers and turns them back into floats, then multiplies as before, and the extra work takes time. Small is not fast. To gain speed the small integers need a kernel made for them, one that multiplies integers directly, or unpacks them on the way without writing the floats back to memory. Chapter 05 builds one.
#
# ## Method 4 · Distillation: a smaller model learns from a larger
#
# Keep two of the six layers: layers 0 and 5 of `tuned`, as they are. This **student** now learns from the probabilities of its **teacher**, `tuned`, and not only from the labels:
#
# $$\text{loss} = (1 - w)\,\text{CE} + w\,T^2\,\text{KL}(\text{teacher} \,\|\, \text{student})$$
#
# CE, the cross-entropy, compares the student's answer with the true label. KL measures how far its probabilities are from the teacher's. $w$ (`soft_weight`) weighs the two. $T$ (`temperature`) above 1 makes both models less sure of themselves, so that small probabilities count; $T^2$ keeps the gradients at their size. Chapter 06 derives all this. The control: the *same* student, the *same* steps, labels only.

# %%
start = distillation.student_from(tuned, layers=[0, 5]).requires_grad_(True)
start.encoder.embeddings.requires_grad_(False)
student, untaught = copy.deepcopy(start), copy.deepcopy(start)
size = sum(p.numel() for p in student.parameters() if p.requires_grad)
recipe = Recipe(steps=24, learning_rate=5e-4, warmup_steps=3)
loss = distillation.taught_by(tuned, temperature=2.0, soft_weight=0.9)
history = train(student, batches, recipe, loss=loss)
history = train(untaught, batches, recipe)
print(f"{len(student.encoder.encoder.layer)} layers, {size:,} parameters trained")

# %% [markdown]
# **Predict:** how fast is a model with two layers instead of six? And which student is better?

# %% clock=true atol=0.03
taught, _ = enter("2 layers, distilled", student, trained=size)
untold, _ = enter("2 layers, labels only", untaught, trained=size, control_of="2 layers, distilled")
print(f"taught {taught.quality:.3f}, labels only {untold.quality:.3f}")
times = metrics.latencies({"six": lambda: tuned(**one), "two": lambda: student(**one)})
print(f"six layers {times['six']}, two layers {times['two']}")
assert times["two"].median < 0.7 * times["six"].median

# %% [markdown]
# **Third surprise: the only method here that made the model faster is the one that took layers away**, and that speed comes with two layers *however* they were trained. Whether the teacher helped is another question, and by the rule from above the answer is **inconclusive**: the gap is smaller than the give or take. Chapter 06 asks again, with three seeds and more to learn from.
#
# ## The ledger
#
# Everything measured above, each method with its control. The times are taken now, in turns, so that a moment when the machine is busy hits all models alike. `trained` counts what the step itself trained. Read it column by column: *no method wins them all*.

# %% clock=true atol=0.03
times = metrics.latencies({name: lambda m=model: m(**one) for name, model in variants.items()})
for row in ledger.rows:
    row.latency = times[row.name]
smallest = min(ledger.rows, key=lambda row: row.stored)
fastest = min(ledger.rows, key=lambda row: row.latency.median)
assert smallest.name.startswith("4 bits") and fastest.name.startswith("2 layers")
ledger

# %%
ax = plots.ledger(ledger)
ax.axhspan(full.quality - margin, full.quality + margin, color="#0072B2", alpha=0.08, zorder=0)
assert len(ax.texts) == len(ledger.rows)

# %% [markdown]
# *Figure: accuracy against megabytes stored. Full circles are methods, open grey ones their controls, each tied to its method by a dotted line. The blue band is the give or take around the tuned model. At 90 MB on the right stand the tuned model and its control; below them, and below the band, the half pruned model; and far down, near one half, the model pruned at random. Near 60 MB the two students, with and without a teacher, lie close together at the band's lower edge or below it. Further left the 8-bit and the 4-bit models lie within the band.*
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


claimed = prune_and_report(copy.deepcopy(tuned), 0.5)
print(f"claimed: {claimed:,} bytes, stored: {metrics.size_in_bytes(pruned):,} bytes")

# %% [markdown]
# <details><summary>Answer</summary>
#
# It counts the weights that are not zero and multiplies by four: a file of that size does not exist. (69 MB and not 45, because the embeddings were not pruned.) To store only the survivors you must also store *where* they stand, for example with one bit for each weight, and a program must exist that reads such a file. A size is what `size_in_bytes` or the file system says, not a product that forgets the scales, the positions or the other layers.
#
# </details>
#
# ## Summary
#
# - **Three ledgers.** LoRA trained a number of parameters that is 0.33 % of the encoder's, and stored as much as before. Quantization stored 35 to 41 % less and, with our simple layer, ran *slower*. Dropping layers ran about three times as fast.
# - **Four methods in a few lines each**: `add_lora_`, `prune_`, `quantize_`, and `student_from` with `taught_by`.
# - **Controls.** Head alone, pruned at random, a scale a row, labels only: without them a number says nothing. And where a gap is smaller than the give or take, the word is *inconclusive*.
# - **Three surprises.** Zeros are not smaller or faster; half of this model is embeddings; what made it fast was dropping layers.
# - How many of your predictions were right? Keep the wrong ones: the next chapters explain them.
#
# ## Further reading
#
# - Hu et al. 2021, *LoRA* (arXiv 2106.09685): section 4, the method in one page.
# - Han et al. 2015, *Deep Compression* (arXiv 1510.00149): pruning, then quantization, then a code that does skip the zeros.
# - Jacob et al. 2017, *Quantization and Training of Neural Networks* (arXiv 1712.05877): section 2, the formula.
# - Sanh et al. 2019, *DistilBERT* (arXiv 1910.01108): a student made from its teacher's own layers.
