"""A submission's card: what it claims of itself, for readers and for the grader."""

import math
import re
from pathlib import Path

from lightcourse.capstone.looking import CARD, NEEDED, look
from lightcourse.deployment import ModelCard
from lightcourse.ledger import Row

CLAIMS = ("bytes", "accuracy", "share_of_time")
SHAPE = """---
claims:
  bytes: 3912345
  accuracy: 0.931
  share_of_time: 0.21
---"""
FACTBOOK = {"The World Factbook (CIA)": "public domain"}


def read_claims(text: str) -> dict[str, float]:
    """Return what a card's head claims, by name: bytes, accuracy and share_of_time.

    Only these three lines are looked for. A reader of all that YAML can say would be a larger
    door than a grader needs.

    Raises
    ------
    ValueError
        With a sentence for the card's author, when a claim is missing or no number.
    """
    head = re.match(r"---\r?\n(.*?)\r?\n---", text, re.DOTALL)
    part = re.search(r"(?m)^claims:[ \t]*\r?\n((?:[ \t]+.*\r?\n?)+)", head[1]) if head else None
    if part is None:
        raise ValueError(f"{CARD} has no claims in its head; it begins like this:\n{SHAPE}")
    lines = (line.partition(":") for line in part[1].splitlines())
    told = {name.strip(): value.strip() for name, _, value in lines}
    return {name: _number(name, told.get(name)) for name in CLAIMS}


def _number(name, text):
    if text is None:
        raise ValueError(f"{CARD} claims no {name}; the three claims are {', '.join(CLAIMS)}")
    if not re.fullmatch(r"\d{1,15}(\.\d{1,20})?(e-\d{1,2})?", text):
        raise ValueError(f"{CARD} claims {name} {text[:50]!r}; a number is wanted")
    return float(text)


def claim(
    folder: str | Path,
    report,
    about: str,
    limits: str,
    trained: int = 0,
    licence: str = "apache-2.0",
) -> Path:
    """Write a submission's card: what :func:`measure` found, as a model card with claims.

    Parameters
    ----------
    folder : path
        After :func:`save_submission`.
    report : Report
        Of this folder.
    about, limits : str
        What the model is and how it was made; what it was not made for, what was not looked at.
    trained : int
        Parameters that were trained.
    licence : str
        The model's. MiniLM's is Apache 2.0.

    Returns
    -------
    path
        Of README.md.

    Raises
    ------
    ValueError
        When the report is of another folder's bytes, or was refused; as ``ModelCard``.
    """
    folder = Path(folder)
    if report.refused or report.bytes != (now := look(folder).bytes):
        why = report.refused or f"of {report.bytes:,} bytes, and the folder has {now:,}"
        raise ValueError(f"report is no measurement of this folder: {why}")
    card = ModelCard(
        about=about,
        limits=limits,
        row=Row(folder.resolve().name, report.bytes, trained, report.accuracy, report.latency),
        measure="accuracy",
        groups={"section": report.sections},
        paths=[folder / name for name in NEEDED],
        licence=licence,
        data=FACTBOOK,
        base_model="sentence-transformers/all-MiniLM-L6-v2",
        claims=claims_of(report),
    )
    return card.save(folder)


def claims_of(report) -> dict[str, float]:
    """Return a report's figures as claims: rounded so that they claim no more than was found."""
    accuracy = math.floor(report.accuracy * 1000) / 1000
    return {
        "bytes": report.bytes,
        "accuracy": accuracy,
        "share_of_time": math.ceil(report.share_of_time * 1000) / 1000,
    }
