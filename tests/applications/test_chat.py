"""The program in the terminal goes on, whatever happens to one answer."""

import io

import pytest

from lightcourse.applications import chat


def interrupted(messages):
    yield "half an "
    raise KeyboardInterrupt


def refused(messages):
    raise ValueError("messages: too long")


def echo(messages):
    yield from (messages[-1]["content"], "!")


def test_talk_shows_pieces_and_keeps_turns():
    out, history = io.StringIO(), [{"role": "system", "content": "be brief"}]
    chat.talk(echo, ["one", "  ", "two"], history, out)
    assert out.getvalue() == "one!\ntwo!\n"
    assert [m["content"] for m in history] == ["be brief", "one", "one!", "two", "two!"]
    assert [m["role"] for m in history] == ["system", *chat.ROLES, *chat.ROLES]


def test_an_interrupt_ends_the_answer_and_not_the_chat():
    out, history = io.StringIO(), []
    chat.talk(interrupted, ["one", "two"], history, out)
    assert out.getvalue() == "half an \nhalf an \n"
    assert len(history) == 4 and history[1]["content"] == "half an "


def test_a_line_that_is_refused_is_told_and_dropped():
    out, history = io.StringIO(), []
    chat.talk(refused, ["one"], history, out)
    assert out.getvalue() == "messages: too long\n" and not history


def test_typed_ends_with_its_input(monkeypatch):
    lines = iter(["one", KeyboardInterrupt, "two", EOFError])

    def said(prompt):
        line = next(lines)
        if isinstance(line, str):
            return line
        raise line

    monkeypatch.setattr("builtins.input", said)
    assert list(chat.typed()) == ["one", "two"]


def test_main_answers_greedily(monkeypatch, capsys):
    monkeypatch.setattr(chat, "load_chat", lambda bits: (bits, "tokenizer"))
    monkeypatch.setattr(chat, "typed", lambda: ["hello"])
    monkeypatch.setattr(chat, "answer", lambda model, t, messages, *how: [str(model), str(how[0])])
    assert chat.main(["--greedy", "--bits", "4", "--length", "9"]) == 0
    assert capsys.readouterr().out.endswith("49\n")


def test_main_without_its_model(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("LIGHTCOURSE_CACHE", str(tmp_path))
    assert chat.main([]) == 1
    assert "lightcourse assets smollm2" in capsys.readouterr().err


def test_main_refuses_other_bits(capsys):
    with pytest.raises(SystemExit):
        chat.main(["--bits", "3"])
    assert "--bits" in capsys.readouterr().err
