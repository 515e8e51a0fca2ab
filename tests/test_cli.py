"""The command line: what each command finds, says and returns."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from lightcourse import assets, classroom, cli, doctor
from lightcourse.classroom import capstones


def write(path, *sources):
    path.parent.mkdir(exist_ok=True)
    nbformat.write(new_notebook(cells=list(map(new_code_cell, sources))), path)
    return path


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A course of two chapters; we stand in a folder inside it."""
    write(tmp_path / "chapters" / "00_start.ipynb", "1")
    write(tmp_path / "chapters" / "03_pruning.ipynb", "1")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """Neither the current folder nor the package's has chapters."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "__file__", str(tmp_path / "site" / "lightcourse" / "cli.py"))


def one_line(text):
    assert text.startswith("lightcourse: ")
    assert text.count("\n") == 1
    return text


def test_the_module_runs_and_imports_nothing_heavy():
    code = "import sys, lightcourse.cli; print('torch' in sys.modules, 'rich' in sys.modules)"
    assert python("-c", code) == "False False\n"
    assert python("-m", "lightcourse", "--version").startswith("lightcourse 0.")


def python(*arguments):
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["dance"],
        ["run"],
        ["check"],
        ["quizzes"],
        ["quizzes", "--format", "word", "--out", "x"],
        ["lab", "00", "--no-browser"],
        ["run", "0", "--", "x"],
    ]
    + [["check", "a.ipynb", "--timeout", value] for value in ("0", "-1", "nan", "inf", "soon")],
)
def test_a_wrong_call_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    assert "usage: lightcourse" in capsys.readouterr().err


@pytest.mark.parametrize("error", [OSError, ValueError, RuntimeError])
def test_what_a_user_can_mend_is_one_line_and_no_traceback(error, monkeypatch, capsys):
    def fail():
        raise error("the disk is full")

    monkeypatch.setattr(cli, "find_course", fail)
    assert cli.main(["lab"]) == 1
    captured = capsys.readouterr()
    assert captured.err == "lightcourse: the disk is full\n"
    assert captured.out == ""


def test_an_interrupt_is_quiet(monkeypatch, capsys):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "find_course", interrupted)
    assert cli.main(["lab"]) == 130
    assert capsys.readouterr() == ("", "")


# --- finding the course --------------------------------------------------------------------


def test_the_course_is_found_from_a_folder_inside_it(course):
    assert cli.find_course() == course


def test_the_course_is_found_where_the_package_lies(course, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    monkeypatch.setattr(cli, "__file__", str(course / "lightcourse" / "cli.py"))
    assert cli.find_course() == course


def test_no_course_is_a_clear_error(nowhere, capsys):
    for command in (["lab"], ["run", "00"], ["bench"]):
        assert cli.main(command) == 1
        assert "change into the course's folder" in one_line(capsys.readouterr().err)


def test_a_chapter_goes_by_its_number(course):
    assert cli.find_chapter(course, "3").name == "03_pruning.ipynb"
    assert cli.find_chapter(course, "00").name == "00_start.ipynb"
    for wrong in ("7", "start", "*"):
        with pytest.raises(ValueError, match="there are: 00, 03"):
            cli.find_chapter(course, wrong)


# --- doctor --------------------------------------------------------------------------------


@pytest.mark.parametrize(("marks", "status"), [("✓✓", 0), ("✓!", 0), ("✗!✓", 1)])
def test_the_doctor_fails_when_something_needed_does(marks, status, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    findings = [doctor.Finding(m, "thing", "word " * 40, "go " * 40) for m in marks]
    monkeypatch.setattr(doctor, "examine", lambda: findings)
    assert cli.main(["doctor"]) == status
    lines = capsys.readouterr().out.splitlines()
    assert [line[0] for line in lines if line.startswith(tuple("✓!✗"))][: len(marks)] == list(marks)
    assert max(map(len, lines)) <= 80
    assert sum(line.startswith("  → go") for line in lines) == len(marks)


# --- assets --------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A store of two needed assets and an optional one; the list of what is fetched."""
    catalog = {
        name: SimpleNamespace(
            name=name, size=84_000_000, needed=name != "poems", licence="MIT", purpose="p " * 40
        )
        for name in ("minilm", "smollm2", "poems")
    }
    fetched = []

    def fetch(name):
        fetched.append(name)
        return tmp_path / name

    monkeypatch.setattr(assets, "CATALOG", catalog)
    monkeypatch.setattr(assets, "status", lambda name: "missing")
    monkeypatch.setattr(assets, "fetch", fetch)
    monkeypatch.setattr(assets, "cache_dir", lambda: tmp_path)
    monkeypatch.setattr(cli, "_convert_smollm2", lambda: fetched.append("converted"))
    return fetched


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ["minilm", "smollm2", "converted"]),
        (["--all"], ["minilm", "smollm2", "converted", "poems"]),
        (["poems"], ["poems"]),
    ],
)
def test_assets_fetches_what_is_named_or_needed(store, arguments, expected, capsys):
    assert cli.main(["assets", *arguments]) == 0
    assert store == expected
    assert "fetched" in capsys.readouterr().out


def test_an_intact_asset_is_verified(store, monkeypatch, capsys):
    monkeypatch.setattr(assets, "status", lambda name: "intact")
    assert cli.main(["assets", "poems"]) == 0
    assert capsys.readouterr().out.startswith("✓ poems: verified")


def test_an_unknown_asset_is_told_with_those_there_are(store, capsys):
    assert cli.main(["assets", "poem"]) == 2
    assert "minilm, smollm2, poems" in one_line(capsys.readouterr().err)
    assert store == []


def test_a_failed_asset_is_told_and_the_next_one_fetched(store, monkeypatch, capsys):
    def fetch(name):
        if name == "minilm":
            raise assets.AssetError("no network")
        store.append(name)

    monkeypatch.setattr(assets, "fetch", fetch)
    assert cli.main(["assets", "minilm", "poems"]) == 1
    assert one_line(capsys.readouterr().err) == "lightcourse: no network\n"
    assert store == ["poems"]


def test_the_list_fits_a_pipe_and_fetches_nothing(store, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main(["assets", "--list"]) == 0
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert max(map(len, text.splitlines()[:-1])) <= 80
    assert all(word in text for word in ("minilm", "84", "missing", "MIT"))
    assert store == []


# --- lab and bench -------------------------------------------------------------------------


@pytest.fixture
def started(monkeypatch):
    """Whatever would have been started: (command, folder)."""
    calls = []
    monkeypatch.setattr(cli, "_hand_over", lambda *call: calls.append(call) or 0)
    return calls


def as_user(monkeypatch, number):
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", "/elsewhere")  # and put back what lab sets
    monkeypatch.setattr(cli.os, "geteuid", lambda: number, raising=False)


def test_lab_opens_a_chapter_and_hands_arguments_on(course, started, monkeypatch):
    as_user(monkeypatch, 1000)
    assert cli.main(["lab", "3", "--", "--no-browser", "--port", "9999"]) == 0
    ((command, folder),) = started
    assert folder == course
    assert command[:3] == [sys.executable, "-m", "jupyterlab"]
    assert "--LabApp.default_url=/lab/tree/chapters/03_pruning.ipynb" in command
    assert command[-3:] == ["--no-browser", "--port", "9999"]
    assert "--allow-root" not in command
    assert cli.os.environ["JUPYTER_CONFIG_PATH"] == f"{cli.SETTINGS}{cli.os.pathsep}/elsewhere"
    assert (cli.SETTINGS / "labconfig" / "default_setting_overrides.json").is_file()


def test_lab_opens_the_first_chapter_and_helps_root(course, started, monkeypatch, capsys):
    as_user(monkeypatch, 0)
    assert cli.main(["lab", "--", "--no-browser"]) == 0
    ((command, _),) = started
    assert "--LabApp.default_url=/lab/tree/chapters/00_start.ipynb" in command
    assert command[-2:] == ["--no-browser", "--allow-root"]
    assert "--allow-root" in capsys.readouterr().out


def test_bench_runs_the_script_of_the_course(course, started, capsys):
    assert cli.main(["bench"]) == 1
    assert "benchmarks" in one_line(capsys.readouterr().err)
    script = course / "benchmarks" / "bench.py"
    script.parent.mkdir()
    script.touch()
    assert cli.main(["bench", "--", "quick"]) == 0
    assert started == [([sys.executable, "-m", "benchmarks.bench", "quick"], course)]


def test_bench_really_starts_whatever_folder_one_stands_in():
    folder = Path(cli.__file__).parents[1] / "tests"
    command = [sys.executable, "-m", "lightcourse", "bench", "--", "--help"]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "--quick" in run.stdout


# --- run -----------------------------------------------------------------------------------


@pytest.fixture
def executed(monkeypatch):
    """Instead of running a notebook, mark its first cell; the result can be changed."""
    outcome = SimpleNamespace(result=classroom.Execution(2.5, 300 * 2**20, None))

    def execute(notebook, folder):
        notebook.cells[0].execution_count = 7
        outcome.folder = folder
        return outcome.result

    monkeypatch.setattr(classroom, "execute", execute)
    return outcome


def test_run_reports_and_writes_nothing(course, executed, capsys):
    before = {path: path.read_bytes() for path in course.rglob("*.ipynb")}
    assert cli.main(["run", "00"]) == 0
    assert capsys.readouterr().out == "✓ 00_start.ipynb: 2.5 s, 300 MiB peak memory\n"
    assert executed.folder == course / "chapters"
    assert {path: path.read_bytes() for path in course.rglob("*.ipynb")} == before


def test_run_writes_where_it_is_told(course, executed):
    assert cli.main(["run", "00", "--output", "out.ipynb"]) == 0
    written = classroom.read_notebook(course / "work" / "out.ipynb")
    assert written.cells[0].execution_count == 7


def test_a_failing_cell_is_shown_with_number_source_and_error(course, executed, capsys):
    failure = classroom.Failure(4, "x = 1\nx / 0", "ZeroDivisionError: division by zero")
    executed.result = classroom.Execution(1.0, 0, failure)
    assert cli.main(["run", "3"]) == 1
    captured = capsys.readouterr()
    assert captured.out.startswith("✗ 03_pruning.ipynb")
    assert "code cell 4" in captured.err
    assert "    x = 1\n    x / 0\n" in captured.err
    assert "ZeroDivisionError: division by zero" in captured.err


# --- progress ------------------------------------------------------------------------------


@pytest.fixture
def standings(course, monkeypatch):
    """A course of two solutions; what a notebook's checks say, and which ones were run."""
    for name in ("00_start", "03_pruning"):
        write(course / "solutions" / f"{name}.ipynb", "1")
    (course / "exercises").mkdir()
    checks = [f"checks.check_{name}({name})" for name in "abc"]
    passed, failed = (classroom.Answer("", passed, "twice too much") for passed in (True, False))
    found = SimpleNamespace(ran=[], first=[passed, failed, None], second=[None] * 3)

    def standing(path, answers, **more):
        answers = dict(zip(checks, answers, strict=True))
        return classroom.Standing(path, answers, **more)

    def look(path, solution):
        return standing(path, found.second) if "03" in path.name else None

    def ask(path, solution, seconds):
        found.ran.append((path, solution, seconds))
        return standing(path, found.first, anew=True)

    monkeypatch.setattr(classroom, "look", look)
    monkeypatch.setattr(classroom, "ask", ask)
    return found


def test_progress_runs_what_changed_and_tells_what_is_next(course, standings, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main(["progress", "--timeout", "7"]) == 0
    name = "00_start.ipynb"
    assert standings.ran == [(course / "exercises" / name, course / "solutions" / name, 7)]
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    rows = [line.split() for line in lines if ("00_" in line or "03_" in line)]
    assert rows == [
        ["00_start", "✓✗·", "b:", "twice", "too", "much"],
        ["03_pruning", "···", "write", "a"],
    ]
    assert lines[-2:] == [
        "1 of 6 checks pass (✗ not yet, · not begun)",
        "1 of 2 notebooks were run; the others are as they were",
    ]


def test_progress_tells_when_all_is_done(course, standings, capsys):
    standings.first = [standings.first[0]] * 3
    standings.second = [None, standings.first[0], None]
    assert cli.main(["progress"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if "_" in line]
    assert rows == [["00_start", "✓✓✓", "done"], ["03_pruning", "·✓·", "write", "a"]]


def test_progress_of_a_folder_of_ones_own(course, standings, capsys):
    (course / "mine").mkdir()
    assert cli.main(["progress", "--folder", "../mine"]) == 0
    assert standings.ran[0][0].resolve() == course / "mine" / "00_start.ipynb"
    assert cli.main(["progress", "--folder", "nowhere"]) == 1
    assert "no exercises in nowhere" in one_line(capsys.readouterr().err)


# --- quizzes -------------------------------------------------------------------------------

QUIZ = """- question: What is 1 + 1?
  choices:
    - {text: "2", right: true, explain: "One more."}
    - {text: "11", explain: "The digits were joined."}
"""


def with_quiz(course, name):
    room = course / "sources" / name
    room.mkdir(parents=True)
    (room / "quiz.yaml").write_text(QUIZ)


@pytest.mark.parametrize(
    ("more", "files"),
    [
        ([], ["00_start.html", "03_pruning.html"]),
        (["--chapter", "3"], ["03_pruning.html"]),
    ],
)
def test_quizzes_writes_a_file_for_each_chapter_that_is_asked_for(course, more, files, capsys):
    for name in ("00_start", "03_pruning"):
        with_quiz(course, name)
    assert cli.main(["quizzes", "--format", "print", "--out", "paper", *more]) == 0
    assert sorted(path.name for path in (course / "work" / "paper").iterdir()) == files
    assert capsys.readouterr().out.splitlines() == [f"✓ {Path('paper', name)}" for name in files]


def test_quizzes_tells_what_is_missing(course, capsys):
    with_quiz(course, "00_start")
    for chapter, told in {"3": "no sources/…/quiz.yaml", "7": "there is no chapter 7"}.items():
        call = ["quizzes", "--format", "qti", "--out", "paper", "--chapter", chapter]
        assert cli.main(call) == 1
        assert told in one_line(capsys.readouterr().err)
    assert not (course / "work" / "paper").exists()


# --- check ---------------------------------------------------------------------------------


@pytest.fixture
def graded(monkeypatch):
    """Instead of grading, remember what was asked; checks of ``right`` pass."""
    calls = SimpleNamespace(raised=[], stopped="")

    def grade(path, expected, seconds):
        calls.path, calls.expected, calls.seconds = path, expected, seconds
        answers = [classroom.Answer(e, "right" in e, "twice as much") for e in expected]
        return classroom.Report(calls.raised, answers, calls.stopped)

    monkeypatch.setattr(classroom, "grade_notebook", grade)
    return calls


def test_check_passes_when_every_check_does(nowhere, tmp_path, graded, capsys):
    write(tmp_path / "mine.ipynb", "checks.check_a(right)", "checks.check_b(right)")
    assert cli.main(["check", "mine.ipynb", "--timeout", "7"]) == 0
    assert graded.seconds == 7
    assert capsys.readouterr().out.splitlines() == [
        "mine.ipynb: checks from the file itself",
        "✓ checks.check_a(right)",
        "✓ checks.check_b(right)",
        "2 of 2 checks pass",
    ]


# --- grade ---------------------------------------------------------------------------------


def test_grade_hands_on_what_it_is_told_and_lists_the_learners(course, monkeypatch, capsys):
    write(course / "exercises" / "03_pruning.ipynb", "checks.check_a(f)", "checks.check_b(f)")
    (course / "work" / "class").mkdir()
    calls = []

    def grade_class(*arguments, **options):
        calls.append((arguments, options))
        rows = {"ann": {"points": 2, "stopped": ""}, "bob": {"points": 0, "stopped": "too slow"}}
        return {"checks": arguments[2], "learners": rows, "layers": {"namespaces": "shut in"}}

    monkeypatch.setattr(classroom, "grade_class", grade_class)
    assert cli.main(["grade", "class", "--chapter", "3", "--seed", "5", "--timeout", "9"]) == 0
    ((folder, notebook, expected, out), options) = calls[0]
    assert (folder, notebook) == (course / "work" / "class", "03_pruning.ipynb")
    assert expected == ["checks.check_a(f)", "checks.check_b(f)"]
    assert out == course / "work" / "class-03_pruning-results"
    assert options["worth"] == dict.fromkeys(expected, 1)
    assert "keys" not in options
    assert (options["seed"], options["limits"].seconds, options["trusted"]) == (5, 9, False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["2 of 2  ann", "0 of 2  bob, cut off: too slow", "isolation: shut in"]


def test_variants_are_written_and_graded_by_their_keys(course, monkeypatch, capsys):
    own = Path(__file__).parents[1]
    for name in ("exercises/00_start.ipynb", "sources/00_start/variants.yaml"):
        (course / name).parent.mkdir(parents=True, exist_ok=True)
        (course / name).write_bytes((own / name).read_bytes())
    (course / "work" / "names.csv").write_text("name\nann\nbob\n")
    given = []
    monkeypatch.setattr(classroom, "grade_class", lambda *a, **k: given.append(k) or NOBODY)
    call = ["variants", "--chapter", "0", "--seed", "5", "--class", "names.csv", "--out", "out"]
    assert cli.main(call) == 0
    assert "seed 5: keep it" in capsys.readouterr().out
    assert cli.main(["grade", "out/notebooks", "--chapter", "0", "--key", "out/keys"]) == 0
    assert sorted(key.learner for key in given[0]["keys"].values()) == ["ann", "bob"]
    assert given[0]["hidden"] == [course / "work" / "out" / "keys"]
    one = ["grade", "out/notebooks", "--chapter", "0", "--key", "out/keys/ann.json"]
    assert cli.main(one) == 0
    assert [key.learner for key in given[1]["keys"].values()] == ["ann"]
    assert cli.main(["grade", "out/notebooks", "--chapter", "0", "--key", "names.csv"]) == 1
    assert "names.csv is no key" in capsys.readouterr().err


NOBODY = {"checks": [], "learners": {}, "layers": {}}


def test_variants_want_a_number_or_names_and_a_chapter_that_asks(course, capsys):
    write(course / "exercises" / "03_pruning.ipynb", "1")
    assert cli.main(["variants", "--chapter", "3"]) == 2
    one_line(capsys.readouterr().err)
    assert cli.main(["variants", "--chapter", "3", "--count", "2", "--class", "a.csv"]) == 2
    one_line(capsys.readouterr().err)
    assert cli.main(["variants", "--chapter", "3", "--count", "2"]) == 1
    assert "asks nothing by hand" in capsys.readouterr().err
    assert not (course / "work" / "variants-03_pruning").exists()


@pytest.mark.parametrize("call", [["nowhere", "--chapter", "0"], ["."], [".", "--chapter", "x"]])
def test_grade_without_a_folder_or_a_chapter_is_told(call, course, capsys):
    write(course / "exercises" / "00_start.ipynb", "1")
    try:
        status = cli.main(["grade", *call])
    except SystemExit as stop:
        status = stop.code
    assert status in (1, 2)
    assert "chapter" in capsys.readouterr().err or call[0] == "nowhere"


@pytest.mark.parametrize(
    "call",
    [
        ["--capstone", "--trusted"],
        ["--capstone", "--seed", "0"],
        ["--chapter", "3", "--held-back", "rows.csv"],
    ],
)
def test_grade_refuses_an_option_that_would_do_nothing(call, course, monkeypatch, capsys):
    monkeypatch.setattr(capstones, "from_options", lambda options: 0)
    (course / "work" / "class").mkdir()
    assert cli.main(["grade", "class", *call]) == 2
    assert call[-1 if call[-1].startswith("--") else -2] in capsys.readouterr().err


def test_grade_measures_capstones(course, monkeypatch):
    monkeypatch.setattr(capstones, "from_options", lambda options: options.held_back)
    (course / "work" / "class").mkdir()
    assert cli.main(["grade", "class", "--capstone", "--held-back", "rows.csv"]) == "rows.csv"


def test_check_shows_the_misconception_and_what_raised(nowhere, tmp_path, graded, capsys):
    write(tmp_path / "mine.ipynb", "checks.check_a(right)", "checks.check_b(left)")
    graded.raised = [classroom.Failure(2, "f()", "ValueError: no")]
    graded.stopped = "the time limit was reached"
    assert cli.main(["check", "mine.ipynb"]) == 1
    assert capsys.readouterr().out.splitlines()[1:] == [
        "! code cell 2 raised ValueError: no",
        "✓ checks.check_a(right)",
        "✗ checks.check_b(left)",
        "  → twice as much",
        "✗ stopped: the time limit was reached",
        "1 of 2 checks pass",
    ]


def test_a_deleted_check_is_still_asked(course, graded, capsys):
    write(course / "exercises" / "00_start.ipynb", "checks.check_a(f)", "checks.check_b(right)")
    write(course / "work" / "00_start.ipynb", "checks.check_b(right)")
    assert cli.main(["check", "00_start.ipynb"]) == 1
    assert graded.expected == ["checks.check_a(f)", "checks.check_b(right)"]
    assert "the course's exercises/00_start.ipynb" in capsys.readouterr().out


def test_who_works_in_the_courses_own_file_is_asked_what_the_solution_asks(course, graded):
    write(course / "exercises" / "00_start.ipynb", "checks.check_a(right)")
    solution = ("assert checks.check_a(right)", "assert checks.check_b(f)")
    write(course / "solutions" / "00_start.ipynb", *solution)
    assert cli.main(["check", "../exercises/00_start.ipynb"]) == 1
    assert graded.expected == ["checks.check_a(right)", "checks.check_b(f)"]


def test_check_refuses_what_it_cannot_grade(course, graded, capsys):
    write(course / "work" / "empty.ipynb", "print('✓')")
    (course / "work" / "text.ipynb").write_text("hello")
    for name, reason in {
        "gone.ipynb": "no file",
        "text.ipynb": "no Jupyter notebook",
        "empty.ipynb": "calls no checks",
    }.items():
        assert cli.main(["check", name]) == 2
        assert reason in one_line(capsys.readouterr().err)
