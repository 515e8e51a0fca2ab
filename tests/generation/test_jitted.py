"""A jitted model answers as the model itself does, whatever the machine, the texts, the pieces."""

import threading
from itertools import product

import pytest
import torch
import transformers
from numba import config as numba

from lightcourse import generation, kernels, layers, models, quantization
from lightcourse.generation import jitted
from tests import toys
from tests.kernels.every_path import each_path, use

pytestmark = pytest.mark.skipif(numba.DISABLE_JIT, reason="nothing is compiled")
SETTINGS = {
    "8 bits": {"bits": 8},
    "8 bits in groups": {"bits": 8, "group_size": 32},
    "4 bits in groups": {"bits": 4, "group_size": 32},
    "4 bits, zero points": {"bits": 4, "group_size": 32, "symmetric": False},
}
SMALL = {"vocab_size": 50, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}


def llama(kind="Llama", **changes):
    """Return a Llama of two layers: four queries share a head of keys of 20 numbers."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 96, "intermediate_size": 160, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 20}
    config = getattr(transformers, f"{kind}Config")
    config = config(**SMALL | sizes | heads | {"max_position_embeddings": 400} | changes)
    return getattr(transformers, f"{kind}ForCausalLM")(config).eval()


def gpt2(**changes):
    torch.manual_seed(0)
    sizes = {"n_positions": 400, "n_embd": 64, "n_layer": 2, "n_head": 4}
    config = transformers.GPT2Config(**SMALL | sizes | changes)
    return transformers.GPT2LMHeadModel(config).eval()


MODELS = {
    "llama": llama,
    "mistral": lambda: llama("Mistral", sliding_window=None),
    "qwen2": lambda: llama("Qwen2", num_attention_heads=9, num_key_value_heads=3, head_dim=32),
    "biased": lambda: llama(attention_bias=True, mlp_bias=True),
    "llama3 positions": lambda: llama(
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 10_000.0,
            "factor": 4.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        }
    ),
    "gpt2": gpt2,
    "gpt2 with erf": lambda: gpt2(activation_function="gelu"),
    "gpt2, scaled by layer": lambda: gpt2(scale_attn_by_inverse_layer_idx=True),
}


def quantized(model, bits=8, **how):
    """Quantize a model's layers, and its output layer by itself."""
    quantization.quantize_(model, bits, activations=8, **how)
    if not layers.stores_integers(model.lm_head):
        weight = model.lm_head.weight
        model.lm_head = quantization.QuantizedLinear(weight, bits=bits, activations=8, **how)
    return model.eval()


def texts(count, length, seed=0):
    return torch.randint(0, 50, (count, length), generator=torch.Generator().manual_seed(seed))


def all_logits(model, ids, factor=1.0):
    """Return the logits of every position, from embeddings times a factor."""
    with torch.no_grad():
        embedded = model.get_input_embeddings()(ids)
        return model(inputs_embeds=embedded * factor).logits


def assert_alike(found, model, ids):
    """Raise where logits are not those of transformers on the same integers.

    Both round their inputs to int8, and where a number lies between two integers, a rounding
    of float32 decides: then a row differs by a step. So most rows are equal to float32's
    rounding, and no more is lost than transformers itself loses where its embeddings are
    moved by a millionth.
    """
    want, moved = all_logits(model, ids), all_logits(model, ids, 1 + 1e-6)
    off = (found - want).abs().amax(dim=-1) / want.std()
    assert (off < 1e-4).float().mean() > 0.5
    floor = (moved - want).square().mean().sqrt() + 1e-2 * want.std()
    assert (found - want).square().mean().sqrt() < 2 * floor


@pytest.mark.parametrize("how", SETTINGS)
@pytest.mark.parametrize("name", MODELS)
def test_logits_are_those_of_the_same_integers(name, how):
    model, ids = quantized(MODELS[name](), **SETTINGS[how]), texts(2, 40)
    assert_alike(generation.jit(model).begin().read(ids, keep=40), model, ids)


@each_path
@pytest.mark.parametrize("threads", range(1, min(2, numba.NUMBA_NUM_THREADS) + 1))
def test_every_path_gives_the_same_numbers(path, threads):
    for how, build in product(SETTINGS, (llama, gpt2)):
        model, ids = quantized(build(), **SETTINGS[how]), texts(3, 21)
        with use(path, threads):
            found = generation.jit(model).begin().read(ids, keep=21)
        assert_alike(found, model, ids)


def close(a, b):
    """Tell whether most rows are equal to float32's rounding, and none is far off."""
    off = (a - b).abs().amax(dim=-1) / b.std()
    return (off < 1e-4).float().mean() > 0.5 and off.max() < 0.2


def test_read_in_parts_is_read_at_once(monkeypatch):
    model, ids = quantized(llama()), texts(2, 90)
    whole = generation.jit(model).begin().read(ids, keep=90)
    monkeypatch.setattr(jitted, "MOST_ROWS", 14)
    session, parts = generation.jit(model).begin(), []
    for part in ids.split([1, 50, 1, 1, 37], dim=1):
        parts.append(session.read(part, keep=part.shape[1]))
    assert session.length == 90
    assert close(torch.cat(parts, dim=1), whole)


def test_a_cache_grows_and_keeps_what_it_held():
    model, ids = quantized(gpt2()), texts(1, 390)
    session = generation.jit(model).begin()
    session.read(ids[:, :200])
    found = [session.read(ids[:, at : at + 1]) for at in range(200, 390)]
    assert close(torch.cat(found, dim=1), all_logits(model, ids)[:, 200:])


@pytest.mark.parametrize("build", [llama, gpt2])
def test_padding_is_not_seen(build):
    model = quantized(build())
    prompts = [texts(1, length, seed=length)[0] for length in (30, 3, 17)]
    ids, mask = generation.pad(prompts)
    session = generation.jit(model).begin(mask)
    together = [session.read(ids), session.read(texts(3, 1))]
    for i, prompt in enumerate(prompts):
        alone = generation.jit(model).begin()
        assert close(alone.read(prompt[None])[0], together[0][i])
        assert close(alone.read(texts(3, 1)[i : i + 1])[0], together[1][i])


def test_what_was_forgotten_leaves_no_trace():
    model, ids = quantized(llama()), texts(2, 12)
    plain, session = generation.jit(model).begin(), generation.jit(model).begin()
    plain.read(ids[:, :6])
    session.read(torch.cat([ids[:, :6], texts(2, 5, seed=9)], dim=1))
    session.forget(5)
    assert session.length == 6
    torch.testing.assert_close(session.read(ids[:, 6:], keep=6), plain.read(ids[:, 6:], keep=6))
    with pytest.raises(ValueError, match="count is 13; 0 to 12"):
        session.forget(13)


def test_it_stands_in_for_the_model():
    model = quantized(models.load_tiny_lm("student"))
    fast, prompt = generation.jit(model), torch.tensor([[5, 9, 300, 41]])
    want = generation.generate(model, prompt, 12)
    assert torch.equal(generation.generate(fast, prompt, 12), want)
    draft = generation.ModelDraft(fast)
    assert torch.equal(generation.speculate(fast, draft, prompt, 12).ids, want)


def test_two_callers_do_not_disturb_each_other():
    model = quantized(llama())
    want = generation.jit(model).begin().read(texts(1, 50), keep=50)
    found = [None] * 4

    def work(i):
        for _ in range(20):
            found[i] = generation.jit(model).begin().read(texts(1, 50), keep=50)

    kernels.set_threads(min(2, numba.NUMBA_NUM_THREADS))
    try:
        callers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    finally:
        kernels.set_threads(1)
    assert all(torch.equal(one, want) for one in found)


def test_what_is_not_finite_stays_in_its_text():
    model, ids = quantized(llama()), texts(2, 9)
    with torch.no_grad():
        model.model.embed_tokens.weight[ids[1, 4]] = torch.nan
    ids[0][ids[0] == ids[1, 4]] = (ids[1, 4] + 1) % 50
    found = generation.jit(model).begin().read(ids, keep=9)
    assert found[0].isfinite().all() and found[1, 4:].isnan().all()


def test_the_windows_end_is_told_before_anything_is_read():
    model = quantized(llama(max_position_embeddings=16))
    session = generation.jit(model).begin()
    session.read(texts(1, 10))
    with pytest.raises(ValueError, match="17 tokens long; 16 at most"):
        session.read(texts(1, 7))
    assert session.length == 10
    assert session.read(texts(1, 6)).shape == (1, 1, 50)


@pytest.mark.parametrize(
    ("new", "keep", "said"),
    [
        (texts(2, 4), 0, "keep is 0; 1 to 4"),
        (texts(2, 4), 5, "keep is 5; 1 to 4"),
        (torch.tensor([[50], [3]]), 1, "new holds ids from 3 to 50; 0..49"),
        (torch.tensor([[-1], [3]]), 1, "new holds ids from -1 to 3; 0..49"),
        (texts(3, 1), 1, "new holds 3 texts; 2, as before"),
    ],
)
def test_bad_readings_are_refused(new, keep, said):
    session = generation.jit(quantized(llama())).begin()
    session.read(texts(2, 3))
    with pytest.raises(ValueError, match=said):
        session.read(new, keep)
    assert session.length == 3


def hooked(model):
    model.model.layers[0].mlp.register_forward_hook(lambda *_: None)
    return model


REFUSED = {
    "no family": (toys.mlp, "model is a Sequential; one of LlamaForCausalLM"),
    "floats": (lambda: llama(), "layers.0.self_attn.q_proj is a Linear that multiplies floats"),
    "weights alone": (
        lambda: quantized(llama(), 8) if quantization.quantize_(m := llama(), 8) is None else m,
        "q_proj is a QuantizedLinear that multiplies floats",
    ),
    "training": (lambda: quantized(llama()).train(), "model is in training mode"),
    "hook": (lambda: hooked(quantized(llama())), "layers.0.mlp has a hook"),
    "window": (
        lambda: quantized(llama("Mistral", sliding_window=8)),
        "the model's sliding_window is 8; None is wanted",
    ),
    "activation": (
        lambda: quantized(llama(hidden_act="relu")),
        "the model's hidden_act is 'relu'; 'silu' is wanted",
    ),
    "positions": (
        lambda: quantized(
            llama(rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0})
        ),
        "rope_type is 'dynamic'; default, linear or llama3 is wanted",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_known_is_refused_by_name(name):
    build, said = REFUSED[name]
    with pytest.raises(ValueError, match=said):
        generation.jit(build())


def test_a_tied_output_layer_is_named_with_what_to_do():
    model = toys.llama()
    quantization.quantize_(model, 8, activations=8)
    with pytest.raises(ValueError, match="lm_head is a Linear that multiplies.*embeddings=8"):
        generation.jit(model)


def test_a_tied_table_of_integers_is_multiplied_by_too():
    model, ids = toys.llama(), texts(2, 20)
    quantization.quantize_(model, 8, activations=8, embeddings=8)
    assert_alike(generation.jit(model).begin().read(ids, keep=20), model, ids)
