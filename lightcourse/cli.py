"""The ``lightcourse`` command: a thin function for each verb; ``lightcourse --help`` lists them."""

import argparse
import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import lightcourse
from lightcourse import language

WIDTH = 80
# JupyterLab would fetch news, look for a newer version of itself, list the extensions of PyPI,
# and mark a notebook as changed when it is opened. That it asks before is a setting: the file
# in SETTINGS, which the settings of user and system join.
SETTINGS = Path(__file__).parent / "bundled" / "jupyter"
QUIET = (
    "--LabApp.news_url=None",
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    "--LabApp.extension_manager=readonly",
    "--ServerApp.contents_manager_class=lightcourse.lab.Notebooks",
)
EACH = "for each notebook; default: 300"
FAILURES = (OSError, ValueError, RuntimeError)


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit status.

    Parameters
    ----------
    arguments : list of str, optional
        What follows ``lightcourse`` on the command line; by default this process's own.

    Returns
    -------
    int
        0 done; 1 something failed or is missing; 2 the command was called wrongly;
        130 interrupted.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    _speak_utf8()
    own, rest = _split(arguments)
    options = _parser().parse_args(own, argparse.Namespace(rest=rest))
    try:
        return options.command(options)
    except KeyboardInterrupt:
        return 130
    except CallError as error:
        return _complain(error, 2)
    except FAILURES as error:
        return _complain(error, 1)


class CallError(Exception):
    """The command was called with something that it cannot work on."""


def _complain(error, status):
    print(f"lightcourse: {error}", file=sys.stderr)
    return status


def _speak_utf8():
    """Let ✓ and ✗ through where a pipe has some narrow encoding, as on Windows."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):
            stream.reconfigure(encoding="utf-8", errors="replace")


def _split(arguments):
    """Cut the arguments at ``--`` where what follows is for the program that we start."""
    if "--" not in arguments or arguments[0] not in ("lab", "bench"):
        return arguments, []
    cut = arguments.index("--")
    return arguments[:cut], arguments[cut + 1 :]


def _parser():
    parser = argparse.ArgumentParser(prog="lightcourse", description=lightcourse.__doc__)
    version = f"%(prog)s {lightcourse.__version__}"
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(function):
        text = function.__doc__.splitlines()[0]
        name = function.__name__.replace("_", "-")
        new = commands.add_parser(name, help=text, description=text)
        new.set_defaults(command=function)
        return new.add_argument

    add(doctor)
    add_assets = add(assets)
    add_assets("names", nargs="*", metavar="NAME", help="default: those that the chapters need")
    add_assets("--all", action="store_true", help="every asset there is")
    add_assets("--list", action="store_true", help="only show what there is")
    add_lab = add(lab)
    add_lab("chapter", nargs="?", default="00", metavar="NN", help="default: 00")
    tongue = "the language of the notebook; zh: 简体中文"
    add_lab("--lang", choices=language.LANGUAGES, default=language.ENGLISH, help=tongue)
    add_run = add(run)
    add_run("chapter", metavar="NN", help="the chapter's number")
    add_run("--output", metavar="FILE", help="write the executed notebook to FILE")
    add_check = add(check)
    add_check("file", metavar="FILE.ipynb", help="a notebook of exercises")
    add_check("--timeout", type=_seconds, default=300, metavar="SECONDS", help="default: 300")
    add_progress = add(progress)
    add_progress("--folder", metavar="FOLDER", help="your exercises; default: the course's own")
    add_progress("--timeout", type=_seconds, default=300, metavar="SECONDS", help=EACH)
    _add_quizzes(add(quizzes))
    _add_variants(add(variants))
    _add_grade(add(grade))
    _add_compress(add(compress))
    add(serve_demo)("--only-build", action="store_true", help="write web/dist, serve nothing")
    add(bench)
    return parser


def _add_variants(add):
    add("--chapter", required=True, metavar="NN", help="the chapter's number")
    add("--count", type=int, metavar="N", help="how many")
    add("--class", dest="names", metavar="FILE.csv", help="or one for each name in it")
    add("--seed", type=int, metavar="N", help="of the numbers; default: a new one, which is told")
    add("--out", metavar="FOLDER", help="a new folder; default: variants-NN_topic")


def _add_grade(add):
    add("folder", metavar="FOLDER", help="the class's submissions: one folder a learner")
    add("--chapter", metavar="NN", help="the chapter's number")
    add("--capstone", action="store_true", help="measure the last chapter's submissions")
    add("--held-back", metavar="FILE.csv", help="rows for --capstone; default: the test split")
    add("--out", metavar="FOLDER", help="where results go; default: a folder beside FOLDER")
    add("--seed", type=int, metavar="N", help="of the cases; default: a new one, or OUT's own")
    add("--key", metavar="KEYS", help="of the variants handed out: a folder, or one file")
    limit = "for each submission; default: 300"
    add("--timeout", type=_seconds, default=300, metavar="SECONDS", help=limit)
    trusted = "grade in a plain process where the machine cannot shut learners' code in"
    add("--trusted", action="store_true", help=trusted)


def _add_compress(add):
    add("checkpoint", metavar="CHECKPOINT", help="a model's folder, as save_pretrained leaves it")
    add("out", metavar="OUT", help="a new folder, or one of the same job that was interrupted")
    add("--bits", type=int, default=4, metavar="N", help="2 to 8; default: 4")
    group = "inputs that share a scale, 0: all of a row; default: 128"
    add("--group-size", type=int, default=128, metavar="N", help=group)
    add("--prune", metavar="N:M|SHARE", help="2:4, or the share of each row to set to 0 before")


def _add_quizzes(add):
    from lightcourse.quizzes import FORMATS

    add("--chapter", metavar="NN", help="default: all")
    add("--format", choices=[*FORMATS], required=True, help="what the files are for")
    add("--out", required=True, metavar="FOLDER", help="gets a file for each chapter")


def _seconds(text):
    with contextlib.suppress(ValueError):
        if 0 < float(text) < float("inf"):
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} given; a positive number of seconds is wanted")


# --- the commands --------------------------------------------------------------------------


def doctor(options) -> int:
    """Look whether this machine is ready for the course."""
    from lightcourse.doctor import examine

    failed = 0
    for finding in examine():
        failed += finding.mark == "✗"
        _say(finding.mark, f"{finding.name}: {finding.detail}", finding.step)
        sys.stdout.flush()
    print(f"✗ {failed} to put right; → says how" if failed else "ready for the course")
    return 1 if failed else 0


def _say(mark, text, step=""):
    """Print one marked line, wrapped under itself, and the next step below it."""
    width = max(40, min(shutil.get_terminal_size((WIDTH, 24)).columns, 100))
    for start, part in [(f"{mark} ", text), ("  → ", step)]:
        if part:
            indent = " " * len(start)
            print(start + textwrap.indent(_wrap(part, width - len(indent)), indent).lstrip())


def _wrap(text, width):
    """Wrap each line, but never inside a word: commands and paths are there to be copied."""
    wrapper = textwrap.TextWrapper(width, break_long_words=False, break_on_hyphens=False)
    return "\n".join(wrapper.fill(line) for line in text.splitlines())


def assets(options) -> int:
    """Fetch the models and data of the course, or verify those that are here."""
    from lightcourse import assets as store

    unknown = sorted(set(options.names) - set(store.CATALOG))
    if unknown:
        raise CallError(f"no asset {unknown[0]!r}; there are: {', '.join(store.CATALOG)}")
    if options.list:
        return _list_assets(store)
    needed = [asset.name for asset in store.CATALOG.values() if asset.needed or options.all]
    failures = [name for name in options.names or needed if not _fetch(store, name)]
    return 1 if failures else 0


def _fetch(store, name):
    """Fetch one asset; a failure is told and does not keep the next one from its turn."""
    try:
        was = store.status(name)
        folder = store.fetch(name)
        if name == "smollm2":
            _convert_smollm2()
    except FAILURES as error:
        _complain(error, 1)
        return False
    _say("✓", f"{name}: {'verified' if was == 'intact' else 'fetched'}, {folder}")
    return True


def _convert_smollm2():
    """Load its tokenizer: that unpacks the weights too, so that no lesson waits for them."""
    from lightcourse import models

    models.load_smollm2_tokenizer()


def _list_assets(store):
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE, padding=0, pad_edge=False)
    for title in ("name", "MB", "status", "licence", "purpose"):
        table.add_column(title, justify="right" if title == "MB" else "left")
    for asset in store.CATALOG.values():
        size = f"{asset.size / 1e6:.0f}"
        table.add_row(asset.name, size, store.status(asset.name), asset.licence, asset.purpose)
    Console(highlight=False).print(table)
    print(f"in {store.cache_dir()}")
    return 0


def lab(options) -> int:
    """Open JupyterLab on a chapter; what follows -- is handed on to it."""
    course = find_course()
    chapter = _in_language(course, options.chapter, options.lang).relative_to(course).as_posix()
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={course}"]
    command += [f"--LabApp.default_url=/lab/tree/{chapter}", *QUIET, *options.rest]
    if hasattr(os, "geteuid") and os.geteuid() == 0 and "--allow-root" not in command:
        print("you are root: adding --allow-root, without which Jupyter would not start")
        command.append("--allow-root")
    os.environ.update({**lightcourse.PATIENT, "LIGHTCOURSE_WIDGETS": "1", **os.environ})
    found = (str(SETTINGS), os.environ.get("JUPYTER_CONFIG_PATH"))
    os.environ["JUPYTER_CONFIG_PATH"] = os.pathsep.join(filter(None, found))
    print(f"JupyterLab opens {chapter}; Ctrl-C twice here ends it")
    return _hand_over(command, course)


def _in_language(course, number, tongue):
    """Return a chapter's notebook in a language, or else the English one, and say so."""
    from lightcourse.checks.words import command

    english = find_chapter(course, number)
    path = course / tongue / "chapters" / english.name
    if tongue == language.ENGLISH or path.is_file():
        return english if tongue == language.ENGLISH else path
    with language.spoken(tongue):
        print(command("english_only", number=english.name[:2]))
    return english


def _hand_over(command, folder):
    """Become another program where the system can; else run it and wait for its end."""
    sys.stdout.flush()
    os.chdir(folder)
    if os.name == "posix":
        os.execv(command[0], command)
    process = subprocess.Popen(command)
    while True:
        with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C is its business, not ours
            return process.wait()


def run(options) -> int:
    """Run a chapter without a browser; report its time and peak memory."""
    from lightcourse import classroom

    path = find_chapter(find_course(), options.chapter)
    notebook = classroom.read_notebook(path)
    result = classroom.execute(notebook, path.parent)
    if options.output:
        _write_notebook(notebook, options.output)
    memory = f"{result.peak_bytes / 2**20:.0f} MiB peak memory"
    summary = f"{path.name}: {result.seconds:.1f} s, {memory}"
    if result.failure is None:
        _say("✓", summary)
        return 0
    _say("✗", summary)
    _show_failure(result.failure, options.chapter)
    return 1


def _write_notebook(notebook, file):
    import nbformat

    from lightcourse import files

    files.write_atomically(file, lambda temporary: nbformat.write(notebook, temporary))


def _show_failure(failure, chapter):
    source = textwrap.indent(failure.source, "    ")
    print(f"code cell {failure.number} failed:\n\n{source}\n\n{failure.error}", file=sys.stderr)
    print(f"\nto look at it: lightcourse lab {chapter}", file=sys.stderr)


def check(options) -> int:
    """Grade a notebook of exercises; 0 only when every check passes."""
    from lightcourse import classroom
    from lightcourse.checks.words import command

    path = Path(options.file)
    try:
        expected, origin = _expected(path)
    except (OSError, ValueError) as error:
        raise CallError(error) from error
    with language.spoken(language.of_notebook(path.read_bytes())):
        print(command("checks_from", name=path.name, origin=_said(origin)), flush=True)
        report = classroom.grade_notebook(path, expected, options.timeout)
        _show_report(report)
    return 0 if report.passed else 1


def _said(origin):
    from lightcourse.checks.words import command

    return command("of_the_course", file=origin) if origin else command("of_the_file")


def _show_report(report):
    from lightcourse.checks.words import command

    for failure in report.raised:
        _say("!", command("cell_raised", number=failure.number, error=failure.error))
    for answer in report.answers:
        step = "" if answer.passed else answer.message or command("not_true")
        _say("✓" if answer.passed else "✗", answer.expression, step)
    if report.stopped:
        _say("✗", command("stopped", why=report.stopped))
    passed = sum(answer.passed for answer in report.answers)
    print(command("passed", passed=passed, count=len(report.answers)))


def _expected(path):
    """Return the checks that count and the file that has them: empty for the very file.

    The course's own exercise of that name comes first, so that deleting a check does not
    pass it; for somebody who works in that very file, its solution does.
    """
    from lightcourse import classroom

    own = classroom.expected_checks(classroom.read_notebook(path))
    for twin in _twins(path):
        checks = classroom.expected_checks(classroom.read_notebook(twin))
        if checks:
            return checks, f"{twin.parent.name}/{twin.name}"
    if not own:
        raise ValueError(f"{path} calls no checks.check_…(…), and the course has no {path.name}")
    return own, ""


def _twins(path):
    try:
        course = find_course()
    except FileNotFoundError:
        return []
    twins = [course / folder / path.name for folder in ("exercises", "solutions")]
    return [twin for twin in twins if twin.is_file() and not twin.samefile(path)]


def progress(options) -> int:
    """Show which checks pass across chapters; only what has changed is run."""
    from lightcourse import classroom
    from lightcourse.progress import bar, in_terminal

    course = find_course()
    folder = Path(options.folder) if options.folder else course / "exercises"
    pairs = [(folder / s.name, s) for s in sorted((course / "solutions").glob("*.ipynb"))]
    if not pairs or not folder.is_dir():
        raise FileNotFoundError(f"there are no exercises in {folder}")
    known = {pair: classroom.look(*pair) for pair in pairs}
    changed = [pair for pair, standing in known.items() if standing is None]
    for pair in bar(changed, unit="notebook", show=in_terminal()):
        known[pair] = classroom.ask(*pair, options.timeout)
    _show_progress(list(known.values()))
    return 0


def _show_progress(standings):
    """Print a table of chapters, a mark for each check, and what was run for it."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    table = Table("chapter", "checks", "next", box=SIMPLE, padding=0, pad_edge=False)
    for standing in standings:
        marks = "".join(map(_mark, standing.answers.values()))
        table.add_row(standing.path.stem, marks, _next_step(standing))
    Console(highlight=False).print(table)
    passed, all_of_them = (
        sum(count) for count in zip(*((s.passed, len(s.answers)) for s in standings), strict=True)
    )
    anew = sum(standing.anew for standing in standings)
    print(f"{passed} of {all_of_them} checks pass (✗ not yet, · not begun)")
    print(f"{anew} of {len(standings)} notebooks were run; the others are as they were")


def _mark(answer):
    return "·" if answer is None else "✓" if answer.passed else "✗"


def _next_step(standing):
    """Return what to do about a notebook's first check that does not pass."""
    if standing.trouble:
        return standing.trouble
    for check, answer in standing.answers.items():
        if answer is not None and not answer.passed:
            return f"{_name(check)}: {answer.message or 'it did not return True'}"
    blank = [check for check, answer in standing.answers.items() if answer is None]
    return f"write {_name(blank[0])}" if blank else "done"


def _name(check):
    """Return what a check is about: ``x`` for ``checks.check_x(…)``."""
    return check.partition("(")[0].removeprefix("checks.check_")


def quizzes(options) -> int:
    """Write the chapters' quizzes for Moodle, as QTI, or to be printed."""
    from lightcourse.quizzes import read_quizzes, write_quiz

    course = find_course()
    found = read_quizzes(course)
    if options.chapter:
        name = find_chapter(course, options.chapter).stem
        found = [quiz for quiz in found if quiz.name == name]
    if not found:
        raise FileNotFoundError(f"there is no sources/…/quiz.yaml for this in {course}")
    for quiz in found:
        _say("✓", str(write_quiz(quiz, options.format, options.out)))
    return 0


def variants(options) -> int:
    """Write notebooks of exercises that differ in the numbers to work out by hand, and keys."""
    from lightcourse import classroom

    if (options.count is None) == (options.names is None):
        raise CallError("give either --count N or --class FILE.csv")
    course = find_course()
    path = _numbered(course / "exercises", options.chapter)
    who = classroom.read_names(options.names) if options.names else options.count
    seed = secrets.randbelow(2**63) if options.seed is None else options.seed
    exercise, room = classroom.read_notebook(path), course / "sources" / path.stem
    out = options.out or f"variants-{path.stem}"
    written = classroom.write_variants(exercise, room, out, seed, who)
    for question, count in written.shared.items():
        print(f"{question}: {count} different answers for {written.count} variants")
    print(f"seed {seed}: keep it as you keep the keys")
    _say("✓", f"{written.count} variants in {written.notebooks}", f"their keys: {written.keys}")
    return 0


def grade(options) -> int:
    """Grade a class's notebooks, each shut in, into CSV, JSON and HTML; goes on after a kill."""
    from lightcourse import classroom, progress

    folder = Path(options.folder).resolve()
    if not folder.is_dir():
        raise CallError(f"{options.folder} is no folder; that of the class is wanted")
    if bool(options.chapter) == options.capstone:
        raise CallError("either --chapter NN or --capstone is wanted")
    _check_idle(options)
    if options.capstone:
        from lightcourse.classroom import capstones

        return capstones.from_options(options)
    exercises = _numbered(find_course() / "exercises", options.chapter)
    blank = classroom.read_notebook(exercises)
    expected = classroom.expected_checks(blank)
    out = options.out or folder.with_name(f"{folder.name}-{exercises.stem}-results")
    keyed = _keyed(options.key, find_course() / "sources" / exercises.stem) if options.key else {}
    found = classroom.grade_class(
        folder,
        exercises.name,
        expected,
        out,
        seed=options.seed,
        limits=classroom.Limits(options.timeout),
        trusted=options.trusted,
        worth=classroom.points_of(blank),
        show=progress.in_terminal(),
        **keyed,
    )
    _show_class(found, out)
    return 0


def _keyed(path, room):
    """Return the keys of a class, and their folder, which learners' code must not see."""
    from lightcourse import classroom

    keys = classroom.read_keys(path, room.name, classroom.read_questions(room))
    path = Path(path).resolve()
    return {"keys": keys, "hidden": [path]}


def _check_idle(options):
    """Raise where an option is given that this kind of grading has no use for."""
    if options.capstone and options.trusted:
        raise CallError("--trusted is for notebooks; a capstone is data, none of it is run")
    if options.capstone and options.seed is not None:
        raise CallError("--seed is for a chapter's cases; a capstone is measured on --held-back")
    if not options.capstone and options.held_back:
        raise CallError("--held-back is for --capstone; a chapter's cases come from --seed")


def _show_class(found, out):
    from lightcourse import classroom

    most = classroom.total(found)
    for learner, row in found["learners"].items():
        ended = f", cut off: {row['stopped']}" if row["stopped"] else ""
        print(f"{row['points']} of {most}  {learner}{ended}")
    for sentence in found["layers"].values():
        print(f"isolation: {sentence}")
    _say("✓", f"{out} has results.csv, results.json, results.html")


def compress(options) -> int:
    """Round a checkpoint to integers, in little memory; with others, under torchrun."""
    from lightcourse import progress, streaming

    how = streaming.Compression(options.bits, options.group_size or None, prune=options.prune)
    place, show = streaming.environment_place(), progress.in_terminal()
    report = streaming.compress(options.checkpoint, options.out, how, place, show=show)
    if place[0] == 0:
        print(report)
        _say("✓", f"{options.out} is whole, and loads with from_pretrained")
    return 0


def serve_demo(options) -> int:
    """Serve the demo: a page in whose browser a light model answers, on this machine alone."""
    from lightcourse import demo

    print("preparing the demo; the first time takes a minute or two", flush=True)
    folder = demo.build(find_course() / "web")
    if options.only_build:
        _say("✓", f"the demo is in {folder}")
        return 0
    with demo.open_server(folder) as server:
        print(
            f"open http://127.0.0.1:{server.server_port}/ in a browser; Ctrl-C here ends it",
            flush=True,
        )
        server.serve_forever()
    return 0


def bench(options) -> int:
    """Run the course's benchmarks; what follows -- is handed on to them."""
    course = find_course()
    script = course / "benchmarks" / "bench.py"
    if not script.is_file():
        raise FileNotFoundError(f"there is no {script}: benchmarks come with the course's sources")
    # From the course's folder, which -m puts on the path: the script's own would not do.
    return _hand_over([sys.executable, "-m", "benchmarks.bench", *options.rest], course)


# --- finding the course --------------------------------------------------------------------


def find_course() -> Path:
    """Return the folder that holds ``chapters``: here, above, or where the package lies.

    Raises
    ------
    FileNotFoundError
        When it is in none of these places.
    """
    here, package = Path.cwd(), Path(__file__).resolve().parents[1]
    for folder in (here, *here.parents, package):
        inside = folder.name in language.LANGUAGES and (folder.parent / "chapters").is_dir()
        if not inside and any((folder / "chapters").glob("[0-9][0-9]_*.ipynb")):
            return folder
    raise FileNotFoundError(
        f"no folder chapters in {here} or above it; change into the course's folder first"
    )


def find_chapter(course: Path, number: str) -> Path:
    """Return the notebook of a chapter, given as ``"3"`` or ``"03"``.

    Raises
    ------
    ValueError
        When there is no such chapter.
    """
    return _numbered(course / "chapters", number)


def _numbered(folder, number):
    chapters = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    found = [path for path in chapters if path.name[:2] == number.zfill(2)]
    if not found:
        there = ", ".join(path.name[:2] for path in chapters)
        raise ValueError(f"there is no chapter {number}; there are: {there}")
    return found[0]
