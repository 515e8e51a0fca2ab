"""NF4, MXFP4, NVFP4 and blocks of any levels."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightcourse.quantization import blocks
from lightcourse.quantization.levels import float_levels, normal_levels


def draw(rows=8, columns=128, seed=0, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=generator) ** 3 * spread


def fp4_nibbles(packed):
    """Return the numbers of FP4 codes that stand two in a byte, the first in the low half."""
    packed = packed.view(torch.uint8)
    codes = torch.stack([packed & 15, packed >> 4], dim=-1).flatten(1).long()
    sizes = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    return torch.where(codes < 8, 1, -1) * sizes[codes % 8]


@pytest.mark.parametrize("seed", range(5))
def test_mxfp4_is_the_formats_bit_for_bit(seed):
    torchao = pytest.importorskip("torchao.prototype.mx_formats.mx_tensor")
    weight = draw(seed=seed, spread=10.0 ** (seed - 2))
    weight[0, :32] = 0
    scale, packed = torchao.to_mx(weight, torch.float4_e2m1fn_x2, 32)
    ours = blocks.mxfp4(weight)
    some = slice(1, None)  # a block of zeros has no exponent: any will do
    assert torch.equal(ours.scale.view(torch.uint8)[some], scale.view(torch.uint8)[some])
    assert torch.equal(ours.levels[ours.codes.long()], fp4_nibbles(packed))


def test_mxfp4_by_hand():
    row = torch.zeros(1, 32)
    row[0, :5] = torch.tensor([9.0, 3.0, 0.5, -13.0, 1.25])
    ours = blocks.mxfp4(row)  # the largest is in [8, 16), FP4's largest in [4, 8): a scale of 2
    assert ours.scale.view(torch.uint8).tolist() == [[128]]
    assert ours.read_back()[0, :5].tolist() == [8.0, 3.0, 0.0, -12.0, 1.0]  # 4.5, .25, .625 tie


@pytest.mark.parametrize("seed", range(5))
def test_nvfp4_is_torchaos(seed):
    torchao = pytest.importorskip("torchao.prototype.mx_formats.nvfp4_tensor")
    weight = draw(seed=seed)
    ours = blocks.nvfp4(weight)
    scale, packed = torchao.nvfp4_quantize(weight, 16, torch.tensor(ours.factor))
    assert ours.factor == pytest.approx(
        torchao.per_tensor_amax_to_scale(weight.abs().max()).item(), rel=1e-6
    )
    assert torch.equal(ours.scale.float(), scale.view(torch.float8_e4m3fn).float())
    same = ours.levels[ours.codes.long()] == fp4_nibbles(packed)
    assert same.float().mean() > 0.999  # it divides in another order


@given(st.integers(0, 2**31), st.sampled_from([1e-20, 1e-3, 1.0, 1e15]))
@settings(max_examples=30)
@pytest.mark.parametrize("kind", [blocks.nf4, blocks.mxfp4, blocks.nvfp4])
def test_what_is_read_back_is_near(kind, seed, spread):
    weight = draw(2, 128, seed, spread)
    coded = kind(weight)
    # The widest gap between levels, and what a power of two may cut off.
    gap = 2 / 6 if kind is not blocks.nf4 else 0.3039
    size = {blocks.nf4: 64, blocks.mxfp4: 32, blocks.nvfp4: 16}[kind]
    largest = weight.unflatten(1, (-1, size)).abs().amax(-1, keepdim=True)
    off = (coded.read_back() - weight).unflatten(1, (-1, size)).abs()
    assert (off <= largest * gap + 1e-30 + coded.factor * 2**-9 * 6).all()


def test_levels_that_are_stored_come_back_exactly():
    weight = normal_levels(4).repeat(2, 4) * torch.tensor([[2.0], [0.5]])
    assert torch.equal(blocks.nf4(weight).read_back(), weight)
    fp4 = float_levels(2, 1)
    weight = torch.cat([fp4, fp4, fp4[:2]]).repeat(2, 1) * torch.tensor([[4.0], [0.25]])
    assert torch.equal(blocks.mxfp4(weight).read_back(), weight)


def test_bytes_are_those_of_codes_scales_and_levels():
    weight = draw(8, 128)
    assert blocks.nf4(weight).nbytes == 8 * 64 + 16 * 4 + 64
    assert blocks.mxfp4(weight).nbytes == 8 * 64 + 32 + 64
    assert blocks.nvfp4(weight).nbytes == 8 * 64 + 64 + 64 + 4
    assert blocks.kmeans(weight, 3).nbytes == 8 * 128 * 3 // 8 + 4 + 32
    assert blocks.fp8(weight).nbytes == 8 * 128 + 8 * 4 + 1024
    assert blocks.ternary(weight).nbytes == 8 * 32 + 8 * 2 + 16


def error(weight, coded):
    return (coded.read_back() - weight).square().sum()


@pytest.mark.parametrize("seed", range(3))
def test_fp8_is_torchs_own(seed):
    weight = draw(4, 64, seed)
    coded = blocks.fp8(weight)
    real = (weight / coded.scale).to(torch.float8_e4m3fn).float() * coded.scale
    assert torch.equal(coded.read_back(), real)


def test_a_codebook_of_its_own_errs_less_than_a_grid():
    weight = draw(16, 128)
    for block in (None, 32):
        own = error(weight, blocks.kmeans(weight, 4, block))
        even = torch.linspace(-1, 1, 16)
        assert own < error(weight, blocks.code_blocks(weight, even, block, blocks.least_squares))


@pytest.mark.parametrize("seed", range(3))
def test_no_other_scale_serves_binary_better(seed):
    weight = draw(4, 64, seed)
    signs, ours = weight.sign(), error(weight, blocks.binary(weight))
    best = (signs * weight).mean(1, keepdim=True)  # by calculus, in 32 bits
    assert ours <= (signs * best - weight).square().sum() * (1 + 1e-5)
    for factor in (0.9, 1.1):
        assert ours < (signs * best * factor - weight).square().sum()


@pytest.mark.parametrize("levels", [normal_levels(4), float_levels(3, 0), normal_levels(2)])
def test_fitted_scales_leave_a_smaller_error_than_the_largest_value(levels):
    weight = draw(16, 128)
    plain = blocks.code_blocks(weight, levels, 32, blocks.largest_value)
    fitted = blocks.code_blocks(weight, levels, 32, blocks.least_squares)
    assert error(weight, fitted) < error(weight, plain) * 1.001
    assert fitted.scale.dtype == torch.float16


@pytest.mark.parametrize(
    "kind",
    [
        *(blocks.nf4, blocks.mxfp4, blocks.nvfp4, blocks.binary, blocks.ternary),
        *(blocks.fp8, blocks.log4, blocks.kmeans),
    ],
)
def test_zeros_stay_zeros(kind):
    assert not kind(torch.zeros(2, 64)).read_back().any()


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: blocks.nf4(torch.ones(2, 60)), "block is 64"),
        (lambda: blocks.mxfp4(torch.ones(32)), "a matrix with values"),
        (lambda: blocks.nvfp4(torch.full((1, 16), torch.nan)), "NaN"),
        (
            lambda: blocks.code_blocks(torch.ones(1, 4), torch.ones(1), None, blocks.largest_value),
            "levels has shape",
        ),
    ],
)
def test_bad_input_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
