"""The committed solutions pass their checks; each solution with one thing changed fails."""

import ast
import copy
import math
from functools import partial
from pathlib import Path

import pytest
import torch

from lightcourse import checks, wire
from lightcourse.checks import grading

SOURCES = sorted((Path(__file__).parents[1] / "solutions" / "src").glob("[0-9]*.py"))
NAMES = [name.removeprefix("check_") for name in checks.__all__]
SEED = 3
NAMESPACE = {"math": math, "torch": torch, "F": torch.nn.functional}

# One operator or name becomes its neighbour.
OPERATORS = {
    ast.Add: [ast.Sub],
    ast.Sub: [ast.Add],
    ast.Mult: [ast.Div],
    ast.Div: [ast.Mult],
    ast.FloorDiv: [ast.Mult],
    ast.Lt: [ast.LtE, ast.Gt],
    ast.LtE: [ast.Lt, ast.Gt],
    ast.Gt: [ast.GtE, ast.Lt],
    ast.Eq: [ast.NotEq],
}
WORDS = {
    "round": ["floor", "ceil", "trunc"],
    "sum": ["mean"],
    "mean": ["sum"],
    "min": ["max"],
    "max": ["min"],
    "abs": ["neg"],
    "square": ["abs"],
    "sqrt": ["abs"],
    "log_softmax": ["softmax"],
    "int": ["byte"],
}


def functions():
    """Return the source trees of the solutions' functions, by name, in their order."""
    found = {}
    for path in SOURCES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name in NAMES:
                found[node.name] = node
    return found


FUNCTIONS = functions()


def code(tree):
    return compile(ast.fix_missing_locations(ast.Module([tree], [])), tree.name, "exec")


CODE = [code(tree) for tree in FUNCTIONS.values()]


def compiled(*trees):
    """Run the solutions with some of them replaced; return their namespace."""
    namespace = dict(NAMESPACE)
    for each in (*CODE, *map(code, trees)):
        exec(each, namespace)
    return namespace


def problem(name, function, seed=SEED):
    return grading.find_problem(
        checks.EXERCISES[f"check_{name}"], seed, partial(wire.answer, function)
    )


def neighbours(tree):
    """Yield (what was changed, tree) for each single change."""
    for place, node in enumerate(ast.walk(tree)):
        for change, new in _changes(node):
            copied = copy.deepcopy(tree)
            target = list(ast.walk(copied))[place]
            new(target)
            yield f"{tree.name}, {change}: {ast.unparse(node)}", copied


def _changes(node):
    if isinstance(node, ast.BinOp):
        for other in OPERATORS.get(type(node.op), []):
            yield other.__name__, lambda n, other=other: setattr(n, "op", other())
    if isinstance(node, ast.Compare):
        for other in OPERATORS.get(type(node.ops[0]), []):
            yield other.__name__, lambda n, other=other: setattr(n, "ops", [other()])
    if isinstance(node, ast.Constant) and type(node.value) is int:
        for step in (-1, 1):
            yield f"{step:+}", lambda n, step=step: setattr(n, "value", n.value + step)
    if isinstance(node, ast.Attribute):
        for word in WORDS.get(node.attr, []):
            yield word, lambda n, word=word: setattr(n, "attr", word)
    if isinstance(node, ast.Name) and node.id == "round":
        for word in WORDS["round"]:
            yield f"math.{word}", lambda n, word=word: setattr(n, "id", f"math_{word}")
    if isinstance(node, ast.Name) and node.id in ("min", "max"):
        yield "the other end", lambda n: setattr(n, "id", "max" if n.id == "min" else "min")


NAMESPACE |= {f"math_{word}": getattr(math, word) for word in WORDS["round"]}


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_solution_passes(name):
    function = compiled()[name]
    assert [problem(name, function, seed) for seed in range(4)] == [""] * 4


# Changes that leave a solution right, each with the reason.
EQUIVALENT = {
    # One mean is enough: the other factor sums to 0.
    "examples_needed": {"Add: x - x.mean()", "Add: y - y.mean()", "sum: x.mean", "sum: y.mean"},
    # The guard of a quotient that is not used.
    "improve_scale": {"-1: 1"},
    # Bytes wrap round to what is wanted.
    "offset_parts": {"byte: w.int"},
    "pack_nibbles": {"byte: q.int"},
    # The lower end of the clamp: low itself is the first integer.
    "round_trip": {"+1: 2", "Add: bits - 1", "-1: 1"},
    # The upper end of the sum: the lower one always decides.
    "safe_inputs": {
        "Mult: (2 ** (sum_bits - 1) - 1) // (x_most * (w_least - 1))",
        "Add: 2 ** (sum_bits - 1) - 1",
        "Div: x_most * (w_least - 1)",
        "Add: sum_bits - 1",
        "-1: 1",
        "+1: 1",
        "+1: 2",
    },
    # The only dimension is the last one; and halving is exact long before the end.
    "soft_gradient": {"-1: 1"},
    "temperature_for": {
        "-1: 1",
        "-1: 60",
        "+1: 60",
        "LtE: torch.special.entr(p).sum() < entropy",
    },
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NAMES)
def test_every_neighbour_of_the_solution_fails(name):
    passed = [
        what.partition(", ")[2]
        for what, tree in neighbours(FUNCTIONS[name])
        if not problem(name, compiled(tree)[name])
    ]
    assert set(passed) == EQUIVALENT.get(name, set())


def half_up(x):
    return (x + 0.5).floor()


def levels(x, bits, rounded):
    low, high = min(x.min().item(), 0), max(x.max().item(), 0)
    scale = (high - low) / (2**bits - 1) or 1.0
    zero_point = -(2 ** (bits - 1)) - rounded(torch.tensor(low / scale)).item()
    return scale, zero_point


def affine(rounded):
    return lambda x, bits: levels(x, bits, rounded)


def round_trip(rounded):
    def answer(x, bits):
        scale, zero_point = levels(x, bits, rounded)
        q = (rounded(x / scale) + zero_point).clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        return (q - zero_point) * scale

    return answer


def mask_from_the_end(weight, sparsity):
    """Among equal sizes the last ones go, where the solution lets the first ones go."""
    flat = weight.abs().flatten()
    order = flat.flip(0).argsort(stable=True)[: round(sparsity * flat.numel())]
    mask = torch.ones(flat.numel(), dtype=torch.bool)
    mask[flat.numel() - 1 - order] = False
    return mask.view(weight.shape)


def groups_from_the_end(weight, n, m):
    groups = weight.reshape(-1, m)
    rows = [mask_from_the_end(group, (m - n) / m) for group in groups]
    return torch.stack(rows).view(weight.shape)


def enumerated(x_bits, w_bits, sum_bits):
    """Try the worst products one after the other, in steps of halving."""
    low, high = 0, 2**sum_bits
    while high - low > 1:
        middle = (low + high) // 2
        worst = middle * (2**x_bits - 1) * -(2 ** (w_bits - 1))
        low, high = (middle, high) if worst >= -(2 ** (sum_bits - 1)) else (low, middle)
    return low


def best_by_least_squares(x, scale, bits):
    q = (x / scale).round().clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    rows = [
        torch.linalg.lstsq(a[:, None], b[:, None]).solution[0] for a, b in zip(q, x, strict=True)
    ]
    return torch.where((q != 0).any(1, keepdim=True), torch.stack(rows), scale)


def surgeon(weight, hessian, q):
    others = [place for place in range(len(weight)) if place != q]
    new = torch.zeros_like(weight)
    block = hessian[others][:, others]
    new[others] = weight[others] + torch.linalg.solve(block, hessian[others, q] * weight[q])
    step = new - weight
    return step @ hessian @ step, new


def f1_of_sklearn(predictions, labels):
    from sklearn.metrics import f1_score

    return f1_score(labels.numpy(), predictions.numpy(), average="macro", zero_division=0)


def examples(counts, errors, target):
    x, y = (torch.tensor(v, dtype=torch.float64).log() for v in (counts, errors))
    fit = torch.linalg.lstsq(torch.stack([x, torch.ones_like(x)], 1), y[:, None]).solution
    return math.exp((math.log(target) - fit[1]) / fit[0])


def soft_gradient(student_logits, teacher_logits, temperature):
    def gradient(T):
        student = student_logits.clone().requires_grad_()
        kl = torch.nn.functional.kl_div(
            (student / T).log_softmax(-1), (teacher_logits / T).softmax(-1), reduction="sum"
        )
        return torch.autograd.grad(kl, student)[0]

    return gradient(temperature), gradient(1e6) * 1e12


ORACLES = {
    "affine_qparams": [affine(torch.round), affine(half_up)],
    "round_trip": [round_trip(torch.round), round_trip(half_up)],
    "keep_mask": [mask_from_the_end],
    "keep_n_of_m": [groups_from_the_end],
    "safe_inputs": [enumerated],
    "improve_scale": [best_by_least_squares],
    "obs_remove": [surgeon],
    "macro_f1": [f1_of_sklearn],
    "examples_needed": [examples, lambda *case: math.ceil(examples(*case))],
    "soft_gradient": [soft_gradient],
    "lora_ledger": [
        lambda inputs, outputs, rank: torch.tensor(
            [rank * (inputs + outputs), (inputs + rank) * outputs + rank * inputs, inputs * outputs]
        )
    ],
}


@pytest.mark.parametrize("name", ORACLES)
def test_a_right_answer_of_another_kind_passes(name):
    for answer in ORACLES[name]:
        assert [problem(name, answer, seed) for seed in range(3)] == [""] * 3


def test_floor_in_a_zero_point_is_told_so():
    def floored(x, bits):
        low, high = min(x.min().item(), 0.0), max(x.max().item(), 0.0)
        scale = (high - low) / (2**bits - 1) or 1.0
        return scale, -(2 ** (bits - 1)) - math.floor(low / scale)

    for seed in range(3):
        assert problem("affine_qparams", floored, seed).startswith("floor goes to the next")


@pytest.mark.parametrize(
    "change",
    [
        lambda patch: patch.setattr(torch, "allclose", lambda *a, **b: True),
        lambda patch: patch.setattr("numpy.allclose", lambda *a, **b: True),
        lambda patch: patch.setattr("builtins.print", lambda *a, **b: None),
        lambda patch: torch.set_default_dtype(torch.float64),
        lambda patch: torch.manual_seed(99),
        lambda patch: patch.setattr(checks, "grade", lambda *a: True, raising=False),
    ],
)
def test_what_a_notebook_sets_changes_no_verdict(change, monkeypatch):
    dtype = torch.get_default_dtype()
    try:
        change(monkeypatch)
        assert checks.check_wanda(compiled()["wanda"])
        assert not checks.check_wanda(lambda weight, inputs: weight.abs())
        assert torch.get_default_dtype() in (dtype, torch.float64)
    finally:
        torch.set_default_dtype(dtype)
