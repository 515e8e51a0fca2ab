"""The tables of a class: what spreadsheets and browsers get to see."""

import csv
import io

import pytest

from lightcourse.classroom import results


def row(message="", stopped="", error="x"):
    answers = [{"check": "checks.check_a(f)", "passed": not message, "message": message}]
    raised = [{"cell": 2, "error": error}]
    found = {"points": int(not message), "answers": answers, "stopped": stopped, "raised": raised}
    return {**found, "isolation": "namespaces", "sha256": "0", "remark": ""}


def made(**learners):
    head = {"chapter": "00_start", "checks": ["checks.check_a(f)"], "seed": 7, "version": "1"}
    return {**head, "layers": {"namespaces": "shut in"}, "learners": learners}


def test_what_was_saved_is_loaded(tmp_path):
    found = made(ann=row(), bob=row("no", "the time limit"))
    results.save(found, tmp_path)
    assert results.load(tmp_path) == found
    assert results.load(tmp_path / "nowhere") == {}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"learners": 1}', '{"learners": {"a": {}}}'])
def test_what_is_no_result_is_refused(text, tmp_path):
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(ValueError, match="move it away"):
        results.load(tmp_path)


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t="])
def test_no_cell_is_a_formula(start):
    learner = f'{start}cmd|"A1",x'
    text = results.table(made(**{learner: row(f"{start}1", f"{start}2")}))
    (_, line) = csv.reader(io.StringIO(text))
    assert line[0] == f"'{learner}"
    assert not any(cell.startswith(("=", "+", "-", "@", "\t")) for cell in line)
    assert line[1:3] == ["0", "1"]


def test_a_page_holds_no_tag_of_a_learners_and_fetches_nothing():
    bad = "<img src=x onerror=alert(1)>\"'&"
    page = results.page(made(**{bad: row(bad, bad, bad)}))
    assert "<img" not in page
    assert page.count("&lt;img src=x onerror=alert(1)&gt;&quot;&#x27;&amp;") == 4
    assert "http" not in page.replace("http-equiv", "")
    assert "default-src 'none'" in page
    assert "checks.check_a(f): 0 passed" in page


def test_names_that_are_no_letters_are_written_too(tmp_path):
    results.save_tables(made(**{"\udcff": row()}), tmp_path)
    assert r"\udcff" in (tmp_path / "results.csv").read_text(encoding="utf-8")
