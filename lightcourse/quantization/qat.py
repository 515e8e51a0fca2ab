"""Training on the grid: put fake layers in, train as ever, and make integers of them."""

from collections.abc import Callable, Collection, Mapping

import torch
from torch import nn

from lightcourse import layers, pretrained
from lightcourse.quantization.affine import choose_qparams_affine_with_min_max, into_groups
from lightcourse.quantization.fake import TERNARY, FakeQuantizedLinear, grid_ends
from lightcourse.quantization.layer import QuantizedLinear
from lightcourse.quantization.learned_steps import mean_step, nearest_step
from lightcourse.quantization.plan import plan_bits
from lightcourse.quantization.verbs import check_on_cpu, inputs_of, share_biases, stored_bytes

# torch's own modules that read these layers' weights instead of calling the layers.
READERS = (nn.MultiheadAttention, nn.TransformerEncoderLayer)


def prepare_qat_(
    model: nn.Module,
    bits: int | str | Mapping[str, int | str] = 4,
    group_size: int | None = None,
    activations: int | None = None,
    skip: Collection[str] = (),
    *,
    activation_ranges: Mapping[str, tuple[float, float]] | None = None,
    choose_step: Callable = nearest_step,
) -> layers.Report:
    """Let linear layers train on the grid, in place.

    Each is replaced by a :class:`FakeQuantizedLinear` around the same weight. Nothing else about
    training changes: :func:`lightcourse.training.train` takes any loss, a teacher's among them,
    and :func:`lightcourse.pruning.hold_masks` holds zeros. Steps learn with the weights (LSQ);
    to keep them as they are, freeze :func:`qat_steps`; to let them follow the weights,
    :func:`refit_steps_` after each step of training. What moves or removes weights, such as
    :func:`rotate_`, :func:`smooth_` and surgery, comes before: steps belong to weights as they are.

    Parameters
    ----------
    model : nn.Module
        Changed in place; ``nn.Linear`` and ``Conv1D`` are replaced.
    bits : int, "ternary", or dict of str to these
        2 to 8, or three levels (-1, 0, 1), for all linear layers; or for each layer named, and
        those that are not named stay as they are. All grids are symmetric.
    group_size : int, optional
        Inputs that share a step; must divide every layer's inputs. One step a row without it.
    activations : {None, 8}
        As in :func:`quantize_`. With 8 the inputs are rounded as integer kernels will.
    skip : collection of str
        Names of layers to leave as they are.
    activation_ranges : dict of str to (float, float), optional
        What :func:`calibrate` returns: with ``activations=8`` the inputs are rounded to one
        fixed grid for each layer, whose step learns, too.
    choose_step : callable
        ``choose_step(groups, quant_min, quant_max)`` gives the steps to start from, shape
        (rows, groups), of weights of shape (rows, groups, size): :func:`paper_step`,
        :func:`nearest_step`, :func:`mean_step`.

    Returns
    -------
    Report
        For each layer how many weights are on the grid; what was skipped and why.

    Raises
    ------
    ValueError
        When a layer is prepared already or cannot be converted, a name is unknown, a weight is
        not finite, or nothing was prepared. The model is unchanged then.
    """
    model = layers.inside(model)
    _refuse_prepared(model)
    chosen, skipped = _plan(model, bits, skip)
    share = layers.share_of(model, (model.get_submodule(names[0]) for names in chosen))
    others = skipped | layers.other_matrices(model)
    report = layers.Report("prepared", "weights on the grid", skipped=others, share=share)
    new = {}
    for names, number in chosen.items():
        for name in names:
            how = {"activations": activations, "ranges": activation_ranges}
            new[name] = _fake(name, model.get_submodule(name), number, group_size, how, choose_step)
            new[name].weight, new[name].step = new[names[0]].weight, new[names[0]].step
    report.changed |= {names[0]: new[names[0]].weight.numel() for names in chosen}
    report.raise_if_nothing_changed("the model has no linear layer in floating point")
    for name, layer in new.items():
        layers.replace_(model, name, layer)
    pretrained.watch_(model)
    return report


def _refuse_prepared(model):
    for name, layer in prepared_layers(model).items():
        raise ValueError(
            f"model is prepared already: {name} has {layer.bits} bits; give all layers their bits "
            "at once, as a dict, or convert_qat_ first"
        )


def prepared_layers(model: nn.Module) -> dict[str, FakeQuantizedLinear]:
    """Return the layers of a model that train on the grid, by name."""
    return {name: m for name, m in model.named_modules() if isinstance(m, FakeQuantizedLinear)}


def _plan(model, bits, skip):
    """Return the grid of each weight by its owners' names, and what is left and why."""
    named = isinstance(bits, Mapping)
    for grid in bits.values() if named else [bits]:
        grid_ends(grid)
    numbers = {name: _number(grid) for name, grid in bits.items()} if named else _number(bits)
    if named and (tables := sorted(bits.keys() & layers.embedding_tables(model).keys())):
        raise ValueError(f"bits names {tables}, embedding tables; linear layers are wanted")
    chosen, skipped = plan_bits(model, numbers, None, skip)
    grids = {}
    for names in chosen:
        if reader := _reader(model, names):
            skipped |= dict.fromkeys(names, f"a {reader} reads its weight instead of calling it")
        else:
            grids[names] = next(bits[n] for n in names if n in bits) if named else bits
    return grids, skipped


def _number(grid):
    return 2 if grid == TERNARY else grid


def _reader(model, names):
    """Return the class of a module that goes past the forward of one of these layers."""
    parents = [model.get_submodule(name.rpartition(".")[0]) for name in names]
    return next((type(p).__name__ for p in parents if isinstance(p, READERS)), None)


def _fake(name, old, bits, group_size, inputs, choose_step):
    """Return the layer that trains in the place of one, having tried how it will convert."""
    try:
        how = inputs_of(name, old.weight.device, **inputs)
        weight = layers.weight_matrix(old)
        if not torch.isfinite(weight).all():
            raise ValueError("weight holds NaN or infinity; finite values are wanted")
        QuantizedLinear(weight[:1].detach(), None, _number(bits), group_size, **how)
        step = _first_step(weight, bits, group_size, choose_step)
        ends = how["activation_range"]
        grid = None if ends is None else choose_qparams_affine_with_min_max(*ends)
        if layers.is_conv1d(old):
            weight = nn.Parameter(weight.detach().contiguous(), old.weight.requires_grad)
        return FakeQuantizedLinear(weight, old.bias, bits, step, how["activations"], grid)
    except ValueError as error:
        raise ValueError(f"layer {name}: {error}") from error


@torch.no_grad()
def _first_step(weight, bits, group_size, choose_step):
    """Return the steps that a rule chooses for a weight; 1 where all weights are 0."""
    if not callable(choose_step):
        raise ValueError(f"choose_step is a {type(choose_step).__name__}; a function is wanted")
    groups = into_groups(weight.float(), weight.shape[1] if group_size is None else group_size)
    step = choose_step(groups, *grid_ends(bits))
    shape = tuple(getattr(step, "shape", ()))
    if shape != tuple(groups.shape[:2]) or not torch.isfinite(step).all():
        raise ValueError(
            f"choose_step gave {type(step).__name__} of shape {shape}; finite numbers of shape "
            f"{tuple(groups.shape[:2])} are wanted"
        )
    return torch.where(step == 0, 1.0, step)


def qat_steps(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the steps of a prepared model: of the weights, and of inputs where these have some.

    Parameters
    ----------
    model : nn.Module
        After :func:`prepare_qat_`.

    Returns
    -------
    dict of str to nn.Parameter
        By the parameters' names. Frozen by ``requires_grad_(False)``, steps stay.

    Raises
    ------
    ValueError
        When no layer of the model was prepared.
    """
    _prepared(layers.inside(model))
    ends = (".step", ".input_step")
    return {n: p for n, p in layers.unwrapped(model).named_parameters() if n.endswith(ends)}


@torch.no_grad()
def refit_steps_(model: nn.Module, choose_step: Callable = mean_step) -> layers.Report:
    """Choose the weights' steps anew for the weights as they are by now, in place.

    As ``after_step`` of :func:`lightcourse.training.train` it lets frozen steps follow the
    weights; with :func:`mean_step` on ternary layers this is BitNet b1.58's rule (Ma et al.
    2024, arXiv 2402.17764).

    Parameters
    ----------
    model : nn.Module
        After :func:`prepare_qat_`.
    choose_step : callable
        As in :func:`prepare_qat_`.

    Returns
    -------
    Report
        For each layer how many steps were chosen.

    Raises
    ------
    ValueError
        When no layer was prepared, or ``choose_step`` gives no steps.
    """
    report = layers.Report("refitted", "steps")
    for name, layer in _prepared(layers.inside(model)).items():
        bits, size = layer.grid, layer.in_features // layer.groups
        layer.step.copy_(_first_step(layer.weight, bits, size, choose_step).flatten())
        report.changed[name] = layer.step.numel()
    return report


def convert_qat_(model: nn.Module, codes: bool = False) -> layers.Report:
    """Make integers of the layers that trained on the grid, in place.

    Each answers as its fake layer did, bit for bit: with ``activations=8`` on the kernels'
    portable path (elsewhere within a kernel's error budget, since the sums of groups are added
    up in another order), else where torch multiplies the same floats in the same way.

    Parameters
    ----------
    model : nn.Module
        After :func:`prepare_qat_`, and training.
    codes : bool
        True: layers of less than 4 bits whose inputs stay floats are stored as codes without room
        between them (:class:`CodebookLinear`), and not as two integers a byte. Up to 8 rows at
        once are then multiplied by a kernel, whose sums of floats differ from torch's in their
        last bits.

    Returns
    -------
    Report
        For each layer the bytes saved.

    Raises
    ------
    ValueError
        When no layer was prepared, a weight or a step is not finite, or a layer whose inputs
        shall be integers lies on a GPU. The model is unchanged then.
    """
    model = layers.inside(model)
    report, new, first = layers.Report("converted", "bytes saved"), {}, {}
    for name, old in _prepared(model).items():
        new[name] = _converted(name, old, codes)
        owner = first.setdefault(id(old.weight), name)
        for buffer in {"qweight", "scale", "levels"} & new[owner]._buffers.keys():
            setattr(new[name], buffer, getattr(new[owner], buffer))  # one matrix for one weight
        report.changed[name] = (old.weight.nbytes - stored_bytes(new[name])) * (owner == name)
    share_biases(model, new)
    for name, layer in new.items():
        layers.replace_(model, name, layer)
    pretrained.watch_(model)
    return report


def _prepared(model):
    if not (found := prepared_layers(model)):
        raise ValueError("model has no layer that trains on the grid; prepare_qat_ it first")
    return found


def _converted(name, layer, codes):
    try:
        if layer.activations == 8 and not layer.static:
            check_on_cpu(layer.weight.device)
        return layer.converted(codes)
    except ValueError as error:
        raise ValueError(f"layer {name}: {error}") from error
