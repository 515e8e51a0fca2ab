"""The arrays and the program with which a jitted encoder reads a piece: some texts at once."""

import numpy as np

from lightcourse.encoding.parts import Block, Parts
from lightcourse.kernels import steps
from lightcourse.kernels.between import padded
from lightcourse.kernels.program import Program
from lightcourse.programs.writing import Products


class State:
    """Room for a piece, and the program of all blocks; one caller at a time.

    Parameters
    ----------
    parts : Parts
    rows : int
        Positions of a piece, over all of its texts, at most.
    """

    def __init__(self, parts: Parts, rows: int):
        self.parts, self.room = parts, steps.Room(rows)
        self.products = Products(self.room)
        self.x = self.room.floats("x", parts.width)[:, : parts.width]
        self.ends = np.zeros(rows, np.int64)
        written = [steps.norm(self.room, *_norm(parts.norm), self.x, self.x)]
        written += [step for block in parts.blocks for step in self._block(block)]
        self.program = Program(written)

    def run(self, texts: list[np.ndarray], hidden: list[np.ndarray], threads: int) -> None:
        """Read texts, each the sums of its embeddings, (length, width); write what comes out.

        The first is the longest; positions behind the others' ends are computed, and not seen.
        """
        times = len(texts[0])
        for i, text in enumerate(texts):
            self.x[i * times : i * times + len(text)] = text
            self.x[i * times + len(text) : (i + 1) * times] = 0
            self.ends[i] = len(text)
        self.program.run(len(texts) * times, times, 0, threads)
        for i, out in enumerate(hidden):
            out[...] = self.x[i * times : i * times + len(out)]

    def _block(self, block: Block):
        parts, room, x = self.parts, self.room, self.x
        width, inner, size = parts.width, block.down.in_features, parts.width // parts.heads
        # Attention reads a head's values by whole vectors, the last one's too.
        wide = width - size + padded(size)
        three = [room.floats(name, wide) for name in ("queries", "keys", "values")]
        seen, out, up = (
            room.floats(*shape) for shape in (("seen", width), ("out", width), ("up", inner))
        )
        sizes, ends = (parts.heads, size), self.ends.ctypes.data
        yield from self.products.write(x, block.read, three)
        yield steps.attend_whole(room, *three, seen, sizes, block.scaling, ends)
        yield from self.products.write(seen, [block.out], [out])
        yield steps.add_norm(room, *_norm(block.norm), out, x)
        yield from self.products.write(x, [block.up], [up])
        yield steps.activation(block.activation, up, up, inner)
        yield from self.products.write(up, [block.down], [out])
        yield steps.add_norm(room, *_norm(block.second_norm), out, x)


def _norm(norm):
    return norm.weight, norm.bias, norm.epsilon
