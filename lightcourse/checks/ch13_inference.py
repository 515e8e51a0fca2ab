"""Checks of the exercises of chapter 13."""

import itertools
import math
from fractions import Fraction
from functools import partial

import torch
from torch.nn import functional as F

from lightcourse.checks.by_hand import ByHand
from lightcourse.checks.cases import but, dice, normal, until
from lightcourse.checks.grading import Exercise, grade
from lightcourse.generation.kv_packing import round_and_pack


def check_cached_attention(cached_attention) -> bool:
    """Check ``cached_attention(x, W_q, W_k, W_v, keys, values)``: attention for a new token."""
    return grade(cached_attention, CACHED_ATTENTION)


def _cached_attention_cases(seed):
    roll = dice(seed)

    def case(heads, key_heads, width, size, tokens):
        matrices = [(heads, width, size), (key_heads, width, size), (key_heads, width, size)]
        kept = [(key_heads, tokens, size)] * 2
        x, *rest = (
            normal(*shape, seed=roll.randrange(2**31)) for shape in [(width,), *matrices, *kept]
        )
        return 2 * x / width**0.5, *rest

    # The last one is the first token of a text: nothing is kept yet.
    sizes = [(4, 2, 6, 3, 5), (6, 3, 5, 4, 7), (2, 2, 7, 2, 2), (3, 1, 4, 5, 0)]
    return [case(*size) for size in sizes]


def _cached_attention(x, W_q, W_k, W_v, keys, values):
    """Let torch attend, which knows heads that share their keys."""
    project = partial(torch.einsum, "w,hws->hs", x)
    keys, values = (
        torch.cat((kept.mT, project(weight)[..., None]), dim=-1).mT.contiguous()
        for kept, weight in ((keys, W_k), (values, W_v))
    )
    attend = partial(F.scaled_dot_product_attention, enable_gqa=True)
    out = attend(project(W_q)[None, :, None], keys[None], values[None])
    return out[0, :, 0], keys, values


def _attended(
    seen=lambda keys, values: (keys, values),
    shared=lambda kept, share: kept.repeat_interleave(share, 0),
    scale=lambda size, width: math.sqrt(size),
    softmax=lambda scores: scores.softmax(-1),
):
    """Return a step of attention with one thing about its output changed."""

    def answer(x, W_q, W_k, W_v, keys, values):
        _, keys, values = _cached_attention(x, W_q, W_k, W_v, keys, values)
        k, v = (shared(part, len(W_q) // len(W_k)) for part in seen(keys, values))
        scores = (x @ W_q)[:, None] @ k.mT / scale(k.shape[-1], len(x))
        return (softmax(scores) @ v)[:, 0], keys, values

    return answer


def _with_cache(change):
    """Return a step whose new cache is changed: ``change(old, new)`` of keys and of values."""

    def answer(x, W_q, W_k, W_v, *old):
        out, *new = _cached_attention(x, W_q, W_k, W_v, *old)
        return (out, *(change(*pair) for pair in zip(old, new, strict=True)))

    return answer


def _kept_for_each_query(x, W_q, W_k, W_v, *old):
    out, *kept = _cached_attention(x, W_q, W_k, W_v, *old)
    return (out, *(part.repeat_interleave(len(W_q) // len(W_k), 0) for part in kept))


def _by_matrices(choose):
    """Return a step that takes other matrices for those of the keys and the values."""
    return lambda x, W_q, W_k, W_v, *old: _cached_attention(x, W_q, *choose(W_k, W_v), *old)


CACHED_ATTENTION_MISTAKES = {
    "scale_forgotten": _attended(scale=lambda size, width: 1),
    "scale_without_root": _attended(scale=lambda size, width: size),
    "scale_of_the_width": _attended(scale=lambda size, width: math.sqrt(width)),
    "multiplied_by_the_root": _attended(scale=lambda size, width: 1 / math.sqrt(size)),
    "new_token_not_seen": _attended(seen=lambda keys, values: (keys[:, :-1], values[:, :-1])),
    "new_token_alone": _attended(seen=lambda keys, values: (keys[:, -1:], values[:, -1:])),
    "keys_added_up": _attended(seen=lambda keys, values: (keys, keys)),
    "values_compared": _attended(seen=lambda keys, values: (values, values)),
    "no_softmax": _attended(softmax=lambda scores: scores),
    "softmax_over_heads": _attended(softmax=lambda scores: scores.softmax(0)),
    "likeliest_alone": _attended(
        softmax=lambda scores: F.one_hot(scores.argmax(-1), scores.shape[-1]).float()
    ),
    "heads_in_turn": _attended(shared=lambda kept, share: kept.repeat(share, 1, 1)),
    "first_head_for_all": _attended(
        shared=lambda kept, share: kept[:1].expand(share * len(kept), -1, -1)
    ),
    "kept_for_each_query": _kept_for_each_query,
    "in_front": _with_cache(lambda old, new: new.roll(1, 1)),
    "cache_as_it_was": _with_cache(lambda old, new: old),
    "new_token_kept_alone": _with_cache(lambda old, new: new[:, -1:]),
    "oldest_dropped": _with_cache(lambda old, new: new[:, -max(old.shape[1], 1) :]),
    "one_matrix_for_both": _by_matrices(lambda keys, values: (keys, keys)),
    "matrices_swapped": _by_matrices(lambda keys, values: (values, keys)),
    "order_swapped": lambda *case: [_cached_attention(*case)[place] for place in (0, 2, 1)],
}


CACHED_ATTENTION = Exercise(
    "cached_attention", _cached_attention, _cached_attention_cases, CACHED_ATTENTION_MISTAKES
)


def check_kv_cache_bytes(kv_cache_bytes) -> bool:
    """Check ``kv_cache_bytes(shape, tokens, texts, bits, group)``: what a packed cache weighs."""
    return grade(kv_cache_bytes, KV_CACHE_BYTES)


def _kv_cache_bytes_cases(seed):
    roll = dice(seed)
    shape = (roll.randint(2, 4), 6, 2, 4 * roll.randint(2, 5))
    return [
        ((2, 6, 3, 8), 70, 1, 4, 32),
        ((3, 4, 1, 16), 21, 2, 8, 32),  # no group is whole yet
        ((2, 4, 2, 12), 96, 3, 2, 16),  # all are
        (shape, 8 * roll.randint(4, 7) + 3, 2, 2, 8),
        ((3, 9, 3, 10), 45, 1, 8, 20),
    ]


def _kv_cache_bytes(shape, tokens, texts, bits, group):
    """Let the library round and pack one layer, and ask the arrays for their bytes."""
    layers, _, key_heads, head_size = shape
    kept = torch.zeros(texts, key_heads, tokens, head_size)
    total = 0
    for part in kept.split(group, dim=2):
        for dim in (-2, -1):  # keys, values
            held = round_and_pack(part, bits, dim) if part.shape[2] == group else part
            total += held.nbytes
    return layers * total


def _counted(
    levels=lambda packed, size, bits: 2 * packed * size * bits / 8,
    grids=lambda packed, group, size: 4 * size * packed / group + 4 * packed,
    floats=lambda rest, size: 8 * rest * size,
    packed=lambda tokens, group: tokens // group * group,
    copies=lambda layers, heads, key_heads, texts: layers * key_heads * texts,
):
    """Return a count of bytes with one thing about it changed."""

    def answer(shape, tokens, texts, bits, group):
        *counts, size = shape
        whole = packed(tokens, group)
        one = levels(whole, size, bits) + grids(whole, group, size)
        return copies(*counts, texts) * (one + floats(max(tokens - whole, 0), size))

    return answer


def _grid_for_all_heads(shape, tokens, texts, bits, group):
    layers, _, key_heads, size = shape
    packed = tokens // group * group
    grids = layers * texts * (4 * size * packed // group + 4 * packed)
    return _kv_cache_bytes(shape, tokens, texts, bits, group) - (key_heads - 1) * grids


KV_CACHE_BYTES_MISTAKES = {
    "keys_alone": _counted(
        levels=lambda packed, size, bits: packed * size * bits / 8,
        grids=lambda packed, group, size: 4 * size * packed / group,
        floats=lambda rest, size: 4 * rest * size,
    ),
    "values_alone": _counted(
        levels=lambda packed, size, bits: packed * size * bits / 8,
        grids=lambda packed, group, size: 4 * packed,
        floats=lambda rest, size: 4 * rest * size,
    ),
    "heads_of_queries": _counted(
        copies=lambda layers, heads, key_heads, texts: layers * heads * texts
    ),
    "heads_of_both": _counted(
        copies=lambda layers, heads, key_heads, texts: layers * (heads + key_heads) * texts
    ),
    "one_head": _counted(copies=lambda layers, heads, key_heads, texts: layers * texts),
    "one_layer": _counted(copies=lambda layers, heads, key_heads, texts: key_heads * texts),
    "one_text": _counted(copies=lambda layers, heads, key_heads, texts: layers * key_heads),
    "in_bits": lambda *case: 8 * _kv_cache_bytes(*case),
    "levels_in_bits": _counted(levels=lambda packed, size, bits: 2 * packed * size * bits),
    "a_byte_a_number": _counted(levels=lambda packed, size, bits: 2 * packed * size),
    "nothing_packed": _counted(packed=lambda tokens, group: 0),
    "grids_forgotten": _counted(grids=lambda packed, group, size: 0),
    "half_a_grid": _counted(
        grids=lambda packed, group, size: 2 * size * packed / group + 2 * packed
    ),
    "grids_of_floats": _counted(
        grids=lambda packed, group, size: 8 * size * packed / group + 8 * packed
    ),
    "keys_by_token": _counted(grids=lambda packed, group, size: 8 * packed),
    "values_by_channel": _counted(grids=lambda packed, group, size: 8 * size * packed / group),
    "a_grid_a_group": _counted(grids=lambda packed, group, size: 8 * packed / group),
    "a_grid_a_channel": _counted(
        grids=lambda packed, group, size: 4 * size * (packed > 0) + 4 * packed
    ),
    "grid_for_all_heads": _grid_for_all_heads,
    "rest_forgotten": _counted(floats=lambda rest, size: 0),
    "rest_in_halves": _counted(floats=lambda rest, size: 4 * rest * size),
    "rest_packed": _counted(packed=lambda tokens, group: tokens),
    "rest_filled_up": _counted(packed=lambda tokens, group: -(-tokens // group) * group),
}


KV_CACHE_BYTES = Exercise(
    "kv_cache_bytes", _kv_cache_bytes, _kv_cache_bytes_cases, KV_CACHE_BYTES_MISTAKES
)


def check_top_p(top_p) -> bool:
    """Check ``top_p(shares, p)``: the nucleus of a distribution."""
    return grade(top_p, TOP_P)


def _top_p_cases(seed):
    roll = dice(seed)

    def exact(*parts):
        """Return shuffled shares in sixteenths: their sums are exact in any order."""
        return torch.tensor(roll.sample(parts, len(parts))) / 16

    def draw(size, spread):
        shares = (spread * normal(size, seed=roll.randrange(2**31))).softmax(0)
        return shares, roll.uniform(0.6, 0.85)

    sure = torch.tensor([0.03, 0.9, 0.05, 0.02]).roll(roll.randrange(4))
    return [
        until(lambda case: case[0][0] < 0.5, lambda: (exact(8.0, 4.0, 2.0, 2.0), 0.75)),  # reached
        until(_no_draw, partial(draw, 6, 1.0)),
        (exact(4.0, 2.0, 2.0, 2.0, 2.0, 2.0, 1.0, 1.0), 0.5),  # ties at the border
        (sure, 0.5),  # one is enough
        until(_no_draw, partial(draw, 12, 1.5)),
        (exact(5.0, 4.0, 3.0, 2.0, 1.0, 1.0), 1.0),  # all stay
    ]


def _no_draw(case):
    """Tell whether no last bit decides which tokens stay, and some stay and some go."""
    shares, p = case
    sums = shares.sort(descending=True).values.cumsum(0)
    apart = (shares.sort().values.diff() > 1e-3).all() and ((sums - p).abs() > 0.01).all()
    return apart and 2 <= (sums < p).sum() + 1 < len(shares) - 1


def _top_p(shares, p):
    """Add up exact fractions, from the largest share down, until they reach p."""
    kept = {}
    for share, token in sorted((-Fraction(share), n) for n, share in enumerate(shares.tolist())):
        if sum(kept.values()) < Fraction(p):
            kept[token] = -share
    total = sum(kept.values())
    return torch.tensor([float(kept.get(n, 0) / total) for n in range(len(shares))])


def _last_of_ties_first(shares):
    ordered, ids = shares.flip(0).sort(descending=True, stable=True)
    return ordered, len(shares) - 1 - ids


def _nucleus(
    order=lambda shares: shares.sort(descending=True, stable=True),
    stays=lambda ordered, ahead, p: ahead < p,
    scaled=lambda kept, p: kept / kept.sum(),
    back=lambda kept, ids: torch.zeros_like(kept).scatter(0, ids, kept),
):
    """Return a nucleus with one thing about it changed."""

    def answer(shares, p):
        ordered, ids = order(shares)
        kept = ordered * stays(ordered, ordered.cumsum(0) - ordered, p)
        return back(scaled(kept, p), ids)

    return answer


def _chosen_tokens(stays):
    """Return the shares of tokens that are chosen in any other way, divided by their sum."""

    def answer(shares, p):
        kept = shares * stays(shares, p)
        return kept / kept.sum()

    return answer


TOP_P_MISTAKES = {
    "crossing_left_out": _nucleus(stays=lambda ordered, ahead, p: ahead + ordered <= p),
    "crossing_left_out_but_the_first": _nucleus(
        stays=lambda ordered, ahead, p: (ahead + ordered <= p) | (ahead == 0)
    ),
    "reaching_left_out": _nucleus(stays=lambda ordered, ahead, p: ahead + ordered < p),
    "reached_is_not_enough": _nucleus(stays=lambda ordered, ahead, p: ahead <= p),
    "one_too_many": _nucleus(
        stays=lambda ordered, ahead, p: torch.cat([torch.zeros(1), ahead])[:-1] < p
    ),
    "not_renormalised": _nucleus(scaled=lambda kept, p: kept),
    "divided_by_p": _nucleus(scaled=lambda kept, p: kept / p),
    "softmax_again": _nucleus(
        scaled=lambda kept, p: kept.masked_fill(kept == 0, -torch.inf).softmax(0)
    ),
    "softmax_of_zeros": _nucleus(scaled=lambda kept, p: kept.softmax(0)),
    "shared_evenly": _nucleus(scaled=lambda kept, p: (kept > 0) / (kept > 0).sum()),
    "not_sorted": _nucleus(order=lambda shares: (shares, torch.arange(len(shares)))),
    "smallest_first": _nucleus(order=lambda shares: shares.sort(stable=True)),
    "left_in_order": _nucleus(back=lambda kept, ids: kept),
    "sorted_twice": _nucleus(back=lambda kept, ids: kept[ids]),
    "ties_by_larger_id": _nucleus(order=_last_of_ties_first),
    "all_ties": _chosen_tokens(lambda shares, p: shares >= shares[_top_p(shares, p) > 0].min()),
    "likeliest_alone": _nucleus(stays=lambda ordered, ahead, p: ahead == 0),
    "each_share_alone": _chosen_tokens(lambda shares, p: shares >= 1 - p),
    "share_of_the_largest": _chosen_tokens(lambda shares, p: shares >= p * shares.max()),
    "share_of_the_tokens": _nucleus(
        stays=lambda ordered, ahead, p: torch.arange(len(ahead)) < p * len(ahead)
    ),
    "tail": _chosen_tokens(lambda shares, p: _top_p(shares, p) == 0),
    "mask": lambda shares, p: _top_p(shares, p) > 0,
}


TOP_P = Exercise("top_p", _top_p, _top_p_cases, TOP_P_MISTAKES)


def check_accept_or_replace(accept_or_replace) -> bool:
    """Check ``accept_or_replace(p, q, token, u, v)``: the verdict on a draft's token."""
    return grade(accept_or_replace, ACCEPT_OR_REPLACE)


def _accept_or_replace_cases(seed):
    roll = dice(seed)
    # In sixteenths, so that all of it is exact: p has eight of them more than q, and eight less.
    order = roll.sample(range(6), 6)
    p, q = (torch.tensor(part)[order] / 16 for part in ([4.0, 3, 7, 0, 0, 2], [8.0, 2, 2, 2, 2, 0]))
    half, never, sure = (order.index(token) for token in (0, 3, 2))
    borders = sorted(set(((p - q).clamp(min=0).cumsum(0) * 2).tolist()) - {0, 1})
    exact = [(p, q, half, 0.75, border) for border in borders]
    exact += [(p, q, half, 0.125, 0.5), (p, q, half, 0.5, 0.5), (p, q, sure, 0.96875, 0.5)]
    exact += [(p, q, never, 0.0, 0.0), (p, q, half, 0.984375, 0.984375)]
    refused = [until(_no_border, partial(_proposed, roll, True)) for _ in range(24)]
    accepted = [until(_no_border, partial(_proposed, roll, False)) for _ in range(8)]
    return exact + refused + accepted


def _proposed(roll, refused):
    """Return a token that the draft writes more often than the target, and two numbers."""
    p, q = ((1.2 * normal(5, seed=roll.randrange(2**31))).softmax(0) for _ in range(2))
    token = int((q - p).argmax())
    ratio = (p / q)[token].item()
    u = roll.uniform(ratio, 1) if refused else roll.uniform(0, ratio)
    return p, q, token, round(u, 3), round(roll.random(), 3)


def _no_border(case):
    """Tell whether no last bit decides what is accepted, or what comes instead."""
    p, q, token, u, v = case
    ratio, rest = (p / q)[token].item(), (p - q).clamp(min=0)
    apart = ((rest.cumsum(0) / rest.sum() - v).abs() > 2e-3).all()
    return apart and 0.2 < ratio < 0.8 and abs(u - ratio) > 0.02 and max(u, v) < 0.99


def _accept_or_replace(p, q, token, u, v):
    """Spend v, in exact fractions, on what p has more than q, from the smallest id on."""
    p, q = ([Fraction(share) for share in part.tolist()] for part in (p, q))
    if Fraction(u) * q[token] < p[token]:
        return token, True
    rest = [max(own - other, 0) for own, other in zip(p, q, strict=True)]
    sums = itertools.accumulate(rest)
    return next(n for n, total in enumerate(sums) if total > Fraction(v) * sum(rest)), False


def _first_beyond(rest, v):
    return int((rest.cumsum(0) / rest.sum() > v).int().argmax())


def _first_sum_beyond(rest, v):
    return int((rest.cumsum(0) > v).int().argmax())


def _judged(
    accepts=lambda p, q, u: u * q < p,
    rest=lambda p, q, token: (p - q).clamp(min=0),
    chosen=_first_beyond,
    number=lambda u, v: v,
    told=lambda token, accepted: (token, accepted),
):
    """Return a verdict with one thing about it changed."""

    def answer(p, q, token, u, v):
        if accepts(p[token].item(), q[token].item(), u):
            return told(token, True)
        return told(chosen(rest(p, q, token), number(u, v)), False)

    return answer


def _from_p_without(p, q, token):
    return p.index_fill(0, torch.tensor(token), 0)


ACCEPT_OR_REPLACE_MISTAKES = {
    "q_over_p": _judged(accepts=lambda p, q, u: u * p < q),
    "upside_down": _judged(accepts=lambda p, q, u: u * q >= p),
    "by_p_alone": _judged(accepts=lambda p, q, u: u < p),
    "by_q_alone": _judged(accepts=lambda p, q, u: u < q),
    "never_by_chance": _judged(accepts=lambda p, q, u: p >= q),
    "equal_is_accepted": _judged(accepts=lambda p, q, u: u * q <= p),
    "always_accepted": _judged(accepts=lambda p, q, u: True),
    "never_accepted": _judged(accepts=lambda p, q, u: False),
    "from_p": _judged(rest=lambda p, q, token: p),
    "from_p_without_the_token": _judged(rest=_from_p_without),
    "from_q": _judged(rest=lambda p, q, token: q),
    "from_q_minus_p": _judged(rest=lambda p, q, token: (q - p).clamp(min=0)),
    "from_the_gap": _judged(rest=lambda p, q, token: (p - q).abs()),
    "from_the_ratio": _judged(rest=lambda p, q, token: (p / q.clamp(min=1e-9)).clamp(max=1)),
    "not_clamped": _judged(rest=lambda p, q, token: p - q, chosen=_first_sum_beyond),
    "not_renormalised": _judged(chosen=_first_sum_beyond),
    "largest_taken": _judged(chosen=lambda rest, v: int(rest.argmax())),
    "largest_of_p": _judged(rest=lambda p, q, token: p, chosen=lambda p, v: int(p.argmax())),
    "reached_is_enough": _judged(
        chosen=lambda rest, v: int((rest.cumsum(0) / rest.sum() >= v).int().argmax())
    ),
    "one_before": _judged(chosen=lambda rest, v: max(_first_beyond(rest, v) - 1, 0)),
    "one_behind": _judged(chosen=lambda rest, v: min(_first_beyond(rest, v) + 1, len(rest) - 1)),
    "from_the_end": _judged(chosen=lambda rest, v: len(rest) - 1 - _first_beyond(rest.flip(0), v)),
    "same_number_twice": _judged(number=lambda u, v: u),
    "refused_and_kept": but(_accept_or_replace, 0, lambda p, q, token, u, v: token),
    "flag_turned": but(_accept_or_replace, 1, lambda *case: not _accept_or_replace(*case)[1]),
    "order_swapped": lambda *case: _accept_or_replace(*case)[::-1],
}


ACCEPT_OR_REPLACE = Exercise(
    "accept_or_replace", _accept_or_replace, _accept_or_replace_cases, ACCEPT_OR_REPLACE_MISTAKES
)


def check_expected_speedup(expected_speedup) -> bool:
    """Check ``expected_speedup(acceptance, cost, lookaheads)``: what a draft gains."""
    return grade(expected_speedup, EXPECTED_SPEEDUP)


def _expected_speedup_cases(seed):
    roll = dice(seed)

    def draw(low, high, lookaheads):
        return round(roll.uniform(low, high), 3), round(roll.uniform(0.05, 0.3), 3), lookaheads

    def clear(case, least=0):
        best, second, *_ = _speedups(*case).sort(descending=True).values
        return best > max(1.02, 1.005 * second) and _speedups(*case).argmax() >= least

    return [
        (0.5, 0.1, [1, 2, 4, 8]),
        until(partial(clear, least=1), partial(draw, 0.6, 0.8, [1, 2, 4, 8])),
        until(clear, partial(draw, 0.3, 0.95, [2, 3, 5])),
        (0.4, 0.75, [1, 3, 6]),  # each is slower than no draft
        (1.0, 0.25, [2, 4, 7]),  # its own twin
        (1.0, 1.0, [1, 5]),  # its own twin, just as dear: nothing is won
        (0.0, 0.125, [1, 4]),
    ]


def _speedups(acceptance, cost, lookaheads):
    """Go through all ways in which proposals may be accepted and refused."""
    found = []
    for lookahead in lookaheads:
        tokens = 0.0
        for way in itertools.product((True, False), repeat=lookahead):
            chance = math.prod(acceptance if fits else 1 - acceptance for fits in way)
            tokens += chance * (1 + len(list(itertools.takewhile(bool, way))))
        found.append(tokens / (1 + cost * lookahead))
    return torch.tensor(found)


def _best(speedups, lookaheads):
    return lookaheads[int(speedups.argmax())] if speedups.max() > 1 else 0


def _expected_speedup(acceptance, cost, lookaheads):
    speedups = _speedups(acceptance, cost, lookaheads)
    return speedups, _best(speedups, lookaheads)


def _gained(
    tokens=lambda a, g: sum(a**n for n in range(g + 1)),
    time=lambda a, c, g: g * c + 1,
):
    """Return an expectation with the tokens of a round, or its time, changed."""

    def answer(a, c, lookaheads):
        speedups = torch.tensor([tokens(a, g) / time(a, c, g) for g in lookaheads])
        return speedups, _best(speedups, lookaheads)

    return answer


def _chosen(choose):
    """Return the right speedups, and another choice: of them, the lookaheads, the right one."""

    def other(a, c, lookaheads):
        speedups, best = _expected_speedup(a, c, lookaheads)
        return choose(speedups, lookaheads, best)

    return but(_expected_speedup, 1, other)


EXPECTED_SPEEDUP_MISTAKES = {
    "own_token_forgotten": _gained(tokens=lambda a, g: sum(a**n for n in range(1, g + 1))),
    "one_power_less": _gained(tokens=lambda a, g: sum(a**n for n in range(g))),
    "one_power_more": _gained(tokens=lambda a, g: sum(a**n for n in range(g + 2))),
    "all_or_nothing": _gained(tokens=lambda a, g: 1 + g * a**g),
    "each_on_its_own": _gained(tokens=lambda a, g: 1 + g * a),
    "all_accepted": _gained(tokens=lambda a, g: g + 1),
    "rate_of_refusal": _gained(tokens=lambda a, g: sum((1 - a) ** n for n in range(g + 1))),
    "for_ever": _gained(tokens=lambda a, g: 1 / (1 - a) if a < 1 else math.inf),
    "nothing_at_one": _gained(
        tokens=lambda a, g: (1 - a ** (g + 1)) / (1 - a) if a < 1 else math.nan
    ),
    "draft_for_nothing": _gained(time=lambda a, c, g: 1),
    "draft_called_once": _gained(time=lambda a, c, g: 1 + c),
    "target_for_nothing": _gained(time=lambda a, c, g: g * c),
    "one_call_more": _gained(time=lambda a, c, g: (g + 1) * c + 1),
    "target_for_each_token": _gained(time=lambda a, c, g: g * (c + 1)),
    "refused_cost_nothing": _gained(
        time=lambda a, c, g: 1 + c * sum(a**n for n in range(1, g + 1))
    ),
    "time_not_speed": but(_expected_speedup, 0, lambda *case: 1 / _speedups(*case)),
    "farthest": _chosen(lambda speedups, lookaheads, best: lookaheads[-1] if best else 0),
    "place": _chosen(lambda speedups, lookaheads, best: lookaheads.index(best) if best else 0),
    "always_a_draft": _chosen(lambda speedups, lookaheads, best: lookaheads[speedups.argmax()]),
    "no_gain_is_a_gain": _chosen(
        lambda speedups, lookaheads, best: _best(speedups + 1e-6, lookaheads)
    ),
    "slowest": _chosen(
        lambda speedups, lookaheads, best: lookaheads[speedups.argmin()] if best else 0
    ),
    "speed_not_lookahead": _chosen(
        lambda speedups, lookaheads, best: speedups.max() if best else 0
    ),
    "order_swapped": lambda *case: _expected_speedup(*case)[::-1],
}


EXPECTED_SPEEDUP = Exercise(
    "expected_speedup", _expected_speedup, _expected_speedup_cases, EXPECTED_SPEEDUP_MISTAKES
)


# --- worked out by hand, from the numbers of a variant ---


def _share_of_floats(kv_cache_bytes, whole, odd):
    """Ask for one layer of SmolLM2: for a share it does not matter how many there are."""
    return [
        kv_cache_bytes((1, 9, 3, 64), tokens, 1, 2, 32) / (2 * 3 * 64 * 4 * tokens)
        for tokens in (whole, odd)
    ]


def _how_many_stay(top_p, others, p):
    shares = torch.tensor([0.25, 0.25] + [0.5 / others] * others)
    return [int((torch.as_tensor(top_p(shares, reached)) > 0).sum()) for reached in (0.5, p)]


SHARE_OF_FLOATS = ByHand(KV_CACHE_BYTES, _share_of_floats)
HOW_MANY_STAY = ByHand(TOP_P, _how_many_stay)
