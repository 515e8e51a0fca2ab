"""A linear layer that stores integers, and multiplies by them."""

import torch
from torch import nn

from lightcourse import panels
from lightcourse.integers import IntegerMatrix, pack
from lightcourse.integers.unpacking import is_traced
from lightcourse.quantization import onnx_form
from lightcourse.quantization.affine import choose_qparams_affine_with_min_max, fake_quantize
from lightcourse.quantization.products import multiply, multiply_floats
from lightcourse.quantization.rounding import round_to_nearest


class QuantizedLinear(IntegerMatrix):
    """A linear layer that stores integers: int8, or two 4-bit values a byte.

    Gradients flow to the input, never to the integers: LoRA can train beside the layer. In
    what ``torch.export`` and ``torch.compile`` capture, integer kernels are the operator
    ``lightcourse::linear_integers``, which importing this module registers; ``torch.onnx.export``
    writes ONNX's own operators.

    Parameters
    ----------
    weight : Tensor of shape (out_features, in_features)
    bias : Tensor of shape (out_features,), optional
        Kept in floating point.
    bits : int
        2 to 8; up to 4 bits share a byte by twos, 5 to 8 take one each.
    group_size : int, optional
        Inputs that share a scale; one scale a row without it.
    activations : {None, 8}
        None: the matrix is turned back into floats, and multiplied as floats: smaller in
        memory, not faster. 8: the inputs are quantized to int8 too, and integers multiply
        integers, on the CPU: row by row (:func:`lightcourse.kernels.linear_w8a8` above 4 bits,
        :func:`lightcourse.kernels.linear_w4a8` up to 4), or above 4 bits with a
        ``group_size`` in the same groups
        (:func:`lightcourse.kernels.linear_w8a8_grouped`; 8 bits in groups of 32 err as
        little as ggml's Q8_0). A row of inputs that
        holds NaN or infinity gives a row of NaN: neither is rounded to a number.
    symmetric : bool
        True: every zero point is 0. False: the integers span each group's smallest to
        largest value, or 0 where that lies outside.
    activation_range : (float, float), optional
        With ``activations=8``: the inputs are rounded to one fixed 8-bit grid for the range
        from low to high, whatever comes ("static"). That is computed with floats: the
        numbers are those of an integer kernel, its speed is not.
    choose_qparams : callable, optional
        As in :func:`round_to_nearest`, which finds the integers; to hand over finished ones,
        see :meth:`from_integers`.

    Attributes
    ----------
    qweight : Tensor of uint8
        In the order of :mod:`lightcourse.panels`, filled up to whole panels.
    scale : Tensor
        Above 4 bits float32 of shape (out_features, groups); up to 4 bits, and for integer
        kernels in groups, float16 in the order of panels.
    zero_point : Tensor of uint8, or None
        None if symmetric; else in the order of ``scale``, plus 128 (plus 8 up to 4 bits).

    Raises
    ------
    ValueError
        When ``bits`` is out of range, ``group_size`` does not divide the inputs or is not
        one that integer kernels know, no kernel knows zero points of that many bits,
        ``activations`` is neither None nor 8, or the weight is empty or not finite.
    """

    SETTINGS = ("out_features", "in_features", "bits", "group_size", "activations", "dtype")
    BUFFERS = (*IntegerMatrix.BUFFERS, "bias", "input_scale", "input_zero_point")

    def __init__(
        self,
        weight,
        bias=None,
        bits=8,
        group_size=None,
        activations=None,
        symmetric=True,
        *,
        activation_range=None,
        choose_qparams=None,
    ):
        super().__init__()
        grid = _input_grid(activations, activation_range)
        if activations == 8 and not grid:
            _check_kernel(bits, group_size, symmetric)
        q, scale, zero_point = round_to_nearest(weight, bits, group_size, symmetric, choose_qparams)
        halves = activations == 8 and not grid and group_size is not None
        buffers = pack(q.to(weight.device), scale, zero_point, bits, halves)
        values = (*weight.shape, bits, group_size, activations, weight.dtype)
        self._fill(values, buffers | grid, bias)

    @classmethod
    def from_integers(
        cls,
        q: torch.Tensor,
        scale: torch.Tensor,
        zero_point: torch.Tensor | None,
        bits: int,
        bias: torch.Tensor | None = None,
        activations: int | None = None,
        activation_range: tuple[float, float] | None = None,
    ) -> "QuantizedLinear":
        """Build a layer of finished integers, as GPTQ or training on the grid leaves them.

        Parameters
        ----------
        q, scale, zero_point, bits
            As in :func:`lightcourse.integers.pack`.
        bias, activations, activation_range
            As in :class:`QuantizedLinear`.

        Returns
        -------
        QuantizedLinear
            Its :attr:`weight` is float32; ``layer.to(dtype)`` shows it in another dtype.

        Raises
        ------
        ValueError
            As :func:`lightcourse.integers.pack` and :class:`QuantizedLinear`.
        """
        layer = cls.__new__(cls)
        nn.Module.__init__(layer)
        grid = _input_grid(activations, activation_range)
        halves = activations == 8 and not grid and scale.ndim == 2 and scale.shape[1] > 1
        buffers = pack(q, scale, zero_point, bits, halves)
        group_size = None if scale.shape[1] == 1 else q.shape[1] // scale.shape[1]
        if activations == 8 and not grid:
            _check_kernel(bits, group_size, zero_point is None)
        values = (*q.shape, bits, group_size, activations, torch.float32)
        layer._fill(values, buffers | grid, bias)
        return layer

    def _fill(self, values, buffers, bias):
        settings = dict(zip(self.SETTINGS, values, strict=True))
        wanted = (settings["out_features"],)
        if bias is not None and bias.shape != wanted:
            raise ValueError(f"bias has shape {tuple(bias.shape)}; {wanted} is wanted")
        bias = None if bias is None else bias.detach().clone()
        self.hold(settings, buffers | {"bias": bias})

    @property
    def shape(self) -> tuple[int, int]:
        """The matrix's (rows, columns)."""
        return self.out_features, self.in_features

    @property
    def static(self) -> bool:
        """Whether the inputs are rounded to a fixed grid."""
        # Not self.input_scale: to ask a module for a buffer takes a microsecond at each call.
        return self._buffers["input_scale"] is not None

    @property
    def multiplies_integers(self) -> bool:
        """Whether an integer kernel multiplies, and not floats."""
        return self.activations == 8 and not self.static

    def forward(self, x):
        """Return ``x @ weight.T + bias`` in ``x``'s dtype, for ``x`` of (..., in_features)."""
        if is_traced(x) and torch.onnx.is_in_onnx_export():
            return onnx_form.linear(x, self)
        if self.multiplies_integers:
            return multiply(x, self)
        if self.static:
            x = fake_quantize(x, self.input_scale, self.input_zero_point)
        return multiply_floats(x, self)

    def extra_repr(self):
        """Describe the layer the way torch prints it."""
        shape = f"{self.in_features}, {self.out_features}"
        how = f"bits={self.bits}, group_size={self.group_size}, activations={self.activations}"
        more = ", static" * self.static + ", symmetric=False" * (not self.symmetric)
        return f"{shape}, {how}{more}"


def _input_grid(activations, activation_range):
    """Return the buffers for a fixed grid of inputs: none where there is no such grid."""
    if activations not in (None, 8) or isinstance(activations, float):
        hint = "; ranges of calibrate go into activation_ranges" * isinstance(activations, dict)
        raise ValueError(f"activations is {activations}; None or 8 is wanted{hint}")
    if activation_range is None:
        return {}
    if activations is None:
        raise ValueError("activations is None; with ranges for the activations, 8 is wanted")
    if not isinstance(activation_range, tuple | list) or len(activation_range) != 2:
        raise ValueError(f"activation_range is {activation_range}; (low, high) is wanted")
    scale, zero_point = choose_qparams_affine_with_min_max(*activation_range)
    return {"input_scale": scale, "input_zero_point": zero_point}


def _check_kernel(bits, group_size, symmetric):
    """Raise where no integer kernel computes what is asked for."""
    if bits > 4 and not symmetric:
        raise ValueError("symmetric is False; above 4 bits, int8 activations want True")
    if group_size is not None and group_size % panels.BLOCK_W4:
        raise ValueError(f"group_size is {group_size}; int8 activations want a multiple of 32")
