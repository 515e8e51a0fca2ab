"""torchao chooses the same numbers where it means the same, and other ones where it says so."""

import pytest
import torch

from lightcourse import quantization


def theirs(x, mapping, group_size):
    from torchao.quantization import quant_primitives

    kind = quant_primitives.MappingType[mapping]
    block = (1, group_size)
    qparams = quant_primitives.choose_qparams_affine(x, kind, block, torch.int8, eps=1e-12)
    return *qparams, quant_primitives.quantize_affine(x, block, *qparams, torch.int8)


def ours(x, symmetric, group_size):
    groups = quantization.into_groups(x, group_size)
    scale, zero_point = quantization.choose_qparams_affine(groups, 8, symmetric, dim=-1)
    return scale, zero_point, quantization.quantize_affine(groups, scale, zero_point)


@pytest.mark.parametrize("group_size", [200, 50])
def test_asymmetric_numbers_are_torchaos(group_size):
    torch.manual_seed(0)
    x = torch.randn(7, 200) + torch.linspace(-3, 3, 7)[:, None]
    scale, zero_point, q = theirs(x, "ASYMMETRIC", group_size)
    own_scale, own_zero_point, own_q = ours(x, False, group_size)
    torch.testing.assert_close(own_scale.flatten(), scale.flatten(), rtol=1e-6, atol=0)
    assert torch.equal(own_zero_point.flatten(), zero_point.flatten())
    off = own_q.view(7, 200).int() - q.int()
    assert off.abs().max() <= 1 and (off == 0).float().mean() > 0.99


@pytest.mark.parametrize("group_size", [200, 50])
def test_symmetric_scales_differ_by_which_end_they_fit(group_size):
    """Ours is max|x| / 127; theirs max|x| / 127.5, or lets -128 be the lowest value's level."""
    torch.manual_seed(0)
    x = torch.randn(7, 200)
    own = ours(x, True, group_size)[0].squeeze(-1)
    halfway = theirs(x, "SYMMETRIC", group_size)[0].view_as(own)
    torch.testing.assert_close(halfway, own * 127 / 127.5, rtol=1e-6, atol=0)
    groups = quantization.into_groups(x, group_size)
    low, high = (end.squeeze(-1) for end in quantization.min_max_range(groups, -1))
    fitted = theirs(x, "SYMMETRIC_NO_CLIPPING_ERR", group_size)[0].view_as(own)
    wanted = torch.maximum(-low / 128, high / 127)
    torch.testing.assert_close(fitted, wanted, rtol=1e-6, atol=0)
