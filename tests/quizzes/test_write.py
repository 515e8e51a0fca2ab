"""Quizzes as files: every format, atomically, in a folder that need not be there."""

import pytest

from lightcourse import quizzes
from tests.quizzes.toys import TOY


@pytest.mark.parametrize(
    ("form", "file", "content"),
    [
        ("moodle", "99_toy.moodle.xml", quizzes.moodle_xml),
        ("qti", "99_toy.qti.zip", quizzes.qti_package),
        ("print", "99_toy.html", quizzes.printed_page),
    ],
)
def test_a_file_is_written_and_replaced(tmp_path, form, file, content):
    for _ in range(2):
        assert quizzes.write_quiz(TOY, form, tmp_path / "new") == tmp_path / "new" / file
    assert (tmp_path / "new" / file).read_bytes() == content(TOY)
    assert [path.name for path in (tmp_path / "new").iterdir()] == [file]


def test_what_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(ValueError, match="form is 'word'; one of moodle, qti, print is wanted"):
        quizzes.write_quiz(TOY, "word", tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="folder is the file"):
        quizzes.write_quiz(TOY, "print", tmp_path / "file")
