"""No other product of that rank is nearer, to the weight or to what it answers."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightcourse import sharing
from tests import toys

SIDES = st.integers(1, 9)


def made(seed, rows, columns, dead=0, tokens=40):
    """Return a weight and the second moments of correlated inputs, some of them always zero."""
    weight, x = toys.correlated(seed, rows, columns, tokens)
    x[:, : min(dead, columns)] = 0
    return weight, x.T @ x / tokens


def lost(weight, pair, moments):
    gap = weight - pair[0] @ pair[1]
    return float(torch.trace(gap @ moments @ gap.T))


@given(st.integers(0, 999), SIDES, SIDES, st.integers(1, 9), st.booleans(), st.integers(0, 3))
@settings(max_examples=60)
def test_nothing_near_is_better(seed, rows, columns, rank, whitened, dead):
    weight, moments = made(seed, rows, columns, dead)
    rank = min(rank, rows, columns)
    pair = sharing.low_rank(weight, rank, moments if whitened else None)
    metric = moments if whitened else torch.eye(columns, dtype=torch.double)
    best = lost(weight, pair, metric)
    generator = torch.Generator().manual_seed(seed)
    for size in (1.0, 0.1, 1e-3):
        other = [p + size * torch.randn(p.shape, generator=generator).double() for p in pair]
        assert best <= lost(weight, other, metric) + 1e-9


@given(st.integers(0, 999), SIDES, SIDES, st.integers(1, 9))
@settings(max_examples=40)
def test_the_plain_error_is_what_the_other_singular_values_hold(seed, rows, columns, rank):
    weight, _ = made(seed, rows, columns)
    rank = min(rank, rows, columns)
    left, right = sharing.low_rank(weight, rank)
    wanted = torch.linalg.svdvals(weight)[rank:].square().sum()
    torch.testing.assert_close((weight - left @ right).square().sum(), wanted)
    torch.testing.assert_close(left.norm(dim=0), right.norm(dim=1))


@given(st.integers(0, 999), SIDES, SIDES, st.integers(1, 9), st.integers(0, 4), st.integers(2, 40))
@settings(max_examples=60)
def test_whitened_answers_are_at_least_as_near(seed, rows, columns, rank, dead, tokens):
    weight, moments = made(seed, rows, columns, dead, tokens)
    rank = min(rank, rows, columns)
    whitened = lost(weight, sharing.low_rank(weight, rank, moments), moments)
    assert whitened <= lost(weight, sharing.low_rank(weight, rank), moments) + 1e-9


@given(st.integers(0, 999), SIDES, SIDES, st.integers(0, 9), st.integers(1, 40))
@settings(max_examples=60)
def test_full_rank_gives_the_weight_back_even_where_inputs_are_dead(
    seed, rows, columns, dead, tokens
):
    weight, moments = made(seed, rows, columns, dead, tokens)
    for given_moments in (None, moments):
        left, right = sharing.low_rank(weight, min(rows, columns), given_moments)
        torch.testing.assert_close(left @ right, weight)


def test_a_rank_that_the_outputs_do_not_need_goes_to_the_weight():
    weight, moments = made(3, 6, 8, dead=6)
    left, right = sharing.low_rank(weight, 4, moments)
    assert lost(weight, (left, right), moments) < 1e-12  # two inputs live: rank 2 is enough
    pair = sharing.low_rank(weight, 2, moments)
    assert (weight - left @ right).norm() < 0.9 * (weight - pair[0] @ pair[1]).norm()


def test_the_scale_of_the_moments_does_not_matter_and_smaller_ranks_are_inside():
    weight, moments = made(5, 7, 9)
    pair = sharing.low_rank(weight, 5, moments)
    for one, other in zip(pair, sharing.low_rank(weight, 5, 1e6 * moments), strict=True):
        torch.testing.assert_close(one.abs(), other.abs())
    left, right = sharing.low_rank(weight, 2, moments)
    torch.testing.assert_close(left, pair[0][:, :2])
    torch.testing.assert_close(right, pair[1][:2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e3])
def test_every_dtype_and_views(dtype, scale):
    weight = (scale * made(1, 12, 10)[0]).to(dtype).T
    left, right = sharing.low_rank(weight, 10)
    assert left.dtype == right.dtype == dtype
    gap = (left.double() @ right.double() - weight.double()).norm()
    assert gap <= 4 * torch.finfo(dtype).eps * weight.double().norm()


def test_zeros_stay_zeros():
    left, right = sharing.low_rank(torch.zeros(3, 4), 2)
    assert not left.mul(1).matmul(right).any() and torch.isfinite(left).all()
    left, right = sharing.low_rank(torch.ones(3, 4), 2, torch.zeros(4, 4))
    torch.testing.assert_close(left @ right, torch.ones(3, 4))


@pytest.mark.parametrize("rank", [0, -1, 4, 2.0, True, None])
def test_wrong_ranks(rank):
    with pytest.raises(ValueError, match=r"rank is .*; 1 to 3 is wanted for \(3, 5\)"):
        sharing.low_rank(torch.ones(3, 5), rank)


def test_wrong_tensors():
    weight, eye = torch.ones(3, 5), torch.eye(5)
    for wrong in (torch.ones(3), torch.ones(0, 5), [[1.0]], None):
        with pytest.raises(ValueError, match="weight is .*; a filled matrix is wanted"):
            sharing.low_rank(wrong, 1)
    with pytest.raises(ValueError, match="weight is torch.int64; floats are wanted"):
        sharing.low_rank(weight.long(), 1)
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="weight holds NaN or infinity"):
            sharing.low_rank(weight * bad, 1)
        with pytest.raises(ValueError, match="second_moments holds NaN or infinity"):
            sharing.low_rank(weight, 1, eye * bad)
    for wrong in (torch.eye(3), torch.ones(5), "H"):
        with pytest.raises(ValueError, match=r"second_moments is .*; a tensor of \(5, 5\)"):
            sharing.low_rank(weight, 1, wrong)
    with pytest.raises(ValueError, match="second_moments has the eigenvalue -1 beside 1"):
        sharing.low_rank(weight, 1, torch.diag(torch.tensor([1.0, 1, 1, 1, -1])))


@given(SIDES, SIDES, st.integers(0, 500), st.sampled_from([0.5, 1, 2, 4]))
def test_the_largest_rank_within_some_bytes(rows, columns, num_bytes, each):
    rank = sharing.rank_within((rows, columns), num_bytes, each)
    fits = [r for r in range(min(rows, columns) + 1) if r * (rows + columns) * each <= num_bytes]
    assert rank == max(fits)


@pytest.mark.parametrize(
    "given, message",
    [
        (((0, 4), 9), "shape is"),
        (((4, 4), -1), "num_bytes is -1"),
        (((4, 4), float("nan")), "num_bytes is nan"),
        (((4, 4), 9, 0), "bytes_per_number is 0"),
    ],
)
def test_no_rank_without_sides_and_bytes(given, message):
    with pytest.raises(ValueError, match=message):
        sharing.rank_within(*given)
