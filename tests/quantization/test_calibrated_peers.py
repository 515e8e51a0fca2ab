"""On the same request ONNX Runtime and torchao find what we find, where they mean the same."""

import numpy as np
import pytest
import torch

from lightcourse import calibration, quantization, surgery
from lightcourse.quantization import choose_qparams_affine
from tests import toys


def correlated():
    """Return a weight, and the Hessian of inputs that are correlated, in float32."""
    weight, x = toys.correlated(3, 12, 64, 500)
    return weight.float(), x.float()


def back(q, scale, zero_point):
    return ((q.unflatten(1, (scale.shape[1], -1)) - zero_point[..., None]) * scale[..., None]).view(
        q.shape
    )


def onnx_gptq(weight, hessian, **how):
    """Return ONNX Runtime's rounded matrix; it stores (inputs, outputs)."""
    from onnxruntime.quantization.neural_compressor import weight_only

    given = weight.T.double().numpy().copy(), hessian.double().numpy().copy()
    return torch.from_numpy(weight_only.gptq(*given, scheme="asym", **how).T.copy()).float()


@pytest.fixture
def turned(monkeypatch):
    """Let ONNX Runtime's GPTQ read the half of its triangle that is not zero."""
    cholesky = np.linalg.cholesky
    monkeypatch.setattr(np.linalg, "cholesky", lambda matrix: cholesky(matrix).T)


def agreeing(ours, theirs, scale):
    """Return the share of values that are the same: a few lie between two levels."""
    step = scale.abs().repeat_interleave(ours.shape[1] // scale.shape[1], 1)
    return ((ours - theirs).abs() < 1e-3 * step).float().mean()


WAYS = [(None, False), (None, True), (16, False)]


@pytest.mark.parametrize("group_size, act_order", WAYS)
@pytest.mark.parametrize("bits", [8, 5])
def test_gptq_is_onnx_runtimes_once_that_moves_the_columns(bits, group_size, act_order, turned):
    weight, x = correlated()
    theirs = onnx_gptq(
        weight,
        x.T @ x,
        num_bits=bits,
        group_size=group_size or -1,
        blocksize=group_size or 128,  # else it chooses a grid for weights that are out of date
        actorder=act_order,
    )
    how = {"act_order": act_order, "choose_qparams": choose_qparams_affine}
    q, scale, zero_point = quantization.gptq(weight, x.T @ x, bits, group_size, False, **how)
    if group_size is None:
        assert agreeing(back(q, scale, zero_point), theirs, scale) > 0.98
    else:  # one value that went the other way may move a later group's scale
        torch.testing.assert_close(back(q, scale, zero_point)[:, :16], theirs[:, :16])
    lost = [((weight - f) @ x.T).square().sum() for f in (back(q, scale, zero_point), theirs)]
    assert abs(lost[0] / lost[1] - 1) < 0.02


@pytest.mark.parametrize("bits", [5, 4, 3])
def test_as_it_comes_onnx_runtimes_gptq_is_the_nearest_and_loses_more_than_ours(bits):
    """Version 1.32 looks for the compensation below the diagonal of an upper triangle."""
    weight, x = correlated()
    theirs = onnx_gptq(weight, x.T @ x, num_bits=bits, group_size=16, blocksize=16)
    how = {"group_size": 16, "symmetric": False, "choose_qparams": choose_qparams_affine}
    nearest = quantization.round_to_nearest(weight, bits, **how)
    exact = bits > 4  # else our scales are of half precision
    if exact:
        assert agreeing(back(*nearest), theirs, nearest[1]) > 0.99
    ours = back(*quantization.gptq(weight, x.T @ x, bits, **how))
    lost = [((weight - f) @ x.T).square().sum() for f in (ours, theirs, back(*nearest))]
    assert abs(lost[1] / lost[2] - 1) < 0.02 and lost[0] < 0.9 * lost[1]


@pytest.mark.parametrize("bits", [8, 5])
def test_the_nearest_is_onnx_runtimes(bits):
    from onnxruntime.quantization.neural_compressor import weight_only

    weight, _ = correlated()
    q, scale, zero_point = weight_only.quant_tensor(weight.numpy(), bits, 16, "asym", "uint")
    own = quantization.round_to_nearest(weight, bits, 16, False, choose_qparams_affine)
    half = 2 ** (bits - 1)
    np.testing.assert_allclose(own[1].flatten(), scale.flatten(), rtol=1e-6)
    assert np.array_equal(own[2].flatten().numpy() + half, zero_point.flatten())
    off = own[0].numpy().astype(int).flatten() + half - q.astype(int).flatten()
    assert abs(off).max() <= 1 and (off == 0).mean() > 0.99


@pytest.mark.parametrize("n", [2, 16, 256])
def test_hadamard_matrices_of_powers_of_two_are_torchaos(n):
    from torchao.prototype.spinquant import hadamard_utils

    theirs = hadamard_utils.matmul_hadU(torch.eye(n), None, 1)
    torch.testing.assert_close(quantization.hadamard(n).float(), theirs)


def test_smoothing_factors_are_torchaos():
    from torchao.prototype.smoothquant.core import SmoothQuantObserver

    model = toys.gpt2()
    batches = [{"input_ids": torch.arange(48).view(3, 16)}]
    norm, (reader,) = next(iter(surgery.norm_readers(model).items()))
    observer = SmoothQuantObserver(model.get_submodule(reader).weight.T, 0.5)
    layer = model.get_submodule(reader)
    calibration.observe_inputs(model, batches, {reader: layer}, lambda _, rows: observer(rows))
    theirs, _, _ = observer.calculate_qparams()
    before = model.get_submodule(norm).weight.detach().clone()
    quantization.smooth_(model, batches)
    ours = before / model.get_submodule(norm).weight
    torch.testing.assert_close(ours.detach(), theirs.detach(), rtol=1e-4, atol=1e-6)
