"""Finding a class's notebooks on disk, and reading them warily."""

import os

import pytest

from lightcourse.classroom import submissions

NOTEBOOK = "03_pruning.ipynb"


def put(path, text="{}"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def found(folder):
    return {
        s.learner: s.path and s.path.relative_to(folder) for s in submissions.find(folder, NOTEBOOK)
    }


def test_one_folder_a_learner(tmp_path):
    for name in ("bob", "alice"):
        put(tmp_path / name / NOTEBOOK)
        put(tmp_path / name / "04_linear_quantization.ipynb")
    put(tmp_path / ".git" / "x")
    put(tmp_path / "list.csv")
    assert list(found(tmp_path)) == ["alice", "bob"]
    assert str(found(tmp_path)["bob"]) == f"bob/{NOTEBOOK}"


@pytest.mark.parametrize("inner", ["", "submitted"])
def test_nbgraders_layout_from_either_folder(inner, tmp_path):
    put(tmp_path / "submitted" / "alice" / "03_pruning" / NOTEBOOK)
    put(tmp_path / "source" / "03_pruning" / NOTEBOOK)
    (found,) = submissions.find(tmp_path / inner, NOTEBOOK)
    assert found.learner == "alice"
    assert found.path == tmp_path / "submitted" / "alice" / "03_pruning" / NOTEBOOK


def test_moodles_layout(tmp_path):
    put(tmp_path / "Ana López_12_assignsubmission_file_" / NOTEBOOK)
    put(tmp_path / "Ana López_13_assignsubmission_file" / NOTEBOOK)
    put(tmp_path / "Ana López_13_assignsubmission_onlinetext_" / "onlinetext.html")
    assert list(found(tmp_path)) == ["Ana López_12", "Ana López_13"]


def test_two_folders_never_get_one_name(tmp_path):
    put(tmp_path / "a_1" / NOTEBOOK)
    put(tmp_path / "a_1_assignsubmission_file_" / NOTEBOOK)
    put(tmp_path / "b\n" / NOTEBOOK)
    put(tmp_path / r"b\n" / NOTEBOOK)
    assert len(found(tmp_path)) == 4


def test_a_notebook_by_another_name_is_taken_where_there_is_one(tmp_path):
    put(tmp_path / "one" / "03_pruning (1).ipynb")
    put(tmp_path / "none" / "notes.txt")
    one, none = sorted(submissions.find(tmp_path, NOTEBOOK), key=lambda s: s.path is None)
    assert one.path.name == "03_pruning (1).ipynb"
    assert one.remark == "graded 03_pruning (1).ipynb"
    assert none.remark == f"no notebook {NOTEBOOK}"


def test_a_plain_file_is_read_and_nothing_else(tmp_path):
    put(tmp_path / "plain.ipynb", "text")
    assert submissions.content(tmp_path / "plain.ipynb") == b"text"
    (tmp_path / "link.ipynb").symlink_to(tmp_path / "plain.ipynb")
    with pytest.raises(ValueError, match="symbolic link"):
        submissions.content(tmp_path / "link.ipynb")
    with pytest.raises(ValueError, match="plain file|cannot be opened"):
        submissions.content(tmp_path)
    with pytest.raises(ValueError, match="cannot be opened: No such file"):
        submissions.content(tmp_path / "nowhere.ipynb")


@pytest.mark.skipif(not hasattr(os, "truncate"), reason="needs a file with a hole")
def test_a_file_that_is_too_large_is_left(tmp_path):
    put(tmp_path / "large.ipynb")
    os.truncate(tmp_path / "large.ipynb", submissions.MOST_BYTES + 1)
    with pytest.raises(ValueError, match="more than 20 MiB"):
        submissions.content(tmp_path / "large.ipynb")
