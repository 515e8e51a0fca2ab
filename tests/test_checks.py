"""Every check passes the right answer, fails every named wrong one, and cannot be talked over."""

import inspect

import pytest
import torch

from lightcourse import checks, metrics, quantization
from lightcourse.checks import (
    distillation,
    fine_tuning,
    grading,
    kernels,
    linear_quantization,
    models_metrics,
    pruning,
    start,
)

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
        lambda rows, columns, bits, group_size: 216,
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
    "check_keep_n_of_m": (
        pruning._keep_n_of_m,
        pruning.KEEP_N_OF_M_MISTAKES,
        lambda weight, n, m: torch.ones_like(weight, dtype=torch.bool),
    ),
    "check_sparse_bytes": (
        pruning._sparse_bytes,
        pruning.SPARSE_BYTES_MISTAKES,
        lambda rows, columns, nonzeros: (589_824, 591_364, 313_344),
    ),
    "check_wanda": (
        pruning._wanda,
        pruning.WANDA_MISTAKES,
        lambda weight, inputs: torch.ones_like(weight),
    ),
    "check_keep_largest": (
        pruning._keep_largest,
        pruning.KEEP_LARGEST_MISTAKES,
        lambda parameters, sparsity: [torch.ones_like(p, dtype=torch.bool) for p in parameters],
    ),
    "check_obs_remove": (
        pruning._obs_remove,
        pruning.OBS_REMOVE_MISTAKES,
        lambda weight, hessian, q: (torch.tensor(1.0), torch.zeros_like(weight)),
    ),
    "check_rate": (
        fine_tuning._rate,
        fine_tuning.RATE_MISTAKES,
        lambda step, steps, peak, warmup: peak,
    ),
    "check_stopping_point": (
        fine_tuning._stopping_point,
        fine_tuning.STOPPING_POINT_MISTAKES,
        lambda losses, patience: (4, 1),
    ),
    "check_split_rows": (
        fine_tuning._split_rows,
        fine_tuning.SPLIT_ROWS_MISTAKES,
        lambda texts, labels, order: ([0, 1, 2], [3]),
    ),
    "check_examples_needed": (
        fine_tuning._examples_needed,
        fine_tuning.EXAMPLES_NEEDED_MISTAKES,
        lambda counts, errors, target: 1000.0,
    ),
    "check_lora_gradients": (
        fine_tuning._lora_gradients,
        fine_tuning.LORA_GRADIENTS_MISTAKES,
        lambda gradient, a, b, alpha: (torch.ones_like(a), torch.ones_like(b)),
    ),
    "check_integer_dot": (
        kernels._integer_dot,
        kernels.INTEGER_DOT_MISTAKES,
        lambda x, w, x_zero, w_zero, x_scale, w_scale: 0.0,
    ),
    "check_pack_nibbles": (
        quantization.pack_int4,
        kernels.PACK_NIBBLES_MISTAKES,
        lambda q: torch.zeros(3, 4, dtype=torch.uint8),
    ),
    "check_unpack_nibbles": (
        quantization.unpack_int4,
        kernels.UNPACK_NIBBLES_MISTAKES,
        lambda packed, length: torch.zeros(3, 8, dtype=torch.int8),
    ),
    "check_layer_limits": (
        kernels._layer_limits,
        kernels.LAYER_LIMITS_MISTAKES,
        lambda inputs, outputs, rows, bits, bandwidth, peak: (1e-3, 1e-3),
    ),
    "check_offset_parts": (
        kernels._offset_parts,
        kernels.OFFSET_PARTS_MISTAKES,
        lambda x, w: (torch.zeros(4, 6), torch.zeros(3)),
    ),
    "check_safe_inputs": (
        kernels._safe_inputs,
        kernels.SAFE_INPUTS_MISTAKES,
        lambda x_bits, w_bits, sum_bits: 65_793,
    ),
    "check_soften": (
        distillation._soften,
        distillation.SOFTEN_MISTAKES,
        lambda logits, temperature: (torch.full((3, 5), 0.2), torch.zeros(3)),
    ),
    "check_soft_loss": (
        distillation._soft_loss,
        distillation.SOFT_LOSS_MISTAKES,
        lambda student_logits, teacher_logits, labels, temperature, soft_weight: torch.tensor(1.0),
    ),
    "check_next_token_kl": (
        distillation._next_token_kl,
        distillation.NEXT_TOKEN_KL_MISTAKES,
        lambda student_logits, teacher_logits, attention_mask: torch.tensor(1.0),
    ),
    "check_temperature_for": (
        distillation._temperature_for,
        distillation.TEMPERATURE_FOR_MISTAKES,
        lambda logits, entropy: 2.0,
    ),
    "check_soft_gradient": (
        distillation._soft_gradient,
        distillation.SOFT_GRADIENT_MISTAKES,
        lambda student_logits, teacher_logits, temperature: (torch.zeros(5), torch.zeros(5)),
    ),
    "check_affine_qparams": (
        linear_quantization._affine_qparams,
        linear_quantization.AFFINE_QPARAMS_MISTAKES,
        lambda x, bits: (0.1, 0),
    ),
    "check_bits_per_weight": (
        linear_quantization._bits_per_weight,
        linear_quantization.BITS_PER_WEIGHT_MISTAKES,
        lambda bits, group_size, symmetric: (4.5, 4.5),
    ),
    "check_round_trip": (
        linear_quantization._round_trip,
        linear_quantization.ROUND_TRIP_MISTAKES,
        lambda x, bits: torch.zeros_like(x),
    ),
    "check_expected_error": (
        linear_quantization._expected_error,
        linear_quantization.EXPECTED_ERROR_MISTAKES,
        lambda low, high, bits: 4 / 2700,
    ),
    "check_improve_scale": (
        linear_quantization._improve_scale,
        linear_quantization.IMPROVE_SCALE_MISTAKES,
        lambda x, scale, bits: torch.ones_like(scale),
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
