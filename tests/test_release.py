"""A wheel and a source archive are built, installed in a new environment, and work there."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
import yaml

import lightcourse

ROOT = Path(__file__).resolve().parents[1]
BUILD = "import sys; from setuptools import build_meta as b; b.build_{kind}(sys.argv[1])"
# Python's own way to look for packages in one more place: torch is not installed twice.
SHARED = f"{sysconfig.get_path('purelib')}\n"


def run(*command, folder):
    """Return what a command printed, or fail with it."""
    place = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = list(map(str, command))
    done = subprocess.run(command, cwd=folder, env=place, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(kind, source, folder):
    folder.mkdir()
    run(sys.executable, "-c", BUILD.format(kind=kind), folder, folder=source)
    (file,) = folder.iterdir()
    return file


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The files that git knows, elsewhere: building leaves folders behind."""
    copy = tmp_path_factory.mktemp("source")
    for name in run("git", "ls-files", folder=ROOT).splitlines():
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    return copy


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory):
    return build("wheel", source, tmp_path_factory.mktemp("dist") / "wheel")


@pytest.fixture(scope="module")
def sdist(source, tmp_path_factory):
    return build("sdist", source, tmp_path_factory.mktemp("dist") / "sdist")


@pytest.fixture(scope="module")
def programs(wheel, tmp_path_factory):
    """The programs of a new environment that has the wheel, and the packages of this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    place = {"base": folder, "platbase": folder}
    path = Path(sysconfig.get_path("purelib", "venv", place))
    (path / "shared.pth").write_text(SHARED)
    programs = Path(sysconfig.get_path("scripts", "venv", place))
    install = ("-m", "pip", "install", "--no-index", "--no-deps", "--ignore-installed", wheel)
    run(programs / "python", *install, folder=folder)
    return programs


def test_an_installed_wheel_passes_the_doctor(programs, tmp_path):
    found = run(
        programs / "python", "-c", "import lightcourse as l; print(l.__file__)", folder=tmp_path
    )
    assert Path(found.strip()).is_relative_to(programs.parent)
    said = run(programs / "lightcourse", "--version", folder=tmp_path)
    assert said.split() == ["lightcourse", lightcourse.__version__]
    said = run(programs / "lightcourse", "doctor", folder=tmp_path)
    assert "✓" in said and "✗" not in said, said


def test_an_installed_wheel_has_its_models_texts_and_words(programs, tmp_path):
    program = (
        "from lightcourse import data, models; from lightcourse.checks import ch03_pruning; "
        "print(len(data.load_reviews()['test']), models.load_tiny_lm('student').num_parameters())"
    )
    rows, parameters = run(programs / "python", "-c", program, folder=tmp_path).split()
    assert int(rows) > 1000 and int(parameters) > 1e6


def test_the_source_archive_makes_the_same_wheel(wheel, sdist, tmp_path):
    run(sys.executable, "-m", "tarfile", "-e", sdist, tmp_path, folder=tmp_path)
    (unpacked,) = tmp_path.iterdir()
    again = build("wheel", unpacked, tmp_path / "again")
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(again) as other:
        contents = [{i.filename: i.CRC for i in z.infolist()} for z in (one, other)]
    assert again.name == wheel.name and contents[0] == contents[1]


def test_versions_agree():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    changes = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert cited["version"] == lightcourse.__version__
    assert re.findall(r"^## \[(\d.*?)\]", changes, re.MULTILINE)[0] == lightcourse.__version__
