# %% [markdown]
# # 10 · Training on the grid: exercises — a layer both ways, a step, three levels, held zeros, a faulty export
#
# Five exercises, 75 minutes together: a layer on the grid with its gradients, the gradient by which a step is learned, ternary weights and their scale, an optimizer's step that keeps zeros, and a search for the layer that a converter got wrong. Each function is followed by one line that checks it: ✓, or ✗ and what your answer seems to believe. Run that line as often as you like. Then comes a cell in which your function works in a real model, beside a control. Nothing here needs more than chapters 03, 04 and 10.
#
# From the command line, `lightcourse check exercises/10_training_on_the_grid.ipynb` tells which checks pass.

# %%
import copy
import math
from functools import partial

import torch
from torch.nn.utils import parametrize

import lightcourse
from lightcourse import calibration, checks, data, layers, metrics, models, quantization
from lightcourse.training import Recipe, model_loss, train

lightcourse.setup(threads=1)

# %% [markdown]
# The real model is the student, the smaller one of the tiny language models: 4 layers, 28 matrices. It learns from some speeches, and is judged by its perplexity on three texts of others (lower is better).

# %%
student, tokenizer = models.load_tiny_lm("student"), models.load_tiny_tokenizer()
learn, held_out = (data.speech_tokens(tokenizer, split) for split in ("validation", "test"))
texts, lessons = data.excerpts(held_out), data.token_batches(learn, 64, batch_size=8)
first = next(data.token_batches(learn, 64, batch_size=8)(0, 0))


def tell(name, model):
    """Print the perplexity of a model on three texts, and return it."""
    found = torch.tensor([metrics.perplexity(model, text, window=128) for text in texts])
    print(f"{name:44}", *(f"{value:8.1f}" for value in found))
    return found


# %%
def taught(model, rate=5e-4, steps=12):
    """Train a model for a few steps, and return it."""
    recipe = Recipe(steps=steps, learning_rate=rate, warmup_steps=3, seed=0)
    train(model, lessons, recipe, model_loss, progress=False)
    return model.eval()


# %% [markdown]
# ## Exercise 1 · A layer on the grid, both ways ★★ (15 minutes)
#
# Chapter 04 rounded a matrix and passed its gradient straight through. A layer whose inputs are rounded, too, has two gradients, and each of them meets the other side. Write the way forward and the way back by hand, in one function, `on_the_grid(x, weight, grids, bits, upstream)`:
#
# - `x`: shape (tokens, inputs); `weight`: shape (outputs, inputs); both are floats;
# - `grids`: three tensors, (step of x, zero point of x, steps of the weight): two single numbers, and one of shape (outputs, 1). The weight has no zero point;
# - `bits`: of both. The integers reach from $-2^{b-1}$ to $2^{b-1} - 1$. Those of `x` are its nearest whole number of steps, plus the zero point, clamped;
# - `upstream`: the gradient of the loss by the layer's output, shape (tokens, outputs);
# - returns three things: the **output**, (tokens, outputs), which is the product of what is read back of both; the gradient of the loss **by `x`**; and that **by the weight**, each in the shape of its own.
#
# As in chapter 04, a gradient passes as if nothing had been rounded, and is 0 where the rounded integer had to be clamped. All else is differentiated as it is: what was multiplied forward is what the gradient is multiplied with.
#
# **Predict** first: one input, x = 0.6, and one weight, w = 1.4. Both grids have a step of 1, and the zero point is 0. Upstream is 1. What are the output and the two gradients?
#
# <details><summary>Hint 1</summary>Without any grid, the output is <code>x @ weight.T</code>, and the gradients are <code>upstream @ weight</code> and <code>upstream.T @ x</code>. Which of these meet rounded numbers?</details>
# <details><summary>Hint 2</summary>Keep the integers before the clamp and after it. Where they are equal, the gradient passes.</details>
# <details><summary>Hint 3</summary>What is read back of x is its integers minus the zero point, times the step. Neither the step nor the zero point occurs anywhere else in the gradients.</details>


# %%
def on_the_grid(x, weight, grids, bits, upstream):
    """Return a layer's output on the grid, and the gradients by its inputs and its weight."""
    ### BEGIN SOLUTION
    x_step, zero, w_step = grids
    ends = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    x_near, w_near = (x / x_step).round() + zero, (weight / w_step).round()
    x_q, w_q = x_near.clamp(*ends), w_near.clamp(*ends)
    x_back, w_back = (x_q - zero) * x_step, w_q * w_step
    by_x = upstream @ w_back * (x_q == x_near)
    by_weight = upstream.T @ x_back * (w_q == w_near)
    return x_back @ w_back.T, by_x, by_weight
    ### END SOLUTION


# %%
passed = checks.check_on_the_grid(on_the_grid)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# **In the real model.** PyTorch takes your function as an operation with a way forward and a way back. All 28 layers get it, in 4 bits on both sides: the weight's steps are searched for as in chapter 04, and those of the inputs come from what the layers are given on some text.


# %%
class BothWays(torch.autograd.Function):
    """Your function, as PyTorch wants it: forward gives the output, backward two gradients."""

    @staticmethod
    def forward(ctx, x, weight, grids, bits):
        ctx.given = x, weight, grids, bits
        return on_the_grid(*ctx.given, x.new_zeros(len(x), len(weight)))[0]

    @staticmethod
    def backward(ctx, upstream):
        return *on_the_grid(*ctx.given, upstream)[1:], None, None


# %%
ends = calibration.observe_inputs(
    student, [first], layers.linear_layers(student), lambda state, x: torch.stack([-x, x]).amax(1)
)


def grid_of(name, bits):
    """Return the step and the zero point of a layer's inputs."""
    low, high = ends[name].amax(1) * torch.tensor([-1, 1])
    return quantization.choose_qparams_affine_with_min_max(low, high, bits)


# %% [markdown]
# A layer's `forward` is replaced; its weight stays the float matrix that is trained.


# %%
def by_your_function(layer, grids, bits, x):
    y = BothWays.apply(x.flatten(0, -2), layer.weight, grids, bits)
    return y.view(*x.shape[:-1], -1)


def gridded(model, bits=4):
    """Return a copy of a model whose layers multiply by your function."""
    model = copy.deepcopy(model)
    for name, layer in layers.linear_layers(model).items():
        steps = quantization.search_scale(layer.weight.detach(), bits)
        grids = *grid_of(name, bits), steps
        layer.forward = partial(by_your_function, layer, grids, bits)
    return model


# %% [markdown]
# 12 steps on the grid. The control is the same 12 steps in floats, and *then* the grid: does training alone do it?

# %% rtol=0.06
tell("in floats", student)  # with inputs of 4 bits, a last bit before the rounding shows behind it
if passed:
    rounded = tell("4 bits on both sides", gridded(student))
    control = tell("12 steps in floats, then 4 bits", gridded(taught(copy.deepcopy(student))))
    trained = tell("12 steps on your grid", taught(gridded(student)))
    assert (trained < 0.95 * rounded).all() and (trained < 0.95 * control).all()
else:
    print("First solve this exercise: then your layers stand here.")

# %% [markdown] tags=["solution"]
# **Why.** 0.6 is rounded to 1, and 1.4 to 1, so the output is 1. The gradient by x is the weight that x met, 1, and that by the weight is 1, too. In floats they would be 1.4 and 0.6. Only one thing is pretended, that rounding is a straight line. The product is really there, and it is differentiated at the rounded numbers: that is the model that will be shipped, and its neighbours in floats do not matter.
#
# Autograd says the same when it goes through the library's `fake_quantize`, since only the rounding has a gradient of its own there:

# %% tags=["solution"]
x, weight = torch.tensor([[0.6]], requires_grad=True), torch.tensor([[1.4]], requires_grad=True)
one, none = torch.ones(1, 1), torch.tensor(0)
y = quantization.fake_quantize(x, one, none, 4) @ quantization.fake_quantize(weight, one, none, 4)
y.backward(one)
print("autograd:", y.item(), x.grad.item(), weight.grad.item())
yours = on_the_grid(x.detach(), weight.detach(), (one[0, 0], none, one), 4, one)
print("yours:   ", *(part.item() for part in yours))

# %% [markdown]
# ## Exercise 2 · The gradient of a step ★★ (15 minutes)
#
# So far the width of a step was fixed. **LSQ** (Esser et al. 2019, arXiv 1902.08153) trains it like a weight. What is read back of a value $v$ with the step $s$ is $\hat v = s \cdot \text{round}(v / s)$, and its slope in $s$ takes the straight-through estimator once more: `round` is differentiated as a straight line, all else as it is. Three regions come out:
#
# $$\frac{\partial \hat v}{\partial s} = \begin{cases} \text{low} & v / s \le \text{low} \\ \text{round}(v / s) - v / s & \text{between} \\ \text{high} & v / s \ge \text{high} \end{cases}$$
#
# (The paper writes $-Q_N$ and $Q_P$ for low and high.) A step belongs to many values, so the slopes are summed, and the sum would be far larger than any weight's gradient. The paper divides it by $\sqrt{N \, Q_P}$, where $N$ is the number of values that share the step. Write `step_gradient(values, step, ends, upstream)`:
#
# - `values`: floats of shape (rows, columns); `step`: shape (rows, 1), **one for each row**;
# - `ends`: two whole numbers, (low, high), such as (−4, 3) for weights and (0, 15) for inputs that are never negative;
# - `upstream`: the gradient of the loss by what is read back, in the values' shape;
# - returns the gradient of the loss by each row's step, **divided by the root**, of shape (rows, 1).
#
# The regions are told apart by $v / s$ itself, before it is rounded.
#
# **Predict** first: the ends are (−4, 3), and the step is 1. When the step grows a little, where is what is read back of 2.4 moving? Of 2.6? Of 5?
#
# <details><summary>Hint 1</summary>In the middle, the slope is a rounding error: how far the integer lies above the number of steps.</details>
# <details><summary>Hint 2</summary><code>torch.where(condition, number, tensor)</code> puts a number wherever the condition holds.</details>
# <details><summary>Hint 3</summary>The loss depends on the step by each value of the row: upstream times slope, summed over the row. The values that share a step are as many as the columns.</details>


# %%
def step_gradient(values, step, ends, upstream):
    """Return the gradient of the loss by each row's step, as LSQ scales it."""
    ### BEGIN SOLUTION
    least, most = ends
    steps = values / step
    slope = steps.round() - steps
    slope = torch.where(steps <= least, least, slope)
    slope = torch.where(steps >= most, most, slope)
    return (upstream * slope).sum(dim=1, keepdim=True) / math.sqrt(values.shape[1] * most)
    ### END SOLUTION


# %%
passed = checks.check_step_gradient(step_gradient)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# **In the real model.** All 28 matrices get 3 bits, and one step for each row. A step begins where the largest weight just fits, which is far too wide.


# %%
class Learned(torch.autograd.Function):
    """Rounds on the way forward; on the way back your function tells the step's gradient."""

    @staticmethod
    def forward(ctx, weight, step, ends):
        ctx.given = weight, step, ends
        return (weight / step).round().clamp(*ends) * step

    @staticmethod
    def backward(ctx, upstream):
        weight, step, (low, high) = ctx.given
        inside = (weight / step > low) & (weight / step < high)
        return upstream * inside, step_gradient(*ctx.given, upstream), None


# %%
class Stepped(torch.nn.Module):
    """Rounds a layer's weight to 3 bits, with a step of its own for each row."""

    def __init__(self, step):
        super().__init__()
        self.step = torch.nn.Parameter(step)

    def forward(self, weight):
        return Learned.apply(weight, self.step, (-4, 3))


# %% [markdown]
# How wide a step is at first, `choose` tells.


# %%
def with_steps(choose):
    """Return a copy of the student in 3 bits."""
    model = copy.deepcopy(student)
    for layer in layers.linear_layers(model).values():
        parametrize.register_parametrization(layer, "weight", Stepped(choose(layer.weight.data)))
    return model


def just_fitting(weight):
    return quantization.choose_qparams_affine(weight, 3, symmetric=True, dim=-1)[0]


# %% [markdown]
# **First, the root.** The paper wants a step and its weights to move about equally fast, as shares of their own size. Here the steps were searched for, and these are the gradients of one batch, each as a share of the size of what it moves: that of the steps, divided by that of the weights. Then the same if there were no root.

# %% rtol=0.02
tell("3 bits, searched for", probed := with_steps(partial(quantization.search_scale, bits=3)))
ratios = []
if passed:
    model_loss(probed, first).backward()
    for layer in layers.linear_layers(probed).values():
        weight, step = layer.parametrizations.weight.original, layer.parametrizations.weight[0].step
        share = [(part.grad.norm() / part.detach().norm()).item() for part in (step, weight)]
        ratios.append([share[0] / share[1], share[0] / share[1] * math.sqrt(weight.shape[1] * 3)])
    root, none = torch.tensor(ratios).median(dim=0).values.tolist()
    print(f"the median of 28 layers: {root:.2f}; without the root {none:.1f}")
    assert 0.3 < root < 3 < none
print("" if passed else "First solve this exercise: then your gradients stand here.", end="")

# %% [markdown]
# **Then, 12 steps of training** in which nothing but the steps may move. The control are the steps where they began; beside both stands what the search found, above, without any training.

# %% rtol=0.02
start = tell("3 bits, the largest just fits", with_steps(just_fitting))
if passed:
    for name, part in (model := with_steps(just_fitting)).named_parameters():
        part.requires_grad_(name.endswith("step"))
    assert (tell("3 bits, learned by your gradient", taught(model, 3e-3)) < start).all()
else:
    print("First solve this exercise: then the learned steps stand here.")

# %% [markdown] tags=["solution"]
# **Why.** 2.4 is read back as 2 steps, and it *is* 2.4 steps. If the step grows, the 2 steps grow with it, but fewer of them fit into 2.4: in sum −0.4, so it moves down. 2.6 is read back as 3 and moves up by 0.4. 5 is clamped, read back as 3 steps, and moves up by 3. So the loss can tell a step to grow for what is clamped, and to shrink for what is rounded coarsely. That trade is what a search over many steps makes too, but for the error of the weights. LSQ makes it for the loss.
#
# 12 steps of training do not reach what a search gives at once. Our steps began at a bad place and crawl from there. A good start and many steps are what the paper has, and with its weights trained as well. What the experiment shows is that the gradient points the right way. It also shows what the root is for. Under SGD, steps without it would move sixteen times as fast as the weights. Adam divides each gradient by its own size, and so by the root as well: there it hardly matters.

# %% tags=["solution"]
values = torch.tensor([[2.4], [2.6], [5.0], [-4.2]])
slopes = step_gradient(values, torch.ones(4, 1), (-4, 3), torch.ones(4, 1)) * math.sqrt(3)
for value, slope in zip(values.flatten().tolist(), slopes.flatten().tolist(), strict=True):
    print(f"{value:.1f}: slope {slope:.1f}")

# %% [markdown]
# ## Exercise 3 · Three levels and a scale ★ (10 minutes)
#
# **Ternary** weights are −1, 0 or 1 times a scale. Two things are to be chosen: which weights become 0, and the scale. BitNet b1.58 (Ma et al. 2024, arXiv 2402.17764) divides by the mean size of a matrix and rounds, so that all up to half of it become 0, and the mean size is the scale, too. Here each row has its own. Ternary Weight Networks (Li et al. 2016, arXiv 1605.04711) ask for the least squared error. Once it is settled which weights are kept, the best scale is the mean size *of those*. Write `ternary_rows(weight, share)`:
#
# - `weight`: shape (rows, columns); `share`: a number above 0;
# - in each row, weights whose size is **greater than** `share` times the row's mean size are kept, as −1 or 1. All others become 0. The mean size is that of all weights of the row;
# - returns two things: the integers, in the weight's shape, and the scales, of shape (rows, 1): in each row the mean size of the weights that are kept. Where none are, the scale is 1.
#
# **Predict** first: a row is 1, −0.6, 0.3, 0.1, and the share is one half. What are the integers and the scale? What is the squared error, and what would it be with the mean size of all as the scale?
#
# <details><summary>Hint 1</summary><code>weight.abs().mean(dim=1, keepdim=True)</code> has the shape (rows, 1), and compares with a whole matrix row by row.</details>
# <details><summary>Hint 2</summary>A mask counts as 1 and 0: its sum tells how many are kept, and sizes times the mask are 0 where nothing is.</details>
# <details><summary>Hint 3</summary><code>weight.sign()</code> is −1, 0 or 1. A row of zeros keeps nothing: <code>torch.where</code> puts a 1 in the place of 0 / 0.</details>


# %%
def ternary_rows(weight, share):
    """Return -1, 0 or 1 for each weight, and the best scale for each row."""
    ### BEGIN SOLUTION
    size = weight.abs()
    kept = size > share * size.mean(dim=1, keepdim=True)
    count = kept.sum(dim=1, keepdim=True)
    scale = (size * kept).sum(dim=1, keepdim=True) / count
    return weight.sign() * kept, torch.where(count > 0, scale, 1.0)
    ### END SOLUTION


# %%
passed = checks.check_ternary_rows(ternary_rows)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# **In the real model.** All 28 matrices become ternary, without any training. First with BitNet's kind of scale, the mean size of all weights of a row, then with yours for the same integers, then with other shares. Beside each: the share of the weights that become 0, and how far the weights are off, as a share of their squares.


# %%
def in_three_levels(share, scaled=lambda weight, scale: scale):
    """Return a ternary copy of the student, the share of zeros, and how far the weights are off."""
    model, found = copy.deepcopy(student), []
    for layer in layers.linear_layers(model).values():
        old = layer.weight.data
        q, scale = ternary_rows(old, share)
        layer.weight.data = q * scaled(old, scale)
        off = (layer.weight.data - old).square().sum() / old.square().sum()
        found.append([(q == 0).float().mean(), off])
    return model, *torch.tensor(found).mean(dim=0).tolist()


# %% rtol=0.02
def mean_size(weight, scale):
    """Return BitNet's scale, in place of yours."""
    return weight.abs().mean(dim=1, keepdim=True)


tell("in floats", student)
ways = {"share 0.5, mean size": (0.5, mean_size), "share 0.5": (0.5,), "share 0.7": (0.7,)}
ways |= {"share 1.5": (1.5,)}
told = {}
for name, way in ways.items() if passed else ():
    model, zeros, off = in_three_levels(*way)
    told[name] = tell(f"{name}: {zeros:.1%} are 0, {off:.1%} off", model)
if passed:
    assert (told["share 0.5"] < 0.9 * told["share 0.5, mean size"]).all()
print("" if passed else "First solve this exercise: then your matrices stand here.", end="")

# %% [markdown] tags=["solution"]
# **Why.** The mean size is 0.5, half of it 0.25: the integers are 1, −1, 1 and 0. The mean size of the three that are kept is 0.633, and the error is 0.257. With 0.5 for a scale it is 0.31. The scale $s$ that is least wrong for given integers is where $\sum_i |w_i| = k s$, over the $k$ that are kept. That is a mean, and what was set to 0 has no part in it.
#
# BitNet's scale is that of all weights, so too small for those that are kept. It does not mind, since it trains the weights with this scale from the beginning. They grow until they fit. For a model that was trained in floats and is only rounded, the scale matters much. A share of 0.7 is the second paper's rule, which it finds about right for normal weights.

# %% tags=["solution"]
row = torch.tensor([[1, -0.6, 0.3, 0.1]])
q, scale = ternary_rows(row, 0.5)
print("integers", q[0].int().tolist(), "scale", round(scale.item(), 3))
for name, each in {"yours": scale, "the mean size": row.abs().mean()}.items():
    print(f"squared error with {name}: {(q * each - row).square().sum():.3f}")

# %% [markdown]
# ## Exercise 4 · A step that keeps zeros ★★ (10 minutes)
#
# A model is pruned in the middle of its training, and training goes on. The optimizer remembers where the pruned weights were going. Write one step of SGD with momentum and weight decay that **holds** the zeros, `held_step(weight, velocity, gradient, mask, settings)`:
#
# - `weight`, `velocity`, `gradient`: floats of shape (rows, columns); `mask`: True where a weight may be other than 0. A weight outside of the mask may still hold a number, and old velocity, when it comes in;
# - `settings`: three numbers, (rate, momentum, decay);
# - PyTorch's SGD does this: `decay` times the weight is added to the gradient; the new velocity is `momentum` times the old one, plus that sum; and the weight moves by `rate` times the new velocity, downhill;
# - returns the new weight and the new velocity. Inside of the mask they are what SGD makes of them. Outside of it both are **exactly 0**.
#
# **Predict** first: a weight has just been pruned: it is 0 and its gradient is set to 0 from now on. Its velocity is 1, the momentum 0.9, the rate 0.1. Where does it go, step by step?
#
# <details><summary>Hint 1</summary>Write the ordinary step first, three lines. Then ask of each of the two results where it must be 0.</details>
# <details><summary>Hint 2</summary>A mask of True and False times a tensor keeps its numbers where the mask is True, and makes the others 0.</details>


# %%
def held_step(weight, velocity, gradient, mask, settings):
    """Return the weight and the velocity after one step, both 0 where the mask is False."""
    ### BEGIN SOLUTION
    rate, momentum, decay = settings
    velocity = (momentum * velocity + gradient + decay * weight) * mask
    return (weight - rate * velocity) * mask, velocity
    ### END SOLUTION


# %%
passed = checks.check_held_step(held_step)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# **In the real model.** Four steps of SGD, then 70 % of each matrix are pruned by magnitude, then eight steps more: by your function, and by an ordinary step that is given gradients which are 0 where the mask is False.


# %%
def gradient_alone(weight, velocity, gradient, mask, settings):
    """An ordinary step, with the gradient held and nothing else: the control."""
    rate, inertia, pull = settings
    speed = inertia * velocity + (gradient * mask + pull * weight)
    return weight - rate * speed, speed


def keep_30_percent(weight):
    sizes = weight.abs()
    return sizes > sizes.flatten().kthvalue(round(0.7 * sizes.numel())).values


# %%
def pruned_on_the_way(step):
    """Train, prune, train on; return the model and the share of the pruned that are still 0."""
    parts = layers.linear_layers(model := copy.deepcopy(student)).values()
    state = [(torch.zeros_like(p.weight), torch.ones_like(p.weight).bool()) for p in parts]
    for number, batch in zip(range(12), lessons(0, 0), strict=False):
        model_loss(model, batch).backward()
        for place, (part, (speed, mask)) in enumerate(zip(parts, state, strict=True)):
            if number == 4:
                part.weight.data *= (mask := keep_30_percent(part.weight.data))
            held = part.weight.data, speed, part.weight.grad, mask, (0.3, 0.9, 1e-3)
            part.weight.data, state[place] = (new := step(*held))[0], (new[1], mask)
        model.zero_grad()
    zeros = [(p.weight[~m] == 0).float().mean() for p, (_, m) in zip(parts, state, strict=True)]
    return model.eval(), torch.stack(zeros).mean().item()


# %% [markdown]
# For both: the share of the pruned weights that are still exactly 0, and the three perplexities.

# %% rtol=0.02
for step in (gradient_alone, held_step) if passed else (gradient_alone,):
    model, share = pruned_on_the_way(step)
    tell(f"{step.__name__}: {share:.1%} still 0", model)
    assert share == (step is held_step)
print("" if passed else "First solve this exercise: then your steps stand here.", end="")

# %% [markdown] tags=["solution"]
# **Why.** It goes to −0.09, −0.171 and so on, to −0.9 in the end: all of that from a velocity that it had before. A gradient of 0 does not stop a weight that is already moving. The weight decay pulls it back later, but to nearly 0, not to 0. And a zero that is nearly 0 is no zero: no format skips it.
#
# Holding the weight alone would keep the zeros as well. The velocity would go on unseen, and let go with the weight if the mask lets it in again, as a gradual schedule or a regrowing method does.

# %% tags=["solution"]
weight, speed, mask = torch.zeros(1, 1), torch.ones(1, 1), torch.tensor([[False]])
path = []
for _ in range(60):
    weight, speed = gradient_alone(weight, speed, torch.ones(1, 1), mask, (0.1, 0.9, 0.0))
    path.append(weight.item())
print("it goes to", *(f"{place:.3f}" for place in path[:3]), "... and", f"{path[-1]:.2f}")

# %% [markdown]
# ## Exercise 5 · Which layer was converted wrongly? ★★★ (25 minutes)
#
# A model that was trained on the grid becomes integers. No layer may answer in another way than it did in training, not even by a last bit. A converter that somebody else wrote gives a model that is *nearly* the same. Which layer is it, and what went wrong there? The surest way to find out is to make each mistake oneself, and to compare.
#
# These things happen:
#
# | `fault` | what the converter does |
# |---|---|
# | `"none"` | the weight divided by its scale, rounded to the nearest integer, a half to the even one, clamped to $-2^{b-1} \dots 2^{b-1} - 1$ |
# | `"cut"` | cuts the fraction off, towards 0, in place of rounding |
# | `"half up"` | rounds a half up, always: 2.5 becomes 3, and −2.5 becomes −2 |
# | `"twice"` | rounds twice, each time to the nearest: first the numbers of steps to sixteenths, then these to integers |
# | `"narrow"` | does not use the lowest integer: it clamps to $-2^{b-1} + 1 \dots 2^{b-1} - 1$ |
# | `"float16"` | makes the right integers, and stores the weight's scale in float16 |
# | `"zero point"` | stores the zero point of the inputs one too high |
#
# **First** write `export(layer, bits, fault)`:
#
# - `layer`: four tensors, as they were in training: (weight, scale, step, zero). The weight are floats of shape (rows, columns), and its scale has the shape (rows, 1). The step and the zero point are those of the inputs, two single numbers;
# - `bits`: of the weight; `fault`: one of the words above;
# - returns four tensors, as the converter stores them: the weight's integers (int8), its scale, the step, the zero point. Scales are float32, also when they were float16 in between.
#
# **Predict** first: 4 bits, and a weight of 2.48 steps. What does `"twice"` make of it, and why is that neither the nearest integer nor cut off?
#
# <details><summary>Hint 1</summary>Most faults change the number of steps before it is rounded, or an end of the clamp. The rest can be the same for all.</details>
# <details><summary>Hint 2</summary>Rounding to sixteenths is rounding a number that is 16 times as large. A half goes up by <code>floor</code> of something.</details>
# <details><summary>Hint 3</summary><code>scale.half().float()</code>, <code>q.to(torch.int8)</code>.</details>


# %%
def export(layer, bits, fault):
    """Return the integers, the scale, the step and the zero point that a faulty converter stores."""
    ### BEGIN SOLUTION
    weight, scale, step, zero = layer
    steps = weight / scale
    steps = steps.trunc() if fault == "cut" else steps
    steps = (steps + 0.5).floor() if fault == "half up" else steps
    steps = (16 * steps).round() / 16 if fault == "twice" else steps
    low = (fault == "narrow") - 2 ** (bits - 1)
    q = steps.round().clamp(low, 2 ** (bits - 1) - 1).to(torch.int8)
    scale = scale.half().float() if fault == "float16" else scale
    return q, scale, step, zero + (fault == "zero point")
    ### END SOLUTION


# %%
passed = checks.check_export(export)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# **Then** write `find_fault(trained, exported, bits, faults)`, with the help of `export`:
#
# - `trained`: a list with four tensors for each layer, as `export` takes them; `exported`: a list with the four tensors that were stored for each layer;
# - `faults`: a list of the words above, `"none"` first. At most one thing happened to each layer;
# - returns two things: the **number of the first layer** (from 0) that is not stored as it should be, **bit for bit**, and the **fault** that explains all four of its tensors, also bit for bit, or `"other"` if none does. If all layers are right, it returns `-1, "none"`.
#
# <details><summary>Hint 1</summary><code>torch.equal(a, b)</code> tells whether all numbers of two tensors are the same.</details>
# <details><summary>Hint 2</summary>For each layer, go through the faults until one of them gives what was stored. If that is "none", go on with the next layer.</details>


# %%
def find_fault(trained, exported, bits, faults):
    """Return the first layer that is not stored as it was trained, and the fault."""
    ### BEGIN SOLUTION
    for place, (layer, stored) in enumerate(zip(trained, exported, strict=True)):
        made = ((fault, export(layer, bits, fault)) for fault in faults)
        fits = [fault for fault, parts in made if all(map(torch.equal, parts, stored))]
        if "none" not in fits:
            return place, (fits + ["other"])[0]
    return -1, "none"
    ### END SOLUTION


# %%
passed = checks.check_find_fault(find_fault)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# **In the real model.** The student's layers, in 4 bits with 8-bit inputs, and seven converted models, each made by a converter that may have a fault in one layer. A converted model reads its integers back and multiplies: with the right integers, these are the very floats of training, and its answers are the same bit for bit.

# %%
names = list(layers.linear_layers(student))
matrices = {name: student.get_submodule(name).weight.data for name in names}
dice = torch.Generator().manual_seed(0)


def learned_scale(weight):
    """Search for a scale, and move it a little, as training would."""
    scale = quantization.search_scale(weight, 4)
    return scale * (1 + 0.01 * torch.randn(scale.shape, generator=dice))


trained = [(w, learned_scale(w), *grid_of(name, 8)) for name, w in matrices.items()]

# %% [markdown]
# The same function makes the model of training and the converted ones: it gives the student other weights, and rounds the inputs of each layer.


# %%


def answering(read_back, grids):
    """Return a copy of the student with other weights, whose layers round their inputs."""
    model = copy.deepcopy(student)
    for name, weight, grid in zip(names, read_back, grids, strict=True):
        layer = model.get_submodule(name)
        layer.weight.data = weight
        layer.register_forward_pre_hook(
            lambda _, x, grid=grid: quantization.fake_quantize(x[0], *grid, 8)
        )
    return model


# %%
def converted(fault):
    """Return what a converter stores that has a fault in some layer."""
    stored = [export(layer, 4, "none") for layer in trained]
    place = torch.randint(len(names), (), generator=dice).item()
    stored[place] = export(trained[place], 4, fault)
    return stored


def told_apart(stored):
    """Tell whether a model's answers are the same, and how often another token is likeliest."""
    model = answering([q * scale for q, scale, *_ in stored], [each[2:] for each in stored])
    with torch.no_grad():
        answers = model(first["input_ids"]).logits
    other = (answers.argmax(-1) != reference.argmax(-1)).float().mean()
    return torch.equal(answers, reference), other, model


# %% [markdown]
# The model of training rounds its weights by the library's `fake_quantize`. For each of the others: its perplexity, how often its likeliest token is another one, whether its answers are the same bit for bit, and what your function says.

# %%
with torch.no_grad():
    fake = [quantization.fake_quantize(w, s, torch.tensor(0), 4) for w, s, *_ in trained]
    on_grid = answering(fake, [layer[2:] for layer in trained])
    reference = on_grid(first["input_ids"]).logits
faults = ["none", "cut", "half up", "twice", "narrow", "float16", "zero point"]
quality = partial(metrics.perplexity, tokens=texts[0], window=128)

# %% atol=0.02 rtol=0.02
print(f"as trained, on the grid: perplexity {quality(on_grid):.1f}")
for letter, fault in zip("ABCDEFG", faults, strict=True) if passed else ():
    same, other, model = told_apart(stored := converted(fault))
    print(f"{letter}: perplexity {quality(model):.1f}, {other:.1%} other tokens,", end=" ")
    place, found = find_fault(trained, stored, 4, faults)
    print("same answers:" if same else "other answers:", found, names[place] if place >= 0 else "")
    assert (place < 0) == same and (same or found == fault)
print("" if passed else "First solve this exercise: then the models stand here.", end="")

# %% [markdown] tags=["solution"]
# **Why.** 2.48 steps are 39.68 sixteenths, so 40, which is 2.5. That is a half now, and goes to the even integer, which happens to be 2. But 3.48 goes to 3.5 and then to 4, though 3 is nearer. Whoever rounds to 8 bits first and to 4 bits then does that to some weights near each half.
#
# By perplexity, all seven look like the model of training. Yet every fault but one changes answers, and most change a token now and then. That is why a conversion is tested bit for bit, layer by layer, and not by its quality.
#
# C has its fault, and shows nothing: hardly any float lies exactly on a half, and none of that layer's weights does. The converter is wrong all the same. Data that nobody chose for it do not find such a fault, and that is why the check of your `export` has weights that lie on halves.

# %% atol=0.02 tags=["solution"]
for steps in (2.48, 3.48):
    layer = torch.tensor([[steps]]), torch.ones(1, 1), torch.tensor(1.0), torch.tensor(0)
    made = [export(layer, 4, fault)[0].item() for fault in ("none", "cut", "twice")]
    print(f"{steps}: nearest {made[0]}, cut {made[1]}, twice {made[2]}")
halves = torch.cat([((w / s) % 1 == 0.5).flatten() for w, s, *_ in trained])
print(f"on a half lie {halves.float().mean():.2%} of the weights")

# %% [markdown]
# ## Wrap-up
#
# You sent gradients back through rounded inputs and weights, told a step where to go, chose three levels and their scale, held zeros against an optimizer's memory, and found a converter's fault by making it yourself. What is pretended in training on the grid is one thing alone, the slope of rounding. All else is exact, and that is why it can be compared bit for bit.
