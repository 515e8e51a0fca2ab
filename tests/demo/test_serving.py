"""The demo's server: on this machine alone, these files alone, the right types."""

import http.client
import re
import socket
from pathlib import Path

import pytest

from lightcourse.demo import serving
from tests.demo import browser


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site") / "dist"
    (folder / "ort").mkdir(parents=True)
    for name in ("index.html", "a.mjs", "a.wasm", "a.onnx", "sw.js", "ort/b.json"):
        (folder / name).write_text(name)
    (folder.parent / "secret").write_text("secret")
    with browser.served(folder) as address:
        yield int(address.rstrip("/").rpartition(":")[2])


def ask(port, path, method="GET"):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer, answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize(
    "path, kind",
    [
        ("/", "text/html; charset=utf-8"),
        ("/a.mjs?v=1", "text/javascript; charset=utf-8"),
        ("/sw.js", "text/javascript; charset=utf-8"),
        ("/a.wasm", "application/wasm"),
        ("/a.onnx", "application/octet-stream"),
        ("/ort/b.json", "application/json"),
    ],
)
def test_files_come_with_their_types_and_the_policy(served, path, kind):
    answer, body = ask(served, path)
    assert (answer.status, answer.headers["Content-Type"]) == (200, kind)
    assert body.decode() == (path.partition("?")[0].lstrip("/") or "index.html")
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    "path",
    [
        "/../secret",
        "/%2e%2e/secret",
        "/..%2fsecret",
        "//secret",
        "/ort",
        "/ort/../../secret",
        "/none",
    ],
)
def test_no_path_leads_out_of_the_folder(served, path):
    answer, body = ask(served, path)
    assert answer.status == 404 and b"secret" not in body
    assert "Content-Security-Policy" in answer.headers


def test_a_head_has_no_body_and_nothing_can_be_sent(served):
    answer, body = ask(served, "/a.wasm", "HEAD")
    assert (answer.status, answer.headers["Content-Length"], body) == (200, "6", b"")
    assert ask(served, "/a.wasm", "POST")[0].status == 501


def test_it_listens_on_this_machine_alone_and_on_a_free_port(tmp_path):
    with serving.open_server(tmp_path, 0) as first:
        assert first.server_address[0] == "127.0.0.1"
        with serving.open_server(tmp_path, first.server_port) as second:
            assert second.server_port != first.server_port
        others = socket.gethostbyname_ex("localhost")[2]
        assert set(others) <= {"127.0.0.1"}


def test_the_page_carries_the_policy_for_other_servers():
    page = (browser.WEB / "page" / "index.html").read_text(encoding="utf-8")
    assert re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1] == serving.POLICY


def test_every_kind_of_file_of_the_page_has_its_type():
    kinds = {path.suffix for path in Path(browser.WEB, "page").rglob("*") if path.is_file()}
    assert kinds | {".mjs", ".wasm", ".onnx", ".bin", ".txt", ".json"} <= set(serving.TYPES)
