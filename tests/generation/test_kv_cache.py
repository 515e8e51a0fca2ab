"""Smaller caches: their bytes, what they cost, and what they refuse."""

import math

import pytest
import torch
import transformers as hf
from hypothesis import given
from hypothesis import strategies as st

from lightcourse import data, generation, metrics, models
from lightcourse.generation import kv_packing
from tests import families, toys

FAMILIES = {"llama": toys.llama, "gpt2": toys.gpt2}
IDS = torch.arange(1, 41).view(2, 20)


# --- packing --------------------------------------------------------------------------------


@given(
    st.sampled_from(kv_packing.BITS),
    st.sampled_from([-1, -2]),
    st.integers(1, 3),
    st.integers(1, 7),
    st.sampled_from([1e-6, 1.0, 1e3]),
    st.sampled_from([0.0, -3.0, 1e4]),
    st.integers(0, 99),
)
def test_what_is_packed_is_off_by_half_a_step_at_most(bits, dim, bytes_, columns, scale, by, seed):
    generator = torch.Generator().manual_seed(seed)
    x = by + scale * torch.randn(2, bytes_ * 8 // bits, columns, generator=generator)
    packed = kv_packing.round_and_pack(x, bits, dim)
    error = (kv_packing.unpacked(packed) - x).abs()
    rounding = 4 * torch.finfo(torch.float32).eps * x.abs().max()
    assert (error <= packed.step.float() / 2 + rounding).all()
    # And the step is no larger than the group needs, in the halves that it is stored in.
    low, high = x.amin(dim, keepdim=True), x.amax(dim, keepdim=True)
    slack = 2 * torch.finfo(torch.float16).eps * x.abs().amax(dim, keepdim=True) + 1e-7
    needed = (high - low + slack) / (2**bits - 1) * (1 + 2 * torch.finfo(torch.float16).eps)
    assert (packed.step.float() <= needed + 1e-7)[high > low].all()
    assert packed.levels.shape == (2, bytes_, columns) and packed.levels.dtype == torch.uint8


@pytest.mark.parametrize("bits", kv_packing.BITS)
def test_equal_numbers_come_back_as_float16_holds_them(bits):
    x = torch.tensor([0.0, 1.5, -2.0])[:, None, None].expand(3, 4, 5)
    assert torch.equal(kv_packing.unpacked(kv_packing.round_and_pack(x, bits, -1)), x)


@pytest.mark.parametrize("bits", kv_packing.BITS)
def test_every_level_comes_back_from_its_place(bits):
    x = torch.randperm(2**bits, generator=torch.Generator().manual_seed(0)).float().view(-1, 1)
    assert torch.equal(kv_packing.unpacked(kv_packing.round_and_pack(x, bits, -2)), x)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e6])
def test_what_no_grid_holds_is_refused(value):
    x = torch.zeros(4, 4)
    x[1, 2] = value
    with pytest.raises(ValueError, match="keys or values hold NaN, infinity or what is too large"):
        kv_packing.round_and_pack(x, 4, -1)


# --- bytes ----------------------------------------------------------------------------------

CONFIGS = {
    "llama": hf.LlamaConfig(**families.GROUPED),
    "head_dim": hf.LlamaConfig(**families.GROUPED, head_dim=10),
    "gpt2": toys.gpt2().config,
}
FAMILY = {"llama": hf.LlamaForCausalLM, "head_dim": hf.LlamaForCausalLM, "gpt2": hf.GPT2LMHeadModel}


@given(
    st.sampled_from(sorted(CONFIGS)),
    st.sampled_from([2, 4, 8]),
    st.sampled_from([4, 8, 12]),
    st.integers(0, 9),
    st.lists(st.integers(1, 9), min_size=1, max_size=3),
    st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_the_formula_tells_the_bytes(name, bits, group, residual, parts, dtype):
    config = CONFIGS[name]
    model = FAMILY[name](config).eval().to(dtype)
    cache = generation.quantized_cache(config, bits, group, residual)
    assert cache.bytes == 0
    session = generation.begin(model, cache=cache)
    for part in parts:
        session.read(torch.ones(3, part, dtype=torch.int64))
        how = {"bits": bits, "group": group, "residual": residual, "texts": 3, "dtype": dtype}
        assert cache.bytes == generation.kv_bytes(config, session.length, **how)
    floats = generation.begin(model)
    floats.read(torch.ones(3, sum(parts), dtype=torch.int64))
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in floats.cache.layers)
    assert held == generation.kv_bytes(config, sum(parts), texts=3, dtype=dtype)


def test_nothing_that_is_packed_keeps_its_floats_alive():
    model = toys.llama()
    session = generation.begin(model, cache=generation.quantized_cache(model.config, 4, 8))
    session.read(IDS)
    layer = session.cache.layers[0]
    packed = layer.packed_keys, layer.packed_values
    tensors = [layer.keys, layer.values, *(x for p in packed for x in (p.levels, p.low, p.step))]
    assert all(x.untyped_storage().nbytes() == x.nbytes for x in tensors)
    assert sum(x.nbytes for x in tensors) * len(session.cache.layers) == session.cache.bytes


@pytest.mark.parametrize(
    "how, message",
    [
        ({"bits": 3}, "bits is 3"),
        ({"bits": 2, "group": 6}, "group is 6; a multiple of 4"),
        ({"group": 0}, "group is 0"),
        ({"residual": -1}, "residual is -1"),
        ({"residual": 1.5}, "residual is 1.5"),
    ],
)
def test_what_cannot_be_packed_is_refused(how, message):
    config = toys.llama().config
    with pytest.raises(ValueError, match=message):
        generation.quantized_cache(config, **how)
    with pytest.raises(ValueError, match=message):
        generation.kv_bytes(config, 8, **{"bits": 4} | how)


def test_a_model_that_looks_at_parts_of_its_text_is_refused():
    config = hf.MistralConfig(**families.GROUPED, sliding_window=4)
    for make in (generation.quantized_cache, lambda config: generation.window_cache(config, 3)):
        with pytest.raises(ValueError, match=r"layers of \['sliding_attention'\]"):
            make(config)


@pytest.mark.parametrize("window, sinks, name", [(0, 0, "window"), (4, -1, "sinks")])
def test_a_window_of_nothing_is_refused(window, sinks, name):
    with pytest.raises(ValueError, match=f"{name} is"):
        generation.window_cache(toys.llama().config, window, sinks)


# --- what rounding costs --------------------------------------------------------------------


@pytest.fixture(scope="module")
def speech():
    """Pieces of a speech that no model saw, and bytes a token."""
    text = data.load_speeches("test")[0]["text"]
    ids = torch.tensor(models.load_tiny_tokenizer()(text, verbose=False)["input_ids"])
    ids = ids[: 4 * 160].view(4, 160)
    return ids, len(models.load_tiny_tokenizer().decode(ids.flatten()).encode()) / ids.numel()


def read_all(model, ids, cache=None):
    """Return the logits of all positions, read token by token."""
    session = generation.begin(model, cache=cache)
    return torch.cat([session.read(ids[:, i : i + 1]) for i in range(ids.shape[1])], dim=1)


@pytest.mark.parametrize("size", ["student", "gpt2"])
def test_each_bit_less_costs_more_and_eight_cost_nothing(size, speech):
    ids, bytes_a_token = speech
    model = models.load_tiny_lm(size)
    caches = {bits: generation.quantized_cache(model.config, bits) for bits in (8, 4, 2)}
    plain = read_all(model, ids)
    found = {bits: read_all(model, ids, cache) for bits, cache in caches.items()}
    gaps = {bits: metrics.kl_divergence(plain, logits) for bits, logits in found.items()}
    assert gaps[8] < 1e-5
    assert 10 * gaps[8] < gaps[4] and 3 * gaps[4] < gaps[2]

    def bits_per_byte(logits):
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        return loss.item() / math.log(2) / bytes_a_token

    cost = {bits: bits_per_byte(logits) - bits_per_byte(plain) for bits, logits in found.items()}
    assert abs(cost[8]) < 1e-3 and abs(cost[4]) < 5e-3 and abs(cost[2]) < 3e-2
    whole = generation.kv_bytes(model.config, 160, texts=4)
    shares = {bits: cache.bytes / whole for bits, cache in caches.items()}
    assert shares[8] < 0.35 and shares[4] < 0.23 and shares[2] < 0.17


def test_tokens_in_the_residual_are_as_they_were():
    model, ids = toys.llama(), IDS[:, :8]
    cache = generation.quantized_cache(model.config, 2, group=4, residual=8)
    torch.testing.assert_close(read_all(model, ids, cache), read_all(model, ids))


def test_a_text_is_written_through_a_small_cache(speech):
    model = models.load_tiny_lm("student")
    prompts, plain = speech[0][:, :48], generation.generate(model, speech[0][:, :48], 24)
    small = generation.quantized_cache(model.config, 8)
    found = generation.generate(model, prompts, 24, cache=small)
    assert (found == plain).float().mean() > 0.9
    assert small.bytes == generation.kv_bytes(model.config, 71, bits=8, texts=4)


def test_texts_with_padding_are_written_through_a_small_cache_too():
    model = toys.llama()
    ids, mask = generation.pad([list(range(1, 12)), [3, 4]])
    plain = generation.generate(model, ids, 6, mask=mask)
    for cache in (
        generation.quantized_cache(model.config, 8, group=4),
        generation.window_cache(model.config, 32),
    ):
        assert torch.equal(generation.generate(model, ids, 6, mask=mask, cache=cache), plain)


def test_beams_find_their_texts_again():
    model = models.load_tiny_lm("student")
    how = {"num_beams": 3, "max_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
    ids = torch.arange(100, 120)[None]
    plain = model.generate(ids, **how)
    cache = generation.quantized_cache(model.config, 8, group=4)
    assert torch.equal(model.generate(ids, **how, past_key_values=cache), plain)


# --- forgetting -----------------------------------------------------------------------------


def test_the_residual_can_be_forgotten_and_no_more():
    model = toys.llama()
    cache = generation.quantized_cache(model.config, 4, group=4, residual=3)
    once = generation.begin(model, cache=generation.quantized_cache(model.config, 4, 4, 3))
    session = generation.begin(model, cache=cache)
    session.read(torch.cat([IDS[:, :9], IDS[:, :3]], dim=1))
    once.read(IDS[:, :9])  # packs less, but the same tokens lie packed
    once.read(IDS[:, :3])
    session.forget(3)
    once.forget(3)
    assert session.length == 9
    torch.testing.assert_close(session.read(IDS[:, 9:12]), once.read(IDS[:, 9:12]))
    with pytest.raises(
        ValueError, match=r"all except \d are packed already; a residual \(it is 3\)"
    ):
        session.forget(8)


def test_a_window_forgets_until_it_has_dropped_something():
    model = toys.llama()
    session = generation.begin(model, cache=generation.window_cache(model.config, 6))
    session.read(IDS[:, :5])
    session.forget(2)
    session.read(IDS[:, 3:5])
    session.read(IDS[:, 5:6])
    with pytest.raises(ValueError, match="older ones left the window of 6"):
        session.forget(1)


def test_a_cache_that_is_reset_is_empty():
    model = toys.llama()
    for cache in (
        generation.quantized_cache(model.config, 4, 4),
        generation.window_cache(model.config, 4, 1),
    ):
        first = generation.begin(model, cache=cache).read(IDS)
        cache.reset()
        assert cache.bytes == cache.get_seq_length() == 0
        torch.testing.assert_close(generation.begin(model, cache=cache).read(IDS), first)


# --- windows --------------------------------------------------------------------------------


def in_parts(model, cache, parts, ids, mask=None):
    """Return the logits of all positions, read in parts of these sizes."""
    session = generation.begin(model, mask, cache)
    return torch.cat([session.read(new, new.shape[1]) for new in ids.split(parts, dim=1)], dim=1)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("parts", [[20], [7, 1, 1, 5, 6], [1] * 20], ids=len)
@pytest.mark.parametrize("window", [1, 2, 5, 19, 20, 99])
def test_the_window_is_the_one_that_transformers_masks(window, parts, attention):
    torch.manual_seed(0)
    model = hf.LlamaForCausalLM(hf.LlamaConfig(**families.GROUPED)).eval()
    model.set_attn_implementation(attention)
    # Mistral is a Llama with a window: one forward pass, no cache, their own mask.
    masked = hf.MistralForCausalLM(
        hf.MistralConfig(**families.GROUPED, sliding_window=window)
    ).eval()
    masked.load_state_dict(model.state_dict())
    with torch.no_grad():
        want = masked(input_ids=IDS).logits
    cache = generation.window_cache(model.config, window)
    torch.testing.assert_close(in_parts(model, cache, parts, IDS), want, atol=1e-5, rtol=1e-4)
    held = min(window - 1, 20)
    assert cache.bytes == generation.kv_bytes(model.config, held, texts=2)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("parts", [[20], [3, 9, 1, 7]], ids=len)
@pytest.mark.parametrize("window, sinks", [(4, 2), (1, 1), (3, 30), (4, 0)])
def test_sinks_are_seen_besides(family, parts, window, sinks):
    model = FAMILIES[family]()
    query, key = torch.arange(20)[:, None], torch.arange(20)
    sees = (key <= query) & ((key > query - window) | (key < sinks))
    with torch.no_grad():
        want = model(input_ids=IDS, attention_mask=sees[None, None].expand(2, 1, -1, -1)).logits
    cache = generation.window_cache(model.config, window, sinks)
    torch.testing.assert_close(in_parts(model, cache, parts, IDS), want, atol=1e-5, rtol=1e-4)
    assert cache.bytes == generation.kv_bytes(model.config, min(window - 1 + sinks, 20), texts=2)


def test_a_window_looks_at_no_padding():
    model = toys.llama()
    ids, mask = generation.pad([list(range(1, 12)), [3, 4, 5]])
    cache = generation.window_cache(model.config, 4)
    found = in_parts(model, cache, [6, 5], ids, mask)
    for row, count in enumerate(mask.sum(1).tolist()):
        alone = in_parts(
            model, generation.window_cache(model.config, 4), [count], ids[row : row + 1, -count:]
        )
        torch.testing.assert_close(found[row, -count:], alone[0])
    with pytest.raises(ValueError, match="mask has padding, which would be held as sinks"):
        generation.begin(model, mask, generation.window_cache(model.config, 4, 1)).read(ids)
