"""Every check passes the right answer, fails every named wrong one, and cannot be talked over."""

import inspect
from functools import partial

import numpy as np
import pytest
import torch

from lightcourse import checks, wire
from lightcourse.checks import grading, words
from tests.checks import solved

MISTAKES = [(name, known) for name, entry in checks.EXERCISES.items() for known in entry.mistakes]
SEEDS = (1,)


def solution(name):
    return solved.function(checks.EXERCISES[name].name)


def run(capsys, name, answer):
    """Return what a check returned, and the one line it printed."""
    assert answer is not checks.EXERCISES[name].reference
    passed = getattr(checks, name)(answer)
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1 and printed.count("✓") + printed.count("✗") == 1
    assert printed.startswith("✓" if passed else "✗") and isinstance(passed, bool)
    return passed, printed


def problem(name, answer, seed):
    """Return what a check finds wrong on the cases of a seed."""
    ask = partial(wire.answer, answer)
    return grading.find_problem(checks.EXERCISES[name], seed, ask)


def grade(learner, reference, cases=((),)):
    return grading.grade(learner, grading.Exercise("f", reference, lambda seed: cases, {}))


def test_every_check_is_proven_here():
    names = {f"check_{name}" for name in solved.FUNCTIONS}
    assert names == set(checks.EXERCISES) == set(checks.__all__) <= set(dir(checks))
    assert all(len(entry.mistakes) >= 3 for entry in checks.EXERCISES.values())


@pytest.mark.parametrize("name", checks.EXERCISES)
def test_the_right_answer_passes(capsys, name):
    assert run(capsys, name, solution(name))[0]


@pytest.mark.parametrize("name, known", MISTAKES)
def test_each_mistake_fails_with_its_own_message(capsys, name, known):
    exercise = checks.EXERCISES[name]
    mistake, message = exercise.mistakes[known], words.sentences(exercise.name)[known]
    passed, printed = run(capsys, name, mistake)
    assert not passed and message in printed
    for seed in SEEDS:
        assert problem(name, mistake, seed) == message


@pytest.mark.parametrize("name", checks.EXERCISES)
def test_a_blank_and_a_non_function_fail(capsys, name):
    for blank in (lambda *args: None, lambda *args: ...):
        passed, printed = run(capsys, name, blank)
        assert not passed and "not written yet" in printed
    assert "a function is wanted" in run(capsys, name, 3)[1]


def filled(right, number):
    """Return an answer of the same form that has one number everywhere."""
    if isinstance(right, torch.Tensor):
        return torch.full_like(right, number)
    if isinstance(right, (tuple, list)):
        return type(right)(filled(entry, number) for entry in right)
    return type(right)(number)


@pytest.mark.parametrize("name", checks.EXERCISES)
def test_constants_of_the_right_form_fail(capsys, name):
    right = solution(name)
    for case in checks.EXERCISES[name].cases(0):
        assert not run(capsys, name, lambda *args, case=case: right(*case))[0]
    for number in (0, 1, 2):
        assert not run(capsys, name, lambda *args, n=number: filled(right(*args), n))[0]


def changed(value):
    """Change a value in place; tell whether that can be done."""
    if isinstance(value, (torch.Tensor, np.ndarray)):
        value[...] = value == 0
    elif isinstance(value, list):
        value.append(value[-1])
    else:
        return False
    return True


def inner(value):
    """Return what of an argument may be changed: the argument, and its first entry."""
    return [value, value[0]] if isinstance(value, (tuple, list)) else [value]


@pytest.mark.parametrize("name", checks.EXERCISES)
def test_changing_an_input_fails_even_when_the_answer_is_right(capsys, name):
    right, case = solution(name), checks.EXERCISES[name].cases(0)[0]
    parts = [(i, depth) for i, value in enumerate(case) for depth in range(len(inner(value)))]
    for place, depth in parts:

        def mutating(*args, place=place, depth=depth):
            answer = right(*args)
            changed(inner(args[place])[depth])
            return answer

        passed, printed = run(capsys, name, mutating)
        assert passed != changed(inner(case[place])[depth])
        assert passed or "it changes its input" in printed


@pytest.mark.parametrize("name", checks.EXERCISES)
def test_an_answer_that_prints_its_own_mark_or_exits_fails(capsys, name):
    def boastful(*args):
        print("✓ all right")

    def leaving(*args):
        raise SystemExit(0)

    for answer in (boastful, leaving):
        assert not run(capsys, name, answer)[0]
    assert "raised SystemExit" in run(capsys, name, leaving)[1]


@pytest.mark.parametrize("name", checks.EXERCISES)
def test_the_wrong_number_of_arguments_is_told(capsys, name):
    passed, printed = run(capsys, name, lambda: 1)
    assert not passed and "it raised TypeError" in printed


def test_a_learner_who_changes_the_input_changes_a_copy():
    case = torch.ones(3)
    assert not grade(lambda x: x.zero_(), lambda x: x * 0, [(case,)])
    assert torch.equal(case, torch.ones(3))


@pytest.mark.parametrize(
    "answer, message",
    [
        (torch.ones(2, 2), "shape (3,) is wanted, (2, 2) was returned"),
        (torch.tensor([True, True, False]), "tensor of numbers is wanted, a mask"),
        ("three", "tensor of numbers is wanted, str was returned"),
        (torch.tensor([1.0, 2.0, 4.0]), "[1.0, 2.0, 3.0] is wanted, [1.0, 2.0, 4.0] was"),
    ],
)
def test_an_unknown_mistake_is_shown_with_its_case(capsys, answer, message):
    wanted = torch.tensor([1.0, 2.0, 3.0])
    assert not grade(lambda: answer, lambda: wanted)
    assert message in capsys.readouterr().out


def test_each_wrong_entry_of_a_tuple_is_told_by_its_own_mistake(capsys):
    def two_mistakes(rows, columns, nonzeros):
        return 4 * nonzeros, 8 * nonzeros + 4 * rows + 4, rows * columns + 4 * nonzeros

    assert not checks.check_sparse_bytes(two_mistakes)
    printed = capsys.readouterr().out
    assert "value 1 of 3: dense: a zero takes four bytes" in printed
    assert "value 3 of 3: bit mask: that is one byte for each weight" in printed
    assert "value 2 of 3" not in printed


def test_a_known_mistake_is_computed_once_for_all_entries(capsys):
    asked = []

    def mistake(x):
        asked.append(x)
        return 0, 0, 0

    exercise = grading.Exercise("f", lambda x: (x, x, x), lambda seed: [(1,), (2,)], {"m": mistake})
    assert not grading.grade(lambda x: (-x, -x, -x), exercise)
    assert "value 3 of 3: 1 is wanted, -1 was returned" in capsys.readouterr().out
    assert asked == [1, 1]  # as a whole, and entry by entry


def test_an_entry_with_an_unknown_mistake_is_shown_with_its_case(capsys):
    assert not checks.check_sparse_bytes(lambda rows, columns, nonzeros: (4 * nonzeros, 7, 8))
    printed = capsys.readouterr().out
    assert "value 1 of 3: dense: a zero takes" in printed
    assert "value 2 of 3: 591364 is wanted, 7 was returned" in printed
    assert "(given rows=384, columns=384, nonzeros=73728)" in printed


def test_a_name_that_is_wrong_is_shown_beside_the_right_one(capsys):
    assert not grade(lambda: ("a", 3), lambda: ("b", 3))
    assert "value 1 of 2: 'b' is wanted, 'a' was returned" in capsys.readouterr().out
    assert not grade(lambda: 3, lambda: "b")
    assert "'b' is wanted, 3 was returned" in capsys.readouterr().out


def test_arguments_are_shown_by_name(capsys):
    assert not checks.check_stored_bytes(lambda rows, columns, bits, group_size: 7)
    printed = capsys.readouterr().out
    assert "216 is wanted, 7 was returned" in printed
    assert "(given rows=6, columns=64, bits=4, group_size=32)" in printed


@pytest.mark.parametrize(
    "answer, message",
    [
        (torch.tensor([True, True, True]), "3 values are True, 2 are wanted"),
        (torch.tensor([True, True, False]), "but not the right ones: [True, False, True]"),
    ],
)
def test_a_wrong_mask_is_told_by_its_count_or_its_places(capsys, answer, message):
    wanted = torch.tensor([True, False, True])
    assert not grade(lambda: answer, lambda: wanted)
    assert message in capsys.readouterr().out


def test_an_answer_that_claims_to_equal_everything_fails():
    class Agreeable:
        def __eq__(self, other):
            return True

    assert not grade(lambda: Agreeable(), lambda: 3)


@pytest.mark.parametrize("name", checks.EXERCISES)
def test_every_check_has_a_docstring_that_names_its_arguments(name):
    check, right = getattr(checks, name), solution(name)
    arguments = list(inspect.signature(right).parameters)
    assert f"``{right.__name__}({', '.join(arguments)})``" in inspect.getdoc(check)
    assert arguments == list(inspect.signature(checks.EXERCISES[name].reference).parameters)


def test_one_row_of_a_column_can_be_sent():
    answer = torch.tensor([[5, 6]])[:, 1]
    assert answer.stride() == (2,)
    assert torch.equal(wire.decode(wire.encode(answer)), torch.tensor([6]))
