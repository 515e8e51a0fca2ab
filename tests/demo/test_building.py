"""The demo's folder: what is in it, and what is told where something is missing."""

import hashlib
import json
import shutil

import numpy as np
import pytest

from lightcourse import cli, data, demo, kernels, models
from lightcourse.demo import contents, site
from tests.demo import browser


@pytest.fixture
def web(tmp_path, monkeypatch):
    """A folder web with a small page, as if npm had been run; contents that take no time."""
    folder = tmp_path / "web"
    shutil.copytree(browser.WEB / "page", folder / "page")
    shutil.copy(browser.WEB / "package-lock.json", folder)
    npm(folder)
    made = tmp_path / "made"
    made.mkdir()
    for name in site.CHECKED[:-1]:
        (made / name).write_bytes(name.encode())
    monkeypatch.setattr(contents, "folder", lambda countries: made)
    return folder


def npm(web):
    dist = web / "node_modules" / "onnxruntime-web" / "dist"
    dist.mkdir(parents=True)
    for name in site.RUNTIME:
        (dist / name).write_bytes(name.encode())
    shutil.copy(web / "package-lock.json", web / "node_modules" / ".package-lock.json")


def shell_of(folder):
    return json.loads(
        (folder / "shell.js").read_text().removeprefix("const SHELL = ").rstrip(";\n")
    )


def test_the_manifest_names_each_checked_file_with_length_and_hash(web):
    folder = demo.build(web)
    assert folder == web / "dist"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert set(manifest["files"]) == set(site.CHECKED)
    for name, entry in manifest["files"].items():
        data = (folder / name).read_bytes()
        assert entry == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def test_every_other_file_is_kept_by_the_service_worker(web):
    folder = demo.build(web)
    names = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    shell = shell_of(folder)["files"]
    assert len(shell) == len(set(shell))
    assert set(shell) == {"./"} | names - set(site.CHECKED) - {"sw.js", "shell.js"}


def test_the_version_changes_with_the_page_and_with_the_contents(web):
    versions = [shell_of(demo.build(web))["version"] for _ in range(2)]
    with (web / "page" / "style.css").open("a") as file:
        file.write("/* */")
    versions.append(shell_of(demo.build(web))["version"])
    (web.parent / "made" / "head.json").write_text("{}")
    versions.append(shell_of(demo.build(web))["version"])
    assert versions[0] == versions[1] and len(set(versions)) == 3


def test_a_build_that_fails_leaves_the_old_folder(web, monkeypatch):
    demo.build(web)

    def fail(countries):
        raise OSError("the disk is full")

    monkeypatch.setattr(contents, "folder", fail)
    with pytest.raises(OSError, match="disk is full"):
        demo.build(web)
    assert (web / "dist" / "index.html").is_file()
    assert sorted(path.name for path in web.iterdir() if path.name.startswith(".")) == []


# --- what is missing -------------------------------------------------------------------------


def test_without_npm_the_next_step_is_told(web, monkeypatch, capsys):
    shutil.rmtree(web / "node_modules")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(cli, "find_course", lambda: web.parent)
    assert cli.main(["serve-demo"]) == 1
    assert "npm is not installed" in capsys.readouterr().err
    npm(web)
    assert cli.main(["serve-demo", "--only-build"]) == 0
    assert "the demo is in" in capsys.readouterr().out


def test_another_version_than_the_pinned_one_is_fetched_anew(web, monkeypatch):
    calls = []
    monkeypatch.setattr(site, "_run_npm", calls.append)
    site.fetch_runtime(web)
    assert calls == []
    found = web / "node_modules" / ".package-lock.json"
    pin = json.loads(found.read_text())["packages"]["node_modules/onnxruntime-web"]["version"]
    found.write_text(found.read_text().replace(pin, "0.0.1"))
    site.fetch_runtime(web)
    assert calls == [web]
    (web / "node_modules" / "onnxruntime-web" / "dist" / site.RUNTIME[0]).unlink()
    with pytest.raises(RuntimeError, match="npm left no ort"):
        site.fetch_runtime(web)


@pytest.mark.skipif(not shutil.which("sh"), reason="there is no sh")
def test_what_npm_says_is_told(web, monkeypatch, tmp_path):
    program = tmp_path / "npm"
    program.write_text("#!/bin/sh\necho 'npm error ENOTFOUND registry' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda name: str(program))
    shutil.rmtree(web / "node_modules")
    with pytest.raises(RuntimeError, match="npm ci failed .*ENOTFOUND.*check the network"):
        demo.build(web)


def test_without_the_course_the_page_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="comes with the course's sources"):
        demo.build(tmp_path)


# --- contents --------------------------------------------------------------------------------


def test_vectors_come_in_the_order_of_their_texts():
    texts = ["a b c d " * (i % 7 + 1) for i in range(70)]
    counts = contents.vectors(
        texts, models.load_minilm_tokenizer(), lambda batch: batch["attention_mask"].sum(1)
    )
    assert counts.tolist() == [min(4 * (i % 7 + 1) + 2, contents.TOKENS) for i in range(70)]


def test_a_row_of_int8_errs_by_half_a_step_at_most():
    rows = np.random.default_rng(0).standard_normal((50, 384)).astype(np.float32)
    q, scale = kernels.quantize_rows(rows)
    assert q.dtype == np.int8 and np.abs(q).max() == 127
    assert (np.abs(q * scale[:, None] - rows) <= scale[:, None] * 0.5001).all()


def test_every_passage_has_a_country_with_a_name_and_is_no_list():
    names = data.load_country_names()
    rows = contents.passages(names)
    assert len(rows) > 2_000
    assert all(row["country"].strip() for row in rows)
    assert not contents.is_prose("Christian 54.7%, Muslim 0.5%, Buddhist 0.5%, Hindu 0.4%")
    assert not contents.is_prose("short text")
