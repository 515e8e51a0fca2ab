"""A small web server for one folder, on this machine alone."""

import shutil
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

HOST = "127.0.0.1"
# The same each time where it is free: a browser keeps what it stores by address and port.
PORT = 8642
TYPES = {
    ".bin": "application/octet-stream",
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".onnx": "application/octet-stream",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
}
# No other host is asked for anything; ONNX Runtime needs leave to compile WebAssembly.
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; worker-src 'self'; manifest-src 'self'; base-uri 'none'; "
    "form-action 'none'"
)
HEADERS = {
    "Content-Security-Policy": f"{POLICY}; frame-ancestors 'none'",
    "Cache-Control": "no-cache",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def open_server(folder: Path, port: int = PORT) -> ThreadingHTTPServer:
    """Return a server of a folder's files that listens on 127.0.0.1 alone.

    Call ``serve_forever()`` on it; ``server_port`` is its port.

    Parameters
    ----------
    folder : path
        Files that are added later are not served.
    port : int
        Where it is taken, a free one is chosen; 0 always chooses a free one.
    """
    files = {f"/{path.relative_to(folder).as_posix()}": path for path in folder.rglob("*")}
    files = {name: path for name, path in files.items() if path.is_file()}
    handler = partial(_Handler, files | {"/": folder / "index.html"})
    try:
        return ThreadingHTTPServer((HOST, port), handler)
    except OSError:
        return ThreadingHTTPServer((HOST, 0), handler)


class _Handler(BaseHTTPRequestHandler):
    """Sends the files of a table: no other path leads anywhere."""

    protocol_version = "HTTP/1.1"

    def __init__(self, files, *args):
        self.files = files
        super().__init__(*args)

    def do_GET(self):
        """Send a file."""
        self._answer(with_body=True)

    def do_HEAD(self):
        """Send what goes before a file."""
        self._answer(with_body=False)

    def _answer(self, with_body):
        path = self.files.get(unquote(urlsplit(self.path).path))
        if path is None or not path.is_file():
            return self.send_error(HTTPStatus.NOT_FOUND)
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", TYPES.get(path.suffix, "application/octet-stream"))
        self.send_header("Content-Length", str(path.stat().st_size))
        self.end_headers()
        if with_body:
            with path.open("rb") as file:
                shutil.copyfileobj(file, self.wfile)

    def end_headers(self):
        """Add what every answer carries, an error too."""
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, *_):
        """Stay quiet: the terminal shows the address."""
