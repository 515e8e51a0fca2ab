"""Every path, at all edges of its tiles: sums of integers must be exact, to the last one.

Here rows of x are integers already, each with a 127, so that they are quantized by 1; scales are
powers of 2. Then a product rounds nothing, and NumPy's integers tell what it must be.
"""

import sys
import threading

import numpy as np
import pytest
from numba import config

from lightcourse import kernels, panels
from lightcourse.kernels import amx, jobs, paths, table, vnni
from tests.kernels.every_path import each_path, integers, use

THREADS = range(1, min(2, config.NUMBA_NUM_THREADS) + 1)
# Rows of x: one more and one less than tiles have, and all between.
COUNTS = (1, 2, 17, 33) if config.DISABLE_JIT else range(71)


def whole_rows(rng, count, inputs):
    """Rows of integers that are quantized to themselves."""
    x = rng.integers(-127, 128, (count, inputs)).astype(np.float32)
    x[np.arange(count), rng.integers(0, inputs, count)] = rng.choice([-127, 127], count)
    return x


def product(x, q):
    """Multiply in 64-bit integers."""
    return x.astype(np.int64) @ q.T.astype(np.int64)


def on_each_count(path, check):
    """Call ``check(rng, rows)`` on a path, for each number of rows, on one thread and on two."""
    rng = np.random.default_rng(0)
    for threads in THREADS:
        with use(path, threads):
            for count in COUNTS:
                check(rng, count)


@each_path
@pytest.mark.parametrize("inputs, outputs", [(1, 5), (63, 48), (64, 32), (65, 33), (132, 80)])
def test_int8_weights(path, inputs, outputs):
    def check(rng, count):
        x, q = whole_rows(rng, count, inputs), integers(rng, outputs, inputs, -128)
        scale, bias = np.full(outputs, 0.5, np.float32), np.arange(outputs, dtype=np.float32)
        got = kernels.linear_w8a8(x, panels.pack_w8(q), scale, bias)
        np.testing.assert_array_equal(got, product(x, q) / 2 + bias)

    on_each_count(path, check)


@each_path
@pytest.mark.parametrize(
    "width, groups, outputs", [(20, 1, 5), (32, 3, 33), (64, 2, 80), (96, 2, 32), (128, 1, 68)]
)
def test_int8_weights_in_groups(path, width, groups, outputs):
    def check(rng, count):
        inputs = width * groups
        x = np.hstack([whole_rows(rng, count, width) for _ in range(groups)])
        sizes = 2.0 ** rng.integers(-1, 2, (count, groups)).repeat(width, 1)  # of x's groups
        q = integers(rng, outputs, inputs, -128)
        halves = 2.0 ** rng.integers(-1, 2, (outputs, groups))
        scale = panels.pack_groups(halves.astype(np.float16))
        got = kernels.linear_w8a8_grouped(
            (x * sizes).astype(np.float32), panels.pack_w8(q, 32), scale, outputs=outputs
        )
        want = product(x * sizes * 8, q * halves.repeat(width, 1) * 8) / 64
        np.testing.assert_array_equal(got, want.astype(np.float32))

    on_each_count(path, check)


@each_path
@pytest.mark.parametrize("points", [False, True], ids=["plain", "points"])
@pytest.mark.parametrize(
    "width, groups, outputs", [(20, 1, 5), (32, 3, 33), (64, 2, 48), (96, 2, 32), (128, 1, 20)]
)
def test_4_bit_weights(path, width, groups, outputs, points):
    def check(rng, count):
        x, q = whole_rows(rng, count, width * groups), integers(rng, outputs, width * groups, -8, 7)
        halves = 2.0 ** rng.integers(-3, 4, (outputs, groups))
        zero = rng.integers(0, 16, (outputs, groups)) if points else np.full((outputs, groups), 8)
        real = (q + 8 - zero.repeat(width, 1)) * 8 * halves.repeat(width, 1)  # eight times as large
        got = kernels.linear_w4a8(
            x,
            panels.pack_w4(q),
            panels.pack_groups(halves.astype(np.float16)),
            panels.pack_groups(zero.astype(np.uint8)) if points else None,
            outputs=outputs,
        )
        np.testing.assert_array_equal(got, product(x, real.astype(int)) / 8)

    on_each_count(path, check)


@each_path
@pytest.mark.parametrize("inputs, outputs", [(1, 5), (63, 48), (65, 33), (132, 80)])
def test_sparse_weights(path, inputs, outputs):
    def check(rng, count):
        x, q = whole_rows(rng, count, inputs), integers(rng, outputs, inputs, -128)
        q[rng.random(q.shape) < 0.7] = 0
        q[16:32], q[:, 8:16] = 0, 0  # a panel, and blocks of each, are not stored
        got = kernels.linear_sparse(x, panels.pack_sparse(q), np.ones(outputs, np.float32))
        np.testing.assert_array_equal(got, product(x, q))

    on_each_count(path, check)


@pytest.mark.skipif(config.DISABLE_JIT, reason="too large for Python's own loops")
@each_path
@pytest.mark.parametrize("weight", [-128, 127])
@pytest.mark.parametrize("sign", [-1, 1])
def test_the_largest_sums(path, weight, sign):
    """All products as large as can be, up to the largest sum that 32 bits are asked to hold."""
    for count, inputs in [(1, 65_536), (16, 4100), (35, 65_536), (64, 16_384)]:
        x = np.full((count, inputs), 127 * sign, np.float32)
        q, scale = np.full((33, inputs), weight, np.int8), np.full(33, 2.0**-20, np.float32)
        want = np.float32(127.0 * sign * weight * inputs) * scale[0]
        for threads in THREADS:
            with use(path, threads):
                got = kernels.linear_w8a8(x, panels.pack_w8(q), scale)
                np.testing.assert_array_equal(got, np.full((count, 33), want, np.float32))
                half = panels.pack_groups(np.full((33, 1), 2.0**-20, np.float16))
                got = kernels.linear_w8a8_grouped(x, panels.pack_w8(q, 32), half, outputs=33)
                np.testing.assert_array_equal(got, np.full((count, 33), want, np.float32))
                half = panels.pack_groups(np.full((33, 1), 2.0**-10, np.float16))
                q4 = panels.pack_w4(q >> 4)
                got = kernels.linear_w4a8(x, q4, half, outputs=33)
                want4 = np.float32(127.0 * sign * (weight >> 4) * inputs) * np.float32(2.0**-10)
                np.testing.assert_array_equal(got, np.full((count, 33), want4, np.float32))


@pytest.mark.skipif(config.DISABLE_JIT, reason="too large for Python's own loops")
@each_path
@pytest.mark.parametrize("inputs", [1020, 1024, 1028, 65_536])
def test_many_sparse_blocks(path, inputs):
    """More blocks than are unpacked at a time, and sums as large as they can be."""
    rng = np.random.default_rng(0)
    for count in (1, 5, 17):
        x = np.full((count, inputs), 127, np.float32) * rng.choice([-1, 1], (count, 1))
        q = np.full((48, inputs), -128, np.int8)
        q[1::2], q[16:32] = 127, np.where(rng.random((16, inputs)) < 0.9, 0, 127)
        for threads in THREADS:
            with use(path, threads):
                got = kernels.linear_sparse(x, panels.pack_sparse(q), np.full(48, 2.0**-20, "f"))
                want = product(x, q).astype(np.float32) * np.float32(2.0**-20)
                np.testing.assert_array_equal(got, want)


@pytest.mark.skipif(config.DISABLE_JIT, reason="too large for Python's own loops")
@each_path
def test_arrays_may_start_anywhere(path):
    """Weights from a file lie where they lie, and nothing behind them is read."""
    rng = np.random.default_rng(0)
    x, q = whole_rows(rng, 40, 68), integers(rng, 48, 68)
    packed, scale = panels.pack_w8(q), np.ones(48, np.float32)
    memory = np.empty(packed.nbytes + 64, np.uint8)
    with use(path, 1):
        for start in (0, 1, 16, 63):
            moved = memory[start : start + packed.nbytes].reshape(packed.shape)
            moved[...] = packed
            np.testing.assert_array_equal(kernels.linear_w8a8(x, moved, scale), product(x, q))


@pytest.mark.skipif(config.DISABLE_JIT, reason="too large for Python's own loops")
@each_path
@pytest.mark.parametrize("threads", THREADS)
def test_two_callers_at_once(path, threads):
    """Tiles belong to a thread: what one multiplies must not reach the other."""
    rng = np.random.default_rng(0)
    x, q = whole_rows(rng, 50, 256), integers(rng, 160, 256, -8, 7)
    one, half = np.ones(160, np.float32), panels.pack_groups(np.ones((160, 2), np.float16))
    w8, w4, want = panels.pack_w8(q), panels.pack_w4(q), product(x, q)
    wrong = []

    def call(kernel, *weights):
        for _ in range(50):
            if not np.array_equal(kernel(x, *weights), want):
                wrong.append(kernel.__name__)

    calls = [(kernels.linear_w8a8, w8, one), (kernels.linear_w4a8, w4, half)]
    with use(path, threads):
        callers = [threading.Thread(target=call, args=arguments) for arguments in calls]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    assert wrong == []


# --- tiles of AMX -----------------------------------------------------------------------------


def test_tiles_are_asked_of_linux_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(amx.ctypes, "CDLL", pytest.fail)
    assert not amx.prepare()


@pytest.mark.skipif("amx" not in paths.available(), reason="this machine has no path amx")
def test_who_has_the_path_amx_was_granted_tiles():
    assert amx.prepare() and amx.prepare()
    (row,) = (row for row in table.PATHS if row.name == "amx")
    assert row.prepare is amx.prepare


@pytest.mark.parametrize(
    "kind, rows, inputs, panels, kept, ours",
    [
        ("w8", 2, 64, 2, 0, False),
        ("w8", 3, 65_536, 2, 0, True),
        ("w8", 64, 64, 1, 0, False),
        ("g8", 64, 64, 2, 0, False),
        ("w4", 15, 64, 2, 0, False),
        ("w4", 16, 16_384, 2, 0, True),
        ("z4", 16, 16_448, 2, 0, False),
        ("sparse", 15, 64, 2, 32, False),
        ("sparse", 16, 64, 2, 12, True),
        ("sparse", 16, 64, 2, 11, False),
        ("sparse", 64, 8192, 2, 4096, True),
        ("sparse", 64, 8256, 2, 4096, False),
    ],
)
def test_tiles_multiply_what_suits_them(kind, rows, inputs, panels, kept, ours, monkeypatch):
    """All else is left to VNNI's cores, which know no limits."""
    q, bias = np.empty((rows, inputs), np.int8), np.empty(16 * panels, np.float32)
    operands = jobs.Operands(q, None, None, (None, np.empty(kept)), bias, None)
    taken = []
    monkeypatch.setattr(jobs, "multiply", lambda kind, core, *rest: taken.append(core))
    amx.multiply(kind, getattr(amx, kind, vnni.g8), 1, operands)
    assert taken == [getattr(amx if ours else vnni, kind)]


@pytest.mark.skipif("amx" not in paths.available(), reason="this machine has no path amx")
def test_a_processor_without_tiles_takes_the_path_vnni(monkeypatch):
    monkeypatch.delenv("LIGHTCOURSE_KERNELS", raising=False)
    monkeypatch.setattr(paths, "_prepared", lambda prepare: prepare is not amx.prepare)
    assert paths.available()[0] == paths.path.__wrapped__() == "vnni"
