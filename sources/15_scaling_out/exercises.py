# %% [markdown]
# # 15 · Scaling out: exercises — a ring weighed, shards shared out, a job resumed, a pipeline foretold
#
# Four exercises, 70 minutes together: what each process sends in a ring, who compresses which tensor of a checkpoint, what is to be done again after a kill, and when machines in a line are worth it. Each function is followed by one line that checks it: ✓, or ✗ and what your answer seems to believe. Run that line as often as you like. Then comes a cell in which your function works on a real model or its checkpoint, beside a control. Nothing here needs more than one machine and one process, or more than chapters 02, 04 and 15.
#
# From the command line, `lightcourse check exercises/15_scaling_out.ipynb` tells which checks pass.

# %%
import hashlib
import math
import tempfile
from pathlib import Path

import numpy as np
import safetensors.torch
import torch

import lightcourse
from lightcourse import checks, data, deployment, models, streaming, training
from lightcourse.streaming.source import open_source

lightcourse.setup(threads=1)

# %% [markdown]
# The real model is the student, the smaller one of the tiny language models: 4 layers, 28 matrices, 1.1 million numbers. Its batch is 8 texts of 64 tokens. "Processes" and "machines" take turns here, in one process: what they would send is counted, and what they would compute is the same.

# %%
student, tokenizer = models.load_tiny_lm("student"), models.load_tiny_tokenizer()
batches = data.token_batches(data.speech_tokens(tokenizer, "validation"), 64, batch_size=8)
temporary = tempfile.TemporaryDirectory()  # gone when the notebook ends
room = Path(temporary.name)


def gradient(batch, loss=training.model_loss):
    """Return the student's gradient on a batch as one long vector."""
    student.zero_grad()
    loss(student, batch).backward()
    return torch.cat([p.grad.flatten() for p in student.parameters()])


# %% [markdown]
# ## Exercise 1 · What a process sends ★ (15 minutes)
#
# $N$ processes hold a gradient each, equally long, and all of them need the sum. In a **ring**, process $r$ only sends to process $r + 1$, and the last one sends to process 0. The numbers are cut into $N$ pieces, as `tensor_split` cuts: if they cannot be shared out evenly, the **first** pieces are one number longer. All counting starts at 0 and goes around: behind $N - 1$ comes 0, before 0 comes $N - 1$.
#
# - **Reduce-scatter**, $N - 1$ rounds: in round $s$, process $r$ sends its piece $r - s$, and its neighbour adds that to its own piece of the same number. At the end, process $r$ has the whole sum of piece $r + 1$.
# - **All-gather**, $N - 1$ rounds: in round $s$, process $r$ sends piece $r + 1 - s$, and its neighbour puts it where its own was.
#
# Both together are an **all-reduce**. Write `ring_sent(numbers, width, ranks)`:
#
# - `numbers`: how many there are in the gradient (may be fewer than processes: then some pieces are empty); `width`: bytes of one; `ranks`: $N$, 1 or more;
# - returns two lists of whole numbers: the **bytes** that process 0, 1, 2, … sends in the reduce-scatter, and those that it sends in the all-gather.
#
# **Predict** first: a gradient has 100 MB. What does each of 2 processes send in an all-reduce, each of 4, each of 1,000?
#
# <details><summary>Hint 1</summary>In N − 1 rounds, a process sends N − 1 different pieces. So all but one.</details>
# <details><summary>Hint 2</summary>Which one does it never send in the reduce-scatter? Let r be 0, and write down −s for s = 0, 1, …, N − 2.</details>
# <details><summary>Hint 3</summary>In Python, <code>(rank + 1) % ranks</code> goes around, and piece p has <code>numbers // ranks</code> numbers, or one more if <code>p &lt; numbers % ranks</code>.</details>


# %%
def ring_sent(numbers, width, ranks):
    """Return the bytes that each process sends in the reduce-scatter, and in the all-gather."""
    ### BEGIN SOLUTION
    lengths = [numbers // ranks + (piece < numbers % ranks) for piece in range(ranks)]
    scatter = [width * (numbers - lengths[(rank + 1) % ranks]) for rank in range(ranks)]
    gather = [width * (numbers - lengths[(rank + 2) % ranks]) for rank in range(ranks)]
    return scatter, gather
    ### END SOLUTION


# %%
passed = checks.check_ring_sent(ring_sent)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# **In the real model.** Three processes share the batch: 3, 3 and 2 texts. `rank_batches` gives each its rows, and a weight for its loss: without it, a text of the third process would count more than one of the others. Then their gradients go around, piece by piece.


# %%
def around(gradients):
    """Sum gradients in a ring; return the sums that all hold, and the bytes that each sent."""
    ranks, sent = len(gradients), [[0] * len(gradients) for _ in range(2)]
    pieces = [list(held.clone().tensor_split(ranks)) for held in gradients]
    for step in range(2 * (ranks - 1)):
        half = step // (ranks - 1)
        going = [(held[(r - step) % ranks]).clone() for r, held in enumerate(pieces)]
        for rank, piece in enumerate(going):
            sent[half][rank] += piece.nbytes
            # One rule for both halves, for step goes on counting: r − (N − 1) is r + 1.
            own = pieces[(rank + 1) % ranks][(rank - step) % ranks]
            own.copy_(piece if half else own + piece)
    return [torch.cat(held) for held in pieces], tuple(sent)


# %% [markdown]
# There are two controls. One sends everything to everybody, which gives the same sum. The other leaves out the weights: then the mean of the three gradients is not that of the batch.

# %% rtol=0.02
joint = gradient(next(batches(0, 0)))
rows = [next(data.rank_batches(batches, rank, 3)(0, 0)) for rank in range(3)]
print("weights", [round(own["share"], 3) for own in rows])
loss = training.shared_loss()
sums, sent = around([gradient(own, loss) for own in rows])
plain, _ = around([gradient(own | {"share": 1.0}, loss) for own in rows])
assert all(torch.equal(each, sums[0]) for each in sums)
assert (sums[0] / 3 - joint).norm() < 1e-4 * joint.norm()
print(f"without weights, the gradient is off by {(plain[0] / 3 - joint).norm() / joint.norm():.1%}")
print("sent in the ring     ", *(f"{a + b:,}" for a, b in zip(*sent, strict=True)))
print("sent to everybody    ", *[f"{2 * joint.nbytes:,}"] * 3)
if passed:
    assert tuple(ring_sent(joint.numel(), 4, 3)) == sent

# %% [markdown] tags=["solution"]
# **Why.** Process 0 sends the pieces 0, −1, …, −(N − 2) in the reduce-scatter: all but piece 1. That is the one whose sum ends at process 0, so it has no need to go further. In the all-gather it sends 1, 0, −1, …, which is all but piece 2: the last one to arrive there. For one process, both are "all but everything": nothing.
#
# So each process sends 2 (N − 1) / N of the bytes: 100 MB with 2 processes, 150 MB with 4, 199.8 MB with 1,000. However many there are, it never becomes twice the gradient. (Whoever sends everything to everybody, sends N − 1 times the gradient.) What grows is the number of rounds, and each has its latency.
#
# FSDP keeps an N-th of the weights, gradients and optimizer in each process. It uses the two halves one by one: the weights are gathered before the forward pass and again before the backward pass, and the gradients are only scattered. That is half as much again as data parallelism. (torch's `fully_shard` saves a little of it: what stands in no layer, such as the table of words, it gathers once and keeps until the backward pass, unless it is told not to. In the student that makes 1.38 times as much instead of 1.5.)

# %% tags=["solution"]
for ranks in (1, 2, 4, 64):
    scatter, gather = ring_sent(joint.numel(), 4, ranks)
    held, sends = joint.nbytes / ranks, (scatter[0] + gather[0], scatter[0] + 2 * gather[0])
    told = "data parallel holds {:9,} and sends {:9,}; FSDP holds {:9,.0f} and sends {:10,}"
    print(f"processes: {ranks:2},", told.format(joint.nbytes, sends[0], held, sends[1]))

# %% [markdown]
# ## Exercise 2 · Who compresses what? ★★ (15 minutes)
#
# A checkpoint's tensors are compressed by several processes, each working by itself. All is done when the **most loaded** one is done. To share out the tensors in the best way is a hard problem. A greedy rule is nearly as good (Graham 1969, doi 10.1137/0117039): take the tensors by size, the largest first, and give each to the process that has the least so far. Nobody asks anybody: each process computes the whole plan and does its own part. So all must get the **same** plan, ties included.
#
# Write `share_out(tensors, ranks)`:
#
# - `tensors`: a list of tuples, (name, bytes). All names differ; bytes may be 0, but not all of them. No tensor is split;
# - `ranks`: how many processes, 1 or more. If there are more of them than tensors, some have nothing to do;
# - among equally large tensors, the one whose name comes first in Python's order of strings is taken first; among equally loaded processes, the one with the lowest number gets the tensor;
# - returns a list with a list of names for each process, and a number. The names of a process stand **in the order of `tensors`**, in which they lie in the file. The number says how **busy** the processes are: their mean load, divided by the largest load. It is 1 if nobody waits.
#
# **Predict** first: ten tensors of the same size, four processes. How busy are they? And if one tensor has a quarter of all bytes, how many processes can it keep busy?
#
# <details><summary>Hint 1</summary><code>sorted(…, key=lambda pair: (-pair[1], pair[0]))</code> sorts by size, falling, and then by name.</details>
# <details><summary>Hint 2</summary><code>loads.index(min(loads))</code> is the first of the least loaded.</details>
# <details><summary>Hint 3</summary>Note for each name who has it. Then go through <code>tensors</code> once more for the order.</details>


# %%
def share_out(tensors, ranks):
    """Return the names of the tensors that each process takes, and how busy all of them are."""
    ### BEGIN SOLUTION
    loads, owner = [0] * ranks, {}
    for name, size in sorted(tensors, key=lambda pair: (-pair[1], pair[0])):
        owner[name] = loads.index(min(loads))
        loads[owner[name]] += size
    own = [[name for name, _ in tensors if owner[name] == rank] for rank in range(ranks)]
    return own, sum(loads) / ranks / max(loads)
    ### END SOLUTION


# %%
passed = checks.check_share_out(share_out)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# **On the real checkpoint.** The student is saved in shards of at most 500 kB. `open_source` reads the headers only: names, shapes, bytes.

# %%
student.save_pretrained(room / "student", max_shard_size="500KB")
source = open_source(room / "student")
tensors = [(name, stored.nbytes) for name, stored in source.tensors.items()]
files = sorted({stored.path.name for stored in source.tensors.values()})
print(len(tensors), "tensors in", len(files), "shards,", f"{sum(n for _, n in tensors):,} bytes")
print("the largest:", *max(tensors, key=lambda pair: pair[1]))


# %% [markdown]
# The control takes whole shards, in turn: process 0 the first one, process 1 the second one, and so on.


# %%
def in_turn(ranks):
    """Return how busy the processes are if each takes every N-th shard."""
    loads = [0] * ranks
    for stored in source.tensors.values():
        loads[files.index(stored.path.name) % ranks] += stored.nbytes
    return sum(loads) / ranks / max(loads)


for ranks in (1, 2, 3, 4, 8):
    yours = f", your plan {share_out(tensors, ranks)[1]:.3f}" if passed else ""
    print(f"processes: {ranks}, busy with shards in turn {in_turn(ranks):.3f}{yours}")

# %% [markdown]
# And what comes out does not depend on who did it. Each process rounds the matrices of its layers to 4 bits, copies what else it has, and all of it together is compared with what one process makes: bit by bit.


# %%
def packed(name):
    """Return what becomes of one tensor of the checkpoint: bytes of a safetensors file."""
    stored = source.tensors[name]
    values = {name: stored.rows(0, stored.shape[0])}
    if "_proj" in name:
        values = streaming.Compression(4, 128).layer(values[name]).state_dict()
    return safetensors.torch.save(values)


# %%
alone = {name: packed(name) for name, _ in tensors}
print(f"{sum(map(len, alone.values())):,} bytes")
if passed:
    plan, busy = share_out(tensors, 3)
    shares = [{name: packed(name) for name in own} for own in plan]
    assert alone == shares[0] | shares[1] | shares[2] and busy > in_turn(3)
    assert sum(map(len, shares)) == len(alone)  # nothing twice

# %% [markdown] tags=["solution"]
# **Why.** Ten equal tensors: two processes get three, two get two. The mean is 2.5 and the most is 3, so they are busy for 5/6 of the time. And a tensor of a quarter of all bytes keeps four processes busy at best: the fifth finds nothing that would make the job end sooner. In the student, the table of words is that tensor. From 8 processes on, most of them wait for the one that has it.
#
# The rule may miss the best plan: 3, 3, 2, 2, 2 on two processes become 7 and 5, where 6 and 6 would do. Graham proved that it is never worse than the best one by more than a third. In large models that is no matter, since they have hundreds of matrices of the same few sizes. Below is GPT-NeoX-20B, without one byte of its weights: on the device `meta` there are shapes only. It keeps 44 processes busy well enough. With 128, all wait for the two that have 620 MB each, the table of words and the output matrix. (Bytes stand for time here. What is only copied takes less than what is rounded, so a better plan would weigh bytes.)
#
# (The library shares out whole shards, in turn: see `streaming.compress`. Each process writes files of its own there, and the files are as equal as their largest size makes them.)

# %% tags=["solution"]
neox = deployment.gpt_neox_20b()
sizes = [(name, tensor.nbytes) for name, tensor in neox.state_dict().items()]
print(len(sizes), "tensors,", f"{sum(size for _, size in sizes):,} bytes")
for ranks in (8, 44, 64, 128):
    print(f"processes: {ranks:3}, busy for {share_out(sizes, ranks)[1]:.3f} of the time")

# %% [markdown]
# ## Exercise 3 · Resume without loss ★★ (20 minutes)
#
# A job makes many pieces, and may be killed at any moment. For each piece it
#
# 1. writes the bytes into `.NAME.part`, which takes a while;
# 2. renames that file to `NAME`, which happens at once or not at all;
# 3. writes a line at the end of a **journal**: the name, one blank, the SHA-256 of the bytes in hexadecimal, and a line end (`"\n"`).
#
# Somebody finds the folder after some kills, restarts, and a disk that once was full. **Predict:** what may be wrong in it? Write down three things before you open the specification.
#
# Write `to_do(pieces, journal, files)`.
#
# <details><summary>The specification (think first)</summary>
#
# - `pieces`: a list of names, all the job shall make, in its order. No name holds a blank;
# - `journal`: its text, perhaps empty. A kill may have torn a line: then it ends anywhere, and lacks its line end. If the job was restarted after that, its next line stands **behind the torn one, in the same line**;
# - `files`: a list of tuples, (name, bytes), for all that lies in the folder. The bytes are a NumPy array of `uint8`, which `hashlib.sha256` takes as it is. It may be empty;
# - a line of the journal **counts** if it has its line end, and is just a name, one blank and one hash. Any other line says nothing, and the lines behind it count as ever. If several lines that count have the same name, the **last** one is true: the piece was made again;
# - a piece is **finished** if its file is there and has the hash that the journal tells. All others are made again. (A file of which the journal knows nothing may be right. Nobody can tell.)
#
# Return two lists of names:
#
# - the pieces to be made **again**, in the order of `pieces`;
# - the files to be thrown **away**, in the order of `files`: those of pieces that are made again, and the `.NAME.part` of any piece of this job, even of a finished one. All other files belong to somebody else. They stay.
#
# </details>
#
# <details><summary>Hint 1</summary><code>journal.split("\n")</code> has one entry more than there are line ends: what stands behind the last of them.</details>
# <details><summary>Hint 2</summary>Two torn names and a hash in one line have two blanks: <code>line.count(" ")</code>.</details>
# <details><summary>Hint 3</summary>A dictionary that is filled line by line keeps the last entry of each name, and <code>.get</code> has an answer for names that are missing. Take care that missing twice is not the same as equal.</details>


# %%
def to_do(pieces, journal, files):
    """Return the pieces to be made again, and the files to be thrown away before."""
    ### BEGIN SOLUTION
    lines = [line for line in journal.split("\n")[:-1] if line.count(" ") == 1]
    told = dict(line.split(" ") for line in lines)
    there = {name: hashlib.sha256(content).hexdigest() for name, content in files}
    again = [name for name in pieces if name not in there or told.get(name) != there[name]]
    away = {*again, *(f".{name}.part" for name in pieces)}
    return again, [name for name, _ in files if name in away]
    ### END SOLUTION


# %%
passed = checks.check_to_do(to_do)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# **On the real checkpoint.** The pieces are the tensors of exercise 2, each packed into a file of its own. `make` does what stands above, and can be killed at a piece: in the middle of the file, or in the middle of the journal's line.


# %%
def make(folder, names, killed_at=None, during=None):
    """Make pieces in their order; stop as a killed process would."""
    folder.mkdir(exist_ok=True)
    for place, name in enumerate(names):
        dies = during if place == killed_at else None
        content, part = alone[name], folder / f".{name}.part"
        part.write_bytes(content[: len(content) // 2] if dies == "file" else content)
        if dies != "file":
            part.replace(folder / name)
            note(folder, name, content, -40 if dies == "line" else None)
        if dies:
            return


# %%
def note(folder, name, content, end=None):
    """Write a line at the end of the journal, or its beginning only."""
    line = f"{name} {hashlib.sha256(content).hexdigest()}\n"
    with open(folder / "journal", "a", encoding="utf-8") as journal:
        journal.write(line[:end])


def found(folder):
    """Return the journal's text, and all files but the journal."""
    paths = [path for path in sorted(folder.iterdir()) if path.name != "journal"]
    contents = [(path.name, np.fromfile(path, np.uint8)) for path in paths]
    return (folder / "journal").read_text(encoding="utf-8"), contents


# %% [markdown]
# Below, the job is killed twice: in the line of the eleventh piece, and then in the file of the ninth one after that. Between the two, it went on with what had no file. Afterwards, the disk changes one byte of the third piece.


# %%
def battered(folder):
    """Return a folder after two kills and one broken byte."""
    names = [name for name, _ in tensors]
    make(folder, names, 10, "line")
    make(folder, [name for name in names if not (folder / name).exists()], 8, "file")
    broken = bytearray((folder / names[2]).read_bytes())
    broken[-1] ^= 1
    (folder / names[2]).write_bytes(broken)
    return folder


# %%
def matches(folder):
    """Tell how many of the pieces are what they should be, and which strange files there are."""
    contents = {name: content.tobytes() for name, content in found(folder)[1]}
    strange = [name for name in contents if name not in alone]
    return f"{sum(contents.get(n) == alone[n] for n in alone)} of {len(alone)} right, {strange=}"


# %% [markdown]
# The control believes in files, and goes on with what has none. (So does the library while it works; but at the end it verifies all hashes, and stops at a wrong one.) Then your function goes on.

# %%
names, folder = [name for name, _ in tensors], battered(room / "control")
make(folder, [name for name in names if not (folder / name).exists()])
print("who believes in files:", matches(folder))
if passed:
    folder = battered(room / "resumed")
    again, away = to_do(names, *found(folder))
    print(f"to be made again: {len(again)}; of them there, or begun:", *away, sep="\n  ")
    for name in away:
        (folder / name).unlink()
    make(folder, again)
    print("your way:             ", matches(folder))
    assert {n: c.tobytes() for n, c in found(folder)[1]} == alone
    assert to_do(names, *found(folder)) == ([], [])

# %% [markdown] tags=["solution"]
# **Why.** A file may be there and be wrong: a byte has changed, or it is an older one. A file may be right and not noted, and then nobody knows. A line may be torn, or glued to the next one: in the cell, the torn line of the eleventh piece took the line of the twelfth with it, so both were made again, though both were right. And halves of files lie about, which nobody has to keep.
#
# Whoever believes in files kept the broken byte: the piece has its name, after all. Whoever believes in the journal alone would not have noticed either. Only the two together tell, and the rule is on the safe side: to make a good piece again costs a little time, to keep a bad one costs the model.
#
# The library does it without a journal: each file carries the hash of its tensors in its own header. The header is written last, and then the file gets its name. So there is no second file that could disagree.

# %% tags=["solution"]
out, how = room / "compressed", streaming.Compression(4, 128)
streaming.compress(room / "student", out, how, shard_bytes=200_000)
whole = {path.name: path.read_bytes() for path in out.glob("*.safetensors")}
lost = sorted(whole)[1]
(out / lost).unlink()
(out / f".{lost}.part").write_bytes(whole[lost][:1000])
streaming.compress(room / "student", out, how, shard_bytes=200_000)
assert {path.name: path.read_bytes() for path in out.glob("*.safetensors")} == whole
assert not list(out.glob(".*.part"))
print(len(whole), "shards; one was lost, and came back the same, bit by bit")

# %% [markdown]
# ## Exercise 4 · When does a pipeline pay? ★★★ (20 minutes)
#
# Some equal machines, $N$ of them, are to train a model together. One step goes forward and backward through one batch. There are three ways:
#
# - **Alone**: one machine does all of it, the others do nothing.
# - **Data parallel**: each machine holds the whole model, and computes an $N$-th of the batch. Then the gradients are summed in a ring: $2 (N - 1)$ rounds one after the other, and in each of them every machine sends an $N$-th of the gradients.
# - **Pipeline**: each machine holds an $N$-th of the layers. The batch is cut into $M$ equal pieces, which follow each other through the machines. All of them go forward, and when the last piece has left the last machine, all come back the same way. A machine works on one piece at a time, and for each piece it first computes, then sends. Sending keeps it busy as well. It receives while it does something else. The last one on the way sends to nobody: the loss is there, or the way ends there.
#
# Any message takes a latency, plus its bytes divided by the bandwidth. Write `step_seconds(cluster, job, pieces)`:
#
# - `cluster`: (nodes, bandwidth, latency, memory): $N$ (1 or more), bytes a second, seconds, and bytes of one machine;
# - `job`: (forward, backward, held, gradients, activations): the seconds that **one** machine would need for the whole batch forward, and backward; the bytes that training holds for the whole model; the bytes of all gradients; and the bytes that go from one machine to the next for the **whole batch** (forward as many as backward);
# - `pieces`: $M$, 1 or more;
# - returns the seconds of a step in the three ways: alone, data parallel, pipeline. Where `held`, or in a pipeline an $N$-th of it, is more than the memory of a machine, it is `math.inf`. Just as much fits. (What a machine computes is shared out evenly, and activations take no memory here.)
#
# **Predict** first: 4 machines in a line, and sending costs nothing. How many times faster than alone are they with 1 piece? With 4? With 28?
#
# <details><summary>Hint 1</summary>One way, 2 machines, 3 pieces: write down when each machine computes and when it sends. At which moment does the last one begin its last piece?</details>
# <details><summary>Hint 2</summary>The last piece leaves the first machine after M turns, each of computing and sending. Then it goes through the N − 1 others, and nothing stands in its way. Only the last of them does not send.</details>
# <details><summary>Hint 3</summary>One way takes N + M − 2 times a turn with sending, and one turn without. With one machine, nothing is sent at all.</details>


# %%
def step_seconds(cluster, job, pieces):
    """Return the seconds of a step alone, data parallel and as a pipeline."""
    ### BEGIN SOLUTION
    nodes, bandwidth, latency, memory = cluster
    forward, backward, held, gradients, activations = job
    alone = forward + backward if held <= memory else math.inf
    data = alone / nodes + 2 * (nodes - 1) * (latency + gradients / nodes / bandwidth)
    hop = latency + activations / pieces / bandwidth if nodes > 1 else 0
    turns = [way / nodes / pieces for way in (forward, backward)]
    pipeline = sum((nodes + pieces - 2) * (turn + hop) + turn for turn in turns)
    return alone, data, pipeline if held / nodes <= memory else math.inf
    ### END SOLUTION


# %%
passed = checks.check_step_seconds(step_seconds)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# **In the real model.** One layer of the student for each of four machines. The batch goes through in pieces, and what leaves each of the first three layers is counted, forward and backward.

# %%
crossed = []


def count(module, inputs, output):
    """Count what one machine hands to the next one, and what comes back."""
    crossed.append(output.nbytes)
    output.register_hook(lambda back: crossed.append(back.nbytes))


# %%
def in_pieces(pieces, share):
    """Return the gradient of a batch that goes through in pieces, and the bytes that crossed."""
    crossed.clear()
    hooks = [layer.register_forward_hook(count) for layer in student.model.layers[:-1]]
    parts = [data.rank_batches(batches, place, pieces) for place in range(pieces)]
    loss = training.shared_loss()
    total = sum(share(pieces) * gradient(next(part(0, 0)), loss) for part in parts)
    for hook in hooks:
        hook.remove()
    return total, sum(crossed)


# %% [markdown]
# Each piece's gradient counts with its share, and all of them add up to that of the batch. The control forgets the shares.

# %% rtol=0.02
for pieces in (1, 2, 8):
    total, bytes_crossed = in_pieces(pieces, lambda pieces: 1 / pieces)
    wrong = in_pieces(pieces, lambda pieces: 1)[0]
    assert (total - joint).norm() < 1e-4 * joint.norm()
    off = (wrong - joint).norm() / joint.norm()
    print(f"pieces: {pieces}, {bytes_crossed:,} bytes crossed; without shares off by {off:.1f}")
activations = bytes_crossed // (2 * 3)
print(f"gradients {joint.nbytes:,} bytes, activations {activations:,} bytes for each border")


# %% [markdown]
# Now the forecast, with those bytes, for four small machines of 2 billion operations a second. (A step takes about six operations for each weight and token, of which two are forward.) First they hang on a slow link (1 MB a second), then on a fast one (100 MB a second), and last on the fast one with 5 MB of memory each. "Pipeline 4: 1.55 s" is one of 4 pieces. The control is the library's own forecast.


# %%
def forecasts(bandwidth, memory=1e9):
    """Print what a step takes on four machines in each way; return it by number of pieces."""
    forward = 2 * joint.numel() * 8 * 64 / 2e9
    job = forward, 2 * forward, 16 * joint.numel(), joint.nbytes, activations
    times = {m: step_seconds((4, bandwidth, 1e-3, memory), job, m) for m in (1, 2, 4, 8)}
    lines = "  ".join(f"{m}: {found[2]:.2f} s" for m, found in times.items())
    alone_time, shared_time, _ = times[1]
    print(f"alone {alone_time:.2f} s, data parallel {shared_time:.2f} s, pipeline {lines}")
    return times


# %%
if passed:
    slow, fast, tight = forecasts(1e6), forecasts(1e8), forecasts(1e8, memory=5e6)
    assert slow[1][2] > slow[1][0] > slow[8][2] and slow[1][1] > slow[1][0]
    assert fast[1][1] < fast[8][2] and tight[1][1] == math.inf > tight[8][2]
    cluster = deployment.Cluster(4, 1e6, 1e-3, 2e9, 1e9)
    operations = 6 * joint.numel() * 8 * 64
    theirs = deployment.pipeline_seconds(cluster, operations, activations, 8)
    assert math.isclose(slow[8][2], theirs)
else:
    print("First solve this exercise: then the forecasts stand here.")

# %% [markdown] tags=["solution"]
# **Why.** If sending costs nothing, a way takes N + M − 1 turns of an M-th of an N-th. With 1 piece that is 4 turns of a quarter: as slow as alone. With 4 pieces, 7 turns of a sixteenth: 2.3 times faster. With 28 pieces, 31 turns of a 112th: 3.6 times. What is missing to 4 is the **bubble**: the last machine waits for the first piece, and the first one for the last.
#
# On the slow link, data parallelism is worse than one machine alone: its gradients take 17 times as many bytes as the activations of the batch. A pipeline with one piece is worse, too. With 8 pieces it pays. On the fast link, data parallelism wins, for it has no bubble. And where the model does not fit into one machine, there is no choice but to cut the model.
#
# More pieces are not always better: each pays its latency in every hop, and small pieces use the processor badly, which this model leaves out. See below: the latency of 20 ms decides for 8 pieces.

# %% tags=["solution"]
job = 0.57, 1.14, 18e6, joint.nbytes, activations
for pieces in (1, 2, 4, 8, 16, 64):
    found_times = step_seconds((4, 1e8, 0.02, 1e9), job, pieces)
    print(
        f"pieces: {pieces:2}, pipeline {found_times[2]:.2f} s, data parallel {found_times[1]:.2f} s"
    )

# %% [markdown] tags=["solution"]
# And GPT-NeoX-20B, with 16 bytes for each weight (mixed precision with Adam), a batch of 3 million tokens, machines of 80 GB and 10¹⁴ operations a second, with 25 GB a second between them: one of its layers for each of 44 machines.

# %% tags=["solution"]
weights = sum(p.numel() for p in neox.parameters())
tokens = 1536 * 2048
forward = 2 * weights * tokens / 1e14
job = forward, 2 * forward, 16 * weights, 2 * weights, tokens * 6144 * 2
for pieces in (1, 48, 512):
    alone_time, shared_time, line = step_seconds((44, 25e9, 1e-5, 80e9), job, pieces)
    told = f"alone {alone_time}, data parallel {shared_time}, pipeline {line:,.0f} s"
    print(f"pieces: {pieces:3}, {told}; at best {3 * forward / 44:,.0f} s")

# %% [markdown]
# ## Wrap-up
#
# You weighed what goes around in a ring, shared out a checkpoint so that nobody waits long, resumed a job that had been killed in the worst moments, and foretold when machines in a line are worth it. In all four, many processes act as one: with the same gradient, the same plan, the same bytes at the end.
