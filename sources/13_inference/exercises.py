# %% [markdown]
# # 13 · Inference: exercises — a step, a cache, a nucleus, a verdict, a forecast
#
# Five functions, 75 minutes together: one step of attention with a cache, the bytes of a cache in few bits, the nucleus that a token is drawn from, the verdict on a draft's token, and what a draft gains. Each is followed by one line that checks it: ✓, or ✗ and what your answer seems to believe. Run that line as often as you like. Then comes a cell in which your function works in a real model, beside a control. Nothing here needs more than chapters 01, 04, 05 and 13.
#
# From the command line, `lightcourse check exercises/13_inference.ipynb` tells which checks pass.

# %%
from functools import partial

import torch

import lightcourse
from lightcourse import checks, data, generation, metrics, models
from lightcourse.generation import begin, probabilities

lightcourse.setup(threads=1)

# %% [markdown]
# The real models are those of the chapter: SmolLM2 with its shared heads of keys, and the two tiny ones, of which the larger is the target and the smaller, its student, the draft. The tiny ones are asked for the distributions $p$ and $q$ of the next token, at 500 places of each of three held-out speeches.

# %%
smollm2, words = models.load_smollm2(), models.load_smollm2_tokenizer()
target, student = models.load_tiny_lm("teacher"), models.load_tiny_lm("student")
tokens = data.speech_tokens(models.load_tiny_tokenizer(), "test")
texts = torch.stack(data.excerpts(tokens, 3))[:, :500]
with torch.no_grad():
    p, q = (probabilities(model(texts).logits) for model in (target, student))
print("texts, places, tokens:", tuple(p.shape))

# %% [markdown]
# ## Exercise 1 · One token, and what is kept ★★ (20 minutes)
#
# A new token comes. Its keys and values join those that are kept, and its queries meet all of them. As in SmolLM2, several heads of queries share one head of keys and values. Write `cached_attention(x, W_q, W_k, W_v, keys, values)`:
#
# - `x`: shape (width,), the new token's vector;
# - `W_q`: shape (heads, width, size), a matrix for each head of queries: head $h$ has the query `x @ W_q[h]`;
# - `W_k`, `W_v`: shape (key_heads, width, size). Heads is a multiple of key_heads, and **neighbours share**: with 6 heads and 2 heads of keys, queries 0, 1 and 2 meet the keys of head 0, and queries 3, 4 and 5 those of head 1;
# - `keys`, `values`: shape (key_heads, tokens, size), those of the tokens before, oldest first. Before the first token of a text, tokens is 0;
# - returns three tensors: what each head puts out, shape (heads, size), and the new keys and values, shape (key_heads, tokens + 1, size). The tensors that it was given stay as they are.
#
# A token sees itself, too. Positions are none of your function's business.
#
# **Predict** first: SmolLM2 has 9 heads of 64 numbers, which share 3 heads of keys. 99 tokens are kept. How many numbers does one layer's cache gain with the next token? And how many pairs of a query and a key are compared?
#
# <details><summary>Hint 1</summary><code>x @ W_k</code> multiplies by all heads' matrices at once: it has the shape (key_heads, size). <code>[:, None]</code> makes room for the dimension of the tokens, and <code>torch.cat</code> joins along it.</details>
# <details><summary>Hint 2</summary>Queries that share their keys may stand below each other: as a tensor of shape (key_heads, heads / key_heads, size) they are multiplied by the keys' transpose, <code>keys.mT</code>, head by head. Or repeat the keys: <code>repeat_interleave</code> repeats each head, <code>repeat</code> all of them in turn.</details>
# <details><summary>Hint 3</summary>Divide by the root of size, for that many products are added up in a score. The softmax goes over the tokens, the last dimension of the scores.</details>


# %%
def cached_attention(x, W_q, W_k, W_v, keys, values):
    """Return what each head puts out for a new token, and the longer cache."""
    ### BEGIN SOLUTION
    keys = torch.cat([keys, (x @ W_k)[:, None]], dim=1)
    values = torch.cat([values, (x @ W_v)[:, None]], dim=1)
    queries = (x @ W_q).unflatten(0, (len(keys), -1))
    scores = queries @ keys.mT / keys.shape[-1] ** 0.5
    return (scores.softmax(dim=-1) @ values).flatten(0, 1), keys, values
    ### END SOLUTION


# %%
passed = checks.check_cached_attention(cached_attention)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# **In the real model.** Your function takes the place of attention in all 30 layers of SmolLM2. The model is shown one token at a time, so whatever it knows of the others, it knows from your cache. One thing comes on top: such models turn queries and keys by angles that grow with the position. At any one position that is a product with a matrix, `turn`, and so it moves into $W_q$ and $W_k$.


# %%
def turn_at(position_embeddings):
    """Return the matrix that turns a query or a key at a position."""
    cosines, sines = (part[0, 0] for part in position_embeddings)
    axes = torch.eye(64)
    return axes * cosines + torch.cat([-axes[:, 32:], axes[:, :32]], dim=1) * sines


def by_you(attention, kept, hidden_states, position_embeddings, **rest):
    """Do by your function what a layer's attention does for one token."""
    turn, x = turn_at(position_embeddings), hidden_states[0, 0]
    matrices = (getattr(attention, f"{name}_proj").weight.T for name in "qkv")
    w_q, w_k, w_v = (matrix.unflatten(1, (-1, 64)).transpose(0, 1) for matrix in matrices)
    out, kept[0], kept[1] = cached_attention(x, w_q @ turn, w_k @ turn, w_v, *kept)
    return attention.o_proj(out.reshape(1, 1, -1)), None


# %% [markdown]
# `one_by_one` reads and writes in this way. The control has the model's own attention, but no cache: each token sees nothing but itself.


# %%
@torch.no_grad()
def one_by_one(ids, length):
    """Show SmolLM2 one token at a time; return them with the likeliest ones behind."""
    ids = ids.tolist()
    for place in range(len(ids) + length - 1):
        new, at = torch.tensor([[ids[place]]]), torch.tensor([[place]])
        logits = smollm2(new, position_ids=at, use_cache=False).logits[0, -1]
        if place + 1 == len(ids):
            ids.append(logits.argmax().item())
    return torch.tensor(ids)


# %%
start = torch.tensor(words("Once upon a time")["input_ids"])
wanted = generation.generate(smollm2, start[None], 12)[0]
print("the library:    ", words.decode(wanted))
print("without a cache:", words.decode(one_by_one(start, 12)))
if passed:
    for layer in smollm2.model.layers:
        empty = [torch.zeros(3, 0, 64), torch.zeros(3, 0, 64)]
        layer.self_attn.forward = partial(by_you, layer.self_attn, empty)
    yours = one_by_one(start, 12)
    print("your function:  ", words.decode(yours))
    for layer in smollm2.model.layers:
        del layer.self_attn.forward  # SmolLM2 is itself again
    assert torch.equal(yours, wanted)
print("" if passed else "First solve this exercise: then your text stands here.", end="")

# %% [markdown] tags=["solution"]
# **Why.** The cache gains a key and a value of 64 numbers for each of 3 heads: 384 numbers. And 9 queries meet 100 keys each, the new token's own among them: 900 pairs. Sharing makes the cache smaller, not the number of comparisons.
#
# Old queries are nowhere. Each was needed once, when its own token was new. Old keys and values are never computed again, since a token sees only what stands before it: nothing that comes later could change them. What is divided by is the root of the *size of a head*, not of the width and not of anything that grows with the text: a score is a sum of 64 products, and the root keeps its spread the same for heads of any size.

# %% tags=["solution"]
draws = torch.Generator().manual_seed(0)
shapes = (9, 576, 64), (3, 576, 64), (3, 576, 64), (3, 99, 64)
w_q, w_k, w_v, old = (torch.randn(shape, generator=draws) for shape in shapes)
out, *longer = cached_attention(torch.randn(576, generator=draws), w_q, w_k, w_v, old, old)
print("numbers gained:", sum(part.numel() for part in longer) - 2 * old.numel())
print("pairs:", len(w_q) * longer[0].shape[1])

# %% [markdown]
# ## Exercise 2 · What a cache weighs ★★ (15 minutes)
#
# Before a model runs, one wants to know whether its cache will fit. Write `kv_cache_bytes(shape, tokens, texts, bits, group)`, the bytes of a packed cache:
#
# - `shape`: four whole numbers, (layers, heads, key_heads, head_size);
# - `tokens`: how many are held of each text; `texts`: how many texts are written at once, each with a cache of its own;
# - `bits`: 2, 4 or 8; `group`: how many tokens are packed at once, a multiple of the numbers that fit into a byte;
# - returns a whole number.
#
# For each layer, text and head of keys, the cache is laid out so:
#
# - tokens are packed by **whole groups**, the oldest first. A packed number, of a key or a value, takes `bits` bits, and there is no room between them;
# - **keys**: each *channel* has a grid for each *group* of tokens;
# - **values**: each *token* that is packed has a grid;
# - a **grid** is two numbers of 16 bits, the smallest value and the step;
# - the newest tokens, which do not fill a group, stay floats of 32 bits, keys and values.
#
# **Predict** first: 2 bits are a sixteenth of 32. Is a cache of SmolLM2 in 2 bits and groups of 32 a sixteenth of one in floats, if it holds 160 tokens? And if it holds 191?
#
# <details><summary>Hint 1</summary><code>divmod(tokens, group)</code> gives the number of whole groups, and of the tokens that are left.</details>
# <details><summary>Hint 2</summary>First count for one head of one layer and one text: the packed numbers, the grids of the keys, those of the values, the floats. All of it is there once for each head of keys, each layer and each text.</details>
# <details><summary>Hint 3</summary>A grid takes 4 bytes. The keys of a head have a grid for each pair of a group and a channel, of which there are head_size.</details>


# %%
def kv_cache_bytes(shape, tokens, texts, bits, group):
    """Return the bytes of a packed cache of keys and values."""
    ### BEGIN SOLUTION
    layers, _, key_heads, head_size = shape
    groups, rest = divmod(tokens, group)
    packed = groups * group
    levels = 2 * packed * head_size * bits // 8
    grids = 4 * groups * head_size + 4 * packed
    floats = 2 * rest * head_size * 4
    return layers * key_heads * texts * (levels + grids + floats)
    ### END SOLUTION


# %%
passed = checks.check_kv_cache_bytes(kv_cache_bytes)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# **In the real model.** SmolLM2 reads 70 tokens of each of two speeches into the library's packed caches. They tell how many bytes their arrays have; the control is a cache of floats. Your function must know as much without running anything.

# %%
shape, speeches = (30, 9, 3, 64), data.load_speeches("test")["text"][:2]
pair = torch.tensor([words(text)["input_ids"][:70] for text in speeches])
session = begin(smollm2)
logits = session.read(pair)
print(f"floats: {sum(x.keys.nbytes + x.values.nbytes for x in session.cache.layers):,} bytes")
for bits in (8, 4, 2):
    cache = generation.quantized_cache(smollm2.config, bits)
    logits = begin(smollm2, cache=cache).read(pair)
    print(f"{bits} bits: {cache.bytes:,} bytes", end="")
    print(f", you say {kv_cache_bytes(shape, 70, 2, bits, 32):,}" if passed else "")
    assert not passed or cache.bytes == kv_cache_bytes(shape, 70, 2, bits, 32)
print("" if passed else "First solve this exercise: then your counts stand beside.", end="")

# %% [markdown] tags=["solution"]
# **Why.** With 160 tokens it is nearly a twelfth, with 191 less than a quarter. Beside its own 2 bits, a number pays its share of a grid: 32 bits for the 32 keys of a channel, and 32 bits for the 64 values of a token. That is one bit for each key and half a bit for each value: 2.75 bits in the mean. With 191 tokens, 31 are still waiting for their group to fill, and these few weigh more than all the others together.
#
# The heads of *queries* appear nowhere. That is what sharing is for: without it SmolLM2's cache would be three times as large.

# %% tags=["solution"]
for held in (160, 191, 8192):
    floats = generation.kv_bytes(smollm2.config, held)
    print(f"{held} tokens: {floats / kv_cache_bytes(shape, held, 1, 2, 32):.2f} times smaller")
small = {f"{few} bits": kv_cache_bytes(shape, 8192, 1, few, 32) for few in (8, 4, 2)}
print(
    "full windows in 1 GB:", {name: 10**9 // n for name, n in ({"floats": floats} | small).items()}
)

# %% [markdown]
# ## Exercise 3 · The nucleus ★ (15 minutes)
#
# The unlikely tokens are many, and sooner or later one of them is drawn. Top-p cuts them off. Write `top_p(shares, p)`:
#
# - `shares`: shape (vocabulary,), a distribution: nothing is negative, and the sum is 1;
# - `p`: a number above 0 and at most 1;
# - returns a distribution of the same shape, for the same ids. The likeliest tokens stay, **as few as can be, so that their sum reaches** `p`, which means that it is at least `p`. All others get 0. What stays is divided by its sum.
#
# The token with which the sum reaches `p` stays. If tokens are equally likely, and not all of them are needed, those of smaller id stay.
#
# **Predict** first: two tokens have a share of 1/4 each, and 512 others share the other half evenly. How many tokens stay with a p of 0.5? And with 0.75?
#
# <details><summary>Hint 1</summary><code>shares.sort(descending=True, stable=True)</code> returns the sorted shares and their ids. Stable means that equal ones keep their order.</details>
# <details><summary>Hint 2</summary>A token is needed as long as those <em>ahead</em> of it do not reach p. <code>cumsum</code> counts a token in itself: what is ahead of it is that, minus its own share. Ahead of the first there is nothing.</details>
# <details><summary>Hint 3</summary><code>torch.zeros_like(shares).scatter(-1, ids, kept)</code> puts <code>kept[i]</code> at the place <code>ids[i]</code>: back to where they were.</details>


# %%
def top_p(shares, p):
    """Return a distribution without its tail, divided by what is left."""
    ### BEGIN SOLUTION
    ordered, ids = shares.sort(descending=True, stable=True)
    ahead = ordered.cumsum(dim=-1) - ordered
    kept = ordered * (ahead < p)
    return torch.zeros_like(shares).scatter(-1, ids, kept / kept.sum())
    ### END SOLUTION


# %%
passed = checks.check_top_p(top_p)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# **In the real model.** At 1,500 places of the speeches, your function cuts the target's distribution to a nucleus of 0.9. The control is top-k, which keeps the same number of tokens everywhere: 93, for so many has such a nucleus in the mean. What stays is shown as a share of the 2,048 tokens that the target knows.


# %%
def tell(name, kept):
    """Print how many tokens stay, and how much of the probability; return the latter."""
    counts, mass = kept.float().mean(-1), (p * kept).sum(-1)
    print(f"{name}: {counts.min():.2%} to {counts.max():.2%} of the tokens stay,", end=" ")
    print(f"{counts.mean():.2%} in the mean; at least {mass.min():.2f} of the probability")
    return mass


# %% atol=0.02
mass = tell("top-k", probabilities(p.log(), top_k=93) > 0)
assert mass.min() < 0.6
if passed:
    nuclei = torch.stack([torch.stack([top_p(row, 0.9) for row in text]) for text in p]) > 0
    mass = tell("your top-p", nuclei)
    assert mass.min() > 0.899 and abs(nuclei.sum(-1).float().mean() - 93) < 2
else:
    print("First solve this exercise: then your nuclei stand here.")

# %% [markdown] tags=["solution"]
# **Why.** With 0.5, the two large tokens stay: they reach it. With 0.75, another quarter is needed, which takes 256 of the others: 258 stay. In the real model the nucleus has a single token where the target is sure, as after "United", and hundreds where anything may follow. Top-k keeps dozens of unlikely tokens in the one case, and in the other it cuts off half of what the target would have said.
#
# "The sum so far is at most p" is the wrong question, if the token itself is in the sum. Then the token that crosses p is lost; and where a single token has more than p, nothing at all is left, and 0 is divided by 0.

# %% tags=["solution"]
shares = torch.tensor([1 / 4, 1 / 4] + 512 * [1 / 1024])
for limit in (0.5, 0.75, 1):
    print(f"top-p of {limit}: {(top_p(shares, limit) > 0).sum()} tokens stay")

# %% [markdown]
# ## Exercise 4 · The verdict on a token ★★ (15 minutes)
#
# The draft has proposed a token, and the target has read it. Write `accept_or_replace(p, q, token, u, v)`, which decides what is written:
#
# - `p`, `q`: shape (vocabulary,), the target's distribution of this token, and the draft's;
# - `token`: an int, drawn from `q`;
# - `u`, `v`: two random numbers, at least 0 and below 1. They are given, so your function throws no dice;
# - returns an int and a bool: the token that is written, and whether the proposed one was **accepted**.
#
# The proposed token $x$ is accepted if `u` is **less than** $p(x) / q(x)$. If it is not, another token is drawn from what $p$ has more than $q$: the positive part of $p - q$, divided by its sum. To draw by `v`, add up these shares from id 0 on. The first id at which the sum is **greater than** `v` is written.
#
# **Predict** first: how often is a proposal refused if target and draft are the same model? And if the draft proposes only what the target never says: what is written then?
#
# <details><summary>Hint 1</summary>p(x) / q(x) may be greater than 1. Does your function need to care?</details>
# <details><summary>Hint 2</summary><code>clamp(min=0)</code> keeps the positive part of each entry. It no longer sums to 1.</details>
# <details><summary>Hint 3</summary><code>cumsum</code> adds up from the first id on. <code>(sums > v).nonzero()</code> has a row for each id where that is so, the smallest first.</details>


# %%
def accept_or_replace(p, q, token, u, v):
    """Return the token that is written, and whether it is the proposed one."""
    ### BEGIN SOLUTION
    if u * q[token] < p[token]:
        return token, True
    rest = (p - q).clamp(min=0)
    sums = rest.cumsum(dim=-1)
    return int((sums / sums[-1] > v).nonzero()[0]), False
    ### END SOLUTION


# %%
passed = checks.check_accept_or_replace(accept_or_replace)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# **In the real model.** At 500 places the student proposes ten tokens each, one by one, and your function judges them. Does that write what the target would write? Look at the tokens that the student *overrates*: it likes them more than the target does. The target draws such a token with a certain probability, and a wrong verdict lets too many of them through. The control accepts everything.

# %%
dice = torch.Generator().manual_seed(0)
drawn = torch.multinomial(q[0], 10, replacement=True, generator=dice)
numbers = torch.rand(500, 10, 2, generator=dice).tolist()
overrated = (p < q)[0]


def verdicts(judge):
    """Return the tokens that are written at each place, and the share of accepted ones."""
    found = [
        [judge(p[0, i], q[0, i], token, *uv) for token, uv in zip(row, pairs, strict=True)]
        for i, (row, pairs) in enumerate(zip(drawn.tolist(), numbers, strict=True))
    ]
    written, accepted = torch.tensor(found).unbind(-1)
    return written, accepted.float().mean()


# %% atol=0.02
wanted = (p[0] * overrated).sum(-1).mean()
share = overrated.gather(1, drawn).float().mean()
print(f"overrated tokens, drawn by the target itself: {wanted:.2f}")
print(f"overrated tokens, all proposals accepted:     {share:.2f}")
assert share > wanted + 0.2
if passed:
    written, accepted = verdicts(accept_or_replace)
    share, foretold = overrated.gather(1, written).float().mean(), torch.minimum(p, q)[0]
    print(f"overrated tokens, by your verdicts:           {share:.2f}")
    print(f"accepted: {accepted:.2f}, foretold {foretold.sum(-1).mean():.2f}")
    assert abs(share - wanted) < 0.02 and abs(accepted - foretold.sum(-1).mean()) < 0.03
print("" if passed else "First solve this exercise: then your verdicts stand here.", end="")

# %% [markdown] tags=["solution"]
# **Why.** Never, in the first case: the ratio is 1, and `u` is below 1. Always, in the second: the ratio is 0. Then the positive part of $p - q$ is $p$ itself, so what is written is just what the target would have written. A bad draft costs time. It never costs quality.
#
# A ratio above 1 needs no care, since `u` never reaches 1. The edges are chosen with care, though: with `u` = 0 a token that the target never says must be refused, and with `v` = 0 no token of share 0 may be written.
#
# The verdict below has the bug that circulates: it accepts as it should, and then draws from all of $p$. Too many of the overrated tokens come through.


# %% atol=0.02 tags=["solution"]
def from_all_of_p(p, q, token, u, v):
    """Accept as one should, but draw from the target's whole distribution otherwise."""
    accepted = accept_or_replace(p, q, token, u, v)[1]
    return token if accepted else int((p.cumsum(0) > v * p.sum()).nonzero()[0]), accepted


buggy = overrated.gather(1, verdicts(from_all_of_p)[0]).float().mean()
print(f"refused ones drawn from p: {buggy:.2f}; the target draws {wanted:.2f}")
assert buggy > wanted + 0.05

# %% [markdown]
# ## Exercise 5 · How far ahead? ★★ (10 minutes)
#
# The more tokens a draft proposes at once, the more one call of the target may win, and the more of the draft's work may be lost. Write `expected_speedup(acceptance, cost, lookaheads)`:
#
# - `acceptance`: from 0 to 1, the probability that a proposal is accepted, where all before it were;
# - `cost`: above 0, the time of one call of the draft, which makes one token. A call of the target takes the time 1;
# - `lookaheads`: a list of whole numbers, each at least 1: how many tokens are proposed at once;
# - returns two things. First, a tensor of floats: for each lookahead, **how many times as fast** text is written as by the target alone, which makes one token in the time 1. Second, an int: the **best** of the lookaheads, or 0 if none of them is faster than the target alone.
#
# In a round the draft is called once for each proposal, and then the target once. Written are the proposals before the first one that is refused, and then one token of the target's own, whether one was refused or all were accepted.
#
# **Predict** first: a draft is always accepted, and costs a quarter of the target. How many times as fast can the text be written at most, however far the draft looks ahead?
#
# <details><summary>Hint 1</summary>With which probability are the first two proposals accepted? And the first three? Each such probability is what that proposal adds to the number of tokens that one may expect.</details>
# <details><summary>Hint 2</summary>1 + a + a² + …: up to which power? The closed form of that sum divides by 1 - a, which may be 0. A sum over <code>range</code> does not mind.</details>
# <details><summary>Hint 3</summary>Python's <code>max</code> finds the largest of a list, and a list's <code>index</code> its place.</details>


# %%
def expected_speedup(acceptance, cost, lookaheads):
    """Return how many times as fast each lookahead makes the target, and the best one."""
    ### BEGIN SOLUTION
    speedups = []
    for ahead in lookaheads:
        expected = sum(acceptance**n for n in range(ahead + 1))
        speedups.append(expected / (ahead * cost + 1))
    best = max(speedups)
    return torch.tensor(speedups), lookaheads[speedups.index(best)] if best > 1 else 0
    ### END SOLUTION


# %%
passed = checks.check_expected_speedup(expected_speedup)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# **In the real model.** The target writes behind the beginnings of three speeches, and the student proposes 1, 4 or 16 tokens at once. The control is a draft that proposes any token. A token waits for the weights to be read (chapter 05), so the student's cost is taken from its bytes, and the control is given the same. Only calls are counted here. A clock would be less kind: a call that reads 17 tokens takes longer than one that reads a single token.


# %%
def blind(ids, count):
    """Propose any tokens."""
    uniform = torch.full((count, 2048), 1 / 2048)
    return torch.multinomial(uniform, 1, generator=dice)[:, 0], uniform


def counted(draft, lookahead):
    """Return the acceptance rate and the tokens for each call of the target, over three texts."""
    how = {"distribution": probabilities, "lookahead": lookahead, "generator": dice}
    found = [generation.speculate(target, draft, text[None, :32], 64, **how) for text in texts]
    rate = sum(one.accepted for one in found) / sum(one.judged for one in found)
    return rate, 3 * 64 / sum(one.calls for one in found)


# %% rtol=0.1
cost = metrics.size_in_bytes(student) / metrics.size_in_bytes(target)
own = generation.ModelDraft(student, probabilities, torch.Generator().manual_seed(1))
print(f"the cost: {cost:.2f}")
for name, draft in {"blind": blind, "student": own}.items():
    dice, measured = torch.Generator().manual_seed(0), {}
    for ahead in (1, 4, 16):
        rate, per_call = counted(draft, ahead)
        measured[ahead] = per_call / (ahead * cost + 1)
        told = f"with {ahead} ahead {rate:.2f} accepted, {measured[ahead]:.2f} times as fast"
        if passed:
            told += f", you foretell {expected_speedup(rate, cost, [ahead])[0].item():.2f}"
        print(f"{name}: {told}")
    assert (max(measured.values()) > 1) == (name == "student")
print("" if passed else "First solve this exercise: then your forecast stands beside.", end="")

# %% [markdown] tags=["solution"]
# **Why.** Four times, and never quite: with $g$ proposals a round writes $g + 1$ tokens in the time $g / 4 + 1$, and that ratio nears 4. So a draft that costs a quarter cannot gain more than that, however good it is. With a rate below 1 there is a limit of another kind: the sum $1 + a + a^2 + \dots$ stays below $1 / (1 - a)$, three tokens for the student, while the time of a round keeps growing. So a longer lookahead soon loses again: for the student two tokens are the best, and for the blind draft none.
#
# A row of yes and no is what makes the powers: a token is written only if all before it were accepted. Whoever takes $1 + g a$ counts tokens that stand behind a refused one, and these are thrown away.

# %% rtol=0.02 tags=["solution"]
reach = [1, 10, 100, 1000]
print("always accepted:", [round(x, 2) for x in expected_speedup(1.0, 0.25, reach)[0].tolist()])
for name, rate in {"student": 0.67, "blind": 0.12}.items():
    gains, best = expected_speedup(rate, cost, list(range(1, 17)))
    print(f"{name}: best with {best} ahead, the most is {gains.max():.2f} times as fast")

# %% [markdown]
# ## Wrap-up
#
# You attended with a cache, weighed one in few bits, cut a distribution to its nucleus, judged a draft's tokens, and foretold what a draft gains. Two of the five change what is written, the bits and the nucleus. The cache and the verdict change only how much work it takes: the text was the same, and so was the distribution. Whether a draft is worth its work, the forecast tells before anything runs.
