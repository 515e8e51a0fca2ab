"""The one training loop: fine-tuning, recovery after pruning and distillation all use it."""

import itertools
import json
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import nn

from lightcourse import files


@dataclass(frozen=True)
class Recipe:
    """How to train: everything but the model, the data and the loss.

    Parameters
    ----------
    steps : int
        Optimizer steps at most.
    learning_rate : float
        Peak rate of AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101).
    warmup : int
        Steps over which the rate climbs from 0; a half cosine then takes it back to 0.
    weight_decay : float
        Applied to matrices only, never to biases and norms.
    clip : float
        Gradients of a larger norm are scaled down to this one.
    evaluate_every : int
        Steps between two evaluations and between two checkpoints; 0 means only at the end.
    patience : int
        Stop after so many evaluations in a row without improvement; 0 means never.
    seed : int
        Decides dropout and, through ``batches(epoch, seed)``, the order of the data.
    """

    steps: int
    learning_rate: float = 5e-4
    warmup: int = 0
    weight_decay: float = 0.0
    clip: float = 1.0
    evaluate_every: int = 0
    patience: int = 0
    seed: int = 0

    def __post_init__(self):
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}; at least 1 is wanted")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate is {self.learning_rate}; a positive number is wanted")

    def rate(self, step: int) -> float:
        """Return the learning rate of step ``step`` (counted from 0)."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


@dataclass
class History:
    """What happened: the loss of every step, and (step, score) of every evaluation."""

    losses: list[float] = field(default_factory=list)
    evaluations: list[tuple[int, float]] = field(default_factory=list)
    stopped_early: bool = False

    @property
    def best(self) -> float:
        """The lowest score so far; infinity before the first evaluation."""
        return min((score for _, score in self.evaluations), default=math.inf)

    def evaluations_without_progress(self) -> int:
        """Return how many evaluations have passed since the best one."""
        scores = [score for _, score in self.evaluations]
        return len(scores) - 1 - scores.index(min(scores)) if scores else 0


def model_loss(model: nn.Module, batch: dict) -> torch.Tensor:
    """Return the loss that a Hugging Face model computes when it is given labels."""
    return model(**batch).loss


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that a training step would change, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def train(
    model: nn.Module,
    batches: Callable[[int, int], Iterable[dict]],
    recipe: Recipe,
    loss: Callable[[nn.Module, dict], torch.Tensor] = model_loss,
    evaluate: Callable[[nn.Module], float] | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> History:
    """Train ``model`` in place and return what happened.

    Parameters
    ----------
    model : nn.Module
        Only parameters with ``requires_grad`` are trained. Left in evaluation mode.
    batches : callable
        ``batches(epoch, seed)`` yields the batches of one epoch, the same ones for the
        same arguments; :mod:`lightcourse.data` makes such callables.
    recipe : Recipe
        Steps, learning rate, seed.
    loss : callable
        ``loss(model, batch)`` returns a scalar; distillation is another loss, not
        another loop.
    evaluate : callable, optional
        ``evaluate(model)`` returns a score, *lower is better*. With it the model ends
        with the weights of its best evaluation, not of its last step.
    checkpoint : path, optional
        A safetensors file written at each evaluation. Where it exists already, training
        goes on from it, with the result an uninterrupted run would have had.
    progress : bool
        Show a progress bar.

    Raises
    ------
    ValueError
        When nothing is trainable, the data are empty, the loss is not finite, or the
        checkpoint belongs to another recipe.
    """
    run = _Run(model, recipe, evaluate, Path(checkpoint) if checkpoint else None)
    run.resume()
    try:
        with _progress_bar(recipe.steps, run.step, progress) as bar:
            stream = _stream(batches, recipe.seed, run.step)
            while not run.finished():
                run.take_step(loss, next(stream))
                bar.set_postfix(loss=f"{run.history.losses[-1]:.3f}", refresh=False)
                bar.update()
    finally:
        model.eval()
    run.restore_best()
    return run.history


def _progress_bar(steps, done, progress):
    from tqdm.auto import tqdm

    # In notebooks tqdm overlooks its own variable TQDM_DISABLE, which silences a whole run.
    disable = not progress or os.environ.get("TQDM_DISABLE", "0") != "0"
    return tqdm(total=steps, initial=done, desc="training", disable=disable)


def _stream(batches, seed, skip):
    """Yield batches for ever, epoch after epoch, without the first ``skip``."""
    for epoch in itertools.count():
        empty = True
        for batch in batches(epoch, seed):
            empty = False
            if skip:
                skip -= 1
            else:
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
        self.optimizer = torch.optim.AdamW(self._groups(), lr=recipe.learning_rate)
        self.history = History()
        self.best = {}
        torch.manual_seed(recipe.seed)

    def _groups(self):
        matrices = [p for p in self.parameters.values() if p.ndim >= 2]
        rest = [p for p in self.parameters.values() if p.ndim < 2]
        return [
            {"params": matrices, "weight_decay": self.recipe.weight_decay},
            {"params": rest, "weight_decay": 0.0},
        ]

    @property
    def step(self):
        return len(self.history.losses)

    def finished(self):
        return self.step >= self.recipe.steps or self.history.stopped_early

    def take_step(self, loss, batch):
        self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.rate(self.step)
        value = loss(self.model, batch)
        if not torch.isfinite(value):
            raise ValueError(
                f"the loss became {value.item()} at step {self.step}; "
                f"a learning_rate below {self.recipe.learning_rate} may help"
            )
        self.optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(self.parameters.values(), self.recipe.clip)
        self.optimizer.step()
        self.history.losses.append(value.item())
        every = self.recipe.evaluate_every
        if self.step == self.recipe.steps or (every and self.step % every == 0):
            self._pause()

    def _pause(self):
        """Evaluate, remember the best weights, decide whether to stop, and save."""
        if self.evaluate:
            self.model.eval()
            with torch.no_grad():
                score = float(self.evaluate(self.model))
            if score < self.history.best:
                self.best = {k: p.detach().clone() for k, p in self.parameters.items()}
            self.history.evaluations.append((self.step, score))
            waited = self.history.evaluations_without_progress()
            self.history.stopped_early = 0 < self.recipe.patience <= waited
        if self.checkpoint:
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
        notes = {"recipe": asdict(self.recipe), "history": asdict(self.history)}
        files.save_tensors(self.checkpoint, tensors, {"run": json.dumps(notes)})

    def resume(self):
        if not (self.checkpoint and self.checkpoint.exists()):
            return
        tensors, metadata = files.load_tensors(self.checkpoint)
        notes = json.loads(metadata["run"])
        if notes["recipe"] != asdict(self.recipe):
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
