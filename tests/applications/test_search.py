"""Indexes of any bits, BM25 against its formula, and places that are added."""

import math
import re

import numpy as np
import pytest
import torch

from lightcourse import data, metrics
from lightcourse.applications import search


def vectors(count, width=64, seed=0):
    random = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(count, width, generator=random))


@pytest.mark.parametrize("bits, far", [(None, 1e-6), (8, 0.02), (4, 0.1)])
def test_an_index_says_nearly_the_cosines(bits, far):
    passages, questions = vectors(50), vectors(7, seed=1)
    index = search.vector_index(passages, bits)
    assert (index(questions) - questions @ passages.T).abs().max() < far


def test_fewer_bits_are_fewer_bytes():
    passages = vectors(96)
    sizes = [metrics.size_in_bytes(search.vector_index(passages, bits)) for bits in (None, 8, 4)]
    assert sizes == sorted(sizes, reverse=True)
    assert search.SignIndex(passages).nbytes == 96 * 64 / 8 == sizes[0] / 32


def test_signs_count_how_many_agree():
    passages, questions = vectors(20), vectors(3, seed=1)
    agree = torch.sign(questions) @ torch.sign(passages).T
    assert (search.SignIndex(passages)(questions) == agree.numpy()).all()


def test_the_second_look_keeps_a_few_and_weighs_signs_by_the_question():
    passages, questions = vectors(20), vectors(3, seed=1)
    index = search.SignIndex(passages)
    found = index.reranked(questions, keep=5)
    weighed = (questions @ torch.sign(passages).T).numpy()
    kept = np.isfinite(found)
    assert (kept.sum(1) == 5).all()
    assert np.allclose(found[kept], weighed[kept], atol=1e-5)
    rough = index(questions)
    for row in range(3):
        assert rough[row][kept[row]].min() >= rough[row][~kept[row]].max()
    assert np.isfinite(index.reranked(questions, keep=99)).all()


def test_bm25_is_its_formula():
    texts = ["red red cat", "a cat sat", "dogs bark loudly beside what red cats", "fish"]
    words = [
        ["red", "red", "cat"],
        ["cat", "sat"],
        ["dog", "bark", "loudly", "red", "cat"],
        ["fish"],
    ]
    mean = sum(map(len, words)) / len(words)

    def score(question, text):
        total = 0
        for word in set(question.split()):
            holding = sum(word in other for other in words)
            rarity = math.log(1 + (len(texts) - holding + 0.5) / (holding + 0.5))
            count, room = text.count(word), 1.2 * (0.25 + 0.75 * len(text) / mean)
            total += rarity * count * 2.2 / (count + room)
        return total

    for question in ("red cat", "dog", "fish", "unknown"):
        found = search.Bm25(texts)([question])[0]
        assert found == pytest.approx([score(question, text) for text in words], abs=1e-5)
    assert (search.Bm25(texts)(["what cats"]) == search.Bm25(texts)(["the cat"])).all()


def test_fusing_adds_the_inverse_of_places():
    found = search.fuse([[3, 1, 2]], [[1, 1, 5]])
    assert found == pytest.approx(np.array([[1 / 61 + 1 / 63, 1 / 63 + 1 / 63, 1 / 62 + 1 / 61]]))
    for wrong in ((), ([[1, 2]], [[1]])):
        with pytest.raises(ValueError, match="all alike"):
            search.fuse(*wrong)


def test_every_question_has_its_answer_in_one_passage_of_its_country():
    rows = data.load_factbook()["test"]
    texts = {(row["country"], row["text"]) for row in rows}
    for kind in ("written", "by rule"):
        questions = data.load_factbook_questions(kind)
        assert len(questions) > 40
        for asked in questions:
            assert (asked["country"], asked["passage"]) in texts
            assert asked["answer"] in asked["passage"]


def test_written_questions_use_other_words_than_their_passage():
    names = data.load_country_names()
    for asked in data.load_factbook_questions():
        name, question, passage = (
            set(re.findall(r"\w{4,}", text.lower()))
            for text in (names[asked["country"]], asked["question"], asked["passage"])
        )
        grammar = {
            "that",
            "with",
            "from",
            "which",
            "where",
            "does",
            "what",
            "when",
            "most",
            "have",
            "into",
            "were",
        }
        assert not (question & passage) - name - grammar


def test_kinds_and_splits_that_do_not_exist_are_refused():
    assert all(asked["passage"] is None for asked in data.load_factbook_questions("unanswerable"))
    for wrong in (("spoken", "test"), ("written", "train"), ("by rule", "dev")):
        with pytest.raises(ValueError):
            data.load_factbook_questions(*wrong)
