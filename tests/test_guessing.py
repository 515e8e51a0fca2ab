"""A guess beside what was measured: any guess gets an answer, and never an error."""

import pytest

from lightcourse.guessing import compare


@pytest.mark.parametrize(
    ("guess", "measured", "said"),
    [
        (..., 90.9, "measured: 90.9 MB (no guess yet)"),
        (90, 90.9, "measured: 90.9 MB; your guess, 90 MB, is right within 5 %"),
        (60, 90.9, "is 34% too small"),
        (300, 90.9, "your guess, 300 MB, is 3.3 times too large"),
        (0, 90.9, "is 90.9 too small"),
        (3, -1.5, "is 4.50 too large"),
        (float("inf"), 90.9, "is inf times too large"),
        ("ninety", 90.9, "'ninety' is no number"),
        (None, 90.9, "None is no number"),
        (5, 1234567, "measured: 1,234,567 MB;"),
        (float("nan"), 90.9, "your guess, nan MB"),
        (5, 22.0, "measured: 22.0 MB; your guess, 5 MB, is 77% too small"),
        (5, 823.42, "measured: 823.4 MB;"),
        (0.02, 0.0234, "measured: 0.0234 MB;"),
        (1, True, "measured: 1 MB; your guess, 1 MB, is right"),
    ],
)
def test_a_number_is_compared_with_a_number(capsys, guess, measured, said):
    compare(guess, measured, "MB")
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("guess", "said"),
    [
        (..., "measured: slower (no guess yet)"),
        (" Slower", "measured: slower, as you guessed"),
        ("faster", "measured: slower; your guess was: faster"),
        (3, "measured: slower; your guess was: 3"),
    ],
)
def test_a_word_is_compared_with_a_word(capsys, guess, said):
    compare(guess, "slower")
    assert capsys.readouterr().out.strip() == said


def test_what_is_not_measured_is_not_called_so(capsys):
    compare(7, 8, "rows", how="computed")
    said = "computed: 8 rows; your guess, 7 rows, is 12% too small"
    assert capsys.readouterr().out.strip() == said
