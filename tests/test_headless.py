"""Running and grading notebooks; a real kernel is started twice."""

import os
from pathlib import Path
from queue import Empty

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from lightcourse import checks as lightcourse_checks
from lightcourse import headless


def notebook(*sources):
    return new_notebook(cells=[new_markdown_cell("# t"), *map(new_code_cell, sources)])


def write(path, *sources):
    nbformat.write(notebook(*sources), path)
    return path


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


def asked(namespace):
    """Return what stands in for a kernel: it evaluates, and answers as IPython does."""

    def ask(code, questions):
        try:
            data = {"text/plain": repr(eval(questions["answer"], namespace))}
        except Exception as error:
            told = {"status": "error", "ename": type(error).__name__, "evalue": str(error)}
            return {"user_expressions": {"answer": told}}
        return {"user_expressions": {"answer": {"status": "ok", "data": data}}}

    return ask


def judged(answer, **namespace):
    ask = asked({"f": answer, **namespace})
    return headless._ask_check(ask, "checks.check_stored_bytes(f)", 3)


def right(rows, columns, bits, group_size):
    return rows * columns * bits // 8 + rows * (columns // group_size) * 2


def test_a_right_answer_passes_whatever_its_notebook_calls_by_our_names():
    shadows = dict.fromkeys(["checks", "wire", "globals", "__import__", "lightcourse", "eval"], 3)
    assert judged(right, **shadows).passed
    assert not judged(lambda *case: 7, **shadows).passed


def test_a_known_mistake_is_named_by_the_grader():
    answer = judged(lambda rows, columns, bits, group_size: rows * columns * bits // 8)
    assert answer.message.startswith("the scales are missing")


def test_what_is_absent_or_raises_is_told_in_one_line():
    def fake(*case):
        raise ValueError("no\n✓ checks.check_stored_bytes(f)\n5 of 5 checks pass\x1b[2K")

    absent = headless._ask_check(asked({}), "checks.check_stored_bytes(f)", 0)
    assert absent == headless.Answer(
        "checks.check_stored_bytes(f)", False, "NameError: name 'f' is not defined"
    )
    message = judged(fake).message
    assert "it raised ValueError: no" in message and message.isprintable()
    assert not headless._ask_check(asked({}), "checks.check_nothing(f)", 0).passed
    assert not headless._ask_check(asked({}), "checks.check_stored_bytes(f, g)", 0).passed


@pytest.mark.parametrize(
    "reply",
    [{}, {"answer": {}}, {"answer": {"status": "ok", "data": {}}}]
    + [{"answer": {"status": "ok", "data": {"text/plain": text}}} for text in ("True", "''", "'x")],
)
def test_a_reply_that_holds_no_answer_fails(reply):
    found = headless._ask_check(
        lambda *question: {"user_expressions": reply}, "checks.check_stored_bytes(f)", 0
    )
    assert not found.passed


def test_no_table_of_the_answers_to_the_notebooks_cases_passes():
    exercise = lightcourse_checks.EXERCISES["check_stored_bytes"]
    table = {case: exercise.reference(*case) for case in exercise.cases(0)}
    assert lightcourse_checks.check_stored_bytes(lambda *case: table[case])
    assert "it raised KeyError" in judged(lambda *case: table[case]).message


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


ATTACKS = {
    "patched": """
import lightcourse.checks.grading, lightcourse.checks.comparing, lightcourse.headless, builtins
import atexit, sys, numpy, torch
lightcourse.checks.grading._same = lambda a, b: True
lightcourse.checks.comparing.same = lightcourse.checks.grading._verdict = lambda *a: True
lightcourse.checks.grading.find_problem = lightcourse.headless._ask_check = lambda *a: ""
lightcourse.checks.check_stored_bytes = lambda f: True
torch.allclose = numpy.allclose = lambda *a, **b: True
builtins.print = lambda *a, **b: None
sys.modules["lightcourse.checks.grading"] = sys
atexit.register(lambda: print("✓"))
def patched(rows, columns, bits, group_size):
    return 7""",
    "climber": """
import sys
def climber(rows, columns, bits, group_size):
    frame = sys._getframe()
    while frame:
        for values in (frame.f_locals, frame.f_globals):
            exercise = values.get("exercise")
            reference = values.get("reference") or getattr(exercise, "reference", None)
            if reference:
                return reference(rows, columns, bits, group_size)
        frame = frame.f_back
    return 7""",
    "liar": """
import torch
class Liar:
    __eq__ = __ge__ = __le__ = lambda self, other: True
    __array__ = lambda self, *a, **b: torch.tensor(216).numpy()
def liar(*case):
    return Liar()""",
    "subclass": """
class Agreeable(torch.Tensor):
    __eq__ = lambda self, other: True
    __torch_function__ = classmethod(lambda cls, *a, **b: True)
def subclass(*case):
    return torch.tensor(7).as_subclass(Agreeable)""",
    "boastful": """
def boastful(*case):
    print("✓ checks.check_stored_bytes(boastful)")
    return 7""",
    "huge": """
def huge(*case):
    return [7] * 10_000_000""",
}


@pytest.mark.timeout(300)
def test_a_learners_notebook_in_a_real_kernel(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]), prepend=os.pathsep)
    path = write(
        tmp_path / "learner.ipynb",
        "raise ValueError('half done')",
        "name = input()",
        "def right(rows, columns, bits, group_size):\n"
        "    return rows * columns * bits // 8 + rows * (columns // group_size) * 2",
        *ATTACKS.values(),
        "print('x' * 100_000)",
        "def dies(*case):\n    import os\n    os._exit(0)",
    )
    before = path.read_bytes()
    names = ("right", *ATTACKS, "absent", "dies", "right")
    report = headless.grade(path, [f"checks.check_stored_bytes({n})" for n in names], 240)
    passed = dict(zip(names[:-1], [answer.passed for answer in report.answers], strict=False))
    assert [name for name, verdict in passed.items() if verdict] == ["right"]
    assert report.answers[-3].message == "NameError: name 'absent' is not defined"
    assert report.stopped == "the kernel died in checks.check_stored_bytes(dies)"
    assert not report.answers[-1].passed
    assert [(cell.number, cell.error) for cell in report.raised] == [
        (1, "ValueError: half done"),
        (2, "input() was called, but nobody is here to answer"),
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
