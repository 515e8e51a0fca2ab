"""Right answers to the exercises of chapters 00 and 03, in other styles than the solutions'."""

LOOPS = '''
"""Plain Python: lists, loops, integers."""
import math
import torch


def keep_mask(weight, sparsity):
    values = [abs(v) for v in weight.flatten().tolist()]
    order = sorted(range(len(values)), key=values.__getitem__)
    gone = set(order[: round(sparsity * len(values))])
    return torch.tensor([i not in gone for i in range(len(values))]).reshape(weight.shape)


def stored_bytes(rows, columns, bits, group_size):
    total = 0
    for _ in range(rows):
        total += math.ceil(columns * bits / 8)
        total += 2 * len(range(0, columns, group_size))
    return total


def lora_ledger(inputs, outputs, rank):
    a, b, w = rank * inputs, outputs * rank, outputs * inputs
    return [a + b, a + b + w, w]


def choose_row(rows, most_bytes, most_ms, margin):
    fits = []
    for row in rows:
        if row[1] <= most_bytes and row[2] <= most_ms:
            fits.append(row)
    if not fits:
        return "none"
    best = fits[0][3]
    for row in fits:
        best = max(best, row[3])
    name, size = None, math.inf
    for row in fits:
        if best - row[3] <= margin and row[1] < size:
            name, size = row[0], row[1]
    return name


def keep_n_of_m(weight, n, m):
    kept = []
    for row in weight.tolist():
        for start in range(0, len(row), m):
            group = [abs(v) for v in row[start : start + m]]
            best = sorted(range(m), key=lambda i: -group[i])[:n]
            kept += [i in best for i in range(m)]
    return torch.tensor(kept).view(*weight.shape)


def sparse_bytes(rows, columns, nonzeros):
    dense = csr = mask = 0
    for _ in range(rows):
        dense += columns * 4
    csr = nonzeros * 4 + nonzeros * 4 + (rows + 1) * 4
    mask = math.ceil(rows * columns / 8) + nonzeros * 4
    return dense, csr, mask


def wanda(weight, inputs):
    score = torch.zeros_like(weight)
    for column in range(weight.shape[1]):
        norm = math.sqrt(sum(v * v for v in inputs[:, column].tolist()))
        for row in range(weight.shape[0]):
            score[row, column] = abs(weight[row, column]) * norm
    return score


def allot(sizes, most, sparsity):
    low, high = 0.0, 1.0
    wanted = sparsity * sum(sizes)
    for _ in range(200):
        level = (low + high) / 2
        removed = sum(n * min(level, m) for n, m in zip(sizes, most))
        low, high = (level, high) if removed < wanted else (low, level)
    return [min(high, m) for m in most]


def obs_remove(weight, hessian, q):
    inverse = hessian.inverse()
    factor = float(weight[q] / inverse[q, q])
    new = torch.stack([weight[i] - factor * inverse[i, q] for i in range(len(weight))])
    new[q] = 0
    return float(weight[q] * factor), new


def merge_held(weight, a, b, alpha):
    merged = weight.clone()
    for i in range(weight.shape[0]):
        for j in range(weight.shape[1]):
            if weight[i, j] != 0:
                merged[i, j] += alpha / a.shape[0] * sum(
                    float(b[i, r] * a[r, j]) for r in range(a.shape[0])
                )
    return merged
'''

ARRAYS = '''
"""NumPy wherever it goes, with lambdas, classes and helpers beside."""
import functools
import numpy as np


def as_array(function):
    @functools.wraps(function)
    def wrapped(*case):
        return function(*[np.asarray(x) if hasattr(x, "shape") else x for x in case])

    return wrapped


@as_array
def keep_mask(weight, sparsity):
    flat = np.abs(weight).ravel()
    mask = np.ones(flat.size, bool)
    mask[np.argsort(flat, kind="stable")[: round(sparsity * flat.size)]] = False
    return mask.reshape(weight.shape)


stored_bytes = lambda rows, columns, bits, group_size: rows * columns * (bits / 8 + 2 / group_size)


def lora_ledger(inputs, outputs, rank):
    trained = np.array([inputs, outputs]) @ np.array([rank, rank])
    return np.array([trained, trained + inputs * outputs, inputs * outputs])


def choose_row(rows, most_bytes, most_ms, margin):
    names, *numbers = zip(*rows)
    size, time, quality = map(np.array, numbers)
    fits = (size <= most_bytes) & (time <= most_ms)
    if not fits.any():
        return "none"
    good = fits & (quality >= quality[fits].max() - margin)
    return str(np.array(names)[good][size[good].argmin()])


class Keeper:
    @staticmethod
    @as_array
    def keep(weight, n, m):
        groups = np.abs(weight).reshape(-1, m)
        rank = (-groups).argsort(1, kind="stable").argsort(1)
        return (rank < n).reshape(weight.shape)


keep_n_of_m = Keeper().keep


def sparse_bytes(rows, columns, nonzeros):
    sizes = np.array([rows * columns, 2 * nonzeros + rows + 1, nonzeros]) * 4
    return tuple(sizes + [0, 0, (rows * columns + 7) // 8])


@as_array
def wanda(weight, inputs):
    return np.abs(weight) * np.linalg.norm(inputs, axis=0, keepdims=True)


def allot(sizes, most, sparsity):
    sizes, most = np.array(sizes, float), np.array(most)
    fixed = np.zeros(len(sizes), bool)
    while True:
        left = sparsity * sizes.sum() - (sizes * most)[fixed].sum()
        share = np.where(fixed, most, left / max(sizes[~fixed].sum(), 1e-300))
        over = (share > most) & ~fixed
        if not over.any():
            return share
        fixed |= over


@as_array
def obs_remove(weight, hessian, q):
    column = np.linalg.solve(hessian, np.eye(len(weight))[q])
    new = weight - weight[q] / column[q] * column
    new[q] = 0.0
    return weight[q] ** 2 / column[q], new


@as_array
def merge_held(weight, a, b, alpha):
    return np.where(weight == 0, weight, weight + alpha * (b @ a) / len(a))
'''
