"""Checks of the exercises of chapter 17."""

import math

import torch

from lightcourse.applications import recommendation
from lightcourse.checks.cases import but, dice, normal, until, whole
from lightcourse.checks.grading import Exercise, grade


def check_search_quality(search_quality) -> bool:
    """Check ``search_quality(scores, relevance, k)``: recall, reciprocal rank and nDCG."""
    return grade(search_quality, SEARCH_QUALITY)


def _search_quality_cases(seed):
    roll = dice(seed)

    def case(passages, answering, levels, k, late=False):
        def draw():
            seeds = [roll.randrange(2**31) for _ in range(2)]
            order = torch.tensor(roll.sample(range(passages), passages))
            grades = torch.where(order < answering, whole(1, 4, passages, seed=seeds[0]), 0)
            scores = whole(0, levels, passages, seed=seeds[1]).double() / 8
            return scores, grades, k

        return until(lambda drawn: (1 / _search_quality(*drawn)[1] > k) == late, draw)

    return [
        case(12, 7, 6, 4),
        case(15, 6, 40, 9),
        case(30, 4, 12, 3, late=True),
        case(9, 5, 3, 2),
        (torch.zeros(6), torch.tensor([0, 2, 0, 0, 1, 0]), 5),
        (torch.tensor([0.5, 0.25, 0.75]), torch.tensor([1, 0, 3]), 3),
    ]


def _places(scores, relevance, harder=lambda a, b: a < b):
    """Count for each passage what stands before it, by pairs."""
    rows = list(zip(scores.tolist(), relevance.tolist(), range(len(scores)), strict=True))

    def before(one, other):
        if one[0] != other[0]:
            return one[0] > other[0]
        return harder(one[1:], other[1:])

    return [1 + sum(before(other, row) for other in rows) for row in rows]


def _gain(grades, places, k, value=float, discount=lambda place: math.log2(1 + place)):
    return sum(
        value(g) / discount(place) for g, place in zip(grades, places, strict=True) if place <= k
    )


def _measured(places, grades, k):
    rows = [(place, g) for place, g in zip(places, grades, strict=True) if g > 0]
    best = _gain(sorted(grades, reverse=True), range(1, len(grades) + 1), k)
    recall = sum(place <= k for place, _ in rows) / len(rows)
    return recall, 1 / min(rows)[0], _gain(grades, places, k) / best


def _search_quality(scores, relevance, k):
    return _measured(_places(scores, relevance), relevance.tolist(), k)


def _placed(**changed):
    return lambda scores, relevance, k: _measured(
        _places(scores, relevance, **changed), relevance.tolist(), k
    )


def _found(scores, relevance, k):
    return sum(
        g > 0 and place <= k
        for g, place in zip(relevance.tolist(), _places(scores, relevance), strict=True)
    )


def _graded(value=float, discount=lambda place: math.log2(1 + place), best=None):
    """Return nDCG with one thing about it changed."""

    def answer(scores, relevance, k):
        places, grades = _places(scores, relevance), relevance.tolist()
        own = _gain(grades, places, k, value, discount)
        if best is not None:
            return own / best(places, grades, k)
        order = sorted(grades, reverse=True)
        return own / _gain(order, range(1, len(order) + 1), k, value, discount)

    return answer


def _of_the_found(places, grades, k):
    kept = sorted((g for p, g in zip(places, grades, strict=True) if p <= k), reverse=True)
    return _gain(kept, range(1, len(kept) + 1), k) or 1.0


SEARCH_QUALITY_MISTAKES = {
    "precision": but(_search_quality, 0, lambda *case: _found(*case) / case[2]),
    "capped": but(
        _search_quality, 0, lambda *case: _found(*case) / min(case[2], int((case[1] > 0).sum()))
    ),
    "found_or_not": but(_search_quality, 0, lambda *case: float(_found(*case) > 0)),
    "grades_recalled": but(
        _search_quality,
        0,
        lambda scores, relevance, k: (
            sum(
                g
                for g, p in zip(relevance.tolist(), _places(scores, relevance), strict=True)
                if p <= k
            )
            / relevance.sum().item()
        ),
    ),
    "ties_won": _placed(harder=lambda a, b: (-a[0], a[1]) < (-b[0], b[1])),
    "ties_as_they_lie": _placed(harder=lambda a, b: a[1] < b[1]),
    "upside_down": lambda scores, relevance, k: _search_quality(-scores, relevance, k),
    "rank_from_zero": but(
        _search_quality, 1, lambda *case: 1 / max(1e-9, 1 / _search_quality(*case)[1] - 1)
    ),
    "rank_cut": but(
        _search_quality,
        1,
        lambda *case: _search_quality(*case)[1] * (_found(*case) > 0),
    ),
    "rank_of_the_best": but(
        _search_quality,
        1,
        lambda scores, relevance, k: (
            1
            / min(
                place
                for place, g in zip(_places(scores, relevance), relevance, strict=True)
                if g == relevance.max()
            )
        ),
    ),
    "not_normalized": but(_search_quality, 2, _graded(best=lambda *_: 1.0)),
    "best_of_the_found": but(_search_quality, 2, _graded(best=_of_the_found)),
    "best_not_cut": but(
        _search_quality,
        2,
        _graded(
            best=lambda places, grades, k: _gain(
                sorted(grades, reverse=True), range(1, len(grades) + 1), len(grades)
            )
        ),
    ),
    "discount_by_place": but(_search_quality, 2, _graded(discount=float)),
    "grades_lost": but(_search_quality, 2, _graded(value=lambda g: float(g > 0))),
    "grades_doubled": but(_search_quality, 2, _graded(value=lambda g: 2.0**g - 1)),
}


SEARCH_QUALITY = Exercise(
    "search_quality", _search_quality, _search_quality_cases, SEARCH_QUALITY_MISTAKES
)


def check_fuse(fuse) -> bool:
    """Check ``fuse(log_probabilities, prior, present)``: Bayes' rule for what is there."""
    return grade(fuse, FUSE)


def _fuse_cases(seed):
    roll = dice(seed)

    def case(modalities, classes, holds):
        rows = 2**modalities
        seeds = [roll.randrange(2**31) for _ in range(2)]
        prior = normal(classes, seed=seeds[0]).softmax(0)
        given = normal(modalities, rows, classes, seed=seeds[1]).log_softmax(-1)
        ways = torch.tensor(roll.sample(range(rows), rows))  # each set of modalities once
        present = (ways >> torch.arange(modalities)[:, None]) % 2 == 1
        return torch.where(present[..., None], given, holds(given)), prior, present

    return [
        case(2, 3, lambda given: given),
        case(3, 4, lambda given: given.flip(-1)),
        case(2, 5, lambda given: torch.full_like(given, torch.nan)),
    ]


def _fuse(log_probabilities, prior, present):
    return _product(log_probabilities, prior, present, lambda count: 1 - count)


def _product(log_probabilities, prior, present, power):
    """Multiply probabilities row by row, in floats of Python."""
    fused = []
    for row in range(present.shape[1]):
        heard = [log_probabilities[m, row].exp() for m in range(len(present)) if present[m, row]]
        product = prior.double() ** power(len(heard))
        for one in heard:
            product = product * one
        fused.append(product / product.sum())
    return torch.stack(fused).float()


def _over_present(join):
    """Return a mistake that joins what a row has in another way; with nothing there, the prior."""

    def answer(log_probabilities, prior, present):
        rows = []
        for row in range(present.shape[1]):
            heard = log_probabilities[present[:, row], row]
            rows.append(join(heard, prior) if len(heard) else prior)
        return torch.stack(rows)

    return answer


def _unnormalized(log_probabilities, prior, present):
    given = torch.where(present[..., None], log_probabilities, 0.0).sum(0)
    return (given - (present.sum(0) - 1)[:, None] * prior.log()).exp()


def _none_uniform(log_probabilities, prior, present):
    equal = torch.full_like(prior, 1 / len(prior))
    return torch.where(present.any(0)[:, None], _fuse(log_probabilities, prior, present), equal)


def _everybody(log_probabilities, prior, present):
    return _fuse(log_probabilities, prior, torch.ones_like(present))


def _uniform_for_absent(log_probabilities, prior, present):
    flat = torch.full_like(log_probabilities, -math.log(len(prior)))
    filled = torch.where(present[..., None], log_probabilities, flat)
    return _everybody(filled, prior, present)


FUSE_MISTAKES = {
    "prior_again": lambda *case: _product(*case, lambda count: 0 if count else 1),
    "prior_off_each": lambda *case: _product(*case, lambda count: -count if count else 1),
    "absent_counted": lambda *case: _product(*case, lambda count: 1 - len(case[2]) if count else 1),
    "absent_is_uniform": _uniform_for_absent,
    "absent_heard": _everybody,
    "averaged": _over_present(
        lambda heard, prior: (heard - prior.log()).mean(0).add(prior.log()).softmax(-1)
    ),
    "probabilities_averaged": _over_present(lambda heard, prior: heard.exp().mean(0)),
    "surest_only": _over_present(
        lambda heard, prior: heard[heard.max(1).values.argmax()].exp(),
    ),
    "none_is_uniform": _none_uniform,
    "not_normalized": _unnormalized,
    "logarithms": lambda *case: _fuse(*case).log(),
}


FUSE = Exercise("fuse", _fuse, _fuse_cases, FUSE_MISTAKES)


def check_popular_unseen(popular_unseen) -> bool:
    """Check ``popular_unseen(users, items, times, k)``: counts, lists and hits."""
    return grade(popular_unseen, POPULAR_UNSEEN)


def _popular_unseen_cases(seed):
    roll = dice(seed)

    def case(users, items, k):
        def draw():
            rows = []
            for user in range(users):
                most = 1 if user in (1, users - 2) else items - k
                chosen = {
                    int((items - 1) * roll.random() ** 2) for _ in range(roll.randint(3, most + 3))
                }
                rows += [
                    (user, item) for item in roll.sample(sorted(chosen), min(len(chosen), most))
                ]
            rows = roll.sample([*rows, (0, items - 1)], len(rows) + 1)
            rows = list(dict.fromkeys(rows))
            times = roll.sample(range(100, 100 + 3 * len(rows)), len(rows))
            times[rows.index((0, items - 1))] = 1000  # the last item, in training it is unknown
            return (*torch.tensor(rows).T, torch.tensor(times), k)

        def fits(drawn):
            if drawn[0].bincount().max() > items - k:
                return False
            return all(_differs(wrong, drawn) for wrong in POPULAR_UNSEEN_MISTAKES.values())

        return until(fits, draw)

    return [case(9, 8, 3), case(14, 12, 2)]


def _differs(wrong, case):
    """Tell whether a mistake shows, so that no draw of the dice hides it."""
    pairs = zip(wrong(*case), _popular_unseen(*case), strict=True)
    return any(torch.as_tensor(a).tolist() != torch.as_tensor(b).tolist() for a, b in pairs)


def _popular_unseen(users, items, times, k):
    """Ask the library, for whom popularity is a vector of width 1."""
    return _listed(users, items, k, recommendation.leave_last_out(users, times))


def _listed(users, items, k, held, **other):
    """Return the three parts of an answer, of a split and what else is to be different."""
    shape = int(users.max()) + 1, int(items.max()) + 1
    counts = other.get("counts", lambda items, held: items[~held])(items, held)
    counts = recommendation.popularity(counts, shape[1])
    seen, masked = torch.zeros(shape, dtype=torch.bool), other.get("masked", ~held)
    seen[users[masked], items[masked]] = True
    scores = other.get("score", lambda counts: counts)(counts).double()[:, None]
    lists = recommendation.recommend(torch.ones(shape[0], 1).double(), scores, seen, k)
    found = sum(
        item in lists[user]
        for user, item in zip(users[held].tolist(), items[held].tolist(), strict=True)
    )
    return counts, lists, found / max(1, int(held.sum()))


def _held(split, **other):
    """Return a mistake: a split, and what else is different."""

    def answer(users, items, times, k):
        held = split(users, times)
        more = {name: of(held) if name == "masked" else of for name, of in other.items()}
        return _listed(users, items, k, held, **more)

    return answer


def _with_singles(users, times):
    held = recommendation.leave_last_out(users, times)
    return held | (users.bincount()[users] == 1)


def _last_of_all(users, times):
    count = int(recommendation.leave_last_out(users, times).sum())
    return times >= times.sort(descending=True).values[count - 1]


def _from_the_end(counts):
    return counts + torch.arange(len(counts)) / (1 + len(counts))


LAST = recommendation.leave_last_out

POPULAR_UNSEEN_MISTAKES = {
    "counted_all": _held(LAST, counts=lambda items, held: items),
    "counted_held": _held(LAST, counts=lambda items, held: items[held]),
    "seen_kept": _held(LAST, masked=torch.zeros_like),
    "held_masked": _held(LAST, masked=torch.ones_like),
    "first_held": _held(lambda users, times: LAST(users, -times)),
    "last_row_held": _held(lambda users, times: LAST(users, torch.arange(len(times)))),
    "last_of_all": _held(_last_of_all),
    "single_held": _held(_with_singles),
    "least_popular": _held(LAST, score=torch.neg),
    "ties_from_the_end": _held(LAST, score=_from_the_end),
    "share_of_all_users": but(
        _popular_unseen,
        2,
        lambda users, items, times, k: (
            _popular_unseen(users, items, times, k)[2]
            * int(LAST(users, times).sum())
            / (int(users.max()) + 1)
        ),
    ),
    "share_of_places": but(_popular_unseen, 2, lambda *case: _popular_unseen(*case)[2] / case[3]),
}


POPULAR_UNSEEN = Exercise(
    "popular_unseen", _popular_unseen, _popular_unseen_cases, POPULAR_UNSEEN_MISTAKES
)
