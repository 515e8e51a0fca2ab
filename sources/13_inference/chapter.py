# %% [markdown]
# # 13 · Inference — one token at a time, a cache, and drafts
#
# **You will be able to**
#
# - build the cache of keys and values by hand, and say how many bytes it takes;
# - make it smaller, by bits or by forgetting, and notice which of the two a model minds;
# - shape what may be written by temperature, top-k and top-p;
# - say why a prompt waits for arithmetic and a new token for memory, and what batching gains;
# - let a draft write ahead without changing what is written, and predict the gain.
#
# **You need:** chapters 01, 04 and 05. **Time:** 62 minutes of reading, 26 for the parts marked ★ (the fast path). The whole notebook runs in about a minute.
#
# Below each **Predict**, write your guess into the next cell, in place of the dots.

# %%
import copy
import math
import time

import torch

import lightcourse
from lightcourse import data, generation, metrics, models, plots, quantization
from lightcourse.generation import begin, probabilities
from lightcourse.guessing import compare
from lightcourse.kernels import limits

lightcourse.setup(threads=1)  # faster for so small a model
tokenizer, target = models.load_tiny_tokenizer(), models.load_tiny_lm("teacher")
texts = data.excerpts(data.speech_tokens(tokenizer, "test"), 3)

# %% [markdown]
# ## ★ 1 · One token at a time
#
# ### The plain way
#
# A causal language model reads a text and gives, for *each* position, scores for the token that comes next: the **logits**. To write, take the last position's logits, choose a token, put it behind the text, and ask again. The plainest loop takes the largest logit; that is **greedy**.


# %%
def write_plainly(model, ids, length):
    for _ in range(length):
        logits = model(ids).logits[:, -1]
        ids = torch.cat([ids, logits.argmax(dim=-1, keepdim=True)], dim=1)
    return ids


# %%
prompt = texts[0][None, :24]
with torch.no_grad():
    plain = write_plainly(target, prompt, 100)
print(tokenizer.decode(prompt[0]), "|", tokenizer.decode(plain[0, 24:40]))

# %% [markdown]
# In each round the model computes *all* positions of the text, though only the last one is new.
#
# **Predict:** the prompt has 24 tokens, and 100 were written. How many positions did the model compute, all rounds together?

# %%
guess = ...  # positions
compare(guess, sum(24 + written for written in range(100)), "positions", how="computed")

# %% [markdown]
# ### What can be kept
#
# Of a transformer's parts (chapter 01) only **attention** looks at other positions. There each position makes three vectors of its input $x_t$: a query $q_t$, a key $k_t$, and a value $v_t$. With $d$ numbers in each, position $t$ puts out
#
# $$\text{attention}_t = \sum_{s \le t} \frac{e^{q_t \cdot k_s / \sqrt d}}{\sum_{r \le t} e^{q_t \cdot k_r / \sqrt d}}\; v_s$$
#
# A position sees itself and *earlier* ones ($s \le t$). So what an old position computed does not change when a new token comes, and of all that the new token needs only the old keys and values. They are kept: this is the **KV cache**. Six tokens by hand:

# %%
torch.manual_seed(0)
x, (W_q, W_k, W_v) = torch.randn(6, 8), torch.randn(3, 8, 4)


def attend(query, keys, values):
    return (query @ keys.T / 4**0.5).softmax(dim=-1) @ values


keys, values = x[:5] @ W_k, x[:5] @ W_v  # kept from five tokens
new = x[5:]
keys, values = torch.cat([keys, new @ W_k]), torch.cat([values, new @ W_v])
cached = attend(new @ W_q, keys, values)
again = attend(x[5:] @ W_q, x @ W_k, x @ W_v)  # all six computed anew
print("the same:", torch.allclose(cached, again))
assert torch.allclose(cached, again)

# %% [markdown]
# In the library, `begin(model)` starts a **session** that has read nothing. `session.read(new)` reads new tokens behind those that it holds, and returns logits; `session.forget(count)` drops the last ones. `generation.generate` is the loop around it.

# %%
session = begin(target)
session.read(prompt)  # the whole prompt in one call
second = session.read(plain[:, 24:25])  # then one token
with torch.no_grad():
    whole = target(plain[:, :25]).logits[:, -1]
print("tokens held:", session.length, " logits:", tuple(second.shape))
assert torch.allclose(second[:, -1], whole, atol=1e-3)
assert torch.equal(generation.generate(target, prompt, 100), plain)

# %% [markdown]
# **Predict:** with the cache, how many positions does the model compute for the same 100 tokens?

# %%
guess = ...  # positions
compare(guess, 24 + 99, "positions", how="computed")

# %% [markdown]
# In time, for one more token behind texts of different lengths:

# %%
lines = {"all again": {}, "with a cache": {}}
for length in (32, 64, 128, 256, 480):
    ids, session = texts[0][None, : length + 1], begin(target)
    session.read(ids[:, :-1])
    ways = {
        "all again": lambda ids=ids: target(ids).logits[:, -1],
        "with a cache": lambda s=session, ids=ids: (s.read(ids[:, -1:]), s.forget(1)),
    }
    for name, clock in metrics.latencies(ways, repeats=5).items():
        lines[name][length] = 1e3 * clock.median
ax = plots.curves(lines, "tokens before", "milliseconds for one more token")
assert lines["all again"][480] > 3 * lines["with a cache"][480]

# %% [markdown]
# *Figure: without a cache one more token costs the more the longer the text is; with it, little more.*
#
# <details><summary>The figure in words</summary>
#
# Milliseconds for one more token over 32 to 480 tokens before. "All again" rises steeply, to about ten times what it began with. "With a cache" stays near the bottom, and about doubles. The horizontal axis doubles from step to step.
#
# </details>
#
# "Little" is not "nothing": the new query meets every old key.
#
# ## 2 · What is kept, and what it weighs
#
# ### Count it
#
# For each token, each layer keeps a key and a value for each of its heads of keys:
#
# $$\text{bytes} = 2 \cdot \text{layers} \cdot \text{heads of keys} \cdot \text{head size} \cdot \text{tokens} \cdot \text{bytes of a number}$$
#
# SmolLM2-135M has 30 layers and 9 heads of 64 numbers. Its 9 heads of queries share 3 heads of keys and values: **grouped-query attention** (Ainslie et al. 2023, arXiv 2305.13245). Chapter 04's int8 makes its weights 135 MB.
#
# **Predict:** SmolLM2 reads a text that fills its window, 8,192 tokens. How many MB are its keys and values, as 32-bit floats?

# %%
guess = ...  # MB
smollm2, words = models.load_smollm2(), models.load_smollm2_tokenizer()
config = smollm2.config
compare(guess, generation.kv_bytes(config, 8192) / 1e6, "MB", how="computed")
session = begin(smollm2)
passages = [text for text in data.load_speeches("test")["text"] if len(text) > 4000][:3]
passages = [torch.tensor([words(text)["input_ids"][:161]]) for text in passages]
logits = session.read(passages[0][:, :160])
kept = [tensor for layer in session.cache.layers for tensor in (layer.keys, layer.values)]
print("of one layer:", tuple(kept[0].shape), " bytes:", sum(t.nbytes for t in kept))
assert sum(t.nbytes for t in kept) == generation.kv_bytes(config, 160)

# %% [markdown]
# Nearly three times the weights, and without sharing it would be more than eight times. (Many services keep 16-bit floats: half of that.) That is for *one* text. Who serves a hundred readers at once keeps a hundred such caches. So people make them smaller.
#
# ### Fewer bits
#
# Keys and values are numbers like others, so chapter 04's tools apply: choose which numbers share a scale. Look at the keys of some heads first: the largest size in each of their 64 channels, over 160 tokens.

# %%
K, V = (
    torch.cat([getattr(layer, n) for layer in session.cache.layers]) for n in ("keys", "values")
)
panels = {f"keys, layer {i}": K[i, 0].abs().amax(dim=0) for i in (5, 20)}
panels["values, layer 20"] = V[20, 0].abs().amax(dim=0)
axes = plots.channel_bars(panels, "largest size")

# %% [markdown]
# *Figure: a few channels of the keys are much larger than the rest; no channel of the values stands out so far.*
#
# <details><summary>The figure in words</summary>
#
# Three panels with a bar for each of 64 channels, on one logarithmic axis. Keys of layers 5 and 20: some channels stand several times higher than most. Values of layer 20: closer together, no bar above 5.
#
# </details>
#
# **KIVI** (Liu et al. 2024, arXiv 2402.02750) concludes: keys share a grid by *channel* (32 tokens of one channel), values by *token* (32 channels of one token). Try both for both. The error is squared, as a share of what was there.


# %%
def rounded(x, bits, by):
    """Round to a grid for each 32 tokens of a channel, or each 32 channels of a token."""
    groups = x.unflatten(2 if by == "channel" else 3, (-1, 32))
    dim = -2 if by == "channel" else -1
    low, high = groups.amin(dim, keepdim=True), groups.amax(dim, keepdim=True)
    step = (high - low) / (2**bits - 1)
    return (((groups - low) / step).round() * step + low).reshape(x.shape)


# %% rtol=0.1
for name, tensor in {"keys": K, "values": V}.items():
    for by in ("channel", "token"):
        off = [(rounded(tensor, bits, by) - tensor).square().sum() for bits in (8, 4, 2)]
        shares = "  ".join(f"{one / tensor.square().sum():.4%}" for one in off)
        print(f"{name:6} by {by:7} 8, 4, 2 bits: {shares}")

# %% [markdown]
# Keys by channel: a sixth of the error. For the values the two differ far less, and by channel is even a little better. KIVI takes by token all the same: attention *adds values up*, with weights for each token, and they argue that an error should stay within its token. (Our table does not show that.) And a channel's group must wait until 32 tokens are there; until then the newest stay floats.
#
# `quantized_cache` packs both, really, into 8, 4 or 2 bits; there a token's 64 values share one grid. 160 tokens are five whole groups. In between, up to 31 wait as floats.
#
# ### Or fewer tokens
#
# The other way is to forget. A **window** keeps only the last tokens. **StreamingLLM** (Xiao et al. 2023, arXiv 2309.17453) found that this breaks models on long texts, and that keeping the *first four* tokens besides repairs them: attention must go somewhere when it finds nothing, and models learn to send it to the beginning. They call these tokens **sinks**.
#
# Now SmolLM2 reads three speeches of 160 tokens with such caches. We measure perplexity (chapter 01), divided by that with the full cache: 1.00 means no loss. It reads 40 tokens at a time. Those of one reading see each other unrounded, so the 2 bits are tried once more, on the first speech, with 4 at a time.
#
# **Predict:** a window of 64 tokens, without sinks. By how many percent does the perplexity rise: about 5, 50 or 500?

# %%
guess = ...  # percent
caches = {
    "4 bits": lambda: generation.quantized_cache(config, 4),
    "2 bits": lambda: generation.quantized_cache(config, 2),
    "the last 64": lambda: generation.window_cache(config, 64),
    "the last 60 and the first 4": lambda: generation.window_cache(config, 60, sinks=4),
}


def surprise(cache, ids, step=40):
    """Return the mean loss of the next token in nats."""
    return generation.surprise(begin(smollm2, cache=cache), ids, step=step)


# %% rtol=0.05
full = [surprise(None, ids) for ids in passages]
worse = {}
for name, make in caches.items():
    pairs = [(make(), ids, loss) for ids, loss in zip(passages, full, strict=True)]
    worse[name] = [math.exp(surprise(cache, ids) - loss) for cache, ids, loss in pairs]
    size = pairs[0][0].bytes / generation.kv_bytes(config, 160)
    print(f"{name:28} {size:4.0%} of the bytes ", *(f"{ratio:.2f}" for ratio in worse[name]))
few = math.exp(surprise(caches["2 bits"](), passages[0], step=4) - full[0])
print(f"2 bits, 4 tokens at a time: {few:.2f}")
compare(guess, 100 * (sum(worse["the last 64"]) / 3 - 1), "%")

# %% [markdown]
# - **4 bits cost nothing** here. 2 bits cost about a tenth, and the fewer tokens are read at a time, the more: 9 % of the bytes of 32-bit floats, or 17 % of 16-bit ones.
# - **A window alone costs half as much again**, and *four tokens* mend it. The two kept the same number of tokens: what counts is which. The paper's texts are far longer, and its models far worse off. It also counts positions within the window, so that a text may outgrow the model's 8,192; ours keep theirs.
# - The text is short. A window also forgets what was said, and a loss of the *next* token hardly asks for that. Asked for a name that stood 2,000 tokens before, no sink would help.
#
# The library's packed cache is smaller, not faster: it becomes floats again in each step. Fast ones need a kernel that reads packed numbers, as chapter 05's do for weights.
#
# ## ★ 3 · Choose a token
#
# ### Greedy goes round in circles
#
# In section 1 the model wrote "it my duty to make it my duty to make". Greedy decoding goes on so: what was just written makes the same words likeliest again. So text is *drawn* from $p = \text{softmax}(\text{logits})$ instead, after some shaping:
#
# - **temperature** $T$: logits are divided by it. Below 1 likely tokens get likelier, above 1 all become more alike. At 0 it would be greedy.
# - **top-k** (Fan et al. 2018, arXiv 1805.04833): only the $k$ likeliest stay.
# - **top-p**, or nucleus (Holtzman et al. 2019, arXiv 1904.09751): the smallest set stays whose probability reaches $p$: few tokens where the model is sure, many where it is not.
#
# What stays is divided by its sum. Four tokens:

# %%
p = torch.tensor([0.5, 0.3, 0.15, 0.05])
ways = {
    "as it is": {},
    "T = 0.5": {"temperature": 0.5},
    "T = 2": {"temperature": 2.0},
    "top-k of 2": {"top_k": 2},
    "top-p of 0.9": {"top_p": 0.9},
}
for name, how in ways.items():
    print(f"{name:13}", "  ".join(f"{x:.2f}" for x in probabilities(p.log(), **how).tolist()))
assert torch.allclose(probabilities(p.log(), temperature=0.5), p**2 / (p**2).sum())

# %% [markdown]
# In the last row 0.5 and 0.3 do not *reach* 0.9, so the third token stays.
#
# **Predict:** the model knows 2,048 tokens. How many of them does top-p with 0.9 keep, in the mean over 500 places of a speech?

# %%
guess = ...  # tokens
with torch.no_grad():
    logits = target(texts[1][None, :500]).logits[0]
counts = (probabilities(logits, top_p=0.9) > 0).sum(dim=-1)
compare(guess, round(counts.float().mean().item(), -1), "tokens")
print(f"fewest {counts.min()}; at most 10 in {(counts <= 10).float().mean():.0%} of places")

# %% [markdown]
# Everything else together has at most a tenth of the probability. But a text is many draws: that *none* of 50 comes from the tail has a probability of $0.9^{50}$, half a percent, if it has just a tenth.
#
# The same beginning, three ways, with dice from a seeded generator:

# %% tags=["nbval-ignore-output"]
start = tokenizer("The people of the United States", return_tensors="pt")["input_ids"]
choices = {
    "greedy": generation.likeliest,
    "drawn": generation.sampled(1.0, torch.Generator().manual_seed(0)),
    "T 0.8, top-p 0.9": generation.sampled(0.8, torch.Generator().manual_seed(0), top_p=0.9),
}
for name, choose in choices.items():
    written = generation.generate(target, start, 60, choose)[0]
    print(f"[{name}] {tokenizer.decode(written)}\n")
    assert torch.equal(written[: start.shape[1]], start[0])

# %% [markdown]
# Temperature and top-p change *what* is written. Drafts (section 5) change only how fast.
#
# ## 4 · Where the time of a token goes
#
# ### The roof
#
# Chapter 05 drew two limits: bytes read from memory, and operations. For one new token each weight is read once and used once, in two operations. That is far below what the processor could do meanwhile: **the step waits for memory**. So the bytes of the weights, divided by the bandwidth, are the least time that a token can take. (The cache is read, too. Behind 64 tokens it is 3 MB, and we leave it out.)
#
# Whether that is reached depends on everything else, too. Through PyTorch hundreds of small operations stand between the products of one token. `generation.jit` makes one list of them, with the kernels of chapter 05, and runs it in a single compiled call. It takes quantized models of a few families, and takes the model's place in `generate` and the others.


# %%
def in_integers(bits, **how):
    """Return a copy of SmolLM2 whose products are of integers, the output layer in 8 bits."""
    model = copy.deepcopy(smollm2)
    quantization.quantize_(model, bits, activations=8, embeddings=8, **how)
    return model


hosted, ids = in_integers(8), passages[0]
fast = generation.jit(hosted)
megabytes = metrics.size_in_bytes(hosted) / 1e6
print(f"read for each token, nearly all of: {megabytes:.0f} MB")

# %% [markdown]
# What will be clocked is a call that reads one token behind 64 others, and forgets it again.


# %%
def one_more(model):
    session = begin(model)
    session.read(ids[:, :64])
    return lambda: (session.read(ids[:, 64:65]), session.forget(1))


# %% [markdown]
# **Predict:** how many tokens a second can one thread write at most? (Chapter 05 found your machine's bandwidth; most laptops read 10 to 40 GB a second.)

# %% clock=true
guess = ...  # tokens/s
most = limits.stream_read() / (1e6 * megabytes)
calls = {"in PyTorch": one_more(hosted), "in one call": one_more(fast)}
rates = {name: 1 / t.median for name, t in metrics.latencies(calls, repeats=10).items()}
print(f"at most {most:.0f} tokens/s")
print(*(f"{name}: {rate:.0f} tokens/s" for name, rate in rates.items()), sep="\n")
assert rates["in one call"] > 1.3 * rates["in PyTorch"]
compare(guess, most, "tokens/s")

# %% [markdown]
# The same integers both times, and the same kernels. What differs is all that stands between the products. In one call the token is close to the roof. (It can even stand above it: a large processor cache may hold weights from one token to the next.)
#
# ### Prompts, and many texts at once
#
# A prompt of 64 tokens uses each weight 64 times, once it is read: **a prompt waits for arithmetic**. And so do many texts that are written at once, since each step reads the weights for all of them. Their caches are not shared, though: with long texts memory is waited for again.
#
# Texts have different lengths, though. Shorter ones are filled up on the **left**, so that all end in one column, and a mask says what is padding: that is not looked at, and takes no position.

# %%
prompts = [tokenizer(text)["input_ids"] for text in ("The", "We the people of the United States")]
padded, mask = generation.pad(prompts)
print(tuple(padded.shape), "tokens of each:", mask.sum(dim=1).tolist())
both = generation.generate(target, padded, 20, mask=mask)
alone = [generation.generate(target, torch.tensor([one]), 20)[0, -20:] for one in prompts]
assert torch.equal(both[:, -20:], torch.stack(alone))

# %% [markdown]
# **Predict:** 16 texts at once. How many times as many tokens a second as one text?

# %% clock=true
guess = ...  # times
calls = {}
for count in (1, 2, 4, 8, 16):
    session, one = begin(fast), ids[:, :1].expand(count, 1)
    session.read(ids[:, :64].expand(count, 64))
    calls[count] = lambda s=session, one=one: (s.read(one), s.forget(1))
times = metrics.latencies(calls, repeats=5)
together = {count: count / clock.median for count, clock in times.items()}
ax = plots.curves({"tokens a second": together}, "texts at once", "tokens a second, all together")
reading = metrics.latency(lambda: begin(fast).read(ids[:, :64]), repeats=3).median
print(
    f"a prompt: {64 / reading:.0f} tokens/s, one token after the other: {together[1]:.0f} tokens/s"
)
compare(guess, together[16] / together[1], "times")
assert together[16] > together[1] and 64 / reading > together[1]

# %% [markdown]
# *Figure: the more texts at once, the more tokens a second, though less than twice as many for twice the texts.*
#
# <details><summary>The figure in words</summary>
#
# Tokens a second of all texts together over 1, 2, 4, 8 and 16 texts. The line rises at each step, at first nearly in proportion to the number of texts, then less.
#
# </details>
#
# With fast memory and slow products less is gained. Services let new requests join the running ones at each step (continuous batching: Orca, Yu et al. 2022) and keep caches in pages (vLLM, Kwon et al. 2023, arXiv 2309.06180). But a reader alone with a laptop has *one* text. There is a trick for that reader, too: several tokens of one text out of one reading of the weights.
#
# ## ★ 5 · A draft writes ahead
#
# ### Guess cheaply, check at once
#
# To read five new tokens takes the target far less than five times as long as one: the weights are read once. A cheap **draft** proposes five. The **target** reads them all in one call, and so learns for each what it would have written there. Where they agree, tokens were won; the first one that does not fit is replaced by the target's own, and the rest is thrown away. Where all fit, the target's own next token comes on top. This is **speculative decoding** (Leviathan et al. 2022, arXiv 2211.17192).
#
# With greedy choice "agree" is plain: the same token. Three drafts: the target's copy in 4 bits, its distilled *student* of a quarter of its size, and no model at all: **prompt look-up** (Saxena 2023) looks where the last two tokens stood before, and proposes what followed there.

# %%
four_bits = copy.deepcopy(target)
report = quantization.quantize_(four_bits, bits=4, group_size=32)
student = models.load_tiny_lm("student")
drafts = {
    "own copy, 4 bits": lambda **how: generation.ModelDraft(four_bits, **how),
    "student": lambda **how: generation.ModelDraft(student, **how),
    "look-up": lambda **how: generation.prompt_lookup,
}

# %% [markdown]
# **Predict:** the student proposes four tokens at a time. How many calls of the target do 100 tokens take?

# %%
guess = ...  # calls
wanted, calls = generation.generate(target, prompt, 100), {}
for name, draft in drafts.items():
    found = generation.speculate(target, draft(), prompt, 100, lookahead=4)
    calls[name], same = found.calls, torch.equal(found.ids, wanted)
    print(f"{name:16} {found.calls:3} calls; the very same text: {same}")
    assert same
compare(guess, calls["student"], "calls")

# %% [markdown]
# The same text, with a fraction of the target's calls. (It goes round in circles, so look-up does well here.)
#
# ### The same dice
#
# When text is drawn, "the same token" makes no sense. The draft draws $x$ from its distribution $q$, the target has $p$. The rule:
#
# 1. accept $x$ with probability $\min(1, p(x) / q(x))$;
# 2. if it is refused, draw from what $p$ has more than $q$: the positive part of $p - q$, divided by its sum.
#
# Why does that give exactly $p$? A token $x$ is proposed *and* accepted with probability $q(x) \min(1, p(x)/q(x)) = \min(p(x), q(x))$. What is missing to $p(x)$ is $\max(0, p(x) - q(x))$. All of that together is just the probability of a refusal, so step 2 fills it in. So in one step the share of accepted proposals is $\alpha = \sum_x \min(p(x), q(x))$.
#
# **Predict:** with the $p$ and $q$ below, which share is accepted?

# %%
guess = ...  # a share between 0 and 1
p, q = torch.tensor([0.5, 0.3, 0.15, 0.05]), torch.tensor([0.2, 0.6, 0.1, 0.1])
compare(guess, torch.minimum(p, q).sum().item(), how="computed")

# %% atol=0.01
dice = torch.Generator().manual_seed(0)
proposed = torch.multinomial(q, 100_000, replacement=True, generator=dice)
accepted = torch.rand(100_000, generator=dice) < (p / q)[proposed]
rest = (p - q).clamp(min=0)
instead = torch.multinomial(rest, 100_000, replacement=True, generator=dice)
written = torch.where(accepted, proposed, instead)
shares = written.bincount(minlength=4) / 100_000
print(f"accepted: {accepted.float().mean():.2f}; written:", [round(x, 2) for x in shares.tolist()])
assert torch.allclose(shares, p, atol=0.01)

# %% [markdown]
# ### What is gained
#
# Say each proposal is accepted with probability $\alpha$, independently, and $g$ tokens are proposed at once. The $k$-th one is written if the first $k$ are all accepted, with probability $\alpha^k$. So one call of the target yields $1 + \alpha + \alpha^2 + \dots + \alpha^g = \frac{1 - \alpha^{g+1}}{1 - \alpha}$ tokens in the mean. A call of the draft costs the share $c$ of a target's call, so the speed is multiplied by
#
# $$\frac{1 - \alpha^{g+1}}{(1 - \alpha)(g c + 1)}$$
#
# Given the rate, is it so? We draw at temperature 1 behind the beginnings of three texts. A control proposes any token, all equally likely.


# %%
def blind(ids, count):
    uniform = torch.full((count, 2048), 1 / 2048)
    return torch.multinomial(uniform, 1, generator=dice)[:, 0], uniform


def tokens_a_call(make, length=64):
    """Return the judged and accepted proposals and the tokens for each call, over three texts."""
    how = {"distribution": probabilities, "generator": dice}
    found = [
        generation.speculate(target, make(**how), text[None, :32], length, **how) for text in texts
    ]
    judged, accepted, calls = (
        sum(getattr(one, what) for one in found) for what in ("judged", "accepted", "calls")
    )
    return judged, accepted, 3 * length / calls


# %% [markdown]
# **Predict:** is the student's rate nearer to 0.5, 0.7 or 0.9?

# %% atol=0.05
guess = ...  # 0.5, 0.7 or 0.9
rates = {}
for name, make in (drafts | {"blind": lambda **how: blind}).items():
    dice = torch.Generator().manual_seed(0)
    judged, accepted, per_call = tokens_a_call(make)
    rate = rates[name] = accepted / max(judged, 1)
    off = math.sqrt(rate * (1 - rate) / max(judged, 1))
    foretold = (1 - rate**5) / (1 - rate)
    told = f"accepted {rate:.2f} ± {off:.2f}; tokens a call {per_call:.2f}"
    print(f"{name:16} {told}, foretold {foretold:.2f}")
compare(guess, rates["student"])
assert rates["own copy, 4 bits"] > rates["student"] > 0.5 > rates["blind"]

# %% [markdown]
# For the two models the formula holds well. In *drawn* text look-up hardly ever finds anything to propose, and the blind draft gains next to nothing.
#
# ## 6 · Is it worth it?
#
# That depends on $c$, and on what the formula leaves out: it takes a call that reads five tokens to cost as much as one that reads a single one. If it costs $r$ times as much, $g c + r$ stands in the place of $g c + 1$. We clock both, on SmolLM2 in one call: the target in 8 bits, as a draft its own copy in 4 bits.

# %%
smaller = in_integers(4, group_size=32)
copy_in_4_bits = generation.jit(smaller)


def read_some(model, count):
    session = begin(model)
    session.read(ids[:, :64])
    return lambda: (session.read(ids[:, 64 : 64 + count], keep=count), session.forget(count))


# %% [markdown]
# **Predict:** the copy has half of the target's bits. Which share of the target's time does one of its calls take, $c$?

# %% clock=true
guess = ...  # a share between 0 and 1
calls = {"target, one token": read_some(fast, 1), "target, five": read_some(fast, 5)}
calls |= {"4 bits, one token": read_some(copy_in_4_bits, 1)}
one, five, draft = (t.median for t in metrics.latencies(calls, repeats=10).values())
print(f"one {1e3 * one:.1f} ms, five {1e3 * five:.1f} ms, the draft {1e3 * draft:.1f} ms")
compare(guess, draft / one)

# %% [markdown]
# Attention, norms and the output layer in 8 bits remain, so half of the bits are not half of the time. Look-up has no model to run, but it only finds what stands in the text already. So it gets a second prompt: a passage of a speech, and behind it its own beginning, as if somebody asked to copy it out. Each try writes 32 tokens, alone and with the draft in turn.
#
# **Predict:** which of the three lines below is fastest, compared with the target alone?

# %%
guess = ...  # "4 bits", "look-up" or "look-up, copying"
story = "Once upon a time, a small robot lived at the edge of a forest. Every morning it"
story = torch.tensor([words(story)["input_ids"]])
copying = torch.cat([passages[0][:, :120], passages[0][:, :24]], dim=1)
tries = {
    "4 bits": (story, lambda: generation.ModelDraft(copy_in_4_bits)),
    "look-up": (story, lambda: generation.prompt_lookup),
    "look-up, copying": (copying, lambda: generation.prompt_lookup),
}

# %% clock=true
gains = {}
for name, (text, make) in tries.items():
    both = {
        "alone": lambda text=text: generation.generate(fast, text, 32),
        "ahead": lambda text=text, make=make: generation.speculate(fast, make(), text, 32),
    }
    found = both["ahead"]()
    assert torch.equal(found.ids, both["alone"]())
    alone, ahead = metrics.latencies(both, repeats=2, warmup=0).values()
    gains[name] = alone.median / ahead.median
    print(f"{name:17} {gains[name]:.2f} times as fast")
    assert name != "4 bits" or found.acceptance > 0.5
compare(guess, max(gains, key=gains.get))
assert gains["look-up, copying"] > gains["4 bits"]

# %% [markdown]
# The text is the target's each time, token by token. More than half of what the copy in 4 bits proposes is accepted, and it still loses: its calls cost too much, and the target's call with five tokens costs more than one. On the story look-up finds next to nothing, so little changes. Copying gains. In the papers' cases the target has billions of weights and the draft a tenth to a hundredth of them. **Acceptance is half of the gain; the price of the draft is the other half.** Look-up serves for edited texts, answers that quote, code.
#
# ## 7 · The ledger
#
# SmolLM2 in floats, and in integers of 8 and of 4 bits. Quality: perplexity on three passages of 160 tokens, floats = 1. Time: one token behind 64 others, on one thread.

# %%
variants = {"floats, in PyTorch": smollm2, "8 bits, in PyTorch": hosted}
variants |= {"8 bits, in one call": fast, "4 bits, in one call": copy_in_4_bits}
sizes = [metrics.size_in_bytes(model) for model in (smollm2, hosted, hosted, smaller)]
times = metrics.latencies({name: one_more(m) for name, m in variants.items()}, repeats=5)


# %% clock=true rtol=0.05
def perplexity_ratio(model):
    losses = [generation.surprise(begin(model), ids, step=40) for ids in passages]
    return sum(math.exp(a - b) for a, b in zip(losses, full, strict=True)) / 3


ledger = metrics.Ledger("perplexity, floats = 1")
for (name, model), size in zip(variants.items(), sizes, strict=True):
    quality = 1.0 if model is smollm2 else perplexity_ratio(model)
    ledger.add(name, size, quality, latency=times[name])
print(ledger)
ax = plots.ledger(ledger)
assert all(row.quality < 1.1 for row in ledger.rows[:3]) and ledger.rows[3].quality > 1.15

# %% [markdown]
# *Figure: integers take a quarter or a sixth of the bytes; 8 bits cost little, 4 bits a third.*
#
# <details><summary>The figure in words</summary>
#
# Perplexity as a multiple of the float model's, over megabytes stored. Floats at 540 MB and 1. The two variants of 8 bits stand at one place, at 136 MB and little above 1; 4 bits at about 90 MB, and higher.
#
# </details>
#
# 8 bits cost a few percent, and the same integers are far faster in one call. (The two figures of 8 bits differ by chance: a sum in another order can round an input to the next integer.) 4 bits, with inputs in 8, cost a third. For "floats" are not the published weights here: our file of SmolLM2 holds 4 bits, in groups that have a minimum of their own. Our grid has none, so the weights are rounded twice. Chapter 08's GPTQ is made for such a case.
#
# Does it serve? A story, drawn token by token with temperature and top-p, in 8 bits:

# %% tags=["nbval-ignore-output"]
question = [{"role": "user", "content": "Tell me a very short story about a lighthouse."}]
ask = words.apply_chat_template(question, add_generation_prompt=True, tokenize=False)
choose = generation.sampled(0.7, torch.Generator().manual_seed(1), top_p=0.9)
start, pieces = time.perf_counter(), []
for piece in generation.write(fast, words, ask, 80, choose):
    print(piece, end="", flush=True)
    pieces.append(piece)
assert len("".join(pieces)) > 40

# %% [markdown]
# ## **Spot the bug**
#
# This judge of a draft's tokens is easily written. It accepts as it should, and the words it writes look fine. `p` and `q` are the two distributions, `x` is what the draft drew. What is wrong, and which test would show it? Find it before you read on.


# %%
def judge(p, q, x, dice):
    """Return the token that is written. (This is the version with the bug.)"""
    if torch.rand(1, generator=dice) < p[x] / q[x]:
        return x
    return torch.multinomial(p, 1, generator=dice).item()


# %% atol=0.02
dice = torch.Generator().manual_seed(0)
drafts_of = torch.multinomial(q, 20_000, replacement=True, generator=dice)
written = torch.tensor([judge(p, q, x, dice) for x in drafts_of.tolist()])
shares = written.bincount(minlength=4) / len(written)
print("p:      ", [round(x, 2) for x in p.tolist()])
print("written:", [round(x, 2) for x in shares.tolist()])

# %% [markdown]
# <details><summary>Answer</summary>
#
# A refused token is replaced by a draw from $p$ itself. But what $q$ proposes too often, the second token here, has then a second chance to be drawn, and what it proposes too rarely does not get all that it is short of. The replacement must come from the positive part of $p - q$. No single text shows that; the test *counts*, on a case so small that the right shares are known.
#
# </details>

# %%
expected = torch.minimum(p, q) + (1 - torch.minimum(p, q).sum()) * p
assert torch.allclose(shares, expected, atol=0.02) and not torch.allclose(shares, p, atol=0.05)

# %% [markdown]
# ## What papers say, and what we measured
#
# | paper | says | we measured | same order? |
# |---|---|---|---|
# | Ainslie et al. 2023, 2305.13245 | shared heads of keys make the cache smaller, at little loss | a third of the bytes, by formula; nothing trained | not tested |
# | Liu et al. 2024, 2402.02750 | keys by channel, values by token; 2 bits nearly without loss | keys: a sixth of the error by channel; 4 bits free, 2 bits cost a tenth | in part: for values by channel was no worse, and ours is a small model |
# | Xiao et al. 2023, 2309.17453 | a window breaks a model, a few first tokens mend it | perplexity times 1.5 to 1.7; with four sinks 1.0 | yes, though far milder: our texts are 2.5 windows long |
# | Leviathan et al. 2022, 2211.17192 | the same distribution, and the formula; T5 2 to 3 times as fast | the same on four tokens, and the formula for tokens a call; faster where look-up copies | in part: our drafts are not cheap enough |
# | Holtzman et al. 2019, 1904.09751 | the likeliest text repeats itself, the tail throws it off | greedy went round in circles | the first half; the tail was not tested |
#
# ## Summary
#
# - **The cache.** Keys and values of old tokens never change, so they are kept: 123 positions were computed instead of 7,350.
# - **Its bytes** grow with each token: 377 MB for a full window of SmolLM2, whose weights take 135 MB in 8 bits. 4 bits cost nothing here. A window alone cost half as much again, four first tokens mended it.
# - **Choosing.** A low temperature sharpens the distribution; top-p kept far fewer than the 2,048 tokens, as many as each place needs.
# - **Time.** One token waits for memory, a prompt or many short texts wait for arithmetic. In one compiled call the same integers came close to the roof.
# - **A draft** writes ahead, and the text stays the target's: exactly when greedy, in distribution when drawn. What it gains is acceptance *and* the draft's price.
#
# ## Further reading
#
# - Leviathan et al. 2022, *Fast inference from Transformers via speculative decoding* (arXiv 2211.17192): section 3, the formula, and its appendix, the proof.
# - Xiao et al. 2023, *Efficient streaming language models with attention sinks* (arXiv 2309.17453): its first figures.
# - Liu et al. 2024, *KIVI* (arXiv 2402.02750): section 3, how keys and values differ.
# - In this repository: `lightcourse/kernels/program.py`, the list of cores, and `lightcourse/generation/speculative.py`.
