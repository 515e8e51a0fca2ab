"""Checks of the exercises of chapter 12."""

import functools
import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch

from lightcourse.checks import comparing
from lightcourse.checks.by_hand import ByHand
from lightcourse.checks.cases import but, dice, normal, until
from lightcourse.checks.grading import Exercise, grade


def check_count_shared(count_shared) -> bool:
    """Check ``count_shared(vocabulary, layer, stack, context)``: stored, run, the cache."""
    return grade(count_shared, COUNT_SHARED)


def _count_shared_cases(seed):
    roll = dice(seed)

    def case(narrow, tied, groups):
        words, context = roll.randint(200, 400), roll.randint(20, 90)
        keys, width, inner = sorted(roll.sample(range(9, 60), 3))
        words_in = roll.randint(3, 8) if narrow else width
        stack = roll.choice([3, 4, 5]) * groups, groups
        return (words, words_in, tied), (width, keys, inner), stack, context

    kinds = itertools.product((False, True), (False, True), (1, 2, 3))
    return [case(*kind) for kind in kinds]


def _count_shared(vocabulary, layer, stack, context):
    """Make all tensors on a device without memory, and go through them as a token does."""
    (words, narrow, tied), (width, keys, inner), (layers, groups) = vocabulary, layer, stack
    sides = [(width, width), (keys, width), (keys, width), (width, width)]
    sides += [(inner, width), (inner, width), (width, inner)]
    ends = [(words, narrow), (width, narrow)][: 1 if narrow == width else 2]
    with torch.device("meta"):
        blocks = [[torch.empty(side) for side in sides] for _ in range(groups)]
        tables = [[torch.empty(side) for side in ends] for _ in range(1 if tied else 2)]
        cache = [torch.empty(2, keys, context, dtype=torch.float16) for _ in range(layers)]
    met = [blocks[place * groups // layers] for place in range(layers)]
    met += [tables[0][1:], tables[-1]]

    def numbers(parts):
        return sum(tensor.numel() for part in parts for tensor in part)

    return numbers(blocks + tables), numbers(met), sum(each.nbytes for each in cache)


@dataclass(frozen=True)
class _Shape:
    """What there is to count in a shared model."""

    words: int
    narrow: int
    tied: bool
    width: int
    keys: int
    inner: int
    layers: int
    groups: int
    context: int

    @property
    def block(self):
        return 2 * self.width * (self.width + self.keys) + 3 * self.width * self.inner

    @property
    def table(self):
        return self.words * self.narrow

    @property
    def bridge(self):
        return self.width * self.narrow if self.narrow < self.width else 0

    @property
    def tables(self):
        return 1 if self.tied else 2

    @property
    def stored(self):
        return self.groups * self.block + self.tables * (self.table + self.bridge)

    @property
    def run(self):
        return self.layers * self.block + self.table + 2 * self.bridge

    @property
    def cache(self):
        return 4 * self.layers * self.keys * self.context


def _tells(stored=None, run=None, cache=None, told=lambda found: found):
    """Return the three counts with something about them changed."""

    def answer(vocabulary, layer, stack, context):
        shape = _Shape(*vocabulary, *layer, *stack, context)
        changed = {"stored": stored, "run": run, "cache": cache}
        return told(
            tuple(getattr(shape, n) if new is None else new(shape) for n, new in changed.items())
        )

    return answer


def _block(count):
    """Return the counts when one layer has ``count`` numbers more."""
    return _tells(
        stored=lambda s: s.stored + s.groups * count(s), run=lambda s: s.run + s.layers * count(s)
    )


COUNT_SHARED_MISTAKES = {
    "layers_stored": _tells(lambda s: s.stored + (s.layers - s.groups) * s.block),
    "one_layer_stored": _tells(lambda s: s.stored - (s.groups - 1) * s.block),
    "layers_of_a_group": _tells(lambda s: s.stored + (s.layers // s.groups - s.groups) * s.block),
    "table_stored_twice": _tells(lambda s: s.stored + s.tied * (s.table + s.bridge)),
    "table_stored_once": _tells(lambda s: s.stored - (not s.tied) * (s.table + s.bridge)),
    "tie_turned": _tells(lambda s: s.stored + (1 if s.tied else -1) * (s.table + s.bridge)),
    "table_not_stored": _tells(lambda s: s.stored - s.tables * (s.table + s.bridge)),
    "tied_table_not_stored": _tells(lambda s: s.stored - s.tied * (s.table + s.bridge)),
    "bridge_not_stored": _tells(lambda s: s.stored - s.tables * s.bridge),
    "bridge_stored_once": _tells(lambda s: s.stored - (s.tables - 1) * s.bridge),
    "bridge_stored_twice": _tells(lambda s: s.stored + (2 - s.tables) * s.bridge),
    "wide_table": _tells(
        lambda s: s.stored + s.tables * s.words * (s.width - s.narrow),
        lambda s: s.run + s.words * (s.width - s.narrow),
    ),
    "bridge_without_need": _tells(
        lambda s: s.stored + (not s.bridge) * s.tables * s.width * s.narrow,
        lambda s: s.run + (not s.bridge) * 2 * s.width * s.narrow,
    ),
    "keys_as_wide": _block(lambda s: 2 * s.width * (s.width - s.keys)),
    "values_forgotten": _block(lambda s: -s.width * s.keys),
    "output_forgotten": _block(lambda s: -s.width * s.width),
    "two_matrices": _block(lambda s: -s.width * s.inner),
    "attention_alone": _block(lambda s: -3 * s.width * s.inner),
    "groups_run": _tells(run=lambda s: s.run - (s.layers - s.groups) * s.block),
    "one_layer_run": _tells(run=lambda s: s.run - (s.layers - 1) * s.block),
    "look_up_multiplies": _tells(run=lambda s: s.run + s.table),
    "output_table_not_run": _tells(run=lambda s: s.run - s.table),
    "tied_table_not_run": _tells(run=lambda s: s.run - s.tied * s.table),
    "wide_table_run": _tells(run=lambda s: s.run + s.words * (s.width - s.narrow)),
    "bridge_not_run": _tells(run=lambda s: s.run - 2 * s.bridge),
    "bridge_run_once": _tells(run=lambda s: s.run - s.bridge),
    "tied_bridge_run_once": _tells(run=lambda s: s.run - s.tied * s.bridge),
    "stored_is_run": _tells(run=lambda s: s.stored),
    "whole_text_run": _tells(run=lambda s: s.run * s.context),
    "attention_products": _tells(run=lambda s: s.run + 2 * s.layers * s.width * s.context),
    "cache_of_groups": _tells(cache=lambda s: s.cache // s.layers * s.groups),
    "cache_of_a_layer": _tells(cache=lambda s: s.cache // s.layers),
    "cache_of_keys": _tells(cache=lambda s: s.cache // 2),
    "cache_as_wide": _tells(cache=lambda s: s.cache // s.keys * s.width),
    "cache_in_float32": _tells(cache=lambda s: 2 * s.cache),
    "cache_of_a_token": _tells(cache=lambda s: s.cache // s.context),
    "stored_in_bytes": _tells(lambda s: 2 * s.stored),
    "order_swapped": _tells(told=lambda found: (found[1], found[0], found[2])),
}


COUNT_SHARED = Exercise("count_shared", _count_shared, _count_shared_cases, COUNT_SHARED_MISTAKES)


def check_task_shares(task_shares) -> bool:
    """Check ``task_shares(sizes, limit, temperature, rows)``: shares of tasks, epochs of rows."""
    return grade(task_shares, TASK_SHARES)


def _task_shares_cases(seed):
    roll = dice(seed)

    def case(temperature, limited, count=4):
        small, *large = (roll.randint(11, 40) * 7**place for place in range(count))
        sizes = roll.sample([small, *large], count)
        limit = roll.randint(small + 20, 3 * small + 40) if limited else math.inf
        return sizes, limit, temperature, roll.randint(50, 5000)

    settings = [(1, False), (2, True), (math.inf, True), (roll.uniform(3, 6), False), (0.5, True)]
    return [case(*setting) for setting in settings] + [case(math.inf, False, 3)]


def _task_shares(sizes, limit, temperature, rows):
    """Take the softmax over logarithms of sizes, which is where the name comes from."""
    counts = np.array(sizes, dtype=float)
    logits = torch.from_numpy(np.log(np.minimum(counts, limit)))
    shares = (logits / temperature).softmax(dim=0)
    return shares, shares * rows / torch.from_numpy(counts)


def _mixed(
    kept=min,
    weight=lambda n, temperature: n ** (1 / temperature),
    share=lambda weights: [each / sum(weights) for each in weights],
    epochs=lambda shares, sizes, limit, rows: [
        rows * share / n for share, n in zip(shares, sizes, strict=True)
    ],
):
    """Return shares and epochs with one thing about them changed."""

    def answer(sizes, limit, temperature, rows):
        shares = share([weight(kept(n, limit), temperature) for n in sizes])
        return np.array(shares), np.array(epochs(shares, sizes, limit, rows))

    return answer


def _each(count):
    """Return what ``count(share, size, rows)`` says of each task, in the place of its epochs."""
    return _mixed(
        epochs=lambda shares, sizes, limit, rows: [
            count(share, n, rows) for share, n in zip(shares, sizes, strict=True)
        ]
    )


TASK_SHARES_MISTAKES = {
    "temperature_ignored": _mixed(weight=lambda n, temperature: n),
    "all_alike": _mixed(weight=lambda n, temperature: 1),
    "power_turned": _mixed(
        weight=lambda n, temperature: n**temperature if temperature < 10 else n**10
    ),
    "infinity_ignored": _mixed(
        weight=lambda n, temperature: n if math.isinf(temperature) else n ** (1 / temperature)
    ),
    "softmax_of_sizes": _mixed(
        weight=lambda n, temperature: n / temperature,
        share=lambda weights: (
            np.exp(np.array(weights) - max(weights))
            / np.exp(np.array(weights) - max(weights)).sum()
        ),
    ),
    "logarithms": _mixed(weight=lambda n, temperature: math.log(n) / min(temperature, 1e9)),
    "always_the_root": _mixed(weight=lambda n, temperature: n**0.5),
    "limit_ignored": _mixed(kept=lambda n, limit: n),
    "limit_from_below": _mixed(kept=lambda n, limit: max(n, 0 if math.isinf(limit) else limit)),
    "large_left_out": _mixed(kept=lambda n, limit: n if n <= limit else 0),
    "limit_after_the_root": lambda sizes, limit, temperature, rows: _mixed(
        kept=lambda n, _: n, weight=lambda n, _: min(n ** (1 / temperature), limit)
    )(sizes, limit, temperature, rows),
    "not_shares": _mixed(share=lambda weights: weights),
    "shares_of_the_largest": _mixed(share=lambda weights: [w / max(weights) for w in weights]),
    "mean_for_the_sum": _mixed(
        share=lambda weights: [w * len(weights) / sum(weights) for w in weights]
    ),
    "epochs_as_if_alone": _each(lambda share, n, rows: rows / n),
    "rows_of_a_task": _each(lambda share, n, rows: rows * share),
    "epochs_of_all": _mixed(
        epochs=lambda shares, sizes, limit, rows: [rows / sum(sizes) for _ in sizes]
    ),
    "epochs_of_the_limited": _mixed(
        epochs=lambda shares, sizes, limit, rows: [
            rows * share / min(n, limit) for share, n in zip(shares, sizes, strict=True)
        ]
    ),
    "rows_for_an_epoch": _each(lambda share, n, rows: n / share),
    "epochs_turned": _each(lambda share, n, rows: n / (rows * share)),
    "one_row": _each(lambda share, n, rows: share / n),
    "whole_epochs": _each(lambda share, n, rows: rows * share // n),
    "epochs_begun": _each(lambda share, n, rows: math.ceil(rows * share / n)),
    "order_swapped": lambda *case: tuple(reversed(_task_shares(*case))),
}


TASK_SHARES = Exercise("task_shares", _task_shares, _task_shares_cases, TASK_SHARES_MISTAKES)


def check_seen_texts(seen_texts) -> bool:
    """Check ``seen_texts(tasks)``: test texts that a shared encoder was trained on."""
    return grade(seen_texts, SEEN_TEXTS)


SUBJECTS = ["film", "book", "song", "meal", "hotel", "train", "phone", "lamp", "bridge", "market"]
VERDICTS = ["never dull", "far too long", "hardly new", "worth it", "a cold soup", "not for us"]


def _seen_texts_cases(seed):
    roll = dice(seed)

    def case(count):
        every = [f"The {one} was {two}." for one in SUBJECTS for two in VERDICTS]
        texts = iter(roll.sample(every, len(every)))
        training = [[next(texts) for _ in range(8)] for _ in range(count)]
        tasks = []
        for here in range(count):
            own, former = training[here], training[here - 1]
            test = [next(texts), f"Nobody has read number {min(here, 1)}.", own[0], own[0]]
            test += [training[(here + step) % count][step] for step in range(1, count)]
            test += [f"{own[1]}  ", own[2].upper(), own[3].replace(" ", "\t", 1), f" {own[4]} "]
            test += [former[5].lower(), *_near(own[6], former[7]), f"Twice in task {here}."]
            tasks.append((own, test))
        for here in range(count):  # in the training of two tasks, and in the test of the first
            training[here].append(f"Twice in task {here}.")
            training[here - 1].append(f"Twice in  task {here}.")
        return ([tuple(roll.sample(part, len(part)) for part in task) for task in tasks],)

    return [case(3), case(4), case(2)]


def _near(own, other):
    """Return texts that look like two others and are none of them."""
    return [
        own.removeprefix("The "),
        other.removesuffix("."),
        own.replace(" ", "", 1),
        " ".join(reversed(other.split())),
        f"{own} Or so they say.",
        other.replace(".", "!"),
    ]


def _key(text):
    return " ".join(text.lower().split())


def _seen_texts(tasks):
    """Enumerate all pairs of a test text and a training text, and note those that are equal."""
    own, others = ([[] for _ in tasks] for _ in range(2))
    for (here, (_, test)), (there, (train, _)) in itertools.product(enumerate(tasks), repeat=2):
        words = [text.casefold().split() for text in train]
        places = [n for n, text in enumerate(test) if text.casefold().split() in words]
        found = own if here == there else others
        found[here] = sorted({*found[here], *places})
    return own, others


def _sought(
    key=_key,
    own=lambda tasks, here: [here],
    others=lambda tasks, here: [n for n in range(len(tasks)) if n != here],
    learned=lambda task: task[0],
    tested=lambda task: task[1],
    inside=lambda text, known: text in known,
    told=lambda places, test: places,
):
    """Return a search with one thing about it changed."""

    def places(tasks, here, chosen):
        known = {key(text) for n in chosen(tasks, here) for text in learned(tasks[n])}
        test = tested(tasks[here])
        return told([n for n, text in enumerate(test) if inside(key(text), known)], test)

    def answer(tasks):
        return tuple(
            [places(tasks, here, chosen) for here in range(len(tasks))] for chosen in (own, others)
        )

    return answer


def _all_places(tasks, here):
    return range(len(tasks))


def _without(first, second):
    """Return two lists of lists, without what of ``second`` stands in ``first``."""
    return [[n for n in s if n not in f] for f, s in zip(first, second, strict=True)]


def _first_of_each(places, test):
    """Return of equal texts the first alone."""
    keys = [_key(text) for text in test]
    return [n for n in places if keys.index(keys[n]) == n]


SEEN_TEXTS_MISTAKES = {
    "as_they_are": _sought(key=lambda text: text),
    "ends_alone": _sought(key=str.strip),
    "blanks_inside": _sought(key=lambda text: text.strip().lower()),
    "blanks_at_the_ends": _sought(key=lambda text: " ".join(text.lower().split(" "))),
    "case_kept": _sought(key=lambda text: " ".join(text.split())),
    "no_blanks": _sought(key=lambda text: "".join(text.lower().split())),
    "no_points": _sought(key=lambda text: _key(text).rstrip(".!")),
    "sets_of_words": _sought(key=lambda text: " ".join(sorted(text.lower().split()))),
    "beginnings": _sought(key=lambda text: _key(text)[:12]),
    "parts_of_texts": _sought(inside=lambda text, known: any(text in each for each in known)),
    "texts_within": _sought(inside=lambda text, known: any(each in text for each in known)),
    "own_alone": _sought(others=lambda tasks, here: []),
    "others_alone": _sought(own=lambda tasks, here: []),
    "any_for_others": _sought(others=_all_places),
    "any_for_own": _sought(own=_all_places),
    "next_task_alone": _sought(others=lambda tasks, here: [(here + 1) % len(tasks)]),
    "former_task_alone": _sought(others=lambda tasks, here: [(here or len(tasks)) - 1]),
    "earlier_tasks": _sought(others=lambda tasks, here: range(here)),
    "later_tasks": _sought(others=lambda tasks, here: range(here + 1, len(tasks))),
    "not_counted_twice": lambda tasks: (
        _seen_texts(tasks)[0],
        _without(*_seen_texts(tasks)),
    ),
    "only_its_own": lambda tasks: (
        _without(*reversed(_seen_texts(tasks))),
        _seen_texts(tasks)[1],
    ),
    "tests_among_tests": _sought(learned=lambda task: task[1]),
    "training_in_tests": _sought(learned=lambda task: task[1], tested=lambda task: task[0]),
    "training_and_tests": _sought(
        learned=lambda task: [*task[0], *task[1]], own=lambda tasks, here: [here]
    ),
    "first_of_each": _sought(told=_first_of_each),
    "not_seen": _sought(inside=lambda text, known: text not in known),
    "texts": _sought(told=lambda places, test: [test[n] for n in places]),
    "how_many": _sought(told=lambda places, test: len(places)),
    "shares": _sought(told=lambda places, test: len(places) / len(test)),
    "from_one": _sought(told=lambda places, test: [n + 1 for n in places]),
    "one_list_of_all": lambda tasks: tuple(sum(part, []) for part in _seen_texts(tasks)),
    "pairs": lambda tasks: list(map(list, zip(*_seen_texts(tasks), strict=True))),
    "order_swapped": lambda tasks: tuple(reversed(_seen_texts(tasks))),
}


SEEN_TEXTS = Exercise("seen_texts", _seen_texts, _seen_texts_cases, SEEN_TEXTS_MISTAKES)


def check_factors_within(factors_within) -> bool:
    """Check ``factors_within(weight, moments, budget)``: the best factors that a budget pays."""
    return grade(factors_within, FACTORS_WITHIN)


def _factors_within_cases(seed):
    roll = dice(seed)

    def drawn(outputs, inputs, texts):
        weight = normal(outputs, inputs, seed=roll.randrange(2**31))
        x = normal(texts, inputs, seed=roll.randrange(2**31))
        x *= torch.tensor([roll.choice([0.3, 1.0, 3.0]) for _ in range(inputs)])
        x += 0.7 * x.roll(1, dims=1)
        return weight, x.T @ x / texts

    def case(outputs, inputs, texts, rank, more):
        def apart(found):
            sizes = _weighed(*found)[1]
            return rank == 0 or sizes[rank] < 0.85 * sizes[rank - 1]

        weight, moments = until(apart, lambda: drawn(outputs, inputs, texts))
        return weight, moments, 4 * rank * (outputs + inputs) + more

    dense = *drawn(9, 6, 30), 4 * 9 * 6
    return [
        case(12, 10, 60, 4, 0),
        case(8, 14, 60, 3, 87),
        case(14, 9, 60, 5, 3),
        case(11, 13, 7, 2, 40),  # less tokens than inputs
        case(10, 12, 60, 0, 87),
        dense,
        (*drawn(9, 6, 30), 4 * 9 * 6 - 1),
        (*drawn(7, 11, 30), 4 * 7 * 11 + 100),
    ]


def _root(moments):
    """Return the symmetric root of the moments, and its pseudo-inverse."""
    sizes, turn = torch.linalg.eigh(moments.double())
    real = sizes > 1e-6 * sizes.max()
    root = torch.where(real, sizes, 0).sqrt()
    inverse = torch.where(real, 1 / root, 0)
    return (turn * root) @ turn.T, (turn * inverse) @ turn.T


def _weighed(weight, moments):
    """Return the singular value decomposition of a weight behind the root of its moments."""
    return torch.linalg.svd(weight.double() @ _root(moments)[0], full_matrices=False)


def _by_whitening(weight, moments, rank):
    u, sizes, v = _weighed(weight, moments)
    return [u[:, :rank] * sizes[:rank], v[:rank] @ _root(moments)[1]]


def _affordable(weight, budget):
    """Return the largest rank that fits, or None where the whole matrix does: ask arrays."""
    outputs, inputs = weight.shape
    if weight.nbytes <= budget:
        return None
    ranks = range(min(outputs, inputs) + 1)
    sizes = [np.empty((r, outputs + inputs), np.float32).nbytes for r in ranks]
    return sum(size <= budget for size in sizes) - 1


def _factors_within(weight, moments, budget):
    rank = _affordable(weight, budget)
    return [weight] if rank is None else _by_whitening(weight, moments, rank)


def _factored(
    factors=_by_whitening,
    rank=lambda weight, budget: budget // (4 * sum(weight.shape)),
    dense=lambda weight, budget: 4 * weight.numel() <= budget,
    told=lambda made: made,
):
    """Return factors with one thing about them changed."""

    def answer(weight, moments, budget):
        if dense(weight, budget):
            return [weight]
        return told(factors(weight, moments, min(rank(weight, budget), *weight.shape)))

    return answer


def _plain(weight, moments, rank):
    u, sizes, v = torch.linalg.svd(weight.double(), full_matrices=False)
    return [u[:, :rank] * sizes[:rank], v[:rank]]


def _through(turn):
    """Return factors of what a weight is behind a matrix made of the moments, divided out again."""

    def factors(weight, moments, rank):
        behind = turn(moments.double())
        left, right = _plain(weight.double() @ behind, None, rank)
        return [left, right @ torch.linalg.pinv(behind)]

    return factors


def _kept_outputs(weight, moments, rank, order):
    """Return factors that keep some of the directions that the outputs have."""
    directions = torch.linalg.eigh(order(weight.double(), moments.double())).eigenvectors
    return directions.flip(1)[:, :rank], directions


def _of_outputs(weight, moments, rank):
    directions, _ = _kept_outputs(weight, moments, rank, lambda w, s: w @ s @ w.T)
    return [directions, directions.T @ weight.double()]


def _smallest(weight, moments, rank):
    _, directions = _kept_outputs(weight, moments, rank, lambda w, s: w @ s @ w.T)
    return [directions[:, :rank], directions[:, :rank].T @ weight.double()]


def _of_inputs(weight, moments, rank):
    directions, _ = _kept_outputs(weight, moments, rank, lambda w, s: s)
    return [weight.double() @ directions, directions.T]


def _not_divided(weight, moments, rank):
    u, sizes, v = _weighed(weight, moments)
    return [u[:, :rank] * sizes[:rank], v[:rank]]


def _sizes_lost(weight, moments, rank):
    u, _, v = _weighed(weight, moments)
    return [u[:, :rank], v[:rank] @ _root(moments)[1]]


def _sizes_twice(weight, moments, rank):
    left, right = _by_whitening(weight, moments, rank)
    return [left, _weighed(weight, moments)[1][:rank, None] * right]


def _rank(count):
    return _factored(rank=lambda weight, budget: max(0, count(weight, budget)))


FACTORS_WITHIN_MISTAKES = {
    "moments_ignored": _factored(_plain),
    "diagonal_alone": _factored(_through(lambda s: s.diagonal().sqrt().diag())),
    "root_forgotten": _factored(_through(lambda s: s)),
    "directions_of_inputs": _factored(_of_inputs),
    "smallest_kept": _factored(_smallest),
    "not_divided_out": _factored(_not_divided),
    "sizes_lost": _factored(_sizes_lost),
    "sizes_twice": _factored(_sizes_twice),
    "one_rank_more": _rank(lambda w, budget: -(-budget // (4 * sum(w.shape)))),
    "one_rank_less": _rank(lambda w, budget: (budget - 1) // (4 * sum(w.shape))),
    "numbers_for_bytes": _rank(lambda w, budget: budget // sum(w.shape)),
    "two_bytes": _rank(lambda w, budget: budget // (2 * sum(w.shape))),
    "bits_for_bytes": _rank(lambda w, budget: budget // (32 * sum(w.shape))),
    "left_alone": _rank(lambda w, budget: budget // (4 * len(w))),
    "right_alone": _rank(lambda w, budget: budget // (4 * w.shape[1])),
    "product_of_sides": _rank(lambda w, budget: budget * min(w.shape) // (4 * w.numel())),
    "as_small_as_the_matrix": _rank(lambda w, budget: w.numel() // sum(w.shape)),
    "one_rank_at_least": _rank(lambda w, budget: max(1, budget // (4 * sum(w.shape)))),
    "dense_where_nothing_fits": _factored(
        dense=lambda w, budget: 4 * w.numel() <= budget or budget < 4 * sum(w.shape)
    ),
    "always_factors": _factored(dense=lambda w, budget: False),
    "dense_if_there_is_room": _factored(dense=lambda w, budget: 4 * w.numel() < budget),
    "dense_in_numbers": _factored(dense=lambda w, budget: w.numel() <= budget),
    "always_dense": _factored(dense=lambda w, budget: True),
    "product": _factored(told=lambda made: [made[0] @ made[1]]),
    "right_first": _factored(told=lambda made: made[::-1]),
    "turned": _factored(told=lambda made: [part.T for part in made]),
}


def _do_the_same(answer, wanted, weight, moments, budget):
    """Tell whether two lists of matrices have the same shapes, and do the same to such inputs."""
    got, want = (
        [comparing.to_array(part) for part in comparing.entries(each) or []]
        for each in (answer, wanted)
    )
    if [getattr(part, "shape", None) for part in got] != [part.shape for part in want]:
        return False
    got, want = (_done(parts, moments.double().numpy()) for parts in (got, want))
    return bool(np.linalg.norm(got - want) <= 1e-3 * np.linalg.norm(want))


def _done(parts, moments):
    """Return what matrices do to inputs with such moments, or all they hold if they do not fit."""
    if len(parts) == 2 and parts[0].shape[1] != parts[1].shape[0]:
        return np.concatenate([part.flatten() for part in parts])
    return functools.reduce(np.matmul, parts).astype(float) @ moments


FACTORS_WITHIN = Exercise(
    "factors_within", _factors_within, _factors_within_cases, FACTORS_WITHIN_MISTAKES, _do_the_same
)


def check_without_conflict(without_conflict) -> bool:
    """Check ``without_conflict(first, second, shared)``: a cosine, and PCGrad's step."""
    return grade(without_conflict, WITHOUT_CONFLICT)


def _without_conflict_cases(seed):
    roll = dice(seed)

    def draw(*shape):
        return normal(*shape, seed=roll.randrange(2**31))

    shapes = {"table": (5, 3), "up": (4, 3), "norm": (4,), "down": (3, 4)}

    def case(lean, size=1.0, zero=None, first=1.0, missing=("up", "down")):
        """Return two gradients of which the second leans to the first, by a share."""
        one = {name: first * draw(*shape) for name, shape in shapes.items()}
        two = {name: size * (lean * one[name] + draw(*shapes[name])) for name in shapes}
        for gradient, name in zip((one, two), missing, strict=True):
            del gradient[name]
        if zero is not None:
            (one, two)[zero].update({n: 0 * g for n, g in (one, two)[zero].items()})
        own = {"scale": draw(3) + 4}  # of each task, under the same name
        one |= {"first.head": draw(2, 4), **own}
        two |= {"second.head": draw(3, 4), "scale": -own["scale"]}
        parts = [roll.sample(sorted(each.items()), len(each)) for each in (one, two)]
        shared = roll.sample([(name, math.prod(s)) for name, s in shapes.items()], len(shapes))
        return *parts, shared

    def leaning(low, high, lean, cosines=(-1, 1), **more):
        def fits(found):
            dot, cosine = (float(each(*_long(*found))) for each in (_dot, _cosine))
            return low < dot < high and cosines[0] < cosine < cosines[1]

        return until(fits, lambda: case(lean, **more))

    return [
        leaning(-99, -3, -1.0, cosines=(-1, -0.55)),
        leaning(3, 99, 1.0),
        leaning(-99, -3, -2.0, size=2.0),
        leaning(-0.9, -0.2, -0.3, cosines=(-0.45, 0), size=0.2),
        leaning(0.2, 0.9, 0.3, size=0.2),
        leaning(-0.1, -0.02, -9.0, size=0.05, first=0.1),
        case(1.0, zero=0),
        case(1.0, zero=1),
    ]


def _long(first, second, shared):
    """Return both gradients of the shared parameters as long vectors in 64-bit floats."""
    return tuple(
        torch.cat(
            [dict(task).get(name, torch.zeros(count)).double().flatten() for name, count in shared]
        )
        for task in (first, second)
    )


def _dot(one, two):
    return (one * two).sum()


def _without_conflict(first, second, shared):
    """Measure by lengths alone, and let a solver take away what points along the other."""
    one, two = (part.numpy() for part in _long(first, second, shared))
    lengths = np.linalg.norm(one) * np.linalg.norm(two)
    both = np.linalg.norm(one + two) ** 2 - np.linalg.norm(one - two) ** 2
    cosine = both / 4 / lengths if lengths else 0.0
    if cosine < 0:
        one, two = one - _along(one, two), two - _along(two, one)
    return cosine, one + two


def _along(vector, other):
    return other * np.linalg.lstsq(other[:, None], vector, rcond=None)[0]


def _cosine(one, two):
    size = one.norm() * two.norm()
    return _dot(one, two) / size if size > 0 else torch.tensor(0.0)


def _off(vector, other):
    """Return a vector without what of it points along another one."""
    size = other.square().sum()
    return vector - _dot(vector, other) / size * other if size > 0 else vector


def _settled(
    long=_long,
    cosine=_cosine,
    conflict=lambda one, two: _dot(one, two) < 0,
    joined=lambda one, two: _off(one, two) + _off(two, one),
    plain=lambda one, two: one + two,
):
    """Return the cosine and the step with one thing about them changed."""

    def answer(first, second, shared):
        one, two = long(first, second, shared)
        step = joined(one, two) if conflict(one, two) else plain(one, two)
        return cosine(one, two), step

    return answer


def _cosine_of(pick):
    """Return the cosine over other parameters, beside the right step."""
    return but(_without_conflict, 0, lambda *case: _cosine(*_long(*case[:2], pick(*case))))


def _named(task):
    return {name: gradient.numel() for name, gradient in task}


def _part_by_part(first, second, shared, found):
    return torch.cat([found(*_long(first, second, [part])) for part in shared])


WITHOUT_CONFLICT_MISTAKES = {
    "heads_too": _cosine_of(lambda one, two, shared: list((_named(one) | _named(two)).items())),
    "all_common": _cosine_of(
        lambda one, two, shared: [pair for pair in _named(one).items() if pair[0] in _named(two)]
    ),
    "missing_left_out": _cosine_of(
        lambda one, two, shared: [
            part for part in shared if part[0] in _named(one) and part[0] in _named(two)
        ]
    ),
    "mean_of_cosines": but(
        _without_conflict,
        0,
        lambda *case: torch.stack([_cosine(*_long(*case[:2], [p])) for p in case[2]]).mean(),
    ),
    "dot_product": _settled(cosine=_dot),
    "one_length": _settled(cosine=lambda one, two: _cosine(one, two) * two.norm()),
    "squared_lengths": _settled(
        cosine=lambda one, two: _cosine(one, two) / max(one.norm() * two.norm(), 1e-9)
    ),
    "size_of_cosine": _settled(cosine=lambda one, two: _cosine(one, two).abs()),
    "signs_counted": _settled(cosine=lambda one, two: _dot(one.sign(), two.sign()) / len(one)),
    "angle": _settled(cosine=lambda one, two: _cosine(one, two).acos()),
    "centred": _settled(cosine=lambda one, two: _cosine(one - one.mean(), two - two.mean())),
    "no_length": _settled(cosine=lambda one, two: _dot(one, two) / (one.norm() * two.norm())),
    "one_for_nothing": _settled(
        cosine=lambda one, two: _cosine(one, two) if one.any() and two.any() else torch.tensor(1.0)
    ),
    "plain_sum": _settled(conflict=lambda one, two: False),
    "always_projected": _settled(conflict=lambda one, two: True),
    "agreement_projected": _settled(conflict=lambda one, two: _dot(one, two) > 0),
    "only_far_apart": _settled(conflict=lambda one, two: _cosine(one, two) < -0.5),
    "first_alone_projected": _settled(joined=lambda one, two: _off(one, two) + two),
    "second_alone_projected": _settled(joined=lambda one, two: one + _off(two, one)),
    "along_for_off": _settled(
        joined=lambda one, two: (one - _off(one, two)) + (two - _off(two, one))
    ),
    "added_along": _settled(
        joined=lambda one, two: 2 * one - _off(one, two) + 2 * two - _off(two, one)
    ),
    "length_not_squared": _settled(
        joined=lambda one, two: one + two - _dot(one, two) * (two / two.norm() + one / one.norm())
    ),
    "not_divided": _settled(joined=lambda one, two: one + two - _dot(one, two) * (one + two)),
    "own_length": _settled(
        joined=lambda one, two: (
            one + two - _dot(one, two) * (two / one.square().sum() + one / two.square().sum())
        )
    ),
    "unit_vectors": _settled(
        joined=lambda one, two: _off(one, two) / one.norm() + _off(two, one) / two.norm()
    ),
    "opposite_signs_dropped": _settled(
        joined=lambda one, two: torch.where(one * two < 0, 0, one + two)
    ),
    "larger_alone": _settled(joined=lambda one, two: one if one.norm() > two.norm() else two),
    "part_by_part": but(
        _without_conflict,
        1,
        lambda *case: _part_by_part(
            *case,
            lambda one, two: _off(one, two) + _off(two, one) if _dot(one, two) < 0 else one + two,
        ),
    ),
    "mean_for_the_sum": _settled(
        joined=lambda one, two: (_off(one, two) + _off(two, one)) / 2,
        plain=lambda one, two: (one + two) / 2,
    ),
    "first_returned": _settled(joined=_off, plain=lambda one, two: one),
    "two_steps": _settled(
        joined=lambda one, two: torch.stack([_off(one, two), _off(two, one)]),
        plain=lambda one, two: torch.stack([one, two]),
    ),
    "in_order_of_the_first": but(
        _without_conflict,
        1,
        lambda one, two, shared: _without_conflict(
            one, two, sorted(shared, key=lambda part: [*_named(one), part[0]].index(part[0]))
        )[1],
    ),
    "sorted_by_name": but(
        _without_conflict,
        1,
        lambda one, two, shared: _without_conflict(one, two, sorted(shared))[1],
    ),
    "order_swapped": lambda *case: tuple(reversed(_without_conflict(*case))),
}


WITHOUT_CONFLICT = Exercise(
    "without_conflict", _without_conflict, _without_conflict_cases, WITHOUT_CONFLICT_MISTAKES
)


# --- worked out by hand, from the numbers of a variant ---


def _small_task(task_shares, large, small, drawn):
    sizes, temperatures = [large, small], (1, 2, math.inf)
    return [float(task_shares(sizes, math.inf, t, drawn)[1][1]) for t in temperatures]


def _conflict(without_conflict, against, beside):
    first = [("w", torch.tensor([1.0, 0.0]))]
    second = [("w", torch.tensor([-float(against), float(beside)]))]
    return without_conflict(first, second, [("w", 2)])[1]


SMALL_TASK = ByHand(TASK_SHARES, _small_task)
CONFLICT = ByHand(WITHOUT_CONFLICT, _conflict)
