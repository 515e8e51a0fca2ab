"""Checks of the exercises of chapter 07."""

from functools import cache

import torch
from torch import nn
from torch.nn import functional as F

from lightcourse import surgery
from lightcourse.checks.by_hand import ByHand
from lightcourse.checks.cases import but, dice, normal, whole
from lightcourse.checks.grading import Exercise, grade


def check_without_neurons(without_neurons) -> bool:
    """Check ``without_neurons(up_weight, up_bias, down_weight, mask)``: three smaller tensors."""
    return grade(without_neurons, WITHOUT_NEURONS)


def _without_neurons_cases(seed):
    roll = dice(seed)

    def case(mask):
        # Square, so that a wrong dimension is cut without an error and can be named.
        size = len(mask)
        seeds = [roll.randrange(2**31) for _ in range(3)]
        up, down = (normal(size, size, seed=seed) for seed in seeds[:2])
        return up, normal(size, seed=seeds[2]), down, torch.tensor(mask, dtype=torch.bool)

    drawn = [1, *roll.sample([0, 0, 0, 1, 1], 5), 0]
    return [case([0, 1, 1, 0]), case([1, 0, 0, 0, 1]), case([0, 0, 1]), case(drawn)]


@torch.no_grad()
def _without_neurons(up_weight, up_bias, down_weight, mask):
    """Let the library cut two real layers."""
    up = nn.Linear(*up_weight.shape[::-1])
    down = nn.Linear(*down_weight.shape[::-1], bias=False)
    for parameter, value in zip(
        (up.weight, up.bias, down.weight), (up_weight, up_bias, down_weight), strict=True
    ):
        parameter.copy_(value)
    surgery.drop_outputs_(up, mask)
    surgery.drop_inputs_(down, mask)
    return up.weight.detach(), up.bias.detach(), down.weight.detach()


def _cut_by(places):
    """Return what cuts the right dimensions at other places, which a function makes of the mask."""
    return lambda up, bias, down, mask: (
        up[places(mask)],
        bias[places(mask)],
        down[:, places(mask)],
    )


WITHOUT_NEURONS_MISTAKES = {
    "removes_the_kept": _cut_by(lambda mask: ~mask),
    "rows_of_down": but(_without_neurons, 2, lambda up, bias, down, mask: down[mask]),
    "columns_of_up": but(_without_neurons, 0, lambda up, bias, down, mask: up[:, mask]),
    "bias_forgotten": but(_without_neurons, 1, lambda up, bias, down, mask: bias),
    "down_forgotten": but(_without_neurons, 2, lambda up, bias, down, mask: down),
    "zeros_instead": lambda up, bias, down, mask: (up * mask[:, None], bias * mask, down * mask),
    "both_sides_of_up": but(_without_neurons, 0, lambda up, bias, down, mask: up[mask][:, mask]),
    "both_sides_of_down": but(
        _without_neurons, 2, lambda up, bias, down, mask: down[mask][:, mask]
    ),
    "mask_as_places": _cut_by(lambda mask: mask.long()),
    "places_in_a_column": _cut_by(lambda mask: mask.nonzero()),
    "first_ones": _cut_by(lambda mask: torch.arange(int(mask.sum()))),
}


WITHOUT_NEURONS = Exercise(
    "without_neurons", _without_neurons, _without_neurons_cases, WITHOUT_NEURONS_MISTAKES
)


def check_block_influence(block_influence) -> bool:
    """Check ``block_influence(hidden, mask)``: how much each layer turns the real tokens."""
    return grade(block_influence, BLOCK_INFLUENCE)


def _block_influence_cases(seed):
    roll = dice(seed)

    def case(layers, lengths, tokens, width):
        shape = (layers, len(lengths), tokens, width)
        steps = normal(*shape, seed=roll.randrange(2**31))
        loud = 0.5 + 3 * normal(*shape[1:3], 1, seed=roll.randrange(2**31)).abs()
        start = 1 + normal(*shape[1:], seed=roll.randrange(2**31))
        hidden = torch.cat([start[None], start + 0.6 * steps.cumsum(0)]) * loud
        mask = (torch.arange(tokens) < torch.tensor(lengths)[:, None]).long()
        return hidden, mask

    return [case(3, (5, 2), 5, 6), case(2, (1, 4, 3), 6, 4), case(4, (6, 3), 7, 3)]


def _block_influence(hidden, mask):
    """Measure how far apart the ends of unit vectors are: |u - v|² = 2 (1 - cos)."""
    units = F.normalize(hidden[:, mask == 1].double(), dim=-1)
    return units.diff(dim=0).square().sum(-1).mean(1) / 2


def _turned(of=lambda cosines, mask: 1 - cosines[:, mask == 1].mean(1), before=None, dim=-1):
    """Return an influence of all cosines with one thing changed."""

    def answer(hidden, mask):
        first = hidden[:-1] if before is None else before(hidden)
        return of(F.cosine_similarity(first, hidden[1:], dim=dim), mask)

    return answer


def _texts_count_alike(cosines, mask):
    return 1 - ((cosines * mask).sum(2) / mask.sum(1)).mean(1)


def _flattened(hidden, mask):
    rows = hidden[:, mask == 1].flatten(1)
    return 1 - F.cosine_similarity(rows[:-1], rows[1:], dim=1)


def _mean_state_first(hidden, mask):
    real = mask[..., None]
    means = (hidden * real).sum(2) / real.sum(1)
    return 1 - F.cosine_similarity(means[:-1], means[1:], dim=-1).mean(1)


def _not_normalized(hidden, mask):
    states = hidden[:, mask == 1]
    return 1 - (states[:-1] * states[1:]).sum(-1).mean(1)


def _relative_step(hidden, mask):
    states = hidden[:, mask == 1]
    return (states.diff(dim=0).norm(dim=-1) / states[:-1].norm(dim=-1)).mean(1)


BLOCK_INFLUENCE_MISTAKES = {
    "cosine_itself": _turned(lambda cosines, mask: cosines[:, mask == 1].mean(1)),
    "sign_turned": _turned(lambda cosines, mask: cosines[:, mask == 1].mean(1) - 1),
    "padding_counts": _turned(lambda cosines, mask: 1 - cosines.mean((1, 2))),
    "padding_in_the_divisor": _turned(lambda cosines, mask: 1 - (cosines * mask).mean((1, 2))),
    "padding_alone": _turned(lambda cosines, mask: 1 - cosines[:, mask == 0].mean(1)),
    "texts_count_alike": _turned(_texts_count_alike),
    "sum_over_tokens": _turned(lambda cosines, mask: 1 - cosines[:, mask == 1].sum(1)),
    "flattened": _flattened,
    "mean_state_first": _mean_state_first,
    "against_the_embeddings": _turned(before=lambda hidden: hidden[:1]),
    "whole_stack_at_once": _turned(
        lambda cosines, mask: 1 - cosines[-1, mask == 1].mean(), before=lambda hidden: hidden[:1]
    ),
    "not_normalized": _not_normalized,
    "relative_step": _relative_step,
    "one_for_all_layers": _turned(lambda cosines, mask: 1 - cosines[:, mask == 1].mean()),
}


BLOCK_INFLUENCE = Exercise(
    "block_influence", _block_influence, _block_influence_cases, BLOCK_INFLUENCE_MISTAKES
)


def check_gate_scores(gate_scores) -> bool:
    """Check ``gate_scores(activations, gradients)``: a first-order score of each neuron."""
    return grade(gate_scores, GATE_SCORES)


def _gate_scores_cases(seed):
    roll = dice(seed)
    return [
        tuple(shift + normal(*shape, seed=roll.randrange(2**31)) for shift in (0.5, 0.0))
        for shape in [(3, 4, 5), (2, 6, 3), (5, 2, 4)]
    ]


def _gate_scores(activations, gradients):
    """Put a gate on each neuron, and let autograd say what the loss owes to it, text by text."""
    total = torch.zeros(activations.shape[-1])
    for text, upstream in zip(activations, gradients, strict=True):
        gates = torch.ones(text.shape[-1], requires_grad=True)
        (gates * text).backward(upstream)
        total += gates.grad.abs()
    return total


def _of_product(score):
    return lambda activations, gradients: score(activations * gradients)


GATE_SCORES_MISTAKES = {
    "abs_before_the_sum": _of_product(lambda product: product.abs().sum((0, 1))),
    "texts_cancel": _of_product(lambda product: product.sum((0, 1)).abs()),
    "signed": _of_product(lambda product: product.sum((0, 1))),
    "change_of_the_loss": _of_product(lambda product: -product.sum((0, 1))),
    "squared": _of_product(lambda product: product.sum(1).square().sum(0)),
    "sums_swapped": _of_product(lambda product: product.sum(0).abs().sum(0)),
    "mean_over_tokens": _of_product(lambda product: product.mean(1).abs().sum(0)),
    "mean_over_texts": _of_product(lambda product: product.sum(1).abs().mean(0)),
    "mean_over_both": _of_product(lambda product: product.mean(1).abs().mean(0)),
    "gradient_alone": lambda a, g: g.sum(1).abs().sum(0),
    "activation_alone": lambda a, g: a.sum(1).abs().sum(0),
    "activation_size_alone": lambda a, g: a.abs().sum((0, 1)),
    "product_of_sums": lambda a, g: (a.sum(1) * g.sum(1)).abs().sum(0),
    "product_of_sizes": lambda a, g: a.abs().sum((0, 1)) * g.abs().sum((0, 1)),
    "one_for_each_text": _of_product(lambda product: product.sum(1).abs()),
}


GATE_SCORES = Exercise("gate_scores", _gate_scores, _gate_scores_cases, GATE_SCORES_MISTAKES)


def check_renumber(renumber) -> bool:
    """Check ``renumber(ids, keep, unknown)``: the token numbers of a smaller vocabulary."""
    return grade(renumber, RENUMBER)


def _renumber_cases(seed):
    roll = dice(seed)

    def case(shape, keep, unknown, vocabulary):
        ids = whole(0, vocabulary, *shape, seed=roll.randrange(2**31))
        # Whatever is drawn: the ends, a kept one, one that goes, and the unknown one.
        gone = next(i for i in range(vocabulary) if i not in keep)
        ids.view(-1)[:5] = torch.tensor([0, vocabulary - 1, keep[-1], gone, unknown])
        return ids, keep, unknown

    drawn = sorted(roll.sample(range(3, 40), 12))
    return [
        case((9,), [1, 2, 5, 7, 8], 2, 10),
        case((2, 5), [0, 3, 4, 6], 3, 8),
        case((2, 3, 4), [0, 2, *drawn], 2, 41),
        case((6,), [0, 1, 5], 0, 7),
    ]


def _renumber(ids, keep, unknown):
    """Search each id in the sorted list, and look whether it is there."""
    kept = torch.tensor(keep)
    places = torch.searchsorted(kept, ids).clamp(max=len(keep) - 1)
    return torch.where(kept[places] == ids, places, torch.searchsorted(kept, unknown))


def _each(new):
    """Return what asks ``new(id, table, keep, unknown)`` for each id."""

    def answer(ids, keep, unknown):
        table = {old: place for place, old in enumerate(keep)}
        found = [new(i, table, keep, unknown) for i in ids.flatten().tolist()]
        return torch.tensor(found).view(ids.shape)

    return answer


def _turned_round(i, table, keep, unknown):
    numbers = dict(enumerate(keep))
    return numbers.get(i, numbers[unknown])


def _left_out(ids, keep, unknown):
    return torch.tensor([keep.index(i) for i in ids.flatten().tolist() if i in keep])


RENUMBER_MISTAKES = {
    "unknown_by_its_old_number": _each(lambda i, table, keep, unknown: table.get(i, unknown)),
    "turned_round": _each(_turned_round),
    "left_as_they_are": _each(lambda i, table, keep, unknown: table.get(i, i)),
    "not_renumbered": _each(lambda i, table, keep, unknown: i if i in table else unknown),
    "nothing_done": lambda ids, keep, unknown: ids,
    "counted_from_one": lambda ids, keep, unknown: _renumber(ids, keep, unknown) + 1,
    "first_for_unknown": _each(lambda i, table, keep, unknown: table.get(i, 0)),
    "row_behind_the_last": _each(lambda i, table, keep, unknown: table.get(i, len(keep))),
    "minus_one_for_unknown": _each(lambda i, table, keep, unknown: table.get(i, -1)),
    "next_kept_one": lambda ids, keep, unknown: torch.searchsorted(torch.tensor(keep), ids),
    "left_out": _left_out,
    "all_unknown": _each(lambda i, table, keep, unknown: table[unknown]),
}


RENUMBER = Exercise("renumber", _renumber, _renumber_cases, RENUMBER_MISTAKES)


def check_depth_or_width(depth_or_width) -> bool:
    """Check ``depth_or_width(shape, tied, target)``: (layers, neurons) that fit a size."""
    return grade(depth_or_width, DEPTH_OR_WIDTH)


def _depth_or_width_cases(seed):
    roll = dice(seed)
    cases = []
    # The target is the size of a smaller model, less so many hidden sizes.
    for by_width, tied, less in PLANS:
        hidden, layers, neurons = (
            4 * roll.choice([4, 8]),
            roll.randint(4, 6),
            8 * roll.randint(9, 12),
        )
        shape = (roll.randint(150, 300), hidden, neurons, 4 * roll.choice([1, 2]), layers)
        smaller = (neurons - 16, layers) if by_width else (neurons, layers - 1)
        size = _parameters((*shape[:2], smaller[0], shape[3], smaller[1]), tied)
        cases.append((shape, tied, size - int(less * hidden)))
    return cases


PLANS = [
    (False, True, 0),
    (False, False, 0.1),
    (True, True, 0.1),
    (True, False, 0),
    (False, True, -1),  # some to spare, but not for biases
    (False, True, 1.5),
    (True, True, 1.5),
    (False, False, 5.5),  # less than a layer's norms, more than half of them
    (True, False, 14),  # more than all norms, less than the keys of all layers
]


def _parameters(shape, tied):
    *outside, layers = shape
    rest, layer = _outside_and_layer(*outside, tied)
    return rest + layers * layer


@cache
def _outside_and_layer(vocabulary, hidden, intermediate, key_value, tied):
    """Build a Llama of one layer without values, and ask its tensors how many they hold."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=1,
        num_attention_heads=hidden // 4,
        num_key_value_heads=key_value // 4,
        tie_word_embeddings=tied,
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    whole, layer = (
        sum(parameter.numel() for parameter in part.parameters())
        for part in (model, model.model.layers[0])
    )
    return whole - layer, layer


def _depth_or_width(shape, tied, target):
    """Make real models smaller, step by step, until they fit."""
    vocabulary, hidden, intermediate, key_value, layers = shape

    def fits(neurons, depth):
        return _parameters((vocabulary, hidden, neurons, key_value, depth), tied) <= target

    depth, neurons = layers, intermediate
    while not fits(intermediate, depth):
        depth -= 1
    while not fits(neurons, layers):
        neurons -= 8
    return depth, neurons


def _solved(table=1, head=None, last=1, norms=2, matrices=3, square=2, pair=2, biases=0):
    """Return what solves for both, with other counts of what there is in a model."""

    def answer(shape, tied, target):
        vocabulary, hidden, intermediate, key_value, layers = shape
        tables = table + ((not tied) if head is None else head)
        left = target - hidden * (tables * vocabulary + last)
        beside = hidden * (square * hidden + pair * key_value + norms)
        beside += biases * (3 * hidden + 2 * key_value)
        neuron = matrices * hidden + 2 * biases
        deep = left // (beside + intermediate * neuron)
        return deep, (left - layers * beside) // (8 * layers * neuron) * 8

    return answer


def _after(change):
    """Return the right pair, changed; ``change`` is also given layers and neurons of the model."""
    return lambda shape, tied, target: change(
        *_depth_or_width(shape, tied, target), shape[-1], shape[2]
    )


def _next_above(shape, tied, target):
    deep, wide = _depth_or_width(shape, tied, target - 1)
    return deep + 1, wide + 8


def _any_width(shape, tied, target):
    """Return the largest width that fits, a multiple of 8 or not."""
    wide = _depth_or_width(shape, tied, target)[1]
    spare = target - _parameters((*shape[:2], wide, *shape[3:]), tied)
    return wide + spare // (3 * shape[1] * shape[-1])


def _in_one_layer(shape, tied, target):
    """Take out of one layer's neurons what has to go from all."""
    over = _parameters(shape, tied) - target
    return (shape[2] - -(-over // (3 * shape[1]))) // 8 * 8


DEPTH_OR_WIDTH_MISTAKES = {
    "order_swapped": _after(lambda deep, wide, layers, neurons: (wide, deep)),
    "what_goes": _after(lambda deep, wide, layers, neurons: (layers - deep, neurons - wide)),
    "next_above": _next_above,
    "strictly_below": lambda shape, tied, target: _depth_or_width(shape, tied, target - 1),
    "two_matrices": _solved(matrices=2),
    "table_forgotten": _solved(table=0),
    "always_tied": _solved(head=0),
    "never_tied": _solved(head=1),
    "norms_forgotten": _solved(norms=0, last=0),
    "one_norm_in_a_layer": _solved(norms=1),
    "last_norm_forgotten": _solved(last=0),
    "biases_counted": _solved(biases=1),
    "keys_of_full_width": _solved(square=4, pair=0),
    "one_of_keys_and_values": _solved(pair=1),
    "output_of_attention_forgotten": _solved(square=1),
    "any_width": but(_depth_or_width, 1, _any_width),
    "one_layers_neurons": but(_depth_or_width, 1, _in_one_layer),
}


DEPTH_OR_WIDTH = Exercise(
    "depth_or_width", _depth_or_width, _depth_or_width_cases, DEPTH_OR_WIDTH_MISTAKES
)


# --- worked out by hand, from the numbers of a variant ---


def _lost_with_a_neuron(without_neurons, inputs, neurons, outputs):
    block = torch.zeros(neurons, inputs), torch.zeros(neurons), torch.zeros(outputs, neurons)
    smaller = without_neurons(*block, torch.arange(neurons) > 0)
    return sum(a.numel() - b.numel() for a, b in zip(block, smaller, strict=True))


def _gate_by_hand(gate_scores, first, second, up, down):
    activations, gradients = torch.tensor([first, second]), torch.tensor([up, -down])
    return [
        float(gate_scores(*(part.float().view(*texts, 1) for part in (activations, gradients))))
        for texts in ((1, 2), (2, 1))
    ]


LOST_WITH_A_NEURON = ByHand(WITHOUT_NEURONS, _lost_with_a_neuron)
GATE = ByHand(GATE_SCORES, _gate_by_hand)
