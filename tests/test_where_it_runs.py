"""Containers, hubs and the public CI say the same as pyproject.toml, constraints.txt and README.

None of them can be started by a test: there is no network and no Docker. So what they consist of
is read, and each thing that it names is looked for.
"""

import json
import re
import shlex
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from lightcourse import cli, lab

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
INSTALL = re.compile(r'-m pip install [^\n]*?-c constraints.txt (?:-e|--editable) "\.\[([\w,]+)\]"')
CPU_TORCH = re.compile(r"pip install torch==(\S+) --index-url https://download.pytorch.org/whl/cpu")


def read(*parts):
    return ROOT.joinpath(*parts).read_text(encoding="utf-8")


def instructions(text):
    """Return a Dockerfile's instructions, as pairs of a keyword and what follows it."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [tuple(line.split(maxsplit=1)) for line in joined if line.strip()]


IMAGE = instructions(read("Dockerfile"))
WORKFLOW = yaml.safe_load(read(".github", "workflows", "test.yml"))
STEPS = [step for job in WORKFLOW["jobs"].values() for step in job["steps"]]
RUNS = [step["run"] for step in STEPS if "run" in step]
MATRIX = WORKFLOW["jobs"]["test"]["strategy"]["matrix"]


def told(keyword):
    return [rest for name, rest in IMAGE if name == keyword]


def makefile():
    """Return the names of the Makefile's targets."""
    return set(re.findall(r"(?m)^([.\w/]+):", read("Makefile")))


def test_python_is_one_that_pyproject_allows_and_the_lowest_is_tested():
    wanted = SpecifierSet(PROJECT["requires-python"])
    assert str(wanted) == f">={MATRIX['python'][0]}"
    assert all(version in wanted for version in MATRIX["python"])
    (base,) = told("FROM")
    assert re.fullmatch(r"python:([\d.]+)-slim", base)[1] in MATRIX["python"]


def test_torch_is_the_pinned_one_everywhere():
    (pin,) = re.findall(r"(?m)^torch==(.+)$", read("constraints.txt"))
    named = [CPU_TORCH.findall(text) for text in (read("README.md"), *told("RUN"), *RUNS)]
    assert [version for versions in named for version in versions] == [pin] * 3


def test_the_image_installs_by_the_makefile_and_every_extra_exists():
    (build,) = [run for run in told("RUN") if "venv" in run]
    assert "make .venv/course" in build and ".venv/course" in makefile()
    assert INSTALL.findall(build) == ["practice,hub"]
    texts = [read("README.md"), *told("RUN"), *RUNS]
    extras = {
        extra for text in texts for found in INSTALL.findall(text) for extra in found.split(",")
    }
    assert extras == {"practice", "hub", "dev"} <= set(PROJECT["optional-dependencies"])


def test_the_image_is_an_ordinary_user_s_and_holds_the_assets():
    names = [name for name, _ in IMAGE]
    assert names.index("USER") < names.index("COPY")
    assert dict(IMAGE)["USER"] == "$NB_USER" and "ARG NB_USER" in " ".join(map(" ".join, IMAGE))
    assert "lightcourse assets" in read("Makefile").split(".venv/course:")[1].split("\n\n")[0]
    settings = dict(shlex.split(line)[0].split("=", 1) for line in told("ENV"))
    assert settings["LIGHTCOURSE_CACHE"] in told("RUN")[1]
    assert settings["LIGHTCOURSE_CACHE"] != dict(IMAGE)["WORKDIR"]


def test_what_the_image_copies_leaves_out_what_git_ignores():
    assert told("COPY") == ["--chown=$NB_UID . ."]
    ignored = [line.rstrip("/") for line in read(".gitignore").splitlines()]
    left_out = read(".dockerignore").splitlines()
    assert {f"**/{line}" for line in [".git", *ignored]} <= set(left_out)


def test_the_image_starts_jupyterlab_with_a_token(monkeypatch):
    program, *arguments = json.loads(dict(IMAGE)["CMD"])
    started = []
    monkeypatch.setattr(cli, "_hand_over", lambda command, folder: started.append(command) or 0)
    monkeypatch.setattr(cli.os, "environ", dict(cli.os.environ))
    assert program in PROJECT["scripts"]
    assert cli.main(arguments) == 0
    (command,) = started
    assert {"--ip=0.0.0.0", "--no-browser"} < set(command)
    assert not [part for part in command if "token" in part.lower() or "password" in part.lower()]


def test_the_devcontainer_is_that_image():
    found = json.loads(read(".devcontainer", "devcontainer.json"))
    build = {key: (ROOT / ".devcontainer" / path).resolve() for key, path in found["build"].items()}
    assert build == {"dockerfile": ROOT / "Dockerfile", "context": ROOT}
    assert f"NB_USER={found['remoteUser']}" in told("ARG")
    (interpreter,) = found["customizations"]["vscode"]["settings"].values()
    assert interpreter == f"{dict(IMAGE)['WORKDIR']}/.venv/bin/python"
    assert [str(port) for port in found["forwardPorts"]] == told("EXPOSE")


def test_nothing_keeps_binder_from_the_dockerfile():
    assert not [name for name in ("binder", ".binder") if (ROOT / name).exists()]
    assert {"NB_USER", "NB_UID"} == {argument.split("=")[0] for argument in told("ARG")}


class Settings(dict):
    """A stand-in for traitlets' configuration: attributes that come into being when named."""

    def __getattr__(self, name):
        return self.setdefault(name, Settings())

    def __setattr__(self, name, value):
        self[name] = value


def test_the_hub_starts_what_is_in_the_image():
    spawner = Settings()
    text = read("instructors", "jupyterhub_config.py")
    exec(compile(text, "jupyterhub_config.py", "exec"), {"get_config": lambda: spawner})
    hub, course = SimpleNamespace(**spawner.DockerSpawner), dict(IMAGE)["WORKDIR"]
    places = [*hub.volumes.values(), hub.environment["JUPYTER_CONFIG_PATH"], hub.notebook_dir]
    places.append(course + hub.default_url.removeprefix("/lab/tree"))
    assert all((ROOT / Path(place).relative_to(course)).exists() for place in places)
    assert hub.args == [f"--ServerApp.contents_manager_class={lab.__name__}.Notebooks"]
    assert set(hub.args) < set(cli.QUIET)
    assert ROOT / Path(places[-3]).relative_to(course) == cli.SETTINGS
    named = {Requirement(line).name for line in PROJECT["optional-dependencies"]["hub"]}
    assert named == {"jupyterhub", "notebook"}


def test_the_workflow_runs_make_s_targets_and_readme_s_lines():
    for target in re.findall(r"(?m)^ *make (\S+)", "\n".join(RUNS)):
        assert target in makefile()
    told_of = re.findall(r"```bat\n(.*?)```", read("README.md"), re.DOTALL)
    lines = [line for block in told_of for line in block.splitlines()]
    windows = [step["run"] for step in STEPS if step.get("shell") == "cmd"]
    assert len(windows) == 5 and set(windows) <= set(lines)
    practice = lines[1]
    assert windows[1] == practice.replace("[practice]", "[practice,dev]")
    # Nobody looks at a browser there, and the variable stands in the step.
    shown = {practice, r".venv\Scripts\lightcourse lab", "set TQDM_DISABLE=1"}
    assert set(lines) - set(windows) == shown


def test_the_workflow_covers_three_systems():
    assert {system.split("-")[0] for system in MATRIX["os"]} == {"ubuntu", "macos", "windows"}
    conditions = {step["if"] for step in STEPS if "if" in step}
    assert conditions == {f"runner.os {sign} 'Windows'" for sign in ("==", "!=")} | {
        "runner.os == 'Linux'"
    }


@pytest.mark.parametrize("run", [run for run in RUNS if "docker run" in run])
def test_what_the_workflow_asks_of_the_image_is_a_command_without_a_network(run):
    start, _, command = run.partition(" lightcourse lightcourse ")
    assert start == "docker run --rm --network none"
    assert cli._parser().parse_args(shlex.split(command))


def test_colab_s_cell_installs_this_checkout():
    (cell,) = re.findall(r"```python\n(.*?)```", read("docs", "where-it-runs.md"), re.DOTALL)
    clone, install, assets = cell.splitlines()
    folder = clone.split()[-1]
    assert install == f'%pip install --quiet -c {folder}/constraints.txt "{folder}[practice]"'
    assert (ROOT / "constraints.txt").exists()
    assert cli._parser().parse_args(assets.split()[1:])


@pytest.mark.parametrize("page", ["README.md", "docs/where-it-runs.md"])
def test_pages_say_docker_s_lines_as_the_dockerfile_does(page):
    lines = re.findall(r"(?m)^docker (?:build|run) .*$", read(page))
    commented = re.findall(r"(?m)^# +(docker .*)$", read("Dockerfile"))
    assert commented == lines[:2]


def test_readme_s_lines_without_make_are_the_makefile_s():
    rule = read("Makefile").split(".venv/course:")[1].split("\n\n")[0]
    assert "lightcourse assets" in rule and '".[practice]"' in rule
    assert INSTALL.findall(read("README.md")) == ["practice", "practice,dev"]
    assert "-c constraints.txt --editable" in read("Makefile")
