"""A chat in the terminal with SmolLM2: ``python -m lightcourse.applications.chat``."""

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator

import torch

import lightcourse
from lightcourse import assets, generation, models, quantization
from lightcourse.applications.replies import ROLES, Remembering, answer


def load_chat(bits: int = 8):
    """Return SmolLM2 in integers, jitted and remembering, and its tokenizer.

    Parameters
    ----------
    bits : int
        Of the weights; below 8 with a scale for each 32. Inputs, the table of words and the output
        layer have 8.

    Raises
    ------
    lightcourse.assets.AssetMissing
        When SmolLM2 was not fetched yet.
    """
    model, tokenizer = models.load_smollm2(), models.load_smollm2_tokenizer()
    groups = {} if bits == 8 else {"group_size": 32}
    quantization.quantize_(model, bits, activations=8, embeddings=8, **groups)
    return Remembering(generation.jit(model)), tokenizer


def talk(reply: Callable[[list], Iterable[str]], lines: Iterable[str], history: list, out) -> None:
    """Answer line after line, showing each piece as it comes.

    Ctrl-C (``KeyboardInterrupt``) ends an answer; what was shown of it stays in the history. A
    line that cannot be answered is told, and dropped.

    Parameters
    ----------
    reply : callable
        From messages to the answer's pieces.
    lines : iterable of str
        What the user says; empty lines are passed over.
    history : list of dict
        The messages so far, such as a system message; it grows.
    out : text file
    """
    for line in filter(None, map(str.strip, lines)):
        said = []
        try:
            for piece in reply([*history, {"role": "user", "content": line}]):
                said.append(piece)
                print(piece, end="", file=out, flush=True)
        except KeyboardInterrupt:
            pass
        except ValueError as error:
            print(error, end="", file=out)
        print(file=out)
        if said:
            both = zip(ROLES, (line, "".join(said)), strict=True)
            history += [{"role": role, "content": text} for role, text in both]


def typed() -> Iterator[str]:
    """Yield what is typed, line by line, until the input ends (Ctrl-D)."""
    while True:
        try:
            yield input("> ")
        except EOFError:
            return
        except KeyboardInterrupt:
            print("\n(Ctrl-D ends the chat)")


def main(arguments: list[str] | None = None) -> int:
    """Chat in the terminal; return the exit status."""
    options = _options(arguments)
    lightcourse.setup(seed=options.seed)
    try:
        model, tokenizer = load_chat(options.bits)
    except assets.AssetMissing as error:
        print(error, file=sys.stderr)
        return 1
    choose = generation.likeliest
    if not options.greedy:
        dice = torch.Generator().manual_seed(options.seed)
        choose = generation.sampled(options.temperature, dice, top_p=0.9)
    history = [{"role": "system", "content": options.system}] if options.system else []
    how = options.length, choose, options.stop
    print("Ctrl-C ends an answer, Ctrl-D the chat.")
    talk(lambda messages: answer(model, tokenizer, messages, *how), typed(), history, sys.stdout)
    return 0


def _options(arguments):
    parser = argparse.ArgumentParser(prog="python -m lightcourse.applications.chat")
    parser.add_argument("--bits", type=int, choices=(4, 8), default=8, help="of the weights")
    parser.add_argument("--greedy", action="store_true", help="always the likeliest token")
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--length", type=int, default=256, help="tokens of an answer, at most")
    parser.add_argument("--stop", nargs="*", default=[], help="words that end an answer")
    parser.add_argument("--system", help="what the model is told first")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
