"""A linear layer whose weights are codes of a codebook, and the verb that puts it in."""

from collections.abc import Callable, Collection, Mapping

import torch
from torch import nn
from torch.nn import functional as F

from lightcourse import kernels, layers, panels, pretrained
from lightcourse.integers import IntegerMatrix
from lightcourse.integers.unpacking import is_traced
from lightcourse.quantization.blocks import Coded, nf4
from lightcourse.quantization.plan import plan_bits
from lightcourse.quantization.products import multiply_floats
from lightcourse.quantization.verbs import share_biases, stored_bytes

# So few rows are multiplied as they are looked up; for more, to look all up first is faster.
# Measured on an Intel Xeon (Granite Rapids, one thread) with a matrix of 1536 x 576.
FEW_ROWS = 8


class CodebookLinear(IntegerMatrix):
    """A linear layer that stores codes, a scale for each block, and the levels.

    Parameters
    ----------
    coded : Coded
        Of the weight; its columns are a multiple of 8.
    bias : Tensor of shape (out_features,), optional
        Kept in floating point.
    dtype : torch.dtype
        Of the weight that is replaced.

    Attributes
    ----------
    qweight : Tensor of uint8, shape (out_features, in_features * bits / 8)
        The codes, without room between them (:func:`lightcourse.panels.pack_codes`).
    scale : Tensor, shape (out_features, blocks) or (1, 1)
        In the format that they were chosen for.
    levels : Tensor of float32, shape (2**bits,)

    Raises
    ------
    ValueError
        When the columns are no multiple of 8, or the bias does not fit.
    """

    SETTINGS = ("out_features", "in_features", "bits", "factor", "dtype")
    BUFFERS = ("qweight", "scale", "levels", "bias")
    symmetric = True  # there is no zero point
    multiplies_integers = False

    def __init__(
        self,
        coded: Coded,
        bias: torch.Tensor | None = None,
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__()
        rows, columns = coded.codes.shape
        if bias is not None and bias.shape != (rows,):
            raise ValueError(f"bias has shape {tuple(bias.shape)}; ({rows},) is wanted")
        levels = coded.levels
        levels = F.pad(levels[None], (0, 2**coded.bits - len(levels)), mode="replicate")[0]
        packed = torch.from_numpy(panels.pack_codes(coded.codes.numpy(), coded.bits))
        bias = None if bias is None else bias.detach().clone()
        settings = rows, columns, coded.bits, coded.factor, dtype
        buffers = packed, coded.scale, levels, bias
        self.hold(
            dict(zip(self.SETTINGS, settings, strict=True)),
            dict(zip(self.BUFFERS, buffers, strict=True)),
        )

    @property
    def shape(self) -> tuple[int, int]:
        """The matrix's (rows, columns)."""
        return self.out_features, self.in_features

    def integers(self) -> torch.Tensor:
        """Return the codes, unpacked: uint8 of shape (rows, columns)."""
        if is_traced(self.qweight):
            return _unpacked(self.qweight, self.bits)
        codes = panels.unpack_codes(self.qweight.cpu().numpy(), self.bits)
        return torch.from_numpy(codes).to(self.qweight.device)

    def scales(self) -> torch.Tensor:
        """Return the scales as float32 of shape (rows, blocks)."""
        return (self.scale.float() * self.factor).expand(self.out_features, -1)

    def dequantize(self) -> torch.Tensor:
        """Return the float32 matrix of shape (rows, columns) that is stored."""
        return Coded(self.integers(), self.levels, self.scale, self.factor).read_back()

    def forward(self, x):
        """Return ``x @ weight.T + bias`` in ``x``'s dtype, for ``x`` of (..., in_features)."""
        if self._looks_up(x):
            arrays = (part.numpy() for part in (self.qweight, self.levels, self.scales()))
            y = kernels.linear_codebook(x.reshape(-1, self.in_features).float().numpy(), *arrays)
            y = torch.from_numpy(y).view(*x.shape[:-1], self.out_features).to(x.dtype)
            return y if self.bias is None else y + self.bias.to(x.dtype)
        return multiply_floats(x, self)

    def _looks_up(self, x):
        """Whether the kernel serves: few rows on the CPU, and nothing to learn or trace."""
        learns = torch.is_grad_enabled() and x.requires_grad
        few = x.numel() <= FEW_ROWS * self.in_features
        return few and x.device.type == "cpu" and not learns and not is_traced(x)

    def extra_repr(self):
        """Describe the layer the way torch prints it."""
        blocks = self.scale.shape[1]
        return f"{self.in_features}, {self.out_features}, bits={self.bits}, blocks={blocks}"


def _unpacked(packed, bits):
    """Unpack in torch's operators, for a graph."""
    one_by_one = (packed[..., None] >> torch.arange(8, dtype=torch.uint8)) & 1
    places = 2 ** torch.arange(bits, dtype=torch.int32)
    return (one_by_one.flatten(1).unflatten(1, (-1, bits)) * places).sum(-1)


Code = Callable[[torch.Tensor], Coded]


def codebook_(
    model: nn.Module, code: Code | Mapping[str, Code] = nf4, skip: Collection[str] = ()
) -> layers.Report:
    """Replace linear layers by :class:`CodebookLinear`, in place.

    Parameters
    ----------
    model : nn.Module
        Changed in place; ``nn.Linear`` and ``Conv1D`` are converted.
    code : callable, or dict of str to callable
        What rounds a matrix: :func:`nf4`, :func:`mxfp4`, ``partial(kmeans, bits=3)``, …; or one
        for each layer named, and those that are not named stay as they are.
    skip : collection of str
        Names of layers to leave as they are.

    Returns
    -------
    Report
        For each layer the bytes saved; what was skipped and why.

    Raises
    ------
    ValueError
        When a layer cannot be converted, a name is unknown, or nothing was converted. The model
        is unchanged then.
    """
    model = layers.inside(model)
    by_name = isinstance(code, Mapping)
    # The plan asks for bits; which ones is the code's affair.
    chosen, skipped = plan_bits(model, dict.fromkeys(code, 8) if by_name else 8, None, skip)
    share = layers.share_of(model, (model.get_submodule(names[0]) for names in chosen))
    report = layers.Report(
        "coded", "bytes saved", skipped=skipped | layers.other_matrices(model), share=share
    )
    new = {}
    for names in chosen:
        how = code[next(name for name in names if name in code)] if by_name else code
        first = new[names[0]] = _coded(names[0], model.get_submodule(names[0]), how)
        for name in names[1:]:  # one weight, of which one matrix of codes is enough
            new[name] = _beside(first, model.get_submodule(name).bias)
        saved = model.get_submodule(names[0]).weight.nbytes - stored_bytes(first)
        report.changed |= dict.fromkeys(names, 0) | {names[0]: saved}
    share_biases(model, new)
    for name, layer in new.items():
        layers.replace_(model, name, layer)
    report.raise_if_nothing_changed("the model has no linear layer in floating point")
    pretrained.watch_(model)
    return report


def _beside(first, bias):
    """Return a layer with the codes of another and a bias of its own."""
    own = {"bias": None if bias is None else bias.detach().clone()}
    return CodebookLinear.from_parts(first.settings(), dict(first.named_buffers()) | own)


def _coded(name, old, code):
    try:
        coded = code(layers.weight_matrix(old).detach())
        if not isinstance(coded, Coded):
            raise ValueError(f"code gave a {type(coded).__name__}; a Coded is wanted")
        return CodebookLinear(coded, getattr(old, "bias", None), old.weight.dtype)
    except ValueError as error:
        raise ValueError(f"layer {name}: {error}") from error
