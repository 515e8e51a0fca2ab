"""Experts that go: as if the router never chose them, in a smaller model."""

import copy

import pytest
import torch
import transformers

from lightcourse import pruning
from tests import families, toys


def qwen3_moe():
    """Return a Qwen3-MoE whose chosen experts' weights sum to one."""
    config = transformers.Qwen3MoeConfig(
        **families.EXPERTS, num_experts=4, moe_intermediate_size=16, norm_topk_prob=True, head_dim=8
    )
    return transformers.Qwen3MoeForCausalLM(config), families.words()


MODELS = {**families.FAMILIES, "Qwen3-MoE": qwen3_moe}
MIXTURES = ("Mixtral", "Qwen2-MoE", "Qwen3-MoE")


def make(family):
    """Return a mixture whose routers decide: they are large enough, with random rows."""
    torch.manual_seed(0)
    model, inputs = MODELS[family]()
    for module in model.modules():
        if hasattr(module, "gate") and hasattr(module, "experts"):
            torch.nn.init.normal_(module.gate.weight)
            torch.nn.init.normal_(module.experts.gate_up_proj, std=0.2)
            torch.nn.init.normal_(module.experts.down_proj, std=0.2)
    return model.eval(), inputs


def names(model):
    return list(pruning.expert_shares(model, [families.words()]))


def masks_of(model, *patterns):
    return {n: torch.tensor(p) == 1 for n, p in zip(names(model), patterns, strict=True)}


def silence_(model, masks):
    """Let the routers give the experts that go a score of minus infinity."""
    for name, mask in masks.items():
        router = model.get_submodule(name).gate

        def choose(router, _, answer, mask=mask):
            logits = answer[0].masked_fill(~mask, -torch.inf)
            weights, chosen = torch.topk(logits.softmax(-1), router.top_k, dim=-1)
            if getattr(router, "norm_topk_prob", True):
                weights = weights / weights.sum(-1, keepdim=True)
            return logits, weights, chosen

        router.register_forward_hook(choose)


def state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("patterns", [([1, 0, 1, 1], [0, 1, 1, 1]), ([1, 0, 0, 1], [1, 1, 1, 1])])
@pytest.mark.parametrize("family", MIXTURES)
def test_dropping_experts_is_silencing_them(family, patterns):
    model, inputs = make(family)
    masks, before = masks_of(model, *patterns), families.answer(model, inputs)
    silent = copy.deepcopy(model)
    silence_(silent, masks)
    wanted = families.answer(silent, inputs)
    assert not torch.allclose(wanted, before, atol=1e-3)
    size = sum(p.numel() for p in model.parameters())
    report = pruning.drop_experts_(model, masks)
    torch.testing.assert_close(families.answer(model, inputs), wanted, rtol=1e-4, atol=1e-5)
    assert report.total == size - sum(p.numel() for p in model.parameters())
    assert list(report.changed) == [name for name, mask in masks.items() if not mask.all()]


@pytest.mark.parametrize("family", MIXTURES)
def test_files_give_the_same_model_where_all_keep_equally_many(family, tmp_path):
    model, inputs = make(family)
    pruning.drop_experts_(model, masks_of(model, [1, 0, 1, 1], [0, 1, 1, 1]))
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path).eval()
    assert again.config.num_experts == again.num_experts == model.num_experts == 3
    assert state(again).keys() == state(model).keys()
    torch.testing.assert_close(families.answer(again, inputs), families.answer(model, inputs))


def test_files_are_refused_where_the_configuration_cannot_tell(tmp_path):
    model, inputs = make("Mixtral")
    pruning.drop_experts_(model, masks_of(model, [1, 0, 1, 1], [1, 1, 1, 1]))
    assert model.config.num_local_experts == 4
    with pytest.raises(ValueError, match="configuration describes"):
        model.save_pretrained(tmp_path)
    pruning.drop_experts_(model, {names(model)[1]: torch.tensor([True, True, True, False])})
    assert model.config.num_local_experts == 3
    model.save_pretrained(tmp_path)


@pytest.mark.parametrize("family", MIXTURES)
def test_generation_with_a_cache_is_that_without(family):
    model, inputs = make(family)
    pruning.drop_experts_(model, masks_of(model, [1, 0, 1, 1], [0, 1, 0, 1]))
    found = [
        model.generate(**inputs, max_new_tokens=6, do_sample=False, use_cache=cached)
        for cached in (True, False)
    ]
    assert torch.equal(*found)


def test_the_loss_that_balances_still_knows_how_many_there_are():
    model, inputs = make("Mixtral")
    pruning.drop_experts_(model, masks_of(model, [1, 0, 1, 1], [0, 1, 1, 1]))
    found = model(**inputs, labels=inputs["input_ids"], output_router_logits=True)
    found.loss.backward()
    assert torch.isfinite(found.aux_loss)
    assert all(p.grad is not None for n, p in model.named_parameters() if "experts" in n)


@pytest.mark.parametrize("family", MIXTURES)
def test_shares_count_the_visits_of_real_tokens(family):
    model, inputs = make(family)
    shares = pruning.expert_shares(model, [inputs])
    assert len(shares) == 2
    with torch.no_grad():
        logits = model(**inputs, output_router_logits=True).router_logits
    for share, rows in zip(shares.values(), logits, strict=True):
        visits = torch.zeros(4)
        for row in rows:
            visits[row.topk(2).indices] += 1
        torch.testing.assert_close(share, visits / visits.sum())
        assert share.sum() == pytest.approx(1)


def test_padding_and_labels_do_not_count_and_batches_add_up():
    model, inputs = make("Mixtral")
    wanted = pruning.expert_shares(model, [inputs])
    padded = {key: torch.nn.functional.pad(value, (0, 5)) for key, value in inputs.items()}
    parts = [{key: value[i : i + 1] for key, value in padded.items()} for i in range(2)]
    found = pruning.expert_shares(model, [part | {"labels": None} for part in parts])
    bare = pruning.expert_shares(model, [{"input_ids": inputs["input_ids"]}])
    for name, share in wanted.items():
        torch.testing.assert_close(found[name], share)
        torch.testing.assert_close(bare[name], share)
    counted = pruning.expert_shares(model, [{"input_ids": padded["input_ids"]}])
    assert any(not torch.allclose(counted[name], share) for name, share in wanted.items())


def test_counting_leaves_the_model_as_it_was():
    model, inputs = make("Mixtral")
    before = state(model)
    model.train()
    pruning.expert_shares(model, [inputs])
    with pytest.raises(ValueError, match="batches is empty"):
        pruning.expert_shares(model, [])
    assert model.training and all(torch.equal(before[k], v) for k, v in state(model).items())
    assert not any(module._forward_hooks for module in model.modules())


def test_shares_make_masks():
    model, inputs = make("Mixtral")
    shares = pruning.expert_shares(model, [inputs])
    masks = pruning.layer_mask(shares, 0.25)
    pruning.drop_experts_(model, masks)
    left = pruning.expert_shares(model, [inputs])
    assert all(len(share) == 3 and share.sum() == pytest.approx(1) for share in left.values())


@pytest.mark.parametrize(
    "mask, message",
    [
        (torch.tensor([1, 0, 0, 0]) == 1, "keeps 1 experts, but a token visits 2"),
        (torch.ones(3) == 1, "shape .4,. is wanted"),
        (torch.ones(4), "torch.bool"),
        (torch.ones(4) == 1, "nothing was shrunk"),
    ],
)
def test_wrong_masks_are_named_before_anything_changes(mask, message):
    model, _ = make("Mixtral")
    first, second = names(model)
    before = state(model)
    masks = {second: mask}
    if not mask.all() or len(mask) != 4 or mask.dtype != torch.bool:
        masks = {first: torch.tensor([0, 1, 1, 1]) == 1} | masks
    with pytest.raises(ValueError, match=message):
        pruning.drop_experts_(model, masks)
    assert all(torch.equal(before[k], v) for k, v in state(model).items())


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="no mixture of experts of this model"):
        pruning.drop_experts_(make("Mixtral")[0], {"model.layers.7.mlp": torch.ones(4) == 1})


def deepseek():
    """Return a mixture whose router has a bias for each expert, which is not of a known kind."""
    config = transformers.DeepseekV3Config(
        **{"vocab_size": 50, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1},
        **{"moe_intermediate_size": 8, "n_routed_experts": 4, "num_attention_heads": 2},
        **{"first_k_dense_replace": 0, "n_group": 2, "topk_group": 1, "num_experts_per_tok": 2},
        **{"q_lora_rank": 8, "kv_lora_rank": 8, "pad_token_id": 0},
    )
    return transformers.DeepseekV3ForCausalLM(config)


def test_a_token_outside_of_the_vocabulary_is_named():
    model, inputs = make("Mixtral")
    wrong = inputs | {"input_ids": inputs["input_ids"] + 1000}
    with pytest.raises(ValueError, match=r"asks model.embed_tokens for ids 1003\.\.1018"):
        pruning.expert_shares(model, [wrong])
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("make_other", [toys.llama, toys.mlp, deepseek])
def test_a_model_without_known_experts_is_refused(make_other):
    for call in (pruning.expert_shares, pruning.drop_experts_):
        with pytest.raises(ValueError, match="without experts of a known kind"):
            call(make_other(), {})
