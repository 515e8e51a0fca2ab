"""The loop: steps, evaluations, early stopping, and checkpoints to go on from."""

import itertools
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from lightcourse import files
from lightcourse.progress import bar as progress_bar
from lightcourse.training.losses import model_loss
from lightcourse.training.parallel import place
from lightcourse.training.recipe import History, Recipe
from lightcourse.training.updates import optimizer_groups, trainable_parameters


def train(
    model: nn.Module,
    batches: Callable[[int, int], Iterable[dict]],
    recipe: Recipe,
    loss: Callable[[nn.Module, dict], torch.Tensor] = model_loss,
    evaluate: Callable[[nn.Module], float] | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = True,
    after_step: Callable[[nn.Module, int], None] | None = None,
) -> History:
    """Train ``model`` in place and return what happened.

    Parameters
    ----------
    model : nn.Module
        Only parameters with ``requires_grad`` are trained. Left in evaluation mode. In a
        ``DistributedDataParallel``, several processes train it together, on batches of
        :func:`lightcourse.data.rank_batches` with :func:`shared_loss`.
    batches : callable
        ``batches(epoch, seed)`` yields the batches of one epoch, the same ones for the
        same arguments; :mod:`lightcourse.data` makes such callables.
    recipe : Recipe
        Steps, learning rates, seed.
    loss : callable
        ``loss(model, batch)`` returns a scalar; distillation is another loss, not
        another loop.
    evaluate : callable, optional
        ``evaluate(model)`` returns a score, *lower is better*. With it the model ends
        with the weights of its best evaluation, not of its last step.
    checkpoint : path, optional
        A safetensors file written at each evaluation. Where it exists already, training
        goes on from it, with the result an uninterrupted run would have had, bit for bit.
        It holds what is trained, not the frozen rest nor buffers. Of several processes the
        first one writes, and all go on from what it wrote: bit for bit for two of them, where
        nothing is drawn by chance (no dropout). With more, sums may be added in another order. So
        they are where a run goes on with another number of processes, which it may: to rounding.
    progress : bool
        Show a progress bar.
    after_step : callable, optional
        ``after_step(model, step)`` is called after each optimizer step and before its
        evaluation, with the number of steps done; it may change weights in place, so that
        some stay what they were. (Zeros stay with ``pruning.hold_masks``, in any loop.)

    Raises
    ------
    ValueError
        When nothing is trainable, the data are empty, the loss is not finite, a score is
        NaN, a group of the recipe takes no parameter, ``patience`` has no ``evaluate``, the
        checkpoint belongs to another recipe, or the model is sharded (FSDP) and has a checkpoint.
    """
    run = _Run(model, recipe, evaluate, Path(checkpoint) if checkpoint else None)
    run.resume()
    try:
        show = progress and place()[0] == 0
        bar = progress_bar(total=recipe.steps, initial=run.step, desc="training", show=show)
        with bar:
            stream = _stream(batches, recipe.seed, run.step)
            while not run.finished():
                run.take_step(loss, next(stream), after_step)
                bar.set_postfix(loss=f"{run.history.losses[-1]:.3f}", refresh=False)
                bar.update()
    finally:
        model.eval()
    run.restore_best()
    return run.history


def _stream(batches, seed, skip):
    """Return batches for ever, epoch after epoch, without the first ``skip``."""
    stream = _endless(batches, seed)
    # A loader that draws from the global generator must not move the one that was resumed.
    with torch.random.fork_rng(devices=[]):
        for _ in range(skip):
            next(stream)
    return stream


def _endless(batches, seed):
    for epoch in itertools.count():
        empty = True
        for batch in batches(epoch, seed):
            empty = False
            yield batch
        if empty:
            raise ValueError("batches gave no batch at all; at least one is wanted")


class _Run:
    """The state of one training run, and how it is saved."""

    def __init__(self, model, recipe, evaluate, checkpoint):
        self.model, self.recipe = model, recipe
        self.evaluate, self.checkpoint = evaluate, checkpoint
        self.parameters = trainable_parameters(model)
        if not self.parameters:
            raise ValueError("model has no trainable parameter: every requires_grad is False")
        if recipe.patience and not evaluate:
            raise ValueError(f"patience is {recipe.patience}; evaluate is wanted to go with it")
        if checkpoint and any(hasattr(p, "full_tensor") for p in self.parameters.values()):
            raise ValueError(
                "model is sharded over several processes, and checkpoint would hold one part only; "
                "checkpoint=None is wanted, and torch.distributed.checkpoint to save it"
            )
        self.optimizer = torch.optim.AdamW(optimizer_groups(self.parameters, recipe))
        self.history = History()
        self.best = {}
        torch.manual_seed(recipe.seed)

    @property
    def step(self):
        return len(self.history.losses)

    def finished(self):
        return self.step >= self.recipe.steps or self.history.stopped_early

    def take_step(self, loss, batch, after_step):
        self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.rate(self.step, group["peak"])
        value = loss(self.model, batch)
        if not torch.isfinite(value):
            raise ValueError(
                f"the loss became {value.item()} at step {self.step}; "
                f"a learning_rate below {self.recipe.learning_rate} may help"
            )
        self.optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(self.parameters.values(), self.recipe.max_grad_norm)
        self.optimizer.step()
        self.history.losses.append(value.item())
        if after_step:
            after_step(self.model, self.step)
        every = self.recipe.evaluate_every
        if self.step == self.recipe.steps or (every and self.step % every == 0):
            self._pause()

    def _pause(self):
        """Evaluate, remember the best weights, decide whether to stop, and save."""
        if self.evaluate:
            self.model.eval()
            with torch.no_grad():
                score = float(self.evaluate(self.model))
            if math.isnan(score):
                raise ValueError(f"evaluate gave NaN at step {self.step}; a number is wanted")
            if score < self.history.best:
                self.best = {k: p.detach().clone() for k, p in self.parameters.items()}
            self.history.evaluations.append((self.step, score))
            waited = self.history.evaluations_without_progress()
            self.history.stopped_early = 0 < self.recipe.patience <= waited
        if self.checkpoint and place()[0] == 0:
            self._save()

    def restore_best(self):
        with torch.no_grad():
            for name, value in self.best.items():
                self.parameters[name].copy_(value)

    def _save(self):
        tensors = {f"model.{name}": p for name, p in self.parameters.items()}
        tensors |= {f"best.{name}": p for name, p in self.best.items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{key}": value for key, value in state.items()}
        tensors["rng"] = torch.get_rng_state()
        notes = {"recipe": _plain(self.recipe), "history": asdict(self.history)}
        files.save_tensors(tensors, self.checkpoint, {"run": json.dumps(notes)})

    def resume(self):
        if not (self.checkpoint and self.checkpoint.exists()):
            return
        tensors, metadata = files.load_tensors(self.checkpoint)
        notes = json.loads(metadata["run"])
        if notes["recipe"] != _plain(self.recipe):
            raise ValueError(
                f"checkpoint {self.checkpoint} was made with another recipe "
                f"({notes['recipe']}); delete it to start afresh"
            )
        self._check_shapes(tensors)
        self.history = History(**notes["history"])
        self.history.evaluations = [tuple(pair) for pair in self.history.evaluations]
        self._load(tensors)

    def _check_shapes(self, tensors):
        for name, parameter in self.parameters.items():
            saved = tensors.get(f"model.{name}")
            if saved is None or saved.shape != parameter.shape:
                raise ValueError(
                    f"checkpoint {self.checkpoint} belongs to another model: {name} does not "
                    "fit; delete it to start afresh"
                )

    def _load(self, tensors):
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(tensors[f"model.{name}"])
        self.best = {k[5:]: t for k, t in tensors.items() if k.startswith("best.")}
        state = self.optimizer.state_dict()
        for key, tensor in tensors.items():
            if key.startswith("optimizer."):
                _, index, name = key.split(".")
                state["state"].setdefault(int(index), {})[name] = tensor
        self.optimizer.load_state_dict(state)
        torch.set_rng_state(tensors["rng"])


def _plain(recipe):
    """Return a recipe as JSON gives it back."""
    return json.loads(json.dumps(asdict(recipe)))
