"""The quizzes of the chapters: five questions, one right choice each, and all of it explained."""

import pytest
import yaml

from tools import notebooks

QUIZZES = sorted(notebooks.ROOT.glob("sources/*/quiz.yaml"))
QUESTIONS, CHOICES = 5, range(3, 6)


def problems(quiz):
    """Yield what is wrong with a quiz as it was read."""
    if not isinstance(quiz, list) or len(quiz) != QUESTIONS:
        yield f"it is no list of {QUESTIONS} questions"
        return
    texts = [str(each.get("question") or "") for each in quiz]
    yield from not_told_apart(texts, "questions")
    for number, each in enumerate(quiz, 1):
        if set(each) != {"question", "choices"}:
            yield f"question {number} has the keys {sorted(each)}"
        for problem in in_choices(each.get("choices") or []):
            yield f"question {number}: {problem}"


def in_choices(choices):
    """Yield what is wrong with the choices of one question."""
    if len(choices) not in CHOICES:
        yield f"{len(choices)} choices"
    if [choice["right"] for choice in choices if "right" in choice] != [True]:
        yield "not exactly one choice says right: true"
    if any(set(choice) - {"right"} != {"text", "explain"} for choice in choices):
        yield "a choice has other keys than text, explain and right"
    for key in ("text", "explain"):
        yield from not_told_apart([choice.get(key) for choice in choices], key)


def not_told_apart(texts, what):
    """Yield a problem where a text is empty, no text, or said twice."""
    if not all(isinstance(text, str) and text.strip() for text in texts):
        yield f"one of {what} is empty or no text"
    elif len({" ".join(text.lower().split()) for text in texts}) < len(texts):
        yield f"two of {what} are the same"


def read(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", QUIZZES, ids=lambda path: path.parent.name)
def test_quiz(path):
    assert not list(problems(read(path)))


@pytest.mark.parametrize("path", QUIZZES, ids=lambda path: path.parent.name)
def test_the_right_choice_has_no_place_of_its_own(path):
    places = {[c.get("right") for c in each["choices"]].index(True) for each in read(path)}
    assert len(places) > 1


def toy():
    """Return a quiz without a fault, which a test may spoil."""
    return [
        {
            "question": f"What is {number} + 1?",
            "choices": [
                {"text": f"{number + 1}", "right": True, "explain": "One more."},
                {"text": f"{number}", "explain": "Nothing was added."},
                {"text": f"{number}1", "explain": "The digits were joined."},
            ],
        }
        for number in range(5)
    ]


def test_a_toy_has_no_fault():
    assert not list(problems(toy()))


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda quiz: quiz.pop(), "no list of 5"),
        (lambda quiz: quiz[0]["choices"].pop(), "question 1: 2 choices"),
        (lambda quiz: quiz[1]["choices"][1].update(right=True), "question 2: not exactly one"),
        (lambda quiz: quiz[1]["choices"][1].update(right=False), "question 2: not exactly one"),
        (lambda quiz: quiz[2]["choices"][0].pop("right"), "question 3: not exactly one"),
        (lambda quiz: quiz[3]["choices"][2].pop("explain"), "question 4: a choice has other keys"),
        (lambda quiz: quiz[3]["choices"][2].update(explain=" "), "question 4: one of explain"),
        (lambda quiz: quiz[4]["choices"][1].update(text="5 "), "question 5: two of text"),
        (lambda quiz: quiz[4]["choices"][1].update(text=4), "question 5: one of text"),
        (lambda quiz: quiz[0].update(question=quiz[1]["question"]), "two of questions"),
        (lambda quiz: quiz[0].update(question=""), "one of questions"),
        (lambda quiz: quiz[0].update(hint="none"), "question 1 has the keys"),
    ],
)
def test_a_fault_is_found(spoil, message):
    quiz = toy()
    spoil(quiz)
    found = list(problems(quiz))
    assert any(message in problem for problem in found), found
