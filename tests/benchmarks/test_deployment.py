"""MiniLM as a file: who writes it, who opens it, who is absent."""

import numpy as np
import pytest
import torch

from benchmarks import compare, deployment, exports, openers
from benchmarks.deployment import EXACT, RUNTIMES
from benchmarks.silence import silence
from tests import toys
from tests.benchmarks import fake_runtimes

FAKES = {
    EXACT: (fake_runtimes.write, fake_runtimes.right, "right/file"),
    "crooked": (fake_runtimes.write, fake_runtimes.crooked, "crooked/file"),
    "LiteRT fp32": (fake_runtimes.missing, fake_runtimes.right, "missing/file"),
    "ExecuTorch fp32": (fake_runtimes.write, fake_runtimes.missing, "unopened/file"),
    "broken": (fake_runtimes.broken, fake_runtimes.right, "broken/file"),
}
NEEDED = {
    "ONNX": "onnxscript",
    "ExecuTorch": "executorch",
    "OpenVINO": "nncf",
    "LiteRT": "litert_torch",
}


@pytest.fixture
def sentences(monkeypatch):
    """Ids and masks of two sentences, the second one padded."""
    ids = np.arange(1, 33).reshape(2, 1, 16)
    pairs = np.stack([ids, ids < 28], axis=1).astype(np.int64)
    monkeypatch.setattr(exports, "sentences", lambda: pairs)
    return pairs


@pytest.fixture
def small(monkeypatch):
    """A small encoder in MiniLM's place, and the same without its weights."""
    monkeypatch.setattr(exports.models, "load_minilm", lambda: toys.bert().encoder)
    monkeypatch.setattr(openers, "_untrained", empty)


def empty():
    model = toys.bert().encoder
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    return model


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("small", "threads")
@pytest.mark.parametrize("name", RUNTIMES)
def test_every_runtime_that_is_here_answers_as_the_model_does(name, sentences, tmp_path):
    library = NEEDED.get(name.partition(" ")[0].strip(","))
    if library:
        pytest.importorskip(library)
    writer, opener, file = RUNTIMES[name]
    path = str(tmp_path / file.partition("/")[2])
    with silence(), torch.inference_mode():
        writer(path)
        call = opener(path)
    for ids, mask in sentences:
        inputs = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
        exact = torch.nn.functional.normalize(exports.models.embed(toys.bert().encoder, [inputs]))
        assert np.shape(call(ids, mask)) == (1, 16)
        assert (exact.numpy() * call(ids, mask)).sum() > (0.98 if "W8" in name else 0.99999)


@pytest.mark.usefixtures("sentences")
def test_who_is_absent_or_broken_is_a_row_and_the_others_have_figures(tmp_path, monkeypatch):
    monkeypatch.setattr(deployment, "RUNTIMES", FAKES)
    found = deployment.measure(tmp_path, 3, 60)
    assert found["crooked"]["cosine"] == pytest.approx(0.6)
    assert found[EXACT]["bytes"] == 5 and 0 < found[EXACT]["start"] < 60
    assert found["broken"]["failed"] == "RuntimeError: 0 in strides is not supported"
    assert not (tmp_path / "broken").exists()
    rows = deployment.table(found).splitlines()
    assert len(rows) == 2 + len(FAKES)
    assert any(row.startswith("| LiteRT fp32 | not installed: see docs/") for row in rows)
    assert any("ExecuTorch fp32 | not installed: `pip install" in row for row in rows)


@pytest.mark.usefixtures("sentences")
def test_files_that_are_there_are_not_written_again(tmp_path):
    runtime = fake_runtimes.write, fake_runtimes.right, "right/file"
    deployment.write({}, runtime, tmp_path)
    (tmp_path / "right" / "file").write_bytes(b"kept")
    assert deployment.write({}, runtime, tmp_path) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["right"]


def test_a_report_tells_machine_and_figures():
    one = {"median": 2e-3, "bytes": 3_000_000, "start": 0.5, "cosine": 0.9876543}
    result = {"date": "2026-01-02 10:00", "machine": {"processor": "Sparc (family x)"}}
    result["deployment"] = {"1": {EXACT: one | {"median": 4e-3}, "fast": one}}
    text = "\n".join(deployment.compose(result))
    assert text.index("| fast | 3.0 | 0.5 | 2.00 | 0.98765 |") < text.index(f"| {EXACT} | 3.0")
    assert "Sparc, 2026-01-02" in text.splitlines()[0]
    assert "| fast | 2.00 |" in "\n".join(compare.compose([result]))
