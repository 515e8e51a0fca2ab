"""SmolLM2-135M continues a prompt, greedily and with a cache of keys and values."""

import time
from itertools import islice

import numpy as np
import torch

from benchmarks import timing
from benchmarks.encoding import dynamic
from benchmarks.silence import silence
from lightcourse import assets, generation, kernels, models, quantization

PROMPT = (
    "Write a short letter to a friend who wants to learn how neural networks are made "
    "smaller, and say why it is worth the effort."
)
TOKENS = 64


def prompt() -> list[int]:
    """Return the token ids of the question, in the form that the model was tuned on."""
    messages = [{"role": "user", "content": PROMPT}]
    tokenizer = models.load_smollm2_tokenizer()
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def fp32(threads):
    """Run the model as it is."""
    return _torch(_load(), threads)


def bf16(threads):
    """Run the model in bfloat16."""
    return _torch(_load(torch.bfloat16), threads)


def dynamic_x86(threads):
    """Run torch's dynamic int8, a scale a channel."""
    return _torch(dynamic(_load(), "x86"), threads)


def ours_w8a8(threads):
    """Run our kernels, 8 bits."""
    return _ours(threads, bits=8)


def ours_w4a8(threads):
    """Run our kernels, 4 bits in groups of 32."""
    return _ours(threads, bits=4, group_size=32)


def _ours(threads, **how):
    model = _load()
    quantization.quantize_(model, activations=8, **how)
    # The output layer shares its matrix with the embeddings, and is skipped for that. Torch
    # and llama.cpp read it with 8 bits, and so do we, from a copy.
    model.lm_head = quantization.QuantizedLinear(model.lm_head.weight, bits=8, activations=8)
    return _torch(model, threads, kernels.set_threads)


def llama_cpp(threads):
    """Run llama.cpp on the very file from which the others' weights come."""
    from llama_cpp import Llama, llama_get_logits_ith

    (file,) = assets.path("smollm2").glob("*.gguf")
    counts = {"n_threads": threads, "n_threads_batch": threads}
    model = Llama(str(file), n_ctx=256, n_batch=256, verbose=False, **counts)

    def tokens(ids):
        model.reset()
        while True:
            model.eval(ids)
            logits = llama_get_logits_ith(model.ctx, -1)
            ids = [int(np.ctypeslib.as_array(logits, (model.n_vocab(),)).argmax())]
            yield ids[0]

    return lambda ids, count: timed(tokens(ids), count)


GENERATORS = {
    "lightcourse W8A8": ours_w8a8,
    "lightcourse W4A8": ours_w4a8,
    "torch fp32": fp32,
    "torch bf16": bf16,
    "torch dynamic, x86": dynamic_x86,
    "llama.cpp Q4_1": llama_cpp,
}


def prepare(state, generator, threads, ids):
    """Load a generator and let it write a few tokens: the first run warms up."""
    state["write"] = generator(threads)
    state["write"](ids, 4)
    timing.wait_until_quiet()


def run(state, ids):
    """Let it write; return what :func:`timed` does."""
    found = state["write"](ids, TOKENS)
    timing.wait_until_quiet()
    return found


def timed(tokens, count):
    """Return tokens, and the seconds of the first (the prompt) and of all after it.

    Parameters
    ----------
    tokens : iterator of int
        Computes a token when it is asked for it.
    count : int
    """
    begin = time.perf_counter()
    written = [next(tokens)]
    read = time.perf_counter()
    written += islice(tokens, count - 1)
    return written, read - begin, time.perf_counter() - read


def common_prefix(tokens, wanted) -> int:
    """Return how many tokens two texts share before they part."""
    same = 0
    for a, b in zip(tokens, wanted, strict=False):
        if a != b:
            break
        same += 1
    return same


def _load(dtype=torch.float32):
    with silence():
        return models.load_smollm2(dtype)


def _torch(model, threads, set_threads=lambda threads: None):
    def write(ids, count):
        torch.set_num_threads(threads)
        set_threads(threads)
        return timed(map(int, generation.stream(model, torch.tensor([ids]))), count)

    return write
