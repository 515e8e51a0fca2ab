"""Rotations: orthogonal matrices of signs, and models that answer as before."""

import copy

import pytest
import torch
import transformers

from lightcourse import quantization
from lightcourse.quantization import hadamard, random_rotation, rotate_, synthetic_outliers_
from tests import families, toys


@pytest.mark.parametrize("n", [1, 2, 4, 12, 16, 20, 24, 28, 36, 56, 60, 576, 640, 896])
def test_hadamard_matrices_are_orthogonal_and_of_one_size(n):
    found = hadamard(n)
    torch.testing.assert_close(found @ found.T, torch.eye(n).double())
    assert torch.allclose(found.abs(), torch.full_like(found, n**-0.5))


@pytest.mark.parametrize("n", [0, 3, 6, -4, 2.0, 92, 10])
def test_sizes_without_one_are_refused(n):
    with pytest.raises(ValueError, match=f"n is {n}; a power of two times 1, 12"):
        hadamard(n)


@pytest.mark.parametrize("n", [16, 24, 92, 9])
def test_random_rotations_are_orthogonal_and_differ_by_seed(n):
    one, two, again = (random_rotation(n, seed) for seed in (0, 1, 0))
    torch.testing.assert_close(one @ one.T, torch.eye(n).double())
    assert torch.equal(one, again) and not torch.equal(one, two)


def shaken(family):
    """Return a family's model whose norms and biases are not all 1 and 0."""
    model, inputs = families.make(family)
    for own in model.parameters():
        if own.ndim == 1:
            own.data += 0.3 * torch.randn(own.shape)
    return model, inputs


@pytest.mark.parametrize("family", ["Llama", "Qwen2"])
def test_answers_stay(family):
    model, inputs = shaken(family)
    before = families.answer(model, inputs)
    report = rotate_(model)
    after = families.answer(model, inputs)
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5 * before.abs().max().item())
    assert len(report.changed) == 2 + 2 * 7
    assert report.total == sum(p.numel() for p in model.parameters() if p.ndim == 2)


def test_biases_and_sizes_without_a_hadamard_matrix_keep_answers_too():
    config = transformers.LlamaConfig(
        **families.DECODER | {"hidden_size": 92, "num_attention_heads": 2},
        attention_bias=True,
        mlp_bias=True,
    )
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config).eval()
    for own in model.parameters():
        own.data += 0.05 * torch.randn(own.shape)
    before = toys.logits(model)
    rotate_(model)
    torch.testing.assert_close(toys.logits(model), before, rtol=1e-4, atol=1e-4)


def test_a_shared_table_is_untied_and_told_so(tmp_path):
    model = toys.llama()
    for own in model.parameters():
        own.data += 0.1 * torch.rand(own.shape)
    before = toys.logits(model)
    report = rotate_(model)
    assert not model.config.tie_word_embeddings
    assert "no longer shares the table of words: 3,200 bytes more" in str(report)
    torch.testing.assert_close(toys.logits(model), before, rtol=1e-4, atol=1e-5)
    transformers.logging.disable_progress_bar()
    model.save_pretrained(tmp_path / "plain")
    loaded = type(model).from_pretrained(tmp_path / "plain").eval()
    assert torch.equal(toys.logits(loaded), toys.logits(model))
    quantization.quantize_(model, 4, group_size=8)
    model.save_pretrained(tmp_path / "small")
    loaded = type(model).from_pretrained(tmp_path / "small").eval()
    transformers.logging.enable_progress_bar()
    assert torch.equal(toys.logits(loaded), toys.logits(model))


def stream(model):
    """Return what enters the last layer, as rows."""
    seen = []
    layer = model.model.layers[-1].mlp.gate_proj
    hook = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].flatten(0, 1)))
    toys.logits(model)
    hook.remove()
    return seen[0]


def test_outliers_are_tamed():
    model = toys.llama()
    synthetic_outliers_(model, [3, 9])
    wild, calm = copy.deepcopy(model), model
    rotate_(calm)
    peaks = [
        (x.abs().amax(1) / x.square().mean(1).sqrt()).mean() for x in map(stream, (wild, calm))
    ]
    assert peaks[0] > 1.5 * peaks[1]
    before, far = toys.logits(toys.llama()), []
    for small in (wild, calm):
        quantization.quantize_(small, 8, activations=8)
        far.append((toys.logits(small) - before).norm())
    assert far[1] < 0.5 * far[0]


@pytest.mark.parametrize("family", ["BERT", "GPT-2", "Mixtral", "T5", "Falcon", "ViT", "Mamba"])
def test_other_models_are_refused_and_stay(family):
    model, inputs = families.make(family)
    before = families.answer(model, inputs)
    with pytest.raises(ValueError, match="a Llama with an output layer is wanted"):
        rotate_(model)
    assert torch.equal(families.answer(model, inputs), before)


def odd_models():
    yield (
        "Gemma",
        transformers.GemmaForCausalLM(transformers.GemmaConfig(**families.GROUPED, head_dim=8)),
        "GemmaRMSNorm that does more",
    )
    quantized = toys.llama()
    quantization.quantize_(quantized)
    yield "integers", quantized, "layer 0 is a LlamaDecoderLayer"
    yield "no head", toys.llama().model, "is a LlamaModel"
    centred = toys.llama()
    centred.model.layers[1].input_layernorm = torch.nn.LayerNorm(16, bias=False)
    yield "LayerNorm", centred, "LayerNorm that does more"


@pytest.mark.parametrize("model, message", [pytest.param(m, t, id=n) for n, m, t in odd_models()])
def test_what_only_looks_like_a_llama_is_refused(model, message):
    state = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=message):
        rotate_(model)
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in state.items())
