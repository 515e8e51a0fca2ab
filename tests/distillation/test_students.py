"""Students are their teacher's own layers, fewer of them."""

import copy

import pytest
import torch

from lightcourse import distillation
from tests import toys


def size(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("family", toys.ALL)
def test_a_student_of_all_layers_is_the_teacher(family):
    model = toys.ALL[family]()
    count = 3 if family == "llama" else 2
    assert torch.equal(
        toys.logits(distillation.student_from(model, range(count))), toys.logits(model)
    )


@pytest.mark.parametrize("family", toys.ALL)
def test_a_student_has_its_own_copy_of_fewer_layers(family):
    model = toys.ALL[family]()
    before = toys.logits(model)
    student = distillation.student_from(model, [1])
    assert 0 < size(student) < size(model)
    for parameter in student.parameters():
        parameter.data.zero_()
    assert torch.equal(before, toys.logits(model))


def test_the_layers_run_in_the_order_that_was_asked_for():
    model = toys.llama()
    there, back = (distillation.student_from(model, layers) for layers in ([0, 2], [2, 0]))
    assert not torch.equal(toys.logits(there), toys.logits(back))
    assert torch.equal(
        back.model.layers[0].mlp.up_proj.weight, model.model.layers[2].mlp.up_proj.weight
    )


def test_what_is_tied_stays_tied_and_what_is_frozen_stays_frozen():
    model = toys.llama().requires_grad_(False)
    student = distillation.student_from(model, [0])
    assert student.lm_head.weight is student.model.embed_tokens.weight
    assert not any(p.requires_grad for p in student.parameters())


def test_layers_left_out_are_never_copied(monkeypatch):
    model, copied = toys.llama(), []
    original = torch.nn.Parameter.__deepcopy__

    def counting(parameter, memo):
        copied.append(id(parameter))
        return original(parameter, memo)

    monkeypatch.setattr(torch.nn.Parameter, "__deepcopy__", counting)
    distillation.student_from(model, [0, 2])
    left_out = {id(p) for p in model.model.layers[1].parameters()}
    assert copied and not left_out & set(copied)


def test_a_student_generates_with_its_cache():
    model = toys.llama()
    student = distillation.student_from(model, [0, 2])
    ids = torch.tensor([[3, 4, 5]])
    both = [
        student.generate(ids, max_new_tokens=6, use_cache=c, do_sample=False) for c in (True, False)
    ]
    assert torch.equal(*both)
    assert student.config.num_hidden_layers == 2 and model.config.num_hidden_layers == 3


def test_a_student_can_be_copied_and_be_a_teacher_in_turn():
    student = distillation.student_from(toys.llama(), [0, 2])
    smaller = distillation.student_from(copy.deepcopy(student), [1])
    assert smaller.config.num_hidden_layers == len(smaller.model.layers) == 1


@pytest.mark.parametrize("layers", [[], [2], [-1], [0.5], [1, 1]])
def test_layers_that_are_not_there_are_refused(layers):
    with pytest.raises(ValueError, match="some of the layers 0..1 are wanted, each once"):
        distillation.student_from(toys.bert(), layers)


def test_a_model_without_a_stack_is_refused():
    with pytest.raises(ValueError, match="without a ModuleList"):
        distillation.student_from(toys.mlp(), [0])


def test_a_student_takes_its_layers_kinds_along(tmp_path):
    from transformers import Gemma2Config, Gemma2ForCausalLM

    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 4, "head_dim": 8}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "sliding_window": 3}
    model = Gemma2ForCausalLM(Gemma2Config(vocab_size=50, **shape, **heads)).eval()
    student = distillation.student_from(model, [1, 3])
    assert student.config.layer_types == ["full_attention", "full_attention"]
    assert len(model.config.layer_types) == 4
    ids = torch.arange(12)[None]
    student.save_pretrained(tmp_path)
    again = Gemma2ForCausalLM.from_pretrained(tmp_path).eval()
    assert torch.equal(student(ids).logits, again(ids).logits)


def tiny(family):
    """Return a model of two stacks, or of more experts than layers."""
    import transformers as hf

    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "d_model": 16, "decoder_start_token_id": 0, "pad_token_id": 0}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    if family == "t5":
        shape = {"d_kv": 8, "d_ff": 32, "num_heads": 2, "num_layers": 3, "num_decoder_layers": 2}
        return hf.T5ForConditionalGeneration(hf.T5Config(**sizes, **shape)).eval()
    shape = {"encoder_layers": 3, "decoder_layers": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    return hf.BartForConditionalGeneration(hf.BartConfig(**sizes, **heads, **shape)).eval()


STACKS = {
    "t5": ("encoder.block", "decoder.block"),
    "bart": ("model.encoder.layers", "model.decoder.layers"),
}


@pytest.mark.parametrize("family", STACKS)
def test_both_stacks_of_an_encoder_and_a_decoder_are_cut(family, tmp_path):
    student = distillation.student_from(tiny(family), [0])
    assert [len(student.get_submodule(name)) for name in STACKS[family]] == [1, 1]
    inputs = {"input_ids": torch.arange(3, 9)[None], "decoder_input_ids": torch.arange(4)[None]}
    student.save_pretrained(tmp_path)
    again = type(student).from_pretrained(tmp_path).eval()
    assert torch.equal(student(**inputs).logits, again(**inputs).logits)


def test_stacks_of_different_lengths_take_only_what_both_have():
    with pytest.raises(ValueError, match=r"0\.\.1 are wanted, each once \(decoder.block has 2\)"):
        distillation.student_from(tiny("t5"), [0, 2])


@pytest.mark.parametrize("layers", [[1], [1, 0]])
def test_a_layer_that_holds_what_all_layers_use_must_stay_the_first(layers):
    with pytest.raises(ValueError, match="layer 0 must be the first: .*relative_attention_bias"):
        distillation.student_from(tiny("t5"), layers)


def test_experts_are_no_stack_even_where_they_outnumber_the_layers():
    class Layer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            kinds = [torch.nn.Sequential(torch.nn.Linear(4, 4)) for _ in range(5)]
            self.experts = torch.nn.ModuleList(kinds)

    model = torch.nn.ModuleDict({"layers": torch.nn.ModuleList([Layer(), Layer()])})
    student = distillation.student_from(model, [1])
    assert len(student["layers"]) == 1 and len(student["layers"][0].experts) == 5


def test_a_configuration_that_computes_its_layers_kinds_is_left_to_it():
    import transformers as hf

    config = hf.MambaConfig(vocab_size=50, hidden_size=16, state_size=4, num_hidden_layers=3)
    student = distillation.student_from(hf.MambaForCausalLM(config).eval(), [0, 2])
    assert student.config.num_hidden_layers == 2


def test_towers_of_two_kinds_each_tell_their_own_number():
    import transformers as hf

    shape = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    text = shape | {"vocab_size": 50, "num_hidden_layers": 2}
    picture = shape | {"image_size": 8, "patch_size": 4, "num_hidden_layers": 3}
    config = hf.CLIPConfig(text_config=text, vision_config=picture, projection_dim=16)
    student = distillation.student_from(hf.CLIPModel(config), [0])
    found = [student.config.text_config, student.config.vision_config]
    assert [config.num_hidden_layers for config in found] == [1, 1]
