"""Running and grading notebooks; a real kernel is started twice."""

import json
import os
import sys
from pathlib import Path
from queue import Empty

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from lightcourse import headless

CHECKS = """
def check_double(fn):
    for x in (0, 3):
        if fn(x) != 2 * x:
            print(f"✗ for {x} it gave {fn(x)}\\n  twice as much is wanted")
            return False
    print("✓ well doubled")
    return True

def check_truthy(fn):
    return 1

def check_loud(fn):
    print("✓ it says")
    return False
"""


def notebook(*sources):
    return new_notebook(cells=[new_markdown_cell("# t"), *map(new_code_cell, sources)])


def write(path, *sources):
    nbformat.write(notebook(*sources), path)
    return path


@pytest.fixture
def checks(tmp_path, monkeypatch):
    (tmp_path / "made_up_checks.py").write_text(CHECKS, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(headless, "CHECKS", "made_up_checks")
    yield
    sys.modules.pop("made_up_checks", None)


def test_torch_waits_patiently_in_a_chapter_s_kernel(tmp_path):
    code = "import os; assert os.environ['OMP_WAIT_POLICY'] == 'PASSIVE'"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    assert headless.execute(notebook, tmp_path).failure is None


def test_a_missing_file_and_a_file_of_another_kind_are_told_apart(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*nowhere\.ipynb"):
        headless.read_notebook(tmp_path / "nowhere.ipynb")
    for number, content in enumerate([b"hello", b"{}", b"\xff\xfe\x00", b"", b"[1]"]):
        path = tmp_path / f"{number}.ipynb"
        path.write_bytes(content)
        with pytest.raises(ValueError, match="no Jupyter notebook"):
            headless.read_notebook(path)


def test_blank_cells_and_text_are_no_code(tmp_path):
    assert headless.code_cells(notebook("1", " \n", "2")) == ["1", "2"]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("checks.check_a(f)", ["checks.check_a(f)"]),
        ("x = 1\nassert checks.check_a(f), 'no'", ["checks.check_a(f)"]),
        ("checks.check_a(\n    f,\n    seed=1,\n)", ["checks.check_a(f, seed=1)"]),
        ("%matplotlib inline\n!true\nchecks.check_a(f);", ["checks.check_a(f)"]),
        ("checks.check_a(f)\nchecks.check_b(g)\nchecks.check_a(f)", "ab"),
        ("assert not checks.check_a(wrong)", []),
        ("# checks.check_a(f)\n'checks.check_a(f)'", []),
        ("other.check_a(f); check_a(f); checks.show(f)", []),
        ("def half(:\nchecks.check_a(f)", []),
        ("%%timeit\nchecks.check_a(f)", []),
    ],
)
def test_expected_checks_are_the_statements_that_call_one(source, expected):
    expected = ["checks.check_a(f)", "checks.check_b(g)"] if expected == "ab" else expected
    assert headless.expected_checks(notebook(source)) == expected


def evaluate(expression, **namespace):
    return json.loads(headless.evaluate(expression, namespace))


def test_a_check_gives_its_verdict_and_its_message(checks, capsys):
    assert evaluate("checks.check_double(f)", f=lambda x: 2 * x) == [True, "well doubled"]
    passed, message = evaluate("checks.check_double(f)", f=lambda x: x)
    assert not passed
    assert message == "for 3 it gave 3\n  twice as much is wanted"
    assert capsys.readouterr().out == ""


def test_only_true_itself_passes(checks):
    assert evaluate("checks.check_truthy(f)", f=None)[0] is False
    assert evaluate("checks.check_loud(f)", f=None)[0] is False


def test_a_check_that_was_assigned_to_counts_for_nothing(checks):
    import made_up_checks

    made_up_checks.check_double = lambda fn: True
    namespace = {"checks": made_up_checks, "f": lambda x: x}
    assert eval("checks.check_double(f)", namespace) is True
    assert evaluate("checks.check_double(f)", **namespace)[0] is False


def test_what_a_function_raises_is_its_message(checks):
    def leave(x):
        raise SystemExit("bye")

    assert evaluate("checks.check_double(f)") == [False, "NameError: name 'f' is not defined"]
    assert evaluate("checks.check_double(f)", f=leave) == [False, "SystemExit: bye"]


def test_the_first_line_of_a_cell_is_one_that_does_something():
    assert headless.first_line("\n# why\n  x = 1\ny") == "x = 1"
    assert headless.first_line("# only this") == "# only this"


def test_a_report_without_checks_does_not_pass():
    right, wrong = headless.Answer("a", True), headless.Answer("b", False)
    assert not headless.Report().passed
    assert headless.Report(answers=[right]).passed
    assert not headless.Report(answers=[right, wrong]).passed


class StubbornKernel:
    """A client that never answers and its manager, dead or alive."""

    def __init__(self, alive=True, replies=()):
        self.alive, self.replies = alive, list(replies)

    def is_alive(self):
        return self.alive

    def execute(self, code, **options):
        self.options = options
        return "mine"

    def get_shell_msg(self, timeout):
        if not self.replies:
            raise Empty
        identity, content = self.replies.pop(0)
        return {"parent_header": {"msg_id": identity}, "content": content}


def ask(kernel, seconds=0.05):
    deadline = headless.time.monotonic() + seconds
    return headless._run(kernel, kernel, deadline, "code", None)


def test_an_answer_is_waited_for_and_nobody_elses_is_taken():
    ours = {"status": "ok"}
    kernel = StubbornKernel(replies=[("other", {"status": "error"}), ("mine", ours)])
    assert ask(kernel, 30) is ours
    assert kernel.options["allow_stdin"] is False


def test_silence_ends_in_a_timeout_and_death_at_once():
    with pytest.raises(TimeoutError):
        ask(StubbornKernel())
    with pytest.raises(ChildProcessError):
        ask(StubbornKernel(alive=False), 1e9)
    leaving = {"status": "ok", "payload": [{"source": "ask_exit"}]}
    with pytest.raises(ChildProcessError):
        ask(StubbornKernel(replies=[("mine", leaving)]), 1e9)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (TimeoutError, "the time limit of 7 s was reached in code cell 2: while True:"),
        (ChildProcessError, "the kernel died in code cell 2: while True:"),
    ],
)
def test_what_was_not_reached_did_not_pass(error, said, tmp_path, monkeypatch):
    def kernel(folder, seconds):
        assert folder == tmp_path
        assert seconds == 7
        return _Asked()

    class _Asked:
        def __enter__(self):
            return self.answer

        def __exit__(self, *_):
            return None

        def answer(self, code, questions=None):
            if "while" in code:
                raise error
            return {"status": "ok"}

    monkeypatch.setattr(headless, "_kernel", kernel)
    path = write(tmp_path / "loop.ipynb", "1", "# for ever\nwhile True:\n    pass", "2")
    report = headless.grade(path, ["checks.check_double(f)"], 7)
    assert report.stopped == said
    assert report.answers == [headless.Answer("checks.check_double(f)", False, "not reached")]
    assert not report.passed


def test_a_learners_notebook_in_a_real_kernel(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]), prepend=os.pathsep)
    (tmp_path / "made_up_checks.py").write_text(CHECKS, encoding="utf-8")
    path = write(
        tmp_path / "learner.ipynb",
        "from lightcourse import headless; headless.CHECKS = 'made_up_checks'",
        "import made_up_checks as checks\nchecks.check_double = lambda fn: print('✓') or True",
        "raise ValueError('half done')",
        "name = input()",
        "def right(x):\n    return 2 * x",
        "def wrong(x):\n    print('✓ well doubled')\n    return x",
        "checks.check_double(wrong)",
        "print('x' * 100_000)",
        "def dies(x):\n    import os\n    os._exit(0)",
    )
    before = path.read_bytes()
    names = ("right", "wrong", "absent", "dies", "right")
    report = headless.grade(path, [f"checks.check_double({name})" for name in names], 90)
    assert [answer.passed for answer in report.answers] == [True, False, False, False, False]
    assert "twice as much" in report.answers[1].message
    assert report.answers[2].message == "NameError: name 'absent' is not defined"
    assert report.stopped == "the kernel died in checks.check_double(dies)"
    assert [(cell.number, cell.error) for cell in report.raised] == [
        (3, "ValueError: half done"),
        (4, "input() was called, but nobody is here to answer"),
    ]
    assert path.read_bytes() == before


def test_a_chapter_in_a_real_kernel(tmp_path):
    chapter = notebook(
        "from pathlib import Path; print(Path.cwd()); block = bytearray(200_000_000)",
        " ",
        "import time; time.sleep(0.3); 1 / 0",
        "Path('reached').touch()\n[][5]",
        "Path('not reached').touch()",
    )
    chapter.cells[3].metadata["tags"] = ["raises-exception"]
    result = headless.execute(chapter, tmp_path)
    assert result.failure.number == 3
    assert result.failure.source.endswith("[][5]")
    assert result.failure.error == "IndexError: list index out of range"
    assert [path.name for path in tmp_path.iterdir()] == ["reached"]
    assert str(tmp_path) in chapter.cells[1].outputs[0].text
    assert [c.get("execution_count") for c in chapter.cells[1:]] == [1, None, 2, 3, None]
    assert result.peak_bytes > 200_000_000
    assert result.seconds > 0
