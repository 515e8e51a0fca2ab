"""Tasks are drawn as often as they should be, and each goes through its rows in order."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightcourse import data, sharing

SIZES = st.dictionaries(st.text(min_size=1), st.integers(1, 10**9), min_size=1, max_size=6)
TEMPERATURES = st.floats(0.05, 100)


@given(SIZES, TEMPERATURES)
def test_probabilities_are_the_formulas(sizes, temperature):
    found = sharing.task_probabilities(sizes, temperature)
    assert math.fsum(found.values()) == pytest.approx(1)
    for (a, p), (b, q) in itertools.combinations(found.items(), 2):
        want = (math.log(sizes[a]) - math.log(sizes[b])) / temperature
        if min(p, q) > 1e-300:
            assert math.log(p) - math.log(q) == pytest.approx(want, abs=1e-9)


@given(SIZES)
def test_the_ends_of_the_scale(sizes):
    alike = sharing.task_probabilities(sizes, math.inf)
    assert set(alike.values()) == {1 / len(sizes)}
    by_size, total = sharing.task_probabilities(sizes), sum(sizes.values())
    assert by_size == pytest.approx({task: size / total for task, size in sizes.items()})


@pytest.mark.parametrize(
    "sizes, temperature, sentence",
    [
        ({}, 1, "sizes is empty"),
        ({"a": 1, "b": 0}, 1, r"sizes\['b'\] is 0; at least 1 row"),
        ({"a": math.nan}, 1, "is nan"),
        ({"a": 1}, 0, "temperature is 0; a number above 0"),
        ({"a": 1}, math.nan, "temperature is nan"),
    ],
)
def test_bad_sizes_and_temperatures(sizes, temperature, sentence):
    with pytest.raises(ValueError, match=sentence):
        sharing.task_probabilities(sizes, temperature)


def rows(count, first=0):
    return data.row_batches({"row": torch.arange(first, first + count)}, 2)


def taken(batches, count, epoch=0, seed=0):
    return list(itertools.islice(batches(epoch, seed), count))


def test_tasks_take_turns():
    mixed = sharing.mixed_batches({"a": rows(4), "b": rows(6), "c": rows(2)})
    assert [b["task"] for b in taken(mixed, 7)] == ["a", "b", "c", "a", "b", "c", "a"]


def test_every_row_comes_once_before_one_comes_again():
    mixed = sharing.mixed_batches({"a": rows(6), "b": rows(10, 100)}, {"a": 0.7, "b": 0.3})
    drawn = taken(mixed, 60)
    for task, count in (("a", 6), ("b", 10)):
        seen = [n for batch in drawn if batch["task"] == task for n in batch["row"].tolist()]
        for start in range(0, len(seen) - count + 1, count):
            assert len(set(seen[start : start + count])) == count


def test_tasks_are_drawn_as_often_as_asked_and_the_same_again():
    probabilities = {"a": 0.8, "b": 0.2, "never": 0.0}
    mixed = sharing.mixed_batches(dict.fromkeys(probabilities, rows(4)), probabilities)
    tasks = [batch["task"] for batch in taken(mixed, 2000)]
    assert tasks.count("never") == 0 and abs(tasks.count("a") / 2000 - 0.8) < 0.05
    assert tasks == [batch["task"] for batch in taken(mixed, 2000)]
    for other in ({"seed": 1}, {"epoch": 1}):
        assert tasks[:50] != [batch["task"] for batch in taken(mixed, 50, **other)]


def test_a_task_without_rows_is_named():
    mixed = sharing.mixed_batches({"a": rows(4), "none": lambda epoch, seed: iter(())})
    with pytest.raises(ValueError, match=r"batches\['none'\] gave no batch"):
        taken(mixed, 2)


def test_batches_that_name_a_task_themselves_are_refused():
    own = {"task": "b", "row": torch.arange(2)}
    mixed = sharing.mixed_batches({"a": lambda epoch, seed: iter([own])})
    with pytest.raises(ValueError, match=r"batches\['a'\] has the entry 'task', 'b'"):
        taken(mixed, 1)


@pytest.mark.parametrize(
    "tasks, probabilities, sentence",
    [
        ([], None, "batches is empty"),
        (["a"], {"b": 1.0}, r"probabilities names \['b'\]"),
        (["a", "b"], {"a": 0.5, "b": 0.6}, "add up to 1"),
        (["a", "b"], {"a": 1.5, "b": -0.5}, "add up to 1"),
        (["a", "b"], {"a": math.nan, "b": 1.0}, "add up to 1"),
    ],
)
def test_bad_probabilities(tasks, probabilities, sentence):
    with pytest.raises(ValueError, match=sentence):
        sharing.mixed_batches({task: rows(2) for task in tasks}, probabilities)
