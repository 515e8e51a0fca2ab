# %% [markdown]
# # 14 · Deployment — one model, four targets
#
# **You will be able to**
#
# - say from a data sheet whether a model fits a device, and how fast it can be at most;
# - open a model's file with a few lines, and tell what it holds and what it does not;
# - bring one model to ONNX Runtime and into a GGUF file, keep it small on the way, and see another one in a web page;
# - notice a file that was damaged, changed, or never quantized.
#
# **You need:** chapters 01, 04 and 13 (others are only mentioned). **Time:** 63 minutes of reading, 26 for the parts marked ★ (the fast path). The whole notebook runs in about a minute.
#
# %%
import copy
import hashlib
import importlib.util
import itertools
import json
import math
import pickle
import struct
import tempfile
import zlib
from pathlib import Path

# %%
import torch
from IPython.utils.capture import capture_output
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
# Before anybody brings a model elsewhere, three numbers of a data sheet say much: how many bytes the **memory** holds, how many of them a second the processor can read (the **bandwidth**), and how many **operations** it does a second. `DEVICES` has them for four devices:

# %%
for device in deployment.DEVICES:
    memory, reads = f"{device.memory / 1e9:.3f} GB", f"reads {device.bandwidth / 1e9:5.1f} GB/s"
    operations = f"{device.operations / 1e9:,.0f} billion operations a second on bytes"
    print(f"{device.name:26} {memory:>8}, {reads}, {operations}")
    print(f"    {device.source}")

# %% [markdown]
# **Fit** means: weights and cache (chapter 13) take no more than a part of the memory. The system and other programs want the rest; we allow the model half.
#
# **Speed** has two limits (chapter 05's roof). All weights are read once for a call, and each takes a multiplication and an addition for each token. Memory and arithmetic work at the same time, so the slower one counts:
#
# $$\text{seconds} \ge \max\left( \frac{\text{bytes read}}{\text{bandwidth}},\; \frac{2 \cdot \text{weights} \cdot \text{tokens}}{\text{operations a second}} \right)$$
#
# It is a bound for *one* call on the processor's fast cores: no program that fetches all weights from memory is faster. (A graphics processor multiplies faster, often out of the same memory; a draft, chapter 13, gets several tokens out of a call.)
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
compare(guess, 100e9 / (7.2e9 * 4.5 / 8), "tokens/s", how="computed")

# %% [markdown]
# Even our tiny model is too large for a microcontroller, and the model of 7.2 billion only just fits into half of "8 GB" (8 · 2³⁰ bytes), with hardly any room for a cache. One more token waits for memory everywhere: there a quantized model is faster *because* it is smaller. Is it so with a prompt?
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
# A **battery** is a limit, too. It holds energy; a call takes power for some time, on a phone perhaps 4 watts (an assumption). Half of the time is half of the energy.

# %%
token = deployment.seconds_a_call(phone, 136e6, 2 * 134.5e6)
hours = phone.battery / 4
tokens = deployment.calls_a_charge(phone, token, 4)
print(f"{hours:.1f} hours; at most {tokens / 1e6:.1f} million tokens of SmolLM2 in 8 bits")

# %% [markdown]
# ### Is it so on this machine?
#
# The library measures both limits of *your* processor, on one thread. Then SmolLM2 in 8 bits, in one compiled call (chapter 13), reads one token behind 64 others, and a prompt of 128 tokens.

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
# **Predict:** how many times the least time does one more token take? And is the prompt nearer to its bound than the token, or farther from it?

# %% clock=true
guess = ...  # times the least time, for one token
times = {count: clock.median for count, clock in metrics.latencies(calls, repeats=5).items()}
ratios = {}
for count, seconds in times.items():
    least = deployment.seconds_a_call(here, held, 2 * 134.5e6 * count)
    ratios[count] = seconds / least
    print(f"{count:3} tokens: {1e3 * seconds:.1f} ms; at least {1e3 * least:.1f} ms")
compare(guess, ratios[1], "times the least")
assert ratios[1] > 0.3 and ratios[128] > 0.3

# %% [markdown]
# On the Xeon where this was run, one token took 1.2 times the least time, and the prompt about twice: besides products there are attention, norms, and inputs to be rounded, and no real product runs at the peak. (You may see less than 1 for the token, where a large processor cache keeps weights from one call to the next; and more for the prompt, where the processor has units for whole matrices.) Whoever promises *more* than the bound has counted something else: a batch, drafts, another chip.
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
# The header gives each tensor's type, shape and place. *Which* model these tensors belong to, what is multiplied with what, and what text the tokens stand for must be known from elsewhere (`config.json`, a tokenizer's file, a program).
#
# ### Opening is not reading
#
# Since each tensor's place is known, a program need not read the whole file. It asks the system to **map** it: the file then looks like memory, and a part is fetched when it is first touched.
#
# **Predict:** the file of MiniLM has 91 MB. One tensor of it, 1.5 kB, is read and added up, and then all are. How many times as long do all take?

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
# Not 60,000 times: to open the file and read its header takes most of the first time. So a program that maps its model *starts* at once. It still pays for the reading when it first touches all of it, for a model with its first token, and a program that rearranges weights when it loads them gains nothing. (Here the file was in the system's cache already. From a disk all takes longer.)
#
# ### A file that does something
#
# Older checkpoints (`.bin`, `.pt`, `.pth`) are **pickles**. A pickle is no description of data but a small program that builds objects, and it may call any function:


# %%
class Harmless:
    """An object; to build it again, pickle is told to call print with this argument."""

    def __reduce__(self):
        return print, ("this line was printed by a file that was only opened",)


# %%
torch.save({"weight": torch.zeros(2), "note": Harmless()}, folder / "model.bin")
opened = torch.load(folder / "model.bin", weights_only=False)
try:
    torch.load(folder / "model.bin")
except pickle.UnpicklingError as error:
    print("refused by default:", str(error).split(".")[0])

# %% [markdown]
# It printed. `print` could have been any function of your machine. PyTorch refuses by default since version 2.6, and `weights_only=False` in somebody's instructions switches the protection off. Weights have no need of it:
#
# | format | types of the weights | how they are computed | words (tokenizer) | made of code |
# |---|---|---|---|---|
# | safetensors | floats of 4 to 64 bits, integers of whole bytes | no | no | no |
# | GGUF | floats, and blocks of about 1.6 to 8 bits | its family's name; the program knows the rest | yes | no |
# | ONNX | floats, integers, 4 bits | yes, as a graph of operators | no | no |
# | pickle | any | Python classes, by name | sometimes | **yes** |
#
# "No" does not mean that nothing can happen. A GGUF file holds a chat template, a small program that must be run in a sandbox (it once was not: CVE-2024-34359); programs that read files have errors of their own (`weights_only=True` had one before 2.6: CVE-2025-32434); and `trust_remote_code=True` runs Python that lies *beside* the safest file. Look at the source, and keep the reader up to date.
#
# ## ★ 3 · ONNX: the computation in the file
#
# ### Export
#
# An **ONNX** file holds a graph of operators, and the weights as its constants. What each operator means is fixed by a numbered list (the *opset*; ours is 20), so any program that knows the list can run the file, on a phone or in a browser, without Python. **ONNX Runtime** is the most used one. `export_decoder` follows one call of a language model and writes down what is computed. The cache goes in and comes out as an input and an output, so one graph serves for the prompt and for each token.
#
# Often one reads that "converting to ONNX makes a model small and fast". (The next two cells take some 15 seconds each.)
#
# **Predict:** our tiny model has 4.3 million weights in 32 bits, 17.2 MB. How many MB has its ONNX file?

# %%
guess = ...  # MB
exact = deployment.export_decoder(teacher, folder / "exact.onnx")
compare(guess, exact.stat().st_size / 1e6, "MB")
contents = deployment.onnx_summary(exact)
weights = contents.stored["float32"]
print(
    f"{weights:,} bytes of floats; the graph takes {(exact.stat().st_size - weights) / 1e3:.0f} kB"
)
print(dict(list(contents.operators.items())[:6]), "and", len(contents.operators) - 6, "more kinds")

# %% [markdown]
# **ONNX exchanges, it does not compress.** The floats are the same floats. What makes the file small is what made the model small: fewer bits. There are two ways:
#
# - quantize the *file*: ONNX Runtime's own `quantize_dynamic` replaces products of floats by products of bytes (scales of inputs are found at each call, hence its name). There is a variant with 4 bits in groups, which uses an operator of its own that other runtimes may lack;
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
# This model's output layer *is* its table of words, stored once (chapter 01): in our file, 0.52 MB of `uint8`. ONNX Runtime's quantizer stores it twice, for it stands among the `int8` once more: 4.31 MB instead of 3.77. And its 4 bits leave the table in floats: that file is hardly smaller than the one of 8 bits, and larger than ours. **Look into the file, not at the setting.**
#
# ### Does it say the same?
#
# First the answers, then the clock. Three texts of 160 tokens, so 480 places, and two questions: at how many of them is the likeliest next token the float model's, and what is the perplexity, divided by the float model's? `OnnxDecoder` takes a model's place in `begin`. Our 8 bits round the *inputs* of products, too; to see what that costs, we also try them with inputs left in floats ("weights only").

# %%
texts = [text[None, :161] for text in data.excerpts(data.speech_tokens(tokenizer, "test"), 3)]
following = torch.cat([text[:, 1:] for text in texts])


def read(model):
    """Return a model's logits at all places of the three texts."""
    return torch.cat([begin(model).read(text[:, :-1], keep=160) for text in texts])


def judge(logits):
    """Return the share of places with the float model's token, and the perplexity's ratio."""
    same = (logits.argmax(dim=-1) == wanted.argmax(dim=-1)).float().mean().item()
    losses = [cross_entropy(one.flatten(0, 1), following.flatten()) for one in (logits, wanted)]
    return same, (losses[0] - losses[1]).exp().item()


# %% atol=0.02
wanted, alone = read(teacher), copy.deepcopy(teacher)
report = quantization.quantize_(alone, 8, embeddings=8)
runs = {"floats, in PyTorch": teacher, "8 bits, weights only": alone, "8 bits, in PyTorch": small}
runs["8 bits, in one call"] = generation.jit(small)
exported = {"ONNX, floats": exact} | files
runs |= {name: deployment.OnnxDecoder(path) for name, path in exported.items()}
logits = {name: read(model) for name, model in runs.items()}
judged = {name: judge(one) for name, one in logits.items()}
for name, (same, ratio) in judged.items():
    print(f"{name:20} same token {same:.1%}, perplexity {ratio:.3f}")
tokens = [logits[name].argmax(dim=-1) for name in ("8 bits, in one call", "ONNX, our 8 bits")]
print(f"our 8 bits in two programs: the same {(tokens[0] == tokens[1]).float().mean():.0%}")
assert judged["ONNX, floats"][0] == 1 and judged["ONNX, our 8 bits"][0] > 0.96

# %% [markdown]
# The float file agrees everywhere: the export is right. Our integers agree with themselves in 99 of 100 places, though two programs multiply them: the sums of floats around them are taken in another order. (Of 480 places one percent is 5, so 97.7 and 98.3 % are a tie.) Most of what 8 bits change comes from rounding *inputs*, and the perplexity says that nothing is lost by it. ONNX Runtime's own rounding changes more; its 4 bits cost some percent, and also took the output layer.
#
# ### Is it fast?
#
# **Predict:** how many times as fast as PyTorch is ONNX Runtime with the same floats, one token after the other?

# %% clock=true
guess = ...  # times
calls = {}
for name, model in runs.items():
    session = begin(model)
    session.read(texts[0][:, :64])
    calls[name] = lambda s=session: (s.read(texts[0][:, 64:65]), s.forget(1))
clocks = metrics.latencies(calls, repeats=20)
for name, clock in clocks.items():
    print(f"{name:20} {1e3 * clock.median:.2f} ms a token")

# %% clock=true
compare(guess, clocks["floats, in PyTorch"].median / clocks["ONNX, floats"].median, "times")
assert clocks["8 bits, in one call"].median < clocks["8 bits, in PyTorch"].median

# %% [markdown]
# With the same floats ONNX Runtime is faster here: a graph has no Python between its operators, and it joins some of them. So ONNX can make a model faster, though not smaller. The same holds for our own integers in one compiled call, which is the fastest. The integers gain less than their bytes promise: the model is tiny, and what stands *between* the products takes most of a token. Our file has more of that than theirs, for it rounds each input in several operators; and each call copies the cache in and out.
#
# ## 4 · GGUF: one file with everything
#
# ### Blocks
#
# **GGUF** is the format of llama.cpp, a program in C++ that writes text on laptops and phones without Python. One file holds the weights, the shape of the model, *and* the tokenizer. It holds no graph: llama.cpp knows how a Llama computes.
#
# Its integers stand in **blocks**: 32 numbers of a row with one scale of 16 bits, next to each other, so that one piece of memory has all that a product needs. `Q8_0` has 8 bits for a number, `Q4_0` 4, and `Q4_1` 4 with a minimum for each block beside the scale.
#
# (What people mostly download, `Q4_K_M`, has blocks in blocks, and more bits where they count: chapter 09.)
#
# **Predict:** how many bits does `Q4_1` take for a number, its share of the scale and of the minimum (16 bits, too) included?

# %%
guess = ...  # bits
compare(guess, (32 * 4 + 16 + 16) / 32, "bits", how="computed")
packed = {}
for kind in ("F16", "Q8_0", "Q4_0", "Q4_1"):
    packed[kind] = deployment.save_gguf(teacher, tokenizer, folder / f"{kind}.gguf", kind)
    contents = deployment.gguf_summary(packed[kind])
    kinds = {tensor[0]: tensor[2:] for tensor in contents["tensors"]}
    table, layer = kinds["token_embd.weight"], kinds["blk.0.ffn_up.weight"]
    size = packed[kind].stat().st_size / 1e6
    print(f"{kind}: {size:.2f} MB; type and bytes of the table {table}, of a layer {layer}")

# %% [markdown]
# The table keeps 8 bits, for it is the output layer as well (llama.cpp's own quantizer gives such a table more bits, too).
#
# ### Read back
#
# Who checks a file reads it with *another* program than the one that wrote it. Transformers reads GGUF files and makes floats of the blocks, so inputs are not rounded here. What it reads must behave like what was written.
#
# **Predict:** which of the four has the highest perplexity?

# %% atol=0.02
guess = ...  # "F16", "Q8_0", "Q4_0" or "Q4_1"


def read_back(path):
    """Return the model of a GGUF file, as transformers reads it."""
    with capture_output():  # it draws a bar for each file
        return AutoModelForCausalLM.from_pretrained(folder, gguf_file=path.name)


for kind, path in packed.items():
    same, ratio = judged[f"GGUF {kind}"] = judge(read(read_back(path)))
    print(f"{kind}: same token {same:.1%}, perplexity {ratio:.3f}")
compare(guess, max(packed, key=lambda kind: judged[f"GGUF {kind}"][1]))
assert judged["GGUF F16"][0] > 0.99 and judged["GGUF Q8_0"][0] > 0.97

# %% [markdown]
# ### Our own integers
#
# `save_gguf` wrote a float model here, and rounded as it went. But a model that *we* quantized has integers already, from GPTQ perhaps (chapter 08). They are not rounded again: where groups of 32 neighbours share a scale, they are written as they are. We compare all weights of the file with ours. The control is the file of above, which ggml's rule has rounded from the same floats.

# %%
ours = copy.deepcopy(teacher)
report = quantization.quantize_(ours, bits=4, group_size=32, embeddings=8)
path = deployment.save_gguf(ours, tokenizer, folder / "ours.gguf", "Q4_0")
report = quantization.dequantize_(ours)
for name, file in {"our integers": path, "control: rounded anew": packed["Q4_0"]}.items():
    gaps = [
        ((read - held).abs().max() / held.abs().max()).item()
        for read, held in zip(read_back(file).parameters(), ours.parameters(), strict=True)
    ]
    print(f"{name:22} largest gap below 0.001: {max(gaps) < 0.001}")
assert max(gaps) > 0.05

# %% [markdown]
# The gap that is left comes from the scales, which have 16 bits in the file. So what GPTQ or AWQ chose can run in llama.cpp.
#
# And does it run? Where llama.cpp is installed (`pip install llama-cpp-python`; it is compiled on your machine, which takes some minutes), the next cell asks it; elsewhere it says that it is missing. In our tests it writes the same 64 tokens as PyTorch from `F16`; from integers 96 to 98 of 100 are the same, for it also rounds inputs.

# %% tags=["nbval-ignore-output"]
prompt = texts[0][0, :24].tolist()
greedy = generation.generate(teacher, torch.tensor([prompt]), 16)[0, 24:].tolist()
if not importlib.util.find_spec("llama_cpp"):
    print("llama.cpp is not installed here; PyTorch writes:", tokenizer.decode(greedy))
else:
    llama = importlib.import_module("llama_cpp").Llama
    runner = llama(str(packed["F16"]), n_ctx=256, n_threads=1, verbose=False)
    written = list(itertools.islice(runner.generate(prompt, top_k=1), 16))
    print("llama.cpp writes:", tokenizer.decode(written))
    assert written[:4] == greedy[:4]

# %% [markdown]
# ## 5 · A web page
#
# A browser is the runtime that everybody has. ONNX Runtime exists in WebAssembly, a format of machine code that browsers run. `lightcourse serve-demo` builds a page around it and serves it to your own machine. Its model is MiniLM in our 8 bits, for the page judges reviews and searches the World Factbook by meaning; no text leaves the device. Try it; the first build takes a minute or two.
#
# ![The page in a narrow and in a wide window: a field for a review with the answer Positive, 83.7 %, and a search whose nearest passage for "too little rain" is about Somalia.](images/14_page.png)
#
# *The page in Chromium, as narrow as on a phone (left) and as on a desktop. It says how many bytes it has loaded and how long its last answer took.*
#
# What counts here is the **download**. The page loads 39.0 MB: 23.0 MB are the model, 14.2 MB the runtime, and the rest mostly the passages that are searched. Until then nothing works.
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
# So a page keeps its files on the device, and the second visit works without any network. (A server that compresses sends 3.7 MB of runtime, but still 20.9 of model: well-used bits look like chance.) It also shows what 8 bits cost: of 1,304 reviews MiniLM judges 78.4 % rightly and its copy in the page 77.9 %, and 98.2 % of their answers are the same. An answer took 15 to 34 ms on the machine where we took the pictures.
#
# ### Other runtimes
#
# There are many. On 27 November 2026 we tried which of them install beside the package versions that this course fixes, and gave them MiniLM with linear layers in 8 bits. One sentence of 16 tokens, on one thread of an Intel Xeon, all taking turns in one run:
#
# | runtime | made for | file | new Python to first answer | a sentence | cosine with floats |
# |---|---|---|---|---|---|
# | this library | laptops, servers | 58.5 MB | 9.4 s | 1.75 ms | .998 |
# | ExecuTorch with XNNPACK | phones | 58.6 MB | 4.4 s | 2.80 ms | .999 |
# | OpenVINO (tables in 8 bits, too) | Intel's processors | 23.1 MB | 0.5 s | 2.59 ms | .999 |
# | the floats, in PyTorch | – | 90.3 MB | 8.1 s | 10.77 ms | 1 |
#
# Ours is the fastest on a sentence and the slowest to start, for it imports PyTorch. (In this run its table of words stayed in floats.) LiteRT, once TensorFlow Lite, runs the float model, but its converter wants other versions of six packages, and with those JupyterLab does not start. Core ML and MLX, for Apple's machines, we could not try. `docs/other-runtimes.md` tells how each is installed; `python -m benchmarks.deployment` measures them on your machine.
#
# ## 6 · When the file arrives
#
# ### Is it whole? Is it the same?
#
# A download stops, a disk errs, somebody changes a file. Let a bit of our `Q8_0` file turn over: once a bad one, the highest in the exponent of a scale, and four times one at random. And let half of a file be missing.
#
# **Predict:** what happens when a file with one wrong bit is opened?

# %% atol=0.02
guess = ...  # "an error" or "it opens"
sent = packed["Q8_0"].read_bytes()
start = deployment.gguf_summary(packed["Q8_0"])["data_offset"]
dice = torch.Generator().manual_seed(0)
random = torch.randint(8 * start, 8 * len(sent), (4,), generator=dice).tolist()
worst = 8 * (start + 34 * 5000 + 1) + 6  # a block has 34 bytes: a scale of two, and 32 numbers
for name, bit in {"worst": worst, **{f"random {i}": bit for i, bit in enumerate(random)}}.items():
    changed = bytearray(sent)
    changed[bit // 8] ^= 1 << bit % 8  # turns this one bit over
    path = folder / f"{name}.gguf"
    path.write_bytes(changed)
    print(f"{name:8} same token {judge(read(read_back(path)))[0]:.1%}")
compare(guess, "it opens", how="seen")

# %% [markdown]
# All open. The worst bit spoils the answers; of those at random no test of answers would find any. A **hash** (here SHA-256) does: a number of 256 bits, computed of all bytes of a file. If one bit changes, it is quite another number, and nobody knows how to make a second file with the same one.

# %%
(folder / "half.gguf").write_bytes(sent[: len(sent) // 2])
right = hashlib.sha256(sent).digest()
for name in ("Q8_0", "worst", "random 0", "half"):
    path = folder / f"{name}.gguf"
    try:
        told = f"opens, {len(deployment.gguf_summary(path)['tensors'])} tensors"
    except ValueError:
        told = "does not open"
    print(f"{name:8} {told:18} hash:", hashlib.sha256(path.read_bytes()).digest() == right)

# %% [markdown]
# The hash must come from elsewhere than the file: who can change the one can change the other beside it. So publishers **sign** the hash with a key that only they hold, and everybody checks the signature with a second key, which belongs to the first and is public (Sigstore's `model-signing` does that for models). The web page compares length and SHA-256 of each file before it is used.
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
# **Predict:** what percentage of the 8-bit integers changes in 10 steps?

# %% rtol=0.1
guess = ...  # percent
before, after = codes(small), codes(tuned)
changes = after - before  # modulo 256, so -1 is 255
sizes = {"all": after, "differences": changes}
for name, numbers in sizes.items():
    packed_up = len(zlib.compress(numbers.numpy().tobytes(), 1))
    print(f"{name:12} {len(numbers) / 1e6:.2f} MB, compressed {packed_up / 1e6:.2f} MB")
print(f"moved by one at most: {(changes.view(torch.int8).abs() <= 1).float().mean():.0%}")
compare(guess, 100 * (changes != 0).float().mean().item(), "%")

# %% [markdown]
# Most integers stay, and nearly all others move by one. So the differences compress well, where the integers themselves hardly do. (The new scales, 0.08 MB, must be sent besides.) A **LoRA** (chapter 02) is smaller still: it *is* the difference, and the base stays as it was.
#
# ## **Spot the bug**
#
# This function is easily written, and circulates in many forms. It rounds all matrices to 8 bits, and then writes the model for llama.cpp. Its author tested that the answers are nearly those of the float model, as 8 bits promise, and they are. What is wrong, and which test would show it? Find it before you read on.


# %%
def ship(model, path):
    """Write a model in 8 bits. (This is the version with the bug.)"""
    rounded = copy.deepcopy(model)
    for weight in rounded.parameters():
        if weight.ndim == 2:
            scale = weight.data.abs().amax(dim=1, keepdim=True) / 127
            weight.data = (weight.data / scale).round() * scale
    return deployment.save_gguf(rounded, tokenizer, path, "F16")  # it is rounded already


# %% atol=0.02
shipped = ship(teacher, folder / "shipped.gguf")
print(f"same token {judge(read(read_back(shipped)))[0]:.1%}")

# %% [markdown]
# <details><summary>Answer</summary>
#
# The weights *lie* on the grid of 8 bits, but they are stored as floats: after `* scale` nothing remembers the integers. Quality tests cannot see it, for the answers are right. This is **fake quantization**; it serves for experiments, and for training (chapter 10), never for shipping. The test looks at the *file*: its bytes, or the types of its tensors. The cure is to let one place round: quantize with `quantize_`, and save *those* integers as `Q8_0`, as above.
#
# </details>

# %%
kinds = {tensor[2] for tensor in deployment.gguf_summary(shipped)["tensors"] if len(tensor[1]) == 2}
print(f"{shipped.stat().st_size / 1e6:.2f} MB; its matrices are {kinds}")
assert kinds == {"F16"} and shipped.stat().st_size > 1.8 * packed["Q8_0"].stat().st_size

# %% [markdown]
# ## 7 · The ledger
#
# One model on four targets: PyTorch, this library's compiled call, ONNX Runtime, and what reads GGUF. First the **start**: from a file in the system's cache to a model that can answer, all imports done.


# %%
def load_ours():
    """Return the model of our own file, in one compiled call."""
    model = models.new_tiny_lm("teacher").eval()
    quantization.load_quantized_(model, saved)
    return generation.jit(model)


# %% clock=true
starts = {
    "floats, in PyTorch": lambda: models.load_tiny_lm("teacher"),
    "8 bits, in one call": load_ours,
    "ONNX, our 8 bits": lambda: deployment.OnnxDecoder(files["ONNX, our 8 bits"]),
    "GGUF Q8_0, in transformers": lambda: read_back(packed["Q8_0"]),
}
for name, clock in metrics.latencies(starts, repeats=3, warmup=1).items():
    print(f"{name:26} {1e3 * clock.median:.0f} ms")

# %% [markdown]
# Three of them take about the same; transformers makes floats of all blocks first, which llama.cpp does not.
#
# Now all of it: bytes of the file; the time of one token behind 64 others, on one thread (none for GGUF: llama.cpp may be missing here); and the agreement, the share of places with the float model's likeliest token. The GGUF rows are read into floats, so their inputs are not rounded: compare them with "weights only".

# %% clock=true atol=0.01
ledger = metrics.Ledger("agreement")
paths = exported | {name: saved for name in runs if name.startswith("8 bits")}
paths |= {f"GGUF {kind}": path for kind, path in packed.items()}
for name, (same, _) in judged.items():
    size = paths[name].stat().st_size if name in paths else metrics.size_in_bytes(teacher)
    ledger.add(name, size, same, latency=clocks.get(name))
print(ledger)
ax = plots.ledger(ledger)

# %% [markdown]
# *Figure: our 8 bits and GGUF's keep 98 to 99 % of the agreement at a quarter of the bytes; 4 bits of plain rounding keep less, and ONNX Runtime's file of 4 bits is as large as one of 8.*
#
# <details><summary>The figure in words</summary>
#
# Agreement with the float model over megabytes stored. At 17 MB and 1.00: the floats, in PyTorch and in ONNX. At 8.7 MB: F16, also at 1.00. Between 4 and 5 MB: our 8 bits, those with inputs in floats and GGUF's Q8_0 highest, at 0.99; then those with rounded inputs, near 0.98; ONNX Runtime's own 8 bits at 0.95, and its 4 bits lowest. Near 3 MB: Q4_0 and Q4_1, from 0.92 to 0.95.
#
# </details>
#
# The format decides where a model runs. *How light* it is was decided before, by what was stored: read each row's bytes beside its bits. (Our own file is the smallest of 8 bits, for it holds neither the words nor the graph.) And agreement is not quality: in 8 bits the perplexity hardly moved.
#
# ## What papers say, and what we measured
#
# | source | says | we measured | same order? |
# |---|---|---|---|
# | Williams et al. 2009, the roofline | nothing is above the slower of two limits | one token at 1.2 times the memory's least time, a prompt at about twice the arithmetic's, on a Xeon | yes |
# | ONNX's own description (onnx.ai) | an open format to exchange models | the float file has the model's bytes, and a graph of some 50 kB | yes |
# | ONNX Runtime's manual | dynamic quantization is recommended for transformers | a table stored twice; 95 % of the tokens stay, of ours 98 %; no perplexity lost | yes |
#
# ## Summary
#
# - **Will it fit?** Bytes against a part of the memory; bytes a call against bandwidth; operations against arithmetic. On a Xeon one token came near its bound; a prompt took about twice the least time.
# - **A file** is a header and bytes. safetensors holds tensors, GGUF also words, ONNX also the computation. A pickle may do anything.
# - **ONNX** exchanges and does not compress: 17.2 MB stayed 17.2 MB. Our 8-bit integers gave 4.5 MB, and agree with our own kernels in 99 of 100 places.
# - **GGUF**: 4.5 bits a number in `Q4_0`, 5 in `Q4_1`; our own integers go in unrounded, their scales with 16 bits.
# - **On arrival**: wrong bits were opened without a word; a hash saw each. Fake quantization passed every test of answers; a look at the types did not let it pass.
#
# ## Further reading
#
# - Williams, Waterman and Patterson 2009, *Roofline: an insightful visual performance model* (doi 10.1145/1498765.1498785): its first three pages.
# - The GGUF format (github.com/ggml-org/ggml, docs/gguf.md), and ONNX Runtime's *Quantize ONNX models* (onnxruntime.ai/docs).
# - In this repository: `lightcourse/deployment/`, and `web/`, the page.
