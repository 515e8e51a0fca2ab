"""Neurons and heads that go: the same function as with zeros, in smaller layers."""

import copy

import pytest
import torch
import transformers
from torch import nn

from lightcourse import layers, metrics, pruning, quantization, training
from tests import families, toys


def grouped():
    """Return a Llama whose six query heads share three keys."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=50,
        hidden_size=24,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=3,
        attention_bias=True,
        mlp_bias=True,
        max_position_embeddings=32,
        pad_token_id=0,
    )
    model = transformers.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for layer in layers.linear_layers(model).values():
            if layer.bias is not None:
                nn.init.normal_(layer.bias)
    return model


FEED_FORWARD = {**toys.ALL, "grouped": grouped}
ATTENTION = {**toys.ALL, "grouped": grouped}
READERS = {"bert": "output.dense", "gpt2": "c_proj", "llama": "down_proj", "grouped": "down_proj"}
HEAD_READERS = READERS | {"llama": "o_proj", "grouped": "o_proj"}


def silenced(model, masks, suffix):
    """Return a copy in which the layers that read the removed outputs have zeros for them."""
    model = copy.deepcopy(model)
    for name, mask in masks.items():
        weight = layers.weight_matrix(model.get_submodule(f"{name}.{suffix}")).data
        weight[:, ~mask.repeat_interleave(weight.shape[1] // len(mask))] = 0
    return model


def random_masks(sizes, seed):
    generator = torch.Generator().manual_seed(seed)
    masks = {name: torch.rand(s.shape, generator=generator) > 0.5 for name, s in sizes.items()}
    for mask in masks.values():
        mask[0], mask[-1] = True, False
    return masks


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("family", FEED_FORWARD)
def test_removing_neurons_is_silencing_them(family, seed):
    model = FEED_FORWARD[family]()
    masks = random_masks(pruning.neuron_scores(model, pruning.magnitude_scores(model)), seed)
    wanted = toys.logits(silenced(model, masks, READERS[family]))
    assert not torch.allclose(wanted, toys.logits(model), atol=1e-4)
    size = sum(p.numel() for p in model.parameters())
    report = pruning.remove_neurons_(model, masks)
    torch.testing.assert_close(toys.logits(model), wanted, rtol=1e-4, atol=1e-5)
    assert report.total == size - sum(p.numel() for p in model.parameters())
    assert list(report.changed) == list(masks)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("family", ATTENTION)
def test_removing_heads_is_silencing_them(family, seed):
    model = ATTENTION[family]()
    masks = random_masks(pruning.head_scores(model, pruning.magnitude_scores(model)), seed)
    wanted = toys.logits(silenced(model, masks, HEAD_READERS[family]))
    assert not torch.allclose(wanted, toys.logits(model), atol=1e-5)
    size = sum(p.numel() for p in model.parameters())
    report = pruning.remove_heads_(model, masks)
    torch.testing.assert_close(toys.logits(model), wanted, rtol=1e-4, atol=1e-5)
    assert report.total == size - sum(p.numel() for p in model.parameters())


def test_shapes_bytes_and_printed_sizes_shrink():
    model = toys.bert()
    before = metrics.size_in_bytes(model)
    scores = pruning.magnitude_scores(model)
    neurons = pruning.remove_neurons_(
        model, pruning.layer_mask(pruning.neuron_scores(model, scores), 0.75)
    )
    heads = pruning.remove_heads_(
        model, pruning.layer_mask(pruning.head_scores(model, scores), 0.5)
    )
    layer = model.encoder.encoder.layer[0]
    assert (layer.intermediate.dense.out_features, layer.output.dense.in_features) == (8, 8)
    assert layer.attention.self.query.weight.shape == (8, 16)
    assert layer.attention.output.dense.weight.shape == (16, 8)
    assert before - metrics.size_in_bytes(model) == 4 * (neurons.total + heads.total)
    assert "in_features=16, out_features=8" in repr(layer.attention.self.key)
    assert model.config.intermediate_size == 8


def test_smaller_models_train_generate_and_move_to_half_precision():
    model = grouped()
    scores = pruning.magnitude_scores(model)
    pruning.remove_heads_(model, pruning.layer_mask(pruning.head_scores(model, scores), 1 / 3))
    pruning.remove_neurons_(model, pruning.layer_mask(pruning.neuron_scores(model, scores), 0.5))
    ids = torch.arange(1, 17).view(2, 8)

    def batches(epoch, seed):
        yield {"input_ids": ids, "labels": ids}

    recipe = training.Recipe(20, learning_rate=1e-2)
    history = training.train(model, batches, recipe, progress=False)
    assert history.losses[-1] < 0.8 * history.losses[0]
    out = model.generate(ids[:, :4], max_new_tokens=3, do_sample=False, pad_token_id=0)
    uncached = model.generate(
        ids[:, :4], max_new_tokens=3, do_sample=False, use_cache=False, pad_token_id=0
    )
    assert torch.equal(out, uncached)
    assert torch.isfinite(toys.logits(model.bfloat16())).all()
    quantization.quantize_(model)


@pytest.mark.parametrize("family", FEED_FORWARD)
def test_one_width_goes_through_save_pretrained(family, tmp_path):
    model = FEED_FORWARD[family]()
    scores = pruning.neuron_scores(model, pruning.magnitude_scores(model))
    pruning.remove_neurons_(model, pruning.layer_mask(scores, 0.5))
    model = model.encoder if family == "bert" else model
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])


def test_grouped_heads_go_by_whole_groups():
    model = grouped()
    scores = pruning.head_scores(model, pruning.magnitude_scores(model))
    assert {name: score.shape for name, score in scores.items()} == {
        f"model.layers.{layer}.self_attn": (3,) for layer in range(2)
    }
    with pytest.raises(ValueError, match="those that share a key go together"):
        pruning.remove_heads_(model, {"model.layers.0.self_attn": torch.arange(6) > 2})
    pruning.remove_heads_(model, {"model.layers.0.self_attn": torch.tensor([True, False, True])})
    attention = model.model.layers[0].self_attn
    shapes = [tuple(getattr(attention, f"{x}_proj").weight.shape) for x in "qkvo"]
    assert shapes == [(16, 24), (8, 24), (8, 24), (24, 16)]
    assert model.config.num_attention_heads == 6  # another layer still has them


def half_the_heads_(model):
    scores = pruning.head_scores(model, pruning.magnitude_scores(model))
    return pruning.remove_heads_(model, pruning.layer_mask(scores, 0.5))


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_models_with_fewer_heads_write_the_same_with_a_cache(family):
    model, ids = toys.ALL[family](), torch.arange(1, 9).view(2, 4)
    half_the_heads_(model)
    settings = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    texts = [model.generate(ids, **settings, use_cache=cache) for cache in (True, False)]
    assert torch.equal(*texts)


def test_gpt2_lists_queries_keys_and_values_of_the_heads_it_kept():
    model = toys.gpt2()
    attention = model.transformer.h[1].attn
    rows = layers.weight_matrix(attention.c_attn).detach().clone().view(3, 2, 8, 16)
    pruning.remove_heads_(model, {"transformer.h.1.attn": torch.tensor([False, True])})
    assert torch.equal(layers.weight_matrix(attention.c_attn), rows[:, 1].flatten(0, 1))
    assert (attention.num_heads, attention.split_size, attention.c_attn.nf) == (1, 8, 24)
    assert attention.embed_dim == 16 and model.config.n_head == 2  # another layer has them
    fresh = toys.gpt2().transformer.h[1].attn
    assert (fresh.num_heads, fresh.split_size) == (2, 16)


def test_as_many_heads_in_all_layers_go_through_save_pretrained(tmp_path):
    model = toys.llama()
    half_the_heads_(model)
    config = model.config
    assert (config.num_attention_heads, config.num_key_value_heads, config.head_dim) == (1, 1, 8)
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path).eval()
    assert torch.equal(toys.logits(again), toys.logits(model))


def test_grouped_heads_go_through_save_pretrained_of_a_model_without_head_dim(tmp_path):
    model, inputs = families.make("Qwen2")
    assert not hasattr(model.config, "head_dim")
    half_the_heads_(model)
    assert (model.config.num_attention_heads, model.config.num_key_value_heads) == (2, 1)
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path).eval()
    assert torch.equal(families.answer(again, inputs), families.answer(model, inputs))


def five_of_six():
    """Return a Llama whose width of 24 is no multiple of the heads that one fewer leaves."""
    config = grouped().config
    config.num_hidden_layers, config.num_key_value_heads = 1, 6
    return transformers.LlamaForCausalLM(config).eval()


@pytest.mark.parametrize("make", [toys.gpt2, lambda: toys.bert().encoder, five_of_six, grouped])
def test_heads_that_no_configuration_tells_are_refused_by_save_pretrained(make, tmp_path):
    model = make()
    name, score = next(iter(pruning.head_scores(model, pruning.magnitude_scores(model)).items()))
    told = model.config.num_attention_heads
    pruning.remove_heads_(model, {name: torch.arange(len(score)) > 0})
    assert model.config.num_attention_heads == told
    with pytest.raises(ValueError, match="from_pretrained would fill it at random"):
        model.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("family", ATTENTION)
def test_a_pruned_checkpoint_brings_its_heads_along(family, tmp_path):
    model, fresh = ATTENTION[family](), ATTENTION[family]()
    scores = pruning.head_scores(model, pruning.magnitude_scores(model))
    pruning.remove_heads_(model, random_masks(scores, 0))
    pruning.save_pruned(model, tmp_path / "model.safetensors")
    pruning.load_pruned_(fresh, tmp_path / "model.safetensors")
    assert torch.equal(toys.logits(fresh), toys.logits(model))


def test_a_neuron_scores_what_it_adds_to_the_output():
    model = toys.llama()
    ids = torch.arange(1, 33).view(4, 8)
    norms = pruning.input_norms(model, [{"input_ids": ids}])
    scores = pruning.neuron_scores(model, pruning.wanda_scores(model, norms))
    reader, seen = model.model.layers[1].mlp.down_proj, []
    hook = reader.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model(input_ids=ids)
    hook.remove()
    x = seen[0].flatten(0, 1)
    for neuron in range(0, 32, 7):
        added = torch.outer(x[:, neuron], reader.weight[:, neuron])
        torch.testing.assert_close(scores["model.layers.1.mlp"][neuron], added.norm())


def test_a_head_scores_the_norm_of_its_slice():
    model = grouped()
    scores = pruning.magnitude_scores(model)
    slices = scores["model.layers.1.self_attn.o_proj"].view(24, 3, 8)
    wanted = slices.norm(dim=(0, 2))
    heads = pruning.head_scores(model, scores)["model.layers.1.self_attn"]
    torch.testing.assert_close(heads, wanted)


def test_models_without_known_blocks_are_refused():
    with pytest.raises(ValueError, match="Sequential without a known feed-forward block"):
        pruning.neuron_scores(toys.mlp(), {})
    with pytest.raises(ValueError, match="MambaForCausalLM without a known attention"):
        pruning.remove_heads_(families.make("Mamba")[0], {})
    model = toys.llama()
    with pytest.raises(ValueError, match="scores lacks model.layers.0.mlp.down_proj"):
        pruning.neuron_scores(model, {})
    quantization.quantize_(model)
    with pytest.raises(ValueError, match="without a known feed-forward block"):
        pruning.remove_neurons_(model, {})


def test_wrong_masks_change_nothing():
    model = toys.bert()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    good = random_masks(pruning.neuron_scores(model, pruning.magnitude_scores(model)), 0)
    first = next(iter(good))
    for message, wrong in {
        "masks names '9'": {"9": good[first]},
        "is torch.float32": {first: torch.ones(32)},
        r"shape \(32,\) is wanted": {first: good[first][:5]},
        "keeps none of its neurons": {first: good[first] & False},
    }.items():
        with pytest.raises(ValueError, match=message):
            pruning.remove_neurons_(model, good | wrong)
    with pytest.raises(ValueError, match="nothing was shrunk: the masks keep all neurons"):
        pruning.remove_neurons_(model, {first: good[first] | True})
    with pytest.raises(ValueError, match="nothing was shrunk"):
        pruning.remove_heads_(model, {})
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_the_expert_that_is_always_asked_has_a_width_of_its_own(tmp_path):
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "num_key_value_heads": 2}
    widths = {"moe_intermediate_size": 8, "shared_expert_intermediate_size": 12}
    config = transformers.Qwen2MoeConfig(vocab_size=50, **shape, **experts, **widths)
    model = transformers.Qwen2MoeForCausalLM(config).eval()
    scores = pruning.neuron_scores(model, pruning.magnitude_scores(model))
    pruning.remove_neurons_(model, pruning.layer_mask(scores, 0.5))
    model.save_pretrained(tmp_path)
    again = transformers.Qwen2MoeForCausalLM.from_pretrained(tmp_path).eval()
    assert torch.equal(toys.logits(again), toys.logits(model))
