"""An embedding table that stores integers."""

import torch

from lightcourse.integers import IntegerMatrix, pack, unpacking
from lightcourse.integers.unpacking import offset
from lightcourse.panels import OUTPUTS
from lightcourse.quantization.rounding import round_to_nearest


class QuantizedEmbedding(IntegerMatrix):
    """A table of integers: a look-up turns only the rows it reads into floats.

    Parameters
    ----------
    weight : Tensor of shape (num_embeddings, embedding_dim)
    bits, group_size, symmetric
        As in :class:`QuantizedLinear`.
    padding_idx : int, optional
        Kept for :func:`dequantize_`; its row is read like any other.

    Attributes
    ----------
    qweight, scale, zero_point : Tensor
        As in :class:`QuantizedLinear`, in the very order that kernels multiply by: an output
        layer can use the same ones (:meth:`sharing`).

    Raises
    ------
    ValueError
        When ``bits`` is out of range, ``group_size`` does not divide the width, or the
        weight is empty or not finite.
    """

    SETTINGS = ("num_embeddings", "embedding_dim", "bits", "group_size", "padding_idx", "dtype")

    def __init__(self, weight, bits=8, group_size=None, symmetric=True, padding_idx=None):
        super().__init__()
        values = (*weight.shape, bits, group_size, padding_idx, weight.dtype)
        settings = dict(zip(self.SETTINGS, values, strict=True))
        q, scale, zero_point = round_to_nearest(weight, bits, group_size, symmetric)
        self.hold(settings, pack(q.to(weight.device), scale, zero_point, bits))

    @classmethod
    def sharing(cls, matrix: IntegerMatrix, padding_idx: int | None = None) -> "QuantizedEmbedding":
        """Return a table that reads the integers of an output layer, without a copy."""
        values = (*matrix.shape, matrix.bits, matrix.group_size, padding_idx, matrix.dtype)
        shared = {name: getattr(matrix, name) for name in ("qweight", "scale", "zero_point")}
        return cls.from_parts(dict(zip(cls.SETTINGS, values, strict=True)), shared)

    @property
    def shape(self) -> tuple[int, int]:
        """The table's (rows, columns)."""
        return self.num_embeddings, self.embedding_dim

    def forward(self, ids):
        """Return the rows named by ``ids``: shape (*ids.shape, embedding_dim), in ``dtype``."""
        self._check(ids)
        flat = ids.flatten().long()
        q, scale = self._integers_of(flat), self._values_of(self.scale, flat).float()
        if self.zero_point is not None:
            zero = self._values_of(self.zero_point, flat).to(torch.int16) - offset(self.bits)
            q = q - zero.repeat_interleave(self.embedding_dim // zero.shape[1], 1)
        rows = q.unflatten(1, (scale.shape[1], -1)) * scale[..., None]
        return rows.to(self.dtype).view(*ids.shape, self.embedding_dim)

    def _check(self, ids):
        wanted = f"0 to {self.num_embeddings - 1} is wanted"
        if unpacking.is_traced(ids):  # a graph cannot read the ids, but it can refuse them
            inside = ((ids >= 0) & (ids < self.num_embeddings)).all()
            torch._assert_async(inside, f"an id is out of range; {wanted}")
        elif ids.numel() and not 0 <= ids.min() <= ids.max() < self.num_embeddings:
            raise ValueError(f"ids spans {ids.min()}..{ids.max()}; {wanted}")

    def _integers_of(self, ids):
        blocks = self.qweight[ids // OUTPUTS, :, ids % OUTPUTS]
        if self.bits <= 4:
            blocks = unpacking.halves(blocks)
        return blocks.flatten(1)[:, : self.embedding_dim].to(torch.int16) - offset(self.bits)

    def _values_of(self, values, ids):
        return values[ids] if values.ndim == 2 else values[ids // OUTPUTS, :, ids % OUTPUTS]

    def extra_repr(self):
        """Describe the table the way torch prints it."""
        how = f"bits={self.bits}, group_size={self.group_size}"
        return f"{self.num_embeddings}, {self.embedding_dim}, {how}"
