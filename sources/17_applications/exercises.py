# %% [markdown]
# # 17 · Applications: exercises — a search measured, two witnesses of whom one may be missing, a baseline that knows no future
#
# Three exercises, 50 minutes together: three figures of a search, late fusion by Bayes' rule, and popularity with a proper split. Each function is followed by one line that checks it: ✓, or ✗ and what your answer seems to believe. Run that line as often as you like. Then comes a cell in which your function works on real data, beside a control. Nothing here needs more than chapters 01, 04 and 17.
#
# From the command line, `lightcourse check exercises/17_applications.ipynb` tells which checks pass.

# %%
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

import lightcourse
from lightcourse import checks, data, models
from lightcourse.applications import recommendation

lightcourse.setup(threads=1)

# %% [markdown]
# ## Exercise 1 · How good is a search? ★★ (15 minutes)
#
# A search gives each passage a score. Some passages answer the question, a few better than others. Write `search_quality(scores, relevance, k)` for **one** question:
#
# - `scores`: a tensor of shape (passages,). The highest comes first. **Of equal scores the less relevant comes first**: a search that cannot tell passages apart shall gain nothing by luck;
# - `relevance`: a tensor of whole numbers of the same shape: 0 where a passage does not answer, above the better the higher. At least one is above 0;
# - `k`: how many places are looked at, from 1 to the number of passages.
#
# It returns three numbers:
#
# - **recall@k**: of all passages that answer (relevance above 0), the share that stands among the first $k$;
# - **reciprocal rank**: 1 divided by the place of the first one that answers. Places count from 1. This one knows no $k$;
# - **nDCG@k**: the gain of the first $k$, $\sum_{i=1}^{k} \frac{r_i}{\log_2(1 + i)}$ with the relevance $r_i$ at place $i$, divided by the largest gain that any order of *all* passages has.
#
# **Predict** first: a search gives all of 100 passages the same score, and one of them answers. What are the three, with $k = 10$?
#
# <details><summary>Hint 1</summary>Sort twice: by relevance, the lowest first, and then, with <code>stable=True</code>, by score.</details>
# <details><summary>Hint 2</summary>The best order sorts all relevances, and is cut at <code>k</code> after that.</details>


# %%
def search_quality(scores, relevance, k):
    """Return recall@k, the reciprocal rank, and nDCG@k."""
    ### BEGIN SOLUTION
    order = relevance.argsort()
    order = order[scores[order].argsort(descending=True, stable=True)]
    found, best = relevance[order].double(), relevance.sort(descending=True).values.double()
    discounts = torch.arange(2, k + 2).double().log2()
    recall = (found[:k] > 0).sum() / (relevance > 0).sum()
    rank = 1 / (1 + (found > 0).nonzero().min())
    gain = (found[:k] / discounts).sum() / (best[:k] / discounts).sum()
    return recall.item(), rank.item(), gain.item()
    ### END SOLUTION


# %%
passed = checks.check_search_quality(search_quality)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# **On real data.** MiniLM's vectors of 60 passages of the World Factbook. Each passage asks for the others: one of the same section is worth 1. The control is the same search with scores drawn by chance.

# %%
rows = data.load_factbook()["validation"].select(range(60))
batches = data.ordered_batches(rows, models.load_minilm_tokenizer(), max_length=32)
vectors = models.embed(models.load_minilm(), batches)
vectors = vectors / vectors.norm(dim=1, keepdim=True)
sections = torch.cat([batch["labels"] for batch in batches])
same_section = sections[:, None] == sections

# %% atol=0.05
print(f"of two passages, a share of {same_section.double().mean():.2f} is of one section")
draws = torch.Generator().manual_seed(0)
chances = torch.rand(60, 60, generator=draws)
means = {}
for name, scores in (("vectors", vectors @ vectors.T), ("chance", chances)) if passed else ():
    rows = []
    for asked in range(60):
        others = torch.arange(60) != asked
        same = same_section[asked][others].long()
        if same.any():
            rows.append(search_quality(scores[asked][others], same, 5))
    means[name] = torch.tensor(rows).mean(0)
    print("{:8} recall {:.2f}, rank {:.2f}, nDCG {:.2f}".format(name, *means[name].tolist()))
if passed:
    assert (means["vectors"] > means["chance"]).all()

# %% [markdown] tags=["solution"]
# **Why.** With equal scores everywhere the one that answers stands last: recall 0, rank 1/100, nDCG 0. In another order of the file it might have stood first, with three times 1: a measure that believes the order of a file measures the file. And recall@5 can be small where many passages answer: five places hold five.

# %% [markdown]
# ## Exercise 2 · Two witnesses, or one ★★ (15 minutes)
#
# Several classifiers look at a row, each at its own modality, each with its own log-probabilities. If they err independently given the class, Bayes' rule joins them: with $m$ of them,
#
# $$p(c \mid \text{all}) \propto \frac{\prod_j p_j(c)}{p(c)^{m-1}}$$
#
# Each $p_j$ has the prior $p(c)$ in it, how frequent the class is; it may count once, not $m$ times. Write `fuse(log_probabilities, prior, present)`:
#
# - `log_probabilities`: a tensor of shape (modalities, rows, classes);
# - `prior`: a tensor of shape (classes,), the share of each class in training, all above 0;
# - `present`: a bool tensor of shape (modalities, rows). Where it is False, that modality is missing in that row, and its numbers mean nothing. **They may be NaN**;
# - returns a tensor of shape (rows, classes): **probabilities**, whose sum is 1 in each row.
#
# **Predict** first: a row has none of its modalities. What is the best that can be said?
#
# <details><summary>Hint 1</summary>NaN times 0 is NaN. <code>torch.where</code> chooses instead.</details>
# <details><summary>Hint 2</summary>The number $m$ may differ from row to row.</details>


# %%
def fuse(log_probabilities, prior, present):
    """Return the probabilities of each row's classes, from the modalities that it has."""
    ### BEGIN SOLUTION
    heard = torch.where(present[..., None], log_probabilities, 0.0).sum(0)
    times = present.sum(0) - 1
    return (heard - times[:, None] * prior.log()).softmax(-1)
    ### END SOLUTION


# %%
passed = checks.check_fuse(fuse)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# **On real data.** scikit-learn's digits, cut into an upper and a lower half: two modalities of one thing, so *not* quite independent. Each half has its own classifier. In half of the test rows the lower half is lost. The control reads zeros there, with one classifier of both halves.

# %%
digits = load_digits()
pixels, wanted = torch.tensor(digits.data).float() / 16, torch.tensor(digits.target)
halves = [(pixels[:, :32], "upper"), (pixels[:, 32:], "lower")]


def learned(rows):
    return LogisticRegression(max_iter=500, C=0.1).fit(rows[:1200].numpy(), wanted[:1200])


given = [
    torch.tensor(learned(half).predict_log_proba(half[1200:].numpy())).float() for half, _ in halves
]

# %% [markdown]
# The lower half is lost in every other row, and the control answers first:

# %%
lost = torch.arange(597) % 2 == 0
present = torch.stack([torch.ones(597, dtype=torch.bool), ~lost])
zeros = pixels[1200:].clone()
zeros[lost, 32:] = 0
joined = torch.tensor(learned(pixels).predict(zeros.numpy()))
prior = wanted[:1200].bincount().float() / 1200

# %% atol=0.03
said = {"one classifier, zeros": joined}
if passed:
    said["late fusion"] = fuse(torch.stack(given), prior, present).argmax(-1)
right = {name: (answer == wanted[1200:]).double() for name, answer in said.items()}
for name, share in right.items():
    print(f"{name:22} whole {share[~lost].mean():.2f}, lower half lost {share[lost].mean():.2f}")
if passed:
    assert right["late fusion"][lost].mean() > right["one classifier, zeros"][lost].mean()

# %% [markdown] tags=["solution"]
# **Why.** With $m = 0$ the formula says $p(c)^{1}$: the prior, what is known without looking. And with $m = 1$ nothing is divided. Where all classes are equally frequent the prior falls out, as in the chapter.

# %% [markdown]
# ## Exercise 3 · Popular, and no more than that ★★ (20 minutes)
#
# Whoever recommends must beat popularity, and popularity must not know the future. Write `popular_unseen(users, items, times, k)`. The first three are tensors of shape (ratings,), whole numbers: who rated, what, and when. Users and items count from 0 to the largest that occurs. No user rates anything twice, and no two times are equal. `k` is small enough that each user has as many unseen items.
#
# - Of each user with **two ratings or more**, the last by **time** is held out. All other ratings are for training;
# - **counts**: how often each item stands in *training*;
# - **lists**: for each user, the `k` items with the highest counts that the user has not rated *in training*, the most popular first. Of equal counts the item with the smaller number comes first;
# - **hits**: of the users with a rating held out, the share in whose list it stands.
#
# It returns counts (items,), lists (users, k) and hits, a number.
#
# **Predict** first: what happens to hits if the held out rating is counted in the popularity, too?
#
# <details><summary>Hint 1</summary>A loop over users is fine. <code>times[users == user].max()</code> is the last one's time.</details>
# <details><summary>Hint 2</summary><code>argsort(descending=True, stable=True)</code> lets equal ones keep their order.</details>
# <details><summary>Hint 3</summary>Put minus infinity in the place of counts that a user may not be given.</details>


# %%
def popular_unseen(users, items, times, k):
    """Return training's counts, each user's list, and the share of held out items in lists."""
    ### BEGIN SOLUTION
    held = torch.zeros(len(users), dtype=torch.bool)
    for user in users.unique():
        own = users == user
        held |= own & (times == times[own].max()) & (own.sum() > 1)
    counts = items[~held].bincount(minlength=items.max() + 1)
    scores = counts.double().repeat(users.max() + 1, 1)
    scores[users[~held], items[~held]] = -torch.inf
    lists = scores.argsort(dim=1, descending=True, stable=True)[:, :k]
    hits = (lists[users[held]] == items[held, None]).any(1).double().mean()
    return counts, lists, hits.item()
    ### END SOLUTION


# %%
passed = checks.check_popular_unseen(popular_unseen)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# **On real data.** MovieLens 100K, ratings of 4 and 5. Your lists beside those of vectors, as in the chapter; the control is a set of vectors drawn by chance.

# %%
ratings = data.load_movie_ratings()
liked = ratings["score"] >= 4
named = {
    name: ratings[name][liked].unique(return_inverse=True)[1] for name in ("user", "item", "time")
}
users, items = named["user"], named["item"]
times = named["time"] * 100_000 + torch.arange(len(users))  # no two are equal

# %% atol=0.02
held = recommendation.leave_last_out(users, times)
seen = torch.zeros(int(users.max()) + 1, int(items.max()) + 1, dtype=torch.bool)
seen[users[~held], items[~held]] = True
torch.manual_seed(0)
drawn, found = tuple(torch.randn(size, 8) for size in seen.shape), {}
for name, pair in (("vectors", recommendation.factorize(seen, 32)), ("chance", drawn)):
    given = recommendation.recommend(*pair, seen, 10)
    found[name] = (given[users[held]] == items[held, None]).any(1).double().mean().item()
if passed:
    found["popularity"] = popular_unseen(users, items, times, 10)[2]
    assert found["vectors"] > found["popularity"] > found["chance"]
print(", ".join(f"{name} {share:.3f}" for name, share in found.items()))

# %% [markdown] tags=["solution"]
# **Why.** Each held out item would have one count more than it had before anybody chose it. Among thousands that changes little; among new items, with one like or none, it decides: they climb exactly into the lists of those who will choose them. It is the same leak as a test text in a training set, and harder to see.
