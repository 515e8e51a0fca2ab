# %% [markdown]
# # 06 · Knowledge distillation: exercises — soften, mix, shift, search, derive
#
# Five small functions: a soft answer, the loss, its form for a language model, a temperature that does what you want, and the gradient behind $T^2$. Each is followed by one line that checks it: ✓, or ✗ and what your answer seems to believe. Run that line as often as you like.
#
# From the command line, `lightcourse check exercises/06_knowledge_distillation.ipynb` tells which checks pass.

# %%
import math

import torch
from torch.nn import functional as F

from lightcourse import checks

# %% [markdown]
# ## Exercise 1 · Soften ★ (10 minutes)
#
# Write `soften(logits, temperature)`:
#
# - `logits`: a tensor of shape (batch, classes); `temperature`: a number above 0;
# - returns two tensors: the softened probabilities, of the same shape, each row summing to 1; and the entropy of each row in nats, of shape (batch,).
#
# **Predict** first: logits (2, 0), so two classes. What are the probabilities at T = 1, and at T = 2? Do they halve their distance from 1/2?
#
# <details><summary>Hint 1</summary>The temperature acts before the softmax, not after it.</details>
# <details><summary>Hint 2</summary>A softmax wants to know along which dimension it shall sum to 1: the last.</details>
# <details><summary>Hint 3</summary>The entropy is the sum of -p ln p over the classes. <code>torch.log</code> is the natural logarithm.</details>


# %%
def soften(logits, temperature):
    """Return (probabilities at a temperature, entropy of each row in nats)."""
    ### BEGIN SOLUTION
    probabilities = (logits / temperature).softmax(-1)
    return probabilities, -(probabilities * probabilities.log()).sum(-1)
    ### END SOLUTION


# %%
passed = checks.check_soften(soften)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown] tags=["solution"]
# **Why.** Dividing *probabilities* by T leaves their ratios as they were; dividing *logits* takes the T-th root of each ratio: 7.4 to 1 becomes 2.7 to 1. So the distance from 1/2 does not simply halve: 0.881 becomes 0.731. (Where a probability is exactly 0, `p * p.log()` is not a number; `torch.special.entr` knows that 0 · ln 0 counts as 0.)

# %% tags=["solution"]
for T in (1, 2, 4):
    p, entropy = soften(torch.tensor([[2.0, 0.0]]), T)
    print(f"T = {T}: {[round(v, 3) for v in p[0].tolist()]}, entropy {entropy[0]:.3f}")
assert torch.allclose(entropy, torch.special.entr(p).sum(-1))

# %% [markdown]
# ## Exercise 2 · The loss ★★ (15 minutes)
#
# Write `soft_loss(student_logits, teacher_logits, labels, temperature, soft_weight)`:
#
# $$(1 - w)\,\mathrm{CE}(\text{label}, s) + w\,T^2\,\mathrm{KL}\big(\mathrm{softmax}(t/T) \,\|\, \mathrm{softmax}(s/T)\big)$$
#
# - both logits are of shape (batch, classes), `labels` of shape (batch,); $w$ is `soft_weight`;
# - returns one number, the mean over the batch. `F.cross_entropy` may be used.
#
# **Predict** first: student and teacher have equal logits. What is the loss for $w = 1$? And does it depend on T?
#
# <details><summary>Hint 1</summary>Two parts. The first one knows nothing of T.</details>
# <details><summary>Hint 2</summary>KL of one row is the sum over its classes of p · (ln p - ln q). <code>log_softmax</code> gives both logarithms safely.</details>
# <details><summary>Hint 3</summary>Sum over classes, mean over rows. <code>F.kl_div</code> with <code>reduction="mean"</code> divides by both; <code>"batchmean"</code> does what is wanted.</details>


# %%
def soft_loss(student_logits, teacher_logits, labels, temperature, soft_weight):
    """Return (1 - w) · CE + w · T² · KL(teacher ‖ student), the mean over the batch."""
    ### BEGIN SOLUTION
    log_p = (teacher_logits / temperature).log_softmax(-1)
    log_q = (student_logits / temperature).log_softmax(-1)
    soft = (log_p.exp() * (log_p - log_q)).sum(-1).mean()
    hard = F.cross_entropy(student_logits, labels)
    return (1 - soft_weight) * hard + soft_weight * temperature**2 * soft
    ### END SOLUTION


# %%
passed = checks.check_soft_loss(soft_loss)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown] tags=["solution"]
# **Why.** Each part has its usual accident. Without $T^2$ the teacher's part shrinks by 9 at T = 3. With the temperature on one side only, student and teacher can never agree. With the two swapped, KL is another measure. And PyTorch's default reduction divides by the number of classes: for a language model of 2,048 tokens, the teacher would hardly be heard. With equal logits the soft part is 0 at every T.
#
# With `F.kl_div` the soft part is one line; mind the order of its arguments, and that the *first* is the student's, in logarithms:

# %% tags=["solution"]
torch.manual_seed(0)
student, teacher, labels, T = torch.randn(6, 5), torch.randn(6, 5), torch.arange(6) % 5, 3.0
one_line = F.kl_div((student / T).log_softmax(-1), (teacher / T).softmax(-1), reduction="batchmean")
assert torch.isclose(T**2 * one_line, soft_loss(student, teacher, labels, T, 1.0))
assert soft_loss(teacher, teacher, labels, T, 1.0).abs() < 1e-6

# %% [markdown]
# ## Exercise 3 · Spot the bug: a language model's teacher ★★ (20 minutes)
#
# For a language model, "labels are shifted by one": the answer at position t is the token at t + 1. Somebody knew that, and wrote this. **Predict:** name three things wrong with it, then open the specification below.


# %%
def copied_kl(student_logits, teacher_logits, attention_mask):
    """Return KL(teacher ‖ student). (This is the version with the bugs.)"""
    student, teacher = student_logits[:, :-1], teacher_logits[:, 1:]
    return F.kl_div(student.log_softmax(-1), teacher.softmax(-1), reduction="batchmean")


torch.manual_seed(3)
same = torch.randn(2, 6, 5)
mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]])
print("equal logits give 0:", bool(copied_kl(same, same, mask).abs() < 1e-6))
noise = same.clone()
noise[1, 4] = 0
print(
    "padding counts for nothing:", bool(copied_kl(same, same, mask) == copied_kl(noise, same, mask))
)

# %% [markdown]
# Write a better one, `next_token_kl(student_logits, teacher_logits, attention_mask)`.
#
# <details><summary>The specification (name the three things first)</summary>
#
# - both logits are of shape (batch, time, vocabulary), `attention_mask` of shape (batch, time), 1 for a real token and 0 for padding, which stands on the right;
# - a position counts if there is a *next* token and it is real;
# - returns KL(teacher ‖ student) at T = 1, the mean over all positions that count: each position counts the same, in whichever text.
#
# </details>
#
# <details><summary>Hint 1</summary>Which question does the student answer at position t? And the teacher, at the same position? Does anything have to be shifted between the two?</details>
# <details><summary>Hint 2</summary>The last position of the window has no next token. Neither has the last real token of a short text. Both are known from <code>attention_mask[:, 1:]</code>.</details>
# <details><summary>Hint 3</summary><code>values[mask.bool()].mean()</code> divides by the positions that count; "batchmean" divides by the number of texts.</details>


# %%
def next_token_kl(student_logits, teacher_logits, attention_mask):
    """Return KL(teacher ‖ student), the mean over positions whose next token is real."""
    ### BEGIN SOLUTION
    log_p, log_q = teacher_logits.log_softmax(-1), student_logits.log_softmax(-1)
    each = (log_p.exp() * (log_p - log_q)).sum(-1)
    return each[:, :-1][attention_mask[:, 1:].bool()].mean()
    ### END SOLUTION


# %%
passed = checks.check_next_token_kl(next_token_kl)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown] tags=["solution"]
# **Why.** *Labels* are shifted, because the token at t + 1 is the answer to the question at t. *Logits* are not: student and teacher answer the same question at the same position. The copied version asks the student at t to say what the teacher says at t + 1, after it has seen one more token. Its second bug: "batchmean" divides by the number of texts, so the loss grows with their length. Its third: padding is learned from.
#
# The library's loss does the same, and takes Hugging Face's labels, where -100 marks what does not count:

# %% tags=["solution"]
from lightcourse import distillation

student, teacher = torch.randn(2, 6, 5), torch.randn(2, 6, 5)
ids = torch.randint(5, (2, 6)).masked_fill(mask == 0, -100)
theirs = distillation.causal_distillation_loss(student, teacher, ids, 1.0, soft_weight=1.0)
assert torch.isclose(theirs, next_token_kl(student, teacher, mask))
assert next_token_kl(same, same, mask).abs() < 1e-6
assert next_token_kl(noise, same, mask) == next_token_kl(same, same, mask)

# %% [markdown]
# ## Exercise 4 · A curve, and the way back ★★ (20 minutes)
#
# How does the entropy of an answer run from T = 0 to T = ∞? **Predict** first, for the logits (4, 2, 1, 0, -1): sketch the curve. Where does it begin, where does it end, is it ever flat, does it ever fall? Then use what you found, and write `temperature_for(logits, entropy)`:
#
# - `logits`: a tensor of shape (classes,), with one largest entry; `entropy`: a number in nats, above 0 and below ln(classes);
# - returns the temperature at which the softened answer has that entropy, to a relative error of 1e-5. It may lie anywhere from 0.01 to 100.
#
# <details><summary>Hint 1</summary>The entropy only ever rises with T. So if it is too low at some T, the answer lies above that T.</details>
# <details><summary>Hint 2</summary>Keep two temperatures, one too low and one too high, and try one between them. Repeat 60 times.</details>
# <details><summary>Hint 3</summary>Between 0.001 and 1,000 the middle is better taken by factors: the square root of low · high. In 64-bit floats (<code>logits.double()</code>) the last digits are right, too.</details>


# %%
def temperature_for(logits, entropy):
    """Return the temperature at which softmax(logits / T) has that entropy."""
    ### BEGIN SOLUTION
    low, high = 1e-3, 1e3
    for _ in range(60):
        middle = math.sqrt(low * high)
        p = (logits.double() / middle).softmax(-1)
        if torch.special.entr(p).sum() < entropy:
            low = middle
        else:
            high = middle
    return low
    ### END SOLUTION


# %%
passed = checks.check_temperature_for(temperature_for)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown] tags=["solution"]
# **Why.** The curve begins at 0 (only the largest logit is left), ends at ln(classes) (all are equal), and rises all the way: its slope is the variance of the logits under $p$, divided by $T^3$, and a variance is positive as long as two classes still have a say. Near 0 it is flat, and near infinity it is flat again; what happens, happens between. A curve that only rises can be walked backwards by halving.
#
# This is also what a temperature is *not*: a number with a meaning of its own. For a teacher whose logits are twice as large, the same softness lies at twice the temperature. "T = 4" in a paper says nothing about your teacher.

# %% tags=["solution"]
from lightcourse import plots

logits = torch.tensor([4.0, 2.0, 1.0, 0.0, -1.0])
curve = {T: soften(logits[None], T)[1].item() for T in (0.25, 0.5, 1, 2, 4, 8, 16, 32)}
ax = plots.curves({"entropy": curve}, "temperature", "nats")
line = ax.axhline(math.log(5), color="#666666", linestyle=":")
found = temperature_for(logits, 1.2)
assert math.isclose(temperature_for(2 * logits, 1.2), 2 * found, rel_tol=1e-6)
print(f"entropy 1.2 at T = {found:.3f}, and with doubled logits at {2 * found:.3f}")

# %% [markdown] tags=["solution"]
# *Figure: the entropy over the temperature, from 0.25 to 32 in doubling steps: next to 0 at 0.25, then steeply up between 0.5 and 4, then flat just below the dotted line at ln 5 = 1.61.*

# %% [markdown]
# ## Exercise 5 · The gradient, and its limit ★★★ (25 minutes)
#
# You have seen both results in section 2. The exercise is to get there without looking, and then to check by code. Derive on paper, for one row of $C$ classes, the derivative of
#
# $$\mathrm{KL}(p \,\|\, q) = \sum_i p_i \ln\frac{p_i}{q_i}, \qquad p = \mathrm{softmax}(t/T),\quad q = \mathrm{softmax}(s/T)$$
#
# by each student logit $s_i$. Then the limit of $T^2$ times that derivative for $T \to \infty$. Write `soft_gradient(student_logits, teacher_logits, temperature)`:
#
# - both logits are of shape (classes,);
# - returns two tensors of that shape: the gradient of KL at this temperature (*without* a factor $T^2$), and the limit. No autograd, please.
#
# **Predict** first: add 5 to all of the student's logits. Which of the two results changes?
#
# <details><summary>Hint 1</summary>$\sum_i p_i \ln p_i$ does not depend on the student. What is left is $-\sum_i p_i \ln q_i$, and $\ln q_i = s_i / T - \ln \sum_j e^{s_j / T}$.</details>
# <details><summary>Hint 2</summary>The derivative of $\ln \sum_j e^{s_j/T}$ by $s_i$ is $q_i / T$. And the $p_i$ sum to 1.</details>
# <details><summary>Hint 3</summary>For a large T, $e^{s_i/T} \approx 1 + s_i/T$ and the sum of all is about $C\,(1 + \bar s / T)$, so $q_i \approx \frac{1}{C}\big(1 + \frac{s_i - \bar s}{T}\big)$, with the mean $\bar s$.</details>


# %%
def soft_gradient(student_logits, teacher_logits, temperature):
    """Return (gradient of KL by the student's logits, limit of T² times it)."""
    ### BEGIN SOLUTION
    p = (teacher_logits / temperature).softmax(-1)
    q = (student_logits / temperature).softmax(-1)
    gap = student_logits - teacher_logits
    return (q - p) / temperature, (gap - gap.mean()) / len(gap)
    ### END SOLUTION


# %%
passed = checks.check_soft_gradient(soft_gradient)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown] tags=["solution"]
# **Why.** $\frac{\partial}{\partial s_i}\big(-\sum_k p_k s_k / T + \ln \sum_j e^{s_j/T}\big) = -\frac{p_i}{T} + \frac{q_i}{T}$, where the $p_k$ in front of the logarithm summed to 1. For a large T the difference $q_i - p_i$ is $\frac{1}{CT}$ times the centred difference of the logits, so the whole gradient is $\frac{1}{C T^2}$ times it, and $T^2$ takes that away. Adding 5 to all logits changes neither: softmax does not see it, and the centring removes it. (A squared error of logits that are *not* centred does see it. That is one way in which it asks more of the student than any probability shows.)
#
# By autograd, by a small step in one entry, and towards the limit:

# %% tags=["solution"]
torch.manual_seed(0)
s, t = torch.randn(5).double(), 3 * torch.randn(5).double()


def kl(s, t, T):
    """Return KL(softmax(t / T) ‖ softmax(s / T))."""
    log_p, log_q = (t / T).log_softmax(-1), (s / T).log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum()


variable = s.clone().requires_grad_()
kl(variable, t, 2.0).backward()
assert torch.allclose(variable.grad, soft_gradient(s, t, 2.0)[0])
slope = (kl(s + 1e-6 * torch.eye(5)[1], t, 2.0) - kl(s, t, 2.0)) / 1e-6
assert math.isclose(slope, soft_gradient(s, t, 2.0)[0][1], rel_tol=1e-3)

# %% tags=["solution"]
limit = soft_gradient(s, t, 1.0)[1]
for T in (1, 10, 100, 1000):
    away = (T**2 * soft_gradient(s, t, T)[0] - limit).norm() / limit.norm()
    print(f"T = {T:4}: {away:.4f} away from the limit")
assert away < 0.01

# %% [markdown]
# ## Wrap-up
#
# You wrote a soft answer, the loss that learns from it, its form for language models with everything shifted that must be and nothing that must not, a temperature by what it does, and the gradient that explains $T^2$. What no check can do for you is the student beside it that was *not* taught: never report one without the other.
