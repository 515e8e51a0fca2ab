"""A card: read back by the hub's own parser, complete, and refused where something is missing."""

import dataclasses
import math
import pickle
import re
import tarfile

import pytest
import torch

from lightcourse import deployment, files, metrics

LATENCY = metrics.Latency(0.0123, 0.002, 20, 1)


@pytest.fixture
def made(tmp_path):
    """What a card is made of."""
    path = files.save_tensors({"w": torch.ones(3)}, tmp_path / "model.safetensors")
    ledger = metrics.Ledger("accuracy")
    row = ledger.add("MiniLM in 4 bits: reviews", 1_234_567, 0.75, 770, LATENCY)
    shares = metrics.accuracy_by_group([0, 1, 1, 1], [0, 1, 0, 1], ["short", "a|b", "a|b", "short"])
    return {
        "about": "A classifier of reviews.",
        "limits": "Other languages were not looked at.",
        "row": row,
        "measure": ledger.measure,
        "groups": {"length": shares},
        "paths": [path],
        "licence": "apache-2.0",
        "data": {"VADER reviews": "mit"},
    }


def test_the_hub_reads_the_head(made):
    from huggingface_hub import ModelCard

    card = ModelCard(deployment.ModelCard(**made, base_model="owner/minilm").text())
    assert (card.data.license, card.data.language) == ("apache-2.0", "en")
    assert card.data.base_model == "owner/minilm"
    assert card.data.model_name == "MiniLM in 4 bits: reviews"
    (result,) = card.data.eval_results
    assert (result.metric_type, result.metric_value) == ("accuracy", 0.75)


def test_every_figure_stands_in_the_text(made, tmp_path):
    text = deployment.ModelCard(**made).text()
    assert files.sha256(tmp_path / "model.safetensors") in text
    for figure in ("1,234,567", "0.750", "770", str(LATENCY), "VADER reviews | mit"):
        assert figure in text
    low, high = metrics.wilson_interval(1, 2)
    assert f"| a\\|b | 0.500 | {low:.3f} | {high:.3f} | 2 |" in text
    for line in text.splitlines():
        if line.startswith("|"):
            assert line.endswith(" |")
    tables = re.findall(r"(?m)(?:^\|.*\n)+", text)
    assert len(tables) == 4
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_it_is_saved_whole_as_readme(made, tmp_path):
    card = deployment.ModelCard(**made)
    path = card.save(tmp_path / "new")
    assert path.name == "README.md" and path.read_text(encoding="utf-8") == card.text()
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"about": " "}, "about is ' '; a card wants it in words"),
        ({"limits": ""}, "limits is ''"),
        ({"licence": None}, "licence is None"),
        ({"data": {}}, "data is {}; a card wants one entry"),
        ({"data": {"reviews": ""}}, r"data\['reviews'\], its licence, is ''"),
        ({"groups": {}}, "groups is {}"),
        ({"groups": {"class": {}}}, r"groups\['class'\] is {}"),
        ({"groups": {"class": {1: 0.5}}}, r"groups\['class'\]\[1\] is a float"),
        ({"paths": []}, r"paths is \[\]"),
        ({"paths": ["/nowhere/model.safetensors"]}, "model.safetensors is missing"),
    ],
)
def test_what_is_missing_is_refused(made, change, message):
    with pytest.raises(ValueError, match=message):
        deployment.ModelCard(**made | change)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"quality": math.nan}, "has quality nan; a card wants a number"),
        ({"quality": None}, "has quality None"),
        ({"stored": 0}, "has stored 0; a card wants bytes"),
        ({"latency": None}, "has no latency"),
        ({"latency": metrics.Latency(math.inf, 0, 2, 1)}, "has latency inf"),
    ],
)
def test_a_row_without_its_figures_is_refused(made, change, message):
    row = dataclasses.replace(made["row"], **change)
    with pytest.raises(ValueError, match=message):
        deployment.ModelCard(**made | {"row": row})


def test_files_of_one_name_or_without_content_are_refused(made, tmp_path):
    (tmp_path / "empty").touch()
    with pytest.raises(ValueError, match="empty is missing or empty"):
        deployment.ModelCard(**made | {"paths": [tmp_path / "empty"]})
    with pytest.raises(ValueError, match="of different names"):
        deployment.ModelCard(**made | {"paths": made["paths"] * 2})


@pytest.mark.parametrize("zipped", [True, False])
def test_pickles_are_found_whatever_they_are_called(made, tmp_path, zipped):
    path = tmp_path / "weights.safetensors"
    torch.save({"w": torch.ones(2)}, path, _use_new_zipfile_serialization=zipped)
    assert deployment.holds_pickle(path)
    with pytest.raises(ValueError, match=r"weights.safetensors is a pickle"):
        deployment.ModelCard(**made | {"paths": [path]})


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_of_every_marked_protocol_are_found_in_tars_too(tmp_path, protocol):
    plain = tmp_path / "plain"
    plain.write_bytes(pickle.dumps([1], protocol))
    with tarfile.open(tmp_path / "tar", "w") as archive:
        archive.add(plain, "deep/data")
    assert deployment.holds_pickle(plain) and deployment.holds_pickle(tmp_path / "tar")


def test_no_pickle_is_called_one(made, tmp_path):
    assert not deployment.holds_pickle(made["paths"][0])
    headers = [length.to_bytes(8, "little") + b"{" * 50 for length in (640, 896, 0x280480)]
    for content in (b"", b"\x80", b"\x80\x02", b"\x80\x80text", b"GGUF", *headers):
        (tmp_path / "file").write_bytes(content)
        assert not deployment.holds_pickle(tmp_path / "file")
