"""What is forecast from shapes, beside what small models really store."""

import pytest
import torch

from lightcourse import metrics, quantization
from lightcourse.deployment import forecasts
from tests import families

METHODS = {method.name: method for method in forecasts.METHODS}


@pytest.mark.parametrize("family", ["Llama", "GPT-2", "GPT-NeoX"])
@pytest.mark.parametrize("bits, group_size", [(8, None), (8, 32), (4, 32), (4, None)])
def test_the_bytes_that_the_library_stores(family, bits, group_size):
    model, _ = families.make(family)
    wanted = forecasts.stored_bytes(model, forecasts.Method("", bits, group_size))
    quantization.quantize_(model, bits, group_size)
    assert metrics.size_in_bytes(model) == wanted


def test_floats_and_places():
    model = torch.nn.Linear(8, 3, bias=False)
    assert forecasts.stored_bytes(model, METHODS["float32"]) == metrics.size_in_bytes(model)
    # Two of four 16-bit numbers, each with one of four places.
    assert METHODS["float16, 2:4"].matrix_bytes(3, 8) == 3 * 8 / 2 * (2 + 2 / 8)


def test_a_token_reads_one_row_of_each_table():
    model, _ = families.make("Llama")
    method = METHODS["float32"]
    table = model.model.embed_tokens.weight
    read = forecasts.token_bytes(model, method)
    assert metrics.size_in_bytes(model) - read == table.nbytes - table[0].nbytes
    answer = model(torch.arange(3, 8)[None], use_cache=True).past_key_values
    cached = sum(layer.keys.nbytes + layer.values.nbytes for layer in answer.layers)
    assert forecasts.token_bytes(model, method, context=5) - read == cached


def test_a_table_that_is_the_output_layer_too_is_read_whole():
    model, _ = families.make("Qwen2")
    assert forecasts.token_bytes(model, METHODS["float32"]) == metrics.size_in_bytes(model)


def test_twenty_billion_weights_without_their_memory():
    model = forecasts.gpt_neox_20b()
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == 20_554_567_680  # as its authors count them
    sizes = {name: forecasts.stored_bytes(model, method) for name, method in METHODS.items()}
    assert sizes["float16"] == metrics.size_in_bytes(model) >= 2 * count
    assert sizes["4 bits, groups of 128, 2:4"] < sizes["4 bits, groups of 128"] < 12e9
    assert metrics.training_bytes(model.float()).total >= 16 * count
