"""A stack of layers, walked from first to last: each one sees what the changed ones before make.

Memory holds the inputs of one layer, and a copy of one layer: the model itself stays as it is.
"""

import copy
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress

import torch
from torch import nn

from lightcourse import asking, layers
from lightcourse.calibration import checking_ids, observe_inputs
from lightcourse.surgery import layer_stacks


class Walk:
    """The layers of a model's one stack, and what they are given on some text.

    Parameters
    ----------
    model : nn.Module
        Runs once over the batches, in evaluation mode; unchanged.
    batches : iterable of dict
        Keyword arguments for the model; ``labels`` are left out. Tokens where
        ``attention_mask`` is 0 do not count.

    Attributes
    ----------
    stack : str
        The stack's name.
    tokens : int
        How many count.

    Raises
    ------
    ValueError
        When there is no batch, no stack or more than one, a token is outside of the
        vocabulary, a layer returns NaN or infinity, or the layers do not simply hand one
        tensor on to the next.
    """

    def __init__(self, model, batches):
        stacks = layer_stacks(model)
        if len(stacks) > 1:
            raise ValueError(f"model has the stacks {list(stacks)}; a model with one is wanted")
        (self.stack,) = stacks
        self.blocks, self.steps, self.tokens = stacks[self.stack], [], 0
        with layers.evaluating(model), torch.no_grad():
            for inputs in asking.inputs_of_each(batches):
                seen = _run(model, self.blocks, inputs)
                self.steps.append(_Step(inputs.get("attention_mask"), *seen))
                self.tokens += self.steps[-1].tokens

    def holds(self, name: str) -> bool:
        """Tell whether a module lies in the stack."""
        return name.startswith(f"{self.stack}.")

    def __iter__(self) -> Iterator["Place"]:
        """Go from layer to layer; a place is to be left changed for those after it."""
        for index, block in enumerate(self.blocks):
            place = Place(f"{self.stack}.{index}", copy.deepcopy(block), self.steps, index)
            yield place
            with layers.evaluating(place.block), torch.no_grad():
                for step in self.steps:
                    step.hidden = step.after(place.block, index)


class Place:
    """A copy of one layer of a stack, that may be changed, and its inputs.

    Parameters
    ----------
    name : str
    block : nn.Module
    steps : list
    index : int
    """

    def __init__(self, name, block, steps, index):
        self.name, self.block, self._steps, self._index = name, block, steps, index
        self._twice = set()

    def turns(self, names: Collection[str]) -> list[list[str]]:
        """Return the linear layers among ``names``, those together that get the same input.

        In the order in which they run; names as in the model. Those that do not run are absent.
        """
        found, order = self._linear(names), []

        def note(layer, inputs):
            name = next(name for name, module in found.items() if module is layer)
            order.append((inputs[0], name))  # kept: its memory may serve no other meanwhile

        hooks = [layer.register_forward_pre_hook(note) for layer in found.values()]
        try:
            with layers.evaluating(self.block), torch.no_grad():
                self._steps[0].after(self.block, self._index)
        finally:
            for hook in hooks:
                hook.remove()
        counts = Counter(name for _, name in order)
        self._twice = {name for name, times in counts.items() if times > 1}
        return _neighbours(order)

    def observe(self, name: str, fold: Callable) -> object:
        """Fold the inputs of a linear layer, as ``observe_inputs`` does for a model.

        What comes behind it in the transformer layer is not run, unless it runs twice.
        """
        found = self._linear([name])
        replayed = _Replay(self.block, self._index)
        batches = [{"step": step, "attention_mask": step.mask} for step in self._steps]
        hooks = [] if name in self._twice else [self.layer(name).register_forward_hook(_stop)]
        try:
            return observe_inputs(replayed, batches, found, fold)[name]
        finally:
            for hook in hooks:
                hook.remove()

    def layer(self, name: str) -> nn.Module:
        """Return the copy of a linear layer by its name in the model."""
        return self.block.get_submodule(name.removeprefix(f"{self.name}."))

    def _linear(self, names):
        return {name: self.layer(name) for name in names if name.startswith(f"{self.name}.")}


class _Replay(nn.Module):
    def __init__(self, block, index):
        super().__init__()
        self.block, self.index = block, index

    def forward(self, step, attention_mask):
        """Run the layer on a batch until all is seen; the mask is for whoever observes."""
        with suppress(_Seen):
            step.after(self.block, self.index)


class _Seen(Exception):
    """Nothing that comes later in the layer is asked for."""


def _stop(layer, inputs, output):
    raise _Seen


class _Step:
    """A batch on its way through the stack: the one tensor that changes, and all arguments."""

    def __init__(self, mask, hidden, arguments):
        self.mask, self.hidden, self.arguments = mask, hidden, arguments
        rows = hidden.shape[:-1].numel()
        self.tokens = int(mask.bool().sum()) if mask is not None and mask.numel() == rows else rows

    def after(self, block, index):
        """Return what a layer makes of the hidden states."""
        args, kwargs = self.arguments[index]
        return _first(block(self.hidden, *args, **kwargs))


def _run(model, blocks, inputs):
    """Return the first layer's hidden states, and all layers' other arguments."""
    seen, outputs = [], []
    hooks = [block.register_forward_pre_hook(_noter(seen), with_kwargs=True) for block in blocks]
    hooks += [block.register_forward_hook(_collector(outputs)) for block in blocks]
    try:
        with checking_ids(model):
            model(**inputs)
    finally:
        for hook in hooks:
            hook.remove()
    hidden = [args[0] if args else None for _, args, _ in seen]
    _check_finite(outputs)
    order = [id(block) for block, *_ in seen]
    if order != [id(block) for block in blocks] or not all(map(_same, hidden[1:], outputs)):
        raise ValueError(
            f"model is a {type(model).__name__}, whose layers do not each run once, on nothing "
            "but what the one before returned; hand the integers of gptq to quantize_ instead"
        )
    return hidden[0], [(args[1:], kwargs) for _, args, kwargs in seen]


def _noter(seen):
    def note(block, args, kwargs):
        args = [_without_cache(value) for value in args]
        kwargs = {name: _without_cache(value) for name, value in kwargs.items()}
        if not args and "hidden_states" in kwargs:
            args = [kwargs.pop("hidden_states")]
        seen.append((block, args, kwargs))

    return note


def _collector(outputs):
    return lambda block, inputs, output: outputs.append(_first(output))


def _check_finite(outputs):
    for index, output in enumerate(outputs):
        if not torch.isfinite(output).all():
            raise ValueError(f"layer {index} returns NaN or infinity; finite values are wanted")


def _same(hidden, output):
    return hidden is not None and torch.equal(hidden, output)


def _without_cache(value):
    """Return None for a cache of keys and values: it would grow by each run of the layer."""
    return None if "Cache" in type(value).__name__ else value


def _first(output):
    return output[0] if isinstance(output, tuple) else output


def _neighbours(order):
    """Return the names of neighbours that were given one tensor, in lists."""
    turns, before = [], None
    for tensor, name in order:
        if before is None or tensor.data_ptr() != before.data_ptr():
            turns.append([])
        turns[-1].append(name)
        before = tensor
    return turns
