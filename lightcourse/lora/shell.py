"""What all adapters have in common: a shell around a layer, which may be switched off."""

import torch
from torch import nn

from lightcourse import layers
from lightcourse.read_only import read_only


class OneForEachRow(torch.Tensor):
    """The weight of a layer that multiplies each row of a batch by another: not to be used.

    Its dtype and shape may be asked, as T5 does. Whoever multiplies by it, instead of calling
    the layer, would serve all rows by one adapter: that raises ``ValueError``.
    """

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        """Tell what the weight is like, and refuse everything else."""
        if function.__name__ != "__get__":
            raise ValueError(
                f"{function.__name__} reads the weight of a layer instead of calling it, but each "
                "row has an adapter of its own; set_adapter_ switches such a model"
            )
        with torch._C.DisableTorchFunctionSubclass():
            return function(*args, **(kwargs or {}))


class Shell(nn.Module):
    """A frozen linear layer, and what one adapter changes about its inputs and outputs.

    Several adapters stand around each other: ``base`` may be a Shell again. A kind of adapter
    says what happens to the inputs (:meth:`before`) and to the outputs (:meth:`after`), and
    which matrix and bias would do the same alone (:meth:`new_weight`, :meth:`new_bias`).

    Parameters
    ----------
    base : nn.Module
        A linear layer: ``nn.Linear``, ``Conv1D``, a quantized one, or a Shell. Frozen.
    adapter : str
        Which adapter the shell belongs to.

    Attributes
    ----------
    active : bool
        Whether the adapter is in use; True at first.
    rows : Tensor of bool, shape (batch,), or None
        Where it is not None, it decides in place of ``active`` in which rows of a batch the
        adapter is in use: see :func:`lightcourse.lora.adapter_rows`.
    """

    def __init__(self, base: nn.Module, adapter: str):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.adapter, self.active, self.rows = adapter, True, None
        self.out_features, self.in_features = shape(base)

    def before(self, x: torch.Tensor) -> torch.Tensor:
        """Return what the base is given in place of ``x``."""
        return x

    def after(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the output for the inputs ``x``, of which the base has made ``y``."""
        return y

    def new_weight(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the matrix that does alone what ``weight`` does in this shell."""
        return weight

    def new_bias(self, bias: torch.Tensor | None) -> torch.Tensor | None:
        """Return the bias that goes with :meth:`new_weight`."""
        return bias

    def forward(self, x):
        """Return the base layer's output, changed by the adapter where it is in use."""
        if self.rows is not None:
            return self._in_rows(x)
        if not self.active:
            return self.base(x)
        return self.after(x, self.base(self.before(x)))

    def _in_rows(self, x):
        """Compute every row in one product of the base, and change this adapter's rows."""
        if len(x) != len(self.rows):
            raise ValueError(
                f"names has {len(self.rows)} entries, one for each row of the batch, but a layer "
                f"of adapter {self.adapter!r} was given {len(x)} rows"
            )
        if not self.rows.any():
            return self.base(x)
        own = x[self.rows]
        given = self.before(own)
        y = self.base(x if given is own else x.index_put((self.rows,), given))
        return y.index_put((self.rows,), self.after(own, y[self.rows]))

    @property
    def weight(self) -> torch.Tensor:
        """The weight with the adapter in it, for code that reads a weight: T5, torch."""
        if self.rows is not None:
            return innermost(self).weight.as_subclass(OneForEachRow)
        weight = self.base.weight
        if not self.active:
            return weight
        turned = layers.is_conv1d(innermost(self))
        new = self.new_weight(weight.T if turned else weight).to(weight.dtype)
        return read_only(new.T if turned else new)

    @property
    def bias(self) -> torch.Tensor | None:
        """The bias with the adapter in it."""
        bias = self.base.bias
        return self.new_bias(bias).to(bias.dtype) if self.active and bias is not None else bias


def own_parameters(shell: Shell) -> dict[str, nn.Parameter]:
    """Return what a shell trains, by name, without its base's."""
    return dict(shell._parameters)


def shape(layer: nn.Module) -> tuple[int, int]:
    """Return (outputs, inputs) of a linear layer, whatever its class."""
    if layers.is_conv1d(layer):
        return layer.nf, layer.nx
    return layer.out_features, layer.in_features


def matrix(layer: nn.Module) -> torch.Tensor:
    """Return the float matrix of shape (outputs, inputs) below all shells."""
    layer = innermost(layer)
    if layers.stores_integers(layer):
        return layer.dequantize()
    return layers.weight_matrix(layer)


def innermost(layer: nn.Module) -> nn.Module:
    """Return the layer that has the matrix, below all shells."""
    while isinstance(layer, Shell):
        layer = layer.base
    return layer


def plain_names(model: nn.Module) -> dict[str, str]:
    """Return from each module's name to the one it would have without any shell."""
    plain = {"": ""}
    inside = set()
    for name, module in model.named_modules():
        if name:
            parent, _, child = name.rpartition(".")
            own = parent in inside and child == "base"
            plain[name] = plain[parent] if own else f"{plain[parent]}.{child}".lstrip(".")
        if isinstance(module, Shell):
            inside.add(name)
    return plain


def updates(model: nn.Module, adapter: str | None = None) -> dict[str, Shell]:
    """Return the shells of one adapter, or of all, by their names in the model."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, Shell) and adapter in (None, module.adapter)
    }
