"""The paths that kernels can take, in one table: who adds a row has added a path.

A new path is one file with its cores, and a row here. All else reads the table: which paths a
machine has, the kernels, the peak in ``limits``, the doctor, the tests.
"""

from collections.abc import Callable
from dataclasses import dataclass

from lightcourse.kernels import amx, avx2, avxvnni, jobs, neon, portable, vnni


def nothing_to_do() -> bool:
    """Prepare nothing: the path is ready where the processor has what it needs."""
    return True


@dataclass(frozen=True)
class Peak:
    """What :func:`lightcourse.kernels.limits.int8_peak` measures.

    Parameters
    ----------
    core : function (job, first, last)
        Multiplies registers, as many steps as the job's ``BLOCKS`` says.
    products : int
        How many products it makes in a step.
    """

    core: Callable
    products: int


@dataclass(frozen=True)
class KernelPath:
    """One way to multiply.

    Parameters
    ----------
    name : str
        What ``LIGHTCOURSE_KERNELS`` and :func:`lightcourse.kernels.path` call it.
    needs : frozenset of str
        What the processor must have, in LLVM's words. Empty: it runs everywhere, even where
        Numba compiles nothing.
    cores : dict of str to core
        What multiplies weights of a kind: "w8", "g8" (in groups), "w4" (groups without zero
        points), "z4" (with them), "sparse". A kind that is missing is left to the last path of
        the table.
    multiply : function (kind, core, threads, operands)
        The loop that runs one of these cores on a :class:`lightcourse.kernels.jobs.Operands`.
    peak : Peak, optional
        None where the compiler chooses the instructions.
    prepare : function () -> bool
        Asks the system for what must be granted before use, as Linux wants it for AMX's tiles,
        and tells whether it was. Called once a process, and only where the processor has what is
        needed.
    described : function (kind, core, operands) -> lightcourse.kernels.jobs.Call
        A product that is described once and computed often, as a part of a program.
    little : int
        Multiply-adds that one thread does sooner than two could share them: about 40
        microseconds' worth.
    """

    name: str
    needs: frozenset[str]
    cores: dict
    multiply: Callable
    peak: Peak | None = None
    prepare: Callable[[], bool] = nothing_to_do
    described: Callable = jobs.described
    little: int = 2**23  # on a Xeon, VNNI: 43 us on one thread, 35 on two


# Vectors of 64 bytes, vpdpbusd, and vpexpandb for sparse weights.
VNNI = frozenset({"avx512f", "avx512bw", "avx512vnni", "avx512vbmi2"})
# vpmaddwd, one rounding for a product and a sum, and scales in half precision.
AVX2 = frozenset({"avx2", "fma", "f16c"})

PATHS = (  # the fastest first; the last one has cores for all kinds, and needs nothing
    KernelPath(
        "amx",
        VNNI | {"amx-tile", "amx-int8"},
        {"w8": amx.w8, "g8": vnni.g8, "w4": amx.w4, "z4": amx.z4, "sparse": amx.sparse},
        amx.multiply,
        Peak(amx.peak, amx.PEAK_PRODUCTS),
        amx.prepare,
        amx.described,
        2**25,  # 32 rows by 2^19 weights took 30 us on one thread and 37 on two, 128 rows 92 and 74
    ),
    KernelPath(
        "vnni",
        VNNI,
        {"w8": vnni.w8, "g8": vnni.g8, "w4": vnni.w4, "z4": vnni.z4, "sparse": vnni.sparse},
        jobs.multiply,
        Peak(vnni.peak, vnni.PEAK_PRODUCTS),
    ),
    KernelPath(
        "avxvnni",
        AVX2 | {"avxvnni"},
        {
            "w8": avxvnni.w8,
            "g8": avxvnni.g8,
            "w4": avxvnni.w4,
            "z4": avxvnni.z4,
            "sparse": avxvnni.sparse,
        },
        avxvnni.multiply,
        Peak(avxvnni.peak, avxvnni.PEAK_PRODUCTS),
    ),
    KernelPath(
        "avx2",
        AVX2,
        {"w8": avx2.w8, "g8": avx2.g8, "w4": avx2.w4, "z4": avx2.z4, "sparse": avx2.sparse},
        avx2.multiply,
        Peak(avx2.peak, avx2.PEAK_PRODUCTS),
        described=avx2.described,
    ),
    KernelPath(
        "neon",
        frozenset({"neon", "dotprod"}),
        {"w8": neon.w8, "g8": neon.g8, "w4": neon.w4, "z4": neon.z4, "sparse": neon.sparse},
        neon.multiply,
        Peak(neon.peak, neon.PEAK_PRODUCTS),
        described=neon.described,
    ),
    KernelPath(
        "portable",
        frozenset(),
        {
            "w8": portable.W8,
            "g8": portable.G8,
            "w4": portable.W4,
            "z4": portable.W4,
            "sparse": portable.SPARSE,
        },
        portable.multiply,
        described=portable.described,
    ),
)
