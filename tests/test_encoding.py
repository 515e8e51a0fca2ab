"""A jitted encoder answers as the model itself does, whatever the machine, texts and padding."""

import copy
import threading
from itertools import product

import pytest
import torch
import transformers
from numba import config as numba

from lightcourse import encoding, kernels, lora, models, quantization
from tests import toys
from tests.generation.test_jitted import SETTINGS, close, texts
from tests.kernels.every_path import each_path, use

pytestmark = pytest.mark.skipif(numba.DISABLE_JIT, reason="nothing is compiled")
WINDOW = 150


def bert(pooler=False, **changes):
    """Return a BERT of two layers, with heads of 20 numbers."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 160, "num_attention_heads": 8, "intermediate_size": 192}
    sizes |= {"num_hidden_layers": 2, "max_position_embeddings": WINDOW, "vocab_size": 50}
    config = transformers.BertConfig(**sizes | changes)
    return transformers.BertModel(config, add_pooling_layer=pooler).eval()


def quantized(model, bits=8, **how):
    quantization.quantize_(model, bits, activations=8, **how)
    return model.eval()


def masks(lengths, length, side="right"):
    """Return a mask of texts so long, padded on a side, or on both."""
    shift = {"right": 0, "left": 1, "both": 0.5}[side]
    starts = torch.tensor([int((length - own) * shift) for own in lengths])[:, None]
    places = torch.arange(length)
    return ((places >= starts) & (places < starts + torch.tensor(lengths)[:, None])).long()


@torch.no_grad()
def hidden(model, ids, mask, factor=1.0):
    """Return what the model answers, its embeddings times a factor; zeros for padding."""
    mask = torch.ones_like(ids) if mask is None else mask
    model = copy.deepcopy(model)
    model.embeddings.LayerNorm.weight *= factor
    model.embeddings.LayerNorm.bias *= factor
    return model(ids, attention_mask=mask).last_hidden_state * mask[..., None]


def assert_alike(found, model, ids, mask=None):
    """Raise where outputs are not those of transformers on the same integers.

    The bound is that of the jitted causal models: roundings of float32 decide which integer a
    number becomes that lies between two of them.
    """
    want, seen = hidden(model, ids, mask), slice(None) if mask is None else mask.bool()
    off = (found - want).abs().amax(dim=-1)[seen] / want.std()
    assert (off < 1e-4).float().mean() > 0.5
    assert_no_worse(found, model, ids, mask)


def assert_no_worse(found, model, ids, mask):
    """Raise where more is lost than by the model where its embeddings move by a millionth."""
    want, moved = hidden(model, ids, mask), hidden(model, ids, mask, 1 + 1e-6)
    floor = (moved - want).square().mean().sqrt() + 1e-2 * want.std()
    assert (found - want).square().mean().sqrt() < 2 * floor


@each_path
@pytest.mark.parametrize("threads", range(1, min(2, numba.NUMBA_NUM_THREADS) + 1))
def test_every_path_gives_the_same_numbers(path, threads):
    ids, mask = texts(3, 37), masks([37, 5, 20], 37)
    for how, act in product(SETTINGS, ("gelu", "gelu_new")):
        model = quantized(bert(hidden_act=act), **SETTINGS[how])
        with use(path, threads):
            found = encoding.jit(model)(ids, mask).last_hidden_state
        assert_alike(found, model, ids, mask)


@pytest.mark.parametrize("side", ["right", "left", "both"])
def test_padding_stands_anywhere_and_comes_back_as_zeros(side):
    model, ids = quantized(bert()), texts(9, 60)
    mask = masks([60, 1, 17, 16, 0, 33, 59, 15, 60], 60, side)
    found = encoding.jit(model)(ids, attention_mask=mask).last_hidden_state
    assert (found[mask == 0] == 0).all()
    there = mask.any(1)  # of a text that is all padding, transformers makes what it likes
    assert_alike(found[there], model, ids[there], mask[there])


@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 64, 129, WINDOW])
def test_every_length_up_to_the_window(length):
    model, ids = quantized(bert()), texts(2, length)
    assert_alike(encoding.jit(model)(ids).last_hidden_state, model, ids)


@pytest.mark.parametrize(("heads", "width"), [(1, 16), (5, 40), (2, 96), (4, 128)])
def test_heads_of_other_sizes(heads, width):
    model, ids = quantized(bert(hidden_size=width, num_attention_heads=heads)), texts(3, 50)
    assert_alike(encoding.jit(model)(ids).last_hidden_state, model, ids)


def test_neighbours_change_nothing():
    model, ids = quantized(bert()), texts(40, 30)
    lengths = [1 + (7 * i) % 30 for i in range(40)]
    encoder, mask = encoding.jit(model), masks(lengths, 30)
    together = encoder(ids, mask).last_hidden_state
    for i, length in enumerate(lengths):
        alone = encoder(ids[i : i + 1, :length]).last_hidden_state
        assert close(together[i, :length], alone[0])


def test_a_table_of_integers_is_looked_up_in():
    model, ids = bert(), texts(3, 20)
    quantization.quantize_(model, 8, activations=8, embeddings=8)
    assert_alike(encoding.jit(model)(ids).last_hidden_state, model, ids)


def test_kinds_of_tokens_are_read():
    model, ids = quantized(bert()), texts(2, 20)
    kinds, encoder = (torch.arange(20) > 9).long().expand(2, -1), encoding.jit(model)
    found = encoder(ids, token_type_ids=kinds).last_hidden_state
    with torch.no_grad():
        assert close(found, model(ids, token_type_ids=kinds).last_hidden_state)
    assert not close(found, encoder(ids).last_hidden_state)


def test_what_is_not_finite_stays_in_its_text():
    model, ids = quantized(bert()), texts(3, 20) % 49
    with torch.no_grad():
        model.embeddings.word_embeddings.weight[49] = torch.nan
    ids[1, 4], ids[2, 10] = 49, 49
    mask = masks([20, 12, 8], 20)
    encoder = encoding.jit(model)
    for _ in range(2):  # the second time, what lies behind texts is left from the first
        found = encoder(ids, mask).last_hidden_state
        assert found[0].isfinite().all() and found[1, :12].isnan().all()
        assert found[2].isfinite().all()  # its NaN is padding
    assert encoder(ids[:1]).last_hidden_state.isfinite().all()


def test_it_stands_in_for_the_model():
    classifier = quantized(toys.bert())
    batches = [{"input_ids": texts(4, 12), "attention_mask": masks([12, 3, 9, 12], 12)}]
    want = models.embed(classifier.encoder, batches)
    with torch.no_grad():
        logits = classifier(**batches[0]).logits
    classifier.encoder = encoding.jit(classifier.encoder)
    torch.testing.assert_close(models.embed(classifier.encoder, batches), want, rtol=0, atol=0.02)
    with torch.no_grad():
        torch.testing.assert_close(classifier(**batches[0]).logits, logits, rtol=0, atol=0.02)


def test_copies_and_callers_do_not_disturb_each_other():
    encoder, ids = encoding.jit(quantized(bert())), texts(4, 50)
    want, found = encoder(ids).last_hidden_state, [None] * 4
    callers = [encoder, encoder, encoder, copy.deepcopy(encoder)]

    def work(i):
        for _ in range(20):
            found[i] = callers[i](ids).last_hidden_state

    kernels.set_threads(min(2, numba.NUMBA_NUM_THREADS))
    try:
        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        kernels.set_threads(1)
    assert all(torch.equal(one, want) for one in found)


def test_no_texts_and_no_tokens():
    encoder = encoding.jit(quantized(bert()))
    for shape in ((0, 5), (2, 0), (0, 0)):
        found = encoder(torch.zeros(shape, dtype=torch.int64)).last_hidden_state
        assert found.shape == (*shape, 160)


def test_minilm_keeps_its_vectors():
    model, ids, mask = models.load_minilm(), texts(4, 40) + 2000, masks([40, 7, 23, 40], 40)
    inputs = [{"input_ids": ids, "attention_mask": mask}]
    exact, encoder = models.embed(model, inputs), encoding.jit(quantized(model))
    assert torch.cosine_similarity(models.embed(encoder, inputs), exact).min() > 0.98
    # After six layers of roundings few rows are equal.
    assert_no_worse(encoder(ids, mask).last_hidden_state, model, ids, mask)


IDS = texts(2, 6)
BAD = {
    "vocabulary": ((IDS + 10**6,), "input_ids holds .*; 0..49 is wanted"),
    "negative": ((IDS - 60,), "input_ids holds .*; 0..49 is wanted"),
    "floats": ((IDS.float(),), "input_ids is torch.float32"),
    "one text": ((IDS[0],), r"shape \(6,\); int64 of shape \(texts, length\)"),
    "long": ((texts(1, WINDOW + 1),), "input_ids are 151 long; 150 at most"),
    "mask's shape": ((IDS, torch.ones(2, 5)), r"attention_mask is \(2, 5\); \(2, 6\), as"),
    "gap": (
        (IDS, torch.tensor([[1] * 6, [1, 1, 0, 1, 1, 1]])),
        "attention_mask has a gap within text 1; padding before or behind",
    ),
    "each its own": ((IDS, torch.ones(2, 6, 6)), "attention_mask is"),
    "kinds": ((IDS, None, IDS * 0 + 2), "token_type_ids holds .*; 0..1 is wanted"),
    "kinds' shape": ((IDS, None, IDS[:1]), r"token_type_ids is \(1, 6\)"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_texts_are_refused(name):
    arguments, said = BAD[name]
    with pytest.raises(ValueError, match=said):
        encoding.jit(quantized(bert()))(*arguments)


def test_an_encoder_is_not_trained():
    encoder = encoding.jit(quantized(bert()))
    with pytest.raises(ValueError, match="the encoder is in training mode"):
        encoder.train()(IDS)


def changed(model, name, new):
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, new)
    return model


def hooked(model):
    model.encoder.layer[1].output.register_forward_pre_hook(lambda *_: None)
    return model


def adapted(model):
    lora.add_lora_(model, rank=2)
    return model.eval()


REFUSED = {
    "no BERT": (toys.mlp, "model is a Sequential; BertModel is wanted"),
    "a head": (lambda: quantized(toys.bert()), "model is a EncoderClassifier; BertModel"),
    "floats": (bert, "layer.0.attention.self.query is a Linear that multiplies floats"),
    "adapter": (
        lambda: adapted(quantized(bert())),
        "layer.0.attention.self.query is a LoRA.* that multiplies floats",
    ),
    "training": (lambda: quantized(bert()).train(), "model is in training mode"),
    "hook": (lambda: hooked(quantized(bert())), "layer.1.output has a hook"),
    "pooler": (lambda: quantized(bert(pooler=True)), "model has a pooler"),
    "decoder": (lambda: quantized(bert(is_decoder=True)), "is_decoder is True; False is wanted"),
    "activation": (
        lambda: quantized(bert(hidden_act="relu")),
        "hidden_act is 'relu'; 'gelu' is wanted",
    ),
    "another norm": (
        lambda: changed(
            quantized(bert()), "encoder.layer.0.output.LayerNorm", torch.nn.RMSNorm(160).eval()
        ),
        "layer.0.output.LayerNorm is a RMSNorm; LayerNorm is wanted",
    ),
    "another part": (
        lambda: changed(quantized(bert()), "encoder.layer.1.intermediate", torch.nn.Identity()),
        "layer.1.intermediate is a Identity; BertIntermediate is wanted",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_known_is_refused_by_name(name):
    build, said = REFUSED[name]
    with pytest.raises(ValueError, match=said):
        encoding.jit(build())
