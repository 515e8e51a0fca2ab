"""JupyterLab as ``lightcourse lab`` starts it: asks nothing, requests nothing, changes nothing."""

import json
import re
import socket
import subprocess
import sys
import time
import urllib.request

import nbformat
import pytest
from jupyter_client.manager import start_new_kernel
from nbformat.v4 import new_code_cell, new_notebook, new_output

from tools import offline

OURS = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"file_extension": ".py", "name": "python"},
}
SAVED = OURS | {"language_info": {"name": "python", "version": "3.12.1"}}
FOREIGN = {"kernelspec": {"display_name": "R", "language": "R", "name": "ir"}}
NOTIFICATIONS = "@jupyterlab/apputils-extension:notification"


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    folder = tmp_path_factory.mktemp("course")
    (folder / "chapters").mkdir()
    output = new_output("stream", text="2\n")
    for name, metadata in (("00_start", OURS), ("01_foreign", FOREIGN), ("02_saved", SAVED)):
        cell = new_code_cell("print(1 + 1)", outputs=[output], execution_count=1)
        notebook = new_notebook(cells=[cell], metadata=metadata)
        nbformat.write(notebook, folder / "chapters" / f"{name}.ipynb")
    return folder


@pytest.fixture(scope="module")
def lab(course, tmp_path_factory):
    """Start it where every connection beyond this machine is refused; return how to ask it."""
    home, port = tmp_path_factory.mktemp("home"), free_port()
    folders = {f"JUPYTER_{kind}_DIR": str(home / kind) for kind in ("CONFIG", "DATA", "RUNTIME")}
    command = [sys.executable, "-m", "lightcourse", "lab", "0", "--", "--no-browser"]
    command += [f"--ServerApp.port={port}", "--IdentityProvider.token="]
    environment = offline.environment(isolated=False) | folders | {"HOME": str(home)}
    with open(home / "log", "w") as log:
        process = subprocess.Popen(command, cwd=course, env=environment, stdout=log, stderr=log)

        def ask(path):
            address = f"http://127.0.0.1:{port}/{path}"
            with urllib.request.urlopen(address, timeout=30) as answer:
                return answer.read().decode()

        try:
            wait_for(process, ask, home / "log")
            yield ask
        finally:
            process.terminate()
            process.wait()
    assert "may use the network" not in (home / "log").read_text()


def wait_for(process, ask, log):
    for _ in range(300):
        assert process.poll() is None, log.read_text()
        try:
            return ask("api")
        except OSError:
            time.sleep(0.2)
    raise AssertionError(log.read_text())


def test_it_asks_not_for_news_and_has_none(lab):
    defaults = json.loads(lab(f"lab/api/settings/{NOTIFICATIONS}"))["schema"]["properties"]
    assert defaults["fetchNews"]["default"] == "false"  # "none" is what makes it ask
    assert defaults["checkForUpdates"]["default"] is False
    assert json.loads(lab("lab/api/news")) == {"news": []}
    assert json.loads(lab("lab/api/update")) == {"notification": None}


def test_its_extension_manager_lists_no_registry(lab):
    page = re.search(r'id="jupyter-config-data"[^>]*>(.*?)</script>', lab("lab"), re.DOTALL)
    config = json.loads(page.group(1))
    assert config["news"] == {"disabled": True}
    assert config["extensionManager"]["can_install"] is False
    assert config["extensionManager"]["name"] == "read-only"


def shown(lab, name):
    return json.loads(lab(f"api/contents/chapters/{name}.ipynb?content=1"))["content"]


def test_a_notebook_is_shown_as_it_is_once_its_kernel_runs(lab, course):
    """JupyterLab sets both of these when the kernel has started; equal ones change nothing."""
    before = (course / "chapters" / "00_start.ipynb").read_bytes()
    metadata = shown(lab, "00_start")["metadata"]
    manager, client = start_new_kernel()
    try:
        info = client.kernel_info(reply=True, timeout=60)["content"]["language_info"]
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    spec = json.loads(lab("api/kernelspecs"))["kernelspecs"]["python3"]["spec"]
    assert metadata["language_info"] == info
    assert metadata["kernelspec"] == {
        "name": "python3",
        "display_name": spec["display_name"],
        "language": spec["language"],
    }
    assert (course / "chapters" / "00_start.ipynb").read_bytes() == before


def test_a_notebook_of_another_kernel_is_shown_as_it_stands(lab):
    assert shown(lab, "01_foreign")["metadata"]["kernelspec"] == FOREIGN["kernelspec"]
    assert json.loads(lab("api/contents/chapters?content=1"))["type"] == "directory"


def test_results_are_hidden_until_the_learner_has_saved_some(lab):
    results = {
        name: shown(lab, name)["cells"][0] for name in ("00_start", "01_foreign", "02_saved")
    }
    assert {name: len(cell["outputs"]) for name, cell in results.items()} == {
        "00_start": 0,
        "01_foreign": 1,
        "02_saved": 1,
    }
    assert results["00_start"]["execution_count"] is None
