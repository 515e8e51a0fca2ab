"""Layers of GPT-NeoX-20B compressed in less memory than they fill, beside the disk's own speed.

Usage: python -m benchmarks.streaming [--quick] [--layers 2] [--folder FOLDER]

Writes shards of random float16 numbers of the real shapes, reads and writes as many bytes plainly,
and compresses them, each in a process of its own whose memory the system limits. Every file is
first dropped from the system's cache. Writes a table and the raw figures to benchmarks/results/.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks import tables
from benchmarks.bench import begin, save
from lightcourse import files, streaming

HIDDEN, HEADS, VOCABULARY = 6144, 64, 1024  # of the 20B's 50,432: tables are only copied
ALLOWED = 2**30  # bytes of data that a process may have, Python and torch included
WAYS = {"8 bits, a scale a row": (8, None), "4 bits in groups of 128": (4, 128)}
ROOT = Path(__file__).parents[1]
BLOCK = 2**24
HOW = """\
{layers} layers of GPT-NeoX-20B (hidden 6144), {gb:.2f} GB of random float16 numbers in {shards}
shards, on one thread, in a process that may have {allowed:.2f} GB of data: less than it reads.
*GB/s* counts the bytes of the checkpoint; a plain write, with fsync, and a plain read move as many.
*peak* is the most resident memory of the process, *grown* what compressing added to what Python,
torch and transformers hold. Files were dropped from the system's cache before."""


def main():
    """Measure, save, report."""
    options = parse()
    if options.one:
        return print(json.dumps(one(*options.one)))
    stem, result = begin("streaming", options)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        result["streaming"] = measure(Path(folder), 1 if options.quick else options.layers)
    save(f"{stem}.json", result)
    text = "\n\n".join(compose(result)) + "\n"
    files.write_atomically(f"{stem}.md", lambda path: path.write_text(text, encoding="utf-8"))
    print(text)


def parse():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one layer")
    parser.add_argument("--layers", type=int, default=2, help="each of 0.9 GB, and 0.5 more")
    parser.add_argument("--folder", help="on the disk to measure; by default the system's own")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    parser.set_defaults(resume=False)
    return parser.parse_args()


def measure(folder, layers, hidden=HIDDEN):
    """Return bytes, shards, and seconds of a plain write, a plain read, and each way."""
    plain = folder / "plain"
    write_checkpoint(plain, layers, hidden)
    paths = sorted(plain.glob("*.safetensors"))
    size = sum(path.stat().st_size for path in paths)
    found = {"bytes": size, "shards": len(paths), "layers": layers, "allowed": ALLOWED}
    found["write"] = write_plainly(folder / "zeros", size)
    (folder / "zeros").unlink()
    forget(paths)
    found["read"] = read_plainly(paths)
    found["ways"] = {way: compressed(folder, plain, paths, way) for way in WAYS}
    return found


def write_checkpoint(folder, layers, hidden):
    """Write random numbers under GPT-NeoX's names, a layer a shard, and their index."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    shape = {"hidden_size": hidden, "intermediate_size": 4 * hidden, "vocab_size": VOCABULARY}
    config = GPTNeoXConfig(**shape, num_hidden_layers=layers, num_attention_heads=HEADS)
    config.architectures, config.dtype = ["GPTNeoXForCausalLM"], "float16"
    config.save_pretrained(folder)
    with torch.device("meta"):
        state = GPTNeoXForCausalLM(config).state_dict()
    shards = {}
    for name, tensor in state.items():
        stored = name.replace("lm_head", "embed_out")
        key = name.split(".")[2] if ".layers." in name else "rest"
        shards.setdefault(f"model-{key}.safetensors", {})[stored] = tensor.shape
    generator = torch.Generator().manual_seed(0)
    for file, shapes in shards.items():
        numbers = {n: torch.randn(s, generator=generator).half() for n, s in shapes.items()}
        files.save_tensors(numbers, folder / file, {"format": "pt"})
    index = {"weight_map": {name: file for file, shapes in shards.items() for name in shapes}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def forget(paths):
    """Let the system's cache drop some files."""
    for path in paths:
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def write_plainly(path, size):
    """Return the seconds of writing so many bytes."""
    block, start = os.urandom(BLOCK), time.perf_counter()
    with open(path, "wb", buffering=0) as file:
        for _ in range(0, size, BLOCK):
            file.write(block)
        os.fsync(file.fileno())
    return time.perf_counter() - start


def read_plainly(paths):
    """Return the seconds of reading some files."""
    memory, start = bytearray(BLOCK), time.perf_counter()
    for path in paths:
        with open(path, "rb", buffering=0) as file:
            while file.readinto(memory):
                pass
    return time.perf_counter() - start


def compressed(folder, plain, paths, way):
    """Return what a process of its own says of compressing a checkpoint."""
    forget(paths)
    out = folder / way.replace(" ", "-")
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.streaming"]
    command += ["--one", str(plain), str(out), way]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if run.returncode:
        raise RuntimeError(run.stderr)
    found = json.loads(run.stdout.splitlines()[-1])
    return found | {"written": sum(path.stat().st_size for path in out.glob("*.safetensors"))}


def one(plain, out, way):
    """Compress under a limit of memory; return seconds, the process's peak, and its growth."""
    import resource

    import transformers

    assert transformers.GPTNeoXForCausalLM  # imported before the clock starts
    torch.set_num_threads(1)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    resource.setrlimit(resource.RLIMIT_DATA, (ALLOWED, ALLOWED))
    start = time.perf_counter()
    streaming.compress(plain, out, streaming.Compression(*WAYS[way]))
    seconds, peak = time.perf_counter() - start, resident("VmHWM")
    return {"seconds": seconds, "peak": peak, "grown": peak - before}


def resident(kind):
    """Return a line of what Linux tells about this process's memory, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(kind))


def compose(result):
    """Yield the report's paragraphs."""
    found = result["streaming"]
    processor = result["machine"].get("processor", "?").partition(" (family")[0]
    yield f"# A checkpoint larger than memory, {processor}, {result['date'][:10]}"
    yield tables.markdown(["the machine", ""], result["machine"].items())
    words = {"gb": found["bytes"] / 1e9, "allowed": found["allowed"] / 1e9}
    yield HOW.format(**words, layers=found["layers"], shards=found["shards"])
    yield tables.markdown(["", "s", "GB/s", "GB written", "peak, MB", "grown, MB"], rows(found))


def rows(found):
    """Yield the table's rows."""
    for what in ("read", "write"):
        yield [f"plain {what}", *speed(found, found[what]), "", "", ""]
    for way, one in found["ways"].items():
        figures = f"{one['written'] / 1e9:.2f}", *(f"{one[k] / 1e6:.0f}" for k in ("peak", "grown"))
        yield [way, *speed(found, one["seconds"]), *figures]


def speed(found, seconds):
    """Write seconds, and the bytes of the checkpoint a second."""
    return f"{seconds:.1f}", f"{found['bytes'] / 1e9 / seconds:.2f}"


if __name__ == "__main__":
    main()
