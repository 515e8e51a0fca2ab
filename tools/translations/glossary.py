"""The course's terms and what they are called in Chinese: ``sources/glossary.csv``.

A line is a term. In its English and Chinese, ``|`` stands between forms of it: where a paragraph
has one of the English ones, its translation has one of the Chinese ones.
"""

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tools.translations import keeping


@dataclass(frozen=True)
class Term:
    """A term: its forms in both languages, and what it means, in a line each."""

    english: tuple[str, ...]
    chinese: tuple[str, ...]
    meaning: str
    meaning_zh: str


@cache
def terms(root: Path) -> tuple[Term, ...]:
    """Return the terms of the course, the longest first: "scale" is not meant in "fine scale"."""
    with (root / "sources" / "glossary.csv").open(encoding="utf-8", newline="") as file:
        found = [
            Term(
                tuple(r["English"].split("|")), tuple(r["中文"].split("|")), r["meaning"], r["含义"]
            )
            for r in csv.DictReader(file)
        ]
    return tuple(sorted(found, key=lambda term: -max(map(len, term.english))))


def complaints(english: str, chinese: str, root: Path) -> Iterator[str]:
    """Yield the terms that a paragraph has and its translation calls something else."""
    for part in (keeping.CODE, keeping.FORMULA, keeping.TARGET):
        english = part.sub(" ", english)
    english = " ".join(english.replace("*", "").split())
    chinese = chinese.replace("*", "")
    for term in terms(root):
        pattern = rf"(?<![\w-])(?:{'|'.join(map(re.escape, term.english))})s?(?![\w])"
        english, count = re.subn(pattern, "_", english, flags=re.IGNORECASE)
        if count and not any(word in chinese for word in term.chinese + term.english):
            yield f"{term.english[0]!r} is {' or '.join(term.chinese)} (sources/glossary.csv)"
