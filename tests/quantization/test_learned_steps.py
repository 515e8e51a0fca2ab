"""LSQ: values, the paper's gradient, finite differences of its smooth parts, where steps start."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightcourse import quantization
from lightcourse.quantization import learned_steps, lsq

GRIDS = {"ternary": (-1, 1), "2 bits": (-2, 1), "3 bits": (-4, 3), "8 bits": (-128, 127)}
every_grid = pytest.mark.parametrize("ends", GRIDS.values(), ids=list(GRIDS))
EQUATION = st.floats(-300, 300, width=32), st.floats(2**-6, 4, width=32), st.sampled_from([*GRIDS])


def gradients(v, step, ends, scale=1.0):
    """Return what comes back to one value and its step for an upstream gradient of 1."""
    v, step = (torch.tensor(one, requires_grad=True) for one in (v, step))
    lsq(v, step, *ends, scale).backward()
    return v.grad.item(), step.grad.item()


@given(*EQUATION)
def test_the_gradient_is_equation_3_of_the_paper(v, step, grid):
    low, high = GRIDS[grid]
    steps = (torch.tensor(v) / torch.tensor(step)).item()
    if steps <= low:
        wanted = 0, low
    elif steps >= high:
        wanted = 0, high
    else:
        wanted = 1, round(steps) - steps  # Python rounds halves to even, as torch does
    assert gradients(v, step, (low, high)) == pytest.approx(wanted, abs=1e-6)


@every_grid
def test_finite_differences_agree_where_the_formula_is_smooth(ends):
    """The error of rounding, in steps, is held still: then the step's formula has a slope."""
    torch.manual_seed(0)
    v = torch.randn(400, dtype=torch.float64) * 0.6 * max(ends)
    step, tiny = torch.tensor(0.37, dtype=torch.float64), 1e-6
    error = (v / step).round() - v / step

    def smooth(step):
        steps = v / step
        inside = (v / 0.37 > ends[0]) & (v / 0.37 < ends[1])
        return (torch.where(inside, steps + error, steps.clamp(*ends)) * step).sum()

    slope = (smooth(step + tiny) - smooth(step - tiny)) / (2 * tiny)
    learned = step.float().requires_grad_()
    lsq(v.float(), learned, *ends).sum().backward()
    assert learned.grad.item() == pytest.approx(slope.item(), rel=1e-4)


@every_grid
def test_finite_differences_agree_with_the_values_outside_of_the_grid(ends):
    step = torch.tensor(0.5, requires_grad=True)
    v = torch.tensor([end * 0.5 * 1.7 for end in ends], requires_grad=True)
    lsq(v, step, *ends).sum().backward()
    near = [lsq(v.detach(), torch.tensor(0.5 + tiny), *ends).sum() for tiny in (0.01, -0.01)]
    assert step.grad.item() == pytest.approx(((near[0] - near[1]) / 0.02).item(), rel=1e-3)
    assert v.grad.tolist() == [0, 0]


def test_the_values_are_those_of_the_integers():
    torch.manual_seed(0)
    v, step = torch.randn(50, 4, 8), torch.rand(50, 4, 1) + 0.1
    q = quantization.quantize_affine(v, step, torch.tensor(0), bits=3)
    assert torch.equal(lsq(v, step, -4, 3), quantization.dequantize_affine(q, step, 0))


def test_a_step_adds_up_what_its_own_values_send():
    torch.manual_seed(0)
    v, upstream = torch.randn(3, 2, 8), torch.randn(3, 2, 8)
    step = torch.full((3, 2, 1), 0.4, requires_grad=True)
    lsq(v, step, -2, 1, gradient_scale=0.25).backward(upstream)
    for row in range(3):
        for group in range(2):
            sent = [
                up.item() * gradients(one.item(), 0.4, (-2, 1))[1]
                for one, up in zip(v[row, group], upstream[row, group], strict=True)
            ]
            assert step.grad[row, group].item() == pytest.approx(0.25 * sum(sent), rel=1e-4)


def test_a_negative_step_is_a_grid_as_well():
    v = torch.tensor([-1.0, 0.2, 0.9])
    assert lsq(v, torch.tensor(-0.5), -2, 1).tolist() == [-0.5, 0.0, 1.0]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_not_hidden(value):
    rounded = lsq(torch.tensor([value, 0.3]), torch.tensor(0.5), -2, 1)
    assert rounded[0].isnan() and rounded[1] == 0.5


def test_the_gradients_scale_is_the_papers():
    assert learned_steps.gradient_scale(128, 7) == pytest.approx(1 / math.sqrt(128 * 7))


def test_a_stored_step_is_rounded_and_its_gradient_passes():
    step = torch.tensor([0.1, 0.0], requires_grad=True)
    stored = learned_steps.stored_step(step, 4)
    stored.sum().backward()
    assert stored.tolist() == [torch.tensor(0.1).half().item(), 1.0]
    assert step.grad.tolist() == [1, 1]


@every_grid
def test_steps_start_where_they_shall(ends):
    torch.manual_seed(0)
    groups = torch.randn(6, 2, 32)
    size = groups.abs().mean(-1)
    assert torch.allclose(quantization.paper_step(groups, *ends), 2 * size / ends[1] ** 0.5)
    assert torch.equal(quantization.mean_step(groups, *ends), size)

    def error(step):
        return (lsq(groups, step[..., None], *ends) - groups).square().sum(-1)

    least = error(quantization.nearest_step(groups, *ends))
    assert least.mean() < 0.9 * error(quantization.paper_step(groups, *ends)).mean()
