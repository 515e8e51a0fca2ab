"""Every check passes the right answer, fails every named wrong one, and cannot be talked over."""

import inspect
from functools import partial

import pytest
import torch

from lightcourse import checks, wire
from lightcourse.checks import ch00_start, grading, words

# For each check a constant of the right kind.
CONSTANTS = {
    "check_keep_mask": lambda weight, sparsity: torch.ones_like(weight, dtype=torch.bool),
    "check_stored_bytes": lambda rows, columns, bits, group_size: 216,
    "check_lora_ledger": lambda inputs, outputs, rank: (6144, 153600, 147456),
    "check_bits_per_byte": lambda loss, tokens, text: 1.4,
    "check_macro_f1": lambda predictions, labels: 0.474,
    "check_tokens_per_second_limit": lambda parameters, bits, group_size, bandwidth: 12.7,
    "check_keep_n_of_m": lambda weight, n, m: torch.ones_like(weight, dtype=torch.bool),
    "check_sparse_bytes": lambda rows, columns, nonzeros: (589_824, 591_364, 313_344),
    "check_wanda": lambda weight, inputs: torch.ones_like(weight),
    "check_keep_largest": lambda parameters, sparsity: [
        torch.ones_like(p, dtype=torch.bool) for p in parameters
    ],
    "check_obs_remove": lambda weight, hessian, q: (torch.tensor(1.0), torch.zeros_like(weight)),
    "check_rate": lambda step, steps, peak, warmup: peak,
    "check_stopping_point": lambda losses, patience: (4, 1),
    "check_split_rows": lambda texts, labels, order: ([0, 1, 2], [3]),
    "check_examples_needed": lambda counts, errors, target: 1000.0,
    "check_lora_gradients": lambda gradient, a, b, alpha: (torch.ones_like(a), torch.ones_like(b)),
    "check_integer_dot": lambda x, w, x_zero, w_zero, x_scale, w_scale: 0.0,
    "check_pack_nibbles": lambda q: torch.zeros(3, 4, dtype=torch.uint8),
    "check_unpack_nibbles": lambda packed, length: torch.zeros(3, 8, dtype=torch.int8),
    "check_layer_limits": lambda inputs, outputs, rows, bits, bandwidth, peak: (1e-3, 1e-3),
    "check_offset_parts": lambda x, w: (torch.zeros(4, 6), torch.zeros(3)),
    "check_safe_inputs": lambda x_bits, w_bits, sum_bits: 65_793,
    "check_soften": lambda logits, temperature: (torch.full((3, 5), 0.2), torch.zeros(3)),
    "check_soft_loss": lambda student_logits, teacher_logits, labels, temperature, soft_weight: (
        torch.tensor(1.0)
    ),
    "check_next_token_kl": lambda student_logits, teacher_logits, attention_mask: torch.tensor(1.0),
    "check_temperature_for": lambda logits, entropy: 2.0,
    "check_soft_gradient": lambda student_logits, teacher_logits, temperature: (
        torch.zeros(5),
        torch.zeros(5),
    ),
    "check_affine_qparams": lambda x, bits: (0.1, 0),
    "check_bits_per_weight": lambda bits, group_size, symmetric: (4.5, 4.5),
    "check_round_trip": lambda x, bits: torch.zeros_like(x),
    "check_expected_error": lambda low, high, bits: 4 / 2700,
    "check_improve_scale": lambda x, scale, bits: torch.ones_like(scale),
}
MISTAKES = [(name, wrong) for name, entry in checks.EXERCISES.items() for wrong in entry.mistakes]
SEEDS = (1,)


def run(capsys, name, answer):
    """Return what a check returned, and the one line it printed."""
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
    assert set(CONSTANTS) == set(checks.EXERCISES) == set(checks.__all__)
    assert all(len(entry.mistakes) >= 3 for entry in checks.EXERCISES.values())


@pytest.mark.parametrize("name", CONSTANTS)
def test_the_right_answer_passes(capsys, name):
    assert run(capsys, name, checks.EXERCISES[name].reference)[0]


@pytest.mark.parametrize("name, known", MISTAKES)
def test_each_mistake_fails_with_its_own_message(capsys, name, known):
    exercise = checks.EXERCISES[name]
    mistake, message = exercise.mistakes[known], words.sentences(exercise.name)[known]
    passed, printed = run(capsys, name, mistake)
    assert not passed and message in printed
    for seed in SEEDS:
        assert problem(name, mistake, seed) == message


@pytest.mark.parametrize("name", CONSTANTS)
def test_a_blank_a_constant_and_a_non_function_fail(capsys, name):
    for blank in (lambda *args: None, lambda *args: ...):
        passed, printed = run(capsys, name, blank)
        assert not passed and "not written yet" in printed
    assert not run(capsys, name, CONSTANTS[name])[0]
    assert "a function is wanted" in run(capsys, name, 3)[1]


@pytest.mark.parametrize("name", CONSTANTS)
def test_an_answer_that_prints_its_own_mark_or_exits_fails(capsys, name):
    def boastful(*args):
        print("✓ all right")

    def leaving(*args):
        raise SystemExit(0)

    for answer in (boastful, leaving):
        assert not run(capsys, name, answer)[0]
    assert "raised SystemExit" in run(capsys, name, leaving)[1]


@pytest.mark.parametrize("name", CONSTANTS)
def test_the_wrong_number_of_arguments_is_told(capsys, name):
    passed, printed = run(capsys, name, lambda: 1)
    assert not passed and "it raised TypeError" in printed


def test_changing_the_input_fails_even_when_the_answer_is_right(capsys):
    def mutating(weight, sparsity):
        mask = ch00_start._keep_mask(weight, sparsity)
        weight[~mask] = 0
        return mask

    passed, printed = run(capsys, "check_keep_mask", mutating)
    assert not passed and "it changes its input" in printed


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


def test_every_check_has_a_docstring_that_names_its_arguments():
    for name in checks.__all__:
        assert "``" in inspect.getdoc(getattr(checks, name))


def test_one_row_of_a_column_can_be_sent():
    answer = torch.tensor([[5, 6]])[:, 1]
    assert answer.stride() == (2,)
    assert torch.equal(wire.decode(wire.encode(answer)), torch.tensor([6]))
