# %% [markdown]
# # 16 · Responsible compression: exercises — a gap with its interval, an attack by a threshold, joules compared fairly
#
# Three exercises, 60 minutes together: whether a group lost more than the rest, what losses betray about training rows, and what one answer costs. Each function is followed by one line that checks it: ✓, or ✗ and what your answer seems to believe. Run that line as often as you like. Then comes a cell in which your function works in a real model, beside a control. Nothing here needs more than chapters 02, 04 and 16.
#
# From the command line, `lightcourse check exercises/16_responsible_compression.ipynb` tells which checks pass.

# %%
import copy
import time

import torch
from torch.nn import functional as F

import lightcourse
from lightcourse import checks, data, models
from lightcourse.training import Recipe, train

lightcourse.setup(threads=1)

# %% [markdown]
# The real model is the student, the smaller one of the tiny language models. It has read speeches; its passages here are other speeches.

# %%
student, tokenizer = models.load_tiny_lm("student"), models.load_tiny_tokenizer()
passages = data.speech_tokens(tokenizer, "validation")[: 32 * 64].view(32, 64)


# %%
@torch.no_grad()
def token_losses(model):
    """Return the loss of each foretold token, and whether it was the likeliest one."""
    logits = model(passages).logits[:, :-1]
    found = F.cross_entropy(logits.transpose(1, 2), passages[:, 1:], reduction="none")
    return found, logits.argmax(-1) == passages[:, 1:]


# %% [markdown]
# ## Exercise 1 · Did this group lose more? ★★ (20 minutes)
#
# Write `group_gap(before, after, inside, z)`. The first three are bool tensors of shape (rows,): whether the model was right before it was made smaller, whether it is right after, and whether the row belongs to the group. `z` is how many deviations the intervals reach, such as 1.96. It returns six things:
#
# - **low, high**: Wilson's interval of the group's accuracy **after**. With the share $p$ of $n$ rows, the ends are $\frac{p + z^2/2n \,\pm\, z\sqrt{p(1-p)/n + z^2/4n^2}}{1 + z^2/n}$;
# - **gap**: the group's change of accuracy minus the change of all other rows;
# - **gap low, gap high**: an interval around it. A row's change is −1, 0 or 1. On each side, imagine half a row more of each of the four kinds: right before and after, lost, won, wrong twice. So there are two rows and one changed answer more, and the sum of changes stays. The mean is the sum of changes divided by this count; the variance of the mean is (changed answers / count − mean²) / count. The interval lies around the difference of these two means. Variances of both sides add up;
# - **shown**: True where this interval is on one side of 0, and does not touch it.
#
# **Predict** first: ten rows, and all of them stay right. Is the interval of their change of no width?
#
# <details><summary>Hint 1</summary>Do the same for <code>inside</code> and <code>~inside</code>, in a loop.</details>
# <details><summary>Hint 2</summary>The gap itself has no added rows; its interval has.</details>


# %%
def group_gap(before, after, inside, z):
    """Return Wilson's ends, the gap, its ends, and whether it is shown."""
    ### BEGIN SOLUTION
    n, p = inside.sum().item(), after[inside].double().mean().item()
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    reach = z * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5 / (1 + z**2 / n)
    changes = [after[side].double() - before[side].double() for side in (inside, ~inside)]
    counts, gap = [len(side) + 2 for side in changes], changes[0].mean() - changes[1].mean()
    means = [side.sum().item() / n for side, n in zip(changes, counts, strict=True)]
    moved = [side.abs().sum().item() + 1 for side in changes]
    sides = zip(moved, means, counts, strict=True)
    far, between = z * sum((m / n - x**2) / n for m, x, n in sides) ** 0.5, means[0] - means[1]
    low, high = between - far, between + far
    return middle - reach, middle + reach, gap.item(), low, high, low > 0 or high < 0
    ### END SOLUTION


# %%
passed = checks.check_group_gap(group_gap)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# **In the real model.** The student's matrices are rounded to 3 bits, one scale a row. The rows are tokens; the group are the rare ones, which the passages hold three times at most. The control is the student against itself, which shows nothing. (Tokens of one passage hang together, so the true interval is wider.)

# %% atol=0.03
rounded = copy.deepcopy(student)
for weight in rounded.parameters():
    if weight.ndim == 2:
        scale = weight.data.abs().amax(dim=1, keepdim=True) / 3
        weight.data = (weight.data / scale).round() * scale
after, before = (token_losses(model)[1].flatten() for model in (rounded, student))
wanted = passages[:, 1:].flatten()
rare = wanted.bincount(minlength=2048)[wanted] <= 3
print(f"right in all: {before.double().mean():.3f}, in 3 bits {after.double().mean():.3f}")
for name, right in (("itself", before), ("3 bits", after)) if passed else ():
    *share, gap, low, high, shown = group_gap(before, right, rare, 1.96)
    told = f"right in {share[0]:.3f} to {share[1]:.3f} of the rare ones"
    print(f"{name}: {told}, gap {gap:+.3f} ({low:+.3f} to {high:+.3f})")
    assert shown == (low > 0 or high < 0) and not (name == "itself" and shown)

# %% [markdown] tags=["solution"]
# **Why.** Ten rows without a change are ten rows, not proof: the added rows leave an interval of some width. A group that had nothing to lose loses little: rare tokens were seldom right before. Look at the share as well as at the gap.

# %% [markdown]
# ## Exercise 2 · Who was in the training set? ★★ (20 minutes)
#
# An attacker knows a row's loss, and says "member" where it is **at or below** a threshold. Write `threshold_attack(members, others, alarms)`, of two tensors of losses and the share of others that may be called members by mistake. It returns two numbers:
#
# - **AUC**: of all pairs of a member and another, the share in which the member's loss is lower; a tie counts one half;
# - **caught**: the largest share of members at or below a threshold at which at most a share `alarms` of the others is. 0 where none can be caught.
#
# **Predict** first: an AUC of 0.52. Can it be that some members are caught without any false alarm? How many at most, if all others of them cannot be told at all?
#
# <details><summary>Hint 1</summary><code>members[:, None] &lt; others</code> compares all pairs.</details>
# <details><summary>Hint 2</summary>Only losses of members need to be tried as thresholds.</details>


# %%
def threshold_attack(members, others, alarms):
    """Return the AUC, and the share of members caught."""
    ### BEGIN SOLUTION
    pairs = members[:, None]
    lower, ties = (pairs < others).double(), (pairs == others).double()
    caught = 0.0
    for threshold in members:
        if (others <= threshold).double().mean() <= alarms:
            caught = max(caught, (members <= threshold).double().mean().item())
    return (lower + ties / 2).mean().item(), caught
    ### END SOLUTION


# %%
passed = checks.check_threshold_attack(threshold_attack)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# **In the real model.** The student learns every second one of the 32 passages by heart; the attack must tell them from the other 16. The control is the student before, which has seen neither. (The first 16 against the last 16 would not do: speeches differ, and some are easier for any model. And 16 against 16 move by a tenth by luck alone.)

# %% rtol=0.2
learned = copy.deepcopy(student)
halves = [{"input_ids": rows, "labels": rows} for rows in passages[::2].split(8)]
train(learned, lambda epoch, seed: halves, Recipe(24, 3e-3, warmup_steps=3, seed=0), progress=False)
losses = {"before": student, "learned": learned.eval()}
losses = {name: token_losses(model)[0].mean(1).double() for name, model in losses.items()}
for name, found in losses.items():
    print(f"{name:8} loss of members {found[::2].mean():.2f}, of others {found[1::2].mean():.2f}")
for name, found in losses.items() if passed else ():
    auc, caught = threshold_attack(found[::2], found[1::2], 0.125)
    print(f"{name:8} AUC {auc:.2f}")
    assert auc > 0.8 if name == "learned" else abs(auc - 0.5) < 0.2

# %% [markdown] tags=["solution"]
# **Why.** One in 25: those have a lower loss than all others, and the rest wins half of its pairs, 0.04 · 1 + 0.96 · 0.5 = 0.52. An AUC is a mean over all pairs. For the one in 25 it is certain, and that is why the share caught at few false alarms is told beside it.

# %% [markdown]
# ## Exercise 3 · Joules for an answer ★★ (20 minutes)
#
# Write `fair_joules(rounds, idle)`:
#
# - `rounds`: a list. A round is a list of two runs, in the order in which they ran; a run is (name, joules, seconds, answers), and the names are `"small"` and `"large"`. The first round is warm-up and does not count. Among the others, both orders occur, not always equally often;
# - `idle`: the watts of the machine at rest, which are subtracted;
# - returns three numbers: joules **per answer** of small, of large, and small divided by large.
#
# For each model, and for each place in the round (first, second), divide the sum of joules by the sum of answers. The mean of the two places is the model's.
#
# **Predict** first: a machine takes 10 watts with one model and 20 with another, which needs a third of the time. Which model saves energy, if the machine takes nothing at rest? And if it takes 5 watts at rest, which you subtract?
#
# <details><summary>Hint 1</summary><code>pair[place]</code> is the run at a place; look whose it is.</details>
# <details><summary>Hint 2</summary>A watt is a joule a second.</details>


# %%
def fair_joules(rounds, idle):
    """Return joules per answer of small and of large, and their ratio."""
    ### BEGIN SOLUTION
    found = {"small": 0.0, "large": 0.0}
    for name in found:
        for place in range(2):
            runs = [pair[place] for pair in rounds[1:] if pair[place][0] == name]
            net = sum(joules - idle * seconds for _, joules, seconds, _ in runs)
            found[name] += net / sum(run[3] for run in runs) / 2
    return found["small"], found["large"], found["small"] / found["large"]
    ### END SOLUTION


# %%
passed = checks.check_fair_joules(fair_joules)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# **In the real model.** Few machines let a course read their meters. So we **assume** 25 watts at work and 5 at rest, and measure seconds. The student reads 8 passages, or the first 16 tokens of each. The control: the same work under both names.


# %%
@torch.no_grad()
def run(name, tokens):
    start = time.perf_counter()
    for _ in range(4):
        student(passages[:8, :tokens])
    seconds = time.perf_counter() - start
    return name, 25 * seconds, seconds, 32


# %% clock=true
print(f"8 passages, four times: {run('small', 64)[2]:.2f} s")
for title, short in (("control", 64), ("16 tokens", 16)) if passed else ():
    rounds = []
    for turn in range(7):
        pair = [("small", short), ("large", 64)]
        rounds.append([run(*each) for each in (pair if turn % 2 else pair[::-1])])
    small, large, ratio = fair_joules(rounds, 5)
    assert small > 0 and large > 0 and (title == "control" or ratio < 1)
    print(f"{title:9} small {1000 * small:.1f} mJ, large {1000 * large:.1f} mJ, {ratio:.2f} times")

# %% [markdown] tags=["solution"]
# **Why.** 10 watts for three seconds are 30 joules, and 20 for one second are 20: the quick one. With 5 watts subtracted both need 15, and above that the slow one wins. So say which you count: the answer alone, or the machine that has to be on for it. Watts tell how hot a machine gets, and joules per answer what an answer costs.
