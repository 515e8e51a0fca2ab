"""Bits under a budget: exact, greedy, and what neither may do."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightcourse.quantization.budget import choose_bits, choose_bits_greedily

BITS = (2, 3, 4, 8)


@st.composite
def cases(draw):
    names = "abcd"[: draw(st.integers(1, 4))]
    losses = {n: {b: draw(st.floats(0, 10)) for b in BITS} for n in names}
    sizes = {n: {b: b * draw(st.integers(1, 9)) for b in BITS} for n in names}
    least = sum(min(one.values()) for one in sizes.values())
    most = sum(max(one.values()) for one in sizes.values())
    return losses, sizes, draw(st.integers(least, most))


def total(table, chosen):
    return sum(table[name][bits] for name, bits in chosen.items())


@given(cases())
def test_no_other_choice_within_the_budget_loses_less(case):
    losses, sizes, budget = case
    chosen = choose_bits(losses, sizes, budget)
    assert list(chosen) == list(losses) and total(sizes, chosen) <= budget
    everything = (
        dict(zip(losses, one, strict=True)) for one in itertools.product(BITS, repeat=len(losses))
    )
    best = min(total(losses, one) for one in everything if total(sizes, one) <= budget)
    assert total(losses, chosen) == pytest.approx(best)


@given(cases())
def test_greedy_keeps_the_budget_and_is_never_better(case):
    chosen = choose_bits_greedily(*case)
    assert total(case[1], chosen) <= case[2]
    assert total(case[0], chosen) >= total(case[0], choose_bits(*case)) - 1e-9


def test_greedy_can_miss_the_best():
    losses = {"a": {2: 1.0, 4: 0.0}, "b": {2: 1.9, 4: 0.0}}
    sizes = {"a": {2: 10, 4: 20}, "b": {2: 10, 4: 30}}
    case = losses, sizes, 35
    assert choose_bits_greedily(*case) == {"a": 4, "b": 2}  # a byte costs least there
    case = losses, sizes, 40
    assert choose_bits(*case) == {"a": 2, "b": 4}
    assert choose_bits_greedily(*case) == {"a": 4, "b": 2}


@settings(deadline=None)
@given(st.integers(0, 5))
def test_many_layers_are_no_trouble(seed):
    losses = {str(n): {b: (n * 7 + seed) % 11 * 4.0**-b for b in BITS} for n in range(200)}
    sizes = {str(n): {b: b * 1000 * (1 + n % 3) for b in BITS} for n in range(200)}
    chosen = choose_bits(losses, sizes, 1_500_000)
    assert total(sizes, chosen) <= 1_500_000


@pytest.mark.parametrize("choose", [choose_bits, choose_bits_greedily])
@pytest.mark.parametrize(
    "losses, sizes, budget, words",
    [
        ({"a": {2: 1.0}}, {"a": {2: 100}}, 99, "budget is 99 bytes"),
        ({"a": {2: 1.0}}, {"b": {2: 100}}, 999, "do not name the same"),
        ({"a": {2: 1.0}}, {"a": {3: 100}}, 999, "do not name the same"),
        ({}, {}, 999, "or none"),
        ({"a": {2: float("nan")}}, {"a": {2: 100}}, 999, "NaN"),
        ({"a": {2: 1.0}}, {"a": {2: 100}}, float("nan"), "budget is nan"),
    ],
)
def test_bad_input_is_refused(choose, losses, sizes, budget, words):
    with pytest.raises(ValueError, match=words):
        choose(losses, sizes, budget)
