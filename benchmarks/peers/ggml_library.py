"""The few functions of ggml that a matrix product takes, out of llama-cpp-python's libraries."""

import ctypes
from functools import cache
from pathlib import Path
from types import SimpleNamespace

P, INT, LONG, SIZE = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_size_t
NAME_LENGTH = 64


class InitParams(ctypes.Structure):
    _fields_ = [("mem_size", SIZE), ("mem_buffer", P), ("no_alloc", ctypes.c_bool)]


SIGNATURES = {  # name: (result, arguments)
    "ggml_init": (P, InitParams),
    "ggml_free": (None, P),
    "ggml_new_tensor_2d": (P, P, INT, LONG, LONG),
    "ggml_mul_mat": (P, P, P, P),
    "ggml_new_graph_custom": (P, P, SIZE, ctypes.c_bool),
    "ggml_build_forward_expand": (None, P, P),
    "ggml_get_data": (P, P),
    "ggml_get_name": (P, P),
    "ggml_nbytes": (SIZE, P),
    "ggml_quantize_chunk": (SIZE, INT, P, P, LONG, LONG, LONG, P),
    "ggml_log_set": (None, P, P),
    "ggml_backend_alloc_ctx_tensors_from_buft": (P, P, P),
    "ggml_backend_buffer_free": (None, P),
    "ggml_backend_buft_name": (ctypes.c_char_p, P),
    "ggml_backend_cpu_buffer_type": (P,),
    "ggml_backend_tensor_set": (None, P, P, SIZE, SIZE),
    "ggml_backend_graph_compute": (INT, P, P),
    "ggml_backend_reg_get_proc_address": (P, P, ctypes.c_char_p),
    "ggml_backend_reg_dev_get": (P, P, SIZE),
    "ggml_backend_free": (None, P),
    "ggml_backend_cpu_reg": (P,),
    "ggml_backend_cpu_init": (P,),
    "ggml_backend_cpu_set_n_threads": (None, P, INT),
}
SILENT = ctypes.CFUNCTYPE(None, INT, ctypes.c_char_p, P)(lambda level, text, data: None)


@cache
def load():
    """Return ggml's functions without their prefix, and ``repacking``, a buffer type or None."""
    import llama_cpp

    # Finds what lies in libggml-base too. Not global: its OpenMP must not become torch's.
    library = ctypes.CDLL(str(Path(llama_cpp.__file__).parent / "lib" / "libggml-cpu.so"))
    ggml = SimpleNamespace()
    for name, (result, *arguments) in SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
        setattr(ggml, name.removeprefix("ggml_"), function)
    ggml.log_set(ctypes.cast(SILENT, P), None)
    ggml.repacking = _repacking(ggml)
    return ggml


def _repacking(ggml):
    """Find the buffers in which llama.cpp stores a weight as its fastest kernel wants it."""
    registry = ggml.backend_cpu_reg()
    address = ggml.backend_reg_get_proc_address(registry, b"ggml_backend_dev_get_extra_bufts")
    types = ctypes.CFUNCTYPE(ctypes.POINTER(P), P)(address)(ggml.backend_reg_dev_get(registry, 0))
    index = 0
    while types[index]:
        if ggml.backend_buft_name(types[index]) == b"CPU_REPACK":
            return types[index]
        index += 1
    return None


def is_repacked(ggml, tensor) -> bool:
    """Say whether a repacking buffer has a kernel for this tensor: else it must not hold it.

    It leaves its kernel in the tensor's field ``extra``, which follows the name.
    """
    return ctypes.cast(ggml.get_name(tensor) + NAME_LENGTH, ctypes.POINTER(P))[0] is not None
