"""llama.cpp itself runs our files, and computes what our models compute.

It rounds inputs: to float16 where weights are float16, to 8 bits in groups of 32 where they are
integers. So its logits are ours by three or four digits in F16, and by two in all others, and
only in F16 are all tokens the same. Where they part, both are nearly as likely.
"""

import copy
from contextlib import contextmanager

import numpy as np
import pytest
import tokenizers
import torch

from lightcourse import data, deployment, models, pruning, quantization
from lightcourse.deployment import gguf
from tests.deployment.llamas import HOW, quantized

llama_cpp = pytest.importorskip(
    "llama_cpp", reason="llama.cpp is not installed: pip install llama-cpp-python"
)
PROMPT, TOKENS = 48, 32


@contextmanager
def running(path):
    """Run a file on one thread, and free its memory before Python ends."""
    threads = {"n_threads": 1, "n_threads_batch": 1}
    model = llama_cpp.Llama(str(path), n_ctx=256, verbose=False, logits_all=True, **threads)
    try:
        yield model
    finally:
        model.close()


def their_logits(model, ids):
    model.reset()
    model.eval(ids)
    return torch.from_numpy(model.scores[: len(ids)].copy())


def their_tokens(model, ids):
    """Return what llama.cpp writes next, the likeliest token each time."""
    model.reset()
    model.eval(ids)
    written = []
    for _ in range(TOKENS):
        written.append(int(np.argmax(model.scores[model.n_tokens - 1])))
        model.eval(written[-1:])
    return written


@torch.no_grad()
def our_logits(model, ids):
    return model(torch.tensor([ids])).logits[0].float()


def apart(theirs, ours):
    """Return the relative distance of logits."""
    return float((theirs - ours).norm() / ours.norm())


def leads(model, ids, written):
    """Return by how much our model's best logit exceeds that of the token they wrote."""
    logits = our_logits(model, ids + written)[len(ids) - 1 : -1]
    return logits.max(1).values - logits.gather(1, torch.tensor(written)[:, None])[:, 0]


def speeches():
    return list(data.load_speeches("test")["text"])


def begun(tokenizer, number):
    return tokenizer(speeches()[number][:2000])["input_ids"][:PROMPT]


@pytest.fixture(scope="module")
def tokenizer():
    return models.load_tiny_tokenizer()


@pytest.mark.parametrize("size", ["student", "teacher"])
def test_f16_writes_our_very_tokens(size, tokenizer, tmp_path):
    model = models.load_tiny_lm(size)
    path = deployment.save_gguf(model, tokenizer, tmp_path / "model.gguf")
    with running(path) as theirs:
        for number in (0, 5, 10):
            ids = begun(tokenizer, number)
            assert apart(their_logits(theirs, ids), our_logits(model, ids)) < 1e-3
            assert not leads(model, ids, their_tokens(theirs, ids)).any()


@pytest.mark.parametrize("kind", HOW)
@pytest.mark.parametrize("size", ["student", "teacher"])
def test_our_integers_give_our_logits_but_for_the_rounding_of_inputs(
    size, kind, tokenizer, tmp_path
):
    model = quantized(kind, models.load_tiny_lm(size), embeddings=8)
    path = deployment.save_gguf(model, tokenizer, tmp_path / "model.gguf", kind)
    with running(path) as theirs:
        for number in (0, 5):
            ids = begun(tokenizer, number)
            assert apart(their_logits(theirs, ids), our_logits(model, ids)) < 0.02
            behind = leads(model, ids, their_tokens(theirs, ids))
            assert (behind == 0).float().mean() > 0.9 and behind.max() < 0.4


def test_a_table_of_4_bits_runs_too(tokenizer, tmp_path):
    model, ids = quantized("Q4_0", embeddings=4), begun(tokenizer, 0)
    path = deployment.save_gguf(model, tokenizer, tmp_path / "model.gguf", "Q4_0")
    assert deployment.gguf_summary(path)["tensors"][0][2] == "Q4_0"
    with running(path) as theirs:
        assert apart(their_logits(theirs, ids), our_logits(model, ids)) < 0.02


def test_rows_in_another_order_would_be_seen(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(gguf, "_in_pairs", lambda name, array, config: array)
    model, ids = models.load_tiny_lm("student"), begun(tokenizer, 0)
    path = deployment.save_gguf(model, tokenizer, tmp_path / "model.gguf")
    with running(path) as theirs:
        assert apart(their_logits(theirs, ids), our_logits(model, ids)) > 0.1


def narrowed():
    model = models.load_tiny_lm("student")
    heads, neurons = torch.ones(4, dtype=torch.bool), torch.ones(384, dtype=torch.bool)
    heads[1:3], neurons[100:132] = False, False
    names = [f"model.layers.{n}" for n in range(4)]
    pruning.remove_heads_(model, {f"{name}.self_attn": heads for name in names})
    pruning.remove_neurons_(model, {f"{name}.mlp": neurons for name in names})
    return model


def rotated():
    model = models.load_tiny_lm("student")
    quantization.rotate_(model)
    return model


@pytest.mark.parametrize("make", [narrowed, rotated])
def test_pruned_and_untied_models_run_too(make, tokenizer, tmp_path):
    model, ids = make(), begun(tokenizer, 0)
    path = deployment.save_gguf(model, tokenizer, tmp_path / "model.gguf")
    with running(path) as theirs:
        assert apart(their_logits(theirs, ids), our_logits(model, ids)) < 2e-3


def check_tokens(theirs, tokenizer, texts):
    for text in texts:
        got = theirs.tokenize(text.encode(), add_bos=False, special=True)
        assert got == tokenizer(text, verbose=False)["input_ids"]


ODD = ["", " ", "\n\n  a", "it's 1865,\t2021", "naïve — “ça”", "a<|endoftext|>b", "🙂 ½ 三"]


def test_llama_cpp_cuts_speeches_as_our_tokenizer(tokenizer, tmp_path):
    path = tmp_path / "model.gguf"
    deployment.save_gguf(models.load_tiny_lm("student"), tokenizer, path)
    with running(path) as theirs:
        check_tokens(theirs, tokenizer, speeches() + ODD)


def with_digits(tokenizer):
    """Let it cut digits off one by one, as SmolLM2's own tokenizer does; ours has lost that."""
    cuts = tokenizers.pre_tokenizers
    steps = [cuts.Digits(individual_digits=True), tokenizer.backend_tokenizer.pre_tokenizer]
    own = copy.deepcopy(tokenizer)
    own.backend_tokenizer.pre_tokenizer = cuts.Sequence(steps)
    return own


def test_smollm2_runs_with_its_tokens_its_template_and_our_integers(tmp_path):
    tokenizer, model = models.load_smollm2_tokenizer(), models.load_smollm2()
    ids, path = begun(tokenizer, 5), tmp_path / "model.gguf"
    deployment.save_gguf(model, tokenizer, path)
    with running(path) as theirs:
        check_tokens(theirs, tokenizer, speeches()[:8] + ODD[:-1])
        check_tokens(theirs, with_digits(tokenizer), [*ODD, "in  1865", "1  ½ x²"])
        assert theirs.metadata["tokenizer.chat_template"] == tokenizer.chat_template
        assert apart(their_logits(theirs, ids), our_logits(model, ids)) < 3e-3
        assert not leads(model, ids, their_tokens(theirs, ids)).any()
    # A grid that is not searched for: in seconds, not in half a minute.
    quantized("Q4_1", model, embeddings=8, choose_qparams=quantization.choose_qparams_affine)
    deployment.save_gguf(model, tokenizer, path, "Q4_1")
    with running(path) as theirs:
        assert apart(their_logits(theirs, ids), our_logits(model, ids)) < 0.08
        behind = leads(model, ids, their_tokens(theirs, ids))
        assert (behind == 0).float().mean() > 0.9 and behind.max() < 0.6
