"""MiniLM as a file on every runtime: bytes, start, latency and likeness.

Usage: python -m benchmarks.deployment [--quick] [--folder FILES] [--limit 300]

One sentence at a time, on one thread. All contestants take turns, each in a process of its own; a
runtime that is not installed is a row that says how to install it. Writes a table and the raw
figures to benchmarks/results/. --folder keeps the files, and takes those that it holds already.
"""

import argparse
import math
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks import exports, openers, tables, timing
from benchmarks.bench import begin, save
from benchmarks.end_to_end import enter, told
from benchmarks.silence import silence
from benchmarks.workers import Crew
from lightcourse import files

EXACT = "torch fp32"
# Who writes the file, who opens it, and what it is called.
RUNTIMES = {
    EXACT: (exports.weights, openers.torch_float, "torch/model.safetensors"),
    "lightcourse W8A8": (exports.integers, openers.ours, "ours/model.safetensors"),
    "ONNX Runtime fp32": (exports.onnx, openers.onnx_runtime, "onnx/model.onnx"),
    "ONNX Runtime, our W8A8": (exports.onnx_integers, openers.onnx_runtime, "onnx-8/model.onnx"),
    "ExecuTorch fp32": (exports.executorch, openers.executorch, "executorch/model.pte"),
    "ExecuTorch W8A8": (exports.executorch_integers, openers.executorch, "executorch-8/model.pte"),
    "OpenVINO, stored in fp16": (exports.openvino, openers.openvino, "openvino/model.xml"),
    "OpenVINO W8": (exports.openvino_integers, openers.openvino, "openvino-8/model.xml"),
    "LiteRT fp32": (exports.litert, openers.litert, "litert/model.tflite"),
}
INSTALL = {
    "ONNX": '`pip install -c constraints.txt -e ".[practice]"`',
    "ExecuTorch": '`pip install -c constraints.txt -e ".[edge]"`',
    "OpenVINO": '`pip install -c constraints.txt -e ".[edge]"`',
    "LiteRT": "see docs/other-runtimes.md",
}
ROOT = Path(__file__).parents[1]
STARTS = 3
HOW = f"""\
{len(exports.TEXTS)} sentences, padded to {exports.TOKENS} tokens, are read one after the other on
one thread. *Start* is the time from a new Python to its first answer: imports, the file, what is
compiled for the processor; the median of {STARTS} starts with the file in the system's cache.
*ms a sentence* is the median of calls that take turns with all others'. W8A8: 8-bit weights in
linear layers and inputs rounded as they come; W8: 8-bit weights, tables too. A program of torch or
ours needs transformers beside its file; the other files hold the whole graph."""


def main():
    """Measure, save, report."""
    options = parse()
    stem, result = begin("deployment", options)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.folder or temporary)
        found = measure(folder, 3 if options.quick else 30, options.limit)
        result["deployment"] = {"1": found}  # by threads, as with whole models
    save(f"{stem}.json", result)
    text = "\n\n".join(compose(result)) + "\n"
    files.write_atomically(f"{stem}.md", lambda path: path.write_text(text, encoding="utf-8"))
    print(text)


def parse():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few rounds")
    parser.add_argument("--folder", help="where files stay; by default they are gone at the end")
    parser.add_argument("--limit", type=float, default=300, help="seconds for one answer of a peer")
    parser.set_defaults(resume=False)
    return parser.parse_args()


def measure(folder, rounds, limit):
    """Return for each runtime bytes, seconds of start and of a sentence, and the least cosine."""
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "sentences.npy", exports.sentences())
    with Crew(limit) as crew:  # who has exported holds memory, and others open its file
        sizes, absent = enter(crew, write, RUNTIMES, folder)
    with Crew(limit) as crew:
        answers, lost = enter(crew, prepare, among(sizes), folder)
        starts, broken = enter(crew, start, among(answers), folder)
        turns = {name: lambda name=name: crew.ask(name, take_a_turn) for name in starts}
        estimates = {name: seconds for name, (_, seconds) in answers.items()}
        times, stopped = timing.in_turns(turns, estimates, 0, least=rounds)
    exact = answers[EXACT][0] if EXACT in answers else math.nan
    for name, found in times.items():
        cosine = float((answers[name][0] * exact).sum(-1).min())
        found |= {"bytes": sizes[name], "start": starts[name], "cosine": cosine}
    stopped = {name: failure.reason for name, failure in stopped.items()}
    return times | told(absent | lost | broken | stopped)


def among(names):
    """Return the runtimes that are named."""
    return {name: RUNTIMES[name] for name in names}


def write(state, runtime, folder):
    """Write a file where it is not there yet, whole or not at all; return its bytes."""
    writer, _, file = runtime
    place = (folder / file).parent
    if not place.exists():
        with tempfile.TemporaryDirectory(dir=folder) as unfinished, silence():
            writer(str(Path(unfinished) / Path(file).name))
            Path(unfinished).rename(place)
            Path(unfinished).mkdir()  # for who wants to remove it
    return sum(part.stat().st_size for part in place.iterdir())


def prepare(state, runtime, folder):
    """Open a file; return the vectors of all texts, and the seconds of one call."""
    _, opener, file = runtime
    given = np.load(folder / "sentences.npy")
    with silence():
        call = opener(str(folder / file))
    calls = [lambda one=one: call(*one) for one in given]
    vectors = np.concatenate([np.array(call()) for call in calls])
    state["contestant"] = timing.Contestant(calls, settle=False)
    return vectors, state["contestant"].estimate


def take_a_turn(state):
    """Return the seconds of one turn's calls."""
    return state["contestant"].take_a_turn()


def start(state, runtime, folder) -> float:
    """Return the seconds from a new Python to its first answer, the median of some starts."""
    return statistics.median(_start(runtime, folder) for _ in range(STARTS))


def _start(runtime, folder):
    _, opener, file = runtime
    asked = opener.__module__, opener.__name__, folder / file, folder / "sentences.npy"
    command = [sys.executable, "-m", "benchmarks.openers", *map(str, asked)]
    begun = time.time()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return float(done.stdout.split()[-1]) - begun


def compose(result):
    """Yield the report's paragraphs."""
    processor = result["machine"].get("processor", "?").partition(" (family")[0]
    yield f"# MiniLM on every runtime, {processor}, {result['date'][:10]}"
    yield tables.markdown(["the machine", ""], result["machine"].items())
    yield HOW
    yield table(result["deployment"]["1"])


def table(found) -> str:
    """Return a row for each runtime, the fastest first, and for each that took no part."""
    there = sorted((f["median"], name) for name, f in found.items() if "failed" not in f)
    rows = [row(name, found[name]) for _, name in there]
    rows += [
        [name, why_not(name, f["failed"]), *[""] * 3] for name, f in found.items() if "failed" in f
    ]
    header = ["", "MB on disk", "start, s", "ms a sentence", "least cosine with float32"]
    return tables.markdown(header, rows)


def row(name, found):
    """Write one runtime's figures."""
    figures = found["bytes"] / 1e6, found["start"], 1e3 * found["median"], found["cosine"]
    return [name, *map("{:.{}f}".format, figures, (1, 1, 2, 5))]


def why_not(name, reason) -> str:
    """Say why there is no figure; of who is absent, how it is installed."""
    if not reason.startswith("not installed"):
        return reason
    return f"not installed: {INSTALL[name.partition(' ')[0].strip(',')]}"


if __name__ == "__main__":
    main()
