"""A linear layer in two parts: a few input channels in floats, all others in integers."""

import torch
from torch.nn import functional as F

from lightcourse.quantization.layer import QuantizedLinear


class SplitLinear(QuantizedLinear):
    """An 8-bit layer that keeps some columns in floats, as LLM.int8 does.

    Dettmers et al. 2022, arXiv 2208.07339. There each call looks for its outliers; here the
    channels are fixed. Their inputs are 0 for the integer kernel, so that the scale of a row
    of inputs is that of all other channels.

    Parameters
    ----------
    weight, bias
        As in :class:`QuantizedLinear`.
    outliers : Tensor of int64, shape (channels,)
        The inputs that stay in floats: some, each once.

    Attributes
    ----------
    outliers : Tensor of int64, shape (channels,)
    columns : Tensor of shape (out_features, channels)
        The weight's columns for them. The integers are 0 there.

    Raises
    ------
    ValueError
        When ``outliers`` is empty, or names an input that is not there or one twice; else as
        :class:`QuantizedLinear`.
    """

    BUFFERS = (*QuantizedLinear.BUFFERS, "outliers", "columns")

    def __init__(self, weight, bias=None, *, outliers):
        outliers = torch.as_tensor(outliers, device=weight.device)
        chosen, inputs = outliers.tolist(), weight.shape[1]
        if not chosen or len(set(chosen)) < len(chosen) or not set(chosen) <= set(range(inputs)):
            raise ValueError(
                f"outliers is {chosen}; some of the inputs 0 to {inputs - 1}, each once, are wanted"
            )
        rest = weight.detach().index_fill(1, outliers, 0)
        super().__init__(rest, bias, 8, activations=8)
        self.outliers, self.columns = outliers, weight.detach()[:, outliers].clone()

    def forward(self, x):
        """Return ``x @ weight.T + bias`` in ``x``'s dtype, for ``x`` of (..., in_features)."""
        few = F.linear(x[..., self.outliers], self.columns.to(x.dtype))
        return super().forward(x.index_fill(-1, self.outliers, 0)) + few

    def dequantize(self):
        """Return the float32 matrix that both parts stand for."""
        matrix = super().dequantize()
        matrix[:, self.outliers] = self.columns.float()
        return matrix

    def extra_repr(self):
        """Describe the layer the way torch prints it."""
        return f"{super().extra_repr()}, outliers={len(self.outliers)}"
