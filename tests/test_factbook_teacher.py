"""The bundled teacher of chapter 06 fits a MiniLM and is what its data sheet says."""

import json
import re

import pytest
import torch

from lightcourse import data, files, lora, metrics, models

FOLDER = models.factbook_adapter()
WEIGHTS = FOLDER / "adapter_model.safetensors"


def sheet_row(name):
    """Return the figure of one row of the sheet."""
    (row,) = (line for line in (FOLDER / "README.md").read_text().splitlines() if name in line)
    return float(re.search(r"([\d,.]+)\**\s*\|$", row)[1].replace(",", ""))


@pytest.fixture(scope="module")
def teacher():
    """Return an untrained encoder of MiniLM's shape, but for its words, with the adapter."""
    from transformers import BertConfig, BertModel

    shape = {"hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536}
    config = BertConfig(vocab_size=100, num_attention_heads=12, **shape)
    model = models.EncoderClassifier(BertModel(config, add_pooling_layer=False), num_labels=13)
    lora.load_lora_(model, FOLDER)
    return model


def test_the_adapter_fits_minilm_and_merges(teacher):
    report = lora.merge_lora_(teacher)
    assert len(report.changed) == 12 and not lora.adapters(teacher)


def test_it_names_as_many_classes_as_the_factbook_has_sections():
    tensors, _ = files.load_tensors(WEIGHTS)
    names = data.load_factbook("section")["test"].features["label"].names
    assert len(tensors["base_model.model.head.weight"]) == len(names) == 13


def test_the_sheet_tells_its_size():
    tensors, _ = files.load_tensors(WEIGHTS)
    assert sheet_row("numbers in the file") == sum(t.numel() for t in tensors.values())
    assert sheet_row("| bytes |") == WEIGHTS.stat().st_size


def test_it_is_as_good_as_the_sheet_says():
    rows, tokenizer = data.load_factbook("section")["test"], models.load_minilm_tokenizer()
    judged = data.ordered_batches(rows.select(range(200)), tokenizer, 24)
    model = models.EncoderClassifier(models.load_minilm(), num_labels=13)
    lora.load_lora_(model, FOLDER)
    labels = torch.cat([batch["labels"] for batch in judged])
    measured = metrics.accuracy(metrics.predict(model, judged).argmax(-1), labels)
    assert measured == pytest.approx(sheet_row("accuracy, test countries"), abs=0.03)


def test_the_curve_has_flattened():
    scores = [s for _, s in json.loads((FOLDER / "curve.json").read_text())["evaluations"]]
    assert scores[-3] - scores[-1] < 0.05 * (scores[0] - scores[-1])
