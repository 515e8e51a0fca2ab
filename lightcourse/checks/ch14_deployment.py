"""Checks of the exercises of chapter 14."""

import math
import statistics
import struct
from fractions import Fraction

import numpy as np
import torch

from lightcourse.checks.by_hand import ByHand
from lightcourse.checks.cases import but, dice, until
from lightcourse.checks.grading import Exercise, grade
from lightcourse.deployment.budgets import Device, fits, seconds_a_call


def check_longest_context(longest_context) -> bool:
    """Check ``longest_context(device, model, bits, group)``: the tokens that fit, and how fast."""
    return grade(longest_context, LONGEST_CONTEXT)


def _longest_context_cases(seed):
    roll = dice(seed)
    small = 64 * roll.randint(900, 1100), 64 * roll.randint(200, 300), 3, 24  # 36 KB and 18 KB
    return [
        # Bytes: 8,192 x 4.5 / 8 + 4,096 x 8.5 / 8 = 8,960, and 256 for each token.
        ((40_000, 0.5, 1e6), (8192, 4096, 4, 16), (4, 8, 16), 32),
        ((8_000_000_000, 0.5, 68e9), (6_476_005_376, 262_144_000, 32, 4096), (4, 8, 16), 32),
        ((2 * (8960 + 7 * 256), 0.5, 1e6), (8192, 4096, 4, 16), (4, 8, 16), 32),  # all is full
        ((2 * 8960 + 500, 0.5, 1e6), (8192, 4096, 4, 16), (4, 8, 16), 32),  # not one token
        ((16_000, 0.5, 1e6), (8192, 4096, 4, 16), (4, 8, 16), 32),  # not even the weights
        ((roll.randint(150_000, 200_000), 0.75, 3e6), small, (3, 6, 8), 64),
        ((roll.randint(5_000_000, 6_000_000), 0.25, 2e6), small, (4, 16, 32), 16),  # plenty of room
    ]


def _bytes_of(model, bits, group):
    """Return the bytes of all groups, and of one token's keys and values, as fractions."""
    weights, table, layers, key_width = model
    groups = [(weights // group, bits[0]), (table // group, bits[1])]
    held = sum(Fraction(count * (group * each + 16), 8) for count, each in groups)
    return held, Fraction(2 * layers * key_width * bits[2], 8)


def _longest_context(device, model, bits, group):
    """Ask the library of one number of tokens after another whether they fit, and how fast."""
    memory, share, bandwidth = device
    held, token = _bytes_of(model, bits, group)
    target = Device("", memory, bandwidth, operations=math.inf, source="")
    low, high = -1, 2**40
    while high - low > 1:
        middle = (low + high) // 2
        enough = fits(target, float(held + middle * token), share)
        low, high = (middle, high) if enough else (low, middle)
    if low < 1:
        return 0, 0.0
    return low, 1 / seconds_a_call(target, float(held + low * token), 1)


def _planned(
    room=lambda memory, share, held: share * memory - held,
    held=lambda weights, table, bits, group: (
        (weights * (bits[0] + 16 / group) + table * (bits[1] + 16 / group)) / 8
    ),
    token=lambda layers, width, bits: 2 * layers * width * bits[2] / 8,
    whole=math.floor,
    least=0,
    read=lambda held, tokens, token: held + tokens * token,
):
    """Return a plan with one thing about it changed."""

    def answer(device, model, bits, group):
        memory, share, bandwidth = device
        weights, table, layers, width = model
        own, each = held(weights, table, bits, group), token(layers, width, bits)
        tokens = max(whole(room(memory, share, own) / each), least)
        return tokens, bandwidth / read(own, tokens, each) if tokens > 0 else 0.0

    return answer


def _told(speed):
    """Return the right tokens and another speed: ``speed(right, bandwidth, held, device)``."""

    def other(device, model, bits, group):
        _, right = _longest_context(device, model, bits, group)
        return speed(right, device[2], float(_bytes_of(model, bits, group)[0]), device)

    return but(_longest_context, 1, other)


LONGEST_CONTEXT_MISTAKES = {
    "whole_memory": _planned(room=lambda memory, share, held: memory - held),
    "share_of_the_rest": _planned(room=lambda memory, share, held: share * (memory - held)),
    "other_share": _planned(room=lambda memory, share, held: (1 - share) * memory - held),
    "weights_forgotten": _planned(room=lambda memory, share, held: share * memory),
    "weights_in_bits": _planned(
        held=lambda weights, table, bits, group: (
            weights * (bits[0] + 16 / group) + table * (bits[1] + 16 / group)
        )
    ),
    "scales_forgotten": _planned(
        held=lambda weights, table, bits, group: (weights * bits[0] + table * bits[1]) / 8
    ),
    "scale_of_a_byte": _planned(
        held=lambda weights, table, bits, group: (
            (weights * (bits[0] + 8 / group) + table * (bits[1] + 8 / group)) / 8
        )
    ),
    "scale_of_four_bytes": _planned(
        held=lambda weights, table, bits, group: (
            (weights * (bits[0] + 32 / group) + table * (bits[1] + 32 / group)) / 8
        )
    ),
    "scale_for_each_weight": _planned(
        held=lambda weights, table, bits, group: (
            (weights * (bits[0] + 16) + table * (bits[1] + 16)) / 8
        )
    ),
    "table_without_scales": _planned(
        held=lambda weights, table, bits, group: (
            (weights * (bits[0] + 16 / group) + table * bits[1]) / 8
        )
    ),
    "table_forgotten": _planned(
        held=lambda weights, table, bits, group: weights * (bits[0] + 16 / group) / 8
    ),
    "table_in_the_weights_bits": _planned(
        held=lambda weights, table, bits, group: (weights + table) * (bits[0] + 16 / group) / 8
    ),
    "keys_alone": _planned(token=lambda layers, width, bits: layers * width * bits[2] / 8),
    "one_layer": _planned(token=lambda layers, width, bits: 2 * width * bits[2] / 8),
    "cache_in_bits": _planned(token=lambda layers, width, bits: 2 * layers * width * bits[2]),
    "cache_in_the_weights_bits": _planned(
        token=lambda layers, width, bits: 2 * layers * width * bits[0] / 8
    ),
    "rounded_up": _planned(whole=math.ceil),
    "part_of_a_token": _planned(whole=lambda tokens: tokens),
    "not_quite_full": _planned(whole=lambda tokens: math.ceil(tokens) - 1),
    "fewer_than_none": _planned(least=-(2**60)),
    "one_at_least": _planned(least=1),
    "cache_not_read": _planned(read=lambda held, tokens, token: held),
    "weights_not_read": _planned(read=lambda held, tokens, token: tokens * token),
    "one_token_read": _planned(read=lambda held, tokens, token: held + token),
    "speed_of_nothing": _told(lambda right, bandwidth, held, device: right or bandwidth / held),
    "whole_share_read": _told(
        lambda right, bandwidth, held, device: bandwidth / (device[0] * device[1]) * (right > 0)
    ),
    "time_not_speed": _told(lambda right, bandwidth, held, device: 1 / right if right else 0.0),
    "order_swapped": lambda *case: _longest_context(*case)[::-1],
}


LONGEST_CONTEXT = Exercise(
    "longest_context", _longest_context, _longest_context_cases, LONGEST_CONTEXT_MISTAKES
)


def check_read_value(read_value) -> bool:
    """Check ``read_value(data, place, kind)``: one value of a GGUF header."""
    return grade(read_value, READ_VALUE)


STRING, ARRAY = 8, 9
# How NumPy names the numbers of each kind.
NUMBERS = {0: "u1", 1: "i1", 2: "u2", 3: "i2", 4: "u4", 5: "i4"}
NUMBERS |= {6: "f4", 7: "?", 10: "u8", 11: "i8", 12: "f8"}


def _packed(kind, value):
    """Return a value's bytes: what a writer of GGUF files does."""
    if kind == STRING:
        text = value.encode()
        return len(text).to_bytes(8, "little") + text
    if kind == ARRAY:
        inner, entries = value
        head = inner.to_bytes(4, "little") + len(entries).to_bytes(8, "little")
        return head + b"".join(_packed(inner, entry) for entry in entries)
    return np.array(value, "<" + NUMBERS[kind]).tobytes()


def _as_array(*parts):
    return np.frombuffer(b"".join(parts), np.uint8).copy()


def _read_value_cases(seed):
    roll = dice(seed)

    def case(kind, value):
        front, behind = roll.randbytes(roll.randint(3, 9)), roll.randbytes(12)
        return _as_array(front, _packed(kind, value), behind), len(front), kind

    numbers = [(kind, roll.randint(10, 99)) for kind in (0, 2, 4, 10)]
    numbers += [(kind, -roll.randint(10, 99)) for kind in (1, 3, 5, 11)]
    numbers += [(0, 200), (2, 2**15 + 7), (4, 2**31 + 8), (10, 2**40 + 5)]
    numbers += [(6, roll.randint(5, 40) / 8), (12, -roll.randint(5, 40) / 8), (7, True), (7, False)]
    entries = [roll.randint(1, 60) for _ in range(roll.randint(3, 5))]
    return [
        *(case(*each) for each in numbers),
        *(case(STRING, text) for text in ("llama", "Größe 量", "")),
        *(case(ARRAY, (kind, entries)) for kind in (5, 2, 12)),
        case(ARRAY, (STRING, ["Ġthe", "ab", "", "ö"])),
        case(ARRAY, (7, [True, False])),
        case(ARRAY, (6, [])),
    ]


def _read_value(data, place, kind):
    """Let NumPy look at a few bytes as numbers."""
    if kind == STRING:
        place, length = place + 8, int(data[place : place + 8].view("<u8")[0])
        return str(memoryview(data[place : place + length]), "utf-8"), place + length
    if kind == ARRAY:
        (inner,), (count,) = (data[place:][a:b].view(f"<u{b - a}") for a, b in ((0, 4), (4, 12)))
        place += 12
        for _ in range(int(count)):
            place = _read_value(data, place, int(inner))[1]
        return int(count), place
    dtype = np.dtype("<" + NUMBERS[kind])
    return data[place:][: dtype.itemsize].view(dtype)[0].item(), place + dtype.itemsize


def _read(change, kinds=range(13)):
    """Return a reading with ``change(value, after, data, place, kind)`` for some kinds."""

    def answer(data, place, kind):
        value, after = _read_value(data, place, kind)
        return change(value, after, data, place, kind) if kind in kinds else (value, after)

    return answer


def _numbers_as(form):
    """Return a reading whose numbers have the form that ``form(kind)`` says."""

    def change(value, after, data, place, kind):
        dtype = np.dtype(form(kind))
        return data[place:][: dtype.itemsize].view(dtype)[0].item(), place + dtype.itemsize

    return _read(change, set(range(13)) - {7, STRING, ARRAY})


def _entries(data, place):
    """Return the entries of an array as a list."""
    kind, place = _read_value(data, place, 4)
    count, place = _read_value(data, place, 10)
    found = []
    for _ in range(count):
        value, place = _read_value(data, place, kind)
        found.append(value)
    return found


def _lengths_walked(value, after, data, place, kind):
    """Step over the entries of an array by eight bytes, strings included."""
    inner, count = struct.unpack_from("<IQ", data, place)
    return value, place + 12 + 8 * count if inner == STRING else after


READ_VALUE_MISTAKES = {
    "big_endian": _numbers_as(lambda kind: ">" + NUMBERS[kind]),
    "signs_forgotten": _numbers_as(lambda kind: "<" + NUMBERS[kind].replace("i", "u")),
    "signs_everywhere": _numbers_as(lambda kind: "<" + NUMBERS[kind].replace("u", "i")),
    "always_four_bytes": _numbers_as(lambda kind: "<" + NUMBERS[kind][0] + "4"),
    "truth_as_a_number": _read(lambda value, after, *case: (int(value), after), {7}),
    "from_the_start": lambda data, place, kind: (
        _read_value(data[place:], 0, kind)[0],
        _read_value(data, place, kind)[1] - place,
    ),
    "place_stays": _read(lambda value, after, data, place, kind: (value, place)),
    "one_byte_further": _read(lambda value, after, data, place, kind: (value, place + 1)),
    "length_not_passed": _read(lambda value, after, *case: (value, after - 8), {STRING}),
    "letters_not_passed": _read(
        lambda value, after, data, place, kind: (value, place + 8), {STRING}
    ),
    "letters_for_bytes": _read(
        lambda value, after, data, place, kind: (value, place + 8 + len(value)), {STRING}
    ),
    "length_in_the_text": _read(
        lambda value, after, data, place, kind: (data[place:after].tobytes().decode(), after),
        {STRING},
    ),
    "letters_of_a_byte": _read(
        lambda value, after, data, place, kind: (value.encode().decode("latin-1"), after), {STRING}
    ),
    "entries_returned": _read(
        lambda value, after, data, place, kind: (_entries(data, place), after), {ARRAY}
    ),
    "entries_not_passed": _read(
        lambda value, after, data, place, kind: (value, place + 12), {ARRAY}
    ),
    "entries_of_a_byte": _read(
        lambda value, after, data, place, kind: (value, place + 12 + value), {ARRAY}
    ),
    "strings_of_one_size": _read(_lengths_walked, {ARRAY}),
    "bytes_of_the_array": _read(
        lambda value, after, data, place, kind: (after - place - 12, after), {ARRAY}
    ),
    "kind_for_count": _read(
        lambda value, after, data, place, kind: (_read_value(data, place, 4)[0], after), {ARRAY}
    ),
    "order_swapped": lambda *case: _read_value(*case)[::-1],
}


READ_VALUE = Exercise("read_value", _read_value, _read_value_cases, READ_VALUE_MISTAKES)


def check_read_header(read_header) -> bool:
    """Check ``read_header(data)``: the version, the number of tensors, and the metadata."""
    return grade(read_header, READ_HEADER)


def _file(magic, version, tensors, pairs):
    """Return the beginning of a file, and some bytes of what follows."""
    counts = [version.to_bytes(4, "little"), *(n.to_bytes(8, "little") for n in tensors)]
    held = [
        _packed(STRING, key) + kind.to_bytes(4, "little") + _packed(kind, value)
        for key, kind, value in pairs
    ]
    return _as_array(magic, *counts, *held, _packed(STRING, "blk.0.attn_q.weight"), bytes(20))


def _read_header_cases(seed):
    roll = dice(seed)
    pairs = [
        ("general.architecture", STRING, "llama"),
        ("llama.block_count", 4, roll.randint(2, 40)),
        ("llama.rope.freq_base", 6, 10_000.0),
        ("tokenizer.ggml.tokens", ARRAY, (STRING, ["<s>", "Ġthe", "ö"])),
        ("tokenizer.ggml.add_bos_token", 7, roll.random() < 0.5),
        ("tokenizer.ggml.token_type", ARRAY, (5, [3, 1, 1, 1])),
        ("größe", 11, -roll.randint(5, 50)),
    ]
    shuffled = roll.sample(pairs, 6)
    return [
        # Fewer tensors than pairs, so that whoever takes one for the other can still read on.
        (_file(b"GGUF", version, (tensors, len(each)), each),)
        for version, tensors, each in ((3, 4, pairs), (2, 3, shuffled), (3, 1, pairs[:2]))
    ] + [
        (_file(magic, 3, (2, 4), roll.sample(pairs, 4)),) for magic in (b"GGML", b"PK\3\4", b"ggUF")
    ]


COUNTS = [(4, 8), (8, 16), (16, 24)]  # where they stand: the version, tensors, pairs


def _read_header(data):
    """Cut the bytes off in front, one after the other, from a string of bytes."""
    rest = data.tobytes()
    if not rest.startswith(b"GGUF"):
        return 0, 0, []
    version, tensors, count = (int.from_bytes(rest[a:b], "little") for a, b in COUNTS)
    place, pairs = COUNTS[-1][1], []
    while len(pairs) < count:
        key, place = _read_value(data, place, STRING)
        kind, place = data[place : place + 4].view("<u4")[0], place + 4
        value, place = _read_value(data, place, int(kind))
        pairs.append((key, value))
    return version, tensors, pairs


def _whatever_the_magic(data, magic=b"GGUF"):
    return _read_header(_as_array(magic, data[4:].tobytes()))


def _if_gguf(change):
    """Return a reading that changes the three parts of what is a GGUF file."""

    def answer(data):
        version, tensors, pairs = _read_header(data)
        return change(data, version, tensors, pairs) if version else (0, 0, [])

    return answer


def _kinds(data, pairs):
    """Return the kinds of all pairs, in order."""
    place, found = COUNTS[-1][1], []
    for _ in pairs:
        _, place = _read_value(data, place, STRING)
        found.append(_read_value(data, place, 4)[0])
        _, place = _read_value(data, place + 4, found[-1])
    return found


READ_HEADER_MISTAKES = {
    "magic_not_looked_at": _whatever_the_magic,
    "magic_half_looked_at": lambda data: (
        _whatever_the_magic(data) if data[:2].tobytes() == b"GG" else (0, 0, [])
    ),
    "magic_in_any_case": lambda data: (
        _whatever_the_magic(data) if data[:4].tobytes().upper() == b"GGUF" else (0, 0, [])
    ),
    "version_of_others": lambda data: (_whatever_the_magic(data)[0], *_read_header(data)[1:]),
    "counts_swapped": _if_gguf(
        lambda data, version, tensors, pairs: (version, len(pairs), pairs[:tensors])
    ),
    "one_pair_less": _if_gguf(lambda data, version, tensors, pairs: (version, tensors, pairs[:-1])),
    "pairs_for_tensors": _if_gguf(
        lambda data, version, tensors, pairs: (version, len(pairs), pairs)
    ),
    "as_many_pairs_as_tensors": _if_gguf(
        lambda data, version, tensors, pairs: (version, tensors, pairs[:tensors])
    ),
    "count_of_pairs": _if_gguf(
        lambda data, version, tensors, pairs: (version, tensors, len(pairs))
    ),
    "keys_alone": _if_gguf(
        lambda data, version, tensors, pairs: (version, tensors, [key for key, _ in pairs])
    ),
    "values_alone": _if_gguf(
        lambda data, version, tensors, pairs: (version, tensors, [value for _, value in pairs])
    ),
    "kinds_for_values": _if_gguf(
        lambda data, version, tensors, pairs: (
            version,
            tensors,
            [(key, kind) for (key, _), kind in zip(pairs, _kinds(data, pairs), strict=True)],
        )
    ),
    "kinds_kept": _if_gguf(
        lambda data, version, tensors, pairs: (
            version,
            tensors,
            [(key, kind, v) for (key, v), kind in zip(pairs, _kinds(data, pairs), strict=True)],
        )
    ),
    "pair_turned": _if_gguf(
        lambda data, version, tensors, pairs: (version, tensors, [pair[::-1] for pair in pairs])
    ),
    "pairs_flat": _if_gguf(
        lambda data, version, tensors, pairs: (
            version,
            tensors,
            [part for pair in pairs for part in pair],
        )
    ),
    "sorted": _if_gguf(lambda data, version, tensors, pairs: (version, tensors, sorted(pairs))),
    "version_big_endian": _if_gguf(
        lambda data, version, tensors, pairs: (version << 24, tensors, pairs)
    ),
    "order_swapped": lambda data: tuple(_read_header(data)[place] for place in (1, 0, 2)),
}


READ_HEADER = Exercise("read_header", _read_header, _read_header_cases, READ_HEADER_MISTAKES)


def check_fair_ratio(fair_ratio) -> bool:
    """Check ``fair_ratio(old, new, warmup)``: how many times as fast, and how sure."""
    return grade(fair_ratio, FAIR_RATIO)


def _fair_ratio_cases(seed):
    roll = dice(seed)

    def timed(ratio, spread, warmup):
        """Return 21 rounds on a machine that slows down, some disturbed, behind slow ones."""
        slow = [roll.uniform(3, 9) for _ in range(warmup)]
        slow += [1 if i < 12 else 1.7 for i in range(21)]
        new = [0.01 * each * roll.uniform(1, 1 + spread) for each in slow]
        old = [each * ratio * roll.uniform(1 - spread, 1) for each in new]
        for place in range(warmup):
            old[place] *= 4  # the old one needs longer to get warm
        for times in (old, new):
            times[roll.randrange(warmup, len(times))] *= 12
        return *(torch.tensor(part, dtype=torch.float64) for part in (old, new)), warmup

    def exact(*ratios):
        """Return rounds of such ratios, in any order, in quarters of a second: no rounding."""
        new = torch.tensor([roll.choice((0.25, 0.5, 1.0)) for _ in ratios], dtype=torch.float64)
        return torch.tensor(roll.sample(ratios, len(ratios)), dtype=torch.float64) * new, new, 0

    return [
        until(_clear, lambda: timed(2.0, 0.3, 3)),
        until(_clear, lambda: timed(0.6, 0.3, 2)),
        until(_undecided, lambda: timed(1.3, 0.6, 4)),
        exact(0.5, 1.0, 1.5, 2.0, 3.0),  # the interval begins at 1
        exact(0.25, 0.5, 0.75, 1.0, 4.0),  # it ends there
        exact(1.0, 1.0, 1.0, 1.0, 1.0),
        exact(1.25, 1.5, 1.5, 1.75, 2.5),
        exact(0.25, 0.5, 0.75, 2.0, 3.0),
    ]


def _apart(case):
    """Tell whether quartiles lie apart, and other ways to a ratio from the right one."""
    old, new, warmup = case
    ratio, low, high, _ = _fair_ratio(*case)
    old, new = old[warmup:], new[warmup:]
    others = [(old.median() / new.median()).item(), (old / new).mean().item()]
    others += [(old.sum() / new.sum()).item(), (old.min() / new.min()).item()]
    return all(abs(other - ratio) > 0.02 for other in (*others, low, high))


def _clear(case):
    _, low, high, _ = _fair_ratio(*case)
    return (
        _apart(case) and not 0.9 < low < 1.1 and not 0.9 < high < 1.1 and (low - 1) * (high - 1) > 0
    )


def _undecided(case):
    ratio, low, high, _ = _fair_ratio(*case)
    return _apart(case) and low < 0.95 and high > 1.05 and abs(ratio - 1) > 0.02


def _fair_ratio(old, new, warmup):
    """Let Python's statistics cut the ratios of the rounds into quarters."""
    pairs = list(zip(old.tolist(), new.tolist(), strict=True))[warmup:]
    low, ratio, high = statistics.quantiles((o / n for o, n in pairs), n=4, method="inclusive")
    return ratio, low, high, _verdict(ratio, low, high)


def _verdict(ratio, low, high):
    if low <= 1 <= high:
        return "no difference"
    return "faster" if ratio > 1 else "slower"


def _summed(
    ratios=lambda old, new: old / new,
    kept=lambda values, warmup: values[warmup:],
    summary=lambda r: (r.quantile(0.5), r.quantile(0.25), r.quantile(0.75)),
    verdict=_verdict,
):
    """Return a comparison with one thing about it changed."""

    def answer(old, new, warmup):
        found = summary(ratios(kept(old, warmup), kept(new, warmup)))
        found = [float(each) for each in found]
        return *found, verdict(*found)

    return answer


def _median_of(ratio):
    """Return the right interval and verdict, with another number for the ratio."""
    return but(_fair_ratio, 0, lambda old, new, warmup: float(ratio(old[warmup:], new[warmup:])))


def _mean_and_deviation(ratios):
    mean, deviation = ratios.mean(), ratios.std()
    return mean, mean - deviation, mean + deviation


def _intervals_apart(old, new, warmup):
    """Divide the quartiles of one by those of the other."""
    ratio, *_ = _fair_ratio(old, new, warmup)
    quartiles = [part[warmup:].quantile(0.25).item() for part in (old, new)]
    quartiles += [part[warmup:].quantile(0.75).item() for part in (old, new)]
    low, high = quartiles[0] / quartiles[3], quartiles[2] / quartiles[1]
    return ratio, low, high, _verdict(ratio, low, high)


def _said(verdict):
    """Return another verdict: ``verdict(ratio, low, high)``."""
    return but(_fair_ratio, 3, lambda *case: verdict(*_fair_ratio(*case)[:3]))


FAIR_RATIO_MISTAKES = {
    "warm_up_counted": _summed(kept=lambda values, warmup: values),
    "warm_up_cut_off_behind": _summed(kept=lambda values, warmup: values[: len(values) - warmup]),
    "first_round_alone_dropped": _summed(kept=lambda values, warmup: values[min(warmup, 1) :]),
    "ratio_turned": _summed(ratios=lambda old, new: new / old),
    "difference": _summed(ratios=lambda old, new: old - new),
    "gain": _summed(
        ratios=lambda old, new: old / new - 1, verdict=lambda *r: _verdict(*(x + 1 for x in r))
    ),
    "sorted_first": _summed(ratios=lambda old, new: old.sort().values / new.sort().values),
    "mean_and_deviation": _summed(summary=_mean_and_deviation),
    "mean_of_ratios": _median_of(lambda old, new: (old / new).mean()),
    "ratio_of_medians": _median_of(lambda old, new: old.median() / new.median()),
    "ratio_of_sums": _median_of(lambda old, new: old.sum() / new.sum()),
    "ratio_of_minima": _median_of(lambda old, new: old.min() / new.min()),
    "best_of_the_new": _median_of(lambda old, new: old.median() / new.min()),
    "best_round": _median_of(lambda old, new: (old / new).max()),
    "quartiles_apart": _intervals_apart,
    "smallest_to_largest": _summed(summary=lambda r: (r.quantile(0.5), r.min(), r.max())),
    "tenths": _summed(summary=lambda r: (r.quantile(0.5), r.quantile(0.1), r.quantile(0.9))),
    "bounds_swapped": lambda *case: tuple(_fair_ratio(*case)[i] for i in (0, 2, 1, 3)),
    "in_order": lambda *case: tuple(_fair_ratio(*case)[i] for i in (1, 0, 2, 3)),
    "by_the_median": _said(
        lambda ratio, low, high: "faster" if ratio > 1 else "slower" if ratio < 1 else SAME
    ),
    "bound_is_enough": _said(
        lambda ratio, low, high: "faster" if low >= 1 else "slower" if high <= 1 else SAME
    ),
    "always_a_winner": _said(lambda ratio, low, high: "faster" if ratio > 1 else "slower"),
    "one_end_is_enough": _said(
        lambda ratio, low, high: "faster" if high > 1 else "slower" if low < 1 else SAME
    ),
    "verdict_turned": _said(
        lambda ratio, low, high: {"faster": "slower", "slower": "faster"}.get(
            _verdict(ratio, low, high), SAME
        )
    ),
    "slower_forgotten": _said(lambda ratio, low, high: "faster" if low > 1 else SAME),
}
SAME = "no difference"


FAIR_RATIO = Exercise("fair_ratio", _fair_ratio, _fair_ratio_cases, FAIR_RATIO_MISTAKES)


def check_left_in_floats(left_in_floats) -> bool:
    """Check ``left_in_floats(tensors, least)``: the matrices that were not quantized."""
    return grade(left_in_floats, LEFT_IN_FLOATS)


BYTES = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "F8_E4M3": 1,
    "I64": 8,
    "I32": 4,
    "I8": 1,
    "U8": 1,
}


def _tensor(name, shape, kind):
    return name, shape, kind, math.prod(shape) * BYTES[kind]


def _left_in_floats_cases(seed):
    roll = dice(seed)

    def file(least):
        """Return a file of each kind of trap, in an order that is neither of size nor of name."""
        a, b, c = roll.sample(range(least + 1, 3 * least), 3)
        some = [
            ("table.weight", (5 * b, a), "F16"),
            ("norm.weight", (a,), "F32"),
            ("q.weight", (least, b), "F32"),
            ("k.weight", (a, least - 1), "F32"),
            ("v.weight", (c, a), "BF16"),
            ("mask", (b, 2 * c), "I64"),
            ("positions", (c, a), "I32"),
            ("o.weight", (a, b), "I8"),
            ("o.scale", (a, 3), "F32"),
            ("up.weight", (2 * a, b), "U8"),
            ("up.bias", (4 * least**2,), "F32"),
            ("down.weight", (b, c), "F8_E4M3"),
            ("filter", (a, b, 3), "F32"),
            ("wide", (3 * least**2, 2), "F16"),
            ("head", (c, 2 * b), "F64"),
            ("small", (least - 3, 2), "F32"),
            ("step", (), "F32"),
        ]
        return [_tensor(*each) for each in roll.sample(some, len(some))]

    whole = [("q.weight", (8, 8), "I8"), ("q.scale", (8, 1), "F32"), ("norm", (8,), "F32")]
    few = [("b", (5, 4), "F32"), ("a", (4, 6), "BF16"), ("c", (3, 7), "F32")]
    return [
        ([_tensor(*each) for each in few], 4),
        ([_tensor(*each) for each in whole], 4),  # nothing was forgotten
        (file(16), 16),
        (file(32), 32),
    ]


def _is_float(kind):
    return kind.removeprefix("B") in {"F16", "F32", "F64"}


def _left_in_floats(tensors, least):
    """Sort out by what a number weighs, and count what is above a byte for each."""
    found = {}
    for name, shape, kind, size in tensors:
        rows, columns, *more = (*shape, 0, 0)[: max(len(shape), 2)]
        if not more and rows >= least and columns >= least and _is_float(kind):
            found[name] = rows * columns * (size // (rows * columns) - 1)
    return list(found), sum(found.values())


def _found(
    floats=_is_float,
    large=lambda shape, least: len(shape) == 2 and min(shape) >= least,
    waste=lambda size, count: size - count,
    told=lambda names, wasted: (names, wasted),
):
    """Return a search with one thing about it changed."""

    def answer(tensors, least):
        kept = [each for each in tensors if floats(each[2]) and large(each[1], least)]
        names = [name for name, *_ in kept]
        return told(names, sum(waste(size, math.prod(shape)) for _, shape, _, size in kept))

    return answer


LEFT_IN_FLOATS_MISTAKES = {
    "all_floats": _found(large=lambda shape, least: True),
    "vectors_too": _found(large=lambda shape, least: 0 < len(shape) < 3 and min(shape) >= least),
    "any_matrix": _found(large=lambda shape, least: len(shape) == 2),
    "filters_too": _found(large=lambda shape, least: len(shape) > 1 and min(shape[:2]) >= least),
    "one_side": _found(large=lambda shape, least: len(shape) == 2 and max(shape) >= least),
    "first_side": _found(large=lambda shape, least: len(shape) == 2 and shape[0] >= least),
    "product_of_sides": _found(
        large=lambda shape, least: len(shape) == 2 and math.prod(shape) >= least**2
    ),
    "more_than_least": _found(large=lambda shape, least: len(shape) == 2 and min(shape) > least),
    "halves_forgotten": _found(floats=lambda kind: kind in ("F32", "F64")),
    "only_32_bits": _found(floats=lambda kind: kind == "F32"),
    "bfloat_forgotten": _found(floats=lambda kind: kind in ("F16", "F32", "F64")),
    "eight_bits_too": _found(floats=lambda kind: "F" in kind),
    "not_a_byte": _found(floats=lambda kind: BYTES[kind] > 1),
    "integers": _found(floats=lambda kind: BYTES[kind] == 1),
    "all_bytes": _found(waste=lambda size, count: size),
    "in_numbers": _found(waste=lambda size, count: count),
    "three_quarters": _found(waste=lambda size, count: size * 3 // 4),
    "one_half": _found(waste=lambda size, count: size // 2),
    "in_bits": _found(waste=lambda size, count: 8 * (size - count)),
    "against_4_bits": _found(waste=lambda size, count: size - count / 2),
    "of_one": _found(waste=lambda size, count: size // count - 1),
    "sorted": _found(told=lambda names, wasted: (sorted(names), wasted)),
    "how_many": _found(told=lambda names, wasted: (len(names), wasted)),
    "order_swapped": _found(told=lambda names, wasted: (wasted, names)),
}


LEFT_IN_FLOATS = Exercise(
    "left_in_floats", _left_in_floats, _left_in_floats_cases, LEFT_IN_FLOATS_MISTAKES
)


# --- worked out by hand, from the numbers of a variant ---


def _phone(longest_context, memory, weights, table, keys):
    model = round(weights * 10**9), table * 10**6, 32, keys
    return longest_context((memory * 10**9, 0.5, 50e9), model, (4, 8, 16), 32)[0]


PHONE = ByHand(LONGEST_CONTEXT, _phone)
