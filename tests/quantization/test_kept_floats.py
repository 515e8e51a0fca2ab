"""What a training step keeps of a layer that stores integers: not its floats."""

from functools import partial

import pytest
import torch
from torch.nn import functional as F

from lightcourse import quantization

FORMS = {
    "int4 in groups": partial(quantization.quantize_, bits=4, group_size=32),
    "int8": partial(quantization.quantize_, bits=8),
    "int4, asymmetric": partial(quantization.quantize_, bits=4, symmetric=False),
    "NF4": quantization.codebook_,
    "k-means, 3 bits": partial(quantization.codebook_, code=partial(quantization.kmeans, bits=3)),
}


def kept_bytes(layer, x):
    """Return the bytes of floats that a product keeps for its gradient."""
    kept = {}

    def pack(tensor):
        if tensor.is_floating_point():
            kept[tensor.data_ptr()] = tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = layer(x)
    return y, sum(kept.values())


@pytest.mark.parametrize("form", FORMS)
def test_no_floats_are_kept_and_the_gradient_is_that_of_the_floats(form):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(128, 64))
    FORMS[form](model)
    x = torch.randn(2, 3, 128).requires_grad_()
    same = x.detach().clone().requires_grad_()
    weight = model[0].dequantize()
    y, kept = kept_bytes(model[0], x)
    wanted, floats = kept_bytes(lambda x: F.linear(x, weight, model[0].bias), same)
    assert torch.equal(y, wanted)
    assert floats >= weight.nbytes and kept == 0
    y.square().sum().backward()
    wanted.square().sum().backward()
    assert torch.allclose(x.grad, same.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gradient_has_the_dtype_of_the_inputs(dtype):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 64))
    quantization.codebook_(model)
    x = torch.randn(2, 64, dtype=dtype, requires_grad=True)
    y = model(x)
    y.float().sum().backward()
    assert y.dtype == x.grad.dtype == dtype


def test_gradients_of_gradients_pass():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 8))
    quantization.quantize_(model, 4)
    model.double()
    x = torch.randn(2, 64, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(model, (x,)) and torch.autograd.gradgradcheck(model, (x,))
