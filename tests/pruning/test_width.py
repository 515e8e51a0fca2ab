"""Channels of the residual stream that go: exact where they were silent, and saved as they are."""

import copy

import pytest
import torch
import transformers
from torch import nn
from torch.nn import functional as F

from lightcourse import layers, pruning, quantization
from tests import families, toys
from tests.pruning.test_structured import grouped

IDS = torch.arange(1, 17).view(2, 8)
FAMILIES = {**toys.ALL, "grouped": grouped}


def batch(padding=0):
    mask = torch.ones_like(IDS)
    mask[1, 8 - padding :] = 0
    return {"input_ids": IDS, "attention_mask": mask}


def mask_for(model):
    """Return a mask that keeps three quarters, here and there."""
    width = model.config.hidden_size
    kept = torch.ones(width, dtype=torch.bool)
    kept[1::4] = False
    return kept


def louden_(model):
    """Let all parts weigh in, beside RMSNorm's epsilon, too."""
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) / 2
    return model


def silence_(model, mask):
    """Let nothing write to the channels that a mask removes."""
    for name, layer in layers.linear_layers(model).items():
        if name.endswith(("o_proj", "down_proj", "output.dense", "c_proj")):
            layers.weight_matrix(layer).data[~mask] = 0
            if layer.bias is not None:
                layer.bias.data[~mask] = 0
    for table in layers.embedding_tables(model).values():
        table.weight.data[:, ~mask] = 0


@pytest.mark.parametrize("make", [toys.llama, grouped])
def test_silent_channels_of_rms_norms_can_go_and_nothing_changes(make):
    model = louden_(make())
    mask = mask_for(model)
    wanted = toys.logits(model)
    silence_(model, mask)
    assert not torch.allclose(toys.logits(model), wanted, atol=1e-2)
    wanted = toys.logits(model)
    pruning.remove_width_(model, mask)
    torch.testing.assert_close(toys.logits(model), wanted, rtol=1e-3, atol=1e-4)
    assert model.model.norm.weight.shape == (int(mask.sum()),)


def over_kept(norm, mask):
    """Let a LayerNorm look at the kept channels alone, and give 0 for the others."""

    def forward(x):
        kept = F.layer_norm(x[..., mask], (int(mask.sum()),), eps=norm.eps)
        kept = kept * norm.weight[mask] + norm.bias[mask]
        return torch.zeros_like(x).masked_scatter(mask.expand_as(x), kept)

    norm.forward = forward


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_layer_norms_look_at_the_kept_channels_and_heads_lose_what_is_silent(family):
    model = louden_(toys.ALL[family]())
    mask, silent = mask_for(model), torch.tensor([False, True, False, False] * 4)
    silence_(model, mask)
    for name, layer in layers.linear_layers(model).items():
        matrix, inner = layers.weight_matrix(layer).data, silent
        if name.endswith("c_attn"):
            inner = torch.cat([silent, silent & False, silent.roll(1)])
        if name.endswith(("c_attn", "self.query", "self.value")):
            matrix[inner], layer.bias.data[inner] = 0, 0
    reference = copy.deepcopy(model)
    for module in reference.modules():
        if isinstance(module, nn.LayerNorm):
            over_kept(module, mask)
    pruning.remove_width_(model, mask)
    wanted = toys.logits(reference)
    torch.testing.assert_close(toys.logits(model), wanted, rtol=1e-3, atol=1e-4)
    assert model.config.hidden_size == 12


@pytest.mark.parametrize("family", FAMILIES)
def test_parameters_ties_and_the_config_follow(family):
    model = FAMILIES[family]()
    mask, width = mask_for(model), model.config.hidden_size
    size = sum(p.numel() for p in model.parameters())
    heads, inner = model.config.num_attention_heads, width // model.config.num_attention_heads
    model.get_submodule(next(iter(layers.linear_layers(model)))).weight.requires_grad_(False)
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    report = pruning.remove_width_(model, mask)
    kept = int(mask.sum())
    assert report.total == size - sum(p.numel() for p in model.parameters())
    inside = ("mlp", "self_attn")  # inner sizes that happen to be the stream's
    others = [p for n, p in model.named_parameters() if not any(part in n for part in inside)]
    assert not any(width in parameter.shape for parameter in others)
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == frozen
    assert model.config.hidden_size == kept
    if family in ("llama", "grouped"):
        assert model.config.head_dim == model.model.layers[0].self_attn.head_dim == inner
        assert model.model.embed_tokens.embedding_dim == kept
    if family == "gpt2":
        attention = model.transformer.h[1].attn
        assert (attention.split_size, attention.embed_dim) == (kept, kept)
        assert (attention.num_heads, attention.head_dim) == (heads, kept // heads)
        assert model.config.n_inner == 64
    if family in ("gpt2", "llama"):
        table = model.get_input_embeddings().weight
        assert model.lm_head.weight is table and model.lm_head.in_features == kept


@pytest.mark.parametrize("family", FAMILIES)
def test_saved_loaded_trained_and_written_on(family, tmp_path):
    model = FAMILIES[family]()
    pruning.remove_width_(model, mask_for(model))
    again = toys.reloaded(model, tmp_path)
    if family != "bert":
        assert torch.equal(*toys.written(model, IDS))
    torch.testing.assert_close(toys.logits(again.eval()), toys.logits(model))
    labels = IDS if family != "bert" else torch.tensor([0, 1])
    model(**batch(), labels=labels).loss.backward()
    assert all(p.grad.shape == p.shape for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("kind", ["ForMaskedLM", "ForSequenceClassification"])
def test_what_stands_behind_bert_follows(kind, tmp_path):
    make = getattr(transformers, f"Bert{kind}")
    model = make(families.make("BERT")[0].config).eval()
    pruning.remove_width_(model, mask_for(model))
    model.save_pretrained(tmp_path)
    again = make.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(toys.logits(again), toys.logits(model))


def test_the_scores_are_mean_sizes_behind_each_norm():
    model = toys.llama()
    norms = [m for n, m in model.named_modules() if n.endswith("norm")]
    assert len(norms) == 7
    seen = []
    hooks = [n.register_forward_hook(lambda _, inputs, out: seen.append(out)) for n in norms]
    scores = pruning.width_scores(model, [batch(3)])
    for hook in hooks:
        hook.remove()
    real = batch(3)["attention_mask"].bool()
    wanted = sum(out[real].abs().mean(dim=0) for out in seen)
    torch.testing.assert_close(scores, wanted)
    assert pruning.layer_mask(scores, 0.25).sum() == 12


@pytest.mark.parametrize("family", toys.ALL)
def test_padding_does_not_count(family):
    model = toys.ALL[family]()
    short = {"input_ids": IDS[1:, :5], "attention_mask": torch.ones(1, 5, dtype=torch.int64)}
    first = {name: value[:1] for name, value in batch().items()}
    wanted = pruning.width_scores(model, [first, short])
    torch.testing.assert_close(pruning.width_scores(model, [batch(3)]), wanted)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.ones(16), r"mask is torch.float32 of shape \(16,\); torch.bool of shape \(16,\)"),
        (torch.ones(8, dtype=torch.bool), r"of shape \(8,\); torch.bool of shape \(16,\)"),
        ([True] * 16, "mask is list; torch.bool"),
        (torch.arange(16) < 16, "mask keeps 16 of 16 channels"),
        (torch.arange(16) < 0, "mask keeps 0 of 16 channels"),
        (torch.arange(16) < 13, "keeps 13 channels and the model has 2 attention heads; .* 12"),
    ],
)
@pytest.mark.parametrize("family", toys.ALL)
def test_wrong_masks_change_nothing(family, mask, message):
    model = toys.ALL[family]()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        pruning.remove_width_(model, mask)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


KNOWN = ("BERT", "GPT-2", "Llama", "Qwen2")


@pytest.mark.parametrize("family", families.FAMILIES)
def test_families_work_or_are_refused_before_anything_is_changed(family, tmp_path):
    model, inputs = families.make(family)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    mask = torch.arange(32) < 24
    if family in KNOWN:
        pruning.remove_width_(model, mask)
        model.save_pretrained(tmp_path)
        again = type(model).from_pretrained(tmp_path).eval()
        torch.testing.assert_close(families.answer(again, inputs), families.answer(model, inputs))
        return
    with pytest.raises(
        ValueError, match="not known|without a known attention|without a config.hidden_size"
    ):
        pruning.remove_width_(model, mask)
    now = model.state_dict()
    assert all(torch.equal(before[name], value) for name, value in now.items())


class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = toys.llama()
        self.config = self.model.config
        self.gate = nn.Parameter(torch.ones(16))


def test_an_unknown_part_is_refused_by_name():
    mask = torch.arange(16) < 12
    with pytest.raises(ValueError, match=r"model holds gate of shape \(16,\), as wide as"):
        pruning.remove_width_(Odd(), mask)
    model = toys.llama()
    quantization.quantize_(model)
    with pytest.raises(ValueError, match="model stores integers in model.layers.0"):
        pruning.remove_width_(model, mask)
    config = toys.bert().config
    rotated = copy.deepcopy(toys.bert())
    rotated.config = copy.deepcopy(config)
    rotated.config.model_type = "roformer"
    with pytest.raises(ValueError, match="not known whether its heads can get narrower"):
        pruning.remove_width_(rotated, mask)
    config = transformers.GemmaConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
    )
    with pytest.raises(ValueError, match="embed_tokens.weight of shape"):
        pruning.remove_width_(transformers.GemmaForCausalLM(config), mask)


def test_what_cannot_be_scored_is_refused():
    with pytest.raises(ValueError, match="Sequential without a config.hidden_size"):
        pruning.width_scores(toys.mlp(), [batch()])
    with pytest.raises(ValueError, match="batches is empty"):
        pruning.width_scores(toys.llama(), [])
    with pytest.raises(ValueError, match="no token but padding"):
        pruning.width_scores(toys.llama(), [{"input_ids": IDS, "attention_mask": IDS * 0}])
