"""Who speaks which language: the notebook's metadata say it, and nobody else needs to."""

import json

import pytest

from lightcourse import checks, cli, language
from lightcourse.checks import words

CHINESE = json.dumps({"metadata": {"lightcourse": {"language": "zh"}}})


@pytest.fixture(autouse=True)
def silent(monkeypatch):
    monkeypatch.delenv(language.VARIABLE, raising=False)
    monkeypatch.delenv(language.SESSION, raising=False)
    language._of_file.cache_clear()
    yield
    language._of_file.cache_clear()


def test_a_kernel_speaks_as_the_notebook_of_its_session(tmp_path, monkeypatch):
    assert language.current() == "en"
    (tmp_path / "a.ipynb").write_text(CHINESE)
    monkeypatch.setenv(language.SESSION, str(tmp_path / "a.ipynb"))
    assert language.current() == "zh"
    monkeypatch.setenv(language.VARIABLE, "en")
    assert language.current() == "en"


@pytest.mark.parametrize("name", ["none.ipynb", "", "../zh"])
def test_a_session_without_a_notebook_speaks_english(name, tmp_path, monkeypatch):
    monkeypatch.setenv(language.SESSION, str(tmp_path / name))
    assert language.current() == "en"


@pytest.mark.parametrize("named", ["../en", 7, None, ["zh"], "xx"])
def test_a_language_that_is_none_is_english(named):
    content = json.dumps({"metadata": {"lightcourse": {"language": named}}}).encode()
    assert language.of_notebook(content) == "en"


def test_a_check_speaks_the_language_around_it(capsys):
    with language.spoken("zh"):
        assert not checks.check_keep_mask(lambda weight, sparsity: ...)
    assert "还没有写" in capsys.readouterr().out
    assert not checks.check_keep_mask(lambda weight, sparsity: ...)
    assert "not written yet" in capsys.readouterr().out


def notebook(tmp_path, tongue):
    from nbformat.v4 import new_code_cell, new_notebook, writes

    mistake = "def keep_mask(weight, sparsity):\n    import torch\n"
    mistake += "    remove = round(sparsity * weight.numel())\n"
    mistake += "    mask = torch.ones(weight.numel(), dtype=torch.bool)\n"
    mistake += "    mask[weight.abs().flatten().argsort()[:remove]] = False\n"
    mistake += "    return ~mask.view(weight.shape)"
    calls = ["from lightcourse import checks", mistake, "checks.check_keep_mask(keep_mask)"]
    found = new_notebook(cells=[new_code_cell(call) for call in calls])
    found.metadata["lightcourse"] = {"language": tongue}
    (tmp_path / "mine.ipynb").write_text(writes(found), encoding="utf-8")
    return str(tmp_path / "mine.ipynb")


def test_check_answers_in_the_notebooks_language(tmp_path, capsys):
    assert cli.main(["check", notebook(tmp_path, "zh")]) == 1
    said = capsys.readouterr().out
    assert "检查来自这个文件本身" in said and "1 项检查中通过了 0 项" in said
    assert words.sentences("keep_mask", "zh")["mask_upside_down"] in said.replace("\n    ", "")


def test_check_answers_in_english_otherwise(tmp_path, capsys):
    assert cli.main(["check", notebook(tmp_path, "en")]) == 1
    assert "the mask is upside down" in capsys.readouterr().out


@pytest.mark.parametrize("number", ["00", "99"])
def test_lab_opens_the_chinese_chapter_or_says_that_there_is_none(
    number, tmp_path, monkeypatch, capsys
):
    for name in ("chapters/00_start", "chapters/99_new", "zh/chapters/00_start"):
        file = tmp_path / f"{name}.ipynb"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("{}")
    monkeypatch.chdir(tmp_path / "zh")  # which is no course of its own
    monkeypatch.setattr(cli, "_hand_over", lambda command, folder: command)
    monkeypatch.setattr(cli.os, "environ", dict(cli.os.environ))
    command = cli.main(["lab", "--lang", "zh", number])
    wanted = {"00": "zh/chapters/00_start", "99": "chapters/99_new"}[number]
    assert f"--LabApp.default_url=/lab/tree/{wanted}.ipynb" in command
    assert ("只有英文版" in capsys.readouterr().out) == (number == "99")
