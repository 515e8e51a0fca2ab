"""What the checks say: each mistake has its sentence, and a chapter's checks are found."""

import ast
import fnmatch
import re
import shutil
import string
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from lightcourse import checks
from lightcourse.checks import words

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "lightcourse"
FILES = sorted((words.FOLDER / "en").glob("[0-9]*.toml"))


def tables(path):
    return tomllib.loads(path.read_text(encoding="utf-8"))


def chapters():
    """Return the exercises of each chapter, as its module of checks has them."""
    found = {}
    for name, exercise in checks.EXERCISES.items():
        module = getattr(checks, name).__module__.rpartition(".")[2]
        found.setdefault(module.removeprefix("ch"), []).append(exercise)
    return found


def test_each_chapter_has_a_file_of_sentences_for_its_exercises():
    assert {path.stem: list(tables(path)) for path in FILES} == {
        chapter: [exercise.name for exercise in found] for chapter, found in chapters().items()
    }


@pytest.mark.parametrize("exercise", checks.EXERCISES.values(), ids=lambda found: found.name)
def test_each_mistake_has_one_sentence_of_its_own(exercise):
    found = words.sentences(exercise.name)
    assert list(found) == list(exercise.mistakes)
    assert all(re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", known) for known in found)
    assert len(set(found.values())) == len(found) and all(found.values())


def said(path):
    """Yield the general phrases that a module says, each with the names of its fields."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "say":
            yield node.args[0].value, {keyword.arg for keyword in node.keywords}


def test_the_general_sentences_are_those_that_are_said_with_their_fields():
    wanted = {
        phrase: {field for _, field, _, _ in string.Formatter().parse(sentence) if field}
        for phrase, sentence in words.sentences("general").items()
    }
    found = [pair for path in (PACKAGE / "checks").glob("*.py") for pair in said(path)]
    assert all(wanted[phrase] == fields for phrase, fields in found)
    assert {phrase for phrase, _ in found} == set(wanted)


@pytest.fixture
def languages(tmp_path, monkeypatch):
    """Two languages, of which one knows half of the other."""
    for language, text in {"en": "a = 'one'\nb = 'two'", "xx": "b = 'deux'"}.items():
        (tmp_path / language).mkdir()
        (tmp_path / language / "00_toy.toml").write_text(f"[toy]\n{text}\n")
    monkeypatch.setattr(words, "FOLDER", tmp_path)
    words._tables.cache_clear()
    yield
    words._tables.cache_clear()


def test_what_a_language_lacks_is_said_in_english(languages):
    assert words.sentences("toy") == {"a": "one", "b": "two"}
    assert words.sentences("toy", language="xx") == {"a": "one", "b": "deux"}
    assert words.sentences("toy", language="yy") == {"a": "one", "b": "two"}


def test_the_sentences_are_installed_with_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["lightcourse"]
    for path in words.FOLDER.rglob("*.toml"):
        name = path.relative_to(PACKAGE).as_posix()
        assert any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


TOY = '''
"""Checks of the exercises of chapter 99."""

from lightcourse.checks.grading import Exercise, grade


def check_double(double) -> bool:
    """Check ``double(x)``."""
    return grade(double, DOUBLE)


MISTAKES = {"half": lambda x: x / 2}
DOUBLE = Exercise("double", lambda x: x + x, lambda seed: [(seed,), (3,)], MISTAKES)
'''
USE = """
from lightcourse import checks
from lightcourse.checks import check_double, check_wanda
assert check_double(lambda x: 2 * x) and not checks.check_double(lambda x: x / 2)
assert {"check_double", "check_wanda"} <= set(dir(checks)) & set(checks.__all__)
"""


def test_the_checks_of_a_new_chapter_are_found(tmp_path):
    ignore = shutil.ignore_patterns("bundled", "__pycache__")
    shutil.copytree(PACKAGE, tmp_path / "lightcourse", ignore=ignore)
    folder = tmp_path / "lightcourse" / "checks"
    (folder / "ch99_toy.py").write_text(TOY, encoding="utf-8")
    sentence = '[double]\nhalf = "that is a half"\n'
    (folder / "words" / "en" / "99_toy.toml").write_text(sentence, encoding="utf-8")
    run = subprocess.run([sys.executable, "-c", USE], cwd=tmp_path, capture_output=True, text=True)
    assert run.stdout == "✓ <lambda>\n✗ <lambda>: that is a half\n", run.stderr


def fields(sentence):
    return {field for _, field, _, _ in string.Formatter().parse(sentence) if field}


@pytest.mark.parametrize("path", sorted(words.FOLDER.glob("zh/*.toml")), ids=lambda p: p.stem)
def test_a_translation_has_the_keys_and_fields_of_the_english_file(path):
    english, chinese = tables(words.FOLDER / "en" / path.name), tables(path)
    assert {e: list(t) for e, t in english.items()} == {e: list(t) for e, t in chinese.items()}
    for exercise, table in chinese.items():
        if path.stem == "general":
            differ = [k for k, s in table.items() if fields(s) != fields(english[exercise][k])]
            assert not differ, differ
        assert all(table.values()) and len(set(table.values())) == len(table)


def test_a_published_chapter_has_its_checks_words():
    published = {path.stem for path in ROOT.glob("zh/exercises/*.ipynb")}
    assert published <= {path.stem for path in words.FOLDER.glob("zh/*.toml")}
