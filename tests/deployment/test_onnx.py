"""Encoders and decoders as ONNX files: what ONNX Runtime answers, and what the files store."""

import copy

import numpy as np
import pytest
import torch
import transformers
from torch import nn

from lightcourse import deployment, generation, models, quantization
from lightcourse.deployment import onnx_packages
from tests import toys

pytest.importorskip("onnxscript")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

INT8 = {"activations": 8, "embeddings": 8}
INT4 = {"bits": 4, "group_size": 32, "activations": 8, "embeddings": 4}
# How to quantize, how far a cosine may lie from 1, the type of most of what is stored, and
# how large the file may be as a share of the floats'.
FORMS = {
    "float": (None, 1e-6, "float32", 1.001),
    "int8": (INT8, 1e-5, "int8", 0.27),
    "4 bits": (INT4, 2e-3, "uint8", 0.17),
}


def bert():
    """Return a BERT of one layer of width 128: most of its bytes are weights."""
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=500,
        hidden_size=128,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=512,
        max_position_embeddings=64,
    )
    return transformers.BertModel(config, add_pooling_layer=False).eval()


def made(how, model):
    if how is not None:
        quantization.quantize_(model, **how)
    return model


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    """Each form: the model, and its file."""
    folder = tmp_path_factory.mktemp("encoders")
    found = {}
    for name, (how, *_) in FORMS.items():
        model = made(how, bert())
        found[name] = model, deployment.export_encoder(model, folder / f"{name}.onnx")
    return found


def llama():
    """Return a Llama of two layers that share their keys and values among heads."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=300,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=True,
    )
    return transformers.LlamaForCausalLM(config).eval()


DECODERS = {"float": (llama, None), "int8": (llama, INT8), "gpt2": (toys.gpt2, None)}
# Inputs of 8 bits: a sum of floats in another order may move one to the next of 255 steps.
BOUNDS = {"float": 1e-5, "int8": 0.01, "gpt2": 1e-5}
every_decoder = pytest.mark.parametrize("name", DECODERS)


@pytest.fixture(scope="module")
def decoders(tmp_path_factory):
    """Each language model, and its file."""
    folder = tmp_path_factory.mktemp("decoders")
    found = {}
    for name, (new, how) in DECODERS.items():
        model = made(how, new())
        found[name] = model, deployment.export_decoder(model, folder / f"{name}.onnx")
    return found


def texts(count, length, vocabulary=500):
    generator = torch.Generator().manual_seed(count)
    ids = torch.randint(1, vocabulary, (count, length), generator=generator)
    lengths = torch.randint(1, length + 1, (count, 1), generator=generator)
    return {"input_ids": ids, "attention_mask": (torch.arange(length) < lengths).long()}


def asked(session, inputs):
    return torch.from_numpy(session.run(None, {k: t.numpy() for k, t in inputs.items()})[0])


def vectors(model, inputs):
    return nn.functional.normalize(models.embed(model, [inputs]))


# --- encoders -------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_an_encoder_gives_torchs_vectors_for_any_batch_and_length(encoders, form):
    (model, path), bound = encoders[form], FORMS[form][1]
    session = deployment.open_onnx(path)
    assert [entry.name for entry in session.get_inputs()] == ["input_ids", "attention_mask"]
    assert [entry.name for entry in session.get_outputs()] == ["sentence"]
    for shape in ((1, 1), (1, 9), (2, 17), (5, 64)):
        inputs = texts(*shape)
        got = asked(session, inputs)
        assert got.shape == (shape[0], 128)
        torch.testing.assert_close(got.norm(dim=1), torch.ones(shape[0]))
        assert (1 - (got * vectors(model, inputs)).sum(1)).max() <= bound


def test_sums_are_the_same_without_vnni(encoders, monkeypatch):
    path, inputs = encoders["int8"][1], texts(3, 20)
    usual = asked(deployment.open_onnx(path), inputs)
    monkeypatch.setattr(deployment.onnx_sessions, "FULL_SUMS", set())
    torch.testing.assert_close(asked(deployment.open_onnx(path), inputs), usual)


def test_padding_moves_a_vector_by_roundings_alone(encoders):
    session = deployment.open_onnx(encoders["float"][1])
    alone = texts(1, 9)
    alone["attention_mask"][:] = 1
    padded = {name: nn.functional.pad(held, (0, 20)) for name, held in alone.items()}
    torch.testing.assert_close(asked(session, padded), asked(session, alone), atol=1e-5, rtol=0)


def float_matrices(path):
    """Return how many matrices of floats a file stores that are as large as a layer's."""
    import onnx

    held = onnx.load(path).graph.initializer
    return sum(t.data_type == 1 and len(t.dims) > 1 and np.prod(t.dims) >= 128 * 128 for t in held)


@pytest.mark.parametrize("form", FORMS)
def test_a_file_stores_integers_where_the_model_does(encoders, form):
    _, path = encoders[form]
    _, _, kind, share = FORMS[form]
    assert next(iter(deployment.onnx_summary(path).stored)) == kind
    assert path.stat().st_size <= share * encoders["float"][1].stat().st_size + 60_000
    assert (float_matrices(path) == 0) == (form != "float")


def test_a_quantization_that_was_dropped_shows_in_the_file(encoders, tmp_path):
    model = copy.deepcopy(encoders["int8"][0])
    quantization.dequantize_(model)
    path = deployment.export_encoder(model, tmp_path / "dropped.onnx")
    assert float_matrices(path) == 7  # the table of words, and 6 in the layer
    assert next(iter(deployment.onnx_summary(path).stored)) == "float32"


def test_an_export_says_nothing_and_leaves_the_model_as_it_was(capfd, caplog, tmp_path):
    model = made(INT8, bert()).train()
    model.encoder.layer[0].eval()
    before = {name: held.clone() for name, held in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    deployment.export_encoder(model, tmp_path / "model.onnx")
    assert capfd.readouterr() == ("", "")
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], held) for name, held in before.items())
    assert modes == [module.training for module in model.modules()]
    assert model.config._attn_implementation == "sdpa"


def test_layers_with_outliers_are_exported(tmp_path):
    model, inputs = bert(), texts(3, 12)
    quantization.split_outliers_(model, [inputs])
    path = deployment.export_encoder(model, tmp_path / "model.onnx")
    got = asked(deployment.open_onnx(path), inputs)
    assert (1 - (got * vectors(model, inputs)).sum(1)).max() <= 1e-5


# --- decoders -------------------------------------------------------------------------------


@every_decoder
def test_a_decoder_reads_a_prompt_at_once_as_token_by_token(decoders, name):
    model, path = decoders[name]
    decoder, ids = deployment.OnnxDecoder(path), texts(3, 11, 50)["input_ids"]
    want = generation.begin(model).read(ids, keep=11)
    at_once = generation.begin(decoder).read(ids, keep=11)
    session = decoder.begin()
    each = torch.cat([session.read(ids[:, i : i + 1]) for i in range(11)], dim=1)
    assert session.length == 11
    for got in (at_once, each):
        assert got.dtype == torch.float32 and got.shape == want.shape
        assert (got - want).abs().max() <= BOUNDS[name]
        assert (got.argmax(-1) == want.argmax(-1)).float().mean() >= 0.95


@every_decoder
def test_a_decoder_writes_what_the_model_writes(decoders, name):
    model, path = decoders[name]
    decoder = deployment.OnnxDecoder(path)
    prompts, mask = generation.pad([[3, 1, 4, 1, 5], [9, 2], [6]])
    want = generation.generate(model, prompts, 12, mask=mask)
    assert torch.equal(generation.generate(decoder, prompts, 12, mask=mask), want)


def test_a_decoder_forgets_and_reads_on(decoders):
    decoder, ids = deployment.OnnxDecoder(decoders["float"][1]), texts(2, 9, 300)["input_ids"]
    session = decoder.begin()
    want = session.read(ids, keep=2)
    session.forget(2)
    assert session.length == 7
    torch.testing.assert_close(session.read(ids[:, 7:], keep=2), want, atol=1e-4, rtol=0)
    session.forget(9)
    torch.testing.assert_close(session.read(ids, keep=2), want, atol=1e-4, rtol=0)
    for wrong in (-1, 10):
        with pytest.raises(ValueError, match="0 to 9, the tokens held"):
            session.forget(wrong)


def test_a_decoder_speculates(decoders):
    target, draft = (deployment.OnnxDecoder(decoders[name][1]) for name in ("float", "int8"))
    prompts = torch.arange(5, 13)[None]
    found = generation.speculate(target, generation.ModelDraft(draft), prompts, 16)
    assert torch.equal(found.ids, generation.generate(target, prompts, 16))


def test_a_decoder_keeps_to_its_window_and_words(decoders):
    decoder = deployment.OnnxDecoder(decoders["float"][1])
    assert (decoder.window, decoder.vocabulary) == (64, 300)
    session, ids = decoder.begin(), torch.zeros(1, 65, dtype=torch.int64)
    with pytest.raises(ValueError, match="65 tokens long; 64 at most"):
        session.read(ids)
    for keep in (0, 4):
        with pytest.raises(ValueError, match=f"keep is {keep}; 1 to 3"):
            session.read(ids[:, :3], keep)
    with pytest.raises(ValueError, match="0..299"):
        generation.generate(decoder, ids[:, :3] + 300, 1)


def test_an_output_layer_tied_to_the_table_is_stored_once(decoders):
    assert deployment.onnx_summary(decoders["int8"][1]).stored["uint8"] < 1.1 * 300 * 64
    model, path = decoders["float"]
    floats = deployment.onnx_summary(path).stored["float32"]
    assert floats == pytest.approx(4 * sum(p.numel() for p in model.parameters()), rel=0.01)


# --- ONNX Runtime's own ---------------------------------------------------------------------


def test_onnx_runtimes_own_ways_give_smaller_files_that_say_nearly_the_same(
    encoders, tmp_path, monkeypatch
):
    model, source = encoders["float"]
    batches = [texts(n, 12) for n in (4, 5)]
    paths = {
        "int8": deployment.onnx_quantize_dynamic(source, tmp_path / "dynamic.onnx"),
        "int8, static": deployment.onnx_quantize_static(source, tmp_path / "s.onnx", batches),
        "4 bits": deployment.onnx_quantize_blocks(source, tmp_path / "blocks.onnx"),
    }
    for path in paths.values():
        monkeypatch.setattr(deployment.onnx_sessions, "FULL_SUMS", set())
        deployment.open_onnx(path)  # as on a processor without VNNI
        monkeypatch.undo()
        got = asked(deployment.open_onnx(path), batches[0])
        assert (got * vectors(model, batches[0])).sum(1).min() > 0.95
        assert path.stat().st_size < 0.5 * source.stat().st_size
    assert deployment.onnx_summary(paths["4 bits"]).operators["MatMulNBits"] == 6
    with pytest.raises(ValueError, match="batches is empty"):
        deployment.onnx_quantize_static(source, tmp_path / "none.onnx", [])
    assert not (tmp_path / "none.onnx").exists()


# --- refusals -------------------------------------------------------------------------------


def sliding():
    config = transformers.MistralConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        sliding_window=8,
    )
    return transformers.MistralForCausalLM(config).eval()


REFUSED = [
    (deployment.export_encoder, toys.llama, "LlamaForCausalLM, which returns no last_hidden"),
    (deployment.export_encoder, toys.bert, "EncoderClassifier; a model of transformers"),
    (deployment.export_encoder, lambda: "model.onnx", "model is a str"),
    (deployment.export_encoder, lambda: bert().half(), "torch.float16 on cpu; torch.float32"),
    (deployment.export_encoder, lambda: bert().to("meta"), "on the device meta"),
    (deployment.export_decoder, bert, "BertModel; a causal language model is wanted"),
    (deployment.export_decoder, toys.mlp, "Sequential; a model of transformers"),
    (deployment.export_decoder, sliding, "DynamicSlidingWindowLayer"),
]


@pytest.mark.parametrize("export, model, message", REFUSED)
def test_a_model_that_fits_no_file_is_refused_before_anything_is_written(
    export, model, message, tmp_path
):
    with pytest.raises(ValueError, match=message):
        export(model(), tmp_path / "new" / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_a_model_too_large_for_one_file_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(deployment.onnx_files, "MOST_BYTES", 1000)
    with pytest.raises(ValueError, match="one ONNX file holds 1,000 at most"):
        deployment.export_encoder(bert(), tmp_path / "model.onnx")


class Asks(nn.Module):
    """Does what no graph can: it decides by a number."""

    def forward(self, hidden):
        return hidden if hidden.sum() > 0 else -hidden


def test_what_torch_cannot_export_is_refused(tmp_path):
    model = bert()
    model.encoder.layer[0].intermediate.intermediate_act_fn = Asks()
    with pytest.raises(ValueError, match="BertModel, which torch cannot export to ONNX: "):
        deployment.export_encoder(model, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_paths_are_checked(tmp_path, encoders):
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(b"no ONNX at all")
    for reads in (deployment.onnx_summary, deployment.open_onnx, deployment.OnnxDecoder):
        with pytest.raises(ValueError, match="is not there; an ONNX file is wanted"):
            reads(tmp_path / "none.onnx")
        with pytest.raises(ValueError, match="damaged"):
            reads(damaged)
        with pytest.raises(ValueError, match="the folder"):
            reads(tmp_path)
    for export in (deployment.export_encoder, deployment.export_decoder):
        with pytest.raises(ValueError, match="the folder"):
            export(toys.llama(), tmp_path)
    with pytest.raises(ValueError, match="a file that export_decoder wrote"):
        deployment.OnnxDecoder(encoders["float"][1])
    for threads in (0, 1.5, None):
        with pytest.raises(ValueError, match=f"threads is {threads}"):
            deployment.open_onnx(encoders["float"][1], threads)


def test_a_missing_package_is_named_with_the_command_that_brings_it(monkeypatch, tmp_path):
    find = onnx_packages.find_spec
    monkeypatch.setattr(onnx_packages, "find_spec", lambda n: None if "onnx" in n else find(n))
    with pytest.raises(ModuleNotFoundError, match="pip install onnx onnxscript"):
        deployment.export_encoder(bert(), tmp_path / "model.onnx")
    with pytest.raises(ModuleNotFoundError, match="pip install onnxruntime"):
        deployment.open_onnx(tmp_path / "model.onnx")


def test_a_summary_is_words(encoders):
    text = str(deployment.onnx_summary(encoders["int8"][1]))
    assert "MB of int8" in text and "6 MatMulInteger" in text
