"""Recommendation: the split knows no future, the baseline counts, vectors find what was planted."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightcourse.applications import recommendation


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9)), max_size=40), st.integers(1, 4))
def test_the_last_of_each_user_are_held_out(rows, held):
    users, times = (torch.tensor([row[part] for row in rows]).long() for part in (0, 1))
    last = recommendation.leave_last_out(users, times, held).tolist()
    for user in range(6):
        own = [place for place, row in enumerate(rows) if row[0] == user]
        own.sort(key=lambda place: (rows[place][1], place))
        wanted = own[-held:] if len(own) > held else []
        assert [place for place in own if last[place]] == wanted


def test_a_split_refuses_what_it_cannot_split():
    with pytest.raises(ValueError, match="equally long"):
        recommendation.leave_last_out(torch.tensor([0, 1]), torch.tensor([1]))
    with pytest.raises(ValueError, match="held is 0"):
        recommendation.leave_last_out(torch.tensor([0]), torch.tensor([1]), 0)


def test_popularity_counts_unknown_items_too():
    counts = recommendation.popularity(torch.tensor([3, 1, 3]), 5)
    assert counts.tolist() == [0, 1, 0, 2, 0]
    assert recommendation.popularity(torch.tensor([]).long(), 2).tolist() == [0, 0]


@pytest.mark.parametrize("items", [torch.tensor([5]), torch.tensor([-1]), torch.tensor([1.0])])
def test_popularity_refuses_what_is_no_item(items):
    with pytest.raises(ValueError, match="items"):
        recommendation.popularity(items, 5)


def planted():
    """Forty users of two tastes, each of whom chose half of the items of their own."""
    generator = torch.Generator().manual_seed(0)
    taste = torch.arange(40) % 2
    seen = torch.rand(40, 30, generator=generator) < 0.5
    return seen & ((torch.arange(30) % 2)[None] == taste[:, None]), taste


def test_vectors_find_the_planted_taste():
    seen, taste = planted()
    torch.manual_seed(0)
    users, items = recommendation.factorize(seen, 4, decay=1.0)
    lists = recommendation.recommend(users, items, seen, 3)
    assert (lists % 2 == taste[:, None]).all()
    assert not seen.gather(1, lists).any()


def test_each_half_step_solves_its_least_squares():
    seen = planted()[0]
    torch.manual_seed(0)
    users, items = (
        side.double().requires_grad_() for side in recommendation.factorize(seen, 3, 2, 4.0, 0.5)
    )
    wanted = seen.double()
    loss = ((1 + 4 * wanted) * (users @ items.T - wanted) ** 2).sum() + 0.5 * (items**2).sum()
    (slope,) = torch.autograd.grad(loss, items)
    assert slope.abs().max() < 1e-3
    assert loss < ((1 + 4 * wanted) * wanted).sum()


@pytest.mark.parametrize("change", [{"width": 0}, {"steps": 0}, {"decay": float("nan")}])
def test_factorize_refuses(change):
    right = {"seen": torch.ones(2, 2, dtype=torch.bool), "width": 1}
    with pytest.raises(ValueError, match=next(iter(change))):
        recommendation.factorize(**right | change)
    with pytest.raises(ValueError, match="seen"):
        recommendation.factorize(torch.ones(2, 2), 1)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.integers(1, 9), st.integers(0, 1000))
def test_recommended_are_the_best_of_the_unseen(count, choices, seed):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(-2, 3, (count, choices), generator=generator).float()
    seen = torch.rand(count, choices, generator=generator) < 0.3
    k = int((~seen).sum(1).min())
    if k == 0:
        return
    lists = recommendation.recommend(scores, torch.eye(choices), seen, k)
    for row in range(count):
        unseen = [item for item in range(choices) if not seen[row, item]]
        assert lists[row].tolist() == sorted(unseen, key=lambda item: -scores[row, item])[:k]


def test_recommend_refuses():
    one, none = torch.ones(2, 1), torch.zeros(2, 2, dtype=torch.bool)
    with pytest.raises(ValueError, match="equal width"):
        recommendation.recommend(one, torch.ones(2, 3), none, 1)
    with pytest.raises(ValueError, match="seen"):
        recommendation.recommend(one, one, none[:1], 1)
    with pytest.raises(ValueError, match="fewest unseen"):
        recommendation.recommend(one, one, torch.tensor([[True, False], [False, False]]), 2)
    with pytest.raises(ValueError, match="NaN"):
        recommendation.recommend(one * torch.nan, one, none, 1)


def test_what_lists_cover_and_how_much_is_tail():
    lists, counts = torch.tensor([[0, 1], [0, 4]]), torch.tensor([5, 1, 9, 1, 0])
    assert recommendation.coverage(lists, 5) == 0.6
    assert recommendation.tail_share(lists, counts, 0.4) == 0.5  # 2 and 0 are the head
    assert recommendation.tail_share(lists, counts, 0.0) == 1
    assert recommendation.tail_share(lists, counts, 1.0) == 0
    with pytest.raises(ValueError, match="head"):
        recommendation.tail_share(lists, counts, 1.5)
    with pytest.raises(ValueError, match="at least one"):
        recommendation.coverage(lists[:0], 5)
