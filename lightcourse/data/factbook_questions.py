"""Questions about the Factbook whose passage is known: made by rule, and written by hand."""

import json
import re
from functools import cache

from lightcourse.data.bundled import BUNDLED, COUNTRIES, load_factbook
from lightcourse.data.splits import SPLITS

# A question, and what its passage looks like; the group is the answer. Where the passages of a
# country fit in two places, or in none, the question is not asked.
RULES = (
    ("What is the birth rate of {}?", "People", r"([\d.]+) births/1,000 population"),
    ("What is the death rate of {}?", "People", r"([\d.]+) deaths/1,000 population"),
    ("What is the infant mortality of {}?", "People", r"([\d.]+) deaths/1,000 live births"),
    ("What is the maternal mortality of {}?", "People", r"([\d.]+) deaths/100,000 live births"),
    ("What is the net migration rate of {}?", "People", r"(-?[\d.]+) migrant\(s\)/1,000"),
    ("How many soldiers are in the army of {}?", "Military", r".*?([\d,-]+) active"),
    ("Who is the prime minister of {}?", "Government", r"Prime Minister (.+?) \(since"),
    ("Who is the president of {}?", "Government", r"President (.+?) \(since"),
    ("What does the flag of {} look like?", "Government", r"description: (.+?) meaning:"),
    (
        "When was the constitution of {} adopted?",
        "Government",
        r"several previous; .*?(\d+ \w+ \d{4})",
    ),
    ("Which countries border {}?", "Geography", r"((?:[A-Z][\w ().-]+? [\d,.]+ km[;,]? ?){2,})$"),
    (
        "What is the climate of {}?",
        "Geography",
        r"((?:temperate|tropical|mostly arid|maritime)\b.+)",
    ),
    ("How large is {}, compared with the states of the US?", "Geography", r"(.*\bsize of .+)"),
    ("How fast do the cities of {} grow?", "People", r"(-?[\d.]+%) annual rate of change"),
)


def load_factbook_questions(kind: str = "written", split: str = "test") -> list[dict]:
    """Return questions about countries of one split, with the passage that answers each.

    No labelled questions about the Factbook exist: these are **made**. What is measured with
    them is true of them alone.

    Parameters
    ----------
    kind : str
        ``"written"``: 48, by hand, in other words than the passage's (no word of four letters or
        more is in both, but for the country's name), about ten countries of the test split that a
        seeded draw chose before any result was seen. ``"by rule"``: 14 topics for each
        country of the split whose passages fit. ``"own words"``: the passages of these, asked for
        by the country and the passage's four longest words. ``"unanswerable"``: 20, by hand, that
        the Factbook does not answer. What was written by hand is about ``"test"`` alone.
    split : str
        ``"train"``, ``"validation"`` or ``"test"``.

    Returns
    -------
    list of dict
        question, country (a two-letter code), passage (its whole text) and answer, which is a
        part of the passage; both are None where there is none.

    Raises
    ------
    ValueError
        When there is no such kind or split, or nothing was written for the split.
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; one of {SPLITS} is wanted")
    rows = list(load_factbook()[split])
    ruled = (found for rule in RULES for found in _asked(rule, rows))
    if kind in ("by rule", "own words"):
        return [_remembered(line) if kind == "own words" else line for line in ruled]
    if kind not in ("written", "unanswerable") or split != "test":
        raise ValueError(
            f"kind is {kind!r} of {split!r}; 'by rule' or 'own words', or of 'test' 'written' or "
            "'unanswerable', is wanted"
        )
    lines = json.loads((BUNDLED / "factbook-questions.json").read_text(encoding="utf-8"))
    chosen = [line for line in lines if (line["answer"] is None) == (kind == "unanswerable")]
    return [line | {"passage": _whole(line, rows)} for line in chosen]


def load_country_names() -> dict[str, str]:
    """Return each country's name by the Factbook's code of two letters."""
    return dict(_names())


@cache
def _names():
    return json.loads(COUNTRIES.read_text(encoding="utf-8"))


def _whole(line, rows):
    """Return the passage that begins as a written question says."""
    if line["passage"] is None:
        return None
    texts = [row["text"] for row in rows if row["country"] == line["country"]]
    return next(text for text in texts if text.startswith(line["passage"]))


def _remembered(line):
    """Ask for a passage as somebody does who remembers its rarest words."""
    longest = sorted(set(line["passage"].split()), key=lambda word: (-len(word), word))[:4]
    return line | {"question": " ".join([_names()[line["country"]], *longest])}


def _asked(rule, rows):
    """Yield one question for each country that has exactly one passage of the rule's form."""
    question, section, form = rule
    found = {}
    for row in rows:
        if row["section"].startswith(section) and (match := re.match(form, row["text"])):
            found.setdefault(row["country"], []).append((row["text"], match[1].strip()))
    for country, matches in found.items():
        if len(matches) == 1:
            name = _names()[country]
            passage, answer = matches[0]
            said = {"question": question.format(name), "country": country}
            yield said | {"passage": passage, "answer": answer}
