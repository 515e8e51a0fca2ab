# %% [markdown]
# # 01 · Models and metrics: exercises — bits, classes, a limit, a verdict
#
# Four small functions, each the heart of one measure. Each is followed by one line that checks it: ✓, or ✗ and what your answer seems to believe. Run that line as often as you like. Below it your function works with a real model. Nothing here needs more than chapter 01.
#
# From the command line, `lightcourse check exercises/01_models_and_metrics.ipynb` tells which checks pass.

# %%
import copy
import math

import torch
from sklearn.linear_model import LogisticRegression

import lightcourse
from lightcourse import checks, data, kernels, metrics, models, pruning
from lightcourse.kernels import limits
from lightcourse.quantization import quantize_

lightcourse.setup()

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

# %% [markdown]
# Your function on two real models, our tiny teacher and our tiny student. Both read one paragraph; change it for one of your own.

# %% rtol=0.01
tokenizer = models.load_tiny_tokenizer()
text = "Fellow citizens of the Senate and of the House of Representatives, we meet in peace."
ids = torch.tensor([tokenizer.eos_token_id, *tokenizer(text)["input_ids"]])
print(f"{len(ids) - 1} tokens, {len(text.encode())} bytes")
for size in ("teacher", "student"):
    reader = models.load_tiny_lm(size)
    loss = metrics.cross_entropy(reader, ids)
    told = "first solve exercise 1"
    if passed:
        told = f"{bits_per_byte(loss, len(ids) - 1, text):.3f} bits a byte by your function, "
        told += f"{metrics.bits_per_byte(reader, tokenizer, text):.3f} by the library's"
    print(f"{size}: loss {loss:.3f}, {told}")

# %% [markdown] tags=["solution"]
# **Why.** The loss is a mean over *tokens*, so times their number it is the price of the whole text, and that price is what two models can be compared by. The one with 200 tokens is better: the same loss, paid 200 times instead of 300 times. Its perplexity is the same as the other's, which is just why perplexity does not compare across tokenizers.
#
# Bytes and not characters, because a Chinese character carries more than a Latin letter does, and because bytes are what a file is made of.

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

# %% [markdown]
# Now a real model. MiniLM judges sentences of reviews by a logistic regression on its frozen output. Of the test sentences we keep all positive ones, and one negative for nine of them.

# %%
minilm, words = models.load_minilm(), models.load_minilm_tokenizer()
reviews = data.load_reviews()
learn = data.ordered_batches(reviews["train"].select(range(256)), words, max_length=24)
test = data.ordered_batches(reviews["test"].select(range(300)), words, max_length=24)
learn_labels, truth = (torch.cat([batch["labels"] for batch in found]) for found in (learn, test))
regression = LogisticRegression(max_iter=1000).fit(models.embed(minilm, learn), learn_labels)


def answers_of(encoder):
    """Return the answers of an encoder, under the same regression, to all test sentences."""
    return torch.tensor(regression.predict(models.embed(encoder, test)))


# %% atol=0.02
dense = answers_of(minilm)
positive, negative = (truth == 1).nonzero()[:, 0], (truth == 0).nonzero()[:, 0]
rows = torch.cat([positive, negative[: len(positive) // 9]])
for name, found in {"MiniLM": dense, "always positive": torch.ones_like(truth)}.items():
    told = "first solve exercise 2"
    if passed:
        told = f"macro-F1 {macro_f1(found[rows], truth[rows]):.3f}"
    print(f"{name:15} accuracy {metrics.accuracy(found[rows], truth[rows]):.3f}, {told}")

# %% [markdown] tags=["solution"]
# **Why.** The order matters: F1 of each class first, the mean last. Any other order lets the big class speak for all: taking hits over all classes together gives accuracy again, and weighing by class size nearly so. The class that is only *predicted*, never true, must count as well, with 0: otherwise naming classes that do not exist would cost nothing.
#
# The prediction: class 0 has TP = 90, FP = 10, FN = 0, so F1 = 180 / 190 = 0.947; class 1 has 0. The mean is 0.474, though the accuracy is 0.9. In the cell above it is the same: the constant answer wins by accuracy and loses by macro-F1.

# %% [markdown]
# ## Exercise 3 · How fast can it be? ★★ (10 minutes)
#
# Before you buy a device or quantize a model, do these two divisions. Write `tokens_per_second_limit(parameters, bits, group_size, bandwidth, peak)`:
#
# - `parameters`: how many weights the decoder has. To write one token it reads each of them once and does two operations with it;
# - `bits`: the bits of one packed weight;
# - `group_size`: so many weights share one scale of 16 bits, which is read as well;
# - `bandwidth`: the bytes that the machine reads in a second;
# - `peak`: the operations that it does in a second;
# - returns the most tokens that it can write in a second: reading and computing happen at the same time, so the *slower* of the two is the limit.
#
# **Predict** first: a phone reads 51 GB and does 200 billion operations in a second; the model has 3 billion parameters, in groups of 32. How many times faster can it be at most with 4 bits than with 8? And with 3 bits than with 4?
#
# <details><summary>Hint 1</summary>How many bits does one weight cost, with its part of a scale?</details>
# <details><summary>Hint 2</summary>Bandwidth is in bytes. Seconds for a token are bytes / bandwidth; you want the inverse.</details>
# <details><summary>Hint 3</summary>The operations of a token do not depend on the bits.</details>


# %%
def tokens_per_second_limit(parameters, bits, group_size, bandwidth, peak):
    """Return the most tokens a second that the memory and the arithmetic allow."""
    ### BEGIN SOLUTION
    bits_of_a_weight = bits + 16 / group_size
    read = bandwidth / (parameters * bits_of_a_weight / 8)
    computed = peak / (2 * parameters)
    return min(read, computed)
    ### END SOLUTION


# %%
passed = checks.check_tokens_per_second_limit(tokens_per_second_limit)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# The phone, by your function:

# %%
for bits in (16, 8, 4, 3):
    limit = tokens_per_second_limit(3e9, bits, 32, 51e9, 200e9) if passed else math.nan
    print(f"{bits:2} bits: {limit:.1f} tokens/s" if passed else "first solve exercise 3")

# %% [markdown]
# And *your* machine, on one thread. `limits.stream_read` measures its bandwidth, and `limits.int8_peak` how many operations on 8-bit integers it does in a second. (Where the library has no fast path for a processor, a product of float matrices stands in.) Beside the limit: SmolLM2 with 8-bit weights, one scale a row, on the library's integer kernels.

# %% clock=true
kernels.set_threads(1)
bandwidth, peak, square = limits.stream_read(), limits.int8_peak(), torch.ones(1024, 1024)
if math.isnan(peak):
    peak = 2 * 1024**3 / metrics.latency(lambda: square @ square).median
decoder = models.load_smollm2()
parameters = decoder.num_parameters()
report = quantize_(decoder, bits=8, activations=8, embeddings=8)
memory = decoder(torch.arange(1000, 1008)[None]).past_key_values
token = metrics.latency(lambda: decoder(torch.tensor([[5]]), past_key_values=memory), repeats=9)
print(f"this machine: {bandwidth / 1e9:.1f} GB/s, {peak / 1e9:.0f} billion operations/s")
print(f"SmolLM2 writes {1 / token.median:.1f} tokens/s")
if passed:
    limit = tokens_per_second_limit(parameters, 8, 576, bandwidth, peak)
    print(f"the limit by your function is {limit:.1f} tokens/s")
    assert 1 / token.median < 2 * limit

# %% [markdown] tags=["solution"]
# **Why.** One token needs every weight once, and for each weight there are two operations. From 8 to 4 bits the memory is the limit: 8.5 / 4.5 = 1.9 times, and not 2, because scales are read too. From 4 to 3 bits one would hope for 4.5 / 3.5 = 1.3 times. But at 3 bits the memory would allow 38.9 tokens a second and the arithmetic only 33.3: it is 1.1 times. Fewer bits move a job to the right in the roofline, until it hits the roof.
#
# On your machine both numbers belong to one thread. A real program stays below its limit: between the matrices it also computes attention and norms, and here Python itself takes time for each of its hundreds of small steps. And a program that first unpacks all weights into floats in memory reads and writes more bytes, not fewer: chapter 05 measures that.

# %% [markdown]
# ## Exercise 4 · Better, worse, or inconclusive? ★★ (20 minutes)
#
# Two models have answered the same sentences. Answers that are both right or both wrong say nothing about which model is better; only two kinds of sentence do: those that the second model **gained** (it is right, the first is wrong), and those that it **lost** (the first is right, it is wrong). If the two were equally good, each of these would be a fair coin. The **sign test** asks how unlikely what we see then is. Write `compare_answers(first, second, labels)`:
#
# - all three are tensors of class numbers, equally long: the answers of both models, and the right ones;
# - returns four values, `(gained, lost, p_value, verdict)`. The first two are counts;
# - `p_value`: of $n$ = gained + lost fair coins, the chance that *one of the two sides* comes up at most as often as the smaller of both counts; that is twice the chance for one given side, and at most 1:
#
# $$p = \min\Big(1,\; 2 \sum_{k=0}^{m} \binom{n}{k} \Big/ 2^n\Big), \qquad m = \min(\text{gained}, \text{lost})$$
#
# - `verdict`: the text `"inconclusive"` if $p$ is 0.05 or more; otherwise `"second"` if the second model gained more than it lost, `"first"` if it lost more.
#
# **Predict** first: of 1,000 sentences the second model gains 6 and loses none. Its accuracy has risen by 0.006, and the margin of *one* accuracy near 0.7 is 0.029. What is the verdict?
#
# <details><summary>Hint 1</summary>Two tensors of True and False are enough: <code>first == labels</code> and <code>second == labels</code>.</details>
# <details><summary>Hint 2</summary><code>math.comb(n, k)</code> is the number of ways to get k heads out of n coins; there are 2ⁿ ways in all.</details>
# <details><summary>Hint 3</summary>For n = 0 the sum is 1, twice that is 2, and at most 1 is left: nothing is decided.</details>


# %%
def compare_answers(first, second, labels):
    """Return (gained, lost, p-value of the sign test, verdict) of two models' answers."""
    ### BEGIN SOLUTION
    before, after = first == labels, second == labels
    gained, lost = (after & ~before).sum().item(), (before & ~after).sum().item()
    count = gained + lost
    ways = sum(math.comb(count, k) for k in range(min(gained, lost) + 1))
    p_value = min(1.0, 2 * ways / 2**count)
    if p_value >= 0.05:
        return gained, lost, p_value, "inconclusive"
    return gained, lost, p_value, "second" if gained > lost else "first"
    ### END SOLUTION


# %%
passed = checks.check_compare_answers(compare_answers)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# The real MiniLM of exercise 2 against two of its light variants: 4 bits with a scale a row, and 70 % of the weights removed. The regression is the same for all. (`metrics.paired_gap` is the library's sign test.)

# %% atol=0.02
light, pruned = copy.deepcopy(minilm), copy.deepcopy(minilm)
report = quantize_(light, bits=4)
pruning.prune_(pruned, pruning.layer_mask(pruning.magnitude_scores(pruned), 0.7))
for name, model in {"4 bits": light, "70 % removed": pruned}.items():
    found = answers_of(model)
    gap = metrics.accuracy(found, truth) - metrics.accuracy(dense, truth)
    told = "first solve exercise 4"
    if passed:
        gained, lost, p_value, verdict = compare_answers(dense, found, truth)
        told = f"gained {gained / 300:.1%}, lost {lost / 300:.1%}: {verdict}"
        assert math.isclose(p_value, metrics.paired_gap(dense, found, truth).p_value)
    print(f"{name:12} accuracy moves by {gap:+.3f}; {told}")

# %% [markdown] tags=["solution"]
# **Why.** Pairing takes out what both models share: the sentences that are easy for both, and those that are hard for both. The prediction: p = 2 / 2⁶ = 0.031, so the verdict is `"second"`, although the gap is a fifth of the margin of one accuracy. It works in the other direction as well: where many answers flip both ways, as they do at 4 bits, a gap that looks large may still be nothing.
#
# A p-value below 0.05 is no proof: of twenty comparisons between equal models, up to one will fall below it by chance. So do not search for the one comparison that does.

# %% [markdown]
# ## Wrap-up
#
# You wrote the measure that compares language models, the measure that sees the rare class, the two divisions that tell how fast a machine can be, and the test that says when two models differ. Chapter 02 uses them to judge a fine-tuned model.
