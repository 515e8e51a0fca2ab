"""When two answers are the same, and how to say where they are not."""

import numpy as np
from numpy import allclose  # by name: a notebook may overwrite np.allclose

from lightcourse.checks.words import say
from lightcourse.wire import Other

# Halves and whole floats differ by rounding; 1e-4 tells any real mistake from that.
TOLERANCE = 1e-4


def same(answer, wanted, tolerance: float = TOLERANCE) -> bool:
    """Tell whether two answers agree in structure, shape and value.

    Whole numbers must be equal; of others a relative error of ``tolerance`` is forgiven, and
    of a tensor's small entries 1e-6 of the largest. An array may stand for a tuple or list.
    """
    if isinstance(wanted, (tuple, list)):
        answer = entries(answer)
        return (
            answer is not None
            and len(answer) == len(wanted)
            and all(same(a, w, tolerance) for a, w in zip(answer, wanted, strict=True))
        )
    if isinstance(wanted, str):
        return isinstance(answer, str) and answer == wanted
    answer, wanted = to_array(answer), to_array(wanted)
    if answer is None or wanted is None or answer.shape != wanted.shape:
        return False
    if (answer.dtype == bool) != (wanted.dtype == bool):
        return False
    if wanted.dtype.kind in "iu":
        tolerance = 1e-7  # for counts that were computed in float32
    return close(answer.astype(float), wanted.astype(float), tolerance)


def close(answer, wanted, tolerance):
    """Compare two arrays of floats of the same shape."""
    largest = np.abs(wanted[np.isfinite(wanted)]).max(initial=0) or 1.0
    smallest = largest * min(tolerance, 1e-6)
    return allclose(answer, wanted, tolerance, smallest, equal_nan=True)


def entries(value):
    """Return a tuple, list or array as a list of its entries, or None."""
    if isinstance(value, (tuple, list)):
        return list(value)
    return list(value) if getattr(value, "ndim", 0) > 0 else None


def to_array(value):
    """Return a number, tensor or array as a NumPy array of numbers, or None."""
    try:
        array = np.asarray(
            value.float() if "bfloat16" in str(getattr(value, "dtype", "")) else value
        )
    except Exception:
        return None
    return array if array.dtype.kind in "biuf" else None


def is_mask(answer, wanted) -> bool:
    """Tell whether an answer is a mask, True and False, of the wanted shape."""
    array = to_array(answer)
    return array is not None and array.dtype == bool and array.shape == tuple(wanted.shape)


def difference(answer, wanted, tolerance: float = TOLERANCE) -> str:
    """Say how an answer differs from the one that is wanted, its kind first."""
    if isinstance(wanted, (tuple, list)):
        return _difference_in(entries(answer), answer, wanted, tolerance)
    if isinstance(wanted, str):
        return _other(shown([wanted]), shown([answer]))
    got, want = to_array(answer), to_array(wanted)
    if got is None:
        return _other(_kind(want), _type(answer))
    if got.shape != want.shape:
        return say("shape", wanted=want.shape, returned=got.shape)
    if (got.dtype == bool) != (want.dtype == bool):
        return _other(_kind(want), _kind(got))
    if want.dtype == bool:
        return _mask_difference(got, want)
    return _number_difference(got.astype(float), want.astype(float))


def _other(wanted, returned):
    return say("other", wanted=wanted, returned=returned)


def _difference_in(parts, answer, wanted, tolerance):
    """Say which entry of a tuple or list is wrong, and how."""
    if parts is None:
        return _other(f"({shown(wanted)})", shown([answer]))
    if len(parts) != len(wanted):
        return say("length", wanted=len(wanted), returned=len(parts))
    wrong = [
        i for i, (a, w) in enumerate(zip(parts, wanted, strict=True)) if not same(a, w, tolerance)
    ]
    place = wrong[0] if wrong else 0
    told = difference(parts[place], wanted[place], tolerance)
    return say("entry", place=place + 1, count=len(wanted), difference=told)


def _mask_difference(got, want):
    if got.sum() != want.sum():
        return say("mask_count", wanted=want.sum(), returned=got.sum())
    if want.size > 24:
        return say("large_mask_places", count=want.sum())
    return say("mask_places", wanted=want.tolist())


def _number_difference(got, want):
    """Name the entry that differs most, and by what factor."""
    gap = np.abs(np.nan_to_num(got, nan=np.inf) - np.nan_to_num(want))
    place = np.unravel_index(int(gap.argmax()), gap.shape)
    told = _two_numbers(float(want[place]), float(got[place]))
    if not want.shape:
        return told
    told = say("place", place=", ".join(map(str, place)), difference=told)
    if want.size > 6:
        return told
    return say("whole_and_place", whole=_other(shown([want]), shown([got])), difference=told)


def _two_numbers(want, got):
    """Write two numbers with enough digits to tell them apart."""
    digits = next((d for d in (4, 6, 9, 12) if f"{want:.{d}g}" != f"{got:.{d}g}"), 17)
    digits = max(digits, 6 if want == int(want if np.isfinite(want) else 0) else 4)
    told = _other(_number(want, digits), _number(got, digits))
    ratio = got / want if want and np.isfinite(got) else 1.0
    if 0.99 < abs(ratio) < 1.01 or ratio == 0:
        return told
    return say("times", difference=told, ratio=f"{ratio:.4g}")


def _number(value, digits):
    whole = np.isfinite(value) and value == int(value) and abs(value) < 1e15
    return str(int(value)) if whole else f"{value:.{digits}g}"


def _type(value):
    return value.type_name if isinstance(value, Other) else type(value).__name__


def _kind(array):
    if array.dtype == bool:
        return say("mask")
    return say("tensor") if array.shape else say("number")


def given(case, names) -> str:
    """Return the arguments of a case with their names."""
    return ", ".join(f"{name}={shown([value])}" for name, value in zip(names, case, strict=True))


def shown(values) -> str:
    """Return values in short: small things whole, large ones by their shape."""
    return ", ".join(map(_short, values))


def _short(value):
    array = to_array(value)
    if isinstance(value, (tuple, list)):
        return f"({shown(value)})" if len(value) <= 40 else say("long_list", count=len(value))
    if isinstance(value, (str, int)):
        return repr(value)
    if array is None:
        return _type(value)
    if array.size > 24:
        return say("large", type=_type(value), shape=array.shape)
    return str(
        np.round(array.astype(float), 4).tolist() if array.dtype.kind == "f" else array.tolist()
    )
