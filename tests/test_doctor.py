"""Each probe of the doctor, shown a healthy and an ill machine."""

import importlib.metadata
import os
import shutil
import tempfile
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import pytest

from lightcourse import assets, data, doctor, kernels, models
from lightcourse.kernels import caching

Version = namedtuple("Version", "major minor micro")


def marks(probe):
    findings = list(probe())
    assert findings
    for finding in findings:
        assert finding.mark in ("✓", "!", "✗")
        assert finding.step or finding.mark == "✓", f"{finding} names no next step"
    return [finding.mark for finding in findings]


def only(probe):
    (finding,) = probe()
    return finding


def broken(*_, **__):
    raise OSError("it is broken")


def test_a_probe_that_breaks_becomes_a_finding_and_the_rest_goes_on(monkeypatch):
    fine = doctor.Finding("✓", "fine", "fine")
    probes = {"first": broken, "second": lambda: iter([fine])}
    monkeypatch.setattr(doctor, "PROBES", probes)
    first, second = doctor.examine()
    assert (first.mark, first.name, first.detail) == ("✗", "first", "OSError: it is broken")
    assert first.step
    assert second is fine


def test_an_old_python_is_refused(monkeypatch):
    assert marks(doctor.check_python) == ["✓"]
    monkeypatch.setattr(doctor.sys, "version_info", Version(3, 10, 9))
    assert marks(doctor.check_python) == ["✗"]


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """A course that wants three packages and pins two; a dict of what is installed."""
    lines = ["alpha>=2", "Beta>=1,<2", "gamma; python_version < '3'", "delta; extra == 'dev'"]
    (tmp_path / "pyproject.toml").write_text(f"[project]\ndependencies = {lines}\n")
    (tmp_path / "constraints.txt").write_text("# pins\nalpha==2.1  # why\nbeta==1.5\n\n")
    installed = {"alpha": "2.1", "Beta": "1.5"}

    def version(name):
        if name not in installed:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    monkeypatch.setattr(importlib.metadata, "version", version)
    return installed


def test_packages_as_pinned_are_one_line(packages):
    finding = only(doctor.check_packages)
    assert finding.mark == "✓"
    assert finding.detail == "all 2 in the wanted ranges, 2 exactly as in constraints.txt"


def test_a_local_build_of_the_pinned_version_counts_as_it(packages):
    packages["alpha"] = "2.1+cpu"
    assert marks(doctor.check_packages) == ["✓"]


def test_a_missing_package_names_its_install_command(packages):
    del packages["alpha"]
    finding = only(doctor.check_packages)
    assert (finding.mark, finding.name, finding.detail) == ("✗", "alpha", "not installed")
    assert finding.step == 'python -m pip install "alpha==2.1"'


def test_out_of_range_fails_and_off_the_pin_is_only_told(packages):
    packages["Beta"] = "2.0"
    assert marks(doctor.check_packages) == ["✗"]
    packages["Beta"] = "1.9"
    told, summary = doctor.check_packages()
    assert (told.mark, told.name) == ("!", "Beta")
    assert "1.9" in told.detail
    assert "beta==1.5" in told.detail
    assert summary.detail == "all 2 in the wanted ranges, 1 exactly as in constraints.txt"


def test_an_installed_course_has_its_metadata_instead(packages, monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "ROOT", tmp_path / "elsewhere")
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: ["alpha>=3"])
    assert marks(doctor.check_packages) == ["✗"]


def test_the_processor_is_named_on_any_system(monkeypatch):
    from llvmlite import binding

    assert marks(doctor.check_cpu) == ["✓", "✓"]
    monkeypatch.setattr(doctor, "Path", lambda _: SimpleNamespace(is_file=lambda: False))
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(binding, "get_host_cpu_name", lambda: "apple-m9")
    monkeypatch.setattr(binding, "get_host_cpu_features", broken_llvm)
    name, features = doctor.check_cpu()
    assert name.detail.startswith("apple-m9; cores: ")
    assert features.detail == "not told by this system"


def broken_llvm():
    raise RuntimeError("no features")


def test_features_are_listed_only_when_the_processor_has_them(monkeypatch):
    from llvmlite import binding

    features = {"avx2": True, "avx512f": False, "popcnt": True}
    monkeypatch.setattr(binding, "get_host_cpu_features", lambda: features)
    assert list(doctor.check_cpu())[1].detail == "avx2"


def test_little_memory_is_told(monkeypatch):
    import psutil

    def free(available):
        return lambda: SimpleNamespace(available=available, total=8 * doctor.GIB)

    monkeypatch.setattr(psutil, "virtual_memory", free(4 * doctor.GIB))
    assert only(doctor.check_memory).detail == "4.0 of 8.0 GiB free"
    assert marks(doctor.check_memory) == ["✓"]
    monkeypatch.setattr(psutil, "virtual_memory", free(doctor.GIB))
    assert marks(doctor.check_memory) == ["!"]


@pytest.fixture
def store(tmp_path, monkeypatch):
    """An empty cache and a catalogue of a needed and an optional asset; a dict of statuses."""
    statuses = {"must": "missing", "may": "missing"}
    catalog = {
        name: SimpleNamespace(name=name, size=300, unpacked=700, needed=name == "must")
        for name in statuses
    }
    monkeypatch.setattr(assets, "CATALOG", catalog)
    monkeypatch.setattr(assets, "status", statuses.get)
    monkeypatch.setattr(assets, "cache_dir", lambda: tmp_path / "not" / "yet")
    return statuses


def test_the_disk_must_hold_what_is_still_missing(store, monkeypatch):
    usage = SimpleNamespace(free=1999)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert marks(doctor.check_disk) == ["✗"]
    usage.free = 2000
    assert marks(doctor.check_disk) == ["✓"]
    usage.free = 0
    store["must"] = "intact"
    assert marks(doctor.check_disk) == ["✓"]


def test_a_cache_that_cannot_be_written_fails(store, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "LIGHTCOURSE_CACHE" in only(doctor.check_disk).step
    assert marks(doctor.check_disk) == ["✗"]


def test_a_whole_cache_may_be_read_only(store, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    store["must"] = "intact"
    assert marks(doctor.check_disk) == ["!"]


@pytest.mark.parametrize("status", ["missing", "partial", "corrupt"])
def test_a_needed_asset_that_is_not_whole_fails_with_its_command(store, status):
    store["must"] = status
    finding = only(doctor.check_assets)
    assert (finding.mark, finding.name, finding.detail) == ("✗", "asset must", status)
    assert finding.step == "lightcourse assets must"


def test_an_optional_asset_is_told_only_when_it_is_there(store):
    store["must"] = "intact"
    assert marks(doctor.check_assets) == ["✓"]
    store["may"] = "corrupt"
    assert marks(doctor.check_assets) == ["✓", "!"]
    store["may"] = "intact"
    assert marks(doctor.check_assets) == ["✓", "✓"]


def test_each_bundled_file_is_tried_by_itself(monkeypatch):
    sizes = []
    monkeypatch.setattr(models, "load_tiny_lm", sizes.append)
    monkeypatch.setattr(models, "load_tiny_tokenizer", lambda: None)
    monkeypatch.setattr(data, "load_speeches", lambda split: None)
    monkeypatch.setattr(data, "load_reviews", broken, raising=False)
    monkeypatch.setattr(data, "load_factbook", lambda: None, raising=False)
    findings = {finding.name: finding.mark for finding in doctor.check_bundled()}
    assert findings.pop("bundled reviews") == "✗"
    assert set(findings.values()) == {"✓"}
    assert sizes == ["teacher", "student"]


def test_kernels_must_equal_their_reference(monkeypatch):
    import numba

    monkeypatch.setattr(numba.config, "DISABLE_JIT", 0)
    assert marks(doctor.check_kernels) == ["✓"]
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    assert marks(doctor.check_kernels) == ["!"]
    right = kernels.quantize_rows
    monkeypatch.setattr(kernels, "quantize_rows", lambda x: (right(x)[0], right(x)[1] * 2))
    assert marks(doctor.check_kernels) == ["✗"]


def test_it_says_where_compiled_kernels_are_kept(monkeypatch):
    temporary = Path(tempfile.gettempdir(), "lightcourse-0", "numba")
    for folder, mark in [(Path("/home/me"), "✓"), (temporary, "!"), (None, "!")]:
        monkeypatch.setattr(caching, "folder", lambda folder=folder: folder)
        finding = only(doctor.check_kernel_cache)
        assert finding.mark == mark and bool(finding.step) is (mark == "!")
        assert folder is None or str(folder) in finding.detail
