# %% [markdown]
# # 14 · Deployment: exercises — what fits, a file's header, a fair race, what was left in floats
#
# Four exercises, 65 minutes together: whether a model fits on a device, the first bytes of a GGUF file, how many times as fast another runtime is, and which matrices a quantizer forgot. Each function is followed by one line that checks it: ✓, or ✗ and what your answer seems to believe. Run that line as often as you like. Then comes a cell in which your function works on a real file or a real model, beside a control. Nothing here needs more than chapters 01, 04, 13 and 14.
#
# From the command line, `lightcourse check exercises/14_deployment.ipynb` tells which checks pass.

# %%
import struct
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import lightcourse
from lightcourse import assets, checks, deployment, generation, metrics, models, quantization
from lightcourse.deployment.onnx_packages import quiet

lightcourse.setup(threads=1)
temporary = tempfile.TemporaryDirectory()  # gone when the notebook ends
folder = Path(temporary.name)

# %% [markdown]
# ## Exercise 1 · Will it fit? ★ (15 minutes)
#
# Before anybody downloads a model, one wants to know whether it will run. Two numbers tell: how many tokens it can hold, and how many a second it can write at most. Write `longest_context(device, model, bits, group)`:
#
# - `device`: three numbers, (memory, share, bandwidth): the memory in bytes; the share of it, from 0 to 1, that the model may have; and how many bytes a second can be read;
# - `model`: four whole numbers, (weights, table, layers, key_width): how many weights the linear layers have, and how many the vocabulary table; how many layers there are; and how many numbers a token's **key** has in one layer, all heads together. A value has as many;
# - `bits`: three whole numbers: those of a linear weight, of a weight of the table, and of a number in the cache;
# - `group`: so many weights share a scale of 16 bits, in the linear layers and in the table alike;
# - returns two things. First, an int: **how many tokens** fit beside the weights, or 0 if not even one does. Second, a float: **how many tokens a second** are written when the context is that long, or 0.0 if it is 0.
#
# For each new token all weights are read once, and the whole cache. Nothing is faster than that. Norms and biases are left out: they are too few to matter.
#
# **Predict** first: a phone has 8 GB, of which a model may have half. Llama 2 and Mistral are both called 7B. The first has 6.5 billion weights in layers and keys of 4,096 numbers, the second 7.0 billion and keys of 1,024, both in 32 layers. In 4 bits, with 8 for the table, how long a context does each hold, if its cache has 16 bits?
#
# <details><summary>Hint 1</summary>A scale of 16 bits for a group of 32 weights is half a bit more for each weight.</details>
# <details><summary>Hint 2</summary>What the share leaves beside the weights, divided by the bytes of one token's keys and values in all layers, and rounded down. Where the weights do not fit, that is negative.</details>
# <details><summary>Hint 3</summary>Bytes per second, divided by the bytes of a token, are tokens per second.</details>


# %%
def longest_context(device, model, bits, group):
    """Return how many tokens fit beside the weights, and how many a second can be written."""
    ### BEGIN SOLUTION
    memory, share, bandwidth = device
    weights, table, layers, key_width = model
    held = (weights * (bits[0] + 16 / group) + table * (bits[1] + 16 / group)) / 8
    a_token = 2 * layers * key_width * bits[2] / 8
    tokens = max(int((share * memory - held) // a_token), 0)
    return tokens, bandwidth / (held + tokens * a_token) if tokens else 0.0
    ### END SOLUTION


# %%
passed = checks.check_longest_context(longest_context)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# **In the real model.** A chip has 4 MB, three quarters of which are for the larger of our tiny models, in 4 bits. That model is really quantized, and really reads a text: the bytes of its arrays are counted, but for the norms'. The control is one token more than you say: it must not fit.

# %%
teacher = models.load_tiny_lm("teacher")
norms = sum(part.nbytes for name, part in teacher.named_parameters() if "norm" in name)
report = quantization.quantize_(teacher, bits=4, group_size=32, embeddings=4)


def measured(tokens):
    """Return the bytes of the weights, and of a cache that holds so many tokens."""
    session = generation.begin(teacher)
    session.read(torch.arange(tokens)[None])
    cache = sum(layer.keys.nbytes + layer.values.nbytes for layer in session.cache.layers)
    return metrics.size_in_bytes(teacher) - norms + cache


# %%
print(f"with 10 tokens it holds {measured(10):,} bytes; it may hold {4e6 * 0.75:,.0f}")
if passed:
    chip, tiny = (4e6, 0.75, 1e9), (3_768_320, 524_288, 5, 256)
    tokens, speed = longest_context(chip, tiny, (4, 4, 32), 32)
    print(f"you say that {tokens} tokens fit: {measured(tokens):,} bytes")
    print(f"one more: {measured(tokens + 1):,} bytes")
    assert measured(tokens) <= 3e6 < measured(tokens + 1)
print("" if passed else "First solve this exercise: then your context stands here.", end="")

# %% [markdown]
# Now the devices of the chapter, each of which gives a model half of its memory. Weights have 4 bits, the table 8, the cache 16. Both models called 7B have an output layer of the table's shape beside it, which is counted with the table.

# %%
shapes = {
    "SmolLM2-135M": (106_168_320, 28_311_552, 30, 192),
    "Llama-2-7B": (6_476_005_376, 262_144_000, 32, 4096),
    "Mistral-7B": (6_979_321_856, 262_144_000, 32, 1024),
}
for device in deployment.DEVICES if passed else ():
    print(device.name)
    for name, shape in shapes.items():
        given = (device.memory, 0.5, device.bandwidth)
        tokens, speed = longest_context(given, shape, (4, 8, 16), 32)
        print(f"  {name}: {tokens:,} tokens fit, {speed:.1f} a second at most")
print("" if passed else "First solve this exercise: then the devices stand here.", end="")

# %% [markdown] tags=["solution"]
# **Why.** "7B" is a name: one has 6.7 billion weights, the other 7.2, and at four bits and a half that is 270 MB. On 8 GB both just fit, Mistral with a quarter of the room, and yet it holds nearly as many tokens: its heads share their keys, so a token costs it a quarter. With a memory of twice the size that decides, and Mistral holds more than three times as much. (Llama 2 was trained for 4,096 tokens, so its cache never gets longer.)
#
# SmolLM2 has places for 8,192 tokens, so its memory is no limit there. And whatever fills 4.3 GB, weights or context, is written at 18 tokens a second at most, since all of it is read for each. The speed that a maker tells is mostly that of an empty cache.
#
# Bits that hide in a scale are easy to forget: half a bit for each weight is an eighth of 4 bits, here 400 MB.

# %% tags=["solution"]
for name in ("Llama-2-7B", "Mistral-7B"):
    for memory in (8 * 2**30, 16 * 2**30):
        tokens, _ = longest_context((memory, 0.5, 76.8e9), shapes[name], (4, 8, 16), 32)
        print(f"{name} with {memory >> 30} GB: {tokens:,} tokens")
for memory in (0.18e9, 0.36e9, 8.6e9):
    tokens, speed = longest_context((memory, 0.5, 76.8e9), shapes["SmolLM2-135M"], (4, 8, 16), 32)
    print(f"SmolLM2 behind {tokens:,} tokens: {speed:.0f} a second at most")

# %% [markdown]
# ## Exercise 2 · The first bytes of a GGUF file ★★ (20 minutes)
#
# A GGUF file tells what it is before its first weight. No library is needed to read that: only which byte means what. All numbers have their smallest digits first (*little endian*, in `struct` a `<`). There are these kinds of values:
#
# | kind | 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 10 | 11 | 12 |
# |---|---|---|---|---|---|---|---|---|---|---|---|
# | | uint8 | int8 | uint16 | int16 | uint32 | int32 | float32 | bool | uint64 | int64 | float64 |
# | `struct` | `B` | `b` | `H` | `h` | `I` | `i` | `f` | `?` | `Q` | `q` | `d` |
#
# - kind **8**, a string: its length in bytes (uint64), then so many bytes of UTF-8;
# - kind **9**, an array: the kind of all its entries (uint32), how many there are (uint64), then the entries one after the other.
#
# **First** write `read_value(data, place, kind)`, which reads one value:
#
# - `data`: a NumPy array of bytes (uint8); `place`: where the value begins, counted from the start of `data`; `kind`: a whole number from 0 to 12;
# - returns two things: the **value**, a number, a bool or a string, or for an array **how many entries** it has; and the **place of the first byte behind** it. An array's entries are not returned, but what comes behind them can only be found by walking past.
#
# **Predict** first: SmolLM2's file has 98 MB. How many of them stand before the list of its tensors, and what takes most of that?
#
# <details><summary>Hint 1</summary><code>struct.unpack_from("&lt;I", data, place)</code> returns a tuple with one number. <code>struct.calcsize("&lt;I")</code> tells how many bytes it has.</details>
# <details><summary>Hint 2</summary><code>data[a:b].tobytes().decode()</code> is the text of some bytes.</details>
# <details><summary>Hint 3</summary>A string begins with a value of kind 10, and an array with one of kind 4 and one of kind 10: your function may call itself. So it may for each entry of an array, where only the new place matters.</details>


# %%
def read_value(data, place, kind):
    """Return one value that begins at a place, and the place behind it."""
    ### BEGIN SOLUTION
    if kind == 9:
        inner, place = read_value(data, place, 4)
        length, place = read_value(data, place, 10)
        for _ in range(length):
            _, place = read_value(data, place, inner)
        return length, place
    if kind == 8:
        length, place = read_value(data, place, 10)
        return data[place : place + length].tobytes().decode(), place + length
    form = "<" + "BbHhIif?  Qqd"[kind]
    return struct.unpack_from(form, data, place)[0], place + struct.calcsize(form)
    ### END SOLUTION


# %%
passed = checks.check_read_value(read_value)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# **Then** write `read_header(data)`, with the help of `read_value`. A file begins so:
#
# 1. four bytes, `b"GGUF"`;
# 2. the version (uint32), the number of tensors (uint64), the number of pairs (uint64);
# 3. the pairs, one after the other: a **key** (a string), the **kind** of the value (uint32), the **value**.
#
# It returns three things: the version, the number of tensors, and the pairs, a list of tuples (key, value) in the order of the file. Of a file that begins with any other four bytes it returns `0, 0, []`.
#
# <details><summary>Hint</summary>A place is passed from value to value: <code>name, place = read_value(data, place, 8)</code>. The first pair begins at byte 24.</details>


# %%
def read_header(data):
    """Return a GGUF file's version, its number of tensors, and its pairs of key and value."""
    ### BEGIN SOLUTION
    if data[:4].tobytes() != b"GGUF":
        return 0, 0, []
    version, tensors, count = struct.unpack_from("<IQQ", data, 4)
    place, pairs = 24, []
    for _ in range(count):
        key, place = read_value(data, place, 8)
        kind, place = read_value(data, place, 4)
        value, place = read_value(data, place, kind)
        pairs.append((key, value))
    return version, tensors, pairs
    ### END SOLUTION


# %%
passed = checks.check_read_header(read_header)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# **In the real file.** SmolLM2 came to us as a GGUF file. Your function reads its first 4 MB, and the package `gguf`, of those who made the format, reads the same file: all pairs must agree. The control is MiniLM's file, which is none.

# %%
from gguf import GGUFReader

(path,) = assets.path("smollm2").glob("*.gguf")
start = np.fromfile(path, np.uint8, count=4_000_000)
other = np.fromfile(assets.path("minilm") / "model.safetensors", np.uint8, count=4_000_000)
fields = {name: field.contents() for name, field in GGUFReader(path).fields.items()}
wanted = {
    name: len(value) if isinstance(value, list) else value
    for name, value in fields.items()
    if not name.startswith("GGUF.")
}
print("gguf finds", len(wanted), "pairs, from", next(iter(wanted)), "on")

# %%
if passed:
    version, tensors, pairs = read_header(start)
    print(f"you find version {version}, {tensors} tensors, {len(pairs)} pairs, among them:")
    for key in ("general.architecture", "llama.block_count", "tokenizer.ggml.tokens"):
        print(f"  {key}: {dict(pairs)[key]}")
    assert version == fields["GGUF.version"] and tensors == fields["GGUF.tensor_count"]
    assert dict(pairs) == wanted
    print("MiniLM's file:", read_header(other))
    assert read_header(other) == (0, 0, [])
print("" if passed else "First solve this exercise: then your pairs stand here.", end="")

# %% [markdown] tags=["solution"]
# **Why.** 1.77 MB stand before the tensors, and nearly all of it is the vocabulary: 49,152 tokens, a kind for each, and 48,900 pairs by which the tokenizer merges them. All else, the shape of the model among it, takes fewer than 2,000 bytes. So a single file is enough to run the model, words included. It is also why a reader has to *walk*: no table says where a pair begins, and a string's length is known only when one stands in front of it.
#
# Version 1 counted in 32 bits, and there are files for machines that put the largest digits first. A reader that meant to be used would look at the version before it believed a length; ours would take any number for one.

# %% tags=["solution"]
place, sizes = 24, {}
for _ in range(len(pairs)):
    begin = place
    key, place = read_value(start, place, 8)
    kind, place = read_value(start, place, 4)
    _, place = read_value(start, place, kind)
    sizes[key] = place - begin
print(f"{place / 1e6:.2f} MB before the tensors")
largest = sorted(sizes, key=sizes.get)[-3:]
print({key: sizes[key] for key in largest}, "and all others", place - sum(map(sizes.get, largest)))

# %% [markdown]
# ## Exercise 3 · A fair race ★ (15 minutes)
#
# Two programs do the same work, and took turns at it: in each **round** both ran once, one right after the other. The machine has other things to do, slows down, and now and then stops for a moment. Write `fair_ratio(old, new, warmup)`:
#
# - `old`, `new`: two tensors of shape (rounds,), the seconds that each took in each round;
# - `warmup`: how many rounds at the front do not count, since memory is fetched and caches are filled in them;
# - returns four things: **how many times as fast** the new one is, the **median** of the ratios of all rounds that count; the **lower and the upper quartile** of these ratios, as `torch.quantile` finds them for 0.25 and 0.75; and a **verdict**: `"faster"` if both quartiles are above 1, `"slower"` if both are below, and `"no difference"` otherwise.
#
# **Predict** first: a program is timed 40 times, and so is the very same program. One reports the best time of the second beside the mean of the first. How many times as fast is it?
#
# <details><summary>Hint 1</summary>The old time divided by the new one, round by round, is one line. It has as many entries as there are rounds.</details>
# <details><summary>Hint 2</summary><code>ratios.quantile(0.25)</code> is the lower quartile. The median is a quantile, too.</details>
# <details><summary>Hint 3</summary>Both are above 1 if the lower one is, and both below if the upper one is.</details>


# %%
def fair_ratio(old, new, warmup):
    """Return how many times as fast the new one is, an interval for it, and a verdict."""
    ### BEGIN SOLUTION
    ratios = (old / new)[warmup:]
    low, ratio, high = (ratios.quantile(share).item() for share in (0.25, 0.5, 0.75))
    if low > 1:
        return ratio, low, high, "faster"
    return ratio, low, high, "slower" if high < 1 else "no difference"
    ### END SOLUTION


# %%
passed = checks.check_fair_ratio(fair_ratio)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# **In the real runtimes.** The smaller of our tiny models reads 16 tokens in PyTorch, and as an ONNX file in ONNX Runtime. An exporter wants a function of tensors alone, so the model is wrapped into one.


# %%
class Logits(torch.nn.Module):
    """The model as a function of ids alone."""

    def __init__(self):
        super().__init__()
        self.model = models.load_tiny_lm("student")

    def forward(self, ids):
        return self.model(input_ids=ids, use_cache=False).logits


# %%
def exported(path, tidy):
    """Write the model as an ONNX file."""
    how = {"dynamo": True, "external_data": False, "verbose": False, "optimize": tidy}
    with quiet():
        torch.onnx.export(student, (ids,), path, **how)
    return path


# %% [markdown]
# Before any clock runs, the answers are compared: a runtime that computes something else is not faster, it is wrong.

# %%
student, ids = Logits().eval(), torch.arange(16)[None]
session = deployment.open_onnx(exported(folder / "tidy.onnx", tidy=True))


def in_onnx():
    """Read the tokens in ONNX Runtime."""
    return session.run(None, {"ids": ids.numpy()})[0]


in_torch = torch.inference_mode()(lambda: student(ids))
gap = np.abs(in_torch().numpy() - in_onnx()).max()
print("the answers differ by less than 0.001:", bool(gap < 0.001))
assert gap < 0.001

# %% [markdown]
# Then they take turns, and who begins changes from round to round. Five rounds warm up, and 200 count. The control is ONNX Runtime against itself.


# %%
def in_turns(*functions, rounds=205):
    """Return the seconds of each function in each round; who begins changes."""
    seconds = torch.zeros(len(functions), rounds, dtype=torch.float64)
    for n in range(rounds):
        for place in range(len(functions))[:: 1 if n % 2 else -1]:
            begun = time.perf_counter()
            functions[place]()
            seconds[place, n] = time.perf_counter() - begun
    return seconds


# %% clock=true
races = {"ONNX Runtime": in_turns(in_torch, in_onnx), "itself": in_turns(in_onnx, in_onnx)}
for name, (old, new) in races.items():
    print(f"{name}: {old.median() * 1e3:.2f} ms against {new.median() * 1e3:.2f} ms", end="")
    if passed:
        ratio, low, high, verdict = fair_ratio(old, new, 5)
        print(f"; {ratio:.2f} times, {low:.2f} times to {high:.2f} times: {verdict}", end="")
        assert verdict == ("no difference" if name == "itself" else "faster")
        assert name != "itself" or 0.8 < ratio < 1.25
    print()
print("" if passed else "First solve this exercise: then your verdicts stand beside.", end="")

# %% [markdown] tags=["solution"]
# **Why.** Here by a few percent, on a restless machine as fast as one likes. The best of many is always below the mean of many, and on a restless machine far below. No machine is needed for such a speedup: only a different statistic on each side.
#
# Both of a round met the same machine. Where it slows down both are slow, and their ratio hardly moves; that is what pairs are for. A median does not care how large the few disturbed rounds were. The quartiles tell how much single rounds differ: a ratio of 1.03 whose quartiles hold 1 is not shown by this cautious rule, which asks that three of four rounds agree. How sure the *median* is, is another question: with more rounds it becomes surer, and the quartiles stay where they are.

# %% clock=true tags=["solution"]
old, new = races["itself"]
print(f"itself, the mean against the best: {old.mean() / new.min():.2f} times as fast")
print(f"itself, in pairs: {fair_ratio(old, new, 5)[0]:.2f} times as fast")
assert old.mean() > 1.01 * new.min()

# %% [markdown]
# ## Exercise 4 · What was left in floats? ★★ (15 minutes)
#
# A quantizer may leave out a layer without a word, and then the file works, and is as slow and nearly as large as before. What it has done stands in the file. Write `left_in_floats(tensors, least)`:
#
# - `tensors`: a list with a tuple for each tensor of a file: its name; its shape, a tuple; its type, a string; and its bytes;
# - `least`: a whole number;
# - returns two things: a list of the **names**, in the order of the file, of all **matrices** that are still floats though they could have been quantized; and an int, **how many bytes they waste**: what they take above 8 bits for each number.
#
# A matrix has two dimensions, and here **both** must be at least `least`: norms, biases and tables of scales stay in floats, and weigh little. Floats are the types `"F64"`, `"F32"`, `"F16"` and `"BF16"`. All others have been quantized, as `"I8"` and `"F8_E4M3"`, or are no weights, as `"I64"`.
#
# **Predict** first: a quantizer is given a model of 28 linear layers and a vocabulary table, 4.46 MB in floats. It reports no error and writes a file. If it has done all of it, how many MB will that hold? And if it has found only the table, which is a quarter of the model?
#
# <details><summary>Hint 1</summary><code>for name, shape, kind, size in tensors</code> takes the tuples apart.</details>
# <details><summary>Hint 2</summary>A shape may have any number of entries, none included: ask for two before you look at them. The smaller side decides.</details>
# <details><summary>Hint 3</summary>With 8 bits a matrix would take a byte for each number. So much of its bytes is not wasted.</details>


# %%
def left_in_floats(tensors, least):
    """Return the names of matrices that are still floats, and the bytes that they waste."""
    ### BEGIN SOLUTION
    names, wasted = [], 0
    for name, shape, kind, size in tensors:
        floats = kind in ("F64", "F32", "F16", "BF16")
        if floats and len(shape) == 2 and min(shape) >= least:
            names.append(name)
            wasted += size - shape[0] * shape[1]
    return names, wasted
    ### END SOLUTION


# %%
passed = checks.check_left_in_floats(left_in_floats)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# **In the real file.** The tiny model has become an ONNX file for the race. It becomes another one here, in which the exporter may not tidy up its graph: that is a flag which people set when something goes wrong. Both are then quantized by ONNX Runtime's own `quantize_dynamic`, and nothing else differs.

# %%
import onnx
from onnxruntime.quantization import quantize_dynamic

TYPES = {"FLOAT": "F32", "FLOAT16": "F16", "INT8": "I8", "UINT8": "U8", "INT64": "I64"}


def listed(path):
    """Return name, shape, type and bytes of each tensor in an ONNX file."""
    held = onnx.load(path).graph.initializer
    arrays = [onnx.numpy_helper.to_array(tensor) for tensor in held]
    names = [onnx.TensorProto.DataType.Name(tensor.data_type) for tensor in held]
    kinds = [TYPES.get(name, name) for name in names]
    parts = zip(held, arrays, kinds, strict=True)
    return [(tensor.name, array.shape, kind, array.nbytes) for tensor, array, kind in parts]


# %% [markdown]
# All sides of this model's matrices are 128 or more. A quantizer that has missed nothing leaves an empty list.

# %%
untidy = exported(folder / "untidy.onnx", tidy=False)
for name in ("tidy", "untidy"):
    with quiet():
        quantize_dynamic(folder / f"{name}.onnx", folder / f"{name}-8.onnx")
    before, after = (listed(folder / f"{name}{end}.onnx") for end in ("", "-8"))
    sizes = [sum(size for *_, size in tensors) / 1e6 for tensors in (before, after)]
    print(f"{name}: {sizes[0]:.2f} MB of numbers, quantized {sizes[1]:.2f} MB")
    if passed:
        names, wasted = left_in_floats(after, 128)
        print(f"  you find {len(names)} matrices in floats, and {wasted / 1e6:.2f} MB wasted")
        assert len(names) == (28 if name == "untidy" else 0)
print("" if passed else "First solve this exercise: then your finds stand below each.", end="")

# %% [markdown] tags=["solution"]
# **Why.** 1.12 MB, a quarter, if all of it is done; with the table alone 3.67 MB. That is smaller, so one might be content. No error was reported, for there was none: in the untidy graph a weight passes through a node that turns rows to columns before it meets the inputs. What the quantizer looks for is a product with a *stored* matrix. It finds a product with the answer of another node, and passes on. Tidied up, the turned matrix is what is stored. (ONNX Runtime's own `quant_pre_process`, which its manual recommends, tidies up as well.) (Nine products of floats are left there: eight in attention, both sides of which are computed, and the output layer, which shares the table's bytes.)
#
# The check needs no clock, no text and no other file. It belongs into whatever makes your files, beside two others: do the answers agree, and is a run of it faster?
#
# `least` is a rule of thumb. A table of scales has a side that is 32 or 128 times smaller than its matrix, so in a large model it may have two sides above 128, too. Then take `least` from the width of the model.

# %% tags=["solution"]
missed, _ = left_in_floats(listed(folder / "untidy-8.onnx"), 128)
print("missed:", missed[0], "and", len(missed) - 1, "others")
for file in ("tidy", "untidy"):
    found = deployment.onnx_summary(folder / f"{file}-8.onnx").operators
    wanted = ("MatMul", "MatMulInteger", "Transpose")
    print(file, {operator: found.get(operator, 0) for operator in wanted})

# %% [markdown]
# ## Wrap-up
#
# You told what fits, read a file's header byte by byte, judged a race, and found what a quantizer had left out. None of the four changes a model. They are what stands between a model that is good on your machine and one that runs on another: a bound before the download, a look into the file, an answer that is compared before a clock is, and a list of what should not be there.
