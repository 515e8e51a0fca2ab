"""The arrays and programs with which a jitted model reads some texts."""

import numpy as np
import torch

from lightcourse.generation.parts import Block, Parts
from lightcourse.kernels import between, steps
from lightcourse.kernels.program import Program
from lightcourse.programs.writing import Products, zeros

TAIL_ROWS = 16  # rows of logits that are computed at once: a vocabulary is wide
POSITIONS = 64  # a cache is a multiple of these, a strip of the tiles that read it


class State:
    """What belongs to some texts: a cache of keys and values, and room for what is computed.

    Parameters
    ----------
    parts : Parts
    starts : ndarray of int64, shape (texts,)
        How many of each text's first positions are padding.
    most : int
        Rows that are computed at once, or as many as there are texts.
    """

    def __init__(self, parts: Parts, starts: np.ndarray, most: int):
        self.parts, self.starts, self.texts = parts, starts, len(starts)
        self.times, self.capacity = max(most // self.texts, 1), 0
        self.keys = self.values = None
        self.tail = Tail(parts)

    def grow(self, length: int, window: int) -> None:
        """Make room for so many positions of each text, and keep those that are there."""
        if length <= self.capacity:
            return
        held, wanted = self.capacity, min(max(length, 2 * self.capacity, 256), max(window, length))
        self.capacity = -(-wanted // POSITIONS) * POSITIONS
        heads, size = self.parts.key_heads, self.parts.size
        before = len(self.parts.blocks), self.texts, heads
        old, self.keys = self.keys, zeros(*before, size, self.capacity)
        older, self.values = self.values, zeros(*before, self.capacity, -(-size // 16) * 16)
        if held:
            self.keys[..., :held], self.values[..., :held, :] = old, older
        self.writer = Writer(self)

    def run(self, new: torch.Tensor, held: int, threads: int) -> np.ndarray:
        """Read at most ``times`` new positions of each text; return (texts, positions, width)."""
        texts, times = new.shape
        positions = held + torch.arange(times) - torch.from_numpy(self.starts)[:, None]
        embedded = self.parts.embed(new, positions.clamp(min=0)).float().flatten(0, 1)
        x, rows = self.writer.x, texts * times
        x[:rows, : self.parts.width] = embedded.numpy()
        self.writer.program.run(rows, times, held, threads)
        return x[:rows, : self.parts.width].reshape(texts, times, -1)


class Writer:
    """Writes the program of all blocks."""

    def __init__(self, state: State):
        self.state, self.parts = state, state.parts
        self.room = steps.Room(state.texts * state.times)
        self.products = Products(self.room)
        self.x = self.room.floats("x", self.parts.width)
        self.starts = self.room.keep(state.starts)
        if self.parts.turns:
            self.turns = [self.room.keep(table) for table in self.parts.turns]
        written = [step for i, b in enumerate(self.parts.blocks) for step in self._block(i, b)]
        self.program = Program(written)

    def _block(self, index, block: Block):
        parts, room = self.parts, self.room
        width, inner = parts.width, block.down.in_features
        h, out = room.floats("h", width), room.floats("out", width)
        seen = room.floats("seen", parts.heads * parts.size)
        yield steps.norm(room, *_norm(block.norm), self.x, h)
        q, k, v, whole = self._projections(block)
        yield from self.products.write(h, block.read, whole)
        yield from self._attention(index, block, (q, k, v), seen)
        yield from self.products.write(seen, [block.out], [out])
        yield steps.add(out, self.x, width)
        yield steps.norm(room, *_norm(block.second_norm), self.x, h)
        wide = [room.floats(f"up {i}", inner) for i in range(2)]
        yield from self.products.write(h, block.up, wide[: len(block.up)])
        yield steps.activation(block.activation, *wide, inner)
        yield from self.products.write(wide[1], [block.down], [out])
        yield steps.add(out, self.x, width)

    def _projections(self, block):
        """Return room for queries, keys and values, and for what the layers write."""
        sizes = [n * self.parts.size for n in (self.parts.heads, *[self.parts.key_heads] * 2)]
        if len(block.read) == 3:
            three = [self.room.floats(name, s) for name, s in zip("qkv", sizes, strict=True)]
            return *three, three
        whole = self.room.floats("qkv", sum(sizes))
        return whole, whole[:, sizes[0] :], whole[:, sizes[0] + sizes[1] :], [whole]

    def _attention(self, index, block, queries, seen):
        parts, (q, k, v) = self.parts, queries
        size, capacity = parts.size, self.state.capacity
        keys, values = self.state.keys[index].ctypes.data, self.state.values[index].ctypes.data
        if parts.turns:
            where = {"COS": self.turns[0], "SIN": self.turns[1], "WINDOW": len(parts.turns[0])}
            where |= {"SIZE": size, "PADDING": self.starts}
            for x, heads in ((q, parts.heads), (k, parts.key_heads)):
                yield steps.by_rows(between.rotate, x, x, heads * size, HEADS=heads, **where)
        sizes = {"HEADS": parts.key_heads, "SIZE": size, "CAPACITY": capacity}
        work = parts.key_heads * size
        yield steps.by_rows(between.keep_keys, k, k, work, CACHE=keys, **sizes)
        yield steps.by_rows(between.keep_values, v, v, work, CACHE=values, **sizes)
        heads = parts.heads, parts.key_heads, size
        cache = keys, values, capacity
        yield steps.attend(self.room, q, seen, cache, heads, block.scaling, self.starts)


def _norm(norm):
    return norm.weight, norm.bias, norm.epsilon


class Tail:
    """The final norm and the output layer, for the rows whose logits are asked for."""

    def __init__(self, parts: Parts):
        self.parts, self.room = parts, steps.Room(TAIL_ROWS)
        self.x, h = (self.room.floats(name, parts.width) for name in "xh")
        self.y = self.room.floats("y", parts.vocabulary)
        products = Products(self.room).write(h, [parts.output], [self.y])
        self.program = Program([steps.norm(self.room, *_norm(parts.norm), self.x, h), *products])

    def logits(self, rows: np.ndarray, threads: int) -> torch.Tensor:
        """Return the logits of rows behind the last block: (rows, vocabulary)."""
        # NumPy copies: torch's threads would go on spinning where ours want to run.
        found = np.empty((len(rows), self.parts.vocabulary), np.float32)
        for first in range(0, len(rows), TAIL_ROWS):
            part = rows[first : first + TAIL_ROWS]
            self.x[: len(part), : self.parts.width] = part
            self.program.run(len(part), 1, 0, threads)
            found[first : first + len(part)] = self.y[: len(part), : found.shape[1]]
        return torch.from_numpy(found)
