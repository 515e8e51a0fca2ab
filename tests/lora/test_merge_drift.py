"""What a merge into integers loses, and what is not lost where the adapter stays beside."""

import pytest
import torch

from lightcourse import lora, quantization
from tests import toys
from tests.lora.adapted import shaken


def adapted(size, bits=4):
    """Return a quantized toy with a LoRA whose changes have this size."""
    model = toys.mlp()
    quantization.quantize_(model, bits)
    lora.add_lora_(model, rank=2)
    shaken(model)
    for shell in lora.shell.updates(model).values():
        shell.lora_b.data *= size
    return model


def rounded(bits):
    """Return a function that rounds a matrix to a grid of its own."""
    return lambda w: quantization.read_back(*quantization.round_to_nearest(w, bits))


def test_small_changes_drown_in_the_grid_and_large_ones_do_not():
    small, large = (lora.merge_drift(adapted(size), rounded(4)) for size in (0.01, 10.0))
    assert small.keys() == large.keys() == {"0", "2"}
    assert all(small[name] > 0.9 > 0.5 > large[name] > 0 for name in small)
    finer = lora.merge_drift(adapted(10.0), rounded(8))
    assert all(finer[name] < large[name] / 4 for name in large)


def test_floats_lose_nothing_and_an_update_of_zero_is_left_out():
    model = adapted(1.0)
    before = model(torch.ones(1, 8))
    assert set(lora.merge_drift(model, lambda w: w).values()) == {0.0}
    assert torch.equal(before, model(torch.ones(1, 8)))
    fresh = toys.mlp()
    lora.add_lora_(fresh, rank=2)
    assert lora.merge_drift(fresh, rounded(4)) == {}


def test_all_kinds_have_a_drift_and_the_model_must_have_an_adapter():
    for add in (lambda m: lora.add_dora_(m, 2), lambda m: lora.add_ia3_(m, ["0"], ["2"])):
        model = toys.mlp()
        add(model)
        for shell in lora.shell.updates(model).values():
            for parameter in lora.shell.own_parameters(shell).values():
                parameter.data += 0.3
        assert set(lora.merge_drift(model, rounded(4))) == {"0", "2"}
    with pytest.raises(ValueError, match="model has no adapter"):
        lora.merge_drift(toys.mlp(), rounded(4))
