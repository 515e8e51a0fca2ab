# %% [markdown]
# # 01 · Models and metrics: exercises — bits, classes, a limit
#
# Three small functions, each the heart of one measure. Each is followed by one line that checks it: ✓, or ✗ and what your answer seems to believe. Run that line as often as you like. Nothing here needs more than chapter 01.
#
# From the command line, `lightcourse check exercises/01_models_and_metrics.ipynb` tells which checks pass.

# %%
import math

import torch

from lightcourse import checks

# %% [markdown]
# ## Exercise 1 · What does the text cost? ★ (10 minutes)
#
# A language model has read a text, and a colleague tells you its mean loss. Make of it a number that compares across tokenizers. Write `bits_per_byte(loss, tokens, text)`:
#
# - `loss`: the *mean* loss of a token, in nats (natural logarithm);
# - `tokens`: how many tokens the model's tokenizer made of the text;
# - `text`: the text, a `str`;
# - returns the bits that the model spends on each byte of the text, in UTF-8.
#
# **Predict** first: two models have the same mean loss. One cuts the text into 200 tokens, the other into 300. Which is better?
#
# <details><summary>Hint 1</summary>First the cost of the whole text, then divide by its length.</details>
# <details><summary>Hint 2</summary>Two outcomes of equal chance are one bit, and their loss is ln 2 = 0.693 nats. So is a nat more or less than a bit?</details>
# <details><summary>Hint 3</summary><code>"é"</code> is one character and two bytes: <code>"é".encode()</code> gives the bytes.</details>


# %%
def bits_per_byte(loss, tokens, text):
    """Return bits for each byte of UTF-8, from the mean nats of a token."""
    ### BEGIN SOLUTION
    nats = loss * tokens
    bits = nats / math.log(2)
    return bits / len(text.encode("utf-8"))
    ### END SOLUTION


# %%
passed = checks.check_bits_per_byte(bits_per_byte)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown] tags=["solution"]
# **Why.** The loss is a mean over *tokens*, so times their number it is the price of the whole text, and that price is what two models can be compared by. The one with 200 tokens is better: the same loss, paid 200 times instead of 300 times. Its perplexity is the same as the other's, which is just why perplexity does not compare across tokenizers.
#
# Bytes and not characters, because a Chinese character carries more than a Latin letter does, and because bytes are what a file is made of. The library says the same of a real model:

# %% tags=["solution"]
from lightcourse import metrics, models

model, tokenizer = models.load_tiny_lm("student"), models.load_tiny_tokenizer()
text = "Fellow citizens of the Senate and of the House of Representatives"
ids = [tokenizer.eos_token_id, *tokenizer(text)["input_ids"]]
loss = metrics.cross_entropy(model, torch.tensor(ids))
ours, theirs = (
    bits_per_byte(loss, len(ids) - 1, text),
    metrics.bits_per_byte(model, tokenizer, text),
)
assert math.isclose(ours, theirs, rel_tol=1e-6)
print(f"{len(ids) - 1} tokens, {len(text.encode())} bytes: the library agrees")

# %% [markdown]
# ## Exercise 2 · Each class counts the same ★★ (15 minutes)
#
# Write `macro_f1(predictions, labels)` yourself, without a library:
#
# - both are tensors of class numbers (int64), equally long; the numbers need not be 0, 1, 2, …;
# - for each class that occurs in `labels` *or* in `predictions`: $F_1 = 2\,TP / (2\,TP + FP + FN)$;
# - returns the plain mean over these classes, a number.
#
# **Predict** first: 90 sentences of class 0, 10 of class 1, and somebody answers 0 to all of them. What is the result?
#
# <details><summary>Hint 1</summary>Loop over the classes: <code>torch.cat([predictions, labels]).unique()</code>.</details>
# <details><summary>Hint 2</summary>TP + FP is how often the class was named. TP + FN is how often it was true. So 2 TP + FP + FN is …</details>
# <details><summary>Hint 3</summary>If you compute precision and recall first, a class that is never named gives 0 / 0. The formula above never divides by 0.</details>


# %%
def macro_f1(predictions, labels):
    """Return the mean over classes of F1."""
    ### BEGIN SOLUTION
    scores = []
    for label in torch.cat([predictions, labels]).unique():
        named, true = predictions == label, labels == label
        hits = (named & true).sum().item()
        scores.append(2 * hits / (named.sum().item() + true.sum().item()))
    return sum(scores) / len(scores)
    ### END SOLUTION


# %%
passed = checks.check_macro_f1(macro_f1)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown] tags=["solution"]
# **Why.** The order matters: F1 of each class first, the mean last. Any other order lets the big class speak for all: taking hits over all classes together gives accuracy again, and weighing by class size nearly so. The class that is only *predicted*, never true, must count as well, with 0: otherwise naming classes that do not exist would cost nothing.
#
# The prediction: class 0 has TP = 90, FP = 10, FN = 0, so F1 = 180 / 190 = 0.947; class 1 has 0. The mean is 0.474, as in the chapter.

# %% tags=["solution"]
labels = torch.tensor([0] * 90 + [1] * 10)
lazy = torch.zeros_like(labels)
print(f"accuracy {metrics.accuracy(lazy, labels):.3f}, macro-F1 {macro_f1(lazy, labels):.3f}")
assert math.isclose(macro_f1(lazy, labels), metrics.macro_f1(lazy, labels), rel_tol=1e-6)

# %% [markdown]
# ## Exercise 3 · How fast can it be? ★★ (10 minutes)
#
# Before you buy a device or quantize a model, do this division. Write `tokens_per_second_limit(parameters, bits, group_size, bandwidth)`:
#
# - `parameters`: how many weights the decoder has, all of them read for each token;
# - `bits`: the bits of one packed weight;
# - `group_size`: so many weights share one scale of 16 bits, which is read as well;
# - `bandwidth`: the bytes that the machine reads in a second;
# - returns the most tokens that it can write in a second.
#
# **Predict** first: going from 16 bits without scales to 4 bits with groups of 32, how many times faster can it be at most? Four times?
#
# <details><summary>Hint 1</summary>How many bits does one weight cost, with its part of a scale?</details>
# <details><summary>Hint 2</summary>Bandwidth is in bytes.</details>
# <details><summary>Hint 3</summary>Seconds for a token are bytes / bandwidth. You want the inverse.</details>


# %%
def tokens_per_second_limit(parameters, bits, group_size, bandwidth):
    """Return the most tokens a second that the memory allows."""
    ### BEGIN SOLUTION
    bits_of_a_weight = bits + 16 / group_size
    size = parameters * bits_of_a_weight / 8
    return bandwidth / size
    ### END SOLUTION


# %%
passed = checks.check_tokens_per_second_limit(tokens_per_second_limit)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# Use it: a phone that reads 51 GB in a second, a model of 3 billion parameters. Change the numbers to those of your own device.

# %%
for bits in (8, 4, 3):
    print(bits, "bits:", tokens_per_second_limit(3e9, bits, 32, 51e9), "tokens/s")

# %% [markdown] tags=["solution"]
# **Why.** One token needs every weight once, and for each weight there is next to nothing to compute, so the time is the time of reading. The prediction: 16 / 4.5 = 3.6 times, not 4: scales are read too. Notice also what 3 bits gain over 4: 4.5 / 3.5 = 1.3 times, before any question of quality.
#
# It is a *limit*. A program that first unpacks all weights into floats in memory reads and writes more bytes, not fewer, and gets slower: chapter 05 measures that.

# %% [markdown]
# ## Wrap-up
#
# You wrote the measure that compares language models, the measure that sees the rare class, and the division that tells how fast a machine can be. Chapter 02 uses the first two to judge a fine-tuned model.
