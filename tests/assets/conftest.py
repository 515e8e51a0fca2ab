"""An empty cache, and the index on 127.0.0.1 that fills it."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from lightcourse import assets
from lightcourse.assets import download
from tests.assets.toy_index import OTHER, WHEEL, Index, refuse, toy, write_sdist, write_wheel


@pytest.fixture
def index(tmp_path):
    """A package index that serves the toy packages on 127.0.0.1."""
    served = Index(tmp_path / "index")
    served.folder.mkdir()
    write_wheel(served.folder / WHEEL)
    write_sdist(served.folder / OTHER, tmp_path)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            served.answer(self)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        served.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield served
        server.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path, monkeypatch, index):
    """An empty cache, the toy in the catalogue, and our index for both clients."""
    monkeypatch.setenv("LIGHTCOURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(assets.CATALOG, "toy", toy(index))
    monkeypatch.setattr(download, "_address", lambda source: f"{index.address}/{source.archive}")
    monkeypatch.setattr(download, "_download_by_client", refuse)
    return tmp_path / "cache"
