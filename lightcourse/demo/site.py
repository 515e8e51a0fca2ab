"""The folder that a browser is served: the page, its contents, ONNX Runtime, and a manifest.

Any web server that sends files can serve it.
"""

import hashlib
import json
import os
import shutil
import subprocess
import uuid
from pathlib import Path

from lightcourse import data, files
from lightcourse.demo import contents

RUNTIME = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
# What the page checks before it uses it; all else is small.
CHECKED = ("model.onnx", "vocab.txt", "head.json", "passages.json", "passages.bin", "ledger.json")
CHECKED += ("ort/ort-wasm-simd-threaded.wasm",)
WORKER = ("sw.js", "shell.js")


def build(web: Path, target: Path | None = None) -> Path:
    """Write the demo's folder and return it; what was made before is taken from the cache.

    Parameters
    ----------
    web : path
        The course's folder ``web``: the page's sources, and what npm is told to fetch.
    target : path, optional
        Replaced by the new folder; by default ``web/dist``.

    Raises
    ------
    FileNotFoundError
        When MiniLM, the page's sources or npm are missing; the message says what to do.
    RuntimeError
        When npm fails.
    ModuleNotFoundError
        When ONNX's packages are not installed.
    """
    if not (web / "page").is_dir():
        raise FileNotFoundError(f"there is no {web / 'page'}: it comes with the course's sources")
    target, runtime = target or web / "dist", fetch_runtime(web)
    new = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        shutil.copytree(web / "page", new)
        (new / "ort").mkdir()
        for name in RUNTIME:
            shutil.copy(runtime / name, new / "ort")
        made = contents.folder(data.COUNTRIES)
        for name in CHECKED[:-1]:
            shutil.copy(made / name, new)
        _write_manifest(new)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(new, target)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return target


def fetch_runtime(web: Path) -> Path:
    """Return the folder with ONNX Runtime's files, letting npm fetch them where they are missing.

    Raises
    ------
    FileNotFoundError, RuntimeError
        As :func:`build`.
    """
    dist = web / "node_modules" / "onnxruntime-web" / "dist"
    if not is_installed(web):
        _run_npm(web)
    missing = [name for name in RUNTIME if not (dist / name).is_file()]
    if missing:
        raise RuntimeError(f"npm left no {missing[0]} in {dist}; remove {web / 'node_modules'}")
    return dist


def is_installed(web: Path) -> bool:
    """Tell whether npm has installed the very version that package-lock.json pins."""
    name = "node_modules/onnxruntime-web"
    try:
        pinned, found = (
            json.loads(path.read_text(encoding="utf-8"))["packages"][name]["version"]
            for path in (web / "package-lock.json", web / "node_modules" / ".package-lock.json")
        )
    except (FileNotFoundError, KeyError):
        return False
    return pinned == found


def _run_npm(web):
    npm = shutil.which("npm")
    if npm is None:
        raise FileNotFoundError(
            "npm is not installed, and it fetches ONNX Runtime for browsers; install Node.js "
            "(https://nodejs.org, or apt install npm) and run this again"
        )
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    run = subprocess.run(command, cwd=web, capture_output=True, text=True)
    if run.returncode:
        reason = next((line for line in run.stderr.splitlines() if "error" in line), "no reason")
        raise RuntimeError(f"npm ci failed in {web}: {reason}; check the network and run it again")


def _write_manifest(folder):
    """Write manifest.json, of the files that the page checks, and shell.js, of all others."""
    checked = {
        name: {"bytes": (folder / name).stat().st_size, "sha256": files.sha256(folder / name)}
        for name in CHECKED
    }
    manifest = {"tokens": contents.TOKENS, "files": checked}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    names = [path.relative_to(folder).as_posix() for path in paths]
    shell = [name for name in names if name not in CHECKED + WORKER]
    hashes = "".join(files.sha256(folder / name) for name in shell)
    version = hashlib.sha256(hashes.encode()).hexdigest()[:16]
    settings = json.dumps({"version": version, "files": ["./", *shell]}, indent=1)
    (folder / "shell.js").write_text(f"const SHELL = {settings};\n", encoding="utf-8")
