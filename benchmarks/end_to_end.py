"""Time whole models: MiniLM encoding, SmolLM2 generating.

Usage: python -m benchmarks.end_to_end [--quick] [--threads 1 2]

All contestants take turns. Writes a table and the raw figures to benchmarks/results/.
"""

import argparse
import datetime
import statistics
from functools import partial

import torch

from benchmarks import encoding, generation, machine, tables, timing
from benchmarks.bench import RESULTS, save
from lightcourse import files

EXACT = "torch fp32"
MISSING = (ImportError, OSError)


def main():
    """Measure, save, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few rounds, in two minutes")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    name = f"{datetime.date.today()}-models{'-quick' if options.quick else ''}"
    result = {"date": str(datetime.datetime.now().astimezone()), "machine": machine.describe()}
    result |= {"absent": {}, "encoding": {}, "generation": {}}
    rounds = 2 if options.quick else 9
    with torch.inference_mode():
        for threads in options.threads:
            result["encoding"][threads] = encode(threads, rounds, result["absent"])
            result["generation"][threads] = generate(threads, (rounds + 1) // 2, result["absent"])
            save(RESULTS / f"{name}.json", result)
    text = "\n\n".join(compose(result)) + "\n"
    files.write_atomically(RESULTS / f"{name}.md", lambda path: path.write_text(text))
    print(text)


def enter(prepare, absent) -> dict:
    """Let every contestant that is there prepare itself."""
    field = {}
    for name, function in prepare.items():
        try:
            field[name] = function()
        except MISSING as error:
            absent[name] = f"{type(error).__name__}: {error}"
    return field


def encode(threads, rounds, absent):
    """Return for each encoder its seconds, and its least cosine with float32's vectors."""
    inputs = encoding.batch()
    prepare = {n: partial(f, inputs, threads) for n, f in encoding.ENCODERS.items()}
    field = enter(prepare, absent)
    mask = inputs["attention_mask"]
    vectors = {name: encoding.pooled(call(), mask) for name, call in field.items()}
    calls = {name: [call] for name, call in field.items()}
    times = timing.in_turns(calls, 0, least=rounds, settle=threads > 1)
    for name, found in times.items():
        found["cosine"] = float((vectors[name] * vectors[EXACT]).sum(1).min())
    return times


def generate(threads, rounds, absent):
    """Return for each generator seconds for the prompt and a token, and the common prefix."""
    prepare = {n: partial(f, threads) for n, f in generation.GENERATORS.items()}
    field, ids = enter(prepare, absent), generation.prompt()
    runs = {name: [] for name in field}
    for run in range(rounds + 1):
        for name, function in field.items():
            timing.wait_until_quiet()
            found = function(ids, generation.TOKENS if run else 4)
            if run:  # the first one warms up
                runs[name].append(found)
    exact = runs[EXACT][0][0]
    return {name: _summary(found, exact, len(ids)) for name, found in runs.items()}


def _summary(runs, exact, prompt_tokens):
    tokens = runs[0][0]
    return {
        "prompt": statistics.median(prompt for _, prompt, _ in runs) / prompt_tokens,
        "token": statistics.median(rest for _, _, rest in runs) / (len(tokens) - 1),
        "prefix": generation.common_prefix(tokens, exact),
        "tokens": tokens,
    }


def compose(result):
    """Yield the report's paragraphs."""
    yield f"# Whole models against their peers, {result['date'][:10]}"
    yield tables.markdown(["the machine", ""], result["machine"].items())
    if result["absent"]:
        yield "Absent: " + "; ".join(f"{n} ({why})" for n, why in result["absent"].items())
    for threads, found in result["encoding"].items():
        yield f"## MiniLM encodes 32 x 128 tokens, {_count(threads)}"
        yield encoding_table(found)
    for threads, found in result["generation"].items():
        yield f"## SmolLM2-135M continues a prompt by {generation.TOKENS} tokens, {_count(threads)}"
        yield generation_table(found)
    yield "## The texts"
    yield from texts(result["generation"][max(result["generation"])])


def encoding_table(found) -> str:
    """Return time, tokens a second, the ratio to float32, and the least cosine."""
    tokens, exact = encoding.TEXTS * encoding.TOKENS, found[EXACT]["median"]
    rows = [
        [name, f"{1e3 * f['median']:.0f}", f"{tokens / f['median']:.0f}"]
        + [f"{exact / f['median']:.2f}", f"{f['cosine']:.4f}"]
        for name, f in sorted(found.items(), key=lambda pair: pair[1]["median"])
    ]
    header = ["", "ms", "tokens/s", "times float32's speed", "least cosine with float32"]
    return tables.markdown(header, rows)


def generation_table(found) -> str:
    """Return times for prompt and tokens, and how long the text is float32's."""
    exact = found[EXACT]["token"]
    rows = [
        [name, f"{1e3 * f['token']:.1f}", f"{1 / f['token']:.0f}", f"{1 / f['prompt']:.0f}"]
        + [f"{exact / f['token']:.2f}", f["prefix"]]
        for name, f in sorted(found.items(), key=lambda pair: pair[1]["token"])
    ]
    header = ["", "ms/token", "tokens/s", "prompt, tokens/s", "times float32's speed"]
    return tables.markdown([*header, "tokens as float32's"], rows)


def texts(found):
    """Yield what each generator wrote."""
    from lightcourse import models

    tokenizer = models.load_smollm2_tokenizer()
    for name, one in found.items():
        text = " ".join(tokenizer.decode(one["tokens"]).split())
        yield f"**{name}:** {text}"


def _count(threads):
    return f"{threads} thread{'s' * (int(threads) > 1)}"


if __name__ == "__main__":
    main()
