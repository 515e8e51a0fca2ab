"""Observing inputs: every real token once, folded batch by batch, and the model left alone."""

import pytest
import torch
import toys

from lightcourse import calibration, layers

IDS = torch.arange(1, 33).view(4, 8)


def batch(ids=IDS, mask=None):
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids) if mask is None else mask}


def count(state, rows):
    return (state or 0) + len(rows)


def keep(state, rows):
    return [*(state or []), rows.clone()]


@pytest.mark.parametrize("family", toys.ALL)
def test_each_layer_folds_its_own_inputs_in_order(family):
    model = toys.ALL[family]()
    found = layers.linear_layers(model)
    parts = calibration.observe_inputs(model, [batch(IDS[:1]), batch(IDS[1:])], found, keep)
    whole = calibration.observe_inputs(model, [batch()], found, keep)
    assert list(parts) == list(found)
    for name, layer in found.items():
        width = layers.matrix(layer).shape[1]
        assert all(rows.dtype == torch.float32 and rows.shape[1] == width for rows in parts[name])
        assert len(parts[name]) == 2
        torch.testing.assert_close(torch.cat(parts[name]), whole[name][0])


def test_padded_tokens_are_left_out_and_batches_of_nothing_else_too():
    model, mask = toys.llama(), torch.ones_like(IDS)
    mask[:, 5:] = 0
    found = layers.linear_layers(model)
    batches = [batch(IDS, mask), batch(IDS, torch.zeros_like(IDS))]
    counts = calibration.observe_inputs(model, batches, found, count)
    assert set(counts.values()) == {20}
    with pytest.raises(ValueError, match="no linear layer saw an input"):
        calibration.observe_inputs(model, batches[1:], found, count)


def test_the_model_is_left_as_it_was():
    model = toys.bert().train()
    found = layers.linear_layers(model)
    labelled = batch() | {"labels": torch.zeros(4, dtype=torch.int64)}
    calibration.observe_inputs(model, [labelled], found, count)
    model.encoder.embeddings.LayerNorm.weight.data.fill_(float("nan"))
    with pytest.raises(ValueError, match="the inputs of head hold NaN"):
        calibration.observe_inputs(model, [batch()], {"head": model.head}, count)
    assert model.training and not any(m._forward_pre_hooks for m in model.modules())


def test_layers_are_chosen_by_name_in_the_models_order():
    model = toys.mlp()
    found = layers.linear_layers(model)
    assert list(calibration.choose_layers(model, found, None)) == ["0", "2"]
    assert list(calibration.choose_layers(model, found, iter(["2", "0"]))) == ["0", "2"]
    with pytest.raises(ValueError, match=r"names holds \['1'\], which are no linear layers"):
        calibration.choose_layers(model, found, ["1"])
    with pytest.raises(ValueError, match="without a linear layer to measure"):
        calibration.choose_layers(model, {}, None)


def test_text_that_is_none_is_refused():
    model = toys.mlp()
    found = layers.linear_layers(model)
    for batches, message in [
        ([], "batches is empty"),
        (["text"], "batches holds a str; dicts are wanted"),
        (lambda epoch, seed: [], "batches is a function"),
    ]:
        with pytest.raises(ValueError, match=message):
            calibration.observe_inputs(model, batches, found, count)
