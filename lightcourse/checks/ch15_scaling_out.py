"""Checks of the exercises of chapter 15."""

import hashlib
import itertools
import math
import re

import numpy as np

from lightcourse.checks.by_hand import ByHand
from lightcourse.checks.cases import dice
from lightcourse.checks.grading import Exercise, grade


def check_ring_sent(ring_sent) -> bool:
    """Check ``ring_sent(numbers, width, ranks)``: bytes in both halves of a ring all-reduce."""
    return grade(ring_sent, RING_SENT)


def _ring_sent_cases(seed):
    roll = dice(seed)

    def case(ranks, rest):
        return ranks * roll.randint(20, 90) + rest, roll.choice([2, 4, 8]), ranks

    kinds = [(1, 0), (2, 1), (3, 1), (3, 2), (4, 0), (5, 3), (6, 1)]
    return [*(case(*kind) for kind in kinds), (3, 4, 5)]


def _ring_sent(numbers, width, ranks):
    """Let the pieces go around, round by round, and weigh what each process hands on."""
    holds = [np.full(numbers, 2**rank, f"u{width}") for rank in range(ranks)]
    pieces = [np.array_split(held, ranks) for held in holds]
    sent = np.zeros((2, ranks), int)
    for step in range(2 * (ranks - 1)):
        half = step // (ranks - 1)
        going = [pieces[rank][(rank - step) % ranks].copy() for rank in range(ranks)]
        for rank, piece in enumerate(going):
            sent[half, rank] += piece.nbytes
            into = pieces[(rank + 1) % ranks][(rank - step) % ranks]
            into[...] = piece if half else into + piece
    assert all((held == 2**ranks - 1).all() for held in holds)
    return tuple(sent.tolist())


def _cut(numbers, width, ranks):
    whole, rest = divmod(numbers, ranks)
    return [width * whole + width * (place < rest) for place in range(ranks)]


def _all_but(step):
    """Return the bytes of all pieces but one, so many places behind a process's own."""
    return lambda sizes, rank: sum(sizes) - sizes[(rank + step) % len(sizes)]


SCATTER, GATHER = _all_but(1), _all_but(2)


def _sent(cut=_cut, scatter=SCATTER, gather=GATHER, told=lambda each: each):
    """Return what is sent in both halves with something about it changed."""

    def answer(numbers, width, ranks):
        sizes = cut(numbers, width, ranks)
        halves = [[half(sizes, rank) for rank in range(ranks)] for half in (scatter, gather)]
        return told(tuple(halves))

    return answer


def _both(half):
    return _sent(scatter=half, gather=half)


def _scaled(factor):
    return _sent(cut=lambda numbers, width, ranks: _cut(numbers, width * factor, ranks))


def _unless_alone(step):
    return lambda sizes, rank: sum(sizes) if len(sizes) == 1 else _all_but(step)(sizes, rank)


RING_SENT_MISTAKES = {
    "equal_pieces": _sent(cut=lambda n, width, ranks: [n * width / ranks] * ranks),
    "rest_lost": _sent(cut=lambda n, width, ranks: [n // ranks * width] * ranks),
    "padded": _sent(cut=lambda n, width, ranks: [-(-n // ranks) * width] * ranks),
    "longer_last": _sent(cut=lambda *case: _cut(*case)[::-1]),
    "numbers_cut": _sent(cut=lambda n, width, ranks: _cut(n * width, 1, ranks)),
    "nothing_left_out": _both(lambda sizes, rank: sum(sizes)),
    "whole_each_round": _both(lambda sizes, rank: sum(sizes) * (len(sizes) - 1)),
    "one_round": _both(lambda sizes, rank: sizes[rank] if len(sizes) > 1 else 0),
    "own_left_out": _both(_all_but(0)),
    "received": _sent(scatter=_all_but(0), gather=_all_but(1)),
    "gather_as_scatter": _sent(gather=_all_but(1)),
    "gather_from_own": _sent(gather=_all_but(0)),
    "other_way": _sent(scatter=_all_but(-1), gather=_all_but(-2)),
    "numbers_for_bytes": _sent(cut=lambda n, width, ranks: _cut(n, 1, ranks)),
    "bits_for_bytes": _scaled(8),
    "both_neighbours": _scaled(2),
    "to_the_first": _sent(
        scatter=lambda sizes, rank: sum(sizes) if rank else 0,
        gather=lambda sizes, rank: 0 if rank else sum(sizes) * (len(sizes) - 1),
    ),
    "alone_sends": _sent(scatter=_unless_alone(1), gather=_unless_alone(2)),
    "most_of_all": _sent(told=lambda halves: tuple([max(half)] * len(half) for half in halves)),
    "totals": _sent(told=lambda halves: tuple(map(sum, halves))),
    "one_list": _sent(told=lambda halves: [a + b for a, b in zip(*halves, strict=True)]),
    "order_swapped": _sent(told=lambda halves: halves[::-1]),
}


RING_SENT = Exercise("ring_sent", _ring_sent, _ring_sent_cases, RING_SENT_MISTAKES)


def check_share_out(share_out) -> bool:
    """Check ``share_out(tensors, ranks)``: the greedy rule, and how busy the processes are."""
    return grade(share_out, SHARE_OUT)


PARTS = ["query", "key", "value", "out", "gate", "up", "down", "norm"]


def _share_out_cases(seed):
    roll = dice(seed)

    def case(sizes, ranks):
        every = [f"{layer}.{part}" for layer in range(3) for part in PARTS]
        names = roll.sample(every, len(sizes))
        return list(zip(names, roll.sample(sizes, len(sizes)), strict=True)), ranks

    def drawn(count):
        return roll.sample(range(100, 999), count)

    small, unit = drawn(5), roll.randint(20, 60)
    return [
        case(drawn(7), 3),
        case([3 * unit] * 3 + [2 * unit] * 3 + [unit], 3),
        case([unit] * 6, 3),
        case(small[:3], 5),
        case(small[:4], 1),
        case([3 * unit, 3 * unit, 2 * unit, 2 * unit, 2 * unit], 2),
        case([*drawn(6), 0], 2),
        case([*drawn(2), 9_000, 8_000, unit, unit, unit], 3),
    ]


def _share_out(tensors, ranks):
    """Enumerate all ways to share out; the greedy one is the least, choice after choice."""
    order = sorted(tensors, key=lambda pair: pair[0])
    order = sorted(order, key=lambda pair: pair[1], reverse=True)

    def choices(way):
        loads = [0] * ranks
        for rank, (_, size) in zip(way, order, strict=True):
            loads[rank] += size
            yield loads[rank], rank

    def steps(way):
        return list(choices(way))

    best = min(itertools.product(range(ranks), repeat=len(order)), key=steps)
    owner = {name: rank for rank, (name, _) in zip(best, order, strict=True)}
    own = [[pair for pair in tensors if owner[pair[0]] == rank] for rank in range(ranks)]
    loads = np.array([sum(size for _, size in pairs) for pairs in own])
    return [[name for name, _ in pairs] for pairs in own], float(loads.mean() / loads.max())


def _by_size(tensors):
    return sorted(tensors, key=lambda pair: (-pair[1], pair[0]))


def _lightest(loads, taken):
    return loads.index(min(loads))


def _in_turn(loads, taken):
    return taken % len(loads)


def _back_and_forth(loads, taken):
    turn, place = divmod(taken, len(loads))
    return len(loads) - 1 - place if turn % 2 else place


def _last_lightest(loads, taken):
    return max(rank for rank, load in enumerate(loads) if load == min(loads))


def _names(own, tensors):
    return [[name for name, _ in tensors if name in names] for names in own]


def _shared(
    order=_by_size,
    choose=_lightest,
    listed=_names,
    busy=lambda loads: sum(loads) / len(loads) / max(loads),
):
    """Return who gets what, and how busy all are, with something about it changed."""

    def answer(tensors, ranks):
        own, loads = [[] for _ in range(ranks)], [0] * ranks
        for taken, (name, size) in enumerate(order(tensors)):
            rank = choose(loads, taken)
            own[rank].append(name)
            loads[rank] += size
        return listed(own, tensors), busy(loads)

    return answer


def _in_blocks(tensors, ranks):
    blocks = np.array_split(np.arange(len(tensors)), ranks)
    owners = [rank for rank, block in enumerate(blocks) for _ in block]
    return _shared(order=list, choose=lambda loads, taken: owners[taken])(tensors, ranks)


SHARE_OUT_MISTAKES = {
    "as_given": _shared(order=list),
    "smallest_first": _shared(order=lambda tensors: sorted(tensors, key=lambda p: (p[1], p[0]))),
    "by_name_first": _shared(order=sorted),
    "in_turn": _shared(order=list, choose=_in_turn),
    "in_turn_by_size": _shared(choose=_in_turn),
    "back_and_forth": _shared(choose=_back_and_forth),
    "in_blocks": _in_blocks,
    "heaviest": _shared(choose=lambda loads, taken: loads.index(max(loads))),
    "last_rank_at_ties": _shared(choose=_last_lightest),
    "ties_as_given": _shared(order=lambda tensors: sorted(tensors, key=lambda p: -p[1])),
    "ties_from_the_end": _shared(
        order=lambda tensors: sorted(sorted(tensors)[::-1], key=lambda p: -p[1])
    ),
    "as_taken": _shared(listed=lambda own, tensors: own),
    "listed_by_name": _shared(listed=lambda own, tensors: list(map(sorted, own))),
    "sizes": _shared(
        listed=lambda own, tensors: [[size for n, size in tensors if n in names] for names in own]
    ),
    "ranks_of_tensors": _shared(
        listed=lambda own, tensors: [
            next(rank for rank, names in enumerate(own) if n in names) for n, _ in tensors
        ]
    ),
    "idle_left_out": _shared(
        listed=lambda own, tensors: [names for names in _names(own, tensors) if names]
    ),
    "turned": _shared(busy=lambda loads: max(loads) * len(loads) / sum(loads)),
    "busy_ranks_alone": _shared(
        busy=lambda loads: sum(loads) / sum(load > 0 for load in loads) / max(loads)
    ),
    "least_over_most": _shared(busy=lambda loads: min(loads) / max(loads)),
    "idle_share": _shared(busy=lambda loads: 1 - sum(loads) / len(loads) / max(loads)),
    "most_of_all_work": _shared(busy=lambda loads: max(loads) / sum(loads)),
    "work_over_most": _shared(busy=lambda loads: sum(loads) / max(loads)),
    "most_bytes": _shared(busy=max),
    "order_swapped": lambda tensors, ranks: _shared()(tensors, ranks)[::-1],
}


SHARE_OUT = Exercise("share_out", _share_out, _share_out_cases, SHARE_OUT_MISTAKES)


def check_to_do(to_do) -> bool:
    """Check ``to_do(pieces, journal, files)``: what is done again, and what is thrown away."""
    return grade(to_do, TO_DO)


def _digest(content):
    return hashlib.sha256(content).hexdigest()


def _to_do_cases(seed):
    roll = dice(seed)

    def content():
        return np.array([roll.randrange(256) for _ in range(roll.randint(3, 9))], np.uint8)

    def told(kind, name, bytes_):
        """Return the lines and the files of a piece, by what has happened to it."""
        part, right, wrong = f".{name}.part", f"{name} {_digest(bytes_)}", _digest(content())
        return {
            "whole": ([right], [(name, bytes_)]),
            "missing": ([right], []),
            "changed": ([right], [(name, content())]),
            "not_noted": ([], [(name, bytes_)]),
            "emptied": ([right], [(name, bytes_[:0])]),
            "begun": ([], [(part, bytes_[:2])]),
            "not_renamed": ([right], [(part, bytes_)]),
            "made_twice": ([f"{name} {wrong}", right], [(name, bytes_)]),
            "older_file": ([right, f"{name} {wrong}"], [(name, bytes_)]),
            "part_beside": ([right], [(name, bytes_), (part, bytes_[:1])]),
            "nothing": ([], []),
        }[kind]

    def case(kinds, end):
        """Return a folder: pieces of some kinds, and four more; of the journal, the end is cut."""
        names = roll.sample([f"{n:02}.{word}" for n in range(20) for word in PARTS], len(kinds) + 4)
        found, noted = [], []
        for kind, name in zip(kinds, names, strict=False):
            lines, there = told(kind, name, content())
            found, noted = found + there, [*noted, lines]
        torn, glued, other, last = names[-4:]
        own = {name: content() for name in names[-4:]}
        right = {name: f"{name} {_digest(held)}" for name, held in own.items()}
        found += (own | {other: own[last]}).items()
        found += [(name, content()) for name in ("config.json", ".elsewhere.part", "journal.txt")]
        noted = sum(roll.sample(noted, len(noted)), [])
        half = len(noted) // 2
        written = _digest(content())[: roll.randint(5, 20) if end else 0]
        broken = f"{torn} {written}{right[glued]}"
        lines = [
            right[torn],
            *noted[:half],
            broken,
            *noted[half:],
            f"elsewhere {_digest(content())}",
        ]
        text = "".join(f"{line}\n" for line in [*lines, right[other], right[last]])
        text = text[: len(text) - end] if end is not None else ""
        return roll.sample(names, len(names)), text, roll.sample(found, len(found))

    every = ["whole", "missing", "changed", "emptied", "not_noted", "begun", "not_renamed"]
    every += ["made_twice", "older_file", "part_beside", "nothing"]
    return [
        case(every, 0),
        case(every, 1),
        case([*every, "whole", "made_twice"], roll.randint(20, 50)),
        case(["whole", "whole", "part_beside"], 0),
        case(["whole", "begun", "not_noted"], None),
    ]


def _to_do(pieces, journal, files):
    """Take each piece by itself, and ask for the last sound line about it."""
    again, away = [], []
    for piece in pieces:
        lines = re.findall(rf"^{re.escape(piece)} ([0-9a-f]{{64}})\n", journal, re.MULTILINE)
        hashes = [hashlib.sha256(bytes(content)).hexdigest() for n, content in files if n == piece]
        if not lines or hashes != lines[-1:]:
            again.append(piece)
            away += [place for place, (name, _) in enumerate(files) if name == piece]
        away += [place for place, (name, _) in enumerate(files) if name == f".{piece}.part"]
    return again, [files[place][0] for place in sorted(away)]


def _sound(journal):
    """Return (name, digest) of each line that is whole and is nothing else."""
    lines = journal.splitlines(keepends=True)
    return [tuple(line.split()) for line in lines if line[-1] == "\n" and len(line.split()) == 2]


def _unsound(journal):
    return [line.split(" ") for line in journal.split("\n") if line]


def _until_damage(journal):
    lines = [line.split() for line in journal.split("\n")[:-1]]
    return [tuple(line) for line in itertools.takewhile(lambda line: len(line) == 2, lines)]


def _finished(name, lines, there):
    told = [digest for line, digest in lines if line == name]
    return name in there and told[-1:] == [there[name]]


def _or_its_part(name, lines, there):
    there = there | ({name: there[f".{name}.part"]} if f".{name}.part" in there else {})
    return _finished(name, lines, there)


def _unfinished(done, pieces, lines, there):
    return [name for name in pieces if not done(name, lines, there)]


def _leftovers(again, pieces, there, files):
    """Return what the pieces to be made again have left, and parts of any."""
    gone = {*again, *(f".{name}.part" for name in pieces)}
    return [name for name, _ in files if name in gone]


def _resumed(read=_sound, done=_finished, again=_unfinished, away=_leftovers, told=tuple):
    """Return both lists with something about them changed."""

    def answer(pieces, journal, files):
        lines, there = read(journal), {name: _digest(content) for name, content in files}
        todo = again(done, pieces, lines, there)
        return told([todo, away(todo, pieces, there, files)])

    return answer


def _other_list(found):
    """Return another list of pieces beside the right files to throw away."""
    return lambda *case: (found(_to_do(*case)[0], *case), _to_do(*case)[1])


def _other_files(fits):
    """Return the files that fit, beside the right list of pieces."""

    def answer(pieces, journal, files):
        again = _to_do(pieces, journal, files)[0]
        return again, [name for name, _ in files if fits(name, again, pieces)]

    return answer


def _is_part(name):
    return name.startswith(".") and name.endswith(".part")


def _part_of(name, pieces):
    return any(name == f".{piece}.part" for piece in pieces)


TO_DO_MISTAKES = {
    "journal_believed": _resumed(done=lambda name, lines, there: name in dict(lines)),
    "files_believed": _resumed(done=lambda name, lines, there: name in there),
    "not_compared": _resumed(done=lambda name, lines, there: name in dict(lines) and name in there),
    "torn_line_read": _resumed(
        read=lambda text: [tuple(line) for line in _unsound(text) if len(line) == 2]
    ),
    "last_line_lost": _resumed(read=lambda text: _sound(text[: text[:-1].rfind("\n") + 1])),
    "glued_line_read": _resumed(
        read=lambda text: [(line[0], line[-1]) for line in _unsound(text[: text.rfind("\n") + 1])]
    ),
    "glued_end_read": _resumed(
        read=lambda text: [tuple(line[-2:]) for line in _unsound(text[: text.rfind("\n") + 1])]
    ),
    "stopped_at_damage": _resumed(read=_until_damage),
    "first_line": _resumed(read=lambda text: _sound(text)[::-1]),
    "any_line": _resumed(
        done=lambda name, lines, there: name in there and (name, there[name]) in lines
    ),
    "any_name": _resumed(
        done=lambda name, lines, there: there.get(name) in [digest for _, digest in lines]
    ),
    "all_lines": _resumed(
        done=lambda name, lines, there: (
            {d for line, d in lines if line == name} == {there.get(name)}
        )
    ),
    "part_taken": _resumed(done=_or_its_part),
    "missing_passed": _resumed(
        done=lambda name, lines, there: name not in there or _finished(name, lines, there)
    ),
    "not_noted_passed": _resumed(
        done=lambda name, lines, there: (
            name in there and dict(lines).get(name, there[name]) == there[name]
        )
    ),
    "everything": _resumed(done=lambda name, lines, there: False),
    "finished_listed": _other_list(lambda again, pieces, *_: [p for p in pieces if p not in again]),
    "by_name": _other_list(lambda again, *_: sorted(again)),
    "strangers": _other_list(lambda again, *_: [*again, "elsewhere"]),
    "how_many": _other_list(lambda again, *_: len(again)),
    "nothing_away": _other_files(lambda name, again, pieces: False),
    "parts_alone": _other_files(lambda name, again, pieces: _part_of(name, pieces)),
    "parts_kept": _other_files(lambda name, again, pieces: name in again),
    "parts_of_unfinished": _other_files(
        lambda name, again, pieces: name in again or _part_of(name, again)
    ),
    "every_part": _other_files(lambda name, again, pieces: name in again or _is_part(name)),
    "strangers_away": _other_files(lambda name, again, pieces: name in again or name not in pieces),
    "all_away": _other_files(lambda name, again, pieces: True),
    "not_there": lambda pieces, journal, files: (
        _to_do(pieces, journal, files)[0],
        [*_to_do(pieces, journal, files)[0], *(f".{name}.part" for name in pieces)],
    ),
    "order_swapped": lambda *case: _to_do(*case)[::-1],
}


TO_DO = Exercise("to_do", _to_do, _to_do_cases, TO_DO_MISTAKES)


def check_step_seconds(step_seconds) -> bool:
    """Check ``step_seconds(cluster, job, pieces)``: alone, data parallel, as a pipeline."""
    return grade(step_seconds, STEP_SECONDS)


def _step_seconds_cases(seed):
    roll = dice(seed)

    def case(nodes, pieces, room):
        """Return a case in which a machine holds the model, times ``room``."""
        memory, latency = 12 * roll.randint(100, 900), roll.uniform(0.01, 0.04)
        held = round(memory / room)
        ways = roll.uniform(1, 3), roll.uniform(5, 9)
        sizes = roll.randint(3_000, 5_000), roll.randint(500, 1_500)
        return (nodes, roll.randint(1_000, 2_000), latency, memory), (*ways, held, *sizes), pieces

    kinds = [(1, 3, 2), (2, 5, 1), (4, 8, 1.5), (3, 1, 3), (5, 2, 1), (1, 1, 0.5)]
    return [case(*kind) for kind in [*kinds, (4, 4, 1 / 4), (3, 6, 1 / 2), (2, 3, 1 / 3)]]


def _step_seconds(cluster, job, pieces):
    """Play the steps: machines that compute, then send, and wait for what has not arrived."""
    nodes, bandwidth, latency, memory = cluster
    forward, backward, held, gradients, activations = job
    data, clock = forward / nodes + backward / nodes, 0
    for _ in range(1, nodes):  # a piece of a sum goes one machine on, and later comes back whole
        for _ in ("adding", "telling"):
            data += latency + gradients / (nodes * bandwidth)
    for way in (forward, backward):
        clock = _played(nodes, [way / nodes / pieces] * pieces, activations, cluster, clock)
    whole, shared = (math.inf if part > memory else 0 for part in (held, held / nodes))
    return forward + backward + whole, data + whole, clock + shared


def _played(nodes, turns, activations, cluster, clock):
    """Return when the last piece has left a line of machines that is free at some time."""
    arrived = [clock] * len(turns)
    for machine in range(nodes):
        free, left = clock, []
        for turn, there in zip(turns, arrived, strict=True):
            free = max(free, there) + turn
            if machine < nodes - 1:
                free += cluster[2] + activations / len(turns) / cluster[1]
            left.append(free)
        arrived = left
    return arrived[-1]


def _alone(c, j, pieces):
    return j[0] + j[1] if j[2] <= c[3] else math.inf


def _data(rounds=lambda n: 2 * n - 2, message=lambda c, j: c[2] + j[3] / c[0] / c[1], work=_alone):
    """Return the seconds of a data-parallel step with something about it changed."""

    def seconds(c, j, pieces):
        return work(c, j, pieces) / c[0] + rounds(c[0]) * message(c, j)

    return seconds


def _hop(c, j, pieces):
    return c[2] + j[4] / pieces / c[1] if c[0] > 1 else 0


def _pipeline(
    turn=lambda c, j, pieces, way: way / c[0] / pieces,
    hop=_hop,
    line=lambda n, m, turn, hop: (n + m - 2) * (turn + hop) + turn,
    ways=lambda j: j[:2],
    fits=lambda c, j: j[2] / c[0] <= c[3],
):
    """Return the seconds of a pipeline's step with something about it changed."""

    def seconds(c, j, pieces):
        if not fits(c, j):
            return math.inf
        sent = hop(c, j, pieces)
        return sum(line(c[0], pieces, turn(c, j, pieces, way), sent) for way in ways(j))

    return seconds


DATA, PIPELINE = _data(), _pipeline()


def _steps(alone=_alone, data=DATA, pipeline=PIPELINE, told=lambda found: found):
    """Return the three times with some of them changed."""
    return lambda *case: told((alone(*case), data(*case), pipeline(*case)))


def _with_data(**changed):
    return _steps(data=_data(**changed))


def _with_pipeline(**changed):
    return _steps(pipeline=_pipeline(**changed))


def _anywhere(c, j, pieces):
    return j[0] + j[1]


def _pooled(c, j, pieces):
    return j[0] + j[1] if j[2] <= c[0] * c[3] else math.inf


def _with_room(c, j, pieces):
    return j[0] + j[1] if j[2] < c[3] else math.inf


STEP_SECONDS_MISTAKES = {
    "forward_alone": _steps(lambda c, j, pieces: _alone(c, j, pieces) * j[0] / (j[0] + j[1])),
    "memory_ignored": _steps(_anywhere, _data(work=_anywhere), _pipeline(fits=lambda c, j: True)),
    "alone_anywhere": _steps(_anywhere),
    "alone_in_all_memories": _steps(_pooled),
    "room_wanted": _steps(
        _with_room, _data(work=_with_room), _pipeline(fits=lambda c, j: j[2] / c[0] < c[3])
    ),
    "data_in_shares": _with_data(work=_pooled),
    "data_anywhere": _with_data(work=_anywhere),
    "data_not_shared": _with_data(work=lambda c, j, m: c[0] * _alone(c, j, m)),
    "sums_forgotten": _with_data(message=lambda c, j: 0),
    "half_of_the_rounds": _with_data(rounds=lambda n: n - 1),
    "one_message": _with_data(rounds=lambda n: 1),
    "a_round_each": _with_data(rounds=lambda n: 2 * n),
    "all_gradients_each_round": _with_data(message=lambda c, j: c[2] + j[3] / c[1]),
    "latency_forgotten_in_sums": _with_data(message=lambda c, j: j[3] / c[0] / c[1]),
    "latency_once": _steps(
        data=lambda c, j, m: _data(message=lambda c, j: j[3] / c[0] / c[1])(c, j, m) + c[2]
    ),
    "activations_summed": _with_data(message=lambda c, j: c[2] + j[4] / c[0] / c[1]),
    "no_bubble": _with_pipeline(line=lambda n, m, turn, hop: m * turn + (m - (n == 1)) * hop),
    "bubble_of_all": _with_pipeline(line=lambda n, m, turn, hop: (n + m - 1) * (turn + hop) + turn),
    "one_bubble": _steps(
        pipeline=lambda c, j, m: _pipeline()(c, j, m) - (c[0] - 1) * j[1] / c[0] / m
    ),
    "backward_forgotten": _with_pipeline(ways=lambda j: j[:1]),
    "hops_forgotten": _with_pipeline(hop=lambda c, j, m: 0),
    "hops_of_one_piece": _with_pipeline(
        line=lambda n, m, turn, hop: (n + m - 1) * turn + (n - 1) * hop
    ),
    "hops_hidden": _with_pipeline(line=lambda n, m, turn, hop: (n + m - 2) * max(turn, hop) + turn),
    "last_sends": _with_pipeline(line=lambda n, m, turn, hop: (n + m - 1) * (turn + hop)),
    "one_machine_sends": _with_pipeline(hop=lambda c, j, m: c[2] + j[4] / m / c[1]),
    "whole_batch_sent": _with_pipeline(hop=lambda c, j, m: c[2] + j[4] / c[1] if c[0] > 1 else 0),
    "latency_forgotten_in_hops": _with_pipeline(hop=lambda c, j, m: j[4] / m / c[1] * (c[0] > 1)),
    "gradients_sent": _with_pipeline(hop=lambda c, j, m: c[2] + j[3] / m / c[1] if c[0] > 1 else 0),
    "shares_of_activations": _with_pipeline(
        hop=lambda c, j, m: c[2] + j[4] / m / c[0] / c[1] if c[0] > 1 else 0
    ),
    "batch_not_cut": _with_pipeline(turn=lambda c, j, m, way: way / c[0]),
    "layers_not_shared": _with_pipeline(turn=lambda c, j, m, way: way / m),
    "pipeline_whole": _with_pipeline(fits=lambda c, j: j[2] <= c[3]),
    "pipeline_anywhere": _with_pipeline(fits=lambda c, j: True),
    "sums_too": _steps(
        pipeline=lambda c, j, m: _pipeline()(c, j, m) + 2 * (c[0] - 1) * (c[2] + j[3] / c[0] / c[1])
    ),
    "order_swapped": _steps(told=lambda found: (found[0], found[2], found[1])),
}


STEP_SECONDS = Exercise("step_seconds", _step_seconds, _step_seconds_cases, STEP_SECONDS_MISTAKES)


# --- worked out by hand, from the numbers of a variant ---


def _sent_megabytes(ring_sent, megabytes, ranks):
    """Send ten numbers for each process, and scale."""
    found = []
    for each in (2, ranks):
        adding, telling = ring_sent(10 * each, 4, each)
        found.append((adding[0] + telling[0]) / (40 * each) * megabytes)
    return found


def _times_as_fast(step_seconds, nodes, some, many):
    cluster, job = (nodes, 1e9, 0.0, 1), (1.0, 2.0, 0, 0, 0)
    seconds = [step_seconds(cluster, job, pieces) for pieces in (1, some, many)]
    return [alone / pipeline for alone, _, pipeline in seconds]


SENT_MEGABYTES = ByHand(RING_SENT, _sent_megabytes)
TIMES_AS_FAST = ByHand(STEP_SECONDS, _times_as_fast)
