"""Codebooks: levels, codes, and k-means."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from lightcourse.quantization import levels as made

# The table that QLoRA's authors publish with their code.
NF4 = [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453]
NF4 += [-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0]
NF4 += [0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224]
NF4 += [0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0]


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_nf4_is_the_published_table():
    assert (made.normal_levels(4) - torch.tensor(NF4)).abs().max() < 3e-7


@pytest.mark.parametrize("bits", range(2, 9))
def test_normal_levels_are_used_about_equally_often(bits):
    levels = made.normal_levels(bits)
    assert levels[0] == -1 and levels[-1] == 1 and (levels == 0).sum() == 1
    if bits > 4:
        return  # the largest of few draws would be seen
    x = draw(100_000)
    # Scaled as the levels are: their ends are the outermost quantile.
    half = 2 ** (bits - 1)
    last = 1 - (1 / (4 * half) + 1 / (4 * half - 2)) / 2
    x /= torch.special.ndtri(torch.tensor(last))
    shares = made.nearest_codes(x, levels).int().bincount(minlength=2**bits) / len(x)
    assert shares.max() < 2.2 * shares.min()


def test_the_fp4_and_fp8_numbers_are_those_of_the_format():
    sizes = [0, 0.5, 1, 1.5, 2, 3, 4, 6]
    assert made.float_levels(2, 1).tolist() == [-x for x in sizes[:0:-1]] + sizes
    codes = torch.arange(256, dtype=torch.uint8).view(torch.float8_e5m2).float()
    wanted = codes[torch.isfinite(codes)].unique()
    levels = made.float_levels(5, 2)
    assert torch.equal(levels[levels.abs() < 2.0**16], wanted)  # above are its infinities and NaN


@given(st.integers(1, 4), st.integers(0, 3), st.integers(0, 2**31))
def test_the_nearest_code_is_the_nearest(exponent, mantissa, seed):
    levels = made.float_levels(exponent, mantissa)
    x = draw(50, seed=seed) * levels.max() / 2
    codes = made.nearest_codes(x, levels).long()
    best = (x[:, None] - levels).abs().amin(dim=1)
    assert torch.equal((x - levels[codes]).abs(), best)


@pytest.mark.parametrize("kind, format", [((5, 2), torch.float8_e5m2), ((4, 3), None)])
def test_ties_go_to_the_even_mantissa_as_in_torch(kind, format):
    levels = made.float_levels(*kind)
    format = format or torch.float8_e4m3fn
    levels = levels[levels.abs() <= torch.finfo(format).max]
    middles = (levels[1:] + levels[:-1]) / 2
    x = torch.cat([middles, levels, middles * 1.001, middles * 0.999])
    assert torch.equal(levels[made.nearest_codes(x, levels).long()], x.to(format).float())


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_kmeans_reaches_the_inertia_of_scikit_learn(bits, seed):
    x = draw(2000, seed=seed) ** 3
    start = x.quantile((torch.arange(2**bits) + 0.5) / 2**bits)
    peer = KMeans(2**bits, init=start.numpy()[:, None], n_init=1, max_iter=500, tol=0)
    peer.fit(x.numpy()[:, None].astype(np.float64))
    levels = made.kmeans_codebook(x, bits, start, rounds=500)
    error = (x - levels[made.nearest_codes(x, levels).long()]).double().square().sum()
    assert error <= peer.inertia_ * (1 + 1e-5)


@settings(max_examples=30)
@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=40), st.integers(1, 4))
def test_kmeans_never_raises_the_error_of_its_start(values, bits):
    x = torch.tensor(values)
    start = torch.linspace(x.min().item(), x.max().item(), 2**bits, dtype=torch.float64)

    def error(levels):
        return (x.double()[:, None] - levels.double()).abs().amin(1).square().sum()

    found = made.kmeans_codebook(x, bits)
    assert (found.diff() >= 0).all()
    assert error(found) <= error(start) * (1 + 1e-6) + 1e-6 * x.abs().max() ** 2


def test_no_level_is_idle_while_values_are_off():
    x = draw(2000) ** 3  # an even start leaves levels between the few large ones
    levels = made.kmeans_codebook(x, 4)
    assert made.nearest_codes(x, levels).int().bincount(minlength=16).min() > 0


def test_kmeans_of_few_values_is_exact():
    x = torch.tensor([[3.0, -1.0], [3.0, 7.0]])
    levels = made.kmeans_codebook(x, 3)
    assert torch.equal(levels[made.nearest_codes(x, levels).long()], x)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: made.normal_levels(1), "bits is 1"),
        (lambda: made.normal_levels(True), "bits is True"),
        (lambda: made.float_levels(0, 1), "exponent_bits is 0"),
        (lambda: made.float_levels(2, 4), "mantissa_bits is 4"),
        (lambda: made.nearest_codes(torch.ones(2), torch.ones(1)), "levels has shape"),
        (lambda: made.nearest_codes(torch.ones(2), torch.tensor([1.0, 0.0])), "ascending"),
        (lambda: made.nearest_codes(torch.tensor([torch.nan]), torch.arange(2.0)), "NaN"),
        (lambda: made.kmeans_codebook(torch.ones(0)), "empty"),
        (lambda: made.kmeans_codebook(torch.tensor([torch.inf])), "not finite"),
        (lambda: made.kmeans_codebook(torch.ones(3), 2, torch.arange(3.0)), "start has 3"),
        (lambda: made.kmeans_codebook(torch.ones(3), 0), "bits is 0"),
    ],
)
def test_bad_input_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
