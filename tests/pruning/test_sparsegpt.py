"""SparseGPT equals the exact optimal brain surgeon where it must, and is near it elsewhere."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightcourse import layers, metrics, pruning
from tests import toys

TINY = 1e-9  # damping too small to see
seeds = st.integers(0, 999)


def problem(*seed_and_sizes):
    """Return a weight and the sum of squares of inputs that are correlated."""
    weight, x = toys.correlated(*seed_and_sizes)
    return weight, x.T @ x


def error(weight, new, hessian):
    """Return the squared error of the layer's output over the calibration text."""
    change = weight - new
    return torch.einsum("ij,jk,ik->", change, hessian, change).item()


def least_squares(weight, hessian, mask):
    """Return the best weight that is zero outside the mask: exact, row by row."""
    best = torch.zeros_like(weight)
    for row, keep in enumerate(mask):
        wanted = hessian[keep] @ weight[row]
        best[row, keep] = torch.linalg.solve(hessian[keep][:, keep], wanted)
    return best


def half(scores):
    return pruning.layer_mask(scores, 0.5)


@given(seeds, st.integers(1, 9))
def test_removing_one_weight_is_the_exact_update(seed, block_size):
    weight, hessian = problem(seed)
    first = torch.ones_like(weight, dtype=torch.bool)
    first[:, 0] = False
    blocks = iter(first.split(block_size, dim=1))
    new = pruning.sparsegpt(weight, hessian, lambda _: next(blocks), block_size, TINY)
    inverse = hessian.inverse()
    exact = weight - torch.outer(weight[:, 0] / inverse[0, 0], inverse[0])
    torch.testing.assert_close(new[:, 1:], exact[:, 1:], rtol=1e-4, atol=1e-5)
    assert (new[:, 0] == 0).all()
    cost = (weight[:, 0] ** 2 / inverse[0, 0]).sum().item()
    assert error(weight, new, hessian) == pytest.approx(cost, rel=1e-3)


@given(seeds, st.integers(0, 7))
def test_removing_a_later_weight_leaves_what_stands_left_of_it(seed, column):
    weight, hessian = problem(seed)
    mask = torch.ones_like(weight, dtype=torch.bool)
    mask[:, column] = False
    new = pruning.sparsegpt(weight, hessian, lambda _: mask, damping=TINY)
    inverse = hessian[column:, column:].inverse()
    exact = weight[:, column:] - torch.outer(weight[:, column] / inverse[0, 0], inverse[0])
    exact[:, 0] = 0
    torch.testing.assert_close(new[:, column:], exact, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(new[:, :column], weight[:, :column], rtol=0, atol=1e-12)


@given(seeds, st.integers(1, 7), st.integers(1, 9))
def test_columns_that_go_first_leave_the_least_squares_optimum(seed, removed, block_size):
    weight, hessian = problem(seed)
    mask = torch.arange(8).expand(5, 8) >= removed
    blocks = iter(mask.split(block_size, dim=1))
    new = pruning.sparsegpt(weight, hessian, lambda _: next(blocks), block_size, TINY)
    best = least_squares(weight, hessian, mask)
    torch.testing.assert_close(new, best, rtol=1e-4, atol=1e-5)


def test_a_given_mask_costs_less_than_masking_and_little_more_than_the_optimum():
    """No law for all inputs: a later removal may undo what an earlier one relied on."""
    for seed in range(30):
        weight, hessian = problem(seed, 16, 32, 400)
        mask = torch.rand(16, 32, generator=torch.Generator().manual_seed(seed)) > 0.5
        new = pruning.sparsegpt(weight, hessian, lambda _, mask=mask: mask, damping=1e-4)
        masked = error(weight, weight * mask, hessian)
        best = error(weight, least_squares(weight, hessian, mask), hessian)
        assert (new[~mask] == 0).all()
        assert 0.9999 * best < error(weight, new, hessian) < min(masked, 1.5 * best)


def test_the_adaptive_mask_beats_zeroing_by_wanda():
    for seed in range(30):
        weight, hessian = problem(seed, 16, 32, 400)
        new = pruning.sparsegpt(weight, hessian, half, block_size=8)
        wanda = pruning.wanda_scores(weight, hessian.diagonal().sqrt())
        for mask in (pruning.row_mask(wanda, 0.5), half(wanda), half(weight.abs())):
            assert error(weight, new, hessian) < error(weight, weight * mask, hessian)


@given(seeds, st.floats(0.1, 100), st.floats(0.01, 10))
def test_equal_independent_inputs_make_it_magnitude_pruning(seed, size, damping):
    weight, _ = problem(seed)
    new = pruning.sparsegpt(weight, size * torch.eye(8).double(), half, damping=damping)
    torch.testing.assert_close(new, weight * half(weight.abs()), rtol=1e-12, atol=0)


def test_independent_inputs_make_it_wanda():
    weight, hessian = problem(3)
    squares = torch.diag(hessian.diagonal())
    new = pruning.sparsegpt(weight, squares, half, damping=TINY)
    wanda = pruning.wanda_scores(weight, squares.diagonal().sqrt())
    torch.testing.assert_close(new, weight * half(wanda), rtol=1e-6, atol=1e-9)


@given(seeds, st.sampled_from([1, 3, 8, 100]))
def test_lazy_updates_change_nothing(seed, block_size):
    """With a mask given beforehand, blocks are bookkeeping."""
    weight, hessian = problem(seed)
    mask = torch.rand(5, 8, generator=torch.Generator().manual_seed(seed)) > 0.4
    blocks = iter(mask.split(block_size, dim=1))
    new = pruning.sparsegpt(weight, hessian, lambda _: next(blocks), block_size)
    whole = pruning.sparsegpt(weight, hessian, lambda _: mask, 8)
    torch.testing.assert_close(new, whole, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("family", toys.ALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_gets_the_sparsity_and_the_report_tells_it(family, dtype):
    model = toys.ALL[family]().to(dtype)
    batch = {"input_ids": torch.arange(1, 33).view(4, 8)}
    batch["attention_mask"] = torch.ones_like(batch["input_ids"])
    hessians = pruning.hessians(model, [batch])
    old = {
        n: layers.weight_matrix(m).detach().clone() for n, m in layers.linear_layers(model).items()
    }
    report = pruning.sparsegpt_(model, hessians, lambda s: pruning.n_of_m_mask(s, 2, 4), 4)
    assert metrics.sparsity(model) == 0.5
    for name, layer in layers.linear_layers(model).items():
        weight = layers.weight_matrix(layer)
        assert weight.dtype == dtype
        assert ((weight == 0).view(len(weight), -1, 4).sum(-1) == 2).all()
        assert report.changed[name] == int(((weight == 0) & (old[name] != 0)).sum())
        wanted = pruning.sparsegpt(
            old[name], hessians[name], lambda s: pruning.n_of_m_mask(s, 2, 4), 4
        )
        assert torch.equal(weight, wanted)


def test_inputs_that_never_fire_are_removed_first():
    weight, hessian = problem(0)
    hessian[2], hessian[:, 2] = 0, 0
    new = pruning.sparsegpt(weight, hessian, lambda s: pruning.row_mask(s, 1 / 8), damping=TINY)
    assert (new[:, 2] == 0).all()
    assert error(weight, new, hessian) == pytest.approx(0, abs=1e-6)


def test_sparsity_0_and_1():
    model = toys.mlp()
    hessians = pruning.hessians(model, [{"input": torch.randn(50, 8)}])
    with pytest.raises(ValueError, match="nothing was pruned"):
        pruning.sparsegpt_(model, hessians, lambda s: pruning.layer_mask(s, 0.0))
    pruning.sparsegpt_(model, hessians, lambda s: pruning.layer_mask(s, 1.0))
    assert metrics.sparsity(model) == 1


def refusals():
    weight, hessian = problem(0)
    bad = weight.clone()
    bad[0, 0] = float("nan")
    yield "hessian has shape", (weight, hessian[:4, :4], half)
    yield "weight holds NaN", (bad, hessian, half)
    yield "hessian holds NaN", (weight, hessian * float("inf"), half)
    yield "hessian is zero", (weight, hessian * 0, half)
    yield "block_size is 0", (weight, hessian, half, 0)
    yield "damping 0", (weight, hessian, half, 128, 0)
    yield "mask returned no torch.bool", (weight, hessian, lambda s: s)
    yield "mask returned no torch.bool", (weight, hessian, lambda s: half(s)[:2])
    yield "sparsity is 1.5", (weight, hessian, lambda s: pruning.layer_mask(s, 1.5))
    yield "n is 5 and m is 4", (weight, hessian, lambda s: pruning.n_of_m_mask(s, 5, 4))
    yield "not a multiple", (weight, hessian, lambda s: pruning.n_of_m_mask(s, 2, 3))


@pytest.mark.parametrize("message, arguments", list(refusals()))
def test_bad_input_is_refused(message, arguments):
    with pytest.raises(ValueError, match=message):
        pruning.sparsegpt(*arguments)


def test_a_refusal_changes_nothing():
    model = toys.mlp()
    hessians = pruning.hessians(model, [{"input": torch.randn(50, 8)}])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match="layer 2: hessian has shape"):
        pruning.sparsegpt_(model, hessians | {"2": torch.eye(3)}, half)
    with pytest.raises(ValueError, match=r"hessians names \['9'\]"):
        pruning.sparsegpt_(model, hessians | {"9": torch.eye(3)}, half)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
