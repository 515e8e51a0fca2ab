"""Train in several processes: started by torchrun, once for each of them.

Usage: python -m torch.distributed.run --nproc_per_node N -m tests.training.together FOLDER [STEP]

With STEP the last process is killed after so many steps. The first one writes FOLDER/result.json.
"""

import faulthandler
import json
import os
import signal
import sys
from pathlib import Path

import torch
from torch import distributed
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from lightcourse import data, files, training
from tests import toys

TENSORS = {"input_ids": torch.arange(23 * 7).view(23, 7) * 13 % 50}
TENSORS["labels"] = TENSORS["input_ids"].where(TENSORS["input_ids"] % 5 > 0, -100)
BATCHES = data.row_batches(TENSORS, batch_size=5)  # the last one of an epoch has 3
RECIPE = training.Recipe(steps=14, learning_rate=5e-3, evaluate_every=5)


def counted(batch):
    """Return how many labels count, of those that have a token before them."""
    return int((batch["labels"][:, 1:] != -100).sum())


def own_batches():
    rank, ranks = distributed.get_rank(), distributed.get_world_size()
    return data.rank_batches(BATCHES, rank, ranks, counted)


def exact_loss(model, batch):
    """Return a language model's loss in the dtype of its logits; its own is in float32."""
    logits = model(batch["input_ids"]).logits[:, :-1]
    return functional.cross_entropy(logits.flatten(0, 1), batch["labels"][:, 1:].flatten())


def held_out(model):
    return exact_loss(model, TENSORS).item()


def gradients(model, batch, loss):
    loss(model, batch).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def gradient_error():
    """Return how far averaged gradients are from those of the joint batch, and a control's."""
    joint = gradients(toys.llama().double(), next(iter(BATCHES(0, 0))), exact_loss)
    own = next(iter(own_batches()(0, 0)))
    shares = gradients(wrapped(), own, training.shared_loss(exact_loss))
    plain = gradients(wrapped(), own | {"share": 1.0}, training.shared_loss(exact_loss))
    return [(found - joint).abs().max().item() for found in (shares, plain)]


def wrapped():
    return DistributedDataParallel(toys.llama().double())


def ring_error(length):
    """Return how far the ring's sum of whole numbers is from the sum."""
    values = torch.arange(float(length)) + 100 * distributed.get_rank()
    wanted = values.clone()
    distributed.all_reduce(wanted)
    training.ring_all_reduce_(values)
    return (values - wanted).abs().sum().item()


def kill_at(step):
    def after_step(model, done):
        if done == step and distributed.get_rank() == distributed.get_world_size() - 1:
            os.kill(os.getpid(), signal.SIGKILL)

    return after_step


def alone(folder, stopped_at=0):
    """Train in one process, without a wrapper; be interrupted after some step."""

    def interrupt(_, step):
        if step == stopped_at:
            raise KeyboardInterrupt

    model = toys.llama().double()
    run = folder / "run.safetensors"
    settings = {"checkpoint": run, "progress": False, "after_step": interrupt}
    history = training.train(model, BATCHES, RECIPE, exact_loss, held_out, **settings)
    files.save_tensors(dict(model.named_parameters()), folder / "model.safetensors")
    return history


def main(folder, kill=0):
    faulthandler.dump_traceback_later(60, exit=True)  # processes that wait for each other for ever
    distributed.init_process_group("gloo")
    model = wrapped()
    traffic = training.reduce_by_ring_(model)
    history = training.train(
        model,
        own_batches(),
        RECIPE,
        training.shared_loss(exact_loss),
        held_out,
        folder / "run.safetensors",
        after_step=kill_at(kill),
    )
    result = {"errors": gradient_error(), "ring": [ring_error(n) for n in (1, 7, 64)]}
    result |= vars(traffic) | {"evaluations": history.evaluations}
    if distributed.get_rank() == 0:
        files.save_tensors(dict(model.module.named_parameters()), folder / "model.safetensors")
        (folder / "result.json").write_text(json.dumps(result))
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
