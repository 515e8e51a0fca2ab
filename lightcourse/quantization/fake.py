"""A linear layer that trains on the grid: floats that answer as integers will."""

import torch
from torch import nn
from torch.nn import functional as F

from lightcourse.integers import pack, quant_range
from lightcourse.quantization.affine import into_groups
from lightcourse.quantization.blocks import Coded
from lightcourse.quantization.codebook import CodebookLinear
from lightcourse.quantization.layer import QuantizedLinear
from lightcourse.quantization.learned_steps import gradient_scale, lsq, stored_step
from lightcourse.quantization.simulated import linear_integers

TERNARY = "ternary"


class FakeQuantizedLinear(nn.Linear):
    """A linear layer whose weight is rounded in each call, and trains as if it were not.

    It answers what the layer will answer that :meth:`converted` makes of it, bit for bit:
    with integer kernels for the inputs, on their portable path.

    Parameters
    ----------
    weight : nn.Parameter of shape (out_features, in_features)
        Kept as it is: other code that holds it (a mask, an optimizer) goes on to hold it.
    bias : nn.Parameter, optional
    bits : int or "ternary"
        2 to 8; or three levels, -1, 0 and 1, stored in 2 bits.
    step : Tensor of shape (out_features, groups)
        Where the steps of the grid start.
    activations : {None, 8}
        As in :class:`QuantizedLinear`.
    input_grid : (Tensor, Tensor), optional
        With ``activations=8``: scale and zero point of one grid for all inputs, whose step
        learns, too.

    Attributes
    ----------
    step : nn.Parameter of shape (out_features * groups,)
        Flat, so that a recipe's weight decay leaves it alone. It learns as LSQ's steps do
        (:func:`lsq`); frozen, it stays.
    input_step : nn.Parameter without dimensions, or None
    """

    def __init__(self, weight, bias, bits, step, activations=None, input_grid=None):
        nn.Module.__init__(self)
        self.out_features, self.in_features = weight.shape
        self.weight, self.bias = weight, bias
        self.grid, self.bits = bits, 2 if bits == TERNARY else bits
        self.step = nn.Parameter(step.detach().float().flatten().clone())
        self.groups, self.activations = step.shape[1], activations
        scale, zero_point = input_grid or (None, None)
        self.input_step = None if scale is None else nn.Parameter(scale.detach().clone())
        self.register_buffer("input_zero_point", zero_point)

    @property
    def ends(self) -> tuple[int, int]:
        """The smallest and the largest integer of the weight's grid."""
        return grid_ends(self.grid)

    @property
    def static(self) -> bool:
        """Whether the inputs are rounded to one grid, whatever comes."""
        return self.input_step is not None

    @property
    def halves(self) -> bool:
        """Whether scales are stored as float16."""
        return self.bits <= 4 or (self._on_integers() and self.groups > 1)

    def _on_integers(self):
        return self.activations == 8 and not self.static

    def steps(self) -> torch.Tensor:
        """Return the steps as they will be stored: float32 of shape (out_features, groups)."""
        if self.step.numel() != len(self.weight) * self.groups:
            raise ValueError(
                f"weight has {len(self.weight)} rows now, but steps for "
                f"{self.step.numel() // self.groups}; remove rows first, then prepare_qat_"
            )
        step = self.step.view(self.out_features, self.groups)
        return stored_step(step, 4 if self.halves else self.bits)

    def on_grid(self, steps: torch.Tensor) -> torch.Tensor:
        """Return the weight on the grid of such steps, float32."""
        groups = into_groups(self.weight.float(), self.in_features // self.groups)
        scale = gradient_scale(groups.shape[-1], self.ends[1])
        return lsq(groups, steps[..., None], *self.ends, scale).flatten(1)

    def forward(self, x):
        """Return what the converted layer will answer, for ``x`` of (..., in_features)."""
        steps = self.steps()
        weight = self.on_grid(steps)
        if self._on_integers():
            return linear_integers(x, weight, steps, self.bias, self.bits)
        if self.static:
            x = self._rounded(x)
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.linear(x, weight.to(x.dtype), bias)

    def _rounded(self, x):
        """Round the inputs to their own grid; its integers are counted from the zero point."""
        quant_min, quant_max = (end - int(self.input_zero_point) for end in quant_range(8))
        scale = gradient_scale(self.in_features, 127)
        return lsq(x, stored_step(self.input_step, 8), quant_min, quant_max, scale)

    @torch.no_grad()
    def converted(self, codes: bool = False) -> QuantizedLinear | CodebookLinear:
        """Return the layer of integers that answers as this one.

        Parameters
        ----------
        codes : bool
            As in :func:`convert_qat_`.

        Raises
        ------
        ValueError
            When the weight or a step is not finite.
        """
        self._check_finite()
        steps, size = self.steps(), self.in_features // self.groups
        groups = into_groups(self.weight.float(), size)
        q = (groups / steps[..., None]).round().clamp(*self.ends).flatten(1)
        if codes and self.activations is None and self.bits < 4 and self.in_features % 8 == 0:
            return self._coded(q, steps)
        buffers = pack(q.to(torch.int8), steps, None, self.bits, self.bits > 4 and self.halves)
        if self.static:
            buffers["input_scale"] = stored_step(self.input_step, 8)
            buffers["input_zero_point"] = self.input_zero_point.clone()
        buffers["bias"] = None if self.bias is None else self.bias.clone()
        size = None if self.groups == 1 else size
        values = self.out_features, self.in_features, self.bits, size, self.activations
        settings = dict(zip(QuantizedLinear.SETTINGS, (*values, self.weight.dtype), strict=True))
        return QuantizedLinear.from_parts(settings, buffers)

    def _coded(self, q, steps):
        levels = torch.arange(self.ends[0], self.ends[1] + 1, dtype=torch.float32)
        codes = (q - self.ends[0]).to(torch.uint8)
        coded = Coded(codes.cpu(), levels, steps.half().cpu())
        return CodebookLinear(coded, self.bias, self.weight.dtype).to(self.weight.device)

    def _check_finite(self):
        for name, tensor in self.named_parameters():
            if not torch.isfinite(tensor).all():
                raise ValueError(f"{name} holds NaN or infinity; finite values are wanted")

    def extra_repr(self):
        """Describe the layer the way torch prints it."""
        shape = f"{self.in_features}, {self.out_features}, bias={self.bias is not None}"
        how = f"bits={self.grid}, groups={self.groups}, activations={self.activations}"
        return f"{shape}, {how}" + ", static" * self.static


def grid_ends(bits: int | str) -> tuple[int, int]:
    """Return the smallest and the largest integer of a grid: of so many bits, or ternary."""
    return (-1, 1) if bits == TERNARY else quant_range(bits)
