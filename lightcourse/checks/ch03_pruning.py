"""Checks of the exercises of chapter 03."""

from functools import partial

import numpy as np
import torch

from lightcourse import lora, pruning
from lightcourse.checks.by_hand import ByHand
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


def check_allot(allot) -> bool:
    """Check ``allot(sizes, most, sparsity)``: each layer's share of zeros."""
    return grade(allot, ALLOT)


def _allot_cases(seed):
    roll = dice(seed)
    sizes = [roll.randint(50, 400) for _ in range(6)]
    return [
        ([100, 50, 50, 200], [0.5, 0.72, 0.9, 0.95], 0.7),  # the second is fixed in round two
        ([30, 300, 90], [0.3, 0.9, 0.8], 0.75),
        ([100, 200], [0.9, 0.75], 0.5),  # nothing is fixed
        ([64, 32, 128], [0.5, 0.5, 0.5], 0.5),  # all get just their most
        ([10, 20, 30, 40], [0.0, 1.0, 0.25, 0.75], 0.5),
        (sizes, [0.2, 0.3, *(roll.uniform(0.5, 1) for _ in range(4))], 0.3),
    ]


def _allot(sizes, most, sparsity):
    """Read off the level from the line of what is removed at each layer's most."""
    levels = [0.0, *sorted(most)]
    removed = [sum(n * min(level, m) for n, m in zip(sizes, most, strict=True)) for level in levels]
    level = float(np.interp(sparsity * sum(sizes), removed, levels))
    return [min(level, m) for m in most]


def _one_round(sizes, most, sparsity):
    """Fix what is over the plain share, and give the rest to the others, whatever they bear."""
    fixed = [i for i, m in enumerate(most) if m < sparsity]
    left = sparsity * sum(sizes) - sum(sizes[i] * most[i] for i in fixed)
    level = left / sum(n for i, n in enumerate(sizes) if i not in fixed)
    return [most[i] if i in fixed else level for i in range(len(sizes))]


ALLOT_MISTAKES = {
    "same_for_all": lambda sizes, most, sparsity: [sparsity for _ in sizes],
    "not_made_up_for": lambda sizes, most, sparsity: [min(sparsity, m) for m in most],
    "one_round": _one_round,
    "one_round_cut": lambda *case: [
        min(share, m) for share, m in zip(_one_round(*case), case[1], strict=True)
    ],
    "sizes_ignored": lambda sizes, most, sparsity: _allot([1 for _ in sizes], most, sparsity),
    "in_proportion": lambda sizes, most, sparsity: [
        m * sparsity * sum(sizes) / sum(n * k for n, k in zip(sizes, most, strict=True))
        for m in most
    ],
    "all_at_their_most": lambda sizes, most, sparsity: list(most),
    "shares_kept": lambda *case: [1 - share for share in _allot(*case)],
    "counts_not_shares": lambda *case: [
        n * share for n, share in zip(case[0], _allot(*case), strict=True)
    ],
}


ALLOT = Exercise("allot", _allot, _allot_cases, ALLOT_MISTAKES)


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


def check_merge_held(merge_held) -> bool:
    """Check ``merge_held(weight, a, b, alpha)``: LoRA merged, zeros kept."""
    return grade(merge_held, MERGE_HELD)


def _merge_held_cases(seed):
    roll = dice(seed)

    def case(outputs, inputs, rank, alpha):
        shapes = (outputs, inputs), (rank, inputs), (outputs, rank)
        weight, a, b = (normal(*shape, seed=roll.randrange(2**31)) for shape in shapes)
        weight = weight * pruning.layer_mask(weight.abs(), 0.5)
        small = torch.tensor([[1e-6], *[[1.0]] * (outputs - 1)])  # a first row of tiny weights
        return weight * small, a, b, alpha

    return [case(4, 6, 2, 6.0), case(3, 5, 1, 0.5), case(5, 5, 4, roll.uniform(5, 9))]


@torch.no_grad()
def _merge_held(weight, a, b, alpha):
    """Let the library merge, and write the zeros in again."""
    model = torch.nn.Sequential(torch.nn.Linear(*weight.shape[::-1], bias=False))
    model[0].weight.copy_(weight)
    lora.add_lora_(model, rank=len(a), alpha=alpha)
    model[0].lora_a.copy_(a)
    model[0].lora_b.copy_(b)
    lora.merge_lora_(model)
    return torch.where(weight == 0, 0.0, model[0].weight)


def _held(scaling=lambda alpha, rank: alpha / rank, mask=lambda weight: weight != 0, frozen=1):
    """Return a merge with another scaling, another mask, or without the matrix itself."""
    return lambda weight, a, b, alpha: (
        (frozen * weight + scaling(alpha, len(a)) * b @ a) * mask(weight)
    )


MERGE_HELD_MISTAKES = {
    "refills": _held(mask=torch.ones_like),
    "mask_upside_down": _held(mask=lambda weight: weight == 0),
    "small_is_zero": _held(mask=lambda weight: weight.abs() > 1e-3),
    "positive_only": _held(mask=lambda weight: weight > 0),
    "no_scaling": _held(lambda alpha, rank: 1),
    "scaling_alpha": _held(lambda alpha, rank: alpha),
    "scaling_upside_down": _held(lambda alpha, rank: rank / alpha),
    "update_alone": _held(frozen=0),
    "without_update": lambda weight, a, b, alpha: weight,
}


MERGE_HELD = Exercise("merge_held", _merge_held, _merge_held_cases, MERGE_HELD_MISTAKES)


# --- worked out by hand, from the numbers of a variant ---


def _survives(keep_n_of_m, **row):
    sizes = torch.tensor([[*map(float, row.values()), 0.0]])
    kept = (sizes * torch.as_tensor(keep_n_of_m(sizes, 2 * m // 4, m)) for m in (4, 8))
    return [float(each.sum() / sizes.sum()) for each in kept]


def _second_share(allot, size, most, other):
    return [allot([size, second], [most / 100, 1.0], 0.5)[1] for second in (size, other)]


SURVIVES = ByHand(KEEP_N_OF_M, _survives)
SECOND_SHARE = ByHand(ALLOT, _second_share)
