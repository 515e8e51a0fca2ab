"""The keys of variants: which numbers each has, and which answers they want. Data, never code."""

import hashlib
import json
import re
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from lightcourse.classroom.variants import Question

MOST_BYTES = 2**18
MOST_KEYS = 5000
NO_ID = (
    "the notebook does not say which variant it is; was it made anew, or handed out without one?"
)
NO_KEY = "no key is for the variant that the notebook says it is"
NOT_YOURS = "the notebook is the variant of somebody else"


@dataclass(frozen=True)
class Key:
    """The key of one variant.

    Parameters
    ----------
    chapter : str
        The notebook's name, such as ``"03_pruning"``.
    variant : str
        The id, which stands in the notebook's metadata too.
    learner : str
        Whose it is; empty where anybody may have it.
    numbers : dict of str to dict
        By question.
    wanted : dict
        The right answer by question.
    """

    chapter: str
    variant: str
    learner: str
    numbers: dict
    wanted: dict


def new_key(chapter: str, variant: str, learner: str, numbers: dict) -> Key:
    """Return the key of a variant, its answers found by the references of the checks."""
    from lightcourse.checks import BY_HAND, by_hand

    wanted = {name: by_hand.find_wanted(BY_HAND[name], given) for name, given in numbers.items()}
    return Key(chapter, variant, learner, numbers, wanted)


def as_text(key: Key) -> str:
    """Return what stands in a key's file: JSON."""
    return json.dumps(asdict(key), indent=1, ensure_ascii=False) + "\n"


def read_keys(path: str | Path, chapter: str, questions: dict[str, Question]) -> dict[str, Key]:
    """Return the keys in a folder, or the one in a file, by their ids.

    Each is held against the course: its numbers are ones that a variant may have, and its answers
    those that the references find.

    Raises
    ------
    ValueError
        With the file's name, when a key is not as it should be, or there are two of an id.
    """
    path = Path(path)
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files or len(files) > MOST_KEYS:
        raise ValueError(f"{path} holds {len(files)} keys (*.json); 1 to {MOST_KEYS} are wanted")
    found = [_read(file, chapter, questions) for file in files]
    twice = [variant for variant, n in Counter(key.variant for key in found).items() if n > 1]
    if twice:
        raise ValueError(f"{path} holds several keys of the variant {twice[0]}; one is wanted")
    return {key.variant: key for key in found}


def digest_of(keys: dict[str, Key]) -> str:
    """Return a hash of keys: other keys, other verdicts."""
    return hashlib.sha256("".join(map(as_text, keys.values())).encode()).hexdigest()


def _read(file, chapter, questions):
    try:
        content = _content(file)
        key = Key(**json.loads(content, parse_constant=_refuse))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{file} is no key: {str(error)[:200]}") from error
    if key.chapter != chapter:
        raise ValueError(
            f"{file} is a key of {str(key.chapter)[:80]!r}; one of {chapter} is wanted"
        )
    _look_at(key, file, questions)
    return key


def _content(file):
    if file.is_symlink() or not file.is_file():
        raise ValueError("a plain file is wanted")
    with open(file, "rb") as opened:
        content = opened.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"it has more than {MOST_BYTES >> 10} KiB")
    return content.decode("utf-8")


def _refuse(name):
    raise ValueError(f"{name} is no number of a key")


def _look_at(key, file, questions):
    """Raise ValueError unless a key says what this course would say of its numbers."""
    from lightcourse.checks import BY_HAND, by_hand

    if not (isinstance(key.variant, str) and re.fullmatch(r"[0-9a-f]{12}", key.variant)):
        raise ValueError(f"{file} names no variant; an id of 12 hexadecimal digits is wanted")
    if not (isinstance(key.learner, str) and isinstance(key.numbers, dict)):
        raise ValueError(f"{file} names no learner or no numbers; a text and an object are wanted")
    asked = isinstance(key.wanted, dict) and set(key.wanted) == set(key.numbers) == set(questions)
    if not asked:
        raise ValueError(f"{file} must have numbers and answers for {', '.join(questions)}")
    for name, question in questions.items():
        if not question.allows(key.numbers[name]):
            raise ValueError(f"{file}: the numbers of {name} are none that this course deals")
        wanted = by_hand.find_wanted(BY_HAND[name], key.numbers[name])
        if not by_hand.agree(key.wanted[name], wanted, 1e-4):
            raise ValueError(f"{file}: the answer of {name} is not what its numbers give here")


def assigned(keys: dict[str, Key], variant: str, learner: str) -> tuple[Key | None, str]:
    """Return (the key by which a learner's notebook is judged, why there is none)."""
    if not variant:
        return None, NO_ID
    if variant not in keys:
        return None, NO_KEY
    key = keys[variant]
    if key.learner and not _is(key.learner, learner, {other.learner for other in keys.values()}):
        return None, NOT_YOURS
    return key, ""


def _is(name, learner, names):
    """Tell whether a submission's learner is the one of that name; Moodle puts a number behind."""
    if learner in names:
        return learner == name
    return re.sub(r"_\d+$", "", learner) == name
