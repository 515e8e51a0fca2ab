"""The residual stream: which parameters have a place for each of its channels, and which go.

Embeddings and blocks write to it, norms rescale it, blocks and heads read it. All of them are
as wide as ``config.hidden_size``.
"""

import torch
from torch import nn

from lightcourse import layers
from lightcourse.surgery.blocks import (
    ATTENTION,
    FEED_FORWARD,
    has_own_head_size,
    head_size,
    known_attentions,
    matches,
)
from lightcourse.surgery.rows import note_sizes, tell_shape_

# Layers behind the stream, by the ends of their names: they read it, or one as wide again.
HEADS = ("lm_head", "score", "classifier", "head", "qa_outputs", "decoder", "seq_relationship")
AS_WIDE_AGAIN = ("pooler.dense", "transform.dense")
# Norms of single heads, which may happen to be as wide.
INNER_NORMS = ("q_norm", "k_norm")
# What modules call the width that they were built for.
ATTRIBUTES = ("hidden_size", "embed_dim", "embedding_dim")


def stream_width(model: nn.Module) -> int:
    """Return the width of the residual stream, ``config.hidden_size``.

    Raises
    ------
    ValueError
        When the model has no such configuration.
    """
    width = getattr(getattr(model, "config", None), "hidden_size", None)
    if not isinstance(width, int):
        raise ValueError(
            f"model is a {type(model).__name__} without a config.hidden_size; a model with one "
            "residual stream is wanted: BERT, GPT-2, Llama or the like"
        )
    return width


def stream_norms(model: nn.Module) -> dict[str, nn.Module]:
    """Return the norms of the residual stream by name: ``nn.LayerNorm`` and plain RMSNorm."""
    width = stream_width(model)
    return {
        name: module
        for name, module in model.named_modules()
        if not name.endswith(INNER_NORMS) and _normalizes(module, width)
    }


def _normalizes(module, width):
    if isinstance(module, nn.LayerNorm):
        return tuple(module.normalized_shape) == (width,)
    weight = module._parameters.get("weight")
    return weight is not None and tuple(weight.shape) == (width,) and is_rms_norm(module)


@torch.no_grad()
def is_rms_norm(module: nn.Module) -> bool:
    """Tell whether a module is called an RMSNorm and multiplies by its weight as it is.

    Others than Llama's may add 1 to the weight first: it is tried.
    """
    if "RMSNorm" not in type(module).__name__:
        return False
    weight = module.weight
    x = torch.linspace(-1, 1, len(weight)).to(weight)
    wanted = weight * x * x.square().mean().rsqrt()
    try:
        apart = (module.forward(x) - wanted).norm()
    except Exception:  # whatever else it wants, it is not x alone
        return False
    return bool(apart <= 0.05 * wanted.norm())


def stream_cuts(model: nn.Module, mask: torch.Tensor) -> dict[str, dict[int, torch.Tensor]]:
    """Return which dimensions of which parameters lose what when channels of the stream go.

    Parameters
    ----------
    model : nn.Module
        Unchanged.
    mask : Tensor of bool, shape (hidden_size,)
        True = keep.

    Returns
    -------
    dict of str to dict of int to Tensor of bool
        By the parameter's name, for a dimension what of it stays; of a bias that is no part
        of the stream, nothing is cut.

    Raises
    ------
    ValueError
        Naming a parameter as wide as the stream whose part in it is not known.
    """
    cuts = {}
    for name, module in model.named_modules(remove_duplicate=False):
        for own, dims in _dims_of(model, name, module).items():
            cuts[f"{name}.{own}".lstrip(".")] = dict.fromkeys(dims, mask)
    for _, makers, reader in matches(model, FEED_FORWARD) + matches(model, ATTENTION):
        for path in makers:
            cuts |= _of_linear(model, path, mask, reads=True)
        cuts |= _of_linear(model, reader, mask, reads=False)
    _check_all_known(model, cuts, len(mask))
    return cuts


def _dims_of(model, name, module):
    """Return for a norm, an embedding table or a head the dimensions of its parameters."""
    dims, width = {}, stream_width(model)
    if type(module) is nn.Embedding and module.embedding_dim == width:
        dims = {"weight": [1]}
    elif not name.endswith(INNER_NORMS) and _normalizes(module, width):
        dims = {"weight": [0], "bias": [0]}
    elif isinstance(module, nn.Linear) and module.in_features == width:
        if name.endswith(AS_WIDE_AGAIN) and module.out_features == width:
            dims = {"weight": [0, 1], "bias": [0]}
        elif name.rpartition(".")[2] in HEADS:
            dims = {"weight": [1], "bias": []}
    return {own: dims[own] for own in dims if module._parameters.get(own) is not None}


def _of_linear(model, path, mask, reads):
    """Return the cuts of a layer that reads the stream, or of one that writes to it."""
    layer = model.get_submodule(path)
    outputs, inputs = (1, 0) if layers.is_conv1d(layer) else (0, 1)
    found = layer.weight.shape[inputs if reads else outputs]
    if found != len(mask):
        raise ValueError(
            f"{path} {'reads' if reads else 'writes'} {found} channels; {len(mask)}, as many as "
            "config.hidden_size, are wanted"
        )
    cuts = {f"{path}.weight": {inputs if reads else outputs: mask}}
    if layer.bias is not None:
        cuts[f"{path}.bias"] = {} if reads else {0: mask}
    return cuts


def _check_all_known(model, cuts, width):
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if width in parameter.shape and name not in cuts:
            raise ValueError(
                f"model holds {name} of shape {tuple(parameter.shape)}, as wide as its stream of "
                f"{width} channels, and what it does there is not known; BERT, GPT-2, Llama or "
                "the like is wanted"
            )


def cut_stream_(model: nn.Module, mask: torch.Tensor) -> None:
    """Take channels out of the stream, in place; what is tied stays so.

    Parameters
    ----------
    model : nn.Module
        Changed in place, but for its configuration, which :func:`note_width` changes.
    mask : Tensor of bool, shape (hidden_size,)
        True = keep.

    Raises
    ------
    ValueError
        As :func:`stream_cuts`, before anything is changed.
    """
    cuts = {name: dims for name, dims in stream_cuts(model, mask).items() if dims}
    old, new = {name: model.get_parameter(name) for name in cuts}, {}
    for name, parameter in old.items():
        if id(parameter) not in new:
            new[id(parameter)] = _cut(parameter, cuts[name])
        layer, _, own = name.rpartition(".")
        setattr(model.get_submodule(layer), own, new[id(parameter)])
    for module in model.modules():
        _tell_width_(module, len(mask), int(mask.sum()))


def _cut(parameter, dims):
    tensor = parameter.data
    for dim, mask in dims.items():
        tensor = tensor.index_select(dim, mask.nonzero().flatten().to(tensor.device))
    return nn.Parameter(tensor.contiguous(), parameter.requires_grad)


def _tell_width_(module, before, after):
    if isinstance(module, nn.Linear) or layers.is_conv1d(module):
        tell_shape_(module)
    for key in ATTRIBUTES:
        if vars(module).get(key) == before:
            setattr(module, key, after)
    if tuple(vars(module).get("normalized_shape", ())) == (before,):
        module.normalized_shape = (after,)


def note_width(model: nn.Module, width: int) -> None:
    """Let the configurations tell another width of the stream, and the sizes it leaves alone."""
    before = stream_width(model)
    configs = {id(m.config): m.config for m in model.modules() if hasattr(m, "config")}
    sizes = [head_size(model.get_submodule(name)) for name in known_attentions(model)]
    for config in configs.values():
        if getattr(config, "hidden_size", None) == before:
            config.hidden_size = width
            if sizes and has_own_head_size(config):
                config.head_dim = sizes[0]
    note_sizes(model)
