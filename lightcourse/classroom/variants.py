"""Notebooks of one chapter's exercises that differ in numbers: what each learner works out by hand.

A chapter's ``variants.yaml`` names the questions and the numbers that they may have; which function
of the exercises is asked for the right answer stands in ``lightcourse.checks``. A variant is the
course's exercise with its numbers in the text, and a place for each answer.
"""

import copy
import hashlib
import random
from dataclasses import dataclass, field
from pathlib import Path

from lightcourse.classroom.grade import variable

FILE = "variants.yaml"
RULES = (
    "*Write a number, or numbers in brackets, or a calculation such as `2 / 3`: whole numbers "
    "just so, others to three digits.*"
)
TRIES = 500  # draws of numbers for a question, and ten more for each variant


@dataclass(frozen=True)
class Question:
    """A question by hand.

    Parameters
    ----------
    name : str
        Its name in :data:`lightcourse.checks.BY_HAND`.
    numbers : dict of str to list
        What each number may be; the first is that of the course's own exercise.
    ask, answer : str
        The question, and what its answer consists of, with the numbers' names in braces.
    stands : list of str
        What stands in the exercise, each once, and is put there with a variant's numbers.
    """

    name: str
    numbers: dict[str, list]
    ask: str
    answer: str
    stands: list[str] = field(default_factory=list)

    @property
    def first(self) -> dict:
        """The numbers of the course's own exercise."""
        return {name: choices[0] for name, choices in self.numbers.items()}

    def allows(self, numbers) -> bool:
        """Tell whether numbers are some that a variant may have."""
        return (
            isinstance(numbers, dict)
            and set(numbers) == set(self.numbers)
            and all(
                any(type(n) is type(c) and n == c for c in self.numbers[k])
                for k, n in numbers.items()
            )
        )


def read_questions(room: str | Path) -> dict[str, Question]:
    """Return the questions of a chapter's room, by their names.

    Raises
    ------
    ValueError
        When the chapter has none, or one that is not as it should be.
    """
    import yaml

    file = Path(room, FILE)
    if not file.is_file():
        raise ValueError(f"chapter {file.parent.name} asks nothing by hand: it has no {file.name}")
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
        return {name: Question(name, **question) for name, question in found.items()}
    except (yaml.YAMLError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} holds no questions by hand: {error}") from error


def variant_id(chapter: str, seed: int, number: int) -> str:
    """Return the id of a variant, which tells nothing of the others to who has not the seed."""
    told = f"lightcourse variant {chapter} {seed} {number}"
    return hashlib.sha256(told.encode()).hexdigest()[:12]


def deal(question: Question, count: int, seed: int) -> list[dict]:
    """Return numbers for so many variants, with answers that are not alike as far as there are.

    Where no more numbers have an answer of their own, they come again, as evenly as may be.
    """
    from lightcourse.checks import BY_HAND, by_hand

    roll = random.Random(f"lightcourse {question.name} {seed}")
    dealt, answers = {}, []
    for _ in range(TRIES + 10 * count):
        numbers = {name: roll.choice(choices) for name, choices in question.numbers.items()}
        drawn = tuple(numbers.values())
        if len(answers) == count or drawn in dealt:
            continue
        wanted = by_hand.find_wanted(BY_HAND[question.name], numbers)
        alike = any(by_hand.agree(wanted, other, by_hand.APART) for other in answers)
        dealt[drawn] = None if alike else numbers
        answers += [] if alike else [wanted]
    own = [numbers for numbers in dealt.values() if numbers]
    return [own[place % len(own)] for place in range(count)]


def make(exercise, questions: dict[str, Question], numbers: dict[str, dict], variant: str):
    """Return a variant of an exercise: a new notebook.

    Parameters
    ----------
    exercise : nbformat node
        The course's own, which stays as it is.
    questions : dict of str to Question
        Those of the chapter.
    numbers : dict of str to dict
        The variant's numbers, by question and name.
    variant : str
        Its id, which goes into the notebook's metadata.

    Raises
    ------
    ValueError
        When what a question says stands in the exercise is not there, or more than once.
    """
    notebook = copy.deepcopy(exercise)
    for question in questions.values():
        for text in question.stands:
            _put(
                notebook.cells, text.format(**question.first), text.format(**numbers[question.name])
            )
    for question in questions.values():
        _insert(notebook.cells, question, numbers[question.name])
    notebook.metadata["lightcourse"] = {"variant": variant}
    return notebook


def _put(cells, old, new):
    """Replace what stands in one cell, once."""
    holding = [cell for cell in cells if old in cell.source]
    if len(holding) != 1 or holding[0].source.count(old) != 1:
        raise ValueError(f"{old!r} stands in the exercise {len(holding)} times; once is wanted")
    holding[0].source = holding[0].source.replace(old, new)


def _insert(cells, question, numbers):
    """Put a question and the place for its answer before the function that is asked."""
    from nbformat.v4 import new_code_cell, new_markdown_cell

    from lightcourse.checks import BY_HAND

    function = BY_HAND[question.name].exercise.name
    ids = [cell.metadata.get("nbgrader", {}).get("grade_id") for cell in cells]
    places = [place for place, grade_id in enumerate(ids) if grade_id == function]
    if not places:
        raise ValueError(f"the exercise has no function {function}, of which {question.name} asks")
    given = ", ".join(f"{name}={value!r}" for name, value in numbers.items())
    code = (
        f"{variable(question.name)} = ...  # {question.answer.format(**numbers)}\n"
        f'passed = checks.check_by_hand("{question.name}", {variable(question.name)}, {given})'
    )
    text = f"**By hand**, with numbers of your own: {question.ask.format(**numbers)} {RULES}"
    cells[places[0] : places[0]] = [
        new_markdown_cell(text, id=f"{question.name.replace('_', '-')}-asked"),
        new_code_cell(code, id=f"{question.name.replace('_', '-')}-answer"),
    ]
