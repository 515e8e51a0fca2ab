"""ggml's matrix product over its own formats, as llama.cpp would run it."""

import ctypes

import numpy as np

from benchmarks.peers import ggml_library

Q4_0, Q8_0, Q4_K = 2, 8, 12  # enum ggml_type
BLOCKS = {Q4_0: 32, Q8_0: 32, Q4_K: 256}  # weights that are stored together
BOOKKEEPING = 1 << 14  # bytes for a few tensors' and one small graph's headers


def q8_0(weight, threads, copies):
    """8 bits, a float16 scale for every 32 weights."""
    return _contestant(weight, threads, copies, Q8_0, repacked=False)


def q4_0(weight, threads, copies):
    """4 bits, a float16 scale for every 32 weights; repacked, as llama.cpp does by default."""
    return _contestant(weight, threads, copies, Q4_0, repacked=True)


def q4_k(weight, threads, copies):
    """4 bits, 6-bit scales and minima for every 32 weights, two float16 for every 256."""
    return _contestant(weight, threads, copies, Q4_K, repacked=False)


def q4_k_repacked(weight, threads, copies):
    """As :func:`q4_k`, repacked, as llama.cpp does by default: slower for many rows."""
    return _contestant(weight, threads, copies, Q4_K, repacked=True)


class _Owner:
    """Frees what ggml has allocated, when nothing needs it any more."""

    def __init__(self):
        self.frees = []

    def keep(self, free, pointer):
        self.frees.append(lambda: free(pointer))
        return pointer

    def __del__(self):
        for free in reversed(self.frees):
            free()


def _contestant(weight, threads, copies, kind, repacked):
    if weight.shape[1] % BLOCKS[kind]:
        raise ValueError(f"{weight.shape[1]} inputs; a multiple of {BLOCKS[kind]} is wanted")
    ggml, owner = ggml_library.load(), _Owner()
    backend = owner.keep(ggml.backend_free, ggml.backend_cpu_init())
    ggml.backend_cpu_set_n_threads(backend, threads)
    tensors = _tensors(ggml, owner, weight.shape, kind, copies, repacked)
    _quantize(ggml, weight, kind, tensors)

    def bind(x):
        products = _Owner()
        context = _context(ggml, products, 4 * x.size + copies * 4 * len(x) * len(weight), copies)
        source = ggml.new_tensor_2d(context, 0, x.shape[1], len(x))
        ctypes.memmove(ggml.get_data(source), np.ascontiguousarray(x).ctypes.data, x.nbytes)
        shape = (len(x), len(weight))
        graphs = [_product(ggml, context, w, source, shape) for w in tensors]

        def call(graph, y, kept=(owner, products)):
            ggml.backend_graph_compute(backend, graph)
            return y

        return [lambda graph=graph, y=y: call(graph, y) for graph, y in graphs]

    return bind


def _context(ggml, owner, size, tensors, no_alloc=False):
    params = ggml_library.InitParams(size + (tensors + 2) * BOOKKEEPING, None, no_alloc)
    return owner.keep(ggml.free, ggml.init(params))


def _product(ggml, context, weight, x, shape):
    y = ggml.mul_mat(context, weight, x)
    graph = ggml.new_graph_custom(context, 8, False)
    ggml.build_forward_expand(graph, y)
    values = ctypes.cast(ggml.get_data(y), ctypes.POINTER(ctypes.c_float))
    return graph, np.ctypeslib.as_array(values, shape)


def _tensors(ggml, owner, shape, kind, copies, repacked):
    """Allocate the weights; in plain memory where no kernel wants them repacked."""
    context = _context(ggml, owner, 0, copies, no_alloc=True)
    tensors = [ggml.new_tensor_2d(context, kind, *shape[::-1]) for _ in range(copies)]
    buffers = ggml.repacking if repacked else ggml.backend_cpu_buffer_type()
    buffer = buffers and ggml.backend_alloc_ctx_tensors_from_buft(context, buffers)
    owner.keep(ggml.backend_buffer_free, buffer)
    if repacked and not (buffer and ggml_library.is_repacked(ggml, tensors[0])):
        return _tensors(ggml, owner, shape, kind, copies, repacked=False)
    return tensors


def _quantize(ggml, weight, kind, tensors):
    q = np.empty(ggml.nbytes(tensors[0]), np.uint8)
    weight = np.ascontiguousarray(weight, np.float32)
    ggml.quantize_chunk(kind, weight.ctypes.data, q.ctypes.data, 0, *weight.shape, None)
    for tensor in tensors:
        ggml.backend_tensor_set(tensor, q.ctypes.data, 0, q.nbytes)
