"""The house stands: layers, light imports, pins, one version, one test command."""

import importlib.metadata
import pkgutil
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import lightcourse

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
PINS = [
    Requirement(line)
    for line in (ROOT / "constraints.txt").read_text(encoding="ascii").splitlines()
    if not line.startswith("#")
]
# More peers to be held against, and a hub: the course is built and tested without them.
SPARE = EXTRAS["bench"] + EXTRAS["edge"] + EXTRAS["privacy"] + EXTRAS["hub"]
OPTIONAL = {canonicalize_name(Requirement(line).name) for line in SPARE}
# What markers are asked, and what only one of the systems gets.
SYSTEMS = {
    "this one": {},
    "Windows": {"sys_platform": "win32", "platform_system": "Windows", "os_name": "nt"},
    "macOS": {"sys_platform": "darwin", "platform_system": "Darwin", "platform_machine": "arm64"},
}
ELSEWHERE = {"appnope", "colorama", "pywinpty"}
# The second is imported by transformers' own import, and by nothing else; the third subclasses
# its caches, for whoever asks for one.
LATE = (
    "lightcourse.__main__",
    "lightcourse.quantization.pretrained",
    "lightcourse.generation.kv_layers",
)
HEAVY = {"transformers", "datasets", "matplotlib", "sklearn", "peft", "torchao", "nbclient"}


def lint_imports(folder):
    """Run import-linter on the package in ``folder``; return whether contracts are kept."""
    command = [Path(sys.executable).parent / "lint-imports", "--no-cache", "--no-logo"]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert "Contracts:" in run.stdout or "Missing layer" in run.stdout, run.stdout + run.stderr
    return run.returncode == 0


@pytest.fixture
def house(tmp_path):
    """A copy of the package that a test may spoil."""
    ignore = shutil.ignore_patterns("bundled", "__pycache__")
    shutil.copytree(ROOT / "lightcourse", tmp_path / "lightcourse", ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_imports_go_down_only(house):
    assert lint_imports(house)


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("files", "from lightcourse import cli"),
        ("pruning/masks", "from lightcourse import quantization"),
        ("reference", "import torch"),
        ("kernels/portable", "def late():\n    import torch"),
        ("unlisted", "import os"),
    ],
    ids=["up", "sideways", "torch below", "torch late", "no floor"],
)
def test_an_import_against_the_rules_is_caught(house, module, line):
    with (house / "lightcourse" / f"{module}.py").open("a") as file:
        file.write(f"\n{line}\n")
    assert not lint_imports(house)


def picture():
    """Return CONTRIBUTING's picture of the house."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    return text.split("## The house\n")[1].split("```")[1]


def test_the_folders_in_the_picture_are_there():
    folders = re.findall(r"(?m)^(\w+)/  ", picture())
    assert len(folders) == len(set(folders)) > 5
    assert all((ROOT / name).is_dir() for name in folders)


def test_the_picture_shows_every_room_once_from_the_top_floor_down():
    rooms = re.findall(r"(?m)^    (\w+)  ", picture())
    modules = {module.name for module in pkgutil.iter_modules(lightcourse.__path__)}
    assert sorted(rooms) == sorted(modules - {"__main__"})
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    layers = contract["importlinter"]["contracts"][0]["layers"]
    floors = {name: floor for floor, names in enumerate(layers) for name in names.split(" | ")}
    assert [floors[room] for room in rooms] == sorted(floors[room] for room in rooms)


def test_heavy_libraries_wait_until_they_are_used():
    code = (
        "import importlib, lightcourse, pkgutil, sys\n"
        "for module in pkgutil.walk_packages(lightcourse.__path__, 'lightcourse.'):\n"
        f"    if module.name not in {LATE}: importlib.import_module(module.name)\n"
        f"print(sorted({HEAVY} & set(sys.modules)), 'lightcourse.cli' in sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert run.stdout == "[] True\n", run.stderr


def test_who_reads_notebooks_does_not_wait_for_torch():
    code = "import lightcourse.classroom, sys; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.stdout == "False\n", run.stderr


def test_constraints_pin_exactly_and_say_nothing_else():
    assert all(re.fullmatch(r"==[\w.]+", str(pin.specifier)) for pin in PINS)
    assert not any(pin.url or pin.extras or pin.marker for pin in PINS)
    assert "torch==2.13.0" in map(str, PINS)


def declared():
    """The requirements of pyproject.toml, those of the extras among them."""
    lines = sum(EXTRAS.values(), PROJECT["dependencies"])
    return [Requirement(line) for line in lines]


def test_pins_lie_within_the_declared_ranges():
    pinned = {canonicalize_name(pin.name): str(pin.specifier)[2:] for pin in PINS}
    for requirement in declared():
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)])


def requirements(name):
    """What an installed distribution wants; nothing, where an optional one is not here."""
    try:
        return [Requirement(line) for line in importlib.metadata.requires(name) or []]
    except importlib.metadata.PackageNotFoundError:
        assert name in OPTIONAL | ELSEWHERE
        return []


@pytest.mark.parametrize("system", SYSTEMS)
def test_everything_that_gets_installed_is_pinned(system):
    pinned = {canonicalize_name(pin.name) for pin in PINS}
    waiting, seen = [(requirement, "") for requirement in declared()], set()
    while waiting:
        requirement, extra = waiting.pop()
        place = SYSTEMS[system] | {"extra": extra}
        if requirement.marker and not requirement.marker.evaluate(place):
            continue
        name = canonicalize_name(requirement.name)
        # The libraries of a CUDA build come with torch, which names their exact versions itself.
        if name.startswith(("nvidia-", "cuda-", "triton")):
            continue
        assert name in pinned
        new = {(name, wanted) for wanted in ("", *requirement.extras)} - seen
        seen |= new
        waiting += [(need, wanted) for _, wanted in new for need in requirements(name)]
    assert len(seen) > len(declared())


def test_the_version_is_the_same_everywhere():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {lightcourse.__version__}\n" in citation
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{lightcourse.__version__}]" in changes


def test_ci_runs_the_test_command_of_the_readme():
    command = "make test"
    assert f"\n{command}" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert (ROOT / ".ci" / "run").read_text().rstrip().endswith(f"exec {command}")


def test_make_course_installs_all_that_notebooks_import():
    sources = ROOT.glob("sources/*/*.py")
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    imported = set(re.findall(r"(?m)^ *(?:import|from) (\w+)", text)) - set(sys.stdlib_module_names)
    owners = importlib.metadata.packages_distributions()
    wanted = {canonicalize_name(owners[name][0]) for name in imported - {"lightcourse"}}
    named = [*PROJECT["dependencies"], *EXTRAS["practice"]]
    assert len(wanted) > 5
    assert wanted <= {canonicalize_name(Requirement(line).name) for line in named}
    course = (ROOT / "Makefile").read_text(encoding="utf-8").split(".venv/course: ")[1]
    assert '$(INSTALL) ".[practice]"' in course.split("\n\n")[0]
