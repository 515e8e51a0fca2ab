"""Every check passes the right answer, fails every named wrong one, and cannot be talked over."""

import inspect

import pytest
import torch

from lightcourse import checks, metrics
from lightcourse.checks import grading, models_metrics, start

# For each check: the right answer, the mistakes it knows by message, a constant of the right kind.
CHECKS = {
    "check_keep_mask": (
        start._keep_mask,
        start.KEEP_MASK_MISTAKES,
        lambda weight, sparsity: torch.ones_like(weight, dtype=torch.bool),
    ),
    "check_stored_bytes": (
        start._stored_bytes,
        start.STORED_BYTES_MISTAKES,
        lambda rows, columns, bits, group_size: 240,
    ),
    "check_lora_ledger": (
        start._lora_ledger,
        start.LORA_LEDGER_MISTAKES,
        lambda inputs, outputs, rank: (6144, 153600, 147456),
    ),
    "check_bits_per_byte": (
        models_metrics._bits_per_byte,
        models_metrics.BITS_PER_BYTE_MISTAKES,
        lambda loss, tokens, text: 1.4,
    ),
    "check_macro_f1": (
        metrics.macro_f1,
        models_metrics.MACRO_F1_MISTAKES,
        lambda predictions, labels: 0.474,
    ),
    "check_tokens_per_second_limit": (
        models_metrics._limit,
        models_metrics.TOKENS_PER_SECOND_LIMIT_MISTAKES,
        lambda parameters, bits, group_size, bandwidth: 12.7,
    ),
}
MISTAKES = [(name, message) for name, entry in CHECKS.items() for message in entry[1]]


def run(capsys, name, answer):
    """Return what a check returned, and the one line it printed."""
    passed = getattr(checks, name)(answer)
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1 and printed.count("✓") + printed.count("✗") == 1
    assert printed.startswith("✓" if passed else "✗") and isinstance(passed, bool)
    return passed, printed


def test_every_check_is_proven_here():
    assert set(CHECKS) == set(checks.__all__)
    assert all(len(entry[1]) >= 3 for entry in CHECKS.values())


@pytest.mark.parametrize("name", CHECKS)
def test_the_right_answer_passes(capsys, name):
    assert run(capsys, name, CHECKS[name][0])[0]


@pytest.mark.parametrize("name, message", MISTAKES)
def test_each_mistake_fails_with_its_own_message(capsys, name, message):
    passed, printed = run(capsys, name, CHECKS[name][1][message])
    assert not passed and message in printed


@pytest.mark.parametrize("name", CHECKS)
def test_a_blank_a_constant_and_a_non_function_fail(capsys, name):
    for blank in (lambda *args: None, lambda *args: ...):
        passed, printed = run(capsys, name, blank)
        assert not passed and "not written yet" in printed
    assert not run(capsys, name, CHECKS[name][2])[0]
    assert "a function is wanted" in run(capsys, name, 3)[1]


@pytest.mark.parametrize("name", CHECKS)
def test_an_answer_that_prints_its_own_mark_or_exits_fails(capsys, name):
    def boastful(*args):
        print("✓ all right")

    def leaving(*args):
        raise SystemExit(0)

    for answer in (boastful, leaving):
        assert not run(capsys, name, answer)[0]
    assert "raised SystemExit" in run(capsys, name, leaving)[1]


@pytest.mark.parametrize("name", CHECKS)
def test_the_wrong_number_of_arguments_is_told(capsys, name):
    passed, printed = run(capsys, name, lambda: 1)
    assert not passed and "it raised TypeError" in printed


def test_changing_the_input_fails_even_when_the_answer_is_right(capsys):
    def mutating(weight, sparsity):
        mask = start._keep_mask(weight, sparsity)
        weight[~mask] = 0
        return mask

    passed, printed = run(capsys, "check_keep_mask", mutating)
    assert not passed and "it changes its input" in printed


def test_a_learner_who_changes_the_input_changes_a_copy():
    case = torch.ones(3)
    assert not grading.grade(lambda x: x.zero_(), lambda x: x * 0, [(case,)])
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
    assert not grading.grade(lambda: answer, lambda: wanted, [()])
    assert message in capsys.readouterr().out


def test_arguments_are_shown_by_name(capsys):
    assert not checks.check_stored_bytes(lambda rows, columns, bits, group_size: 7)
    printed = capsys.readouterr().out
    assert "240 is wanted, 7 was returned" in printed
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
    assert not grading.grade(lambda: answer, lambda: wanted, [()])
    assert message in capsys.readouterr().out


def test_an_answer_that_claims_to_equal_everything_fails():
    class Agreeable:
        def __eq__(self, other):
            return True

    assert not grading.grade(lambda: Agreeable(), lambda: 3, [()])


def test_every_check_has_a_docstring_that_names_its_arguments():
    for name in checks.__all__:
        assert "``" in inspect.getdoc(getattr(checks, name))
