# %% [markdown]
# # 11 · The LoRA family — many jobs on one frozen model, and what each of them costs
#
# **You will be able to**
#
# - write down what LoRA, DoRA, IA3, a trained prompt and trained biases compute;
# - count what is trained, stored and run, and what a training step holds in memory;
# - choose rank and alpha, and say what rsLoRA changes;
# - train beside a 4-bit base, and say what a merge into it would lose;
# - serve many adapters from one model, switched or row by row, and exchange them with PEFT, the usual library for adapters.
#
# **You need:** chapters 02, 04 and 09. **Time:** 60 minutes of reading, 25 for the parts marked ★ (the fast path). The whole notebook runs in about a minute.
#
# Below each **Predict**, write your guess into the next cell, in place of the dots.

# %%
import copy
import math
import os
import statistics
import subprocess
import sys
import tempfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path

import torch
from torch import nn

# %%
import lightcourse
from lightcourse import data, lora, metrics, models, plots, quantization
from lightcourse.guessing import compare
from lightcourse.training import Recipe, train

lightcourse.setup(threads=1)  # faster for so small a model
temporary = tempfile.TemporaryDirectory()  # gone when the notebook ends
folder = Path(temporary.name)

# %% [markdown]
# ## ★ 1 · Five ways to change a frozen layer
#
# ### What they compute
#
# Chapter 02 left a trained matrix $W$ as it was and trained a small product beside it: LoRA. It has relatives. $x$ is what comes in, and $\odot$ multiplies number by number. $A$ ($r \times n$) and $B$ ($m \times r$) are trained, $r$ is the rank and $\alpha$ a fixed number; $l$ is a trained vector that starts at 1.
#
# | way | computes | trains, for $m$ outputs and $n$ inputs |
# |---|---|---|
# | **LoRA** (Hu et al. 2021, arXiv 2106.09685) | $Wx + \frac{\alpha}{r} BAx$ | $r(m + n)$ |
# | **DoRA** (Liu et al. 2024, arXiv 2402.09353) | $W'x$: each row of $W + \frac{\alpha}{r}BA$ is divided by its length and multiplied by a trained one, $\mu_i$ | $r(m + n) + m$ |
# | **IA3** (Liu et al. 2022, arXiv 2205.05638) | $l \odot Wx$, or $W(l \odot x)$ | $m$, or $n$ |
# | **biases** (BitFit, Ben Zaken et al. 2021, arXiv 2106.10199) | $Wx + b$, with $b$ trained | $m$ |
# | **prompt tuning** (Lester et al. 2021, arXiv 2104.08691) | the model on $[p_1 … p_k, x_1 … x_T]$ | $k$ times the width, once for the model |
#
# The last one changes no layer: $k$ trained vectors stand before the text, as if they were words.
#
# **Predict:** how many numbers does LoRA of rank 8 train for a matrix of 384 × 384? (The matrix has 147,456.)

# %%
guess = ...  # numbers
layer = lora.LoRALinear(nn.Linear(384, 384), 8, 16.0)
trained = sum(p.numel() for p in layer.parameters() if p.requires_grad)
compare(guess, trained, "numbers", how="counted")

# %% [markdown]
# IA3 and biases train 384. The prompt trains none in the matrix: its numbers stand before the text.
#
# ### DoRA, by hand
#
# LoRA changes direction and length of a row at once. DoRA separates them: $BA$ turns the rows, then each is brought to a length $\mu_i$ of its own, which is trained, too. It begins at the length that the row had. On a matrix of 4 × 8:

# %%
torch.manual_seed(0)
base, x = nn.Linear(8, 4), torch.randn(5, 8)
layer = lora.DoRALinear(base, rank=2, alpha=4.0)
layer.lora_b.data.normal_()
turned = base.weight + 4.0 / 2 * layer.lora_b @ layer.lora_a  # alpha / r
unit = turned / turned.norm(dim=1, keepdim=True)
by_hand = x @ (layer.lora_magnitude[:, None] * unit).T + base.bias
assert torch.allclose(layer(x), by_hand, atol=1e-5)
assert torch.allclose(layer.weight.norm(dim=1), base.weight.norm(dim=1))  # not yet trained

# %% [markdown]
# $B$ has turned the rows, and they are as long as before: in DoRA only `lora_magnitude` makes a row longer. (The paper writes matrices the other way round and says columns. As it proposes, the length by which a row is divided counts as a constant when gradients are computed.) IA3 is a multiplication, of a layer's answers or of its inputs:

# %%
scaled, shrunk = lora.IA3Linear(base), lora.IA3Linear(base, "inputs")
scaled.ia3_l.data.uniform_(0, 2)
shrunk.ia3_l.data.uniform_(0, 2)
assert torch.allclose(scaled(x), scaled.ia3_l * base(x))
assert torch.allclose(shrunk(x), base(shrunk.ia3_l * x))

# %% [markdown]
# ## ★ 2 · One job, one search
#
# The job: a tiny model that has read speeches learns the language of the Factbook. (It is the tiny *GPT-2* with 1.1 million parameters: unlike our Llamas it has biases.) The ways need very different learning rates, so each gets a **search** of the same size: three rates of its own, seed 0, judged on validation passages. A run is 20 steps of 4 windows of 64 tokens. The best one is then trained with three seeds, which change what is learned from and in which order, and judged on test passages.

# %%
tokenizer, factbook = models.load_tiny_tokenizer(), data.load_factbook()


def tokens_of(texts):
    """Return the tokens of several texts, an end token behind each."""
    encoded = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    return torch.tensor([token for ids in encoded for token in [*ids, tokenizer.eos_token_id]])


passages = data.token_batches(tokens_of(factbook["train"]["text"][:1000]), 64, batch_size=4)
aside, unseen = (tokens_of(factbook[s]["text"][:100])[:2049] for s in ("validation", "test"))


def perplexity(model, text=unseen):
    return metrics.perplexity(model, text, window=64)


# %% [markdown]
# **QLoRA** (Dettmers et al. 2023, arXiv 2305.14314) is LoRA beside a base that is stored in NF4 (chapter 09): the adapter is in floats, the base in 4 bits. (The paper rounds the scales, too; ours are floats.)


# %%
def qlora_(model):
    quantization.codebook_(model)
    lora.add_lora_(model, rank=8)


# What changes a model in place, and three learning rates to try.
ways = {
    "full": (lambda model: None, (3e-4, 1e-3, 3e-3)),
    "LoRA": (lambda model: lora.add_lora_(model, rank=8), (2e-3, 5e-3, 1.5e-2)),
    "DoRA": (lambda model: lora.add_dora_(model, rank=8), (2e-3, 5e-3, 1.5e-2)),
    "QLoRA": (qlora_, (2e-3, 5e-3, 1.5e-2)),
    "IA3": (lambda model: lora.add_ia3_(model, ["c_attn"], ["mlp.c_proj"]), (1.5e-2, 5e-2, 0.15)),
    "biases": (lora.train_biases_, (5e-3, 1.5e-2, 5e-2)),
    "prompt": (lambda model: lora.PromptTuned(model, 16), (5e-3, 1.5e-2, 5e-2)),
}


# %% [markdown]
# Which layers get an adapter is a choice, too: Hu et al. took queries and values, the QLoRA paper all linear layers. Here LoRA and DoRA take all of them. IA3 scales the answers of `c_attn` (in GPT-2 queries, keys and values in one matrix; the paper leaves queries out) and the inputs of `mlp.c_proj`. The biases include those of the norms. This is how a model is prepared, and how several are taught:


# %%
def prepared(way, seed=0):
    """Return the tiny model, ready to be trained this way."""
    model = models.load_tiny_lm("gpt2")
    torch.manual_seed(seed)
    changed = ways[way][0](model)
    return changed if isinstance(changed, lora.PromptTuned) else model


# %%
def teach(some, rates, seeds):
    """Train each of some models, two at a time: one on each core."""

    def learn(model, rate, seed):
        train(model, passages, Recipe(20, rate, warmup_steps=3, seed=seed), progress=False)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(learn, some, rates, seeds))


# %% [markdown]
# **Predict:** which of them will come nearest to full training, and which will stay farthest behind?

# %% rtol=0.05
guess = ...  # two names: "nearest, farthest"
best, found, fast_lora = {}, {}, None
for way, (_, rates) in ways.items():
    tried = {rate: prepared(way) for rate in rates}
    teach(tried.values(), rates, repeat(0))
    scores = {rate: perplexity(model, aside) for rate, model in tried.items()}
    best[way] = rate = min(scores, key=scores.get)
    fast_lora = tried[rates[-1]] if way == "LoRA" else fast_lora
    found[way] = [tried[rate], prepared(way, 1), prepared(way, 2)]
    teach(found[way][1:], repeat(rate), (1, 2))
    print(f"{way:7}", *(f"{r}: {p:5.1f}" for r, p in scores.items()), sep="   ")

# %% [markdown]
# On test passages, with three seeds each:

# %% rtol=0.05
before = perplexity(models.load_tiny_lm("gpt2"))
quality = {way: [perplexity(model) for model in three] for way, three in found.items()}
for way, three in quality.items():
    counts = lora.counts(found[way][0])
    print(f"{way:7} {counts.trained:9,} trained, perplexity", *(f"{p:6.1f}" for p in three))
print(f"untrained {before:.1f}")
order = sorted(list(ways)[1:], key=lambda way: sum(quality[way]))
compare(guess, f"{order[0]}, {order[-1]}")
for seed in range(3):
    full, thin, ia3, prompt = (quality[way][seed] for way in ("full", "LoRA", "IA3", "prompt"))
    assert full < 0.95 * thin and thin < 0.9 * ia3 and ia3 < 0.9 * prompt < 0.9 * before

# %% [markdown]
# - **Full training is ahead**, with 17 times as many trained numbers as LoRA. The three with a product of two thin matrices come next.
# - The seeds differ, full training by a quarter, the prompt by 2 %, as each takes other passages in another order. So compare within a seed.
# - **DoRA** is ahead of LoRA three times of three, by about 1 %: small, and three are few.
# - **QLoRA** is behind LoRA three times of three, by 1 to 2 %: probably a small loss, on a base of two fifths of the bytes (its matrices shrink to about a seventh, its table of words stays in floats).
# - **IA3 and biases** train less than a tenth of LoRA's numbers, and get about two thirds of LoRA's gain. The **prompt** has the fewest numbers and gains least.
# - The best rates differ by a factor of up to 50. One rate for all would have judged the rate, not the way.
#
# So few steps measure who learns *fastest*. Prompts are known to need thousands.
#
# ## 3 · What is forgotten
#
# The model knew the speeches. Its perplexity on them, now:

# %% rtol=0.05
speeches = data.speech_tokens(tokenizer, "test")[:1025]
base, rounded = models.load_tiny_lm("gpt2"), models.load_tiny_lm("gpt2")
quantization.codebook_(rounded)
print(f"untrained {perplexity(base, speeches):.1f}, in NF4 {perplexity(rounded, speeches):.1f}")
forgotten = {way: [perplexity(model, speeches) for model in found[way]] for way in ways}
for way, three in forgotten.items():
    print(f"{way:7}", *(f"{one:.1f}" for one in three))
print(f"LoRA, at three times its rate {perplexity(fast_lora, speeches):.1f}")

# %% [markdown]
# Each at its best rate, biases and full training forget most, LoRA less, though it learned more than biases did (Biderman et al. 2024, arXiv 2405.09673, found that LoRA forgets less in large models). But LoRA at three times its rate forgets more than full training does with the same seed: as in chapter 02, the rate counts as much as the way. Part of QLoRA's figure is the rounding of its base.
#
# Full training and biases overwrite what was there: keep a copy, which for biases is 5,760 numbers. The others can be taken off again.
#
# ## 4 · What a training step holds
#
# ### Four parts
#
# In training, memory holds the **weights**; a **gradient** for each trained one; two averages for each trained one, by which **Adam** chooses its steps; and what the layers were given, **kept** for the gradient. In full training with the batch below, what is kept takes about as many bytes as the weights.
#
# **Predict:** LoRA of rank 8 trains 1.5 % of MiniLM's parameters. How much of the memory of full training does a step take, in percent?

# %%
guess = ...  # percent
minilm = models.EncoderClassifier(models.load_minilm(), 2)
ids = torch.arange(1000, 1512).view(16, 32)
batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


# %%
def held(name, change):
    """Print and return the bytes of a training step of MiniLM that is changed this way."""
    model = copy.deepcopy(minilm).train()
    change(model)
    model.head.requires_grad_()
    held, kept = metrics.training_bytes(model), metrics.kept_bytes(model, batch)
    parts = [held.weights, held.gradients, held.optimizer, kept]
    told = "weights {:5.1f}, gradients {:5.1f}, Adam {:5.1f}, kept {:5.1f}"
    print(f"{name:7}", told.format(*(part / 1e6 for part in parts)), "MB")
    return sum(parts)


# %% [markdown]
# Each way, in megabytes:


# %%
def qlora_encoder_(model):
    quantization.codebook_(model.encoder)
    lora.add_lora_(model.encoder, rank=8)


full = held("full", lambda model: None)
thin = held("LoRA", lambda model: lora.add_lora_(model.encoder, rank=8))
directions = held("DoRA", lambda model: lora.add_dora_(model.encoder, rank=8))
small = held("QLoRA", qlora_encoder_)
biases = held("biases", lora.train_biases_)
compare(guess, 100 * thin / full, "%")
assert biases < small < thin < directions < full < 3 * thin

# %% [markdown]
# Adam's two averages and the gradients go. The weights stay, and so does nearly all that is kept: the gradient of $A$ needs the layer's input, as that of $W$ did. A bias needs no input for its gradient, so biases keep less. DoRA keeps more: each layer's answer from before it is stretched. (The changed matrix is built in each call, but not kept.) (What is kept can be thrown away and computed again: gradient checkpointing.)
#
# (Half of MiniLM is its table of words, which QLoRA leaves in floats: so 55 MB of weights and not 13.)
#
# ### What the process really takes
#
# A sum of parts is a claim about a process. So we start one, in which the ways take turns: each trains two steps, while the process looks at its own memory every few milliseconds, and at the clock for the second step. (`MALLOC_MMAP_THRESHOLD_` makes Linux take freed memory back at once, so that no way inherits what another one held. A prompt wants a model that writes: it is missing here.)

# %%
CHANGES = r"""
from lightcourse import lora, quantization
changes = {
    "full": lambda model: None,
    "LoRA": lambda model: lora.add_lora_(model, rank=8),
    "DoRA": lambda model: lora.add_dora_(model, rank=8),
    "QLoRA": lambda model: (quantization.codebook_(model), lora.add_lora_(model, rank=8)),
    "IA3": lambda model: lora.add_ia3_(model, ["key", "value"], r".*layer\.\d\.output\.dense"),
    "biases": lora.train_biases_,
}"""

# %%
PROGRAM = """
import time, torch, lightcourse
from lightcourse import metrics, models
lightcourse.setup(threads=1)
for way, change in changes.items():
    model = models.EncoderClassifier(models.load_minilm(), 2).train()
    change(model.encoder)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    ids = torch.arange(1000, 1512).view(16, 32)
    with metrics.watch_memory() as memory:
        for _ in range(2):
            start = time.perf_counter()
            model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.sum().backward()
            optimizer.step(), optimizer.zero_grad()
    print(way, memory.peak, time.perf_counter() - start)"""

# %% [markdown]
# The peaks:

# %% clock=true rtol=0.2
environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "100000"}
command = [sys.executable, "-c", CHANGES + PROGRAM]
run = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
peaks = {}
for way, peak, seconds in (line.split() for line in run.stdout.splitlines()):
    peaks[way] = int(peak)
    print(f"{way:6} {peaks[way] / 1e9:.3f} GB, {1e3 * float(seconds):4.0f} ms a step")
assert peaks["LoRA"] < peaks["DoRA"] < peaks["full"] and peaks["biases"] < peaks["LoRA"]

# %% [markdown]
# Besides the four parts a process holds Python, torch and what it computes with, some 500 MB here; that is why the peaks differ by fewer percent than the sums do. The *differences* are near the counted ones: 250 MB, and 266 counted, from full training to LoRA; about 35, and 36 counted, from LoRA to QLoRA. A step of LoRA, IA3 or biases is shorter than one of full training, for fewer weights get a gradient and Adam's care. DoRA and QLoRA give that back: they make their matrices anew in each step.
#
# For the backward pass torch keeps the matrix of each product. Over a 4-bit base that would be float copies of all layers at once. Our layers keep only the codes, and make the floats again in the backward pass, one layer at a time.
#
# ## 5 · Rank and alpha, and a root
#
# LoRA multiplies its product by $\alpha / r$. With more rank, the factor shrinks. **rsLoRA** (Kalajdzievski 2023, arXiv 2312.03732) divides by $\sqrt r$ instead, for then the change of a layer's answer neither grows nor vanishes at large $r$. That is a choice of $\alpha$ and nothing else: `rank_stabilized_alpha`. Both rules meet at rank 8: the factor is 2, with $\alpha = 16$ for the first and $16 / \sqrt 8$ for the second. (Our model is 128 wide, so at rank 128 the two thin matrices hold more numbers than the one they change: it shows the rule, and saves nothing.) All runs have one seed, and the rate that was best at rank 8.
#
# **Predict:** with $\alpha / r$, by how many percent does rank 128 lower the perplexity of rank 8?

# %%
guess = ...  # percent


def ranked(alphas, rate):
    """Return validation perplexities by rank, of LoRAs with these alphas."""
    made = {}
    for rank, alpha in alphas.items():
        made[rank] = models.load_tiny_lm("gpt2")
        torch.manual_seed(0)
        lora.add_lora_(made[rank], rank, alpha)
    teach(made.values(), repeat(rate), repeat(0))
    return {rank: perplexity(model, aside) for rank, model in made.items()}


# %% rtol=0.05
ranks, rate = (1, 8, 128), best["LoRA"]
plain = ranked(dict.fromkeys(ranks, 16), rate)
first = 16 / math.sqrt(8)
root = ranked({rank: lora.rank_stabilized_alpha(first, rank) for rank in ranks}, rate)
again = ranked({128: 16}, 2 * rate)[128]
lines = {"alpha / r": plain, "alpha / √r": root}
ax = plots.curves(lines, "rank", "perplexity on validation passages")
print(f"rank 128: by r {plain[128]:.1f}, at twice the rate {again:.1f}; by √r {root[128]:.1f}")
compare(guess, 100 * (1 - plain[128] / plain[8]), "%")
assert root[128] < plain[128] < plain[1] and again < plain[128]

# %% [markdown]
# *Figure: divided by the root, more rank goes on to help; divided by the rank, it soon stops.*
#
# <details><summary>The figure in words</summary>
#
# Perplexity on validation passages over rank 1, 8 and 128. At rank 1 alpha / r stands at 82 and alpha / √r at 85. They meet at 73 at rank 8. Then alpha / r falls only to 72, and alpha / √r to 68.
#
# </details>
#
# Twice the rate closes over half of the gap for the plain rule, with one seed: so much of the root is a rule for the *rate*, for larger ranks. At rank 1 it is the worse of the two.
#
# ## 6 · Merging into a quantized base, or keeping it beside
#
# Merged into floats (chapter 02), an adapter changes no answer and costs no time. A 4-bit base has no floats to add to: $W + \frac{\alpha}{r}BA$ must be rounded *again*, and the update is small, often smaller than a step of the grid. `merge_drift` measures how far rounding moves the merged matrix, as a share of what training had changed.
#
# 0: rounding changes nothing. 1: it moves the matrix as far as training did.
#
# **Predict:** how large is that share with NF4?

# %%
guess = ...  # a share, with NF4
forms = {
    "NF4": (quantization.codebook_, lambda w: quantization.nf4(w).read_back()),
    "int8": (
        lambda model: quantization.quantize_(model, 8),
        lambda w: quantization.read_back(*quantization.round_to_nearest(w, 8)),
    ),
}


# %%
def merged_forms(beside, store_):
    """Return a model with its adapter beside, and merged into two kinds of floats."""
    onto_floats = prepared("LoRA")  # the base as it was before it was stored
    adapter = {name: t for name, t in beside.state_dict().items() if "lora_" in name}
    onto_floats.load_state_dict(adapter, strict=False)
    found = {"beside": beside}
    for base, model in (("grid", copy.deepcopy(beside)), ("original", onto_floats)):
        if base == "grid":
            quantization.dequantize_(model)
        lora.merge_lora_(model)
        found[base], found[f"{base}, stored"] = model, copy.deepcopy(model)
        store_(found[f"{base}, stored"])
    return found


# %% [markdown]
# Three seeds of each. Beside NF4 they were trained in section 2, beside int8 they are trained now. Then the adapter is merged into floats in two ways: into what the stored base reads back as, its `grid`, and into the `original` floats; and each of the two is `stored` again in few bits.

# %%
trained = {"NF4": found["QLoRA"], "int8": [models.load_tiny_lm("gpt2") for _ in range(3)]}
for seed, model in enumerate(trained["int8"]):
    quantization.quantize_(model, 8)
    torch.manual_seed(seed)
    lora.add_lora_(model, rank=8)
teach(trained["int8"], repeat(best["LoRA"]), range(3))

# %% rtol=0.1
drifts = {}
for name, (store_, rounding) in forms.items():
    three = [merged_forms(model, store_) for model in trained[name]]
    told = {form: [perplexity(one[form]) for one in three] for form in three[0]}
    moved = [lora.merge_drift(model, rounding) for model in trained[name]]
    told["drift"] = drifts[name] = [statistics.median(layers.values()) for layers in moved]
    for form, row in told.items():
        print(f"{name:4} {form:16}", *(f"{one:6.2f}" for one in row))
    assert torch.allclose(*map(torch.tensor, (told["beside"], told["grid"])), rtol=1e-3)
    worse = [a / b for a, b in zip(told["grid, stored"], told["beside"], strict=True)]
    assert all(ratio > 1.03 for ratio in worse) == (name == "NF4")
compare(guess, sum(drifts["NF4"]) / 3)

# %% [markdown]
# Into **8 bits** a merge is harmless. Into **4 bits** of the same base, rounding moves the matrix four fifths as far as training did, and the model is worse by 7 to 10 % with each seed. Part of the update is *undone*: the base lies on the grid, and rounding pulls its weights back to where they were. Merged into the *original* floats and then rounded, the same adapter loses only 2 to 3 %, though it was trained around the rounding errors. (LoftQ, Li et al. 2023, arXiv 2310.08659, starts the adapter from those errors.)
#
# `merge_lora_` refuses every quantized base, to be safe. Keep the adapter beside it; or, if you must merge, keep the original floats and round once.
#
# ## ★ 7 · Many adapters, one model
#
# Ten jobs, ten fine-tuned copies? With adapters it is *one* base and ten small files. `set_adapter_` switches between them. And a batch may hold requests of different jobs: `adapter_rows` gives each row of a batch its own adapter, of any kind, in one pass. (Untrained adapters change nothing, so they get random numbers here. In `add_ia3_` the first list names layers whose answers are scaled, the second those whose inputs are.)

# %%
ids = torch.arange(1000, 1512).view(16, 32)
batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
server = models.load_minilm()
lora.add_lora_(server, rank=8, adapter="reviews")
lora.add_ia3_(server, ["key", "value"], r".*layer\.\d\.output\.dense", adapter="sections")
torch.manual_seed(0)
for name, parameter in server.named_parameters():
    if "lora_b" in name or "ia3_l" in name:
        parameter.data += 0.02 * torch.randn_like(parameter)
names = ["reviews", "sections", None, "reviews"]
four = {key: value[:4] for key, value in batch.items()}
with torch.no_grad(), lora.adapter_rows(server, names):
    together = server(**four).last_hidden_state

# %%
with torch.no_grad():
    for row, name in enumerate(names):
        lora.set_adapter_(server, name)
        alone = server(**{key: value[row : row + 1] for key, value in four.items()})
        assert torch.allclose(together[row], alone.last_hidden_state[0], atol=1e-5)
        lora.set_adapter_(server, None)
        base = server(**{key: value[row : row + 1] for key, value in four.items()})
        assert torch.allclose(together[row], base.last_hidden_state[0], atol=0.01) == (not name)

# %% [markdown]
# Each row answers as if it were alone with its adapter, and otherwise than the base alone: nothing leaks from one job into another. (`None` is the base.) What does it cost? Sixteen texts, in turn for one and for the other adapter: in one batch by rows, sorted into a batch for each job, or text by text with a switch before each.
#
# **Predict:** how many times as fast as text by text is one batch by rows?

# %%
guess = ...  # times
names = ["reviews", "sections"] * 8


def by_rows():
    with lora.adapter_rows(server, names):
        return server(**batch)


def sorted_by_job(size):
    for name in ("reviews", "sections") * (8 // size):
        lora.set_adapter_(server, name)
        server(**{key: value[:size] for key, value in batch.items()})


# %% clock=true
calls = {
    "by rows": by_rows,
    "sorted by job": lambda: sorted_by_job(8),
    "one by one": lambda: sorted_by_job(1),
}
with torch.no_grad():
    clocks = {name: c.median for name, c in metrics.latencies(calls, repeats=3).items()}
print(*(f"{name:15} {1e3 * seconds:4.0f} ms" for name, seconds in clocks.items()), sep="\n")
compare(guess, clocks["one by one"] / clocks["by rows"], "times")

# %% [markdown]
# Most of the gain is the batch's: one pass uses the processor better than sixteen small ones, and rows take some of it back. Sorted by job, two adapters are faster still. Rows are for requests that cannot be sorted: many adapters, with a text or two for each.
#
# ## 8 · PEFT's files
#
# PEFT is the library of the field for adapters. Ours are written in its files: a description and the numbers. Here the DoRA of section 2 is saved, and loaded by PEFT. The way back is `load_lora_`. (The course's tests hold our LoRA, rsLoRA, DoRA, IA3 and prompts against PEFT: from the same start the same answers and gradients.)

# %%
ours = found["DoRA"][0]
path = lora.save_lora(ours, folder / "passages")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of a name that transformers will drop
    from peft import PeftModel

    theirs = PeftModel.from_pretrained(models.load_tiny_lm("gpt2"), path).eval()
print(sorted(file.name for file in path.iterdir()))
with torch.no_grad():
    answers = [model(input_ids=unseen[None, :64]).logits for model in (ours, theirs)]
print("the same answers:", torch.allclose(*answers, atol=1e-3))
assert torch.allclose(*answers, atol=1e-3)

# %% [markdown]
# ## 9 · The ledger
#
# Ten jobs on the tiny GPT-2. Stored: the base, and ten times what a job adds to it. (Full training stores ten models.) Trained: numbers for one job. Latency: a text of 128 tokens, with the job's adapter beside the base. Quality: the Factbook's perplexity, untrained = 1 (lower is better), the mean of three seeds.


# %%
def stored(way):
    """Return the bytes of one job's own file, and of the base."""
    model, base = found[way][0], metrics.size_in_bytes(models.load_tiny_lm("gpt2"))
    if way == "full":
        return base, 0
    if way == "QLoRA":
        base = metrics.size_in_bytes(model) - 4 * lora.counts(model).added
    save = {"biases": lora.save_biases, "prompt": lora.save_prompt}.get(way, lora.save_lora)
    path = save(model, folder / f"job {way}")
    files = [path] if path.is_file() else path.iterdir()
    return sum(file.stat().st_size for file in files), base


# %% clock=true rtol=0.05
ids = unseen[None, :128]
calls = {way: lambda model=found[way][0]: model(input_ids=ids) for way in ways}
clocks = metrics.latencies({way: torch.no_grad()(call) for way, call in calls.items()}, repeats=5)
ledger = metrics.Ledger("perplexity, untrained = 1")
for way in ways:
    job, base = stored(way)
    trained = lora.counts(found[way][0]).trained
    ledger.add(way, base + 10 * job, sum(quality[way]) / 3 / before, trained, clocks[way])
print(ledger)
ax = plots.ledger(ledger)
assert ledger["LoRA"].stored < 0.2 * ledger["full"].stored

# %% [markdown]
# *Figure: ten fully trained models are the best and the largest; ten LoRAs beside one base take a sixth of that.*
#
# <details><summary>The figure in words</summary>
#
# Perplexity, untrained = 1, over megabytes for ten jobs. Full at 45 MB and 0.49, lowest. LoRA and DoRA near 7 MB, QLoRA at 4.5 MB, all between 0.56 and 0.58. IA3 and biases near 4.6 MB and 0.7. The prompt near 4.6 MB and 0.9, highest.
#
# </details>
#
# Roughly, the more numbers a way trains, the better it did here. DoRA is slow beside its base, for it builds the whole changed matrix in each call, and QLoRA makes floats of codes. The times are those of adapters beside their base; LoRA, DoRA and IA3 cost none once they are merged, QLoRA cannot be without loss. On a base as small as this, ten LoRAs weigh more than half of the base itself; with a base of billions they would not be seen.
#
# ## **Spot the bug**
#
# Somebody merges a LoRA by hand, to get rid of its cost. The code runs. What is wrong, and which test would show it? Find it before you read on.


# %%
def merge_by_hand(layer):
    """Return the merged matrix of a LoRA layer. (This is the version with the bug.)"""
    return layer.base.weight + layer.lora_b @ layer.lora_a


# %%
torch.manual_seed(0)
layer = lora.LoRALinear(nn.Linear(16, 8), 2, 16.0)
layer.lora_b.data.normal_()
x = torch.randn(5, 16)
by_hand = x @ merge_by_hand(layer).T + layer.base.bias
print(f"apart: {((by_hand - layer(x)).norm() / layer(x).norm()).item():.2f} of the answer")

# %% [markdown]
# <details><summary>Answer</summary>
#
# The factor $\alpha / r$ is missing: here it is 8, so an eighth of what was learned is merged. The model is then a little trained, and writes well; nobody sees how well it *could*. The test: the merged layer must answer as the layer with its adapter beside it, on any input.
#
# </details>

# %%
mended = layer.base.weight + layer.alpha / len(layer.lora_a) * layer.lora_b @ layer.lora_a
assert torch.allclose(x @ mended.T + layer.base.bias, layer(x), atol=1e-5)
assert not torch.allclose(by_hand, layer(x), atol=0.1)

# %% [markdown]
# ## What papers say, and what we measured
#
# | paper | says | we measured | same order? |
# |---|---|---|---|
# | Hu et al. 2021, 2106.09685 | LoRA is level with full training of GPT-3 | perplexity 11 to 18 % above full training, after 20 steps of a tiny model | no |
# | Liu et al. 2024, 2402.09353 (DoRA) | better than LoRA, most at low rank | 1 % with each of three seeds, at rank 8 | yes, by little; low rank not tried |
# | Liu et al. 2022, 2205.05638 (IA3) | better than LoRA with few examples, on a model of billions | far behind LoRA | no, and not the same setting |
# | Lester et al. 2021, 2104.08691 | prompts reach full training only from 10 billion parameters on | they gain least here | consistent; size not tested |
# | Dettmers et al. 2023, 2305.14314 (QLoRA) | NF4 below LoRA loses nothing | 1 to 2 % | nearly |
# | Kalajdzievski 2023, 2312.03732 | divided by the root, more rank helps | so it was, with one rate | yes |
#
# ## Summary
#
# - **Five ways**: a product beside the matrix (LoRA), with lengths of its own (DoRA), a factor for each row or input (IA3), biases, trained words.
# - **Trained** is not **held**: LoRA of MiniLM trains 1.5 % and holds two fifths; gradients and Adam go, weights and kept inputs stay.
# - **rsLoRA** is a choice of alpha. With the rate of rank 8 it was ahead at rank 128, and behind at rank 1; a rate of its own made up for most of that.
# - **Into 8 bits** an adapter can be merged. In 4 bits keep it beside, or merge into the original floats and round once.
# - **Ten jobs** are one base and ten small files, even within one batch.
# - **Forgetting** came with all of them; what was trained beside the base can be taken off.
#
# ## Further reading
#
# - Hu et al. 2021, *LoRA* (arXiv 2106.09685): section 7, what the update looks like.
# - Dettmers et al. 2023, *QLoRA* (arXiv 2305.14314): section 3.
# - Hayou et al. 2024, *LoRA+* (arXiv 2402.12354): a larger rate for $B$; Meng et al. 2024, *PiSSA* (arXiv 2404.02948): a start from the largest singular values. We tried neither.
# - Sheng et al. 2023, *S-LoRA* (arXiv 2311.03285): thousands of adapters in one server.
# - In this repository: `lightcourse/lora/`.
