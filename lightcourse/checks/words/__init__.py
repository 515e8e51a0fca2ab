"""What the checks say, apart from their code, so that it can be said in another language.

A folder for each language holds one TOML file for each chapter, in it one table for each
exercise, in that one sentence for each mistake, by the mistake's id. ``general.toml`` has what
belongs to no exercise, with fields in braces.
"""

from functools import cache
from pathlib import Path

from lightcourse import language as languages

FOLDER = Path(__file__).parent


def sentences(exercise: str, language: str | None = None) -> dict[str, str]:
    """Return what there is to say of each mistake of an exercise.

    Parameters
    ----------
    exercise : str
        Its name, for instance ``"wanda"``; ``"general"`` stands for what fits every exercise,
        ``"command"`` for what ``lightcourse check`` says around them.
    language : str, optional
        The name of a folder beside this file; by default the one that is spoken now. What is
        missing there is said in English.

    Returns
    -------
    dict of str to str
        From the mistake's id to the sentence.

    Examples
    --------
    >>> sentences("wanda")["magnitude_only"]
    'that is magnitude: the inputs do not count at all'
    """
    language = language or languages.current()
    return {**_tables("en").get(exercise, {}), **_tables(language).get(exercise, {})}


def say(phrase: str, **fields) -> str:
    """Return a general sentence with its fields filled in.

    Examples
    --------
    >>> say("shape", wanted=(3,), returned=(2, 2))
    'shape (3,) is wanted, (2, 2) was returned'
    """
    return sentences("general")[phrase].format(**fields)


def command(phrase: str, **fields) -> str:
    """Return a sentence of the command line with its fields filled in.

    Examples
    --------
    >>> command("passed", passed=1, count=2)
    '1 of 2 checks pass'
    """
    return sentences("command")[phrase].format(**fields)


@cache
def _tables(language):
    """Read all files of a language, at the first sentence: a right answer needs none."""
    import tomllib

    files = sorted((FOLDER / language).glob("*.toml"))
    tables = [tomllib.loads(file.read_text(encoding="utf-8")) for file in files]
    return {exercise: table for each in tables for exercise, table in each.items()}
