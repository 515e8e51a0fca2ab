"""Checks of the exercises of chapter 11."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import nn

from lightcourse import lora, quantization
from lightcourse.checks.by_hand import ByHand
from lightcourse.checks.cases import but, dice, normal, until, whole
from lightcourse.checks.grading import Exercise, grade


def check_three_ledgers(three_ledgers) -> bool:
    """Check ``three_ledgers(layers, way, size, jobs, tokens)``: trained, stored and run."""
    return grade(three_ledgers, THREE_LEDGERS)


WAYS = ["LoRA", "DoRA", "IA3", "biases", "prompt"]


def _three_ledgers_cases(seed):
    roll = dice(seed)

    def case(way):
        sides = [roll.sample(range(9, 30), 3) for _ in range(3)]
        biased = roll.sample([True, True, False], 3)
        layers = [(m, n, each) for (m, n, _), each in zip(sides, biased, strict=True)]
        layers.append((layers[0][0], layers[0][1] + 1, True))
        return layers, way, roll.randint(2, 7), roll.randint(3, 12), roll.randint(5, 20)

    return [case(way) for way in WAYS for _ in range(2)]


def _three_ledgers(layers, way, size, jobs, tokens):
    """Make the layers and put the library's adapters around them, and ask them."""
    model = nn.Sequential(*(nn.Linear(n, m, bias=biased) for m, n, biased in layers))
    base = sum(p.numel() for p in model.parameters())
    change = {
        "LoRA": partial(lora.add_lora_, rank=size),
        "DoRA": partial(lora.add_dora_, rank=size),
        "IA3": partial(lora.add_ia3_, outputs=".*"),
        "biases": lora.train_biases_,
        "prompt": lambda model: model.requires_grad_(False),
    }
    change[way](model)
    found = lora.counts(model)
    if way == "prompt":
        prompt = np.zeros((size, layers[0][1]))
        return prompt.size, base + jobs * prompt.size, (len(prompt) + tokens) * found.run
    return found.trained, base + jobs * found.trained, tokens * found.run


@dataclass(frozen=True)
class _Sums:
    """What there is to count in layers."""

    layers: list
    size: int

    def over(self, count: Callable) -> int:
        """Return a sum over all layers, of ``count(outputs, inputs, biased)``."""
        return sum(count(*layer) for layer in self.layers)

    @property
    def matrices(self):
        return self.over(lambda m, n, biased: m * n)

    @property
    def biases(self):
        return self.over(lambda m, n, biased: m * biased)

    @property
    def rows(self):
        return self.over(lambda m, n, biased: m)

    @property
    def columns(self):
        return self.over(lambda m, n, biased: n)

    def own(self, way):
        """Return what a way trains."""
        thin = self.size * (self.rows + self.columns)
        right = [thin, thin + self.rows, self.rows, self.biases, self.size * self.layers[0][1]]
        return right[WAYS.index(way)]


def _book(
    trained=lambda sums, way: sums.own(way),
    stored=lambda sums, own, jobs: sums.matrices + sums.biases + jobs * own,
    more=lambda sums, way, own: own if way in WAYS[:3] else 0,
    places=lambda way, size, tokens: tokens + size * (way == "prompt"),
    run=lambda sums, places, more, tokens: places * (sums.matrices + more),
):
    """Return the three ledgers with one thing about them changed."""

    def answer(layers, way, size, jobs, tokens):
        sums = _Sums(layers, size)
        own = trained(sums, way)
        found = run(sums, places(way, size, tokens), more(sums, way, own), tokens)
        return own, stored(sums, own, jobs), found

    return answer


def _trains(ways, count):
    """Return ledgers in which some ways train another number."""
    return _book(trained=lambda sums, way: count(sums) if way in ways else sums.own(way))


def _runs(way, count):
    """Return ledgers in which one way multiplies by another number besides the matrices."""

    def more(sums, other, own):
        return count(sums) if other == way else own if other in WAYS[:3] else 0

    return _book(more=more)


THREE_LEDGERS_MISTAKES = {
    "product_of_sides": _trains(["LoRA"], lambda s: s.size * s.matrices),
    "whole_update": _trains(["LoRA"], lambda s: s.matrices),
    "a_alone": _trains(["LoRA"], lambda s: s.size * s.columns),
    "b_alone": _trains(["LoRA"], lambda s: s.size * s.rows),
    "size_forgotten": _trains(["LoRA"], lambda s: s.rows + s.columns),
    "no_lengths": _trains(["DoRA"], lambda s: s.own("LoRA")),
    "lengths_of_columns": _trains(["DoRA"], lambda s: s.own("LoRA") + s.columns),
    "one_length": _trains(["DoRA"], lambda s: s.own("LoRA") + len(s.layers)),
    "lengths_of_factors": _trains(["DoRA"], lambda s: s.own("LoRA") + s.size * len(s.layers)),
    "stretch_is_free": _runs("DoRA", lambda s: s.own("LoRA")),
    "sums_the_matrix": _runs("DoRA", lambda s: s.own("DoRA") + s.matrices),
    "ia3_of_inputs": _trains(["IA3"], lambda s: s.columns),
    "ia3_on_both_sides": _trains(["IA3"], lambda s: s.rows + s.columns),
    "ia3_one_number": _trains(["IA3"], lambda s: len(s.layers)),
    "ia3_is_free": _runs("IA3", lambda s: 0),
    "biases_everywhere": _trains(["biases"], lambda s: s.rows),
    "biases_one_number": _trains(["biases"], lambda s: s.over(lambda m, n, biased: biased)),
    "biases_multiply": _runs("biases", lambda s: s.biases),
    "prompt_in_vectors": _trains(["prompt"], lambda s: s.size),
    "prompt_in_each_layer": _trains(["prompt"], lambda s: s.size * s.columns),
    "prompt_as_outputs": _trains(["prompt"], lambda s: s.size * s.layers[0][0]),
    "prompt_of_the_last": _trains(["prompt"], lambda s: s.size * s.layers[-1][1]),
    "all_alike": _book(more=lambda sums, way, own: own, places=lambda way, size, tokens: tokens),
    "prompt_is_free": _book(places=lambda way, size, tokens: tokens),
    "prompt_for_each_token": _book(
        places=lambda way, size, tokens: tokens * (1 + size * (way == "prompt"))
    ),
    "prompt_alone": _book(places=lambda way, size, tokens: size if way == "prompt" else tokens),
    "prompt_in_place_of_text": _runs("prompt", lambda s: s.own("prompt")),
    "all_trained": _book(trained=lambda s, way: s.own(way) + s.matrices + s.biases),
    "base_for_each_job": _book(stored=lambda s, own, jobs: jobs * (s.matrices + s.biases + own)),
    "base_not_stored": _book(stored=lambda s, own, jobs: jobs * own),
    "one_job": _book(stored=lambda s, own, jobs: s.matrices + s.biases + own),
    "base_without_biases": _book(stored=lambda s, own, jobs: s.matrices + jobs * own),
    "one_base_more": _book(stored=lambda s, own, jobs: s.matrices + s.biases + (jobs - 1) * own),
    "stored_once_merged": _book(stored=lambda s, own, jobs: jobs * (s.matrices + s.biases)),
    "runs_merged": _book(more=lambda s, way, own: 0),
    "runs_without_base": _book(run=lambda s, places, more, tokens: places * more),
    "runs_one_token": _book(
        places=lambda way, size, tokens: 1 + size * (way == "prompt"),
    ),
    "adapter_runs_once": _book(run=lambda s, places, more, tokens: places * s.matrices + more),
    "biases_run": _book(
        run=lambda s, places, more, tokens: places * (s.matrices + s.biases + more)
    ),
    "run_for_all_jobs": lambda layers, way, size, jobs, tokens: (
        *_three_ledgers(layers, way, size, jobs, tokens)[:2],
        jobs * _three_ledgers(layers, way, size, jobs, tokens)[2],
    ),
    "in_bytes": lambda *case: tuple(4 * entry for entry in _three_ledgers(*case)),
    "order_swapped": lambda *case: tuple(_three_ledgers(*case)[place] for place in (0, 2, 1)),
}


THREE_LEDGERS = Exercise(
    "three_ledgers", _three_ledgers, _three_ledgers_cases, THREE_LEDGERS_MISTAKES
)


def check_dora(dora) -> bool:
    """Check ``dora(x, layer, adapter)``: turned rows of trained lengths."""
    return grade(dora, DORA)


def _dora_cases(seed):
    roll = dice(seed)

    def case(tokens, inputs, outputs, rank, size):
        def draw(*shape):
            return normal(*shape, seed=roll.randrange(2**31))

        weight, a, b = size * draw(outputs, inputs), draw(rank, inputs), size * draw(outputs, rank)
        place = roll.randrange(outputs)
        weight[place], b[place] = 0, 0  # a row without a direction
        weight[place - 1] *= 0.1 / (size * inputs**0.5)  # and a short one
        b[place - 1] = 0
        magnitude = draw(outputs).abs() + 0.3
        adapter = a, b, magnitude, roll.uniform(1.2, 7.7)
        return draw(tokens, inputs), (weight, draw(outputs)), adapter

    return [case(4, 6, 5, 2, 1.0), case(3, 7, 4, 3, 2.0), case(5, 5, 5, 4, 0.5)]


def _dora(x, layer, adapter):
    """Ask the library's layer, which never makes the matrix on its way."""
    weight, bias = layer
    a, b, magnitude, alpha = adapter
    linear = nn.Linear(*reversed(weight.shape))
    linear.weight.data, linear.bias.data = weight.clone(), bias.clone()
    made = lora.DoRALinear(linear, rank=len(a), alpha=alpha)
    made.lora_a.data, made.lora_b.data, made.lora_magnitude.data = a, b, magnitude
    with torch.no_grad():
        return made(x), made.new_weight(weight)


def _lengths(matrix):
    return matrix.norm(dim=1, keepdim=True)


def _over(matrix, length):
    return matrix / torch.where(length == 0, 1.0, length)


def _made_dora(
    scaling=lambda alpha, rank: alpha / rank,
    update=lambda a, b: b @ a,
    joined=lambda weight, delta: weight + delta,
    length=lambda turned, weight, delta: _lengths(turned),
    matrix=lambda turned, length, m, weight, delta: m * _over(turned, length),
    output=lambda x, matrix, bias, m: x @ matrix.T + bias,
):
    """Return DoRA's output and matrix with one thing about them changed."""

    def answer(x, layer, adapter):
        (weight, bias), (a, b, magnitude, alpha) = layer, adapter
        m, delta = magnitude[:, None], scaling(alpha, len(a)) * update(a, b)
        turned = joined(weight, delta)
        made = matrix(turned, length(turned, weight, delta), m, weight, delta)
        return output(x, made, bias, magnitude), made

    return answer


def _stretched(function):
    return _made_dora(matrix=function)


def _measured(function):
    return _made_dora(length=function)


def _directions(matrix):
    return _over(matrix, _lengths(matrix))


DORA_MISTAKES = {
    "plain_lora": _stretched(lambda turned, length, m, weight, delta: turned),
    "base_alone": _stretched(lambda turned, length, m, weight, delta: weight),
    "update_ignored": _stretched(lambda turned, length, m, weight, delta: m * _directions(weight)),
    "length_of_the_base": _measured(lambda turned, weight, delta: _lengths(weight)),
    "length_of_the_update": _measured(lambda turned, weight, delta: _lengths(delta)),
    "length_of_columns": _measured(lambda turned, *_: turned.norm(dim=0, keepdim=True)),
    "length_of_all": _measured(lambda turned, *_: turned.norm()),
    "length_squared": _measured(lambda turned, *_: turned.square().sum(1, keepdim=True)),
    "root_mean_square": _measured(lambda turned, *_: turned.square().mean(1, keepdim=True).sqrt()),
    "sum_of_sizes": _measured(lambda turned, *_: turned.abs().sum(1, keepdim=True)),
    "largest_as_length": _measured(lambda turned, *_: turned.abs().amax(1, keepdim=True)),
    "sum_as_length": _measured(lambda turned, *_: turned.sum(1, keepdim=True)),
    "divides_by_nothing": _stretched(lambda turned, length, m, *_: m * turned / length),
    "epsilon_in_the_length": _stretched(lambda turned, length, m, *_: m * turned / (length + 0.1)),
    "length_kept": _stretched(lambda turned, length, m, *_: m * turned),
    "magnitude_ignored": _stretched(lambda turned, length, *_: _over(turned, length)),
    "magnitude_of_the_base": _stretched(
        lambda turned, length, m, weight, delta: _lengths(weight) * _over(turned, length)
    ),
    "magnitude_added": _stretched(lambda turned, length, m, *_: m + _over(turned, length)),
    "magnitude_divides": _stretched(lambda turned, length, m, *_: _over(turned, length) / m),
    "length_plus_magnitude": _stretched(
        lambda turned, length, m, *_: (length + m) * _over(turned, length)
    ),
    "update_after": _stretched(
        lambda turned, length, m, weight, delta: m * _directions(weight) + delta
    ),
    "update_added_to_direction": _stretched(
        lambda turned, length, m, weight, delta: m * (_directions(weight) + delta)
    ),
    "base_not_turned": _stretched(
        lambda turned, length, m, weight, delta: weight + m * _directions(delta)
    ),
    "two_directions": _stretched(
        lambda turned, length, m, weight, delta: m * (_directions(weight) + _directions(delta))
    ),
    "scaling_forgotten": _made_dora(scaling=lambda alpha, rank: 1.0),
    "alpha_whole": _made_dora(scaling=lambda alpha, rank: alpha),
    "rank_alone": _made_dora(scaling=lambda alpha, rank: 1 / rank),
    "scaling_multiplied": _made_dora(scaling=lambda alpha, rank: alpha * rank),
    "scaling_upside_down": _made_dora(scaling=lambda alpha, rank: rank / alpha),
    "root_of_rank": _made_dora(scaling=lambda alpha, rank: alpha / rank**0.5),
    "update_subtracted": _made_dora(joined=lambda weight, delta: weight - delta),
    "bias_forgotten": but(_dora, 0, lambda *case: _dora(*case)[0] - case[1][1]),
    "bias_stretched": _made_dora(output=lambda x, matrix, bias, m: x @ matrix.T + m * bias),
    "bias_subtracted": _made_dora(output=lambda x, matrix, bias, m: x @ matrix.T - bias),
    "output_stretched": _made_dora(output=lambda x, matrix, bias, m: (x @ matrix.T) * m + bias),
    "output_of_the_base": but(_dora, 0, lambda x, layer, adapter: nn.functional.linear(x, *layer)),
    "order_swapped": lambda *case: _dora(*case)[::-1],
}


DORA = Exercise("dora", _dora, _dora_cases, DORA_MISTAKES)


def check_merged_on_the_grid(merged_on_the_grid) -> bool:
    """Check ``merged_on_the_grid(q, scale, update, bits)``: integers, and what they lose."""
    return grade(merged_on_the_grid, MERGED_ON_THE_GRID)


def _merged_on_the_grid_cases(seed):
    roll = dice(seed)

    def draw(rows, columns, bits, strength, size=1.0):
        low, high = quantization.quant_range(bits)
        seeds = [roll.randrange(2**31) for _ in range(2)]
        q = whole(low, high + 1, rows, columns, seed=seeds[0]).to(torch.int8)
        # Above 1 and below: a scale that is left out shows either way.
        ends = [(1.5, 3.0), (0.05, 0.3)]
        scale = size * torch.tensor([[roll.uniform(*ends[row % 2])] for row in range(rows)])
        steps = strength * normal(rows, columns, seed=seeds[1])
        # Beyond both ends, at the lowest integer, two steps at once, and across 0.
        q[:2, :2] = torch.tensor([[high, low], [low, 1]])
        steps[:2, :2] = torch.tensor([[1.7, -2.2], [0.2, 1.8]])
        q[1, 2:4], steps[1, 2:4] = torch.tensor([-1, 2]), torch.tensor([0.7, 0.9])
        steps[-1] = 0.2 * steps[-1].tanh()  # a row in which nothing moves
        return q, scale, steps * scale, bits

    def clear(case):
        steps = case[2] / case[1] % 1
        return bool(((steps - 0.5).abs() > 0.02).all() and ((steps - 0.5).abs() < 0.49).all())

    sizes = [(4, 6, 4, 0.8), (3, 8, 3, 0.4), (5, 7, 8, 1.5, 0.02)]
    q, _, update, bits = until(clear, partial(draw, 3, 5, 4, 0.3))
    # Powers of two, so that integers come back whole, however they are rounded.
    nothing = q, torch.tensor([[0.5], [0.125], [2.0]]), 0 * update, bits
    return [*(until(clear, partial(draw, *size)) for size in sizes), nothing]


def _merged_on_the_grid(q, scale, update, bits):
    """Put each wanted number, in 64-bit floats, onto the nearest of all levels there are."""
    low, high = quantization.quant_range(bits)
    width, old = scale.double().numpy(), q.numpy().astype(float)
    change = update.double().numpy()
    levels = np.arange(low, high + 1)
    new = levels[np.abs((old + change / width)[..., None] - levels).argmin(-1)]
    rest = np.linalg.norm((new - old) * width - change)
    drift = rest / np.linalg.norm(change) if change.any() else 0.0
    moved = np.count_nonzero(new - old) / old.size
    return torch.tensor(new, dtype=torch.int8), moved, drift


def _onto(
    wanted=lambda q, scale, update: q * scale + update,
    integers=lambda wanted, scale, q: (wanted / scale).round(),
    clamped=lambda new, bits: new.clamp(*quantization.quant_range(bits)),
    moved=lambda new, q, wanted, scale: (new != q).float().mean(),
    drift=lambda new, q, scale, update, wanted: (new * scale - wanted).norm() / update.norm(),
    nothing=0.0,
):
    """Return a merge with one thing about it changed."""

    def answer(q, scale, update, bits):
        target = wanted(q, scale, update)
        new = clamped(integers(target, scale, q), bits)
        found = drift(new, q, scale, update, target) if update.any() else torch.tensor(nothing)
        return new, moved(new, q, target, scale), found

    return answer


def _drift(function):
    return _onto(drift=function)


def _moved(function):
    return _onto(moved=function)


def _largest_fits(wanted, bits):
    scale = wanted.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    return torch.where(scale > 0, scale, 1.0)


def _new_grid(q, scale, update, bits):
    """Merge onto a grid of its own, on which the largest weight just fits."""
    wanted = q * scale + update
    new_scale = _largest_fits(wanted, bits)
    new = (wanted / new_scale).round()
    moved, rest = (new != q).float().mean(), (new * new_scale - wanted).norm()
    return new, moved, rest / update.norm() if update.any() else torch.tensor(0.0)


MERGED_ON_THE_GRID_MISTAKES = {
    "never_clamped": _onto(clamped=lambda new, bits: new),
    "wraps_round": _onto(clamped=lambda new, bits: new.to(torch.int8)),
    "clamped_too_late": _onto(
        clamped=lambda new, bits: new.to(torch.int8).clamp(*quantization.quant_range(bits))
    ),
    "not_merged": _onto(integers=lambda wanted, scale, q: q.float()),
    "update_alone": _onto(wanted=lambda q, scale, update: update),
    "new_grid": _new_grid,
    "scale_forgotten": _onto(integers=lambda wanted, scale, q: wanted.round()),
    "update_in_integers": _onto(integers=lambda wanted, scale, q: (q + wanted - q * scale).round()),
    "update_in_steps_twice": _onto(
        integers=lambda wanted, scale, q: (q + (wanted - q * scale) * scale).round()
    ),
    "update_subtracted": _onto(wanted=lambda q, scale, update: q * scale - update),
    "floors": _onto(integers=lambda wanted, scale, q: (wanted / scale).floor()),
    "ceils": _onto(integers=lambda wanted, scale, q: (wanted / scale).ceil()),
    "truncates": _onto(integers=lambda wanted, scale, q: (wanted / scale).trunc()),
    "update_truncated": _onto(
        integers=lambda wanted, scale, q: q + ((wanted - q * scale) / scale).trunc()
    ),
    "ends_are_opposites": _onto(
        clamped=lambda new, bits: new.clamp(1 - 2 ** (bits - 1), 2 ** (bits - 1) - 1)
    ),
    "one_level_more": _onto(
        clamped=lambda new, bits: new.clamp(-(2 ** (bits - 1)), 2 ** (bits - 1))
    ),
    "always_4_bits": lambda q, scale, update, bits: _onto(
        clamped=lambda new, bits: new.clamp(-8, 7)
    )(q, scale, update, bits),
    "floats": but(_merged_on_the_grid, 0, lambda q, scale, update, bits: q + update / scale),
    "values": but(_merged_on_the_grid, 0, lambda *case: _merged_on_the_grid(*case)[0] * case[1]),
    "change_alone": but(
        _merged_on_the_grid, 0, lambda *case: _merged_on_the_grid(*case)[0] - case[0]
    ),
    "moved_counted": _moved(lambda new, q, *_: (new != q).sum()),
    "stayed": _moved(lambda new, q, *_: (new == q).float().mean()),
    "moved_in_percent": _moved(lambda new, q, *_: 100 * (new != q).float().mean()),
    "moved_in_floats": _moved(lambda new, q, wanted, scale: (wanted != q * scale).float().mean()),
    "mean_of_steps": _moved(lambda new, q, *_: (new - q).abs().mean()),
    "rows_that_moved": _moved(lambda new, q, *_: (new != q).any(1).float().mean()),
    "share_of_nonzero": _moved(lambda new, q, *_: (new != q).sum() / (q != 0).sum()),
    "drift_of_the_base": _drift(
        lambda new, q, scale, update, wanted: (new * scale - q * scale).norm() / update.norm()
    ),
    "drift_of_the_weight": _drift(
        lambda new, q, scale, update, wanted: (new * scale - wanted).norm() / (q * scale).norm()
    ),
    "drift_of_the_wanted": _drift(
        lambda new, q, scale, update, wanted: (new * scale - wanted).norm() / wanted.norm()
    ),
    "drift_not_divided": _drift(
        lambda new, q, scale, update, wanted: (new * scale - wanted).norm()
    ),
    "drift_of_rounding": _drift(
        lambda new, q, scale, update, wanted: (wanted - q * scale).norm() / update.norm()
    ),
    "drift_squared": _drift(
        lambda new, q, scale, update, wanted: (
            (new * scale - wanted).square().sum() / update.square().sum()
        )
    ),
    "drift_of_sizes": _drift(
        lambda new, q, scale, update, wanted: (
            (new * scale - wanted).abs().sum() / update.abs().sum()
        )
    ),
    "drift_in_steps": _drift(
        lambda new, q, scale, update, wanted: (
            (new - wanted / scale).norm() / (update / scale).norm()
        )
    ),
    "drift_mixes_units": _drift(
        lambda new, q, scale, update, wanted: (new - wanted / scale).norm() / update.norm()
    ),
    "drift_upside_down": _drift(
        lambda new, q, scale, update, wanted: update.norm() / (new * scale - wanted).norm()
    ),
    "what_survives": _onto(
        drift=lambda new, q, scale, update, wanted: (
            1 - (new * scale - wanted).norm() / update.norm()
        ),
        nothing=1.0,
    ),
    "mean_of_rows": _drift(
        lambda new, q, scale, update, wanted: (
            (new * scale - wanted).norm(dim=1) / update.norm(dim=1)
        ).mean()
    ),
    "divides_by_nothing": _onto(nothing=torch.nan),
    "nothing_is_all": _onto(nothing=1.0),
    "order_swapped": lambda *case: tuple(_merged_on_the_grid(*case)[place] for place in (0, 2, 1)),
}


MERGED_ON_THE_GRID = Exercise(
    "merged_on_the_grid",
    _merged_on_the_grid,
    _merged_on_the_grid_cases,
    MERGED_ON_THE_GRID_MISTAKES,
)


def check_ia3_in_integers(ia3_in_integers) -> bool:
    """Check ``ia3_in_integers(gate, up, down, vector)``: a merge that rounds nothing."""
    return grade(ia3_in_integers, IA3_IN_INTEGERS)


def _ia3_in_integers_cases(seed):
    roll = dice(seed)

    def layer(outputs, inputs, groups):
        seeds = [roll.randrange(2**31) for _ in range(3)]
        q = whole(-8, 8, outputs, inputs, seed=seeds[0]).to(torch.int8)
        scale = 0.02 + 0.1 * normal(outputs, groups, seed=seeds[1]).abs()
        return q, scale, normal(outputs, seed=seeds[2])

    def case(width, hidden, groups):
        vector = torch.tensor([roll.uniform(0.3, 1.9) for _ in range(hidden)])
        gate, up = (layer(hidden, width, groups) for _ in range(2))
        return gate, up, layer(width, hidden, groups), vector

    # Square, so that a vector on the wrong side can be named.
    return [case(6, 6, 1), case(8, 8, 2), case(4, 4, 4)]


def _read(q, scale):
    groups = q.double().unflatten(1, (scale.shape[1], -1))
    return (groups * scale.double()[..., None]).flatten(1)


def _ia3_in_integers(gate, up, down, vector):
    """Multiply what up answers in floats, and find by least squares the scales that do the same."""
    q, scale, bias = up
    rows = torch.diag(vector.double()) @ _read(q, scale)
    groups, target = (part.unflatten(1, (scale.shape[1], -1)) for part in (q.double(), rows))
    found = (groups * target).sum(-1) / groups.square().sum(-1).clamp_min(1)
    found = torch.where(groups.any(-1), found, vector.double()[:, None] * scale)
    shifted = torch.diag(vector.double()) @ bias.double()
    return gate, (q, found.float(), shifted.float()), down


def _with(scales=None, biases=None, integers=None):
    """Return a merge that changes parts of the layers (gate, up, down) by other numbers."""
    scales, biases, integers = scales or {}, biases or {}, integers or {}

    def answer(gate, up, down, vector):
        made = []
        for name, (q, scale, bias) in zip(("gate", "up", "down"), (gate, up, down), strict=True):
            q = integers[name](q, vector) if name in integers else q
            scale = scales[name](scale, vector) if name in scales else scale
            bias = biases[name](bias, vector) if name in biases else bias
            made.append((q, scale, bias))
        return tuple(made)

    return answer


def _rows(scale, vector):
    return scale * vector[:, None]


def _entries(bias, vector):
    return bias * vector


def _up(scale=_rows, bias=_entries):
    return _with({"up": scale}, {"up": bias})


IA3_IN_INTEGERS_MISTAKES = {
    "nothing_merged": _with(),
    "bias_forgotten": _with({"up": _rows}),
    "scale_forgotten": _with({}, {"up": _entries}),
    "in_the_gate": _with({"gate": _rows}, {"gate": _entries}),
    "scale_of_the_gate": _with({"gate": _rows}),
    "gate_as_well": _with({"gate": _rows, "up": _rows}, {"gate": _entries, "up": _entries}),
    "gate_scale_as_well": _with({"gate": _rows, "up": _rows}),
    "roots_in_both": _with(
        dict.fromkeys(("gate", "up"), lambda scale, vector: scale * vector[:, None].sqrt()),
        dict.fromkeys(("gate", "up"), lambda bias, vector: bias * vector.sqrt()),
    ),
    "rows_of_down": _with({"down": _rows}),
    "outputs_of_down": _with({"down": _rows}, {"down": _entries}),
    "bias_of_down": _with({"up": _rows}, {"up": _entries, "down": _entries}),
    "up_and_down": _with({"up": _rows, "down": _rows}, {"up": _entries, "down": _entries}),
    "columns_of_down": _with(integers={"down": lambda q, vector: q * vector}),
    "columns_of_down_rounded": _with(integers={"down": lambda q, vector: (q * vector).round()}),
    "integers_of_up": _with(
        biases={"up": _entries}, integers={"up": lambda q, vector: q * vector[:, None]}
    ),
    "integers_of_up_rounded": _with(
        biases={"up": _entries}, integers={"up": lambda q, vector: (q * vector[:, None]).round()}
    ),
    "integers_and_scale": _with(
        {"up": _rows}, {"up": _entries}, {"up": lambda q, vector: (q * vector[:, None]).round()}
    ),
    "columns_of_up": _with(integers={"up": lambda q, vector: q * vector}),
    "divided": _up(
        lambda scale, vector: scale / vector[:, None], lambda bias, vector: bias / vector
    ),
    "scale_divided": _up(lambda scale, vector: scale / vector[:, None]),
    "bias_divided": _up(bias=lambda bias, vector: bias / vector),
    "added": _up(lambda scale, vector: scale + vector[:, None], lambda bias, vector: bias + vector),
    "squared": _up(
        lambda scale, vector: scale * vector[:, None] ** 2, lambda bias, vector: bias * vector**2
    ),
    "mean_of_the_vector": _up(
        lambda scale, vector: scale * vector.mean(), lambda bias, vector: bias * vector.mean()
    ),
    "mean_for_the_scale": _up(lambda scale, vector: scale * vector.mean()),
    "vector_as_scale": _up(lambda scale, vector: vector[:, None].expand(scale.shape)),
    "change_alone": _up(
        lambda scale, vector: scale * (vector[:, None] - 1),
        lambda bias, vector: bias * (vector - 1),
    ),
    "difference_from_one": _up(
        lambda scale, vector: scale * (1 + vector[:, None]),
        lambda bias, vector: bias * (1 + vector),
    ),
    "order_swapped": lambda *case: tuple(_ia3_in_integers(*case)[place] for place in (1, 0, 2)),
}


IA3_IN_INTEGERS = Exercise(
    "ia3_in_integers", _ia3_in_integers, _ia3_in_integers_cases, IA3_IN_INTEGERS_MISTAKES
)


def check_serve_rows(serve_rows) -> bool:
    """Check ``serve_rows(x, weight, adapters, names)``: each row by its own adapter."""
    return grade(serve_rows, SERVE_ROWS)


def _serve_rows_cases(seed):
    roll = dice(seed)

    def draw(*shape):
        return normal(*shape, seed=roll.randrange(2**31))

    def case(names, tokens, inputs, outputs):
        ranks = roll.sample(range(1, 5), 3)
        adapters = [
            (name, draw(rank, inputs), draw(outputs, rank), roll.uniform(0.5, 4.0))
            for name, rank in zip(roll.sample("abc", 3), ranks, strict=True)
        ]
        return draw(len(names), tokens, inputs), draw(outputs, inputs), adapters, names

    c, b, a = roll.sample("abc", 3)
    return [
        case([c, a, "base", c, b, "base"], 3, 6, 5),
        case(["base", b, b, "base", a], 4, 5, 7),
        case([a, b, c], 2, 6, 6),
        case(["base", "base"], 3, 4, 5),
        case([c, "base", c, a, a, c, b], 1, 5, 4),
        _one_is_huge(*case(["base", a, c, "base", b, c], 3, 6, 6), c),
    ]


def _one_is_huge(x, weight, adapters, names, huge):
    """Make one adapter's update so large that what is added to it loses its last digits."""
    much = 2.0**17  # exact, in whatever order it is multiplied
    x[[place for place, name in enumerate(names) if name == huge]] /= much
    adapters = [
        (name, a, b, len(a) * much if name == huge else alpha) for name, a, b, alpha in adapters
    ]
    return x, weight, adapters, names


def _serve_rows(x, weight, adapters, names):
    """Give each row a matrix of its own, made of its adapter and no other."""
    found = {"base": torch.zeros_like(weight)}
    for name, a, b, alpha in adapters:
        layer = nn.Linear(*reversed(weight.shape), bias=False)
        layer = lora.LoRALinear(layer, rank=len(a), alpha=alpha)
        layer.lora_a.data, layer.lora_b.data = a, b
        found[name] = layer.delta().detach()
    matrices = torch.stack([weight + found[name] for name in names])
    return torch.einsum("bti,boi->bto", x, matrices)


def _plain_change(x, a, b, scaling):
    return scaling * x @ a.T @ b.T


def _served(
    chosen=lambda place, names, adapters: [names[place]],
    scaling=lambda alpha, rank, adapters: alpha / rank,
    change=_plain_change,
    joined=lambda base, changes: base + sum(changes),
    order=lambda y, names: y,
):
    """Return answers with one thing about them changed; ``chosen`` names a row's adapters."""

    def answer(x, weight, adapters, names):
        known = {name: (a, b, scaling(alpha, len(a), adapters)) for name, a, b, alpha in adapters}
        y = []
        for place, row in enumerate(x):
            used = [name for name in chosen(place, names, adapters) if name in known]
            y.append(joined(row @ weight.T, [change(row, *known[name]) for name in used]))
        return order(torch.stack(y), names)

    return answer


def _all_names(adapters):
    return [each[0] for each in adapters]


def _last_named(place, names, adapters):
    """Return the adapter that was in use when a row came that asks for none."""
    named = [name for name in names[: place + 1] if name != "base"]
    return named[-1:]


def _mean_of_batch(x, weight, adapters, names):
    """Serve all rows by the mean of what they ask for."""
    parts = [_serve_rows(x, weight, adapters, [name] * len(names)) for name in names]
    return torch.stack(parts).mean(0)


def _by_groups(y, names):
    """Leave the rows in the order of their adapters."""
    return y[sorted(range(len(names)), key=lambda place: names[place])]


def _first_text(x, weight, adapters, names):
    """Serve all rows of an adapter by what its first row gives."""
    y = _serve_rows(x, weight, adapters, names)
    update = y - x @ weight.T
    return x @ weight.T + torch.stack([update[names.index(name)] for name in names])


def _merging_server(order):
    """Return answers of one matrix into which updates are added, and subtracted afterwards."""

    def answer(x, weight, adapters, names):
        known = {name: alpha / len(a) * b @ a for name, a, b, alpha in adapters}
        matrix, y = weight.clone(), x @ weight.T
        for place in order(names, adapters):
            update = known.get(names[place], 0)
            matrix += update
            y[place] = x[place] @ matrix.T
            matrix -= update
        return y

    return answer


def _adapter_by_adapter(names, adapters):
    """Return the places of rows with an adapter, and then those of the others."""
    known = [*_all_names(adapters), "base"]
    return sorted(range(len(names)), key=lambda place: known.index(names[place]))


SERVE_ROWS_MISTAKES = {
    "base_for_all": _served(lambda place, names, adapters: []),
    "first_for_all": _served(lambda place, names, adapters: names[:1]),
    "last_for_all": _served(lambda place, names, adapters: names[-1:]),
    "first_adapter_for_all": _served(lambda place, names, adapters: _all_names(adapters)[:1]),
    "last_adapter_for_all": _served(lambda place, names, adapters: _all_names(adapters)[-1:]),
    "all_for_all": _served(lambda place, names, adapters: _all_names(adapters)),
    "all_that_are_asked": _served(lambda place, names, adapters: sorted(set(names))),
    "mean_of_the_batch": _mean_of_batch,
    "never_taken_out": _served(lambda place, names, adapters: names[: place + 1]),
    "never_switched_off": _served(
        lambda place, names, adapters: sorted(set(names[: place + 1])),
    ),
    "taken_out_by_subtraction": _merging_server(lambda names, adapters: range(len(names))),
    "subtracted_after_its_rows": _merging_server(_adapter_by_adapter),
    "base_keeps_the_last": _served(_last_named),
    "base_gets_the_first": _served(
        lambda place, names, adapters: [
            _all_names(adapters)[0] if names[place] == "base" else names[place]
        ]
    ),
    "base_gets_the_last": _served(
        lambda place, names, adapters: [
            _all_names(adapters)[-1] if names[place] == "base" else names[place]
        ]
    ),
    "switched_a_row_late": _served(
        lambda place, names, adapters: names[max(place - 1, 0) :][:1] if place else []
    ),
    "switched_a_row_early": _served(lambda place, names, adapters: names[place + 1 :][:1]),
    "by_place": _served(
        lambda place, names, adapters: [_all_names(adapters)[place % len(adapters)]]
    ),
    "names_backwards": _served(lambda place, names, adapters: [names[-1 - place]]),
    "by_order_of_asking": _served(
        lambda place, names, adapters: (
            [
                _all_names(adapters)[
                    [n for n in dict.fromkeys(names) if n != "base"].index(names[place])
                ]
            ]
            if names[place] != "base"
            else []
        )
    ),
    "all_others": _served(
        lambda place, names, adapters: [n for n in _all_names(adapters) if n != names[place]]
    ),
    "left_in_groups": _served(order=_by_groups),
    "one_text_for_an_adapter": _first_text,
    "scaling_forgotten": _served(scaling=lambda alpha, rank, adapters: 1.0),
    "alpha_whole": _served(scaling=lambda alpha, rank, adapters: alpha),
    "rank_alone": _served(scaling=lambda alpha, rank, adapters: 1 / rank),
    "scaling_multiplied": _served(scaling=lambda alpha, rank, adapters: alpha * rank),
    "root_of_rank": _served(scaling=lambda alpha, rank, adapters: alpha / rank**0.5),
    "rank_of_the_first": _served(scaling=lambda alpha, rank, adapters: alpha / len(adapters[0][1])),
    "alpha_of_the_first": _served(scaling=lambda alpha, rank, adapters: adapters[0][3] / rank),
    "scaling_of_the_first": _served(
        scaling=lambda alpha, rank, adapters: adapters[0][3] / len(adapters[0][1])
    ),
    "scaling_of_the_last": _served(
        scaling=lambda alpha, rank, adapters: adapters[-1][3] / len(adapters[-1][1])
    ),
    "update_subtracted": _served(joined=lambda base, changes: base - sum(changes)),
    "update_alone": _served(joined=lambda base, changes: sum(changes, 0 * base)),
    "update_in_place_of_base": _served(
        joined=lambda base, changes: sum(changes) if changes else base
    ),
    "base_twice": _served(joined=lambda base, changes: 2 * base + sum(changes)),
    "first_token_alone": _served(
        change=lambda x, a, b, scaling: (
            _plain_change(x, a, b, scaling) * (torch.arange(len(x)) == 0)[:, None]
        )
    ),
    "last_token_alone": _served(
        change=lambda x, a, b, scaling: (
            _plain_change(x, a, b, scaling) * (torch.arange(len(x)) == len(x) - 1)[:, None]
        )
    ),
    "mean_of_tokens": _served(
        change=lambda x, a, b, scaling: _plain_change(x.mean(0, keepdim=True), a, b, scaling)
    ),
}


SERVE_ROWS = Exercise("serve_rows", _serve_rows, _serve_rows_cases, SERVE_ROWS_MISTAKES)


# What is worked out by hand, from the numbers of a variant
LORA_LEDGERS = ByHand(
    THREE_LEDGERS,
    lambda three_ledgers, width, rank, tokens: three_ledgers(
        [(width, width, True)], "LoRA", rank, 1, tokens
    ),
)
