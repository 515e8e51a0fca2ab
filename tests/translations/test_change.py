"""A changed English sentence makes one test fail, which names the room and the paragraph."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from tools import notebooks

COPIED = ("chapters", "exercises", "lightcourse", "solutions", "sources", "tests", "tools", "zh")
OLD, NEW = "section 5 explains it.", "section 5 explains it well."
RENEW = """
from tools import notebooks
for path, book in notebooks.unexecuted(notebooks.ROOT).items():
    notebooks.renew(book, path)
from tools.translations.__main__ import update
update()
"""


@pytest.mark.timeout(400)  # it runs the tests of all catalogues
def test_a_changed_sentence_is_named_by_one_test(tmp_path):
    for folder in COPIED:
        ignore = shutil.ignore_patterns("bundled", "__pycache__")
        shutil.copytree(notebooks.ROOT / folder, tmp_path / folder, ignore=ignore)
    for file in ("conftest.py", "pyproject.toml"):
        shutil.copy(notebooks.ROOT / file, tmp_path)
    chapter = tmp_path / "sources" / "00_start" / "chapter.py"
    text = chapter.read_text(encoding="utf-8")
    assert OLD in text
    chapter.write_text(text.replace(OLD, NEW), encoding="utf-8")
    run(tmp_path, "-c", RENEW)
    told = run(tmp_path, "-m", "pytest", "-q", "tests/translations/test_catalogues.py")
    failed = re.findall(r"(?m)^FAILED \S+::(\S+)", told)
    assert failed == ["test_every_paragraph_has_a_translation_that_fits[00_start]"], told
    assert f"chapter.py, cell 3: The next cell takes some 20 seconds; {NEW}" in told
    shown = (tmp_path / "zh" / "chapters" / "00_start.ipynb").read_text(encoding="utf-8")
    assert NEW in shown


def run(folder, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    return done.stdout + done.stderr
