"""What is taken out of a passage, and how it is judged."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightcourse.applications import answers


@pytest.mark.parametrize(
    "question, sentence, wanted",
    [
        (
            "When was it adopted?",
            "several previous; latest adopted 6 November 1994",
            "6 November 1994",
        ),
        ("When does it celebrate?", "Unification Day, 1 December (1918)", "1 December"),
        (
            "Who is the prime minister?",
            "Prime Minister Jonas Gahr STORE (since 2021)",
            "Jonas Gahr STORE",
        ),
        ("Who built it?", "nobody knows", "nobody knows"),
        ("How many soldiers?", "approximately 75,000 active (2025)", "75,000"),
        ("Which song is it?", "God Save the King", "God Save the King"),
    ],
)
def test_a_piece_is_what_the_question_asks_for(question, sentence, wanted):
    assert answers.piece(question, sentence) == wanted


@given(st.lists(st.sampled_from(["Rain", "9.6 times", "e.g. this", "St. John", "hot"]), min_size=1))
def test_splitting_loses_no_word(parts):
    text = "; ".join(parts) + ". The End"
    kept = " ".join(answers.clauses(text)).replace(";", "").split()
    assert kept == text.replace(";", "").split()


@given(st.text(max_size=20), st.text(max_size=20))
def test_f1_is_a_share_and_the_same_both_ways(first, second):
    found = answers.token_f1(first, second)
    assert 0 <= found <= 1 and found == answers.token_f1(second, first)
    assert answers.token_f1(first, first) == 1


def test_contains_wants_whole_words_side_by_side():
    assert answers.contains("in the Dead Sea, 9.6 times", "Dead Sea")
    assert not answers.contains("Deadly Sea", "Dead")
    assert not answers.contains("Sea Dead", "Dead Sea")


def test_risk_falls_with_coverage_where_confidence_is_right():
    coverage, risk = answers.risk_by_coverage([0.9, 0.8, 0.8, 0.1], [True, True, False, False])
    assert np.allclose(coverage, [0.25, 0.75, 1]) and np.allclose(risk, [0, 1 / 3, 0.5])
    for wrong in (([], []), ([0.1], [True, False])):
        with pytest.raises(ValueError, match="filled"):
            answers.risk_by_coverage(*wrong)


def test_the_sentence_nearest_to_the_question_is_chosen(monkeypatch):
    def letters(texts, encoder, tokenizer):
        import torch

        counted = [[text.lower().count(letter) for letter in "xyz"] for text in texts]
        return torch.nn.functional.normalize(torch.tensor(counted).float() + 0.01)

    monkeypatch.setattr(answers, "unit_vectors", letters)
    passage = {"country": "Norwa", "section": "G", "text": "one x 3; two z 7"}
    found = answers.best_answer("how many zzz", [passage], None, None)
    assert found.sentence == "two z 7" and found.text == "7" and "7" in str(found)
    with pytest.raises(ValueError, match="passages is empty"):
        answers.best_answer("how", [], None, None)


def test_only_sentences_with_what_is_asked_for_count(monkeypatch):
    import torch

    monkeypatch.setattr(answers, "unit_vectors", lambda texts, *_: torch.eye(2)[[0] * len(texts)])
    passage = {"country": "P", "section": "G", "text": "president of the court; President Ann LEE"}
    assert answers.best_answer("Who is it?", [passage], None, None).text == "Ann LEE"
    assert (
        answers.best_answer("What is it?", [passage], None, None).text == "president of the court"
    )
