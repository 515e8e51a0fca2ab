"""Compressed sparse rows (CSR) in float32: torch's and SciPy's."""

import numpy as np
import torch


def torch_csr(weight, threads, copies):
    """Multiply torch's CSR matrix; the activations are transposed outside the timing."""
    torch.set_num_threads(threads)
    weights = [torch.tensor(weight).to_sparse_csr() for _ in range(copies)]

    def bind(x):
        columns = torch.tensor(np.ascontiguousarray(x.T))
        return [lambda w=w: (w @ columns).T for w in weights]

    return bind


def scipy_csr(weight, threads, copies):
    """Multiply SciPy's CSR matrix, which always uses one thread."""
    from scipy.sparse import csr_array

    weights = [csr_array(weight) for _ in range(copies)]

    def bind(x):
        columns = np.ascontiguousarray(x.T)
        return [lambda w=w: (w @ columns).T for w in weights]

    return bind
