"""QuantizedEmbedding reads rows of integers, those of an output layer too."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightcourse import metrics, quantization

IDS = torch.tensor([[0, 16, 3], [15, 32, 31]])


@given(st.integers(1, 40), st.integers(1, 20), st.integers(2, 8), st.booleans(), st.booleans())
def test_rows_are_those_of_the_whole_table(entries, groups, bits, symmetric, grouped):
    weight = torch.linspace(-2, 3, entries * groups * 2).sin().view(entries, groups * 2)
    size = 2 if grouped else None
    table = quantization.QuantizedEmbedding(weight, bits, size, symmetric)
    ids = torch.arange(entries).flip(0)
    assert torch.equal(table(ids), table.dequantize()[ids])
    assert table(ids.view(1, entries, 1)).shape == (1, entries, 1, groups * 2)


def test_a_row_of_bytes_is_its_integers_times_its_scale():
    table = quantization.QuantizedEmbedding(torch.randn(33, 20))
    q, scale = table.integers().numpy(), table.scales()[:, 0].numpy()
    wanted = q[IDS.numpy()] * scale[IDS.numpy()][..., None]
    assert torch.equal(table(IDS), torch.from_numpy(wanted))


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("symmetric", [True, False])
def test_an_output_layer_and_its_table_read_the_same_integers(bits, symmetric):
    weight = torch.randn(33, 32)
    linear = quantization.QuantizedLinear(weight, None, bits, symmetric=symmetric)
    table = quantization.QuantizedEmbedding.sharing(linear, padding_idx=1)
    assert torch.equal(table(IDS), linear.dequantize()[IDS])
    assert table.padding_idx == 1
    both = torch.nn.ModuleList([table, linear])
    for module in (both, copy.deepcopy(both), both.to(torch.float16)):
        assert module[0].qweight.data_ptr() == module[1].qweight.data_ptr()
        assert metrics.size_in_bytes(module) == metrics.size_in_bytes(linear)
    assert both[0](IDS).dtype == torch.float16


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_rows_come_in_the_dtype_of_the_table(dtype):
    table = quantization.QuantizedEmbedding(torch.randn(33, 20, dtype=dtype))
    assert table(IDS).dtype == dtype
    assert table(IDS.int()).shape == (2, 3, 20)
    assert table(torch.empty(2, 0, dtype=torch.int64)).shape == (2, 0, 20)


@pytest.mark.parametrize("wrong", [-1, 33])
def test_ids_that_are_not_in_the_table_are_refused(wrong):
    table = quantization.QuantizedEmbedding(torch.randn(33, 20))
    with pytest.raises(ValueError, match="ids spans .*; 0 to 32 is wanted"):
        table(torch.tensor([5, wrong]))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((1,), "bits is 1;"),
        ((8, 7), "group_size is 7; a divisor of the 20 columns"),
    ],
)
def test_impossible_tables_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        quantization.QuantizedEmbedding(torch.randn(33, 20), *arguments)
