"""The bundled language models are as good as their data sheet says, on text they never saw."""

import json
import re

import pytest

from lightcourse import data, metrics, models

FOLDER = models.BUNDLED / "tiny-lm"
SIZES = ("teacher", "student", "gpt2", "moe")
SCORES = json.loads((FOLDER / "sheet.json").read_text())


def sheet_row(split):
    """Return the figures of the sheet's row for one split, a model each."""
    sheet = (FOLDER / "README.md").read_text()
    (row,) = (line for line in sheet.splitlines() if f"bits per byte, {split} speeches" in line)
    return [float(number) for number in re.findall(r"\d+\.\d+", row)]


def test_no_year_and_no_text_stands_in_two_splits():
    speeches = {split: data.load_speeches(split) for split in data.SPLITS}
    for column in ("year", "text"):
        seen = [set(speeches[split][column]) for split in data.SPLITS]
        assert sum(map(len, seen)) == len(set().union(*seen))
    assert sum(map(len, speeches.values())) == 233


@pytest.mark.parametrize("size", SIZES)
def test_a_held_out_speech_costs_what_the_sheet_says(size):
    by_year = SCORES["test"][size]
    year = min(by_year, key=lambda year: by_year[year][1])
    (text,) = (s["text"] for s in data.load_speeches("test") if s["year"] == int(year))
    model, tokenizer = models.load_tiny_lm(size), models.load_tiny_tokenizer()
    measured = metrics.bits_per_byte(model, tokenizer, text)
    assert measured == pytest.approx(by_year[year][0], rel=0.01)
    assert len(text.encode()) == by_year[year][1]


@pytest.mark.parametrize("split", ["validation", "test"])
def test_the_sheet_sums_up_its_years(split):
    for size, told in zip(SIZES, sheet_row(split), strict=True):
        by_year = SCORES[split][size].values()
        mean = sum(bits * size for bits, size in by_year) / sum(size for _, size in by_year)
        assert told == pytest.approx(mean, abs=1e-3)
        assert len(by_year) == len(set(data.load_speeches(split)["year"]))


def test_the_teacher_is_better_and_below_one_and_a_half_bits_per_byte():
    teacher, *others = sheet_row("test")
    assert teacher < min(others) and teacher < 1.5


@pytest.mark.parametrize("size", SIZES)
def test_the_held_out_curve_has_flattened(size):
    scores = [s for _, s in json.loads((FOLDER / f"{size}-curve.json").read_text())["evaluations"]]
    assert scores[-3] - scores[-1] < 0.05 * (scores[0] - scores[-1])
