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
# **You need:** chapters 02, 04 and 11. **Time:** 00 minutes of reading, 00 for the parts marked ★ (the fast path). The whole notebook runs in about a minute.
#
# Below each **Predict**, write your guess into the next cell, in place of the dots.

# %%
import copy
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# %%
import matplotlib.pyplot as plt
import torch

import lightcourse
from lightcourse import data, deployment, files, metrics, models, quantization, streaming, training
from lightcourse.deployment import Cluster
from lightcourse.guessing import compare

# %% [markdown]
# A real cluster has many machines. This notebook has two processes on one of them, with one thread each. What they do is what machines do: they share no memory, and talk through a network (here the loopback inside the machine, by torch's engine **gloo**).

# %%
lightcourse.setup(threads=1)
temporary = tempfile.TemporaryDirectory()  # gone when the notebook ends
room = Path(temporary.name)
tokens = data.speech_tokens(models.load_tiny_tokenizer(), "validation")
files.save_tensors({"tokens": tokens}, room / "tokens.safetensors")
batches = data.token_batches(tokens, 128, batch_size=16)
recipe = training.Recipe(20, 3e-4, evaluate_every=5)

# %% [markdown]
# ## ★ 1 · Rows shared out: data parallelism
#
# Each process holds the whole model, and half of the rows of each batch. It computes a gradient from its rows; then all gradients are averaged; then each process makes the same step. So all keep the same weights, without ever sending them.
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
recipe = training.Recipe(20, 3e-4, evaluate_every=5)
"""

# %% [markdown]
# `DistributedDataParallel`, torch's own, wraps the model and averages gradients while the backward pass runs. `reduce_by_ring_` lets it do so by the course's ring, which counts bytes (you weigh it in the first exercise). One backward pass comes before training, so that we can look at a gradient.

# %%
wrap = """
student = models.load_tiny_lm("student")
model = torch.nn.parallel.DistributedDataParallel(student)
traffic = training.reduce_by_ring_(model)
training.shared_loss()(model, next(own(0, 0))).backward()
gradients = {name: p.grad.clone() for name, p in student.named_parameters()}

def kill(_, step):
    if step == killed_at and rank == 1:
        os.kill(os.getpid(), 9)
"""

# %%
run = """
start = time.perf_counter()
history = training.train(
    model, own, recipe, training.shared_loss(), checkpoint=folder / "run.safetensors",
    progress=False, after_step=kill,
)
seconds, losses = time.perf_counter() - start, torch.tensor(history.losses)
distributed.all_reduce(losses)
if rank == 0:
    files.save_tensors(gradients, folder / "gradients.safetensors")
    files.save_tensors(dict(student.named_parameters()), folder / "model.safetensors")
    told = {"losses": (losses / ranks).tolist(), "seconds": seconds} | vars(traffic)
    (folder / "told.json").write_text(json.dumps(told))
distributed.destroy_process_group()
"""
(room / "data_parallel.py").write_text(begin + wrap + run)

# %% [markdown]
# The script is started twice. The first time process 1 is **killed** after step 13, as by a power cut.


# %%
def torchrun(script, *arguments):
    """Run a script of the room in two processes; return whether both ended well."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["--local-addr=127.0.0.1", room / script, room, *arguments]
    place = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    with open(room / "errors.txt", "w") as errors:
        done = subprocess.run(list(map(str, command)), env=place, stdout=errors, stderr=errors)
    return done.returncode == 0


print("ended well:", torchrun("data_parallel.py", 13))
print("in the room:", *sorted(path.name for path in room.glob("*.safetensors")))
