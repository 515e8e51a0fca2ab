"""Time whole models: MiniLM encoding, SmolLM2 generating.

Usage: python -m benchmarks.end_to_end [--quick] [--threads 1 2] [--limit 300]

All contestants take turns, each in a process of its own. Writes a table and the raw figures to
benchmarks/results/; the raw figures after each table, so that a run that was killed leaves them.
"""

import argparse
import math
import statistics

from benchmarks import encoding, generation, tables, timing
from benchmarks.bench import add_options, begin, save
from benchmarks.workers import Crew, Failed
from lightcourse import files

EXACT = "torch fp32"


def main():
    """Measure, save, report."""
    options = parse()
    stem, result = begin("models", options)
    rounds = 2 if options.quick else 9
    jobs = {"encoding": (encode, rounds), "generation": (generate, (rounds + 1) // 2)}
    try:
        for threads in map(str, options.threads):  # as JSON's keys are
            for kind, (measure, count) in jobs.items():
                tables_so_far = result.setdefault(kind, {})
                if threads not in tables_so_far:
                    with Crew(options.limit) as crew:
                        tables_so_far[threads] = measure(crew, int(threads), count)
                    save(f"{stem}.json", result)
    finally:  # also after Ctrl-C: what there is
        text = "\n\n".join(compose(result)) + "\n"
        files.write_atomically(f"{stem}.md", lambda path: path.write_text(text, encoding="utf-8"))
        print(text)


def parse():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few rounds, in five minutes")
    add_options(parser).set_defaults(limit=300)
    return parser.parse_args()


def enter(crew, question, contestants, *arguments):
    """Ask every contestant; return the answers, and why there is none."""
    answers, failed = {}, {}
    for name, contestant in contestants.items():
        try:
            answers[name] = crew.ask(name, question, contestant, *arguments)
        except Failed as failure:
            failed[name] = failure.reason
    return answers, failed


def encode(crew, threads, rounds):
    """Return for each encoder its seconds, and its least cosine with float32's vectors."""
    answers, failed = enter(crew, encoding.prepare, encoding.ENCODERS, threads)
    vectors, estimates = ({n: answer[i] for n, answer in answers.items()} for i in (0, 1))
    turns = {n: lambda n=n: crew.ask(n, encoding.take_a_turn) for n in answers}
    times, stopped = timing.in_turns(turns, estimates, 0, least=rounds)
    for name, found in times.items():
        exact = vectors.get(EXACT, math.nan)
        found["cosine"] = float((vectors[name] * exact).sum(1).min())
    return times | told(failed) | told({name: f.reason for name, f in stopped.items()})


def told(reasons) -> dict:
    """Return what stands where a figure would."""
    return {name: {"failed": reason} for name, reason in reasons.items()}


def generate(crew, threads, rounds):
    """Return for each generator its times, its perplexity, and the common prefix."""
    answers, failed = enter(crew, generation.prepare, generation.GENERATORS, threads)
    asked = {name: [] for name in answers}
    for question in [generation.judge] + rounds * [generation.run]:
        for name in [name for name in asked if name not in failed]:
            try:
                asked[name].append(crew.ask(name, question))
            except Failed as failure:
                failed[name] = failure.reason
    asked = {name: found for name, found in asked.items() if name not in failed}
    exact = asked[EXACT][1]["tokens"] if EXACT in asked else []
    return {name: _summary(*found, exact=exact) for name, found in asked.items()} | told(failed)


def _summary(perplexity, *runs, exact):
    tokens = runs[0]["tokens"]
    times = [f"prompt {length}" for length in generation.PROMPTS] + ["token"]
    found = {name: statistics.median(run[name] for run in runs) for name in times}
    prefix = generation.common_prefix(tokens, exact)
    return found | {"perplexity": perplexity, "prefix": prefix, "tokens": tokens}


def compose(result):
    """Yield the report's paragraphs."""
    processor = result["machine"].get("processor", "?").partition(" (family")[0]
    yield f"# Whole models against their peers, {processor}, {result['date'][:10]}"
    yield tables.markdown(["the machine", ""], result["machine"].items())
    for threads, found in result.get("encoding", {}).items():
        yield f"## MiniLM encodes 32 x 128 tokens, {_count(threads)}"
        yield encoding_table(found)
    for threads, found in result.get("generation", {}).items():
        yield f"## SmolLM2-135M continues a prompt by {generation.TOKENS} tokens, {_count(threads)}"
        yield generation_table(found)
    if result.get("generation"):
        yield "## The texts"
        yield from texts(result["generation"][max(result["generation"])])


def encoding_table(found) -> str:
    """Return time, tokens a second, the ratio to float32, and the least cosine."""
    tokens, exact = encoding.TEXTS * encoding.TOKENS, _of(found, EXACT, "median")
    rows = [
        [name, f"{1e3 * f['median']:.0f}", f"{tokens / f['median']:.0f}"]
        + [f"{exact / f['median']:.2f}", f"{f['cosine']:.4f}"]
        for name, f in _fastest_first(found, "median")
    ]
    header = ["", "ms", "tokens/s", "times float32's speed", "least cosine with float32"]
    return tables.markdown(header, rows + _failures(found, len(header)))


def generation_table(found) -> str:
    """Return times for prompts and tokens, the perplexity, and how long the text is float32's."""
    exact = _of(found, EXACT, "token")
    rows = [
        [name, f"{1e3 * f['token']:.1f}", f"{1 / f['token']:.0f}", f"{exact / f['token']:.2f}"]
        + [f"{length / f[f'prompt {length}']:.0f}" for length in generation.PROMPTS]
        + [f"{f['perplexity']:.2f}", f["prefix"]]
        for name, f in _fastest_first(found, "token")
    ]
    header = ["", "ms/token", "tokens/s", "times float32's speed"]
    header += [f"prompt of {length}, tokens/s" for length in generation.PROMPTS]
    header += ["perplexity", "tokens as float32's"]
    return tables.markdown(header, rows + _failures(found, len(header)))


def _of(found, name, key):
    return found.get(name, {}).get(key, math.nan)


def _fastest_first(found, key):
    there = [(name, figures) for name, figures in found.items() if "failed" not in figures]
    return sorted(there, key=lambda pair: pair[1][key])


def _failures(found, columns):
    """Return a row for each that failed, the reason beside its name."""
    reasons = [(name, f["failed"]) for name, f in found.items() if "failed" in f]
    return [[name, reason, *[""] * (columns - 2)] for name, reason in reasons]


def texts(found):
    """Yield what each generator wrote."""
    from lightcourse import models

    tokenizer = models.load_smollm2_tokenizer()
    for name, one in found.items():
        if "failed" not in one:
            text = " ".join(tokenizer.decode(one["tokens"]).split())
            yield f"**{name}:** {text}"


def _count(threads):
    return f"{threads} thread{'s' * (int(threads) > 1)}"


if __name__ == "__main__":
    main()
