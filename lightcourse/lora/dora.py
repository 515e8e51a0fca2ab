"""Weight-decomposed adaptation: a low-rank update of directions, and lengths of their own."""

import torch
from torch import nn

from lightcourse.lora.layer import LoRALinear
from lightcourse.lora.shell import innermost, matrix


class DoRALinear(LoRALinear):
    """A LoRALinear whose rows have trained lengths: ``m · (W + scaling · B A) / length``.

    ``length`` is that of each row of ``W + scaling · B A``, so that the low-rank update turns
    rows and ``m`` alone makes them longer or shorter. At first ``m`` is the length of W's rows,
    and the layer computes what ``base`` alone did. The gradient takes ``length`` for a
    constant, as the paper advises in its section 4.3 (Liu et al. 2024, arXiv 2402.09353), and
    as peft does. The length needs the whole matrix at every step: where LoRA costs two thin
    products, DoRA costs a matrix's sum besides.

    Parameters
    ----------
    base, rank, alpha, adapter
        As in :class:`LoRALinear`.

    Attributes
    ----------
    lora_magnitude : Parameter of shape (outputs,)
        ``m``; float32.

    Raises
    ------
    ValueError
        As :class:`LoRALinear`, or when the matrix holds NaN or infinity.
    """

    def __init__(self, base, rank=8, alpha=16.0, adapter="default"):
        super().__init__(base, rank, alpha, adapter)
        lengths = torch.linalg.vector_norm(matrix(base).detach().float(), dim=1)
        if not torch.isfinite(lengths).all():
            raise ValueError("base has a matrix with NaN or infinity; finite values are wanted")
        self.lora_magnitude = nn.Parameter(lengths)

    def after(self, x, y):
        """Return the output of the matrix with its rows turned and made as long as ``m``."""
        bias = innermost(self).bias
        product = y if bias is None else y - bias
        product = self._stretch(matrix(self)) * (product + self.update(x))
        return (product if bias is None else product + bias).to(y.dtype)

    def new_weight(self, weight):
        """Return the matrix with turned rows of trained lengths."""
        return self._stretch(weight)[:, None] * (weight + self.delta())

    def _stretch(self, weight):
        """Return by what each row of the updated matrix is multiplied."""
        with torch.no_grad():
            lengths = torch.linalg.vector_norm(weight.float() + self.delta(), dim=1)
        # A row of zeros has no direction: it stays a row of zeros.
        return self.lora_magnitude / lengths.clamp_min(torch.finfo(torch.float32).tiny)
