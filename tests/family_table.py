"""What each verb does to each family of models: tried, used afterwards, and put into a table.

``python -m tests.family_table`` writes docs/model-families.md; a test compares the two.
"""

import copy
import inspect
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from lightcourse import distillation, lora, pruning, quantization
from tests import families

PAGE = Path(__file__).resolve().parents[1] / "docs" / "model-families.md"
NO_MATRIX = (nn.Embedding, nn.Conv1d, nn.Conv2d)
# Parameters with two dimensions that multiply no input: positions, Mamba's rates of decay.
NO_FACTOR = ("embed", "A_log")
HEAD = """# Model families and verbs

Each cell was made by `python -m tests.family_table`: a tiny model of the family, at random, went
through the verb and was then *used*: run, trained, saved and loaded, asked to generate, exported.

- **works**: every matrix of a linear layer was changed, and what came of it answers as it should.
- **left and named**: so does this; the report names the matrices that stayed as they were, here
  with their share of the parameters.
- **refused**: a `ValueError` says why, and nothing was changed.
- **–**: this kind of model has no such thing.

"""


class Wrong(AssertionError):
    """A verb that returned without an error has not done what it says."""


def matrices(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the parameters that multiply an input, by name, each once."""
    tables = {id(p) for m in model.modules() if isinstance(m, NO_MATRIX) for p in m.parameters()}
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.ndim > 1 and id(parameter) not in tables
        if not any(part in name for part in NO_FACTOR)
    }


def left(before: dict[str, torch.Tensor], model: nn.Module, report) -> str:
    """Return "works", or which share of the parameters was left and named.

    Raises
    ------
    Wrong
        Where a matrix is as it was, and the report does not name it.
    """
    now = dict(model.named_parameters())
    same = [n for n, p in before.items() if n in now and torch.equal(now[n], p)]
    unnamed = [n for n in same if not any(n.startswith(skipped) for skipped in report.skipped)]
    if unnamed:
        raise Wrong(f"nothing is said of {unnamed[0]}")
    total = sum(parameter.numel() for parameter in before.values())
    share = sum(before[name].numel() for name in same) / total
    return f"left and named: {share:.0%} of the weights" if same else "works"


def _same(one, other):
    if not torch.equal(one, other):
        raise Wrong(f"answers differ by {(one - other).abs().max():.1e}")


def _near(one, other):
    alike = torch.cosine_similarity(one.flatten(), other.flatten(), dim=0)
    if not alike > 0.95:
        raise Wrong(f"the answers' cosine is {alike:.2f}")


def _originals(model):
    return {name: parameter.detach().clone() for name, parameter in matrices(model).items()}


def prune(model, inputs):
    """Set half of each matrix to zero."""
    before, old = families.answer(model, inputs), _originals(model)
    report = pruning.prune_(model, pruning.layer_mask(pruning.magnitude_scores(model), 0.5))
    now = families.answer(model, inputs)
    if not torch.isfinite(now).all() or torch.equal(now, before):
        raise Wrong("the answers are not finite, or have not changed")
    return left(old, model, report)


def quantize(model, inputs, activations=None):
    """Store integers, and multiply floats."""
    before, old = families.answer(model, inputs), _originals(model)
    report = quantization.quantize_(model, bits=8, activations=activations)
    _near(families.answer(model, inputs), before)
    return left(old, model, report)


def integers(model, inputs):
    """Store integers, and multiply integers."""
    return quantize(model, inputs, activations=8)


def adapt(model, inputs):
    """Put a LoRA beside each matrix, train it by a step, merge it."""
    before, old = families.answer(model, inputs), _originals(model)
    report = lora.add_lora_(model, rank=2)
    if not torch.allclose(families.answer(model, inputs), before, atol=1e-5):
        raise Wrong("an update of zero changes the answers")
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    found = model(**inputs)
    (found if isinstance(found, torch.Tensor) else next(iter(found.values()))).sum().backward()
    optimizer.step()
    trained = families.answer(model, inputs)
    if torch.equal(trained, before):
        raise Wrong("a step of training changes nothing")
    lora.merge_lora_(model)
    _near(families.answer(model, inputs), trained)
    return left(old, model, report)


def student(model, inputs):
    """Keep the first of two layers, in each stack of them."""
    small = distillation.student_from(model, [0])
    if not torch.isfinite(families.answer(small, inputs)).all():
        raise Wrong("the student's answers are not finite")
    stacks = [name for name, module in model.named_modules() if _is_stack(module)]
    stacks = [n for n in stacks if not any(n.startswith(f"{outer}.") for outer in stacks)]
    if whole := [name for name in stacks if len(small.get_submodule(name)) > 1]:
        raise Wrong(f"{whole[0]} still has all of its layers")
    return "works"


def _is_stack(module):
    return isinstance(module, nn.ModuleList) and len(list(module.parameters())) > 4


def save(model, inputs):
    """Quantize, save, load into a fresh model."""
    fresh = copy.deepcopy(model)
    quantization.quantize_(model, bits=8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.safetensors")
        quantization.save_quantized(model=model, path=path)
        quantization.load_quantized_(model=fresh, path=path)
    _same(families.answer(fresh, inputs), families.answer(model, inputs))
    return "works"


def save_pretrained(model, inputs):
    """Quantize, and save and load as transformers does."""
    if not hasattr(model, "save_pretrained"):
        return "–"
    quantization.quantize_(model, bits=8)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        again = type(model).from_pretrained(folder).eval()
    _same(families.answer(again, inputs), families.answer(model, inputs))
    return "works"


def generate(model, inputs):
    """Quantize, and write five tokens, with a cache and without."""
    if not (hasattr(model, "can_generate") and model.can_generate()):
        return "–"
    quantization.quantize_(model, bits=8, activations=8)
    first = {name: value for name, value in inputs.items() if "decoder" not in name}
    settings = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False}
    texts = [model.generate(**first, **settings, use_cache=cache) for cache in (True, False)]
    _same(*texts)
    return "works"


def export(model, inputs):
    """Quantize, and let torch.export draw the graph."""
    quantization.quantize_(model, bits=8, activations=8)
    if "use_cache" in inspect.signature(model.forward).parameters:
        inputs = inputs | {"use_cache": False}  # a cache is no output that export knows
    with torch.no_grad():
        program = torch.export.export(model, (), inputs, strict=False).module()
    _same(families.answer(program, inputs), families.answer(model, inputs))
    return "works"


VERBS = {
    "prune_": prune,
    "quantize_": quantize,
    "… activations=8": integers,
    "add_lora_": adapt,
    "student_from": student,
    "save_quantized": save,
    "save_pretrained": save_pretrained,
    "generate": generate,
    "export": export,
}


def status(family: str, verb: Callable) -> str:
    """Return what a verb does to a family: works, left and named, refused, or worse."""
    model, inputs = families.make(family)
    try:
        with warnings.catch_warnings(action="ignore"):  # transformers', about settings of ours
            return verb(model, inputs)
    except ValueError as error:
        return f"refused: {str(error).partition('; ')[0]}"
    except Wrong as error:
        return f"silently wrong: {error}"
    except Exception as error:
        return f"fails later: {type(error).__name__}: {str(error).strip().splitlines()[-1]}"


def table(statuses: dict[str, dict[str, str]]) -> str:
    """Return the page: a row a family, a column a verb."""
    lines = ["| family | " + " | ".join(f"`{verb}`" for verb in VERBS) + " |"]
    lines.append("|---" * (len(VERBS) + 1) + "|")
    for family, row in statuses.items():
        lines.append(f"| {family} | " + " | ".join(row[verb] for verb in VERBS) + " |")
    return HEAD + "\n".join(lines) + "\n"


def tried() -> dict[str, dict[str, str]]:
    """Return the status of every family and verb."""
    return {
        family: {name: status(family, verb) for name, verb in VERBS.items()}
        for family in families.FAMILIES
    }


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(table(tried()), encoding="utf-8")
    print(PAGE.read_text(encoding="utf-8"))
