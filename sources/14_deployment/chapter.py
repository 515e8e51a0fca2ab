# %% [markdown]
# # 14 · Deployment — one model, four targets
#
# **You will be able to**
#
# - say from a data sheet whether a model fits a device, and how fast it can be at most;
# - open a model's file with a few lines, and tell what it holds and what it does not;
# - bring one model to ONNX Runtime, to llama.cpp and into a web page, and keep it small on the way;
# - notice a file that was damaged, changed, or never quantized.
#
# **You need:** chapters 01, 04 and 13. **Time:** 60 minutes of reading, 24 for the parts marked ★ (the fast path). The whole notebook runs in about a minute.
#
# %%
import copy
import hashlib
import json
import math
import pickle
import struct
import tempfile
import time
import zlib
from pathlib import Path

# %%
import torch
from safetensors import safe_open
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

import lightcourse
from lightcourse import data, deployment, generation, metrics, models, plots, quantization, training
from lightcourse.generation import begin
from lightcourse.guessing import compare
from lightcourse.kernels import limits

# %% [markdown]
# The model is the larger of our tiny language models: as it was trained, in floats, and in 8 bits (chapter 04). Below each **Predict**, write your guess into the next cell, in place of the dots.

# %%
lightcourse.setup(threads=1)  # faster for so small a model
temporary = tempfile.TemporaryDirectory()  # gone when the notebook ends
folder = Path(temporary.name)
tokenizer, teacher = models.load_tiny_tokenizer(), models.load_tiny_lm("teacher")
small = copy.deepcopy(teacher)
report = quantization.quantize_(small, 8, activations=8, embeddings=8)

# %% [markdown]
# ## ★ 1 · Will it fit, and how fast can it be?
#
# ### Three numbers of a device
#
# So far everything ran here. Before anybody brings a model elsewhere, three numbers of a data sheet say much: how many bytes the **memory** holds, how many of them a second the processor can read (the **bandwidth**), and how many **operations** it does a second. `DEVICES` has them for four kinds of devices, each with its source:

# %%
for device in deployment.DEVICES:
    memory, reads = f"{device.memory / 1e9:.3f} GB", f"reads {device.bandwidth / 1e9:5.1f} GB/s"
    operations = f"{device.operations / 1e9:,.0f} billion operations a second on bytes"
    print(f"{device.name:26} {memory:>8}, {reads}, {operations}")
print("from:", deployment.DEVICES[1].source)

# %% [markdown]
# **Fit** means: weights and cache (chapter 13) take no more than a part of the memory. The system and other programs want the rest; we allow the model half.
#
# **Speed** has two limits (chapter 05's roof). All weights are read once for a call, and each takes a multiplication and an addition for each token. Memory and arithmetic work at the same time, so the slower one counts:
#
# $$\text{seconds} \ge \max\left( \frac{\text{bytes read}}{\text{bandwidth}},\; \frac{2 \cdot \text{weights} \cdot \text{tokens}}{\text{operations a second}} \right)$$
#
# It is a bound: no program gets below it, and none has to reach it.
#
# **Predict:** a model of 7.2 billion weights, with 4 bits for each and a scale of 16 bits for every 32 of them, writes on the laptop, which reads 100 GB a second. How many tokens a second at most?

# %%
guess = ...  # tokens/s
sizes = {
    "our tiny model, 8 bits": (4.5e6, 4.3e6),
    "SmolLM2-135M, 8 bits": (136e6, 134.5e6),
    "a model of 7.2 billion, 4 bits": (7.2e9 * 4.5 / 8, 7.2e9),
}
for name, (held, weights) in sizes.items():
    print(f"{name}, {held / 1e6:,.1f} MB")
    for device in deployment.DEVICES:
        most = 1 / deployment.seconds_a_call(device, held, 2 * weights)
        told = f"{most:,.1f} tokens/s at most" if deployment.fits(device, held) else "does not fit"
        print(f"    {device.name:26} {told}")
compare(guess, most, "tokens/s", how="computed")

# %% [markdown]
# Even our tiny model is too large for a microcontroller, and the model of 7.2 billion is just too large for half of 8 GB. On one more token all devices wait for their memory: there the bytes decide, and a quantized model is faster *because* it is smaller. Is it so with a prompt?
#
# **Predict:** SmolLM2 reads a prompt of 200 tokens on the Raspberry Pi. What does it wait for, memory or arithmetic?

# %%
guess = ...  # "memory" or "arithmetic"
board, phone = deployment.DEVICES[1:3]
reading = 136e6 / board.bandwidth
multiplying = 2 * 134.5e6 * 200 / board.operations
print(f"at least {1e3 * reading:.0f} ms to read, {1e3 * multiplying:.0f} ms to multiply")
compare(guess, "memory" if reading > multiplying else "arithmetic", how="computed")

# %% [markdown]
# A **battery** is a limit, too. It holds energy, in watt-hours; a call takes power (watts) for some time. How many watts a phone takes at full work depends on the phone; 4 W is our assumption, and heat allows little more for long.

# %%
token = deployment.seconds_a_call(phone, 136e6, 2 * 134.5e6)
hours = phone.battery / 4
print(f"{hours:.1f} hours, in which {deployment.calls_a_charge(phone, token, 4):,.0f} tokens fit")

# %% [markdown]
# ### Is it so on this machine?
#
# A prediction must be tried. The library measures both limits of *your* processor, on one thread. Then SmolLM2 in 8 bits, in one compiled call (chapter 13), reads one token behind 64 others, and a prompt of 128 tokens.

# %%
memory, operations = limits.stream_read(), limits.int8_peak()
here = deployment.Device("this machine", 8e9, memory, operations, "measured by lightcourse")
smollm2 = models.load_smollm2()
quantization.quantize_(smollm2, 8, activations=8, embeddings=8)
fast, held = generation.jit(smollm2), metrics.size_in_bytes(smollm2)
one = begin(fast)
one.read(torch.arange(64)[None])
calls = {
    1: lambda: (one.read(torch.tensor([[64]])), one.forget(1)),
    128: lambda: begin(fast).read(torch.arange(128)[None]),
}

# %% [markdown]
# **Predict:** how many times the least time does one more token take? And the prompt: is it nearer to its bound, or farther from it?

# %% clock=true
guess = ...  # times the least time, for one token
times = {count: clock.median for count, clock in metrics.latencies(calls, repeats=5).items()}
ratios = {}
for count, seconds in times.items():
    least = deployment.seconds_a_call(here, held, 2 * 134.5e6 * count)
    ratios[count] = seconds / least
    print(f"{count:3} tokens: {1e3 * seconds:.1f} ms; at least {1e3 * least:.1f} ms")
compare(guess, ratios[1], "times the least")
assert ratios[1] > 0.4 and ratios[128] > 0.8

# %% [markdown]
# One token is close to the bound. (Below it, where a large processor cache keeps weights from one call to the next: the bound counts the memory.) The prompt is farther away: besides products there are attention, norms, and inputs to be rounded, and no real product runs at the peak. A factor of two or three between such a bound and a good program is usual. Whoever promises you *more* than the bound has counted something else.
#
# ## 2 · What a file holds
#
# ### A header and bytes
#
# What travels is a file. Chapter 04 saved its integers as **safetensors**. Three lines read what such a file says of itself: its first 8 bytes are a number, that many bytes of JSON follow, and then come the tensors, one after the other.

# %%
saved = quantization.save_quantized(small, folder / "small.safetensors")
with open(saved, "rb") as file:
    (length,) = struct.unpack("<Q", file.read(8))
    header = json.loads(file.read(length))

# %%
name = "model.layers.0.mlp.up_proj.scale"
kinds = [entry["dtype"] for key, entry in header.items() if key != "__metadata__"]
print("the header has", length, "bytes; tensors:", {k: kinds.count(k) for k in sorted(set(kinds))})
print(name, header[name])
begins, ends = header[name]["data_offsets"]
assert ends - begins == 4 * math.prod(header[name]["shape"])  # F32: four bytes each

# %% [markdown]
# The header gives each tensor's type, shape and place. It holds no code and no graph: *which* model these tensors belong to, what is multiplied with what, and what text the tokens stand for must be known from elsewhere (`config.json`, a tokenizer's file, a program).
#
# ### Opening is not reading
#
# Since each tensor's place is known, a program need not read the whole file. It asks the system to **map** it: the file then looks like memory, and a part is fetched when it is first touched.
#
# **Predict:** the file of MiniLM has 91 MB. One tensor of it, 1.5 kB, is read, and then all. How many times as long does all take?

# %% clock=true
guess = ...  # times
path = lightcourse.assets.path("minilm") / "model.safetensors"


def touch(*names):
    """Map the file, and add up the tensors that are named (all, if none is)."""
    with safe_open(path, framework="pt") as file:
        return sum(file.get_tensor(name).sum() for name in names or file.keys())


calls = {"one": lambda: touch("embeddings.LayerNorm.bias"), "all": touch}
some, whole = (clock.median for clock in metrics.latencies(calls, repeats=5).values())
print(f"one {1e3 * some:.1f} ms, all {1e3 * whole:.1f} ms")
compare(guess, whole / some, "times")
assert whole > 5 * some

# %% [markdown]
# So a program that maps its model starts at once, and two programs that map the same file share its memory. (Here the file was in the system's cache already. From a disk all takes longer, in proportion to its bytes.)
#
# ### A file that does something
#
# Older checkpoints (`.bin`, `.pt`, `.pth`) are **pickles**. A pickle is no description of data but a small program that builds objects, and it may call any function:


# %%
class Harmless:
    """What stands in a file called model.bin."""

    def __reduce__(self):
        return print, ("this line was printed by a file that was only opened",)


# %%
torch.save({"weight": torch.zeros(2), "note": Harmless()}, folder / "model.bin")
opened = torch.load(folder / "model.bin", weights_only=False)
try:
    torch.load(folder / "model.bin")
except pickle.UnpicklingError as error:
    print("refused by default:", str(error).splitlines()[0])

# %% [markdown]
# It printed. It could have sent your keys away. PyTorch refuses by default since version 2.6, and `weights_only=False` in somebody's instructions switches the protection off. Weights have no need of it: safetensors, GGUF and ONNX hold no Python.
#
# | format | weights | their types | how they are computed | words (tokenizer) | can run code on opening |
# |---|---|---|---|---|---|
# | safetensors | yes | floats, whole bytes | no | no | no |
# | GGUF | yes | floats and blocks of 2 to 8 bits | its family's name; the program knows the rest | yes | no |
# | ONNX | yes | floats, integers, 4 bits | yes, as a graph of operators | no | no |
# | pickle | yes | any | Python classes, by name | sometimes | **yes** |
#
# ## ★ 3 · ONNX: the computation in the file
#
# ### Export
#
# An **ONNX** file holds a graph of operators with fixed meanings, and the weights as its constants. Any program that knows the operators can run it, on a phone or in a browser, without Python. **ONNX Runtime** is the most used one. `export_decoder` follows one call of a language model and writes down what is computed. The cache goes in and comes out as an input and an output, so one graph serves for the prompt and for each token.
#
# Often one reads that "converting to ONNX makes a model small and fast".
#
# **Predict:** our tiny model has 4.3 million weights in 32 bits, 17.2 MB. How many MB has its ONNX file?

# %%
guess = ...  # MB
exact = deployment.export_decoder(teacher, folder / "exact.onnx")
compare(guess, exact.stat().st_size / 1e6, "MB")
contents = deployment.onnx_summary(exact)
print({kind: size for kind, size in contents.stored.items() if size > 1000})
print(dict(list(contents.operators.items())[:6]), "and", len(contents.operators) - 6, "more kinds")

# %% [markdown]
# **ONNX exchanges, it does not compress.** The floats are the same floats; the graph itself takes 50 kB. What makes the file small is what made the model small: fewer bits. There are two ways, and both end in operators on integers:
#
# - quantize the *file*: ONNX Runtime's own `quantize_dynamic` replaces products of floats by products of bytes (scales of inputs are found at each call, hence its name), and there is a variant with 4 bits in groups;
# - quantize the *model*, as in chapter 04, and export that: our layers write their integers.
#
# **Predict:** which of the two files of 8 bits is smaller, ONNX Runtime's or ours, and why could they differ at all?

# %%
guess = ...  # "their" or "our"
files = {
    "ONNX, our 8 bits": deployment.export_decoder(small, folder / "ours.onnx"),
    "ONNX, their 8 bits": deployment.onnx_quantize_dynamic(exact, folder / "dynamic.onnx"),
    "ONNX, their 4 bits": deployment.onnx_quantize_blocks(exact, folder / "blocks.onnx"),
}
for name, path in files.items():
    found = deployment.onnx_summary(path).stored
    told = ", ".join(f"{size / 1e6:.2f} of {kind}" for kind, size in found.items() if size > 1e4)
    print(f"{name:18} {path.stat().st_size / 1e6:.2f} MB: {told}")
compare(guess, min(("their", "our"), key=lambda who: files[f"ONNX, {who} 8 bits"].stat().st_size))

# %% [markdown]
# This model's output layer *is* its table of words, stored once (chapter 01). ONNX Runtime's quantizer stores it twice, as a table in `uint8` and as a matrix in `int8`. And its 4 bits leave the table in floats: the file of 4 bits is no smaller than one of 8. **Look into the file, not at the setting.**
#
# ### Does it say the same?
#
# First the answers, then the clock. Three texts of 160 tokens, and two questions: at how many places is the likeliest next token the float model's, and what is the perplexity, divided by the float model's? `OnnxDecoder` takes a model's place in `begin`.

# %%
texts = [text[None, :161] for text in data.excerpts(data.speech_tokens(tokenizer, "test"), 3)]
following = torch.cat([text[:, 1:] for text in texts])


def judge(model):
    """Return the share of places with the same likeliest token, and the perplexity's ratio."""
    logits = torch.cat([begin(model).read(text[:, :-1], keep=160) for text in texts])
    same = (logits.argmax(dim=-1) == exact_logits.argmax(dim=-1)).float().mean().item()
    losses = [
        cross_entropy(one.flatten(0, 1), following.flatten()) for one in (logits, exact_logits)
    ]
    return same, (losses[0] - losses[1]).exp().item()


# %% atol=0.01
exact_logits = torch.cat([begin(teacher).read(text[:, :-1], keep=160) for text in texts])
decoders = {
    name: deployment.OnnxDecoder(path) for name, path in ({"ONNX, floats": exact} | files).items()
}
runs = {"floats, in PyTorch": teacher, "ours, in one call": generation.jit(small)} | decoders
judged = {name: judge(model) for name, model in runs.items()}
for name, (same, ratio) in judged.items():
    print(f"{name:20} same token {same:.1%}, perplexity {ratio:.3f}")
assert judged["ONNX, floats"][0] == 1 and judged["ONNX, our 8 bits"][0] > 0.96

# %% [markdown]
# The float file agrees everywhere: the export is right. With 8 bits a few tokens in a hundred differ, in places where two tokens are nearly as likely, and the perplexity says that nothing is lost. 4 bits cost some percent. And the integers that *we* export answer as the same integers do in our own kernels.
#
# ### Start and speed
#
# **Predict:** ONNX Runtime's float file against PyTorch's floats, one token after the other: as fast, or faster? And which of all is fastest?

# %% clock=true
guess = ...  # how many times as fast ONNX Runtime is with floats
starts, calls = {}, {}
for name, path in ({"ONNX, floats": exact} | files).items():
    begun = time.perf_counter()
    deployment.OnnxDecoder(path)
    starts[name] = f"opened in {1e3 * (time.perf_counter() - begun):.0f} ms, "
for name, model in runs.items():
    session = begin(model)
    session.read(texts[0][:, :64])
    calls[name] = lambda s=session: (s.read(texts[0][:, 64:65]), s.forget(1))
clocks = metrics.latencies(calls, repeats=20)
for name, clock in clocks.items():
    print(f"{name:20} {starts.get(name, '')}{1e3 * clock.median:.2f} ms a token")

# %% clock=true
gain = clocks["floats, in PyTorch"].median / clocks["ONNX, floats"].median
compare(guess, gain, "times")
assert gain > 1 and clocks["ours, in one call"].median < clocks["floats, in PyTorch"].median

# %% [markdown]
# With the same floats ONNX Runtime is faster here: a graph has no Python between its operators, and it joins some of them. So ONNX can make a model faster, though not smaller. The integers gain less than their bytes promise: the model is tiny, and what stands *between* the products takes most of a token. (So it is in our own compiled call, too, which has least of it.)
#
# ## 4 · GGUF: one file with everything
#
# ### Blocks
#
# **GGUF** is the format of llama.cpp, a program in C++ that writes text on laptops and phones without Python. One file holds the weights, the shape of the model, *and* the tokenizer. It holds no graph: llama.cpp knows how a Llama computes.
#
# Its integers stand in **blocks**: 32 numbers of a row with one scale of 16 bits, next to each other, so that one piece of memory has all that a product needs. `Q8_0` has 8 bits for a number, `Q4_0` 4, and `Q4_1` 4 with a minimum for each block beside the scale.
#
# **Predict:** how many bits does `Q4_0` take for a number, its share of the scale included?

# %%
guess = ...  # bits
compare(guess, (32 * 4 + 16) / 32, "bits", how="computed")
packed = {}
for kind in ("F16", "Q8_0", "Q4_0", "Q4_1"):
    packed[kind] = deployment.save_gguf(teacher, tokenizer, folder / f"{kind}.gguf", kind)
    contents = deployment.gguf_summary(packed[kind])
    kinds = {tensor[0]: tensor[2:] for tensor in contents["tensors"]}
    table, layer = kinds["token_embd.weight"], kinds["blk.0.ffn_up.weight"]
    size = packed[kind].stat().st_size / 1e6
    print(f"{kind}: {size:.2f} MB; table {table}, a layer {layer}")
print({key: contents["metadata"][key] for key in list(contents["metadata"])[2:6]})

# %% [markdown]
# The table stays in 8 bits (as llama.cpp's own converter leaves it in finer ones). In so small a model the words themselves weigh, too: before the tensors the file holds 2,048 tokens and the rules that merge them.

# %%
before = contents["data_offset"]
print(f"{before / 1e3:.0f} kB before the tensors: {before / packed['Q4_0'].stat().st_size:.1%}")

# %% [markdown]
# ### Read back
#
# Who checks a file reads it with *another* program than the one that wrote it. Transformers reads GGUF files and makes floats of the blocks. What it reads must behave as what was written.
#
# **Predict:** which of the four has the highest perplexity?

# %% atol=0.01
guess = ...  # "F16", "Q8_0", "Q4_0" or "Q4_1"


def read_back(path):
    """Return the model of a GGUF file, as transformers reads it."""
    return AutoModelForCausalLM.from_pretrained(folder, gguf_file=path.name)


for kind, path in packed.items():
    same, ratio = judged[f"GGUF {kind}"] = judge(read_back(path))
    print(f"{kind}: same token {same:.1%}, perplexity {ratio:.3f}")
compare(guess, max(packed, key=lambda kind: judged[f"GGUF {kind}"][1]))
assert judged["GGUF F16"][0] > 0.99 and judged["GGUF Q8_0"][0] > 0.97

# %% [markdown]
# ### Our own integers
#
# `save_gguf` wrote a float model here, and rounded as it went. But a model that *we* quantized has integers already, from GPTQ perhaps (chapter 08). They are not rounded again: if groups of 32 share a scale, they are written as they are.

# %%
ours = copy.deepcopy(teacher)
report = quantization.quantize_(ours, bits=8, group_size=32, embeddings=8)
path = deployment.save_gguf(ours, tokenizer, folder / "ours.gguf", "Q8_0")
again, _ = read_back(path), quantization.dequantize_(ours)
gaps = [
    ((read - held).abs().max() / held.abs().max()).item()
    for read, held in zip(again.parameters(), ours.parameters(), strict=True)
]
print(f"{path.stat().st_size / 1e6:.2f} MB; largest gap below 0.001:", max(gaps) < 0.001)
assert max(gaps) < 0.001

# %% [markdown]
# The gap that is left comes from the scales, which have 16 bits in the file. So GPTQ's, AWQ's or your own integers can run in llama.cpp.
#
# And does it run? Where llama.cpp is installed (`pip install llama-cpp-python`; it is compiled on your machine, which takes some minutes), the next cell asks it; elsewhere it says that it is missing. In our tests it writes the same 64 tokens as PyTorch from `F16`. From integers 96 to 98 of 100 are the same: it also rounds the inputs of each product.

# %% tags=["nbval-ignore-output"]
prompt = texts[0][0, :24].tolist()
wanted = generation.generate(teacher, torch.tensor([prompt]), 16)[0, 24:].tolist()
try:
    from llama_cpp import Llama
except ModuleNotFoundError:
    print("llama.cpp is not installed here; PyTorch writes:", tokenizer.decode(wanted))
else:
    runner = Llama(str(packed["F16"]), n_ctx=256, n_threads=1, verbose=False)
    written = [token for token, _ in zip(runner.generate(prompt, top_k=1), range(16), strict=False)]
    print("llama.cpp writes:", tokenizer.decode(written))
    assert written == wanted

# %% [markdown]
# ## 5 · A web page
#
# A browser is the runtime that everybody has. ONNX Runtime exists in WebAssembly, a format of machine code that browsers run. `lightcourse serve-demo` builds a page around it and serves it to your own machine. Its model is MiniLM in our 8 bits, for the page judges reviews and searches the World Factbook by meaning; no text leaves the device. Try it; the first build takes a minute or two.
#
# ![The page on a phone and on a desktop: a field for a review with the answer Positive, 83.7 %, and a search whose nearest passage for "too little rain" is about Somalia.](images/14_page.png)
#
# *The page in Chromium, as wide as a phone (left) and on a desktop. It says how many bytes it has loaded and how long its last answer took.*
#
# What counts here is the **download**. The page loads 39.0 MB: 23 MB are the model, 13.5 MB the runtime. Until then nothing works.
#
# **Predict:** how long does a visitor wait over a slow mobile connection, 10 million bits a second? And how long with MiniLM in floats?

# %%
guess = ...  # seconds, in 8 bits
for name, size in {"8 bits": 39.0e6, "floats": 39.0e6 - 23.0e6 + 90.3e6}.items():
    rates = {"10": 10e6, "100": 100e6}
    waits = [f"{8 * size / rate:.1f} at {name} Mbit/s" for name, rate in rates.items()]
    print(f"{name:6} {size / 1e6:5.1f} MB, seconds:", *waits)
compare(guess, 8 * 39.0e6 / 10e6, "seconds", how="computed")

# %% [markdown]
# So a page keeps its files on the device, and the second visit works without any network. Such a page also shows what 8 bits cost: on 1,304 reviews MiniLM and its copy in the page are right about 78.4 % and 77.9 %, and 98.2 % of their answers are the same. An answer took 17 to 34 ms in Chromium, on the machine where we took the pictures.
#
# ### Other runtimes
#
# There are many. On 27 November 2026 we tried which of them install beside the versions that this course pins, and run MiniLM:
#
# | runtime | for | installs beside the course | MB | start | a sentence |
# |---|---|---|---|---|---|
# | this library | laptops, servers | – | 58.5 | 9.4 s | 1.75 ms |
# | ExecuTorch with XNNPACK | phones | yes: extra `edge` | 58.6 | 4.4 s | 2.80 ms |
# | OpenVINO | Intel's processors | yes: extra `edge` | 23.1 (tables, too) | 0.5 s | 2.59 ms |
# | LiteRT (once TensorFlow Lite) | phones, boards | the converter does not: it changes six pins, and JupyterLab no longer starts | 89.8 (floats) | 0.2 s | 8.01 ms |
#
# (Linear layers in 8 bits, on one thread of an Intel Xeon, all in turns; `python -m benchmarks.deployment` measures them on your machine. *Start* is a new Python with all its imports, up to the first answer: ours must import PyTorch. How each is installed, and what failed, is told in `docs/other-runtimes.md`.)
#
# ## 6 · When the file arrives
#
# ### Is it whole? Is it the same?
#
# A download stops, a disk errs, somebody changes a file. Let one bit of our `Q8_0` file flip, and cut another one in half.
#
# **Predict:** what happens when the file with the flipped bit is opened?

# %% atol=0.02
guess = ...  # "an error" or "nothing"
sent = packed["Q8_0"].read_bytes()
start = deployment.gguf_summary(packed["Q8_0"])["data_offset"]
place = start + 34 * 5000 + 1  # a block has 34 bytes; this one holds the exponent of its scale
changed = bytearray(sent)
changed[place] ^= 0b0100_0000
(folder / "flipped.gguf").write_bytes(changed)
(folder / "half.gguf").write_bytes(sent[: len(sent) // 2])
same, ratio = judge(read_back(folder / "flipped.gguf"))
compare(guess, "nothing")
print(f"one bit of {8 * len(sent) / 1e6:.0f} million: same token {same:.1%}")

# %% [markdown]
# It opens, and it answers; it answers differently. A format says how bytes are to be read, not whether they are the right ones. A **hash** does: a number of 256 bits computed of all bytes of a file. Nobody knows how to make another file of the same one.

# %%
for name in ("Q8_0", "flipped", "half"):
    path = folder / f"{name}.gguf"
    right = hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(sent).digest()
    try:
        told = f"opens, {len(deployment.gguf_summary(path)['tensors'])} tensors"
    except ValueError:
        told = "does not open"
    print(f"{name:8} {told:18} the hash is right: {right}")

# %% [markdown]
# The hash must come from elsewhere than the file: who can change the one can change the other beside it. So publishers **sign** the hash with a key that only they hold, and everybody checks the signature with its public half (Sigstore's `model-signing` does that for models). The course's own downloads and the web page compare length and SHA-256 of each file before it is used.
#
# ### Send what changed
#
# A model on a million phones gets better. Must all of it be sent again? Here the tiny model is trained on for 10 steps, on other speeches, and quantized as before.

# %%
tuned = copy.deepcopy(teacher)
batches = data.token_batches(data.speech_tokens(tokenizer, "validation"), 64, 8)
history = training.train(tuned, batches, training.Recipe(10, learning_rate=1e-4), progress=False)
report = quantization.quantize_(tuned, 8, activations=8, embeddings=8)


def codes(model):
    """Return all integers of a model, one byte each."""
    named = model.state_dict().items()  # the output layer is the table of words
    matrices = [x for name, x in named if not x.is_floating_point() and "lm_head" not in name]
    return torch.cat([matrix.flatten().view(torch.uint8) for matrix in matrices])


# %% [markdown]
# **Predict:** which share of the 8-bit integers is another one after 10 steps?

# %% rtol=0.1
guess = ...  # percent
before, after = codes(small), codes(tuned)
changes = after - before  # modulo 256, so -1 is 255
sizes = {"all": after, "differences": changes}
for name, numbers in sizes.items():
    packed_up = len(zlib.compress(numbers.numpy().tobytes(), 1))
    print(f"{name:12} {len(numbers) / 1e6:.2f} MB, compressed {packed_up / 1e6:.2f} MB")
compare(guess, 100 * (changes != 0).float().mean().item(), "%")

# %% [markdown]
# Most integers stay, or move by one. So the differences compress well, where the integers themselves hardly do. A **LoRA** (chapter 02) is smaller still: it *is* the difference, and the base stays as it was. What makes files hard to patch is a new scale: where a row's largest weight grows, all its integers may move.
#
# ## **Spot the bug**
#
# This function is easily written, and circulates in many forms. It rounds all matrices to 8 bits, and then writes the model for llama.cpp. Its author tested that the answers are those of the 8-bit model, and they are. What is wrong, and which test would show it? Find it before you read on.


# %%
def ship(model, path):
    """Write a model in 8 bits. (This is the version with the bug.)"""
    rounded = copy.deepcopy(model)
    for weight in rounded.parameters():
        if weight.ndim == 2:
            scale = weight.data.abs().amax(dim=1, keepdim=True) / 127
            weight.data = (weight.data / scale).round() * scale
    return deployment.save_gguf(rounded, tokenizer, path)


# %% atol=0.01
shipped = ship(teacher, folder / "shipped.gguf")
print(f"same token {judge(read_back(shipped))[0]:.1%}")

# %% [markdown]
# <details><summary>Answer</summary>
#
# The weights *lie* on the grid of 8 bits, but they are stored as floats: after `* scale` nothing remembers the integers. Quality tests cannot see it, for the answers are right. This is **fake quantization**; it serves for experiments, and for training (chapter 10), never for shipping. Many tools do the same silently, when they meet a layer that they do not know. The test looks at the *file*: its bytes, or the types of its tensors.
#
# </details>

# %%
kinds = {tensor[2] for tensor in deployment.gguf_summary(shipped)["tensors"] if len(tensor[1]) == 2}
print(f"{shipped.stat().st_size / 1e6:.2f} MB; its matrices are {kinds}")
assert kinds == {"F16"} and shipped.stat().st_size > 1.8 * packed["Q8_0"].stat().st_size

# %% [markdown]
# ## 7 · The ledger
#
# One model, as PyTorch holds it, and as it goes to three programs: this library, ONNX Runtime, and llama.cpp (or whatever else reads GGUF). First the **start**: from a file in the system's cache to a model that can answer, all imports done.


# %%
def load_ours():
    """Return the model of our own file, in one compiled call."""
    model = models.new_tiny_lm("teacher").eval()
    quantization.load_quantized_(model, saved)
    return generation.jit(model)


# %% clock=true
starts = {
    "floats, in PyTorch": lambda: models.load_tiny_lm("teacher"),
    "ours, in one call": load_ours,
    "ONNX, our 8 bits": lambda: deployment.OnnxDecoder(files["ONNX, our 8 bits"]),
    "GGUF Q8_0, in transformers": lambda: read_back(packed["Q8_0"]),
}
for name, clock in metrics.latencies(starts, repeats=3, warmup=1).items():
    print(f"{name:26} {1e3 * clock.median:.0f} ms")

# %% [markdown]
# Transformers makes floats of all blocks first. llama.cpp maps the file and multiplies the blocks as they are.
#
# Now all of it: bytes of the file; the time of one token behind 64 others, on one thread (none for GGUF: llama.cpp may be missing here); and the agreement, the share of places with the float model's likeliest token.
#
# **Predict:** which row has the fewest bytes among those that agree in more than 96 % of the places?

# %% clock=true atol=0.01
guess = ...  # a row's name, such as "GGUF Q8_0"
ledger = metrics.Ledger("agreement")
weights = metrics.size_in_bytes(teacher)
paths = {"ONNX, floats": exact, "ours, in one call": saved} | files
paths |= {f"GGUF {kind}": path for kind, path in packed.items()}
for name, (same, _) in judged.items():
    size = paths[name].stat().st_size if name in paths else weights
    ledger.add(name, size, same, latency=clocks.get(name))
print(ledger)
ax = plots.ledger(ledger)
good = [row for row in ledger.rows if row.quality > 0.96]
compare(guess, min(good, key=lambda row: row.stored).name)

# %% [markdown]
# *Figure: 8 bits keep nearly all of the agreement at a quarter of the bytes, whatever the format; 4 bits of plain rounding lose some, and ONNX Runtime's file of 4 bits is not even small.*
#
# <details><summary>The figure in words</summary>
#
# Agreement with the float model over megabytes stored. At 17 MB and 100 %: the floats, in PyTorch and in ONNX. At 8.7 MB: F16, also at 100 %. Between 4 and 5 MB: our 8 bits in two programs, and Q8_0 highest of them; ONNX Runtime's own 8 bits lower, and its 4 bits lowest. Near 3 MB: Q4_0 and Q4_1, between.
#
# </details>
#
# The format decides where a model runs, and how it starts. *How light* it is was decided before, by what was stored: read one row's bytes beside its bits. And agreement is not quality: perplexity hardly moved in 8 bits, for the tokens that changed were nearly as likely.
#
# ## What papers say, and what we measured
#
# | source | says | we measured | same order? |
# |---|---|---|---|
# | Williams et al. 2009, the roofline | nothing is above the slower of two limits | one token close to the memory's, a prompt at about half of the arithmetic's | yes |
# | ONNX's own description (onnx.ai) | an open format to exchange models | the float file has the model's bytes, and 50 kB | yes |
# | ONNX Runtime's manual | dynamic quantization serves transformers | a table stored twice, 95 % agreement; ours 98 % | yes, with a loss |
# | Dettmers and Zettlemoyer 2022, 2212.09720 | at equal bits of a whole model, 4 bits per weight serve best | not compared: one size of model here. 4 bits in blocks kept 93 to 95 % of the tokens | not tested |
#
# ## Summary
#
# - **Will it fit?** Bytes against a part of the memory; bytes a call against bandwidth; operations against arithmetic. One token came near its bound here; a prompt took about twice the least time.
# - **A file** is a header and bytes. safetensors holds tensors, GGUF also words, ONNX also the computation. A pickle may do anything.
# - **ONNX** exchanges and does not compress: 17.2 MB stayed 17.2 MB. Our 8-bit integers gave 4.5 MB and answer in ONNX Runtime as in our own kernels.
# - **GGUF**: 4.5 bits a number in `Q4_0`; our own integers go in unrounded.
# - **On arrival**: one flipped bit was opened without a word; a hash saw it. Fake quantization passed every test of answers; a look at the types did not let it pass.
#
# ## Further reading
#
# - Williams, Waterman and Patterson 2009, *Roofline: an insightful visual performance model* (doi 10.1145/1498765.1498785): its first three pages.
# - The GGUF format (github.com/ggml-org/ggml, docs/gguf.md): the header that you read in the exercises.
# - ONNX Runtime, *Quantize ONNX models* (onnxruntime.ai/docs): what its static and dynamic quantizers do.
# - In this repository: `lightcourse/deployment/`, and `web/`, the page.
