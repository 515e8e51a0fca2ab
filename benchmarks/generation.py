"""SmolLM2-135M reads prompts and continues one, greedily and with a cache of keys and values."""

import math
import time

import numpy as np
import torch

from benchmarks import timing
from benchmarks.encoding import dynamic
from benchmarks.silence import silence
from lightcourse import (
    assets,
    data,
    deployment,
    folders,
    generation,
    kernels,
    models,
    quantization,
)

PROMPT = (
    "Write a short letter to a friend who wants to learn how neural networks are made "
    "smaller, and say why it is worth the effort."
)
TOKENS = 64
PROMPTS = 64, 512  # tokens of a speech that are read at once
JUDGED = 256  # tokens of it that perplexity is measured on, read one by one


def prompt() -> list[int]:
    """Return the token ids of the question, in the form that the model was tuned on."""
    messages = [{"role": "user", "content": PROMPT}]
    tokenizer = models.load_smollm2_tokenizer()
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def speech() -> list[int]:
    """Return the token ids of a speech's beginning."""
    text = next(text for text in data.load_speeches("test")["text"] if len(text) > 4000)
    ids = models.load_smollm2_tokenizer()(text, add_special_tokens=False, verbose=False)[
        "input_ids"
    ]
    return ids[: max(PROMPTS)]


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
    """Run our kernels, 8 bits, the whole step in one call."""
    return _ours(threads, bits=8)


def ours_w8a8_grouped(threads):
    """Run our kernels, 8 bits in groups of 32, as ggml's Q8_0."""
    return _ours(threads, bits=8, group_size=32)


def ours_w4a8(threads):
    """Run our kernels, 4 bits in groups of 32 with zero points, as the file has them."""
    return _ours(threads, bits=4, group_size=32, symmetric=False)


def _ours(threads, **how):
    model = _load()
    # The output layer is the table of words: llama.cpp reads it with 8 bits, and so do we.
    quantization.quantize_(model, activations=8, embeddings=8, **how)
    fast = generation.jit(model)
    # Torch looks words up and finds the likeliest: its threads would spin where ours compute.
    return _sessions(fast, 1, lambda _: kernels.set_threads(threads))


def onnx_fp32(threads):
    """Export to ONNX, the cache an input and an output, and run it."""
    return _onnx(_onnx_floats(), threads)


def onnx_int8(threads):
    """Let ONNX Runtime quantize its file dynamically, a scale a channel."""
    return _onnx(
        _made("int8", lambda path: deployment.onnx_quantize_dynamic(_onnx_floats(), path)), threads
    )


def _onnx(path, threads):
    return _sessions(deployment.OnnxDecoder(path, threads), 1, lambda _: None)


def _onnx_floats():
    return _made("fp32", lambda path: deployment.export_decoder(_load(), path))


def _made(kind, make):
    """Return a file, made where there is none yet: to export takes minutes."""
    path = folders.cache_dir() / f"benchmarks-smollm2-{kind}-torch-{torch.__version__}.onnx"
    if not path.exists():
        with silence():
            make(path)
    return path


def llama_cpp(threads):
    """Run llama.cpp on the very file from which the others' weights come."""
    from llama_cpp import Llama

    (file,) = assets.path("smollm2").glob("*.gguf")
    counts = {"n_threads": threads, "n_threads_batch": threads}
    model = Llama(str(file), n_ctx=1024, n_batch=512, verbose=False, **counts)
    return lambda: LlamaSession(model)


class LlamaSession:
    """llama.cpp's model as a session of ours."""

    def __init__(self, model):
        self.model = model
        model.reset()

    def read(self, new, keep=1):
        """Read new tokens of one text; return the logits of the last one."""
        from llama_cpp import llama_get_logits_ith

        self.model.eval(new[0].tolist())
        logits = llama_get_logits_ith(self.model.ctx, -1)
        logits = np.ctypeslib.as_array(logits, (self.model.n_vocab(),))
        return torch.from_numpy(logits.copy())[None, None]


GENERATORS = {
    "lightcourse W8A8": ours_w8a8,
    "lightcourse W8A8, groups of 32": ours_w8a8_grouped,
    "lightcourse W4A8": ours_w4a8,
    "torch fp32": fp32,
    "torch bf16": bf16,
    "torch dynamic, x86": dynamic_x86,
    "ONNX Runtime fp32": onnx_fp32,
    "ONNX Runtime dynamic": onnx_int8,
    "llama.cpp Q4_1": llama_cpp,
}


def prepare(state, generator, threads):
    """Load a generator and let it write a few tokens: the first run warms up."""
    state["begin"] = generator(threads)
    list(_written(state["begin"](), prompt(), 4))
    timing.wait_until_quiet()


def judge(state) -> float:
    """Return the perplexity of a speech's beginning, one token after the other."""
    ids = torch.tensor([speech()[:JUDGED]])
    return math.exp(generation.surprise(state["begin"](), ids))


def run(state) -> dict:
    """Return the seconds of prompts, by their lengths, and of a token, and what was written."""
    ids, found = speech(), {}
    for length in PROMPTS:
        session = state["begin"]()
        found[f"prompt {length}"] = timing.timed(lambda s=session, n=length: _read(s, ids[:n]))
        timing.wait_until_quiet()
    steps = _written(state["begin"](), prompt(), TOKENS)
    next(steps)  # the prompt
    start = time.perf_counter()
    found["tokens"] = list(steps)
    found["token"] = (time.perf_counter() - start) / len(found["tokens"])
    timing.wait_until_quiet()
    return found


def _read(session, ids):
    return session.read(torch.tensor([ids]))[0, -1]


def _written(session, ids, count):
    """Yield so many tokens behind a prompt, each when it is asked for."""
    for _ in range(count):
        ids = [int(_read(session, ids).argmax())]
        yield ids[0]


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


def _torch(model, threads):
    return _sessions(model, threads, lambda threads: None)


def _sessions(model, threads, set_threads):
    def begin():
        torch.set_num_threads(threads)
        set_threads(threads)
        return generation.begin(model)

    return begin
