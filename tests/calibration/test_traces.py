"""The trace of the loss's Hessian, where it is known."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightcourse import calibration, data, models


class Squares(nn.Module):
    """A linear layer whose loss is half the squared error: its Hessian is that of the inputs."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.idle = nn.Linear(6, 3, bias=False), nn.Linear(6, 3)

    def forward(self, x, labels):
        out = self.layer(x)
        loss = 0.5 * (out - labels).square().sum()
        return type("Output", (), {"loss": loss})


def batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        "x": torch.randn(20, 6, generator=generator),
        "labels": torch.randn(20, 3, generator=generator),
    }


def test_the_trace_of_a_known_hessian():
    found = calibration.hessian_traces(Squares(), [batch(), batch(1)], probes=200)
    exact = 3 * sum(batch(seed)["x"].square().sum().item() for seed in (0, 1)) / 2
    assert found["layer"] == pytest.approx(exact, rel=0.1)
    assert found["idle"] == 0


def test_one_input_gives_it_exactly():
    """A diagonal Hessian: no sign matters."""
    one = {"x": torch.eye(6)[:1] * 2, "labels": torch.zeros(1, 3)}
    assert calibration.hessian_traces(Squares(), [one], probes=1)["layer"] == pytest.approx(12)


def test_a_language_model_is_unchanged_and_its_early_layers_are_curved():
    model, tokens = models.load_tiny_lm("student"), data.speech_tokens(models.load_tiny_tokenizer())
    model.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    batches = list(data.token_batches(tokens[:2000], 64, 4)(0, 0))[:2]
    found = calibration.hessian_traces(model, batches, probes=2)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(p.requires_grad for p in model.parameters())
    assert not any(p.grad is not None for p in model.parameters())
    assert len(found) == 28
    assert found == calibration.hessian_traces(model, batches, probes=2)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: calibration.hessian_traces(Squares(), []), "batch"),
        (lambda: calibration.hessian_traces(Squares(), [batch()], probes=0), "probes is 0"),
        (lambda: calibration.hessian_traces(nn.ReLU(), [batch()]), "without a linear layer"),
        (lambda: calibration.hessian_traces(Squares(), [{"x": torch.ones(1, 6)}]), "labels"),
    ],
)
def test_bad_input_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_nan_is_refused():
    bad = batch() | {"labels": torch.full((20, 3), torch.nan)}
    with pytest.raises(ValueError, match="loss is"):
        calibration.hessian_traces(Squares(), [bad])


def test_the_math_of_attention_is_the_same():
    """Second derivatives need another kernel; it answers as the fused one."""
    q = torch.randn(1, 2, 5, 8, generator=torch.Generator().manual_seed(0))
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        plain = F.scaled_dot_product_attention(q, q, q, is_causal=True)
    assert torch.allclose(plain, F.scaled_dot_product_attention(q, q, q, is_causal=True), atol=1e-5)
