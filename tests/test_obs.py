"""The solver is the exact optimal brain surgeon for zeros, grids and any other choice."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightcourse import obs
from tests import toys

TINY = 1e-9  # damping too small to see
seeds = st.integers(0, 999)


def error(x, weight, new):
    """Return for each output its squared error over the calibration text."""
    return (x @ (weight - new).T).square().sum(0)


def targets(seed, like):
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(seed + 1)).double()


def taking(values, columns):
    """Return a choice: some columns take given values, the others what they have by then."""

    def choose(block, where, pivots):
        return lambda now, j: values[:, where.start + j] if where.start + j in columns else now

    return choose


@given(seeds, st.integers(0, 7), st.integers(1, 9))
def test_changing_one_column_moves_those_to_its_right_as_the_surgeon_does(seed, column, block_size):
    weight, x = toys.correlated(seed)
    values = targets(seed, weight)
    new = obs.solve(weight, x.T @ x, taking(values, {column}), block_size, TINY)
    inverse = (x.T @ x)[column:, column:].inverse()
    change = (weight[:, column] - values[:, column]) / inverse[0, 0]
    exact = weight[:, column:] - torch.outer(change, inverse[0])
    torch.testing.assert_close(new[:, column:], exact, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(new[:, :column], weight[:, :column], rtol=0, atol=0)
    assert torch.equal(new[:, column], values[:, column])


@given(seeds, st.integers(1, 7), st.integers(1, 9))
def test_after_columns_that_are_given_the_rest_is_the_least_squares_optimum(seed, count, block):
    weight, x = toys.correlated(seed)
    values = targets(seed, weight)
    new = obs.solve(weight, x.T @ x, taking(values, range(count)), block, TINY)
    left = x @ weight.T - x[:, :count] @ values[:, :count].T
    best = torch.linalg.lstsq(x[:, count:], left).solution.T
    torch.testing.assert_close(new[:, count:], best, rtol=1e-4, atol=1e-5)
    assert torch.equal(new[:, :count], values[:, :count])


@given(seeds, st.integers(1, 9))
def test_the_pivots_tell_what_each_choice_costs(seed, block_size):
    weight, x = toys.correlated(seed)
    costs = torch.zeros(len(weight)).double()

    def choose(block, columns, pivots):
        def become(values, j):
            wanted = values.round()
            costs.add_(((values - wanted) / pivots[j]).square())
            return wanted

        return become

    new = obs.solve(weight, x.T @ x, choose, block_size, TINY)
    assert torch.equal(new, new.round())
    torch.testing.assert_close(error(x, weight, new), costs, rtol=1e-4, atol=1e-6)


def test_blocks_are_chosen_by_what_the_columns_left_of_them_have_left():
    weight, x = toys.correlated(0)
    seen = []

    def choose(block, columns, pivots):
        seen.append((columns, block.clone(), len(pivots)))
        return lambda values, j: values * 0

    obs.solve(weight, x.T @ x, choose, 3, TINY)
    assert [(columns.start, columns.stop) for columns, *_ in seen] == [(0, 3), (3, 6), (6, 8)]
    assert [count for *_, count in seen] == [3, 3, 2]
    for columns, block, _ in seen:
        start = columns.start
        best = torch.linalg.lstsq(x[:, start:], x @ weight.T).solution.T
        torch.testing.assert_close(block, best[:, : block.shape[1]], rtol=1e-4, atol=1e-5)


def test_the_weight_stays_and_the_dtype_too():
    weight, x = toys.correlated(0)
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        given_weight = weight.to(dtype)
        kept = given_weight.clone()
        new = obs.solve(given_weight, (x.T @ x).float(), taking(kept * 0, {0}))
        assert new.dtype == dtype and torch.equal(given_weight, kept)


def nearest(weight, scale, most):
    return (weight / scale).round().clamp(-most, most)


def gptq(weight, hessian, bits=4, **settings):
    """GPTQ (arXiv 2210.17323), algorithm 1: integers and a scale for each row."""
    most = 2 ** (bits - 1) - 1
    scale = weight.abs().amax(1) / most

    def choose(block, columns, pivots):
        return lambda values, j: nearest(values, scale, most) * scale

    new = obs.solve(weight, hessian, choose, **settings)
    return nearest(new, scale[:, None], most).to(torch.int8), scale


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_gptq_rounds_with_less_output_error_than_to_the_nearest(bits):
    for seed in range(30):
        weight, x = toys.correlated(seed, 16, 32, 400)
        q, scale = gptq(weight, x.T @ x, bits)
        most = 2 ** (bits - 1) - 1
        plain = nearest(weight, scale[:, None], most) * scale[:, None]
        assert q.abs().max() == most
        found, usual = error(x, weight, q * scale[:, None]).sum(), error(x, weight, plain).sum()
        assert found < 0.9 * usual


@pytest.mark.parametrize("size", [1, 5, 8, 32])
def test_lazy_updates_change_no_integer(size):
    weight, x = toys.correlated(1, 16, 32, 400)
    assert torch.equal(gptq(weight, x.T @ x, block_size=size)[0], gptq(weight, x.T @ x)[0])


def test_of_two_columns_the_second_is_the_best_of_all_beside_the_first():
    most, levels = 7, torch.arange(-7, 8)
    for seed in range(30):
        weight, x = toys.correlated(seed, 6, 2)
        q, scale = gptq(weight, x.T @ x, damping=TINY)
        assert torch.equal(q[:, 0], nearest(weight[:, 0], scale, most).to(torch.int8))
        pairs = torch.tensor(list(itertools.product(levels, levels)))
        all_errors = torch.stack([error(x, weight, pair * scale[:, None]) for pair in pairs])
        found, plain = (
            error(x, weight, integers * scale[:, None])
            for integers in (q, nearest(weight, scale[:, None], most))
        )
        for row in range(6):
            beside = all_errors[pairs[:, 0] == q[row, 0], row]
            assert found[row].item() == pytest.approx(beside.min().item(), rel=1e-6)
            assert all_errors[:, row].min() * (1 - 1e-9) <= found[row] <= plain[row] * (1 + 1e-9)


def test_a_grid_for_each_group_of_columns_is_chosen_when_its_turn_comes():
    weight, x = toys.correlated(2, 16, 32, 400)
    scales = []

    def choose(block, columns, pivots):
        scale = block.abs().amax(1) / 7
        scales.append(scale)
        return lambda values, j: nearest(values, scale, 7) * scale

    new = obs.solve(weight, x.T @ x, choose, block_size=8)
    groups, grid = new.view(16, 4, 8), torch.stack(scales, 1)[..., None]
    torch.testing.assert_close(groups, nearest(groups, grid, 7) * grid, rtol=1e-12, atol=1e-12)
    groups = weight.view(16, 4, 8)
    own = groups.abs().amax(2, keepdim=True) / 7
    plain = (nearest(groups, own, 7) * own).flatten(1)
    assert error(x, weight, new).sum() < 0.8 * error(x, weight, plain).sum()


def refusals():
    weight, x = toys.correlated(0)
    hessian, keep = x.T @ x, taking({}, ())
    yield "weight has shape", (weight[0], hessian, keep)
    yield "hessian has shape", (weight, hessian[:4, :4], keep)
    yield "weight holds NaN", (weight * float("nan"), hessian, keep)
    yield "hessian holds NaN", (weight, hessian * float("inf"), keep)
    yield "hessian is zero", (weight, hessian * 0, keep)
    yield "not positive definite", (weight, -hessian, keep)
    yield "block_size is 0", (weight, hessian, keep, 0)
    yield "damping 0", (weight, hessian, keep, 128, 0)
    yield "damping nan", (weight, hessian, keep, 128, float("nan"))
    yield (
        r"returned shape \(5, 1\) for a column; \(5,\) is wanted",
        (weight, hessian, lambda *_: lambda values, j: values[:, None]),
    )


@pytest.mark.parametrize("message, arguments", list(refusals()))
def test_bad_input_is_refused(message, arguments):
    with pytest.raises(ValueError, match=message):
        obs.solve(*arguments)
