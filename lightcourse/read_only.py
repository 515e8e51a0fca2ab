"""A matrix that was made to be looked at: to write into it would change nothing."""

import torch
from torch.utils._pytree import tree_map

WRITES = ("__setitem__", "__set__")
# What gives another view of the same numbers, which must not be written either.
VIEWS = (torch.Tensor.data.__get__, torch.Tensor.detach)


class ReadOnly(torch.Tensor):
    """The weight of a layer that holds none: computed at each reading, and refusing writes.

    Every function of torch takes it and returns ordinary tensors; gradients flow to what it
    was computed from. torch's fast paths, which would read it instead of calling the layer,
    step aside for it.

    Examples
    --------
    >>> weight = torch.ones(2, 2).as_subclass(ReadOnly)
    >>> (weight + 1).tolist()
    [[2.0, 2.0], [2.0, 2.0]]
    >>> weight.zero_()
    Traceback (most recent call last):
        ...
    RuntimeError: zero_ would change nothing: this weight is made anew at each reading, from \
integers or beside a LoRA. Call dequantize_ or merge_lora_ first, or train a LoRA beside it
    """

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        """Call a function with ordinary tensors in place of these, unless it writes."""
        name = function.__name__
        if name in WRITES or (name.endswith("_") and not name.endswith("__")):
            raise RuntimeError(
                f"{name} would change nothing: this weight is made anew at each reading, from "
                "integers or beside a LoRA. Call dequantize_ or merge_lora_ first, or train a LoRA "
                "beside it"
            )
        args, kwargs = tree_map(_plain, (args, kwargs or {}))
        result = function(*args, **kwargs)
        return result.as_subclass(cls) if function in VIEWS else result


def read_only(tensor: torch.Tensor) -> torch.Tensor:
    """Return a matrix as :class:`ReadOnly`; while torch traces, as it is."""
    if torch.compiler.is_compiling() or type(tensor) is not torch.Tensor:
        return tensor
    weight = tensor.as_subclass(ReadOnly)
    weight._is_hf_initialized = True  # transformers would fill it at random after loading
    return weight


def _plain(value):
    with torch._C.DisableTorchFunctionSubclass():
        return value.as_subclass(torch.Tensor) if isinstance(value, ReadOnly) else value
