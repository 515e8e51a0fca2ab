"""A quiz with all that may go wrong on the way to another format."""

from pathlib import Path

from lightcourse.quizzes import Choice, Question, Quiz, read_quizzes

ROOT = Path(__file__).resolve().parents[2]
COURSE = read_quizzes(ROOT)

TOY = Quiz(
    "99_toy",
    'Toy: <b> & "quotes" / slashes',
    [
        Question(
            r"Is `a < b && b > c` the *same* as $\frac{\alpha}{r} x_1 < 2$?",
            [
                Choice(r"Only if $x_1 < 0$ & **not** else", "No: <script>alert(1)</script>."),
                Choice("It costs 5 $ and 7 $", "Right: `2**(bits - 1)` is no *bold*.", right=True),
                Choice("]]> é ✗ 汉", "`</text>` ends nothing."),
            ],
        ),
        Question(
            "Second?", [Choice("yes", "Yes.", right=True), Choice("no", "No."), Choice("?", "!")]
        ),
    ],
)


def name(quiz):
    return quiz.name
