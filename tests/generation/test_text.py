"""Text comes in whole characters, and ends before its stop words."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightcourse import generation, models
from lightcourse.generation.text import before_stop, characters
from tests import toys

PROMPT = "The United"


@pytest.fixture(scope="module")
def tokenizer():
    return models.load_tiny_tokenizer()


@pytest.fixture(scope="module")
def student():
    return models.load_tiny_lm("student")


def tokens_of(tokenizer, text):
    """Return a text's ids."""
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@given(st.text(max_size=12))
def test_pieces_are_the_text_and_none_ends_in_half_a_character(text):
    tokenizer = models.load_tiny_tokenizer()
    pieces = list(characters(tokenizer, tokens_of(tokenizer, PROMPT), tokens_of(tokenizer, text)))
    assert "".join(pieces) == tokenizer.decode(tokens_of(tokenizer, text))
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in pieces)


def test_a_character_of_several_tokens_waits_for_its_last(tokenizer):
    ids = tokens_of(tokenizer, "a😀b")
    assert len(ids) > 4  # the tokenizer of English speeches spells it in bytes
    assert list(characters(tokenizer, [], iter(ids))) == ["a", "😀", "b"]


def test_bytes_that_make_no_character_are_told_at_the_end(tokenizer):
    ids = tokens_of(tokenizer, "a😀")
    assert list(characters(tokenizer, [], ids[:-1])) == ["a", "\ufffd"]
    assert "".join(characters(tokenizer, [], [*ids[1:3], *tokens_of(tokenizer, "b")])) == "\ufffdb"


def until_stop(text, words):
    """Return a text up to the first word that is complete, by trying every place."""
    for end in range(1, len(text) + 1):
        if ended := [word for word in words if text[:end].endswith(word)]:
            return text[: end - max(map(len, ended))]
    return text


@given(st.text("ab ", max_size=20), st.lists(st.text("ab ", min_size=1, max_size=4)), st.data())
def test_a_text_ends_before_its_stop_word_wherever_it_is_cut(text, words, data):
    cuts = data.draw(st.lists(st.integers(0, len(text))).map(sorted))
    pieces = [text[a:b] for a, b in pairwise([0, *cuts, len(text)])]
    found = list(before_stop(pieces, words))
    assert "".join(found) == until_stop(text, words) and "" not in found


def test_only_what_may_become_a_stop_word_waits():
    assert list(before_stop(["one t", "ime tw", "ice", " two", "."], ["two"])) == [
        *["one ", "time ", "twice", " "]
    ]


def test_pieces_come_while_they_are_written():
    def endless():
        while True:
            yield "word "

    pieces = before_stop(endless(), ["stop"])
    assert [next(pieces) for _ in range(3)] == ["word "] * 3


def test_what_is_written_is_what_generate_writes(student, tokenizer):
    ids, _ = generation.pad([tokens_of(tokenizer, PROMPT)])
    want = tokenizer.decode(generation.generate(student, ids, 20)[0, ids.shape[1] :])
    pieces = list(generation.write(student, tokenizer, PROMPT, 20))
    assert "".join(pieces) == want and len(pieces) > 10
    word = want[20:24]  # across tokens
    found = "".join(generation.write(student, tokenizer, PROMPT, 20, stop=[word, "no such word"]))
    assert found == want[: want.index(word)]


def test_the_end_token_ends_the_text_and_is_not_part_of_it(student, tokenizer):
    end, ids = tokenizer.eos_token_id, iter([*tokens_of(tokenizer, " by law"), 0, 5, 5])
    assert end == 0
    choose = lambda logits: logits.new_tensor([next(ids)]).long()  # noqa: E731
    assert "".join(generation.write(student, tokenizer, PROMPT, 9, choose)) == " by law"
    assert list(ids) == [5, 5]


@pytest.mark.parametrize(
    "prompt, length, stop, message",
    [
        ("", 3, [], "prompts is torch.int64 of shape"),
        (PROMPT, 0, [], "length is 0"),
        (PROMPT, 600, [], "512 at most"),
        (PROMPT, 3, "word", "stop is the string 'word'"),
        (PROMPT, 3, ["word", ""], "stop holds an empty string"),
    ],
)
def test_bad_arguments_are_named_before_anything_is_written(
    student, tokenizer, prompt, length, stop, message
):
    with pytest.raises(ValueError, match=message):
        generation.write(student, tokenizer, prompt, length, stop=stop)


def test_a_token_that_the_model_does_not_know_is_named(tokenizer):
    with pytest.raises(ValueError, match="the model's vocabulary"):
        generation.write(toys.llama(), tokenizer, PROMPT, 3)
