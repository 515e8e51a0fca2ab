"""Rotations: the same function in turned coordinates, where no channel stands out.

QuaRot, Ashkboos et al. 2024, arXiv 2404.00456.
"""

import torch
from torch import nn
from torch.func import functional_call

from lightcourse import layers, pretrained
from lightcourse.surgery import multiply_inputs_

MAKERS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
GATES = ("mlp.gate_proj", "mlp.up_proj")
WRITERS = ("self_attn.o_proj", "mlp.down_proj")
NORMS = ("input_layernorm", "post_attention_layernorm")
WANTED = "a Llama with an output layer is wanted"


def hadamard(n: int) -> torch.Tensor:
    """Return an orthogonal matrix all of whose entries are 1 / √n or -1 / √n.

    Multiplying by it mixes n numbers evenly: one large among them becomes n small ones.

    Parameters
    ----------
    n : int
        A power of two, or one times a size that Paley (1933) built: 12, 20, 28, 36 and others.

    Returns
    -------
    Tensor of float64, shape (n, n)
        Its product with its own transpose is the identity.

    Raises
    ------
    ValueError
        When no such matrix is known here.

    Examples
    --------
    >>> (hadamard(2) * 2**0.5).round().tolist()
    [[1.0, 1.0], [1.0, -1.0]]
    >>> (hadamard(4) @ torch.tensor([8.0, 0, 0, 0]).double()).tolist()
    [4.0, 4.0, 4.0, 4.0]
    """
    found = _signs(n) if isinstance(n, int) and n > 0 else None
    if found is None:
        raise ValueError(f"n is {n}; a power of two times 1, 12, 20, 28 or a few more is wanted")
    return found.double() / n**0.5


def _signs(n):
    """Return a matrix of signs with orthogonal rows; None where no way to it is known."""
    if n == 1:
        return torch.ones(1, 1, dtype=torch.int64)
    half = _signs(n // 2) if n % 2 == 0 else None
    return _paley(n) if half is None else torch.kron(torch.tensor([[1, 1], [1, -1]]), half)


def _paley(n):
    """Return Paley's matrix of signs of that size; None where there is none."""
    if n % 4 == 0 and _is_prime(n - 1):  # n - 1 is 3 modulo 4: the residues' matrix is skew
        signs = torch.ones(n, n, dtype=torch.int64)
        signs[1:, 0] = -1
        signs[1:, 1:] = _residues(n - 1) + torch.eye(n - 1, dtype=torch.int64)
        return signs
    half = n // 2
    if n % 4 or half % 4 != 2 or not _is_prime(half - 1):
        return None
    core = torch.ones(half, half, dtype=torch.int64)
    core[0, 0] = 0
    core[1:, 1:] = _residues(half - 1)
    one, other = torch.tensor([[1, 1], [1, -1]]), torch.tensor([[1, -1], [-1, -1]])
    return torch.kron(core, one) + torch.kron(torch.eye(half, dtype=torch.int64), other)


def _residues(prime):
    """Return the matrix of the Legendre symbols of i - j."""
    symbol = torch.full((prime,), -1)
    symbol[[i * i % prime for i in range(1, prime)]] = 1
    symbol[0] = 0
    places = torch.arange(prime)
    return symbol[(places[:, None] - places) % prime]


def _is_prime(number):
    return number > 1 and all(number % factor for factor in range(2, int(number**0.5) + 1))


def random_rotation(n: int, seed: int = 0) -> torch.Tensor:
    """Return a random orthogonal matrix, float64 of shape (n, n).

    A :func:`hadamard` matrix whose rows have random signs, where there is one; else any
    orthogonal matrix, from normal random numbers.
    """
    generator = torch.Generator().manual_seed(seed)
    try:
        signs = torch.randint(0, 2, (n, 1), generator=generator) * 2 - 1
        return signs * hadamard(n)
    except ValueError:
        return torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.double)).Q


@torch.no_grad()
def rotate_(model: nn.Module, seed: int = 0) -> layers.Report:
    """Turn the residual stream of a Llama by a random rotation, in place; answers stay.

    What the norms multiply by moves into the layers behind them, for a norm without weights
    treats all directions alike. Then everything that writes into the stream is turned, and
    everything that reads it turned back: rounding finds no channel that stands out.

    An output layer that shares the table of words gets a weight of its own, since what its
    norm multiplied by is in it now: the report and ``config.tie_word_embeddings`` say so.

    Parameters
    ----------
    model : nn.Module
        A Llama or what is built like it (Mistral, Qwen2, Qwen3), in floats, with an output
        layer. Changed in place.
    seed : int
        Of the rotation.

    Returns
    -------
    Report
        For each matrix the number of weights turned.

    Raises
    ------
    ValueError
        When the model is no Llama, a norm is no RMSNorm that multiplies by its weight, or
        layers store integers or share weights (nothing has been changed then).
    """
    model = layers.inside(model)
    body, head, table = _parts(model)
    rotation = random_rotation(table.weight.shape[1], seed)
    _check(body, head, table, rotation)
    report = layers.Report("rotated", "weights")
    _untie_(model, head, table, report)
    names = {module: name for name, module in model.named_modules()}
    _turn_inputs_(table, rotation)
    report.changed[names[table]] = table.weight.numel()
    for norm, readers in _readers(body, head):
        _fold_(norm, readers)
        for reader in readers:
            _turn_inputs_(reader, rotation)
            report.changed[names[reader]] = reader.weight.numel()
    for block in body.layers:
        for writer in map(block.get_submodule, WRITERS):
            _turn_outputs_(writer, rotation)
            report.changed[names[writer]] = writer.weight.numel()
    pretrained.watch_(model)
    return report


def _parts(model):
    """Return the part with the layers, the output layer and the table of words."""
    try:
        body, head = model.get_decoder(), model.get_output_embeddings()
        table = body.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        body = head = table = None
    kinds = {"layers", "norm", "embed_tokens"}
    named = {name for name, _ in body.named_children()} if body is not None else set()
    if head is None or named - {"rotary_emb"} != kinds:
        raise ValueError(f"model is a {type(model).__name__}; {WANTED}")
    return body, head, table


def _readers(body, head):
    """Return each norm with the layers that read it."""
    pairs = [(body.norm, [head])]
    for block in body.layers:
        for norm, readers in zip(NORMS, (MAKERS, GATES), strict=True):
            pairs.append((block.get_submodule(norm), [block.get_submodule(r) for r in readers]))
    return pairs


def _check(body, head, table, rotation):
    """Raise where some part of the model does something else than a Llama's."""
    for index, block in enumerate(body.layers):
        linear = {*MAKERS, *GATES, *WRITERS}
        children = {name for name, _ in block.named_children()} == {*NORMS, "self_attn", "mlp"}
        if not children or layers.linear_layers(block).keys() != linear:
            raise ValueError(f"layer {index} is a {type(block).__name__}; {WANTED}")
    for norm, _ in _readers(body, head):
        if not _turns(norm, rotation):
            raise ValueError(
                f"model has a {type(norm).__name__} that does more than to divide by the root "
                "mean square and to multiply by its weight; RMSNorm is wanted"
            )
    shared = layers.shared_layers(body)
    if (
        shared
        or type(table) is not nn.Embedding
        or type(head) is not nn.Linear
        or head.bias is not None
    ):
        why = f"{next(iter(shared))} shares its weight" if shared else "its tables are unusual"
        raise ValueError(f"model is a {type(body).__name__} whose {why}; {WANTED}")


def _turns(norm, rotation):
    """Tell whether a norm is a factor after what treats all directions alike."""
    weight = getattr(norm, "weight", None)
    if weight is None or len(list(norm.parameters())) != 1 or weight.shape != rotation[0].shape:
        return False
    x = torch.linspace(-1, 2, len(rotation), dtype=torch.double).square()[None]
    turn, ones = rotation.to(weight.device), torch.ones_like(weight).double()

    def bare(x, weight=ones):
        return functional_call(norm, {"weight": weight}, (x.to(weight),)).double()

    factors = torch.linspace(1, 2, len(rotation)).to(ones)
    alike = torch.allclose(bare(x @ rotation), bare(x) @ turn, rtol=1e-3, atol=1e-4)
    return alike and torch.allclose(bare(x, factors), bare(x) * factors, rtol=1e-3, atol=1e-4)


def _untie_(model, head, table, report):
    """Give the output layer a weight of its own, where it shares the table's."""
    if head.weight is not table.weight:
        return
    head.weight = nn.Parameter(table.weight.data.clone(), table.weight.requires_grad)
    model.config.tie_word_embeddings = False
    if hasattr(model, "all_tied_weights_keys"):
        model.all_tied_weights_keys = {}
    report.notes.append(
        f"the output layer no longer shares the table of words: {head.weight.nbytes:,} bytes more"
    )


def _fold_(norm, readers):
    """Move a norm's weight into the layers behind it."""
    for reader in readers:
        multiply_inputs_(reader, norm.weight.data)
    norm.weight.data.fill_(1)


def _turn_inputs_(layer, rotation):
    weight = layer.weight.data
    weight.copy_(weight.double() @ rotation.to(weight.device))


def _turn_outputs_(layer, rotation):
    rotation = rotation.to(layer.weight.device)
    for own in layer.parameters():  # the weight, and a bias where there is one
        own.data.copy_(rotation.T @ own.data.double())
