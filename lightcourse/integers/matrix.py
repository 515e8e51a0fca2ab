"""A matrix held as integers: what a quantized layer and a quantized table have in common."""

import weakref

import torch
from torch import nn

from lightcourse.integers import unpacking
from lightcourse.integers.unpacking import offset
from lightcourse.read_only import read_only

# What torch's function for moving a model has moved already. One function serves a whole model:
# what a table and its output layer share is moved once, and stays shared.
_moved = weakref.WeakKeyDictionary()


class IntegerMatrix(nn.Module):
    """The buffers of a quantized module, and how they are read.

    A subclass names its ``SETTINGS`` and ``BUFFERS``, and has the property ``shape``, (rows,
    columns).

    Attributes
    ----------
    qweight : Tensor of uint8
        In the order of :mod:`lightcourse.panels`, filled up to whole panels.
    scale : Tensor
        Above 4 bits float32 of shape (rows, groups); up to 4 bits, and for integer kernels in
        groups, float16 in the order of panels.
    zero_point : Tensor of uint8, or None
        None where it is 0 everywhere; else in the order of ``scale``, with the offset that
        ``qweight`` has: 128, or 8 up to 4 bits.
    dtype : torch.dtype
        Of the floats that were replaced.
    """

    SETTINGS = ()
    BUFFERS = ("qweight", "scale", "zero_point")

    def hold(self, settings: dict, buffers: dict) -> None:
        """Take settings and buffers as they are; a buffer that is missing is None."""
        for name in self.SETTINGS:
            setattr(self, name, settings[name])
        for name in self.BUFFERS:
            self.register_buffer(name, buffers.get(name))

    @classmethod
    def from_parts(cls, settings: dict, buffers: dict) -> "IntegerMatrix":
        """Build a module around buffers that are there already, without quantizing."""
        module = cls.__new__(cls)
        nn.Module.__init__(module)
        module.hold(settings, buffers)
        return module

    def settings(self) -> dict:
        """Return what :meth:`from_parts` needs beside the buffers."""
        return {name: getattr(self, name) for name in self.SETTINGS}

    @property
    def symmetric(self) -> bool:
        """Whether every zero point is 0."""
        return self.zero_point is None

    def integers(self) -> torch.Tensor:
        """Return the stored integers, unpacked: int8 of shape (rows, columns)."""
        stored = unpacking.stored(self.qweight, self.shape, self.bits)
        return (stored.to(torch.int16) - offset(self.bits)).to(torch.int8)

    def scales(self) -> torch.Tensor:
        """Return the scales as float32 of shape (rows, groups)."""
        return unpacking.by_row(self.scale, self.shape[0]).float()

    def zero_points(self) -> torch.Tensor:
        """Return the zero points as int32 of shape (rows, groups)."""
        if self.zero_point is None:
            return torch.zeros_like(self.scales(), dtype=torch.int32)
        zero_point = unpacking.by_row(self.zero_point, self.shape[0])
        return zero_point.to(torch.int32) - offset(self.bits)

    def dequantize(self) -> torch.Tensor:
        """Return the float32 matrix of shape (rows, columns) that is stored."""
        buffers = self.qweight, self.scale, self.zero_point
        return unpacking.dequantize(*buffers, self.shape, self.bits)

    def _apply(self, fn, recurse=True):
        """Follow the model to another device; its dtype decides about the output alone."""
        self.dtype = fn(torch.empty(0, dtype=self.dtype, device=self.qweight.device)).dtype
        moved = _moved.setdefault(fn, {})

        def move(held):
            if id(held) not in moved:
                device = fn(held.new_empty(0)).device
                new = torch.empty_like(held, device=device) if held.is_meta else held.to(device)
                moved[id(held)] = held, new
            return moved[id(held)][1]

        return super()._apply(move, recurse)

    @property
    def weight(self) -> torch.Tensor:
        """The stored matrix as floats of :attr:`dtype`, made anew at each reading.

        For code that reads a layer's weight instead of calling it: T5 asks for its dtype,
        ``nn.MultiheadAttention`` multiplies by it. It has no gradient, since integers cannot
        move by small steps: train a LoRA beside it (:func:`lightcourse.lora.add_lora_`).
        """
        return read_only(self.dequantize().to(self.dtype))


def integer_matrices(model: nn.Module) -> dict[str, IntegerMatrix]:
    """Return all layers and tables of a model that store integers, by name."""
    return {name: m for name, m in model.named_modules() if isinstance(m, IntegerMatrix)}
