"""What the tests of the page share: a browser, the page served, files of the built folder."""

import json
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from lightcourse import demo
from lightcourse.demo import site
from tools import browser

WEB = Path(__file__).resolve().parents[2] / "web"


def reason_to_skip():
    """Return why the page cannot be tried on this machine, or None."""
    if browser.path() is None:
        return "no Chromium, Chrome or Edge found; install one, e.g. apt install chromium"
    if not site.is_installed(WEB):
        return "npm's files are missing; run: lightcourse serve-demo --only-build"
    return None


@contextmanager
def served(folder):
    """Serve a folder on a free port; the value is its address."""
    with demo.open_server(folder, port=0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def skip_without():
    """Skip the module that calls this, with one line, where its tests cannot run."""
    pytest.importorskip("playwright.sync_api")
    if reason := reason_to_skip():
        pytest.skip(f"the browser tests did not run: {reason}", allow_module_level=True)


def read_json(folder, name):
    """Return what a JSON file of the built folder holds."""
    return json.loads((folder / name).read_text(encoding="utf-8"))


def wait_until_ready(page):
    """Wait until the page answers."""
    page.wait_for_selector("#judge fieldset:enabled", timeout=60_000)


def wait_until_offline(page):
    """Wait until the page says that it works without network."""
    page.wait_for_selector("#offline.yes", timeout=60_000)
