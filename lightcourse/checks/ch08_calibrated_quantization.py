"""Checks of the exercises of chapter 08."""

from functools import partial

import torch
from torch import nn

from lightcourse import quantization, surgery
from lightcourse.checks.by_hand import ByHand
from lightcourse.checks.cases import but, dice, normal, until, whole
from lightcourse.checks.grading import Exercise, grade


def check_settle_column(settle_column) -> bool:
    """Check ``settle_column(weight, inverse, scale)``: one step of GPTQ."""
    return grade(settle_column, SETTLE_COLUMN)


def _settle_column_cases(seed):
    roll = dice(seed)

    def draw(rows, columns):
        seeds = [roll.randrange(2**31) for _ in range(3)]
        x = normal(40, columns, seed=seeds[0]) @ (0.4 + normal(columns, columns, seed=seeds[1]))
        scale = torch.tensor([roll.uniform(0.3, 0.6) for _ in range(rows)])
        return normal(rows, columns, seed=seeds[2]), 10 * (x.T @ x / 40).inverse(), scale

    def clear(case):
        weight, inverse, scale = case
        parts = (weight / scale[:, None]).abs() % 1
        known = (parts[:, 0] > 0.55).any() and (parts[:, 0] < 0.45).any()
        return known and ((parts - 0.5).abs() > 0.01).all() and inverse.abs().max() < 1e3

    sizes = [(4, 5), (3, 3), (5, 8), (3, 1)]
    return [until(clear, partial(draw, *size)) for size in sizes]


def _settle_column(weight, inverse, scale):
    """Fix the first column, and find the others where the squared error has no slope."""
    hessian = inverse.double().inverse()
    first = quantization.fake_quantize(weight[:, 0], scale, torch.zeros(1), 8)
    error = (first - weight[:, 0]).double()
    others = torch.linalg.solve(hessian[1:, 1:], hessian[1:, :1])
    return torch.cat([first[:, None], weight[:, 1:] - (others * error).T.float()], 1)


def _nearest(values, scale):
    return (values / scale).round() * scale


def _settled(
    rounded=_nearest,
    kept=lambda first, scale: first,
    error=lambda rounded, first, scale: rounded - first,
    shares=lambda inverse: inverse[0, 1:] / inverse[0, 0],
    after=lambda rest, scale: rest,
):
    """Return one step with one thing about it changed."""

    def answer(weight, inverse, scale):
        first = rounded(weight[:, 0], scale)
        move = torch.outer(error(first, weight[:, 0], scale), shares(inverse))
        rest = after(weight[:, 1:] + move, scale)
        return torch.cat([kept(first, scale)[:, None], rest], 1)

    return answer


def _of_hessian(inverse):
    hessian = inverse.double().inverse().float()
    return hessian[0, 1:] / hessian[0, 0]


SETTLE_COLUMN_MISTAKES = {
    "nothing_moves": _settled(shares=lambda inverse: 0 * inverse[0, 1:]),
    "sign_turned": _settled(shares=lambda inverse: -inverse[0, 1:] / inverse[0, 0]),
    "weight_removed": _settled(error=lambda rounded, first, scale: -first),
    "rounded_value_given_away": _settled(error=lambda rounded, first, scale: rounded),
    "not_divided": _settled(shares=lambda inverse: inverse[0, 1:]),
    "own_diagonal": _settled(shares=lambda inverse: inverse[0, 1:] / inverse.diagonal()[1:]),
    "hessian_taken": _settled(shares=_of_hessian),
    "error_in_steps": _settled(error=lambda rounded, first, scale: (rounded - first) / scale),
    "integers": _settled(kept=lambda first, scale: first / scale),
    "scale_ignored": _settled(rounded=lambda first, scale: first.round()),
    "floors": _settled(rounded=lambda first, scale: (first / scale).floor() * scale),
    "truncates": _settled(rounded=lambda first, scale: (first / scale).trunc() * scale),
    "all_settled": _settled(after=lambda rest, scale: _nearest(rest, scale[:, None])),
    "all_nearest": lambda weight, inverse, scale: _nearest(weight, scale[:, None]),
    "shared_evenly": _settled(
        shares=lambda inverse: torch.full_like(inverse[0, 1:], -1 / max(len(inverse) - 1, 1))
    ),
    "first_left_out": lambda *case: _settle_column(*case)[:, 1:],
    "update_alone": lambda weight, *case: _settle_column(weight, *case) - weight,
}


SETTLE_COLUMN = Exercise(
    "settle_column", _settle_column, _settle_column_cases, SETTLE_COLUMN_MISTAKES
)


def check_smoothed(smoothed) -> bool:
    """Check ``smoothed(norm_weight, weight, largest, alpha)``: a norm and its reader."""
    return grade(smoothed, SMOOTHED)


def _smoothed_cases(seed):
    roll = dice(seed)

    def case(size, alpha):
        # Square, so that rows taken for columns raise no error and can be named.
        seeds = [roll.randrange(2**31) for _ in range(3)]
        weight = 0.3 * normal(size, size, seed=seeds[0])
        # The largest of a column are of both signs, so that it matters how size is measured.
        weight[roll.randrange(size), ::2] = -1.5
        weight[roll.randrange(size), 1::2] = 0.9
        norm_weight = 0.5 + normal(size, seed=seeds[1]).abs()
        largest = 0.2 + normal(size, seed=seeds[2]).square()
        largest[roll.randrange(size)] *= 30
        return norm_weight, weight, largest, alpha

    return [case(4, 0.25), case(5, 0.8), case(3, 0.6), case(6, roll.choice([0.1, 0.35, 0.9]))]


def _smoothed(norm_weight, weight, largest, alpha):
    """Go half of the way, or alpha, between two logarithms, and let the library rescale."""
    factors = torch.lerp(-weight.abs().max(0).values.log(), largest.log(), alpha).exp()
    norm, reader = nn.RMSNorm(len(largest)), nn.Linear(*weight.shape[::-1], bias=False)
    norm.weight.data, reader.weight.data = norm_weight.clone(), weight.clone()
    surgery.rescale_(nn.ModuleDict({"norm": norm, "reader": reader}), "norm", ("reader",), factors)
    return norm.weight.detach(), reader.weight.detach()


def _columns(weight):
    return weight.abs().amax(0)


def _by(factors):
    """Return what divides the norm and multiplies the columns by other factors."""

    def answer(norm_weight, weight, largest, alpha):
        s = factors(weight, largest, alpha)
        return norm_weight / s, weight * s

    return answer


def _with_size(size):
    return _by(lambda weight, largest, alpha: largest**alpha / size(weight) ** (1 - alpha))


def _turned_round(norm_weight, weight, largest, alpha):
    s = norm_weight / _smoothed(norm_weight, weight, largest, alpha)[0]
    return norm_weight * s, weight / s


def _rows_multiplied(norm_weight, weight, largest, alpha):
    s = norm_weight / _smoothed(norm_weight, weight, largest, alpha)[0]
    return weight * s[:, None]


def _norm_counted_twice(norm_weight, weight, largest, alpha):
    return _smoothed(norm_weight, weight, largest * norm_weight, alpha)


SMOOTHED_MISTAKES = {
    "turned_round": _turned_round,
    "norm_forgotten": but(_smoothed, 0, lambda norm, weight, largest, alpha: norm),
    "weight_forgotten": but(_smoothed, 1, lambda norm, weight, largest, alpha: weight),
    "rows_multiplied": but(_smoothed, 1, _rows_multiplied),
    "alpha_swapped": _by(
        lambda weight, largest, alpha: largest ** (1 - alpha) / _columns(weight) ** alpha
    ),
    "alpha_for_both": _by(lambda weight, largest, alpha: (largest / _columns(weight)) ** alpha),
    "weights_ignored": _by(lambda weight, largest, alpha: largest**alpha),
    "largest_ignored": _by(lambda weight, largest, alpha: 1 / _columns(weight) ** (1 - alpha)),
    "alpha_ignored": _by(lambda weight, largest, alpha: (largest / _columns(weight)).sqrt()),
    "multiplied_not_divided": _by(
        lambda weight, largest, alpha: largest**alpha * _columns(weight) ** (1 - alpha)
    ),
    "largest_of_rows": _with_size(lambda weight: weight.abs().amax(1)),
    "one_for_all_columns": _with_size(lambda weight: weight.abs().max()),
    "without_abs": _with_size(lambda weight: weight.amax(0)),
    "mean_size": _with_size(lambda weight: weight.abs().mean(0)),
    "norm_counted_twice": _norm_counted_twice,
    "order_swapped": lambda *case: _smoothed(*case)[::-1],
}


SMOOTHED = Exercise("smoothed", _smoothed, _smoothed_cases, SMOOTHED_MISTAKES)


def check_turned(turned) -> bool:
    """Check ``turned(writer, reader, rotation)``: a pair that does the same in other axes."""
    return grade(turned, TURNED)


def _turned_cases(seed):
    roll = dice(seed)

    def case(size):
        # Square, so that a turn of the wrong side raises no error and can be named.
        seeds = [roll.randrange(2**31) for _ in range(3)]
        rotation = quantization.random_rotation(size, seeds[2]).float()
        return normal(size, size, seed=seeds[0]), normal(size, size, seed=seeds[1]), rotation

    return [until(_lopsided, partial(case, size)) for size in (3, 5, 4, 6)]


def _lopsided(case):
    """Tell whether a rotation and its way back are two things."""
    return (case[2] - case[2].T).abs().max() > 0.5


def _turned(writer, reader, rotation):
    """Solve for the pair: turned back, it must be the old one."""
    back = rotation.double()
    way_out = torch.linalg.solve(back, writer.double())
    return way_out.float(), torch.linalg.solve(back.T, reader.double(), left=False).float()


def _pair(writer, reader):
    """Return what makes a pair of the arguments by two expressions."""
    return lambda w, r, q: (writer(w, q), reader(r, q))


TURNED_MISTAKES = {
    "other_direction": _pair(lambda w, q: q @ w, lambda r, q: r @ q.T),
    "writer_turned_back": _pair(lambda w, q: q @ w, lambda r, q: r @ q),
    "reader_turned_back": _pair(lambda w, q: q.T @ w, lambda r, q: r @ q.T),
    "writer_alone": _pair(lambda w, q: q.T @ w, lambda r, q: r),
    "reader_alone": _pair(lambda w, q: w, lambda r, q: r @ q),
    "nothing_turned": _pair(lambda w, q: w, lambda r, q: r),
    "inputs_of_the_writer": _pair(lambda w, q: w @ q, lambda r, q: r @ q),
    "outputs_of_the_reader": _pair(lambda w, q: q.T @ w, lambda r, q: q.T @ r),
    "outer_sides": _pair(lambda w, q: w @ q, lambda r, q: q.T @ r),
    "both_sides": _pair(lambda w, q: q.T @ w @ q, lambda r, q: q.T @ r @ q),
    "entry_by_entry": _pair(lambda w, q: q.T * w, lambda r, q: r * q),
    "order_swapped": lambda *case: _turned(*case)[::-1],
}


TURNED = Exercise("turned", _turned, _turned_cases, TURNED_MISTAKES)


def check_leaked(leaked) -> bool:
    """Check ``leaked(windows, test, run)``: which windows hold a piece of the test text."""
    return grade(leaked, LEAKED)


def _leaked_cases(seed):
    roll = dice(seed)
    turns = roll.sample(range(3, 12), 3)  # no two masks are the same
    sizes = [(4, 14, 45), (3, 11, 31), (5, 17, 57)]
    cases = [_leaky(roll, *size) for size in sizes]
    return [
        (windows.roll(turn, 0), *rest) for turn, (windows, *rest) in zip(turns, cases, strict=True)
    ]


def _leaky(roll, run, length, count):
    """Return windows of other tokens than the test text's, but for pieces of known kinds."""
    number, at = roll.randrange(2**31), run * roll.randint(1, 3)
    test = torch.randperm(count, generator=torch.Generator().manual_seed(number)) + 100
    pieces = [
        (1, test[at : at + run]),  # at a border of blocks in the test text
        (run, test[at + 1 : at + 1 + run]),  # in the window
        (0, test[at + 1 : at + 1 + run]),
        (2, test[:run]),
        (2, test[-run:]),
        (length - run, test[at + 1 : at + 1 + run]),
        (2, test[at + 1 : at + 2 + run]),
        (0, test[at + 1 : at + 1 + length]),
        (1, test[at : at + run - 1]),  # too short, and so on: no leaks
        (1, test[at : at + run].flip(0)),
        (1, test[at : at + 2 * run : 2]),
        (length - 2, test[at : at + 2]),
        (0, test[at + 2 : at + 1 + run]),  # would go on with the window before
    ]
    windows = whole(0, 100, 2 + len(pieces), length, seed=number)
    windows[-1, ::2] = test[:length:2]  # many tokens, but never side by side
    for window, (start, piece) in zip(windows[1:], pieces, strict=False):
        window[start : start + len(piece)] = piece
    return windows, test, run


def _leaked(windows, test, run):
    """Write both as letters, and let Python search for each piece of a window."""
    text = "".join(map(chr, test.tolist()))
    found = []
    for window in windows.tolist():
        letters = "".join(map(chr, window))
        pieces = {letters[end - run : end] for end in range(run, len(letters) + 1)}
        found.append(any(piece in text for piece in pieces))
    return torch.tensor(found)


def _pieces(tokens, run, step=1):
    return {tuple(piece) for piece in tokens.unfold(0, run, step).tolist()}


def _found(
    of_window=_pieces,
    of_test=_pieces,
    shape=lambda piece: piece,
    tell=lambda both: bool(both),
    answer=lambda found: found,
):
    """Return a search for pieces that are in both, with one thing about it changed."""

    def search(windows, test, run):
        seen = {shape(piece) for piece in of_test(test, run)}
        both = [{shape(p) for p in of_window(window, run)} & seen for window in windows]
        return answer(torch.tensor([tell(each) for each in both]))

    return search


def _count_of_tokens(windows, test, run):
    return torch.isin(windows, test).sum(1) >= run


def _neighbours_of_the_test(windows, test, run):
    """Look for tokens of the test side by side, in whichever order they stand there."""
    return torch.isin(windows, test).unfold(1, run, 1).all(-1).any(1)


def _across_windows(windows, test, run):
    """Search all windows as if they were one text."""
    pieces = windows.flatten().unfold(0, run, 1).tolist()
    seen, mask = _pieces(test, run), torch.zeros(windows.numel(), dtype=torch.bool)
    for place, piece in enumerate(pieces):
        if tuple(piece) in seen:
            mask[place : place + run] = True
    return mask.view(windows.shape).any(1)


LEAKED_MISTAKES = {
    "any_token": _found(*[lambda tokens, run: _pieces(tokens, 1)] * 2),
    "count_of_tokens": _count_of_tokens,
    "in_any_order": _found(shape=frozenset),
    "not_in_a_row_of_the_test": _neighbours_of_the_test,
    "whole_window": lambda windows, test, run: _leaked(windows, test, windows.shape[1]),
    "starts_of_windows": _found(of_window=lambda tokens, run: _pieces(tokens[:run], run)),
    "blocks_of_the_test": _found(of_test=lambda tokens, run: _pieces(tokens, run, run)),
    "blocks_of_the_window": _found(of_window=lambda tokens, run: _pieces(tokens, run, run)),
    "end_of_the_test": _found(of_test=lambda tokens, run: _pieces(tokens[:-1], run)),
    "end_of_the_window": _found(of_window=lambda tokens, run: _pieces(tokens[:-1], run)),
    "one_token_more": lambda windows, test, run: _leaked(windows, test, run + 1),
    "one_token_less": lambda windows, test, run: _leaked(windows, test, run - 1),
    "across_windows": _across_windows,
    "upside_down": lambda *case: ~_leaked(*case),
    "counts": _found(tell=len),
    "places": _found(answer=lambda found: found.nonzero()[:, 0]),
    "zeros_and_ones": _found(answer=lambda found: found.long()),
    "one_for_all": _found(answer=lambda found: found.any()),
}


LEAKED = Exercise("leaked", _leaked, _leaked_cases, LEAKED_MISTAKES)


def check_mixed_product(mixed_product) -> bool:
    """Check ``mixed_product(x, weight, threshold)``: 8-bit integers, outliers in floats."""
    return grade(mixed_product, MIXED_PRODUCT)


def _mixed_product_cases(seed):
    roll = dice(seed)

    def draw(tokens, inputs, outputs, threshold, quiet):
        seeds = [roll.randrange(2**31) for _ in range(2)]
        x = normal(tokens, inputs, seed=seeds[0]).clamp(-2.5, 2.5) * threshold / 5
        places = roll.sample(range(inputs), 5)
        x[roll.randrange(1, tokens - 1), places[0]] = 9.7 * threshold
        x[:-1, places[1]] = -(2.1 * threshold + x[:-1, places[1]].abs())
        x[roll.randrange(1, tokens - 1), places[2]] = -1.4 * threshold
        x[roll.randrange(1, tokens - 1), places[3]] = threshold  # as large as it may be
        x[roll.randrange(1, tokens - 1), places[4]] = 1.3 * threshold
        x[-1] = 0
        x[-1, places[1]] = 3 * threshold  # nothing else
        weight = 0.3 * normal(outputs, inputs, seed=seeds[1])
        weight[:, places[0]] *= 4
        weight[0] = 0
        weight[1, places[1]] = 5.3
        if quiet:  # a token without any outlier
            x[0] = x[0].clamp(-0.4 * threshold, 0.4 * threshold)
        return x, weight, threshold

    sizes = [(5, 9, 4, 6.0, True), (6, 8, 5, 2.5, False), (5, 12, 3, 1.0, True)]
    return [until(_no_half, partial(draw, *size)) for size in sizes]


def _no_half(case):
    """Tell whether no last bit decides about an integer."""
    x, weight, threshold = case
    rest = (x.abs() <= threshold).all(0)
    steps = [part[:, rest] / _row_scale(part[:, rest]) for part in (x, weight)]
    return all(((part.abs() % 1 - 0.5).abs() > 1e-3).all() for part in steps)


def _row_scale(part, unit=1.0, levels=127):
    scale = part.abs().amax(1, keepdim=True) / levels
    return torch.where(scale == 0, unit, scale)


def _mixed_product(x, weight, threshold):
    """Take the loud channels out, and let the library round what is left, row by row."""
    kept = [k for k, channel in enumerate(x.T.tolist()) if max(map(abs, channel)) <= threshold]
    rest = []
    for part in (x[:, kept], weight[:, kept]):
        qparams = quantization.choose_qparams_affine(part, 8, symmetric=True, dim=-1)
        rest.append(quantization.fake_quantize(part, *qparams, 8))
    loud = torch.ones(x.shape[1]).index_fill(0, torch.tensor(kept), 0)
    return torch.einsum("ti,oi->to", *rest) + torch.einsum("ti,i,oi->to", x, loud, weight)


def _loud(x, threshold):
    return (x.abs() > threshold).any(0)


def _rounded(part, rounding=torch.round, **how):
    scale = _row_scale(part, **how)
    return rounding(part / scale) * scale


def _mixed(loud=_loud, of_x=_rounded, of_weight=_rounded, floats=lambda part: part):
    """Return a product in two parts, with one thing about it changed."""

    def answer(x, weight, threshold):
        out = loud(x, threshold)
        rest = of_x(x.masked_fill(out, 0)) @ of_weight(weight.masked_fill(out, 0)).T
        return rest + floats(x[:, out]) @ floats(weight[:, out]).T

    return answer


def _both(rounding):
    return _mixed(of_x=rounding, of_weight=rounding)


def _scales_with_outliers(x, weight, threshold):
    out = _loud(x, threshold)
    rest = [_rounded(part).masked_fill(out, 0) for part in (x, weight)]
    return rest[0] @ rest[1].T + x[:, out] @ weight[:, out].T


def _entries(x, weight, threshold):
    out = x.abs() > threshold
    return _rounded(x.masked_fill(out, 0)) @ _rounded(weight).T + (x * out) @ weight.T


def _tokens(x, weight, threshold):
    out = (x.abs() > threshold).any(1)
    return torch.where(out[:, None], x @ weight.T, _rounded(x) @ _rounded(weight).T)


def _not_scaled_back(place):
    """Return the product without the scales of x, of the weight, or of both."""

    def answer(x, weight, threshold):
        out = _loud(x, threshold)
        x_scale, w_scale = (_row_scale(part.masked_fill(out, 0)) for part in (x, weight))
        floats = x[:, out] @ weight[:, out].T
        scale = {"x": x_scale, "weight": w_scale.T, "both": x_scale * w_scale.T}[place]
        return (_mixed_product(x, weight, threshold) - floats) / scale + floats

    return answer


def _bytes(x, weight, threshold):
    """Keep the sums of the integers in bytes."""
    out = _loud(x, threshold)
    parts = [part.masked_fill(out, 0) for part in (x, weight)]
    scales = [_row_scale(part) for part in parts]
    q = [(part / scale).round().long() for part, scale in zip(parts, scales, strict=True)]
    sums = (q[0] @ q[1].T).to(torch.int8)
    return sums * scales[0] * scales[1].T + x[:, out] @ weight[:, out].T


def _in_floats(part):
    return part


MIXED_PRODUCT_MISTAKES = {
    "no_split": lambda x, weight, threshold: _rounded(x) @ _rounded(weight).T,
    "scales_with_outliers": _scales_with_outliers,
    "entries_alone": _entries,
    "tokens_alone": _tokens,
    "large_everywhere": _mixed(loud=lambda x, threshold: (x.abs() > threshold).all(0)),
    "mean_size": _mixed(loud=lambda x, threshold: x.abs().mean(0) > threshold),
    "without_abs": _mixed(loud=lambda x, threshold: (x > threshold).any(0)),
    "threshold_is_out": _mixed(loud=lambda x, threshold: (x.abs() >= threshold).any(0)),
    "upside_down": _mixed(loud=lambda x, threshold: ~_loud(x, threshold)),
    "outliers_dropped": _mixed(floats=lambda part: 0 * part),
    "outliers_rounded": _mixed(floats=_rounded),
    "all_in_floats": lambda x, weight, threshold: x @ weight.T,
    "inputs_in_floats": _mixed(of_x=_in_floats),
    "weights_in_floats": _mixed(of_weight=_in_floats),
    "one_scale_for_x": _mixed(of_x=lambda part: _rounded(part.flatten()[None]).view(part.shape)),
    "one_scale_for_the_weight": _mixed(
        of_weight=lambda part: _rounded(part.flatten()[None]).view(part.shape)
    ),
    "one_level_more": _both(partial(_rounded, levels=128)),
    "floors": _both(partial(_rounded, rounding=torch.floor)),
    "truncates": _both(partial(_rounded, rounding=torch.trunc)),
    "divides_by_nothing": _both(partial(_rounded, unit=0.0)),
    "scale_of_x_forgotten": _not_scaled_back("x"),
    "scale_of_the_weight_forgotten": _not_scaled_back("weight"),
    "not_scaled_back": _not_scaled_back("both"),
    "sums_in_bytes": _bytes,
}


MIXED_PRODUCT = Exercise(
    "mixed_product", _mixed_product, _mixed_product_cases, MIXED_PRODUCT_MISTAKES
)


# --- worked out by hand, from the numbers of a variant ---


def _loud_channel(smoothed, channel, weight):
    found = []
    for alpha in (0.5, 1.0):
        norm, reader = smoothed(
            torch.ones(1), torch.tensor([[float(weight)]]), torch.tensor([float(channel)]), alpha
        )
        found += [channel * float(norm), float(reader)]
    return found


LOUD_CHANNEL = ByHand(SMOOTHED, _loud_channel)
