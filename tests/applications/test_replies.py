"""A history is cut to whole turns, and remembering changes no word."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightcourse import generation, models
from lightcourse.applications.replies import Remembering, answer, fitting, prompt
from tests import toys

TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def chat_tokenizer():
    """Return the tiny models' tokenizer with a template of a chat."""
    tokenizer = models.load_tiny_tokenizer()
    tokenizer.chat_template = TEMPLATE
    return tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return chat_tokenizer()


@pytest.fixture(scope="module")
def student():
    return models.load_tiny_lm("student")


def history(texts, system=None):
    """Return messages of texts, the user's first."""
    roles = ("user", "assistant")
    turns = [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]
    return ([{"role": "system", "content": system}] if system else []) + turns


def size(tokenizer, messages):
    """Return the tokens of messages as the model sees them."""
    return len(tokenizer(prompt(tokenizer, messages), add_special_tokens=False)["input_ids"])


WORDS = st.text("ab \n", min_size=1, max_size=9)
TURNS = st.lists(WORDS, min_size=1, max_size=9).filter(lambda texts: len(texts) % 2)


@settings(deadline=None)
@given(TURNS, st.one_of(st.none(), WORDS), st.integers(1, 150))
def test_what_is_kept_fits_and_one_turn_more_would_not(texts, system, most):
    tokenizer, messages = chat_tokenizer_of_the_module, history(texts, system)
    head = 1 if system else 0
    tails = [messages[:head] + messages[i:] for i in range(head, len(messages), 2)]
    fits = [tail for tail in tails if size(tokenizer, tail) <= most]
    if fits:
        assert fitting(tokenizer, messages, most) == fits[0]
    else:
        with pytest.raises(ValueError, match=f"{size(tokenizer, tails[-1])} tokens; {most} at"):
            fitting(tokenizer, messages, most)


chat_tokenizer_of_the_module = chat_tokenizer()


def test_the_history_itself_is_left_alone(tokenizer):
    messages = history(["one", "two", "three"])
    before = [dict(message) for message in messages]
    fitting(tokenizer, messages, size(tokenizer, messages) - 1)
    assert messages == before


@pytest.mark.parametrize(
    "messages",
    [
        [],
        history(["one", "two"]),
        history([], system="be brief"),
        history(["one"])[::-1] + history(["two"]),
        history(["one", "two", "three"]) + [{"role": "system", "content": "late"}],
        [{"role": "robot", "content": "hm"}],
    ],
)
def test_roles_out_of_turn(tokenizer, messages):
    with pytest.raises(ValueError, match="messages has the roles"):
        fitting(tokenizer, messages, 99)


def test_text_that_would_end_its_own_message(tokenizer):
    with pytest.raises(ValueError, match=r"messages\[0\] holds <\|endoftext\|>"):
        fitting(tokenizer, history(["a<|endoftext|>b"]), 99)


def test_an_answer_is_what_the_model_writes_behind_its_prompt(student, tokenizer):
    messages = history(["the economy", "is strong", "and the people"], "speak")
    plain = generation.write(student, tokenizer, prompt(tokenizer, messages), 20)
    assert "".join(answer(student, tokenizer, messages, 20)) == "".join(plain)


def test_an_answer_leaves_room_for_itself(student, tokenizer):
    messages = history(["long ago " * 60, "yes", "and now"])
    assert size(tokenizer, messages) < 512 - 9
    length = 512 - size(tokenizer, messages) + 1  # one token too many for the whole history
    short = "".join(answer(student, tokenizer, messages[2:], 9))
    assert "".join(answer(student, tokenizer, messages, length)).startswith(short)
    with pytest.raises(ValueError, match="at most"):
        answer(student, tokenizer, history(["long ago " * 600]), 9)


def test_the_same_seed_draws_the_same_answer(student, tokenizer):
    def drawn(seed):
        dice = torch.Generator().manual_seed(seed)
        choose = generation.sampled(1.0, dice)
        return "".join(answer(student, tokenizer, history(["our people"]), 24, choose))

    assert drawn(1) == drawn(1) != drawn(2)


@pytest.mark.parametrize("words", [["e"], ["he", " of "], ["zzz"]])
def test_stop_words_are_never_shown(student, tokenizer, words):
    whole = "".join(answer(student, tokenizer, history(["our people"]), 24))
    shown = "".join(answer(student, tokenizer, history(["our people"]), 24, stop=words))
    ends = [whole.find(word) for word in words if word in whole]
    assert shown == whole[: min(ends, default=len(whole))]


def test_stop_of_one_string(student, tokenizer):
    with pytest.raises(ValueError, match="stop is the string"):
        answer(student, tokenizer, history(["a"]), 9, stop="end")


# Remembering


class Counting:
    """A session's stand-in that notes how many tokens it was given."""

    def __init__(self, model):
        self.model, self.window = model, model.config.max_position_embeddings
        self.vocabulary, self.config, self.read_tokens = 50, model.config, 0

    def begin(self, mask=None):
        self.session = generation.begin(self.model)
        return self

    @property
    def length(self):
        return self.session.length

    def read(self, new, keep=1):
        self.read_tokens += new.shape[1]
        return self.session.read(new, keep)

    def forget(self, count):
        self.session.forget(count)


def test_remembering_says_the_same_and_reads_less(student, tokenizer):
    remembering, messages = Remembering(student), []
    for said in ("our people", "and the economy", "what of peace"):
        messages += [{"role": "user", "content": said}]
        found = "".join(answer(remembering, tokenizer, messages, 12))
        assert found == "".join(answer(student, tokenizer, messages, 12))
        messages += [{"role": "assistant", "content": found or "so"}]


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=9), min_size=1, max_size=5))
@settings(deadline=None, max_examples=25)
def test_each_text_is_read_as_if_it_were_the_first(texts):
    llama = toys.llama()
    counting = Counting(llama)
    remembering, before = Remembering(counting), []
    for ids in texts:
        new, counted = torch.tensor([ids]), counting.read_tokens
        found = remembering.begin().read(new)
        torch.testing.assert_close(found, generation.begin(llama).read(new), rtol=1e-4, atol=1e-5)
        same = 0
        while same < min(len(before), len(ids) - 1) and before[same] == ids[same]:
            same += 1
        assert counting.read_tokens - counted == len(ids) - same
        before = ids


def test_an_interrupted_reading_is_not_taken_for_a_whole_one():
    llama = toys.llama()
    counting = Counting(llama)
    remembering = Remembering(counting)
    remembering.begin().read(torch.tensor([[1, 2]]))
    read, counting.read = counting.read, lambda new, keep: 1 / 0
    with pytest.raises(ZeroDivisionError):
        remembering.read(torch.tensor([[3]]))
    counting.read = read
    new = torch.tensor([[1, 2, 3, 4]])
    found = remembering.begin().read(new)
    torch.testing.assert_close(found, generation.begin(llama).read(new), rtol=1e-4, atol=1e-5)


def test_remembering_is_for_one_text():
    remembering = Remembering(toys.llama())
    with pytest.raises(ValueError, match="new holds 2 texts"):
        remembering.begin().read(torch.zeros(2, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match="mask is given"):
        remembering.begin(torch.ones(1, 3, dtype=torch.bool))
