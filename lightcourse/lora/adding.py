"""Put adapters into a model: LoRA, DoRA, IA3."""

from collections.abc import Callable
from functools import partial

from torch import nn

from lightcourse import layers, pretrained
from lightcourse.lora.dora import DoRALinear
from lightcourse.lora.ia3 import IA3Linear
from lightcourse.lora.layer import LoRALinear
from lightcourse.lora.shell import Shell, innermost, own_parameters, shape, updates
from lightcourse.lora.switching import adapters
from lightcourse.lora.targets import choose


def add_lora_(
    model: nn.Module,
    rank: int = 8,
    alpha: float = 16.0,
    targets: layers.Targets = None,
    adapter: str = "default",
) -> layers.Report:
    r"""Freeze a model and put a trainable low-rank update beside its linear layers.

    A model may carry several adapters, by name. The one that was added last is used and
    trained; :func:`set_adapter_` switches, :func:`adapter_rows` uses several in one batch.

    Parameters
    ----------
    model : nn.Module
        Changed in place: afterwards nothing but the new updates is trainable. Set
        ``requires_grad`` again on whatever else shall learn, such as a new head. Layers
        that store integers take an update as well: it stays in float32 beside them. So a
        model after ``codebook_`` or ``quantize_(model, 4)`` learns by QLoRA (Dettmers et al.
        2023, arXiv 2305.14314).
    rank, alpha : int, float
        See :class:`LoRALinear`; for rsLoRA see :func:`rank_stabilized_alpha`.
    targets : str or sequence of str, optional
        Which linear layers; all of them without it, but those that are thinner than the
        rank. A sequence holds ends of names, whole parts of them:
        ``["query", "layer.0.attention.self.value"]``. A str is a regular expression that
        must match a whole name: ``r".*\.layer\.[0-2]\..*"``.
    adapter : str
        The name of the new adapter.

    Returns
    -------
    Report
        For each adapted layer the parameters added. A layer that shares its weight with a table
        is skipped and named. Of layers that share one among themselves each gets an update of
        its own, as in Relaxed Recursive Transformers (Bae et al. 2024, arXiv 2410.20672):
        :func:`merge_lora_` refuses these, since merging one would change the others.

    Raises
    ------
    ValueError
        When ``rank`` is below 1 or above the smaller side of a matrix that ``targets`` names,
        ``alpha`` is not positive, the model has an adapter of that name, or one of ``targets``
        fits no layer (nothing is changed then).
    """
    return _add_low_rank(LoRALinear, model, rank, alpha, targets, adapter)


def add_dora_(
    model: nn.Module,
    rank: int = 8,
    alpha: float = 16.0,
    targets: layers.Targets = None,
    adapter: str = "default",
) -> layers.Report:
    """Freeze a model and let its linear layers learn by :class:`DoRALinear`.

    Parameters, report and errors are those of :func:`add_lora_`.
    """
    return _add_low_rank(DoRALinear, model, rank, alpha, targets, adapter)


def _add_low_rank(kind, model, rank, alpha, targets, adapter):
    model = layers.inside(model)
    chosen, skipped = choose(model, targets), _tied(model)
    thin = {name: min(shape(layer)) for name, layer in chosen.items() if min(shape(layer)) < rank}
    for name, most in thin.items():
        why = f"rank is {rank}, but {name} has no more than rank {most} itself"
        if targets is not None:
            raise ValueError(f"{why}; at most {most} is wanted")
        skipped[name] = why
    chosen = {name: layer for name, layer in chosen.items() if name not in thin}
    make = partial(kind, rank=rank, alpha=alpha, adapter=adapter)
    return put_around(model, chosen, lambda name, layer: make(layer), adapter, skipped)


def add_ia3_(
    model: nn.Module,
    outputs: layers.Targets = (),
    inputs: layers.Targets = (),
    adapter: str = "default",
) -> layers.Report:
    """Freeze a model and multiply what some of its layers give, or are given, by vectors.

    The paper takes the outputs of the keys' and the values' layers, and the inputs of the
    second matrix of each feed-forward block (Liu et al. 2022, arXiv 2205.05638).

    Parameters
    ----------
    model : nn.Module
        Changed in place, as by :func:`add_lora_`.
    outputs : str or sequence of str
        The layers whose outputs are multiplied, named as ``targets`` of :func:`add_lora_`.
    inputs : str or sequence of str
        The layers whose inputs are.
    adapter : str
        The name of the new adapter.

    Returns
    -------
    Report
        For each adapted layer the parameters added.

    Raises
    ------
    ValueError
        When no layer is named, a name fits no layer, one is in both, or the model has an
        adapter of that name (nothing is changed then).
    """
    model = layers.inside(model)
    sides = dict.fromkeys(choose(model, outputs, "outputs"), "outputs")
    given = choose(model, inputs, "inputs")
    if both := [name for name in given if name in sides]:
        raise ValueError(f"{both[0]} is in outputs and in inputs; one of them is wanted")
    sides |= dict.fromkeys(given, "inputs")
    chosen = {name: layer for name, layer in choose(model, None).items() if name in sides}
    make = partial(IA3Linear, adapter=adapter)
    return put_around(model, chosen, lambda n, layer: make(layer, sides[n]), adapter)


def _tied(model):
    """Return the layers whose weight is a table's, and why they are left."""
    linear, tied = layers.linear_layers(model), layers.tied_layers(model)
    return {n: f"shares its weight with {one}" for n, one in tied.items() if one not in linear}


def put_around(
    model: nn.Module,
    chosen: dict[str, nn.Module],
    make: Callable[[str, nn.Module], Shell],
    adapter: str,
    skipped: dict[str, str] | None = None,
) -> layers.Report:
    """Put a shell around each of the chosen layers, and train nothing else."""
    if not adapter:
        raise ValueError("adapter is empty; a name is wanted")
    if adapter in adapters(model):
        raise ValueError(
            f"the model has an adapter {adapter!r} already; give the new one another name, "
            "or merge_lora_ the old one first"
        )
    share = layers.share_of(model, map(innermost, chosen.values()))
    skipped = layers.other_matrices(model) | (skipped or {})
    report = layers.Report("adapted", "parameters added", skipped=skipped, share=share)
    trainable = {id(p) for p in model.parameters() if p.requires_grad}
    try:
        new = {name: make(name, layer) for name, layer in chosen.items()}
    finally:  # a shell freezes its base: where a later one cannot be made, nothing is changed
        for parameter in model.parameters():
            parameter.requires_grad_(id(parameter) in trainable)
    for name, shell in new.items():
        report.changed[name] = sum(p.numel() for p in own_parameters(shell).values())
    report.raise_if_nothing_changed(
        f"{type(model).__name__} has no linear layer in it, or targets is empty"
    )
    model.requires_grad_(False)
    for shell in updates(model).values():
        shell.active = False
    for name, shell in new.items():
        layers.replace_(model, name, shell)
    pretrained.watch_(model)
    return report
