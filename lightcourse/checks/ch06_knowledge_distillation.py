"""Checks of the exercises of chapter 06."""

import itertools
import math
from functools import partial

import numpy as np
import torch
from torch.distributions import Categorical
from torch.nn import functional as F

from lightcourse import distillation
from lightcourse.checks.by_hand import ByHand
from lightcourse.checks.cases import dice, normal, until, whole
from lightcourse.checks.grading import Exercise, grade


def _logits(roll, *shape, scale=2.0):
    return scale * normal(*shape, seed=roll.randrange(2**31))


def check_soften(soften) -> bool:
    """Check ``soften(logits, temperature)``: probabilities, and each row's entropy in nats."""
    return grade(soften, SOFTEN)


def _soften_cases(seed):
    roll = dice(seed)
    settings = [((3, 5), 1.0), ((4, 4), 2.5), ((2, 6), 0.5), ((1, 3), roll.uniform(1.5, 4))]
    return [(_logits(roll, *shape), temperature) for shape, temperature in settings]


def _soften(logits, temperature):
    softened = Categorical(logits=logits / temperature)
    return softened.probs, softened.entropy()


def _entropy(probabilities):
    return -(probabilities * probabilities.log()).sum(-1)


def _with_entropy(probabilities):
    """Return a wrong way to soften, its entropy computed rightly."""

    def soften(logits, temperature):
        found = probabilities(logits, temperature)
        return found, _entropy(found)

    return soften


SOFTEN_MISTAKES = {
    "sharpens": _with_entropy(lambda logits, temperature: (logits * temperature).softmax(-1)),
    "divides_afterwards": (
        _with_entropy(lambda logits, temperature: logits.softmax(-1) / temperature)
    ),
    "temperature_unused": _with_entropy(lambda logits, temperature: logits.softmax(-1)),
    "over_columns": _with_entropy(lambda logits, temperature: (logits / temperature).softmax(0)),
    "log_probabilities": (
        lambda logits, temperature: (
            (logits / temperature).log_softmax(-1),
            _soften(logits, temperature)[1],
        )
    ),
    "entropy_negative": (
        lambda logits, temperature: (
            _soften(logits, temperature)[0],
            -_soften(logits, temperature)[1],
        )
    ),
    "entropy_in_bits": (
        lambda logits, temperature: (
            _soften(logits, temperature)[0],
            _soften(logits, temperature)[1] / math.log(2),
        )
    ),
    "entropy_of_all": (
        lambda logits, temperature: (
            _soften(logits, temperature)[0],
            _soften(logits, temperature)[1].sum(),
        )
    ),
    "entropy_unsoftened": (
        lambda logits, temperature: (_soften(logits, temperature)[0], _soften(logits, 1.0)[1])
    ),
}


SOFTEN = Exercise("soften", _soften, _soften_cases, SOFTEN_MISTAKES)


def check_soft_loss(soft_loss) -> bool:
    """Check ``soft_loss(student_logits, teacher_logits, labels, temperature, soft_weight)``."""
    return grade(soft_loss, SOFT_LOSS)


def _soft_loss_cases(seed):
    roll, cases = dice(seed), []
    settings = [
        (4, 5, 2.0, 0.5),
        (3, 7, 3.0, 0.9),
        (6, 4, 0.5, 0.2),
        (2, 3, 2.0, 0.0),
        (1, 4, 2, 1),
    ]
    for rows, classes, temperature, weight in settings:
        labels = torch.arange(rows) % classes
        pair = _logits(roll, rows, classes), _logits(roll, rows, classes)
        cases.append((*pair, labels, temperature, weight))
    return cases


def _soft_loss(student_logits, teacher_logits, labels, temperature, soft_weight):
    return distillation.distillation_loss(
        student_logits, teacher_logits, labels, temperature, soft_weight
    )


def _loss_of(soft, hard_temperature=lambda temperature: 1.0):
    """Return a loss of hard and soft part, where ``soft(student, teacher, T)`` is one row's."""

    def loss(student_logits, teacher_logits, labels, temperature, soft_weight):
        hard = F.cross_entropy(student_logits / hard_temperature(temperature), labels)
        rows = soft(student_logits, teacher_logits, temperature)
        return (1 - soft_weight) * hard + soft_weight * rows.mean()

    return loss


def _kl(p_logits, q_logits):
    """Return KL(p ‖ q) of each row."""
    p, q = p_logits.log_softmax(-1), q_logits.log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)


def _right_soft(s, t, T):  # noqa: N803
    return T**2 * _kl(t / T, s / T)


SOFT_LOSS_MISTAKES = {
    "without_t_squared": _loss_of(lambda s, t, T: _kl(t / T, s / T)),
    "t_not_squared": _loss_of(lambda s, t, T: T * _kl(t / T, s / T)),
    "student_not_softened": _loss_of(lambda s, t, T: T**2 * _kl(t / T, s)),
    "teacher_not_softened": _loss_of(lambda s, t, T: T**2 * _kl(t, s / T)),
    "kl_reversed": _loss_of(lambda s, t, T: T**2 * _kl(s / T, t / T)),
    "mean_over_classes": _loss_of(lambda s, t, T: T**2 * _kl(t / T, s / T) / s.shape[-1]),
    "sum_over_rows": _loss_of(lambda s, t, T: T**2 * _kl(t / T, s / T) * len(s)),
    "weights_swapped": lambda s, t, labels, T, weight: _soft_loss(s, t, labels, T, 1 - weight),
    "labels_softened": _loss_of(_right_soft, hard_temperature=lambda temperature: temperature),
    "cross_entropy_to_teacher": (
        _loss_of(lambda s, t, T: -(T**2) * ((t / T).softmax(-1) * (s / T).log_softmax(-1)).sum(-1))
    ),
    "kl_div_of_probabilities": (
        _loss_of(
            lambda s, t, T: (
                T**2 * F.kl_div((s / T).softmax(-1), (t / T).softmax(-1), reduction="none").sum(-1)
            )
        )
    ),
}


SOFT_LOSS = Exercise("soft_loss", _soft_loss, _soft_loss_cases, SOFT_LOSS_MISTAKES)


def check_next_token_kl(next_token_kl) -> bool:
    """Check ``next_token_kl(student_logits, teacher_logits, attention_mask)`` over real tokens."""
    return grade(next_token_kl, NEXT_TOKEN_KL)


def _next_token_kl_cases(seed):
    roll, cases = dice(seed), []
    for lengths, time, classes in [((6, 3), 6, 5), ((2, 5, 4), 5, 4), ((1, 3), 4, 3)]:
        mask = (torch.arange(time) < torch.tensor(lengths)[:, None]).long()
        shape = (len(lengths), time, classes)
        cases.append((_logits(roll, *shape), _logits(roll, *shape), mask))
    return cases


def _counting(attention_mask):
    """Return where the next token is a real one, shape (batch, time - 1)."""
    return attention_mask[:, 1:].bool()


def _next_token_kl(student_logits, teacher_logits, attention_mask):
    labels = torch.where(attention_mask == 1, 0, -100)
    return distillation.causal_distillation_loss(student_logits, teacher_logits, labels, 1.0, 1.0)


def _all_wrong(student_logits, teacher_logits, attention_mask):
    return _kl(teacher_logits[:, 1:], student_logits[:, :-1]).sum(-1).mean()


def _shifted_teacher(student_logits, teacher_logits, attention_mask):
    rows = _kl(teacher_logits[:, 1:], student_logits[:, :-1])
    return rows[_counting(attention_mask)].mean()


def _texts_count_alike(student_logits, teacher_logits, attention_mask):
    rows = _kl(teacher_logits, student_logits)[:, :-1]
    mask = _counting(attention_mask)
    return ((rows * mask).sum(-1) / mask.sum(-1)).mean()


NEXT_TOKEN_KL_MISTAKES = {
    "copied_version": _all_wrong,
    "teacher_shifted": _shifted_teacher,
    "padding_counts": lambda s, t, mask: _kl(t, s)[:, :-1].mean(),
    "last_token_counts": lambda s, t, mask: _kl(t, s)[mask.bool()].mean(),
    "divided_by_texts": lambda s, t, mask: (_kl(t, s)[:, :-1] * _counting(mask)).sum() / len(s),
    "padding_in_the_divisor": lambda s, t, mask: (_kl(t, s)[:, :-1] * _counting(mask)).mean(),
    "texts_count_alike": _texts_count_alike,
    "kl_reversed": lambda s, t, mask: _next_token_kl(t, s, mask),
    "mean_over_vocabulary": lambda s, t, mask: _next_token_kl(s, t, mask) / s.shape[-1],
}


NEXT_TOKEN_KL = Exercise(
    "next_token_kl", _next_token_kl, _next_token_kl_cases, NEXT_TOKEN_KL_MISTAKES
)


def check_match_answers(match_answers) -> bool:
    """Check ``match_answers(logits, ids, mask, limit)``: for each text the teacher's answers."""
    return grade(match_answers, MATCH_ANSWERS)


def _match_answers_cases(seed):
    roll = dice(seed)

    def draw(texts, time, vocabulary, limit, sure):
        asked = whole(0, vocabulary, texts, time, seed=roll.randrange(2**31))
        logits = _logits(roll, texts, time, vocabulary, scale=1.0)
        logits[:, :-1] += sure * F.one_hot(asked[:, 1:], vocabulary)
        logits += 9 * torch.arange(texts)[:, None, None]  # changes no probability
        order = torch.tensor(roll.sample(range(texts), texts))
        lengths = torch.tensor([roll.randint(3, time) for _ in range(texts)])
        mask = (torch.arange(time) < lengths[:, None]).long()
        other = whole(0, vocabulary, 1, time, seed=roll.randrange(2**31))
        ids = torch.cat([asked[order[1:]], other]) * mask
        return logits, ids, mask, limit

    settings = [
        ((5, 6, 7, 1.0, 5.0), ("padding_counts", "sum_not_mean")),
        ((6, 9, 5, 1.2, 4.0), ("first_padding_counts",)),
        ((4, 5, 5, 1.9, 2.5), ("first_below_the_limit",)),
    ]
    return [
        until(partial(_told_apart, others=others), partial(draw, *setting))
        for setting, others in settings
    ]


def _told_apart(case, others):
    """Tell whether no last bit decides, a text is missing, and other ways find something else."""
    costs, limit = _costs(*case[:3]), case[3]
    least = costs.sort(1).values
    clear = (least[:, 1] - least[:, 0]).min() > 0.02 and (least[:, 0] - limit).abs().min() > 0.02
    right = _match_answers(*case)
    some = (right >= 0).any() and (right < 0).any()
    wrong = [MATCH_ANSWERS_MISTAKES[other](*case) for other in others]
    return bool(clear and some) and all((right != answer).any() for answer in wrong)


def _match_answers(logits, ids, mask, limit):
    """Ask PyTorch for the loss of each text under each row of answers, one by one."""
    found = []
    for text, real in zip(ids, mask, strict=True):
        labels = torch.where(real == 1, text, -100)[1:]
        losses = [F.cross_entropy(answers[:-1], labels).item() for answers in logits]
        least = min(losses)
        found.append(losses.index(least) if least <= limit else -1)
    return torch.tensor(found)


def _costs(logits, ids, mask, shift=(slice(None, -1), slice(1, None)), counts=None, of=None):
    """Return the loss of each text under each row of answers, with one thing changed."""
    log_p = logits.log_softmax(-1) if of is None else of(logits)
    log_p, targets = log_p[:, shift[0]], ids[:, shift[1]]
    each = torch.stack([log_p[:, torch.arange(targets.shape[1]), text] for text in targets])
    real = (mask[:, 1:] if counts is None else counts(mask))[:, None]
    return -(each * real).sum(-1) / real.sum(-1)


def _picked(change=lambda costs, mask: costs, kept=lambda costs, limit: costs <= limit, **how):
    def answer(logits, ids, mask, limit):
        costs = change(_costs(logits, ids, mask, **how), mask)
        least = costs.min(1)
        return torch.where(kept(least.values, limit), least.indices, -1)

    return answer


def _turned_round(logits, ids, mask, limit):
    """Say for each row of answers which text it belongs to."""
    least = _costs(logits, ids, mask).min(0)
    return torch.where(least.values <= limit, least.indices, -1)


def _first_below(logits, ids, mask, limit):
    below = _costs(logits, ids, mask) <= limit
    return torch.where(below.any(1), below.int().argmax(1), -1)


MATCH_ANSWERS_MISTAKES = {
    "not_shifted": _picked(shift=(slice(None), slice(None)), counts=lambda mask: mask),
    "shifted_backwards": _picked(shift=(slice(1, None), slice(None, -1))),
    "padding_counts": _picked(counts=lambda mask: torch.ones_like(mask[:, 1:])),
    "first_padding_counts": _picked(counts=lambda mask: mask[:, :-1]),
    "sum_not_mean": _picked(change=lambda costs, mask: costs * mask[:, 1:].sum(1, keepdim=True)),
    "logits_not_probabilities": _picked(of=lambda logits: logits),
    "never_missing": _picked(kept=lambda costs, limit: costs < torch.inf),
    "first_below_the_limit": _first_below,
    "turned_round": _turned_round,
    "order_of_the_cache": lambda logits, ids, mask, limit: torch.arange(len(ids)),
}


MATCH_ANSWERS = Exercise(
    "match_answers", _match_answers, _match_answers_cases, MATCH_ANSWERS_MISTAKES
)


def check_find_control(find_control) -> bool:
    """Check ``find_control(runs, claim)``: (its number, in how many seeds it loses)."""
    return grade(find_control, FIND_CONTROL)


STARTS = ("teacher's layers", "plain layers")
ANSWERS = ("teacher", "labels", "shuffled")
STEPS = (0, 20, 40)
OWN, PLAIN = STARTS


def _find_control_cases(seed):
    roll = dice(seed)
    all_settings = list(itertools.product(STARTS, ANSWERS, STEPS))

    def draw():
        chosen = roll.sample(all_settings, 7)
        runs = [(how, tuple(roll.randint(60, 90) / 100 for _ in range(3))) for how in chosen]
        run, place = roll.randrange(7), roll.randrange(3)
        others = {how[place] for how in chosen} - {chosen[run][place]}
        return runs, (run, place, roll.choice(sorted(others or STEPS)))

    drawn = [
        until(lambda case, there=there: (_find_control(*case)[0] >= 0) == there, draw)
        for there in (True, False, True, True)
    ]
    # The student of the labels starts from other layers: it is no control of the teacher's.
    other_start = [
        ((PLAIN, "labels", 20), (0.73, 0.71, 0.75)),
        ((OWN, "teacher", 20), (0.87, 0.86, 0.86)),
        ((OWN, "labels", 40), (0.83, 0.81, 0.82)),
        ((OWN, "shuffled", 20), (0.39, 0.39, 0.40)),
    ]
    # Ahead in the mean and in the best seed, but not in each; and one tie.
    not_in_each = [
        ((OWN, "labels", 20), (0.60, 0.60, 0.60)),
        ((OWN, "labels", 40), (0.70, 0.80, 0.81)),
        ((OWN, "teacher", 20), (0.90, 0.83, 0.80)),
        ((OWN, "teacher", 40), (0.70, 0.90, 0.80)),
    ]
    return [(other_start, (1, 1, "labels")), (not_in_each, (3, 1, "labels")), *drawn]


def _find_control(runs, claim):
    """Look the wanted settings up in a table of all runs by their settings."""
    run, place, instead = claim
    numbers = {tuple(settings): number for number, (settings, _) in enumerate(runs)}
    settings, scores = runs[run]
    control = numbers.get((*settings[:place], instead, *settings[place + 1 :]), -1)
    if control < 0:
        return -1, 0
    return control, int((np.subtract(scores, runs[control][1]) > 0).sum())


def _compared(
    fits=lambda settings, wanted, place: settings == wanted,
    wins=lambda scores, others: sum(a > b for a, b in zip(scores, others, strict=True)),
    missing=lambda runs: (-1, 0),
):
    """Return a way to look for the control with one thing about it changed."""

    def answer(runs, claim):
        run, place, instead = claim
        settings, scores = runs[run]
        wanted = (*settings[:place], instead, *settings[place + 1 :])
        for number, (others, other_scores) in enumerate(runs):
            if number != run and fits(others, wanted, place):
                return number, wins(scores, other_scores)
        return missing(runs)

    return answer


def _all_but_claimed(settings, wanted, place):
    return all(a == b for i, (a, b) in enumerate(zip(settings, wanted, strict=True)) if i != place)


FIND_CONTROL_MISTAKES = {
    "others_ignored": _compared(
        fits=lambda settings, wanted, place: settings[place] == wanted[place]
    ),
    "instead_ignored": _compared(fits=_all_but_claimed),
    "steps_ignored": _compared(fits=lambda settings, wanted, place: settings[:2] == wanted[:2]),
    "start_ignored": _compared(fits=lambda settings, wanted, place: settings[1:] == wanted[1:]),
    "itself": lambda runs, claim: (claim[0], 0),
    "ties_count": _compared(
        wins=lambda scores, others: sum(a >= b for a, b in zip(scores, others, strict=True))
    ),
    "control_counted": _compared(
        wins=lambda scores, others: sum(a < b for a, b in zip(scores, others, strict=True))
    ),
    "means_compared": _compared(wins=lambda scores, others: 3 * (sum(scores) > sum(others))),
    "seeds_not_paired": _compared(
        wins=lambda scores, others: sum(
            a > b for a, b in zip(sorted(scores), sorted(others), strict=True)
        )
    ),
    "missing_wins": _compared(missing=lambda runs: (-1, 3)),
}


FIND_CONTROL = Exercise("find_control", _find_control, _find_control_cases, FIND_CONTROL_MISTAKES)


def check_soft_gradient(soft_gradient) -> bool:
    """Check ``soft_gradient(student_logits, teacher_logits, temperature)``: gradient and limit."""
    return grade(soft_gradient, SOFT_GRADIENT)


def _soft_gradient_cases(seed):
    roll = dice(seed)
    return [
        (_logits(roll, 5).double() + 1, _logits(roll, 5).double(), 2.0),
        (_logits(roll, 3).double(), _logits(roll, 3).double() - 2, 0.5),
        (_logits(roll, 8).double(), _logits(roll, 8).double() + 3, 7.0),
    ]


def _soft_gradient(student_logits, teacher_logits, temperature):
    """Let autograd differentiate KL; at a huge T, T² times that is the limit."""

    def gradient(T):
        student = student_logits.clone().requires_grad_()
        _kl(teacher_logits / T, student / T).backward()
        return student.grad

    return gradient(temperature), 1e16 * gradient(1e8)


def _changed(first=lambda g, s, t, T: g, second=lambda limit, s, t, T: limit):
    """Return the right pair with one or both of its parts changed."""

    def gradient(student_logits, teacher_logits, temperature):
        given = student_logits, teacher_logits, temperature
        one, other = _soft_gradient(*given)
        return first(one, *given), second(other, *given)

    return gradient


SOFT_GRADIENT_MISTAKES = {
    "not_divided_by_t": _changed(first=lambda g, s, t, T: T * g),
    "with_t_squared": _changed(first=lambda g, s, t, T: T * T * g),
    "divided_by_t_twice": _changed(first=lambda g, s, t, T: g / T),
    "not_softened": _changed(first=lambda g, s, t, T: (s.softmax(-1) - t.softmax(-1)) / T),
    "signs_turned": _changed(lambda g, s, t, T: -g, lambda limit, s, t, T: -limit),
    "limit_not_centred": _changed(second=lambda limit, s, t, T: (s - t) / len(s)),
    "limit_not_divided": _changed(second=lambda limit, s, t, T: limit * len(s)),
    "limit_with_t": _changed(second=lambda limit, s, t, T: limit / T**2),
    "order_swapped": lambda s, t, T: _soft_gradient(s, t, T)[::-1],
}


SOFT_GRADIENT = Exercise(
    "soft_gradient", _soft_gradient, _soft_gradient_cases, SOFT_GRADIENT_MISTAKES
)


# --- worked out by hand, from the numbers of a variant ---


def _first_of_two(soften, logit, temperature):
    return [
        float(soften(torch.tensor([[float(logit), 0.0]]), t)[0][0, 0]) for t in (1, temperature)
    ]


FIRST_OF_TWO = ByHand(SOFTEN, _first_of_two)
