"""Vectors of texts from a BERT-shaped encoder whose layers multiply integers."""

from lightcourse.encoding.jitted import JittedEncoder, jit

__all__ = ["JittedEncoder", "jit"]
