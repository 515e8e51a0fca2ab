"""Bars are drawn where somebody looks."""

import io
import sys

from lightcourse import progress


def test_a_terminal_is_told_from_a_pipe(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert not progress.in_terminal()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert progress.in_terminal()


def test_a_bar_draws_unless_it_is_silenced(monkeypatch, capsys):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    list(progress.bar(range(3), desc="counting"))
    assert "counting: 100%" in capsys.readouterr().err
    list(progress.bar(range(3), show=False))
    monkeypatch.setenv("TQDM_DISABLE", "1")
    list(progress.bar(range(3)))
    assert capsys.readouterr().err == ""
