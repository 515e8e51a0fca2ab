"""The machine: what it is, what is installed on it, and what it reaches at the most."""

import importlib.metadata
import os
import platform
import re
from pathlib import Path

import psutil

from lightcourse import kernels

LIBRARIES = (
    *("numpy", "numba", "llvmlite", "scipy", "torch", "torchao", "onnx", "onnxruntime"),
    *("llama-cpp-python", "transformers", "executorch", "openvino", "nncf", "ai-edge-litert"),
)
FLAGS = (
    *("avx2", "fma", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni", "avx512_vbmi2"),
    *("avx512_bf16", "amx_int8", "asimddp", "i8mm"),
)


def describe() -> dict[str, str]:
    """Return one line for each thing that a reader of the figures must know."""
    info = _cpuinfo()
    flags = info.get("flags", info.get("Features", "")).split()
    name = info.get("model name", platform.machine())
    family = "/".join(info.get(key, "?") for key in ("cpu family", "model", "stepping"))
    return {
        "processor": f"{name} (family/model/stepping {family})",
        "flags that matter": ", ".join(flag for flag in FLAGS if flag in flags),
        "cores": str(os.cpu_count()),
        "caches": _caches(),
        "memory": f"{psutil.virtual_memory().total / 2**30:.1f} GiB",
        "huge pages": _read("/sys/kernel/mm/transparent_hugepage/enabled"),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "path of our kernels": kernels.path(),
        **{name: version(name) for name in LIBRARIES},
    }


def short_name(machine) -> str:
    """Return a machine's processor in the way that files are named: ``amd-epyc-25-17-1``."""
    name = re.sub(r"\((R|TM)\)|family/model/stepping|\?", " ", machine["processor"], flags=re.I)
    return "-".join(re.findall(r"[a-z0-9]+", name.lower()))


def version(name) -> str:
    """Return the installed version, or ``absent``."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def limits(threads) -> dict[str, float]:
    """Measure the peak of int8 in operations, and of reading in bytes, a second."""
    from lightcourse.kernels import limits

    return {"peak": limits.int8_peak(threads), "stream": limits.stream_read(threads)}


def _cpuinfo():
    lines = (
        line.partition(":") for line in _read("/proc/cpuinfo").partition("\n\n")[0].splitlines()
    )
    return {key.strip(): value.strip() for key, _, value in lines}


def _caches():
    folders = sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"))
    parts = [[_read(folder / file) for file in ("level", "type", "size")] for folder in folders]
    return ", ".join(f"L{level} {kind.lower()} {size}" for level, kind, size in parts) or "?"


def _read(path):
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
