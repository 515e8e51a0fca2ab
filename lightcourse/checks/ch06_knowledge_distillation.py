"""Checks of the exercises of chapter 06."""

import math

import numpy as np
import torch
from torch.distributions import Categorical
from torch.nn import functional as F

from lightcourse import distillation
from lightcourse.checks.cases import dice, normal
from lightcourse.checks.comparing import same
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


def check_temperature_for(temperature_for) -> bool:
    """Check ``temperature_for(logits, entropy)``: where the softened answer has that entropy."""
    return grade(temperature_for, TEMPERATURE_FOR)


def _temperature_for_cases(seed):
    roll = dice(seed)
    cases = [
        (torch.tensor([4.0, 2.0, 1.0, 0.0, -1.0]), 1.2),
        (torch.tensor([9.0, 3.0, 3.0, 1.0]), 1.35),
        (torch.tensor([1.0, 0.5, 0.0, 0.2, -0.3, 0.9]), 0.7),
        (torch.tensor([30.0, 10.0, 0.0]), 1.0),
    ]
    for temperature in (0.015, 80.0, roll.uniform(2, 9)):
        logits = temperature * _logits(roll, 5, scale=1.0)
        cases.append((logits, _soften(logits.double(), temperature)[1].item()))
    return cases


def _as_exact(answer, wanted, logits, entropy):
    """Compare as closely as is asked for, 1e-5, and leave as much again to the last digits."""
    return same(answer, wanted, tolerance=2e-5)


def _temperature_for(logits, entropy):
    """Draw the whole curve, the entropy over the temperature, and read it there."""
    temperatures = torch.logspace(-3, 3, 20_000, dtype=torch.float64)
    _, curve = _soften(logits.double(), temperatures[:, None])
    return math.exp(np.interp(entropy, curve, temperatures.log()))


def _between(logits, entropy, low=1e-3, high=1e3, times=80):
    """Halve the interval, on a scale of factors, until the temperature is found."""
    for _ in range(times):
        middle = math.sqrt(low * high)
        if torch.special.entr((logits.double() / middle).softmax(-1)).sum() < entropy:
            low = middle
        else:
            high = middle
    return low


def _nearest_whole(logits, entropy):
    """Return the whole temperature whose entropy comes nearest."""
    found = {T: abs(_soften(logits.double(), T)[1] - entropy) for T in range(1, 100)}
    return min(found, key=found.get)


TEMPERATURE_FOR_MISTAKES = {
    "inverse": lambda logits, entropy: 1 / _temperature_for(logits, entropy),
    "entropy_in_bits": lambda logits, entropy: _temperature_for(logits, entropy * math.log(2)),
    "entropy_as_share": (
        lambda logits, entropy: _temperature_for(logits, entropy / 2 * math.log(len(logits)))
    ),
    "whole_numbers_only": _nearest_whole,
    "never_below_1": lambda logits, entropy: _between(logits, entropy, low=1.0),
    "never_above_10": lambda logits, entropy: _between(logits, entropy, high=10.0),
    "not_exact": lambda logits, entropy: _between(logits, entropy, times=14),
    "wrong_way": lambda logits, entropy: 1e-3,
}


TEMPERATURE_FOR = Exercise(
    "temperature_for", _temperature_for, _temperature_for_cases, TEMPERATURE_FOR_MISTAKES, _as_exact
)


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
