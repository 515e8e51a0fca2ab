"""A draft makes the target's text come sooner, and changes nothing about it."""

import copy
from collections import Counter
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
from scipy import stats

from lightcourse import generation, models, quantization
from lightcourse.generation import speculative
from tests import toys

PROMPT = "Fellow citizens of the Senate and of the House of Representatives, the"


@pytest.fixture(scope="module")
def target():
    return models.load_tiny_lm("teacher")


@pytest.fixture(scope="module")
def student():
    return models.load_tiny_lm("student")


@pytest.fixture(scope="module")
def four_bits(target):
    copied = copy.deepcopy(target)
    quantization.quantize_(copied, bits=4, group_size=32)
    return copied


@pytest.fixture(scope="module")
def prompt():
    return torch.tensor([models.load_tiny_tokenizer()(PROMPT)["input_ids"]])


def wrong(ids, count):
    """Propose what the target never writes."""
    return torch.full((count,), 2047), None


def silent(ids, count):
    """Propose nothing."""
    return ids[:0], None


# --- greedy ---------------------------------------------------------------------------------


@pytest.mark.parametrize("lookahead", [1, 3, 8])
@pytest.mark.parametrize("kind", ["student", "four_bits", "itself", "look-up", "wrong", "silent"])
def test_the_text_is_the_one_that_the_target_writes_alone(request, target, prompt, kind, lookahead):
    drafts = {
        "student": lambda: generation.ModelDraft(request.getfixturevalue("student")),
        "four_bits": lambda: generation.ModelDraft(request.getfixturevalue("four_bits")),
        "itself": lambda: generation.ModelDraft(target),
        "look-up": lambda: partial(generation.prompt_lookup, ngram=1),
        "wrong": lambda: wrong,
        "silent": lambda: silent,
    }
    want = generation.generate(target, prompt, 24)
    found = generation.speculate(target, drafts[kind](), prompt, 24, lookahead=lookahead)
    assert torch.equal(found.ids, want)
    assert found.accepted <= found.judged <= found.drafted
    # Each call gives what was accepted and one token.
    assert found.accepted + found.calls == 24
    if kind == "itself":
        assert found.acceptance == 1 and found.calls == -(-24 // (lookahead + 1))
    if kind == "wrong":
        assert found.acceptance == 0 and found.calls == 24
    if kind == "silent":
        assert np.isnan(found.acceptance) and found.drafted == 0
    if kind == "four_bits":
        assert found.acceptance > 0.7


def test_a_small_cache_that_can_forget_serves_the_target(target, student, prompt):
    draft = generation.ModelDraft(student)
    cache = generation.quantized_cache(target.config, 8, group=8, residual=4)
    found = generation.speculate(target, draft, prompt, 24, cache=cache)
    assert (found.ids == generation.generate(target, prompt, 24)).float().mean() > 0.9
    tight = generation.quantized_cache(target.config, 8, group=1)
    with pytest.raises(ValueError, match="residual"):
        generation.speculate(target, wrong, prompt, 24, cache=tight)


def test_a_draft_goes_from_text_to_text(target, student, prompt):
    draft = generation.ModelDraft(student)
    for ids in (prompt, prompt[:, 3:], prompt[:, :5], prompt):
        tokens, shares = draft(ids[0], 5)
        want = generation.generate(student, ids, 5)[0, ids.shape[1] :]
        assert torch.equal(tokens, want) and shares.shape == (5, 2048)


def test_dropout_is_off_and_modes_and_dice_are_left():
    model = toys.gpt2()
    ids = torch.tensor([[3, 4, 5]])
    want = generation.generate(model, ids, 8)
    model.train()
    state = torch.get_rng_state()
    for draft in (silent, generation.ModelDraft(toys.gpt2())):
        found = generation.speculate(model, draft, ids, 8)
        assert torch.equal(found.ids, want) and model.training
    assert torch.equal(state, torch.get_rng_state())


def test_without_dice_a_draft_and_its_judge_have_different_ones(target, student, prompt):
    draft = generation.ModelDraft(student, TOP)
    first = generation.speculate(target, draft, prompt, 6, TOP)
    again = generation.speculate(target, generation.ModelDraft(student, TOP), prompt, 6, TOP)
    assert torch.equal(first.ids, again.ids)
    assert draft.generator.initial_seed() != 0  # the judge's


# --- sampled --------------------------------------------------------------------------------

DEPTH, KEPT = 3, 4
TOP = partial(generation.probabilities, top_k=KEPT)


class Remembered:
    """A model that computes what follows a text once: thousands of texts take seconds.

    Its logits are those of a distribution, ready made.
    """

    window, vocabulary = 512, 2048

    def __init__(self, model, distribution=TOP):
        self.model, self.distribution, self.known = model, distribution, {}

    def begin(self, mask=None):
        """Return a session."""
        return Reading(self)

    def after(self, ids):
        """Return what follows a text, as logarithms."""
        if ids not in self.known:
            with torch.no_grad():
                logits = self.model(input_ids=torch.tensor([ids])).logits[0, -1]
            self.known[ids] = self.distribution(logits).log()
        return self.known[ids]


class Reading:
    """A session of such a model."""

    def __init__(self, model):
        self.model, self.ids = model, ()

    @property
    def length(self):
        return len(self.ids)

    def read(self, new, keep=1):
        self.ids += tuple(new[0].tolist())
        ends = range(self.length - keep + 1, self.length + 1)
        return torch.stack([self.model.after(self.ids[:end]) for end in ends])[None]

    def forget(self, count):
        self.ids = self.ids[: self.length - count]


@pytest.fixture(scope="module")
def judged(target):
    """The target, which remembers."""
    return Remembered(target)


def exact(model, prompt):
    """Return the probability of each text of DEPTH tokens that the target may write."""
    shares = {(): 1.0}
    for _ in range(DEPTH):
        new = {}
        for text, share in shares.items():
            after = model.after(tuple(prompt[0].tolist()) + text).exp().double()
            for token in after.nonzero().flatten().tolist():
                new[(*text, token)] = share * after[token].item()
        shares = new
    assert len(shares) == KEPT**DEPTH and sum(shares.values()) == pytest.approx(1)
    return shares


def p_value(judged, prompt, propose, count=2000, seed=2):
    """Return how well what is written fits the target's distribution, by chi-square."""
    shares, dice = exact(judged, prompt), torch.Generator().manual_seed(seed)
    draft, found = propose(dice), Counter()
    for _ in range(count):
        how = {"distribution": torch.exp, "lookahead": 2, "generator": dice}
        written = generation.speculate(judged, draft, prompt, DEPTH, **how).ids[0, -DEPTH:]
        found[tuple(written.tolist())] += 1
    if found.keys() - shares.keys():  # of probability 0
        return 0.0
    wanted = np.array(list(shares.values()))
    wanted *= count / wanted.sum()
    seen = np.array([found[text] for text in shares])
    rare = wanted < 5  # the test is one of large numbers: rare texts are counted together
    wanted, seen = (np.append(x[~rare], x[rare].sum()) for x in (wanted, seen))
    return stats.chisquare(seen, wanted).pvalue


def sampling(student, distribution=TOP):
    """Return what makes the student draft with given dice."""
    model = Remembered(student, distribution)
    return lambda dice: generation.ModelDraft(model, torch.exp, dice)


PROPOSALS = {
    "samples alike": sampling,
    "samples otherwise": partial(
        sampling, distribution=partial(generation.probabilities, temperature=1.5, top_k=6)
    ),
    "is certain": partial(sampling, distribution=generation.certain),
    "copies": lambda student: lambda dice: lambda ids, count: (ids[-count:], None),
}


@pytest.mark.parametrize("name", PROPOSALS)
def test_what_is_written_has_the_targets_distribution(judged, student, prompt, name):
    assert p_value(judged, prompt, PROPOSALS[name](student)) > 0.01


def all_accepted(p, q, generator=None):
    return torch.ones_like(p, dtype=torch.bool)


def too_many_accepted(p, q, generator=None):
    return torch.rand(p.shape, generator=generator) < p / q + 0.2


def too_few_accepted(p, q, generator=None):
    return torch.rand(p.shape, generator=generator) < p / q - 0.2


@pytest.mark.parametrize("mistake", [all_accepted, too_many_accepted, too_few_accepted])
def test_a_judge_that_is_wrong_is_seen(monkeypatch, judged, student, prompt, mistake):
    monkeypatch.setattr(speculative, "accepts", mistake)
    assert p_value(judged, prompt, sampling(student)) < 1e-6


def test_a_refused_place_that_the_target_fills_alone_is_seen(monkeypatch, judged, student, prompt):
    judge = speculative.judge

    def from_the_target(own, tokens, shares, generator=None):
        count, _ = judge(own, tokens, shares, generator)
        return count, generation.drawn(own[count][None], generator)

    monkeypatch.setattr(speculative, "judge", from_the_target)
    assert p_value(judged, prompt, sampling(student)) < 1e-6


def test_accepted_is_the_overlap_of_both():
    dice = torch.Generator().manual_seed(0)
    own, shares = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.2, 0.6])
    tokens = torch.multinomial(shares, 20_000, replacement=True, generator=dice)
    kept = speculative.accepts(own[tokens], shares[tokens], dice)
    overlap = torch.minimum(own, shares).sum().item()
    assert kept.float().mean().item() == pytest.approx(overlap, abs=0.02)


# --- the text as a draft, and the formula -----------------------------------------------------


@pytest.mark.parametrize(
    "ids, count, ngram, want",
    [
        ([1, 2, 3, 1, 2], 2, 2, [3, 1]),
        ([1, 2, 3, 1, 2], 9, 2, [3, 1, 2]),
        ([1, 2, 3, 1, 2], 1, 1, [3]),
        ([1, 2, 9, 1, 2, 8, 1, 2], 1, 2, [8]),  # the latest place
        ([5, 5, 5], 2, 2, [5]),
        ([1, 2, 3, 4], 2, 2, []),
        ([1, 2], 2, 2, []),
        ([1], 2, 3, []),
    ],
)
def test_the_text_is_looked_up(ids, count, ngram, want):
    tokens, shares = generation.prompt_lookup(torch.tensor(ids), count, ngram)
    assert tokens.tolist() == want and shares is None


@pytest.mark.parametrize(
    "acceptance, lookahead, cost", list(product([0, 0.3, 0.9], [1, 5], [0, 0.2]))
)
def test_the_formula_is_the_mean_over_many_rounds(acceptance, lookahead, cost):
    dice = np.random.default_rng(0)
    kept = np.cumprod(dice.random((40_000, lookahead)) < acceptance, axis=1).sum(axis=1)
    want = (kept + 1).mean() / (lookahead * cost + 1)
    assert generation.expected_speedup(acceptance, lookahead, cost) == pytest.approx(want, rel=0.02)


def test_a_draft_that_is_always_right_gives_one_token_more():
    assert generation.expected_speedup(1, 4, 0) == 5


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((1.1, 4, 0.1), "acceptance is 1.1"),
        ((float("nan"), 4, 0.1), "acceptance is nan"),
        ((0.5, 0, 0.1), "lookahead is 0"),
        ((0.5, 4, -1), "cost is -1"),
    ],
)
def test_what_the_formula_does_not_know_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        generation.expected_speedup(*arguments)


# --- bad arguments --------------------------------------------------------------------------

IDS = torch.tensor([[3, 4, 5]])


@pytest.mark.parametrize(
    "draft, ids, length, lookahead, message",
    [
        (silent, IDS.repeat(2, 1), 3, 4, "prompts holds 2 texts; one is wanted"),
        (silent, IDS[0], 3, 4, "prompts is torch.int64 of shape"),
        (silent, IDS, 0, 4, "length is 0"),
        (silent, IDS, 30, 4, "make 33 tokens; 32 at most"),
        (silent, IDS, 3, 0, "lookahead is 0"),
        (lambda ids, count: wrong(ids, count + 1), IDS, 6, 4, "draft proposes 5 tokens; 4 at most"),
        (lambda ids, count: (ids[:1], torch.ones(1, 9) / 9), IDS, 6, 4, "draft knows 9 tokens; 50"),
    ],
)
def test_bad_arguments_are_named(draft, ids, length, lookahead, message):
    with pytest.raises(ValueError, match=message):
        generation.speculate(toys.llama(), draft, ids, length, lookahead=lookahead)
    with pytest.raises(ValueError, match="ngram is 0"):
        generation.prompt_lookup(torch.tensor([1, 2]), 2, ngram=0)
