"""Keep the lower layers of a model as they are."""

from torch import nn

from lightcourse import layers, surgery


def freeze_layers_(model: nn.Module, count: int) -> layers.Report:
    """Freeze the embeddings and the first ``count`` layers, so that only what is above trains.

    The lower layers hold what most tasks need, the upper ones what a task is about (Howard and
    Ruder 2018, arXiv 1801.06146; Lee et al. 2019, arXiv 1911.03090).

    Parameters
    ----------
    model : nn.Module
        Changed in place. It has one stack of layers, as BERT, GPT-2 and Llama. Nothing is made
        trainable: call ``model.requires_grad_()`` before, to freeze fewer layers than last time.
    count : int
        From 0, the embeddings alone, to the number of layers.

    Returns
    -------
    Report
        For each part the parameters that were trainable until now; its notes tell which other
        layers share weights with these parts.

    Raises
    ------
    ValueError
        When ``count`` is outside of that range, the model has two stacks or none, or all of this
        is frozen already.
    """
    model = layers.inside(model)
    stacks = surgery.layer_stacks(model)
    if len(stacks) > 1:
        raise ValueError(f"model has the stacks {list(stacks)}; one is wanted: freeze one of them")
    ((name, stack),) = stacks.items()
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= len(stack):
        raise ValueError(f"count is {count!r}; 0..{len(stack)} is wanted, {name} has so many")
    parts = _embeddings(model, name)
    parts |= {f"{name}.{index}".lstrip("."): stack[index] for index in range(count)}
    report = layers.Report("frozen", "parameters no longer trained")
    for part, module in parts.items():
        trained = [p for p in module.parameters() if p.requires_grad]
        if trained:
            report.changed[part] = sum(p.numel() for p in trained)
        module.requires_grad_(False)
    others = {f"{name}.{index}".lstrip("."): stack[index] for index in range(count, len(stack))}
    report.notes += _frozen_with(parts, _tied_outside(model, name) | others)
    return report.raise_if_nothing_changed("all of these parts are frozen already")


def _frozen_with(parts, others):
    """Return a sentence for each of some other layers that has weights of a frozen part."""
    owners = {id(p): part for part, module in parts.items() for p in module.parameters()}
    found = {
        name: next((owners[id(p)] for p in layer.parameters() if id(p) in owners), None)
        for name, layer in others.items()
    }
    return [f"{name} has weights of {part}: frozen with it" for name, part in found.items() if part]


def _tied_outside(model, stack):
    """Return the linear layers outside of a stack that share their weight."""
    within = f"{stack}.".lstrip(".")
    tied = layers.tied_layers(model)
    return {name: model.get_submodule(name) for name in tied if not name.startswith(within)}


def _embeddings(model, stack):
    """Return what turns tokens into a stack's input: BERT's module, or the tables of a Llama."""
    found = {}
    for name in layers.embedding_tables(model):
        parent = name.rpartition(".")[0]
        inside = f"{name}.".startswith(f"{stack}.")
        above = f"{stack}.".startswith(f"{parent}.".lstrip("."))
        if not inside:
            part = name if above else parent
            found[part] = model.get_submodule(part)
    return found
