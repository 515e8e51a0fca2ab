"""Checks of the exercises of chapter 03."""

import math
from functools import partial

import numpy as np
import torch

from lightcourse import pruning
from lightcourse.checks.cases import but, dice, normal, whole
from lightcourse.checks.comparing import is_mask
from lightcourse.checks.grading import Exercise, grade


def check_keep_n_of_m(keep_n_of_m) -> bool:
    """Check ``keep_n_of_m(weight, n, m)``: True for the n largest of m neighbours in a row."""
    return grade(keep_n_of_m, KEEP_N_OF_M)


def _keep_n_of_m_cases(seed):
    roll = dice(seed)
    sizes = [((6, 8), 2, 4), ((4, 12), 1, 4), ((8, 8), 3, 8), ((3, 6), 2, 3)]
    cases = [(normal(*shape, seed=roll.randrange(2**31)), n, m) for shape, n, m in sizes]
    # Many of equal size: a threshold would keep more than n.
    return [*cases, (whole(-2, 3, 4, 12, seed=roll.randrange(2**31)).float(), 2, 4)]


def _alike_in_groups(answer, wanted, weight, n, m):
    """Tell whether two masks keep equally many, of the same sizes, in each group of m."""
    if not (is_mask(answer, weight) and is_mask(wanted, weight)):
        return False
    sizes = weight.abs().reshape(-1, m)
    masks = [torch.as_tensor(mask).reshape(-1, m) for mask in (answer, wanted)]
    kept, best = (torch.where(mask, sizes, -1.0).sort(dim=1).values for mask in masks)
    return torch.equal(kept, best)


def _keep_n_of_m(weight, n, m):
    return pruning.n_of_m_mask(weight.abs(), n, m)


def _n_of_m_down_the_columns(weight, n, m):
    """Count from the top of each column; rows that fill no group of m stay."""
    whole = len(weight) // m * m
    mask = torch.ones_like(weight, dtype=torch.bool)
    mask[:whole] = _keep_n_of_m(weight[:whole].T, n, m).T
    return mask


def _n_of_m_far_apart(weight, n, m):
    """Take as a group the values that stand a whole stretch apart: reshape(-1, m, groups)."""
    scores = weight.abs().view(len(weight), m, -1)
    mask = pruning.n_of_m_mask(scores.transpose(1, 2).flatten(1), n, m)
    return mask.view(len(weight), -1, m).transpose(1, 2).reshape(weight.shape)


def _at_least_the_nth(weight, n, m):
    groups = weight.abs().reshape(-1, m)
    return (groups >= groups.topk(n, dim=1).values[:, -1:]).view(weight.shape)


KEEP_N_OF_M_MISTAKES = {
    "threshold_takes_ties": _at_least_the_nth,
    "removes_n": lambda weight, n, m: _keep_n_of_m(weight, m - n, m),
    "mask_upside_down": lambda weight, n, m: ~_keep_n_of_m(weight, n, m),
    "compares_signed_weights": lambda weight, n, m: pruning.n_of_m_mask(weight, n, m),
    "keeps_the_small": lambda weight, n, m: pruning.n_of_m_mask(-weight.abs(), n, m),
    "share_of_the_row": lambda weight, n, m: pruning.row_mask(weight.abs(), 1 - n / m),
    "share_of_the_matrix": lambda weight, n, m: pruning.layer_mask(weight.abs(), 1 - n / m),
    "down_the_columns": _n_of_m_down_the_columns,
    "groups_far_apart": _n_of_m_far_apart,
}


KEEP_N_OF_M = Exercise(
    "keep_n_of_m", _keep_n_of_m, _keep_n_of_m_cases, KEEP_N_OF_M_MISTAKES, _alike_in_groups
)


def check_sparse_bytes(sparse_bytes) -> bool:
    """Check ``sparse_bytes(rows, columns, nonzeros)``: bytes as (dense, CSR, bit mask)."""
    return grade(sparse_bytes, SPARSE_BYTES)


def _sparse_bytes_cases(seed):
    roll = dice(seed)
    rows, columns = 8 * roll.randint(1, 9), roll.randrange(3, 40, 2)
    drawn = (rows, columns, roll.randint(2, rows * columns))
    return [(384, 384, 73_728), (10, 16, 3), (128, 384, 40_000), (8, 5, 0), (8, 5, 40), drawn]


def _sparse_bytes(rows, columns, nonzeros):
    """Store such a matrix in each of the three ways, and ask NumPy for the bytes."""
    dense = np.zeros((rows, columns), np.float32)
    dense.flat[:nonzeros] = 1
    values, (row_of_each, column_of_each) = dense[dense != 0], np.nonzero(dense)
    row_starts = np.searchsorted(row_of_each, np.arange(rows + 1))
    indices = np.concatenate([column_of_each, row_starts]).astype(np.int32)
    return (
        dense.nbytes,
        values.nbytes + indices.nbytes,
        np.packbits(dense != 0).nbytes + values.nbytes,
    )


_but = partial(but, _sparse_bytes)


SPARSE_BYTES_MISTAKES = {
    "dense_without_zeros": _but(0, lambda r, c, z: 4 * z),
    "csr_without_row_starts": _but(1, lambda r, c, z: 8 * z),
    "csr_one_row_start_too_few": _but(1, lambda r, c, z: 8 * z + 4 * r),
    "csr_without_columns": _but(1, lambda r, c, z: 4 * z + 4 * (r + 1)),
    "csr_row_with_each_value": _but(1, lambda r, c, z: 12 * z),
    "mask_byte_per_weight": _but(2, lambda r, c, z: r * c + 4 * z),
    "mask_of_nonzeros_only": _but(2, lambda r, c, z: z / 8 + 4 * z),
    "mask_without_values": _but(2, lambda r, c, z: r * c // 8),
    "bits_not_bytes": lambda r, c, z: tuple(8 * x for x in _sparse_bytes(r, c, z)),
    "order_swapped": lambda r, c, z: tuple(_sparse_bytes(r, c, z)[i] for i in (0, 2, 1)),
}


SPARSE_BYTES = Exercise("sparse_bytes", _sparse_bytes, _sparse_bytes_cases, SPARSE_BYTES_MISTAKES)


def check_wanda(wanda) -> bool:
    """Check ``wanda(weight, inputs)``: one score for each weight, from inputs of many tokens."""
    return grade(wanda, WANDA)


def _wanda_cases(seed):
    roll = dice(seed)
    seeds = iter([roll.randrange(2**31) for _ in range(8)])
    return [
        (normal(outputs, inputs, seed=next(seeds)), 0.5 + normal(tokens, inputs, seed=next(seeds)))
        for outputs, inputs, tokens in [(4, 6, 9), (3, 3, 3), (5, 2, 30), (2, 4, 2)]
    ]


def _wanda(weight, inputs):
    """Return the norm, over the tokens, of what each weight adds to its output."""
    return (weight[:, None] * inputs).norm(dim=1)


WANDA_MISTAKES = {
    "signed_weights": lambda weight, inputs: weight * inputs.norm(dim=0),
    "magnitude_only": lambda weight, inputs: weight.abs(),
    "signed_mean_of_inputs": lambda weight, inputs: weight.abs() * inputs.mean(dim=0),
    "sum_of_absolute_inputs": lambda weight, inputs: weight.abs() * inputs.abs().sum(dim=0),
    "no_root": lambda weight, inputs: weight.abs() * inputs.square().sum(dim=0),
    "both_squared": lambda weight, inputs: _wanda(weight, inputs).square(),
    "root_mean_square": lambda weight, inputs: _wanda(weight, inputs) / len(inputs) ** 0.5,
    "spread_of_inputs": lambda weight, inputs: weight.abs() * inputs.std(dim=0),
    "one_norm_for_all": lambda weight, inputs: weight.abs() * inputs.norm(),
    "loudest_token": lambda weight, inputs: weight.abs() * inputs.abs().amax(dim=0),
}


WANDA = Exercise("wanda", _wanda, _wanda_cases, WANDA_MISTAKES)


def check_keep_largest(keep_largest) -> bool:
    """Check ``keep_largest(parameters, sparsity)``: a list of masks, one for each parameter."""
    return grade(keep_largest, KEEP_LARGEST)


def _keep_largest_cases(seed):
    roll = dice(seed)
    cases = [
        (_parameters(shapes, roll.randrange(2**20)), sparsity)
        for shapes, sparsity in [
            ([(4, 6), (4,), (3, 4), (3,)], 0.5),
            ([(7,), (5, 7), (5,)], 0.28),  # 9.8 weights
            ([(7,), (5, 7), (5,)], 0.26),  # 9.1 weights
            ([(2, 3), (4,)], 0.75),  # 4.5 weights: round(...) makes 4 of it
            ([(3,), (2, 5), (5, 2)], 0.0),
            ([(2, 5), (5,), (5, 2)], 1.0),
        ]
    ]
    equal = [
        whole(-2, 3, *shape, seed=roll.randrange(2**31)).float() for shape in ((4, 5), (5,), (3, 4))
    ]
    return [*cases, (equal, 0.45)]


def _alike_together(answer, wanted, parameters, sparsity):
    """Tell whether two lists of masks keep the vectors, and equally large weights of the rest."""
    pairs = [list(masks) for masks in (answer, wanted) if isinstance(masks, (tuple, list))]
    if len(pairs) < 2 or any(len(masks) != len(parameters) for masks in pairs):
        return False
    if not all(is_mask(*pair) for masks in pairs for pair in zip(masks, parameters, strict=True)):
        return False
    return torch.equal(*(_kept_sizes(masks, parameters) for masks in pairs))


def _kept_sizes(masks, parameters):
    """Return which values of the vectors are kept, and the sizes kept of the matrices."""
    pairs = [(torch.as_tensor(m), p) for m, p in zip(masks, parameters, strict=True)]
    vectors = [mask.float() for mask, p in pairs if p.ndim == 1]
    matrices = [p.abs()[mask] for mask, p in pairs if p.ndim == 2]
    return torch.cat([*vectors, torch.cat(matrices).sort().values])


def _parameters(shapes, seed):
    """Return tensors whose scales differ, so that a common threshold shows."""
    return [
        (place + 1) * normal(*shape, seed=20 * seed + place) for place, shape in enumerate(shapes)
    ]


def _masks(parameters, sparsity, score=torch.abs, chosen=lambda p: p.ndim > 1, count=None):
    """Return masks that remove the lowest scores of the chosen parameters together."""
    scores = {i: score(p) for i, p in enumerate(parameters) if chosen(p)}
    total = sum(s.numel() for s in scores.values())
    share = min(1.0, (count or total) * sparsity / total) if total else 0
    found = pruning.global_mask(scores, share) if scores else {}
    return [found.get(i, torch.ones_like(p, dtype=torch.bool)) for i, p in enumerate(parameters)]


def _keep_largest(parameters, sparsity):
    return _masks(parameters, sparsity)


def _is_vector(parameter):
    return parameter.ndim == 1


def _broken(parameters, sparsity):
    """Do what the function of the exercise does."""
    values = torch.cat([p for p in parameters if p.ndim == 1]).sort(descending=True).values
    threshold = values[min(int(sparsity * len(values)), len(values) - 1)]
    return [p <= threshold if p.ndim == 1 else torch.ones_like(p).bool() for p in parameters]


def _by_count(parameters, sparsity, whole_number):
    total = sum(p.numel() for p in parameters if p.ndim > 1)
    return _masks(parameters, whole_number(round(sparsity * total, 6)) / total)


def _by_threshold(parameters, sparsity):
    sizes = torch.cat([p.abs().flatten() for p in parameters if p.ndim > 1]).sort().values
    remove = round(sparsity * len(sizes))
    last = sizes[remove - 1] if remove else -1.0
    return [p.abs() > last if p.ndim > 1 else torch.ones_like(p).bool() for p in parameters]


KEEP_LARGEST_MISTAKES = {
    "broken_version": _broken,
    "only_vectors": (
        lambda parameters, sparsity: _masks(parameters, sparsity, torch.abs, _is_vector)
    ),
    "removes_the_largest": lambda parameters, sparsity: _masks(parameters, sparsity, torch.neg),
    "removes_the_largest_sizes": (
        lambda parameters, sparsity: _masks(parameters, sparsity, lambda p: -p.abs())
    ),
    "compares_signed_weights": (
        lambda parameters, sparsity: _masks(parameters, sparsity, lambda p: p)
    ),
    "vectors_compete": (
        lambda parameters, sparsity: _masks(parameters, sparsity, chosen=lambda p: True)
    ),
    "each_matrix_alone": (
        lambda parameters, sparsity: [_masks([parameter], sparsity)[0] for parameter in parameters]
    ),
    "fraction_of_all_parameters": (
        lambda parameters, sparsity: _masks(
            parameters, sparsity, count=sum(p.numel() for p in parameters)
        )
    ),
    "rounds_down": lambda parameters, sparsity: _by_count(parameters, sparsity, math.floor),
    "rounds_up": lambda parameters, sparsity: _by_count(parameters, sparsity, math.ceil),
    "threshold_takes_ties": _by_threshold,
    "masks_upside_down": (
        lambda parameters, sparsity: [~mask for mask in _keep_largest(parameters, sparsity)]
    ),
}


KEEP_LARGEST = Exercise(
    "keep_largest", _keep_largest, _keep_largest_cases, KEEP_LARGEST_MISTAKES, _alike_together
)


def check_obs_remove(obs_remove) -> bool:
    """Check ``obs_remove(weight, hessian, q)``: the cost of removing weight q, and what is left."""
    return grade(obs_remove, OBS_REMOVE)


def _obs_remove_cases(seed):
    roll, cases = dice(seed), []
    for inputs, q in [(4, 2), (6, 0), (3, 1), (5, 4)]:
        seeds = [roll.randrange(2**31) for _ in range(3)]
        x = normal(3 * inputs, inputs, seed=seeds[0]) @ normal(inputs, inputs, seed=seeds[1])
        hessian = (x.T @ x).double() + torch.eye(inputs, dtype=torch.float64)
        cases.append((normal(inputs, seed=seeds[2]).double(), hessian, q))
    return cases


def _obs_remove(weight, hessian, q):
    """Solve for the other weights where weight q is 0, and measure the step on the parabola."""
    others = torch.arange(len(weight)) != q
    new = torch.zeros_like(weight)
    block, pull = hessian[others][:, others], hessian[others] @ weight
    new[others] = torch.linalg.solve(block, pull)
    step = new - weight
    return step @ hessian @ step, new


def _adjusted(weight, matrix, q):
    return weight - weight[q] / matrix[q, q] * matrix[:, q]


def _only_zero(weight, q):
    return torch.where(torch.arange(len(weight)) == q, 0, weight)


OBS_REMOVE_MISTAKES = {
    "others_unchanged": (
        lambda weight, hessian, q: (weight[q] ** 2 * hessian[q, q], _only_zero(weight, q))
    ),
    "others_unchanged_cost_right": (
        lambda weight, hessian, q: (_obs_remove(weight, hessian, q)[0], _only_zero(weight, q))
    ),
    "cost_without_adjustment": (
        lambda weight, hessian, q: (
            weight[q] ** 2 * hessian[q, q],
            _obs_remove(weight, hessian, q)[1],
        )
    ),
    "hessian_not_inverse": (
        lambda weight, hessian, q: (
            weight[q] ** 2 / hessian[q, q],
            _adjusted(weight, hessian, q),
        )
    ),
    "sign_turned": (
        lambda weight, hessian, q: (
            _obs_remove(weight, hessian, q)[0],
            2 * weight - _obs_remove(weight, hessian, q)[1],
        )
    ),
    "cost_halved": (
        lambda weight, hessian, q: (
            _obs_remove(weight, hessian, q)[0] / 2,
            _obs_remove(weight, hessian, q)[1],
        )
    ),
    "cost_multiplies": (
        lambda weight, hessian, q: (
            weight[q] ** 2 * torch.linalg.inv(hessian)[q, q],
            _obs_remove(weight, hessian, q)[1],
        )
    ),
    "step_not_divided": (
        lambda weight, hessian, q: (
            _obs_remove(weight, hessian, q)[0],
            weight - weight[q] * torch.linalg.inv(hessian)[:, q],
        )
    ),
}


OBS_REMOVE = Exercise("obs_remove", _obs_remove, _obs_remove_cases, OBS_REMOVE_MISTAKES)
