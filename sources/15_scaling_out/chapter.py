# %% [markdown]
# # 15 · Scaling out — two processes that are there, and twenty billion weights that are not
#
# **You will be able to**
#
# - train one model in several processes, and prove that they do what one would do with the joint batch;
# - count what they send, and compare it with the formula;
# - kill a process in the middle, and go on without a loss;
# - share out weights as well as rows (FSDP), and tell what that keeps and sends;
# - compress a checkpoint that is larger than your memory;
# - say from a few numbers of a cluster when data, tensor or pipeline parallelism pays.
#
# **You need:** chapters 02, 04 and 11. **Time:** 56 minutes of reading, 25 for the parts marked ★ (the fast path). The whole notebook runs in about a minute.
#
# Below each **Predict**, write your guess into the next cell, in place of the dots.

# %%
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# %%
import matplotlib.pyplot as plt
import torch
from transformers import AutoModelForCausalLM

import lightcourse
from lightcourse import data, deployment, files, layers, metrics, models, streaming, training
from lightcourse.deployment import Cluster, Step
from lightcourse.guessing import compare

# %% [markdown]
# A real cluster has many machines. This notebook has two processes on one of them, with one thread each. What they do is what machines do: they share no memory, and talk through a network (here the loopback inside the machine, by torch's engine **gloo**). The student, our smallest language model, shall learn to write like the Factbook.

# %%
lightcourse.setup(threads=1)
temporary = tempfile.TemporaryDirectory()  # gone when the notebook ends
room = Path(temporary.name)
factbook, tokenizer = data.load_factbook(), models.load_tiny_tokenizer()
texts = {name: " ".join(factbook[name]["text"][:600]) for name in ("train", "test")}
passages = {name: torch.tensor(tokenizer(text)["input_ids"]) for name, text in texts.items()}
tokens = passages["train"]
files.save_tensors({"tokens": tokens}, room / "tokens.safetensors")
batches = data.token_batches(tokens, 128, batch_size=16)
recipe = training.Recipe(12, 1e-3, evaluate_every=4)

# %% [markdown]
# ## ★ 1 · Rows shared out: data parallelism
#
# Each process holds the whole model, and half of the rows of each batch. It computes a gradient from its rows; then all gradients are averaged; then each process makes the same step. torch sends the weights of process 0 to all once, at the start; from then on equal gradients keep them equal.
#
# torch starts such processes by **torchrun**, which runs one script in each of them. Below is a script. `rank` is a process's number, `ranks` how many there are. `rank_batches` gives each process its rows; `shared_loss` weighs them, should one get fewer than the other. Nothing else is new: the loop is chapter 02's `train`.

# %%
begin = """
import json, os, sys, time
from pathlib import Path
import torch
from torch import distributed
from lightcourse import data, files, models, training

folder, killed_at = Path(sys.argv[1]), int(sys.argv[2])
distributed.init_process_group("gloo")
rank, ranks = distributed.get_rank(), distributed.get_world_size()
tokens = files.load_tensors(folder / "tokens.safetensors")[0]["tokens"]
own = data.rank_batches(data.token_batches(tokens, 128, batch_size=16), rank, ranks)
recipe = training.Recipe(12, 1e-3, evaluate_every=4)
"""

# %% [markdown]
# `DistributedDataParallel`, torch's own, wraps the model and averages gradients while the backward pass runs. `reduce_by_ring_` lets it do so by the course's **ring**: each process cuts its gradient into as many pieces as there are processes, and sends only to its neighbour. Once around, pieces are added up; a second time around, the sums are handed to all (an **all-reduce**; you weigh it in the first exercise). Ours counts bytes, and waits; torch's own goes on computing while it sends. One backward pass comes before training, so that we can look at a gradient.

# %%
wrap = """
student = models.load_tiny_lm("student")
model = torch.nn.parallel.DistributedDataParallel(student)
traffic = training.reduce_by_ring_(model)
training.shared_loss()(model, next(own(0, 0))).backward()
gradients = {name: p.grad.clone() for name, p in student.named_parameters()}
ends = []

def kill(_, step):
    ends.append(time.perf_counter())
    if step == killed_at and rank == 1:
        os.kill(os.getpid(), 9)
"""

# %%
run = """
training.train(
    model, own, recipe, training.shared_loss(), checkpoint=folder / "run.safetensors",
    progress=False, after_step=kill,
)
if rank == 0:
    files.save_tensors(gradients, folder / "gradients.safetensors")
    files.save_tensors(dict(student.named_parameters()), folder / "model.safetensors")
    (folder / "told.json").write_text(json.dumps(vars(traffic) | {"ends": ends}))
distributed.destroy_process_group()
"""
script = room / "data_parallel.py"
written = script.write_text(begin + wrap + run)

# %% [markdown]
# `torchrun` is called from a cell here; on a command line it is `torchrun --standalone --nproc-per-node 2 data_parallel.py …`. Process 1 is **killed** after step 7 (signal 9), as when memory runs out.


# %%
def torchrun(script, *arguments):
    """Run a script of the room in two processes; return whether both ended well."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["--local-addr=127.0.0.1", room / script, room, *arguments]
    place = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    with open(room / "errors.txt", "w") as errors:
        done = subprocess.run(list(map(str, command)), env=place, stdout=errors, stderr=errors)
    return done.returncode == 0


print("ended well:", torchrun("data_parallel.py", 7))
print("in the room:", *sorted(path.name for path in room.glob("*.safetensors")))

# %% [markdown]
# One process died; torchrun saw it and ended the other. (On one machine that one fails by itself, since its connection is closed. Where a whole machine loses power, nobody closes it, and the others wait for a timeout, half an hour as a rule.) What is left is the checkpoint of step 4: weights, the optimizer's moments, the place in the data.
#
# ## ★ 2 · Resumed, and compared with one process
#
# The same command again goes on from step 4. Meanwhile this notebook, alone, trains on the *joint* batches.
#
# **Predict:** how far apart are the weights of the killed, resumed pair and of the one process, relative to a step's length: equal to the last bit, to rounding, or not at all?

# %%
guess = ...  # "equal", "to rounding" or "not at all"
print("ended well:", torchrun("data_parallel.py", 0))

# %%
told = json.loads((room / "told.json").read_text())
alone = models.load_tiny_lm("student")
training.model_loss(alone, next(batches(0, 0))).backward()
joint = torch.cat([p.grad.flatten() for p in alone.parameters()])
ends = []


def note(*_):
    ends.append(time.perf_counter())


history = training.train(alone, batches, recipe, progress=False, after_step=note)

# %% [markdown]
# Now the gradients of the first batch, and the weights after training, are held against each other.


# %%
def weights(name):
    """Return what a script saved as one long vector, in the order of the student's names."""
    tensors, _ = files.load_tensors(room / f"{name}.safetensors")
    return torch.cat([tensors[key].flatten() for key, _ in alone.named_parameters()])


def flat(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


pair, one, fresh = weights("model"), flat(alone), flat(models.load_tiny_lm("student"))
assert (weights("gradients") - joint).norm() < 1e-5 * joint.norm()
apart, moved = (pair - one).abs(), (one - fresh).abs()
assert apart.norm() < 1e-3 * moved.norm() and apart.median() < 1e-7 and apart.max() > 0
compare(guess, "to rounding")

# %% [markdown]
# The averaged gradient of the two halves is that of the joint batch, and so two processes are one process with more hands. Not to the last bit: sums are taken in another order. Half of the weights differ by less than 1e-7, and all together by less than a thousandth of the way that they moved. (AdamW divides by the gradient's own size, so where a gradient is nearly 0, rounding decides its direction: a few weights differ by a part of a step. A pair that was never killed *does* end with the same bits as the resumed one; `tests/training` proves it, for a process killed at any step.)
#
# ### What went through the network
#
# To average $S$ bytes, $N$ processes send at least $2\,(N-1)\,S$ bytes together, so the busiest at least $2\,\frac{N-1}{N}\,S$. In a ring all are equally busy, and each sends just that (Patarasuk and Yuan 2009, doi 10.1016/j.jpdc.2008.09.002).
#
# **Predict:** the student has 4.46 MB of gradients. How many MB does each process send, for 8 steps and the one pass before?

# %%
guess = ...  # MB
size = metrics.size_in_bytes(alone)
print(f"gradients  {size:11,} bytes, {told['reduced'] // size} times")
print(f"sent       {told['sent']:11,} bytes")
formula = 9 * deployment.ring_bytes(2, size)
print(f"by formula {formula:11,.0f} bytes")
assert told["sent"] == formula
compare(guess, told["sent"] / 1e6, "MB", how="computed")

# %% [markdown]
# With a thousand processes each would send twice the gradient, and no more. After the start no weights are sent, and never a text. (The counter sits in the ring: it counts gradients, not the start.)
#
# ### And was it faster?

# %% clock=true
rows = 16 * 128
steps = [[b - a for a, b in itertools.pairwise(each)] for each in (ends, told["ends"])]
step, halves = map(statistics.median, steps)  # of each kind, in seconds
print(f"one process:   {rows / step:6,.0f} tokens/s")
print(f"two processes: {rows / halves:6,.0f} tokens/s")
print(f"that is {step / halves:.2f} times as fast")

# %% clock=true
torch.set_num_threads(2)
start = time.perf_counter()
training.train(alone, batches, training.Recipe(4, 1e-3), progress=False)
print(f"one process with two threads: {4 * rows / (time.perf_counter() - start):6,.0f} tokens/s")
torch.set_num_threads(1)

# %% [markdown]
# Not twice: there is sending, there are parts that both do in full (the optimizer's step), and two busy cores share one memory. On one machine the fair rival is *threads* in one process, the third line. Processes are for what threads cannot do: more than one machine. (If two are no faster at all on yours, something else may be running; or it is the bug at this chapter's end.)
#
# ## 3 · Weights shared out: FSDP, and accelerate
#
# Data parallelism keeps everything in each process: weights, gradients, moments. ZeRO (Rajbhandari et al. 2019, arXiv 1910.02054) shares that out, in three stages:
#
# | stage | shared out | bytes for each of $P$ weights, float32 | sent |
# |---|---|---|---|
# | none | – | 16 | 2 ring halves |
# | 1 | moments | 8 + 8/N | the same |
# | 2 | and gradients | 4 + 12/N | the same |
# | 3, **FSDP** | and weights | 16/N, and one layer gathered | half as much again |
#
# At stage 3 a layer's weights are gathered from all before it computes, and dropped again afterwards.
#
# **accelerate**, of Hugging Face, changes a script in a few places and starts what it is told to: here, data parallelism. Both in one script, to save a start:

# %%
sharded = """
from torch.distributed.fsdp import fully_shard
student = models.load_tiny_lm("student")
mesh = distributed.init_device_mesh("cpu", (ranks,))
for part in [*student.model.layers, student]:
    fully_shard(part, mesh=mesh, reshard_after_forward=True)
training.train(student, own, recipe, training.shared_loss(), progress=False)
parts = [p.to_local() for p in student.parameters()]
kept = sum(part.nbytes for part in parts)
# All processes must call this: it sends. Below "if rank == 0" it would wait for ever.
whole = {name: p.full_tensor().detach() for name, p in student.named_parameters()}
if rank == 0:
    files.save_tensors(whole, folder / "sharded.safetensors")
"""

# %%
accelerated = """
from accelerate import Accelerator
accelerator = Accelerator(cpu=True)
student = models.load_tiny_lm("student")
model = accelerator.prepare(student)
training.train(model, own, recipe, training.shared_loss(), progress=False)
kind = f"{type(model).__name__}, {accelerator.num_processes} processes"
if rank == 0:
    files.save_tensors(dict(student.named_parameters()), folder / "accelerated.safetensors")
"""

# %% [markdown]
# And a clock for the network, which section 6 will need: how long does the ring take for a few bytes, and for a whole gradient?

# %%
clocked = """
def clock(numbers):
    values, found = torch.zeros(numbers), []
    for _ in range(15):
        distributed.barrier()
        start = time.perf_counter()
        training.ring_all_reduce_(values)
        found.append(time.perf_counter() - start)
    return sorted(found)[7]

told = {"kept": kept, "kind": kind, "short": clock(2), "long": clock(1_115_264)}
if rank == 0:
    (folder / "others.json").write_text(json.dumps(told))
distributed.destroy_process_group()
"""

# %%
script = room / "others.py"
written = script.write_text(begin + sharded + accelerated + clocked)
assert torchrun("others.py", 0)
others = json.loads((room / "others.json").read_text())
print("accelerate made:", others["kind"])
print(f"weights in each process: {size:,} bytes, sharded {others['kept']:,}")
for name in ("sharded", "accelerated"):
    assert (weights(name) - one).norm() < 1e-3 * moved.norm()

# %% [markdown]
# Sharded, each process keeps half of the weights, and of gradients and moments too (`train` never noticed). The weights after training are those of one process, up to rounding, in both ways.
#
# Look at the first line, always: does a tool do what you asked for? In accelerate 1.15 with torch 2.13, `accelerate launch --cpu --num_processes 2` starts *one* process and says nothing, and accelerate's FSDP plugin, on processors, silently gives plain data parallelism.
#
# ## 4 · A checkpoint larger than your memory
#
# To *compress*, no process needs the whole model. `lightcourse compress CHECKPOINT OUT --bits 4 --group-size 128` reads the layers of any safetensors checkpoint a few rows at a time, rounds them and writes shards. Under torchrun, each process takes shards in turn; they need one file system and no network. Each shard is written under another name, with a hash of its content in its header, and gets its own name only when it is whole. So a job that was killed keeps what has its name, makes the rest, and verifies all hashes at the end.
#
# Here the teacher's checkpoint is compressed in a process of its own, which is killed when two shards are done.

# %%
checkpoint, folder = room / "checkpoint", room / "killed"
models.load_tiny_lm("teacher").save_pretrained(checkpoint, max_shard_size="2MB")


def stamps():
    """Return when each shard in the folder was written."""
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("model-*")}


# %%
job = "from lightcourse import streaming; streaming.compress({!r}, {!r}, shard_bytes=500_000)"
process = subprocess.Popen([sys.executable, "-c", job.format(str(checkpoint), str(folder))])
while len(list(folder.glob("*.safetensors"))) < 2 and process.poll() is None:
    time.sleep(0.005)
process.kill()
process.wait()
before = stamps()

# %% [markdown]
# Then it is called again, and beside it a job that nobody kills.

# %%
for name in ("killed", "quiet"):
    report = streaming.compress(checkpoint, room / name, shard_bytes=500_000)
print(report)

# %% atol=0.02
made = {path.name: files.sha256(path) for path in sorted((room / "quiet").glob("model-*"))}
assert made == {path.name: files.sha256(path) for path in (room / "killed").glob("model-*")}
print(len(made), "shards, the same bytes in both folders")
assert before and before.items() <= stamps().items()  # what was whole stays as it was
loaded = AutoModelForCausalLM.from_pretrained(room / "killed")
batch = next(batches(0, 0))
with torch.no_grad():
    loss = [m(**batch).loss.item() for m in (loaded, models.load_tiny_lm("teacher"))]
print(f"a batch's loss: {loss[0]:.3f}, before {loss[1]:.3f}")
assert abs(loss[0] - loss[1]) < 0.1

# %% [markdown]
# That little model would have fitted anyhow. `benchmarks/streaming.py` takes two layers in the real size of GPT-NeoX-20B, 1.84 GB, in a process that may hold 1 GiB: 0.12 GB/s at 8 bits and 0.04 at 4 (which looks for the best scale of each group), where the disk alone reads 1.9 GB/s (Intel Xeon, one thread). It adds some 60 MB to what Python and torch take. So arithmetic is the limit and not the disk, and more processes help: until the disk is.
#
# ## ★ 5 · Twenty billion weights
#
# GPT-NeoX-20B (Black et al. 2022, arXiv 2204.06745) on the device **meta**: all shapes and no values, so it needs no memory. (Its table of words stays in 16 bits in all rows.) From shapes follow bytes: what is stored, and what is read to write one token after 2,048 others (chapter 13).
#
# **Predict:** how many GB does it store in 4 bits?

# %%
guess = ...  # GB
neox = deployment.gpt_neox_20b()
print(f"{sum(p.numel() for p in neox.parameters()):,} weights")
for method in deployment.METHODS:
    stored = deployment.stored_bytes(neox, method) / 1e9
    read = deployment.token_bytes(neox, method, context=2_048) / 1e9
    print(f"{method.name:27} {stored:5.1f} GB stored, {read:5.1f} GB read for a token")
four = deployment.METHODS[5]
assert four.name == "4 bits, groups of 128"
compare(guess, deployment.stored_bytes(neox, four) / 1e9, "GB", how="computed")

# %% [markdown]
# An ordinary laptop's memory reads some 50 GB in a second. So one token in floats of 16 bits takes it 0.85 s, *if* they fit, and in 4 bits 0.25 s.
#
# To **train** them is another matter. AdamW in float32 keeps 16 bytes for each weight that learns: itself, its gradient, two moments. (In mixed precision it is 16, too: weight and gradient in 16 bits, and weight and moments in 32.) An adapter (chapter 11) lets few of them learn, upon a base that need not be floats.

# %%
every = sum(p.numel() for p in neox.parameters())
adapter = sum(8 * sum(layers.weight_matrix(m).shape) for m in layers.linear_layers(neox).values())
half, quarter = (deployment.stored_bytes(neox, deployment.METHODS[k]) for k in (1, 5))
needs = {"all of it": 16 * every, "LoRA of rank 8": half + 16 * adapter}
needs["QLoRA of rank 8"] = quarter + 16 * adapter
for name, need in needs.items():
    print(f"{name:15} {need / 1e9:5.1f} GB, and the activations")
print(f"those of 65,536 tokens: {34 * 65_536 * 6_144 * 44 / 1e9:.1f} GB")

# %% [markdown]
# Activations are what the gradient needs of each layer's insides: some 34 bytes for each token and unit of width (Korthikanti et al. 2022, arXiv 2205.05198). Nobody keeps 602 GB. One keeps what goes from layer to layer and computes the rest again, for a third more work; or takes the batch in parts and adds up their gradients.
#
# ## 6 · A cluster on paper
#
# Will more machines pay? A few numbers decide: how many operations a second a machine computes, how many bytes a second its link carries, how long the first byte takes, and how much it holds. Three ways to share a step out:
#
# - **data**: each has all weights and an $N$-th of the rows. It sends gradients, whatever the batch.
# - **tensors** (Shoeybi et al. 2019, arXiv 1909.08053): each has an $N$-th of every matrix. It sends activations, four times a layer (GPT-NeoX, which computes attention and the two matrices side by side, needs half of that).
# - **pipeline** (Huang et al. 2018, arXiv 1811.06965): each has an $N$-th of the layers. It sends activations to its neighbour, and their gradients back. The batch goes in pieces, and at its beginning and end machines wait (dots):
#
# ```
# machine 1   1 2 3 4 . . .
# machine 2   . 1 2 3 4 . .
# machine 3   . . 1 2 3 4 .
# machine 4   . . . 1 2 3 4
# ```
#
# First the formulas are held against the two processes that are really there. Their link was clocked above; the work of a step is about six operations for each weight and token.
#
# **Predict:** by how many percent of the time is the real step longer than the foretold one?

# %% clock=true
guess = ...  # percent
latency = others["short"] / 2
bandwidth = size / 2 / (others["long"] / 2 - latency)
work = 6 * (size / 4) * rows
here = Cluster(2, bandwidth, latency, work / step, 8e9)
foretold, real = deployment.data_parallel_seconds(here, work, size), halves
print(f"link: {latency * 1e6:.0f} µs, then {bandwidth / 1e9:.2f} GB/s")
print(f"a step: foretold {1000 * foretold:.0f} ms, real {1000 * real:.0f} ms")
print(f"of it the ring: {1000 * deployment.all_reduce_seconds(here, size):.0f} ms")
# The machine may be busy with something else: told, and not asserted tightly.
assert 0.1 < foretold / real < 5
compare(guess, 100 * (1 - foretold / real), "% of the time")

# %% [markdown]
# The forecast is half of the lonely step, and the ring. It forgets what both do in full (the optimizer's step), and what they share: memory and caches of one chip. It foretells what there is to gain, not what will be gained.
#
# Now machines that are not here (a machine is a GPU of 80 GB with 100 trillion operations a second), on three kinds of link: as inside one server (300 GB/s, 5 µs), a good network (12.5 GB/s, 10 µs), an office's (0.125 GB/s, 100 µs). The job is a step of GPT-NeoX-20B on texts of 128 tokens, in 32 pieces where it is a pipeline: with 65,536 tokens or with 4,096; with all weights learning, or only an adapter on 4 bits (QLoRA, chapter 11).


# %%
def job(tokens, operations, gradients, held):
    """Return what a step asks of machines."""
    return Step(operations * every * tokens, 44, gradients, 2 * 6_144 * tokens, 32, held)


large, few = (job(tokens, 6, 2 * every, 16 * every) for tokens in (65_536, 4_096))
# Frozen weights want no gradient: four operations for each, and not six.
qlora = job(65_536, 4, 4 * adapter, needs["QLoRA of rank 8"])
links = {"one server": (3e11, 5e-6), "a good network": (12.5e9, 1e-5)}
links |= {"an office's": (0.125e9, 1e-4)}


def ways(link, nodes, step):
    return deployment.seconds_by_way(Cluster(nodes, *links[link], 1e14, 80e9), step)


# %% [markdown]
# **Predict:** with 8 machines and 65,536 tokens, which way suffers most when the link is 24 times slower, a good network instead of one server: sharded data, tensors or pipeline?

# %%
guess = ...  # one of the three
shown = ("sharded data", "tensors", "pipeline")
for count, step_of in ((65_536, large), (4_096, few)):
    for link in links:
        told = ways(link, 8, step_of)
        print(f"{count:6} tokens, {link:15}", *(f"{way} {told[way]:6.1f} s" for way in shown))
print(f"QLoRA, 65,536 tokens: alone {ways(link, 8, qlora)['alone']:.1f} s, data on", end=" ")
print(", ".join(f"{link} {ways(link, 8, qlora)['data']:.1f} s" for link in links))
near, far = (ways(link, 8, large) for link in ("one server", "a good network"))
compare(guess, max(shown, key=lambda way: far[way] / near[way]), how="computed")

# %%
figure, axes = plt.subplots(1, 3, figsize=(9.5, 3.8), sharey=True, layout="constrained")
counts = (8, 16, 32)
for ax, link in zip(axes, links, strict=True):
    for way in shown:
        seconds = [ways(link, nodes, large)[way] for nodes in counts]
        line = ax.plot(counts, seconds, "o-", label=way)
    seconds = [ways(link, nodes, qlora)["data"] for nodes in counts]
    line = ax.plot(counts, seconds, "--", color="#888888", label="data, QLoRA")
    line = ax.plot(counts, [large.operations / 1e14 / n for n in counts], "k:", label="ideal")
    ax.set(xscale="log", yscale="log", title=link, xlabel="machines")
    ticks = ax.set_xticks(counts, counts)
    ax.minorticks_off()
label = axes[0].set_ylabel("seconds of a step")
lines = axes[0].get_legend_handles_labels()
key = figure.legend(*lines, loc="outside lower center", ncols=5, frameon=False)

# %% [markdown]
# *Figure: seconds of a step with 65,536 tokens. As inside one server all ways shrink with the machines, near the ideal (dotted: nothing sent, nobody idle); on slow links only the pipeline and the adapter stand.*
#
# <details><summary>The figure in words</summary>
#
# Three panels, seconds over 8 to 32 machines, both axes logarithmic. One server: all three ways within a half of the dotted line, from 10 or 12 to 3 or 5. A good network: pipeline from 12 to 5, sharded data from 19 to 12, tensors from 30 to 25. An office's: pipeline between 26 and 30, sharded data near 900, tensors near 2,000. The dashed line, another job (data, with QLoRA): 7 to 2 in the first two panels, 9 to 4 in the third.
#
# </details>
#
# - *Alone* and plain *data* are missing for all weights: 329 GB do not fit into one machine.
# - **Sharded data** sends weights and gradients, whatever the batch: it wants large batches, and fast links.
# - **Tensors** send activations, which grow with the batch: they are for small batches on the fastest links.
# - **A pipeline** sends least, so it stands slow networks best. Its price is idle time: with 32 machines and 32 pieces, each waits half of the time.
# - **An adapter** changes the question. Its gradients are small, and the base fits into each machine: plain data parallelism works, even in an office.
#
# Differences of less than a third are a draw: these are formulas, in which nobody sends while computing, no machine is slower than the others, and 44 layers can be cut into 32 equal parts. And real runs multiply the ways. GPT-NeoX-20B was trained on 96 GPUs: 2 for tensors, on the fastest links, times 4 for a pipeline, times 12 for data.
#
# ## 7 · The ledger
#
# What each way keeps in one process (weights, gradients, two moments; counted as four times the weights), and how well the student foretells passages that it has not read. The control was not trained.

# %%
ledger = metrics.Ledger("perplexity")


def enter(name, vector, kept, **more):
    student = models.load_tiny_lm("student")
    torch.nn.utils.vector_to_parameters(vector, student.parameters())
    ledger.add(name, 4 * kept, metrics.perplexity(student, passages["test"][:8_192]), **more)


enter("one process", one, size, trained=size // 4)
enter("not trained", fresh, size, control_of="one process")
enter("two processes", pair, size, trained=size // 4)
enter("sharded", weights("sharded"), others["kept"], trained=size // 4)
enter("accelerate", weights("accelerated"), size, trained=size // 4)

# %% clock=true rtol=0.02
print(ledger)
print(f"and a step: one process {step * 1000:.0f} ms, two {halves * 1000:.0f} ms")

# %% [markdown]
# All ways end in the same student. They differ in what a process keeps, what it sends, and how long it takes.
#
# ## **Spot the bug**
#
# Somebody writes the batches of each process by hand. Training works, the loss falls, and the averaged gradient *is* that of the joint batch. What is wrong, and what would show it? Find it before you read on.


# %%
def batches_of(rank, ranks):
    """Return what a process reads. (This is the version with the bug.)"""
    return data.token_batches(tokens, 128, batch_size=16)


def gradient(batch):
    student = models.load_tiny_lm("student")
    training.model_loss(student, batch).backward()
    return torch.cat([p.grad.flatten() for p in student.parameters()])


found = [gradient(next(batches_of(rank, 2)(0, 0))) for rank in range(2)]
assert torch.allclose(sum(found) / 2, joint, atol=1e-6)

# %% [markdown]
# <details><summary>Answer</summary>
#
# Nobody looks at `rank`: both read all rows. The mean of two equal gradients is the right one, so each test of the *result* passes; but two machines did the work of one, and a step is no faster than alone. The test: all processes' rows together are the batch, each once. Or: the gradients *before* the average must differ.
#
# </details>

# %%
right = [next(data.rank_batches(batches, rank, 2)(0, 0)) for rank in range(2)]
wrong = [next(batches_of(rank, 2)(0, 0)) for rank in range(2)]
print("rows of each process:", [len(b["input_ids"]) for b in right], "and with the bug", end=" ")
print([len(b["input_ids"]) for b in wrong])
assert torch.equal(found[0], found[1])

# %% [markdown]
# ## What papers say, and what we measured
#
# | paper | says | we measured | same order? |
# |---|---|---|---|
# | Patarasuk and Yuan 2009 | in a ring each sends 2 (N - 1) / N of the bytes, and the busiest cannot send less | so our ring counted, to the byte | yes |
# | Rajbhandari et al. 2019, 1910.02054 (ZeRO) | at stage 3 an N-th is kept, and half as much again is sent | half of the weights is kept by each of two | yes; what is sent was not counted here |
# | Shoeybi et al. 2019, 1909.08053 | tensors inside a server, with fast links | by the formulas, so it is | not measured: one machine |
# | Huang et al. 2018, 1811.06965 (GPipe) | idle time shrinks with the number of pieces | by the formulas, so it is | not measured |
# | Dettmers et al. 2023, 2305.14314 (QLoRA) | models of 65 billion on one device of 48 GB | 20 billion would need 12 GB, and the activations | same direction, from shapes |
#
# ## Summary
#
# - **Data parallelism** is one process with more hands: the same gradient, if rows are shared out and weighed. Prove it once, against one process.
# - **Count what is sent.** For averaging it is less than two gradients for each process, however many there are.
# - **A checkpoint** that holds the optimizer and the place in the data loses nothing but the steps since.
# - **FSDP** keeps an N-th and sends half as much again; ZeRO's first two stages keep less for nothing. Look at what a tool really made.
# - **Compressing** wants little more memory than a few rows, no network, and no start from the beginning.
# - **Formulas** of a cluster tell which way to try. Fast links: shards, or tensors where batches are small. Slow ones: a pipeline, or an adapter. Then they are multiplied.
#
# ## Further reading
#
# - Rajbhandari et al. 2019, *ZeRO* (arXiv 1910.02054): sections 3 and 5.
# - Shoeybi et al. 2019, *Megatron-LM* (arXiv 1909.08053): section 3.
# - In this repository: `lightcourse/training/parallel.py`, `lightcourse/streaming/`, `lightcourse/deployment/clusters.py`.
