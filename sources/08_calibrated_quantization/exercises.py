# %% [markdown]
# # 08 · Calibrated quantization: exercises — a column, a norm, a turn, a leak, a split
#
# Five functions, 80 minutes together: one step of GPTQ, factors that move between a norm and a matrix, a turn that changes nothing, a search for test text among the calibration text, and a product in two parts. Each is followed by one line that checks it: ✓, or ✗ and what your answer seems to believe. Run that line as often as you like. Then comes a cell in which your function works in a real model, beside a control. Nothing here needs more than chapters 03, 04 and 08.
#
# From the command line, `lightcourse check exercises/08_calibrated_quantization.ipynb` tells which checks pass.

# %%
import copy
from functools import partial

import torch

import lightcourse
from lightcourse import calibration, checks, data, layers, metrics, models, quantization, surgery

lightcourse.setup()

# %% [markdown]
# The real model is the student, the smaller one of the tiny language models: 4 layers, 28 matrices. It is judged by its perplexity on three held-out texts (lower is better), and calibrated on 64 windows of other speeches.

# %%
student, tokenizer = models.load_tiny_lm("student"), models.load_tiny_tokenizer()
learn, held_out = (data.speech_tokens(tokenizer, part) for part in ("validation", "test"))
texts, batch = data.excerpts(held_out), next(data.token_batches(learn, 128, 64)(0, 0))


def perplexities(model):
    """Return the perplexity of a model on each of the three texts."""
    return torch.tensor([metrics.perplexity(model, text, window=128) for text in texts])


def told(numbers, digits=1):
    """Return numbers as a line of text."""
    return " ".join(f"{number:.{digits}f}" for number in numbers)


# %% [markdown]
# ## Exercise 1 · One column is settled ★★ (15 minutes)
#
# GPTQ goes through the columns of a matrix from left to right. Each one is rounded, and the columns to its right move, so that together they make up for what that did to the output. Write one step of it, `settle_column(weight, inverse, scale)`:
#
# - `weight`: shape (rows, columns), the columns that are not settled yet;
# - `inverse`: shape (columns, columns), the inverse of $H = \sum x x^\top$ over the inputs of just these columns;
# - `scale`: shape (rows,), the width of a step in each row;
# - returns a new matrix of the same shape. Its **first column is rounded** to the nearest whole multiple of the row's scale, and **all other columns are moved**, in each row, so that the squared error of the output is the least possible.
#
# Nothing is clamped here: a number may be any whole multiple.
#
# Optimal Brain Surgeon of chapter 03 knows how far to move. There, weight $q$ went to 0, so that it changed by $-w_q$, and all weights changed by $-\frac{w_q}{[H^{-1}]_{qq}}\, H^{-1}_{:,q}$. Here a weight changes by something else.
#
# **Predict** first: two inputs are nearly always equal, both weights are 0.4, and the step is 1. What becomes of the two if each is rounded to the nearest? And if your function settles one after the other?
#
# <details><summary>Hint 1</summary>By how much does the first weight of a row change when it is rounded? Put that in the place of $-w_q$.</details>
# <details><summary>Hint 2</summary>The first column is $q = 0$. The other columns take <code>inverse[0, 1:] / inverse[0, 0]</code> of that change. These shares are the same in each row.</details>
# <details><summary>Hint 3</summary><code>torch.outer(changes, shares)</code> has the shape (rows, columns - 1). <code>torch.cat([first[:, None], others], dim=1)</code> joins the columns again.</details>


# %%
def settle_column(weight, inverse, scale):
    """Return a matrix whose first column is rounded, and whose others make up for it."""
    ### BEGIN SOLUTION
    first = (weight[:, 0] / scale).round() * scale
    shares = inverse[0, 1:] / inverse[0, 0]
    others = weight[:, 1:] + torch.outer(first - weight[:, 0], shares)
    return torch.cat([first[:, None], others], dim=1)
    ### END SOLUTION


# %%
passed = checks.check_settle_column(settle_column)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# **In the real model.** Your function goes through all columns of all 28 matrices. Once a column is settled, its input is left out: `inverse` becomes the inverse of $H$ without that row and column. (The chapter inverted `H[q:, q:]` anew. The line `gone`, one step of elimination, finds the same numbers faster.) A little is added to the diagonal of $H$ first (the damping of chapter 03), so that it has an inverse.


# %%
def column_by_column(weight, hessian, scale):
    """Settle all columns by your function, from left to right."""
    damping = 0.01 * hessian.diagonal().mean() * torch.eye(len(hessian))
    new, inverse = weight.double(), (hessian + damping).double().inverse()
    for j in range(weight.shape[1]):
        new[:, j:] = settle_column(new[:, j:], inverse, scale)
        gone = torch.outer(inverse[1:, 0], inverse[0, 1:]) / inverse[0, 0]
        inverse = inverse[1:, 1:] - gone
    return new.float()


def to_nearest(weight, hessian, scale):
    """Round all columns to the nearest: the control."""
    return quantization.fake_quantize(weight, scale[:, None], torch.tensor(0), 3)


# %% [markdown]
# Both get the same scales, one a row, over the full range of 3 bits. Three measures: how far the weights are off, how far the outputs are off (both as a share of the squares, the mean of all matrices, on the calibration text), and the perplexity on other text.


# %%
hessians = calibration.hessians(student, [batch])


def in_3_bits(rounded):
    """Return a rounded copy of the student, and how far its weights and its outputs are off."""
    model, off = copy.deepcopy(student), []
    for name, layer in layers.linear_layers(model).items():
        old = layer.weight.data
        scale, _ = quantization.choose_qparams_affine(old, 3, symmetric=True, dim=1)
        layer.weight.data = rounded(old, hessians[name], scale[:, 0])
        change, square = layer.weight.data - old, lambda w, h=hessians[name]: (w @ h * w).sum()
        off.append([change.square().sum() / old.square().sum(), square(change) / square(old)])
    return model, torch.tensor(off).mean(0)


# %% atol=0.02 rtol=0.02
found = {}
print("in floats: perplexity", told(perplexities(student)))
for rounded in (to_nearest, column_by_column) if passed else (to_nearest,):
    model, off = in_3_bits(rounded)
    found[rounded] = torch.cat([off, perplexities(model)])
    print(f"{rounded.__name__}: weights {off[0]:.1%} off, outputs {off[1]:.1%},", end=" ")
    print("perplexity", told(found[rounded][2:]))
if passed:
    ratios = found[column_by_column] / found[to_nearest]
    assert ratios[0] > 1.2 and ratios[1] < 0.8 and (ratios[2:] < 0.98).all()
else:
    print("First solve this exercise: then your matrices stand here.")

# %% [markdown] tags=["solution"]
# **Why.** To the nearest, both weights become 0, and the output is wrong by 0.8 of the input. Settled one after the other, the first becomes 0, the second takes over its 0.4 and is 0.8, and then it becomes 1: the output is wrong by 0.2 only. The second weight is farther from where it was, 0.6 instead of 0.4. The real model shows the same: the weights of GPTQ must be *farther* from the old ones, and its outputs are nearer.
#
# The formula is the surgeon's, with another change in it: removing is rounding to a grid whose only mark is 0. The library clamps as well, since 3 bits hold no more than eight levels; the others make up for what the clamp cut off, too. With the full range that happens seldom, so that its integers are nearly all the same as yours.

# %% tags=["solution"]
inverse = (torch.ones(2, 2) + 0.001 * torch.eye(2)).inverse()
pair = settle_column(torch.tensor([[0.4, 0.4]]), inverse, torch.ones(1))
print("after the first step:", told(pair[0]))
layer, name = student.model.layers[1].mlp.down_proj, "model.layers.1.mlp.down_proj"
q, scale, _ = quantization.gptq(
    layer.weight, hessians[name], 3, choose_qparams=quantization.choose_qparams_affine
)
yours = column_by_column(layer.weight.data, hessians[name], scale[:, 0]) / scale
same = (yours.round() == q).float().mean()
print(f"the same integers: more than 99 %, {bool(same > 0.99)}")

# %% [markdown]
# ## Exercise 2 · A norm takes the outliers back ★★ (15 minutes)
#
# With 8-bit activations each token has one scale, and one loud channel makes it coarse for all others. **SmoothQuant** divides channel $j$ of the activations by a factor $s_j$, and multiplies the weights that read it by the same. The division costs nothing where a norm makes the activations: it goes into the norm's own weight. Write `smoothed(norm_weight, weight, largest, alpha)`:
#
# - `norm_weight`: shape (columns,): the norm multiplies its channel $j$ by `norm_weight[j]`, last of all;
# - `weight`: shape (rows, columns): the matrix that reads the norm's output $x$;
# - `largest`: shape (columns,): the largest $|x_j|$ that came out of the norm on a text;
# - `alpha`: a number from 0 to 1, how much of the difficulty moves into the weights;
# - returns the new norm's weight and the new matrix, for the factors
#
# $$s_j = \frac{\text{largest}_j^{\,\alpha}}{\big(\max_i |w_{ij}|\big)^{1-\alpha}}$$
#
# No channel is 0 on the whole text, and no column of the matrix is all zeros.
#
# **Predict** first: a channel reaches 100, and the largest weight of its column is 1. What will the two be after smoothing with an alpha of 0.5? And with 1?
#
# <details><summary>Hint 1</summary>A matrix is stored as (outputs, inputs). The largest size of each input's weights: over which dimension?</details>
# <details><summary>Hint 2</summary><code>amax(0)</code> leaves one number for each column. And it is sizes that count: <code>abs</code> before.</details>
# <details><summary>Hint 3</summary>A vector of shape (columns,) multiplies each row of a matrix of shape (rows, columns) entry by entry: so it scales the columns.</details>


# %%
def smoothed(norm_weight, weight, largest, alpha):
    """Return a norm's weight and its reader's matrix, with factors moved from one to the other."""
    ### BEGIN SOLUTION
    factors = largest**alpha / weight.abs().amax(0) ** (1 - alpha)
    return norm_weight / factors, weight * factors
    ### END SOLUTION


# %%
passed = checks.check_smoothed(smoothed)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# **In the real model.** Large language models have channels that are far louder than the others. The student has none, so **synthetic** ones are made by hand: behind each norm, channels 3 and 97 are made 100 times as large, and the columns that read them 100 times as small. The answers stay, and 8-bit activations suffer.

# %%
loud = copy.deepcopy(student)
report = quantization.synthetic_outliers_(loud, (3, 97), 100)
readers = surgery.norm_readers(loud)  # from a norm's name to those of the layers behind it
first = {names[0]: loud.get_submodule(names[0]) for names in readers.values()}
largest = calibration.observe_inputs(loud, [batch], first, lambda state, x: x.abs().amax(0))

# %% [markdown]
# All matrices behind a norm read the same channels, so your function gets them as one, one below the other. Then weights and activations of all matrices become 8-bit integers. The control is the same model, not smoothed.


# %%
def smooth(model, alpha):
    """Return a copy of a model, smoothed by your function norm by norm."""
    model = copy.deepcopy(model)
    for name, names in readers.items():
        norm, behind = model.get_submodule(name), [model.get_submodule(each) for each in names]
        weight = torch.cat([layer.weight.data for layer in behind])
        norm.weight.data, weight = smoothed(norm.weight.data, weight, largest[names[0]], alpha)
        for layer, part in zip(behind, weight.chunk(len(behind)), strict=True):
            layer.weight.data = part.clone()
    return model


# %%
def in_8_bits(model):
    """Return a copy whose weights and activations are 8-bit integers."""
    model = copy.deepcopy(model)
    quantization.quantize_(model, 8, activations=8)
    return model


# %% [markdown]
# For each model, the perplexity in floats and in 8 bits:

# %% rtol=0.02
made = {"as trained": student, "with synthetic outliers": loud}
if passed:
    made["the same, smoothed by you"] = smooth(loud, 0.5)
    answers = [model(texts[0][None, :128]).logits for model in made.values()]
    assert all(torch.allclose(answer, answers[0], atol=1e-3) for answer in answers)
in_bits = {name: perplexities(in_8_bits(model)) for name, model in made.items()}
for name, model in made.items():
    print(f"{name}: {told(perplexities(model))}, in 8 bits {told(in_bits[name])}")
if passed:
    assert (in_bits["the same, smoothed by you"] < 0.95 * in_bits["with synthetic outliers"]).all()
else:
    print("First solve this exercise: then the smoothed model stands here.")

# %% [markdown] tags=["solution"]
# **Why.** With an alpha of 0.5 both become 10: the channel is divided by $s = 100^{0.5} / 1^{0.5} = 10$, and the weights are multiplied by it. With 1, the channel becomes 1 and the column 100: all of the difficulty has moved, and now a row of *weights* has an outlier. $x / s$ times $w \cdot s$ is $x \cdot w$, so nothing changes in floats. In integers it does, since weights and activations do not share their scales: a row of weights has one, and a token has another. What makes a token's scale coarse now makes that of the rows a little coarser.
#
# What the experiment shows is how much a token's scale matters. It does not show which alpha is good: the synthetic outliers came with columns as small as the channels were large, so that even an alpha of 0, which looks at the weights alone, undoes them. Real outliers have no such columns.

# %% rtol=0.02 tags=["solution"]
for alpha in (0, 0.5, 1):
    norm, weight = smoothed(torch.ones(1), torch.ones(1, 1), torch.tensor([100.0]), alpha)
    print(f"alpha {alpha}: channel {100 * norm.item():.0f}, weight {weight.item():.0f};", end=" ")
    print("synthetic outliers in 8 bits", told(perplexities(in_8_bits(smooth(loud, alpha)))))

# %% [markdown]
# ## Exercise 3 · A turn that changes nothing ★★ (15 minutes)
#
# Another way to get rid of a loud channel is to mix all channels. A matrix, the **writer**, makes $h = \text{writer}\, x$; another one, the **reader**, makes $\text{reader}\, h$; between them nothing happens but sums over tokens. So $h$ may be turned by a rotation, if the reader turns it back. Write `turned(writer, reader, rotation)`:
#
# - `writer`: shape (width, inputs); `reader`: shape (outputs, width);
# - `rotation`: shape (width, width), orthogonal: `rotation.T @ rotation` is the identity. It is *not* symmetric;
# - returns the new writer and the new reader. Between them stands `rotation.T @ h` now, and what the reader makes of it is the same as before.
#
# (So the library has it, too: there a hidden state is a row, and becomes `h @ rotation`.)
#
# **Predict** first: $h$ is 8, 0, 0, 0, and the rotation is a Hadamard matrix of 4, whose entries are all 1/2 or −1/2. What are the sizes of the four turned numbers? What if the rotation is a permutation?
#
# <details><summary>Hint 1</summary>The new writer makes <code>rotation.T @ (writer @ x)</code> for each x. In a product of three matrices the brackets may be moved.</details>
# <details><summary>Hint 2</summary>The reader is given <code>rotation.T @ h</code>, and wants h. What undoes <code>rotation.T</code>?</details>
# <details><summary>Hint 3</summary>The new reader first turns back and then reads. What is done first stands on the right.</details>


# %%
def turned(writer, reader, rotation):
    """Return a writer and a reader that do the same, with what is between them turned."""
    ### BEGIN SOLUTION
    return rotation.T @ writer, reader @ rotation
    ### END SOLUTION


# %%
passed = checks.check_turned(turned)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# **In the real model.** Attention adds up the *values* of tokens, with the same weight for all 32 channels of a head; so each head's values can be turned, and its columns of the output matrix turn back. Again a **synthetic** outlier: channel 7 of each head is made 100 times as large in the values, and as small behind. The measure is how far the largest channel stands out from a token's root mean square, the mean over all tokens and layers.

# %%
uneven = copy.deepcopy(student)
for layer in uneven.model.layers:
    layer.self_attn.v_proj.weight.data[7::32] *= 100
    layer.self_attn.o_proj.weight.data[:, 7::32] /= 100


def stands_out(model):
    """Return the largest channel over the root mean square in what the output matrices read."""
    outputs = {name: m for name, m in model.named_modules() if name.endswith("o_proj")}
    seen = calibration.observe_inputs(model, [batch], outputs, lambda state, x: x)
    ratios = [x.abs().amax(1) / x.square().mean(1).sqrt() for x in seen.values()]
    return torch.stack(ratios).mean().item()


# %% [markdown]
# Your function turns head by head: head $k$ makes channels $32 k$ to $32 k + 31$ of the values, and attention mixes tokens, not channels. The control is a permutation: orthogonal as well, but it mixes nothing.


# %%
def head_by_head(model, rotation):
    """Return a copy of a model in which your function has turned the values of each head."""
    model = copy.deepcopy(model)
    for layer in model.model.layers:
        values, output = layer.self_attn.v_proj.weight.data, layer.self_attn.o_proj.weight.data
        for start in range(0, 128, 32):
            head = slice(start, start + 32)
            pair = values[head].double(), output[:, head].double()
            values[head], output[:, head] = turned(*pair, rotation)
    return model


order = torch.randperm(32, generator=torch.Generator().manual_seed(0))
rotations = {"permutation": torch.eye(32).double()[order]}
rotations["Hadamard"] = quantization.random_rotation(32, seed=0)  # with random signs

# %% rtol=0.03
made = {"as trained": student, "with synthetic outliers": uneven}
for name, rotation in rotations.items() if passed else ():
    made[f"the same, turned by a {name}"] = head_by_head(uneven, rotation)
in_bits, ratios = {}, {}
for name, model in made.items():
    ratios[name], in_bits[name] = stands_out(model), perplexities(in_8_bits(model))
    answers = [m(texts[0][None, :128]).logits for m in (student, model)]
    assert torch.allclose(*answers, atol=1e-2)
    print(f"{name}: stands out by {ratios[name]:.1f}, in 8 bits {told(in_bits[name])}")
if passed:
    _, permuted, mixed = list(in_bits.values())[1:]
    assert (mixed < permuted - 0.2).all() and 3 * min(ratios.values()) < max(ratios.values())
else:
    print("First solve this exercise: then the turned models stand here.")

# %% [markdown] tags=["solution"]
# **Why.** All four sizes become 4: the length of the vector stays, 8, and the matrix shares it out evenly. A permutation moves the 8 to another place, and leaves it as large as it was. Both change no answer, since `reader @ rotation @ rotation.T @ writer` is `reader @ writer`, for any orthogonal matrix. In integers only one of them helps: so it is not the turning, it is the mixing.
#
# The mixed channels are nearly as even as they can be, and yet the perplexity is not quite what it was. What is left comes from the weights: a share of the loud channel is in all rows of a head's values now, and makes the scales of all of them coarse. As the student was trained, without an outlier, there is nothing to win:

# %% atol=0.05 tags=["solution"]
turned_8 = turned(
    torch.tensor([[8.0], [0], [0], [0]]), torch.eye(4), quantization.hadamard(4).float()
)
print("8, 0, 0, 0 becomes", told(turned_8[0].flatten()))
for name, model in {"as trained": student, "turned": head_by_head(student, rotation)}.items():
    print(f"{name}: stands out by {stands_out(model):.1f}, in 8 bits", end=" ")
    print(told(perplexities(in_8_bits(model))))

# %% [markdown]
# ## Exercise 4 · Test text among the calibration text ★★ (15 minutes)
#
# GPTQ learns from the calibration text which errors do not matter. If the text that judges is among it, the judgement is worth nothing: that is a **leak**. Write `leaked(windows, test, run)`, which looks for one:
#
# - `windows`: whole numbers of shape (count, length), the token ids of the calibration text;
# - `test`: shape (n,), the token ids of the test text;
# - `run`: how many tokens in a row must be the same, not more than length or n;
# - returns a mask of bool, shape (count,): True for each window that somewhere holds `run` tokens **in a row** that also stand, in the same order and in a row, somewhere in the test text.
#
# **Predict** first: presidents' speeches share turns of phrase. How long is the longest run that you expect two different speeches to have in common: about 4 tokens, 8, or 16?
#
# <details><summary>Hint 1</summary><code>test.unfold(0, run, 1)</code> has a row for each place where a run may start: shape (n - run + 1, run). <code>windows.unfold(1, run, 1)</code> has the shape (count, length - run + 1, run).</details>
# <details><summary>Hint 2</summary>A set knows at once whether it holds something. Lists cannot be in a set; tuples can.</details>
# <details><summary>Hint 3</summary>Put the runs of the test text in a set. For each window, ask <code>any</code> whether one of its runs is there.</details>


# %%
def leaked(windows, test, run):
    """Return for each window whether it shares so many tokens in a row with the test text."""
    ### BEGIN SOLUTION
    seen = {tuple(piece) for piece in test.unfold(0, run, 1).tolist()}
    pieces = windows.unfold(1, run, 1).tolist()
    return torch.tensor([any(tuple(piece) in seen for piece in window) for window in pieces])
    ### END SOLUTION


# %%
passed = checks.check_leaked(leaked)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# **In the real model.** GPTQ rounds the student to 2 bits. The control is calibrated on 16 clean windows, of 64 tokens each. Then these are mixed with 16 pieces of a test text, and your function tells them apart, by runs of 24 tokens. GPTQ is calibrated on the 16 that it finds. This is done for each of the three texts. The perplexities are divided by the control's: a number below 1 says that the leak made the student look better.

# %%
clean, length = batch["input_ids"][:16, :64], 16 * 64
order = torch.randperm(32, generator=torch.Generator().manual_seed(0))


def calibrated(windows):
    """Return the perplexities of the student in 2 bits, calibrated on some windows."""
    model = copy.deepcopy(student)
    quantization.gptq_(model, [{"input_ids": windows}], 2)
    return perplexities(model)


# %% rtol=0.03
fair = calibrated(clean)
print("calibrated on clean windows: perplexity", told(fair))
for number, text in enumerate(texts if passed else []):
    windows = torch.cat([clean, text[500 : 500 + length].view(16, 64)])[order]
    found = torch.as_tensor(leaked(windows, text, 24))
    assert torch.equal(found, order >= 16)
    ratios = calibrated(windows[found]) / fair
    print(f"{found.sum()} leaked from text {number + 1}: times", told(ratios, 2))
    own, other = ratios.sort().values[:2]
    assert own == ratios[number] < other - 0.02 and own < 0.95
print("" if passed else "First solve this exercise: then the leaks stand here.", end="")

# %% [markdown] tags=["solution"]
# **Why.** A leak makes a method look better than it is, here by about a tenth, and only on the text that leaked. On the other two texts hardly anything was won, or something was lost. They tell that it is a leak: windows that were simply better would have helped there, too.
#
# How long must a run be? Speeches share turns of phrase. None of the validation speeches is a test speech, and yet a run of 16 tokens occurs in both: a president's form of address. So 16 would raise a false alarm, and the cell above asks for 24. The first 64 windows of 128 tokens, against all three texts:

# %% tags=["solution"]
windows, seen = learn[: 64 * 128].view(64, 128), torch.cat(texts)
for run in (4, 8, 16, 24):
    print(f"{run} tokens in a row: {leaked(windows, seen, run).sum()} of 64 windows")
print("such as", repr(tokenizer.decode(windows[0, :16])))

# %% [markdown]
# ## Exercise 5 · The outliers stay in floats ★★★ (20 minutes)
#
# **LLM.int8** moves nothing. It takes the loud channels out, multiplies them in floats, and all others in 8-bit integers. As in the paper, and unlike the chapter's `split_outliers_`, your function looks for them anew in the inputs that it is given. Write `mixed_product(x, weight, threshold)`:
#
# - `x`: shape (tokens, inputs); `weight`: shape (outputs, inputs);
# - an input channel in which any token is **greater in size than the threshold** is an outlier: its column of `x` and its column of `weight` are multiplied in floats. At least one channel is no outlier;
# - of all other channels, each row of `x` and each row of `weight` is rounded to integers, with a scale of its own: the largest size sits on 127. A row of nothing but zeros has the scale 1. The outliers have no part in these scales;
# - returns (tokens, outputs), floats: the product of the integers, scaled back, plus that of the outliers. It is nearly `x @ weight.T`.
#
# **Predict** first: a token's inputs are 0.5, −0.3 and 60. In steps of its scale, what do the first two become if all three share it? And if 60 is taken out?
#
# <details><summary>Hint 1</summary>Which channels are outliers is one mask of bool, of shape (inputs,), for all tokens. It chooses columns: <code>x[:, mask]</code>.</details>
# <details><summary>Hint 2</summary>A product of matrices is a sum over the inputs. So it may be taken in two parts, and the parts added.</details>
# <details><summary>Hint 3</summary>The integers' product has the shape (tokens, outputs). The scales of x, shape (tokens, 1), belong to its rows, those of the weight, shape (outputs, 1), to its columns.</details>


# %%
def mixed_product(x, weight, threshold):
    """Return x @ weight.T, the outliers' channels in floats and all others in 8-bit integers."""
    ### BEGIN SOLUTION
    loud = (x.abs() > threshold).any(dim=0)
    integers, scales = [], []
    for part in (x[:, ~loud], weight[:, ~loud]):
        scale = part.abs().amax(dim=1, keepdim=True) / 127
        scale = torch.where(scale > 0, scale, 1.0)
        integers.append((part / scale).round())
        scales.append(scale)
    rest = integers[0] @ integers[1].T * scales[0] * scales[1].T
    return rest + x[:, loud] @ weight[:, loud].T
    ### END SOLUTION


# %%
passed = checks.check_mixed_product(mixed_product)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# **In the real model.** All 28 matrices of the student with **synthetic** outliers (the one of exercise 2) multiply by your function. The control has a threshold of infinity: nothing is split off. The same is done for the student as trained, which has no such outliers.


# %%
def split_by_you(weight, threshold, counts, x):
    """Multiply by your function; note which share of the channels stays in floats."""
    rows = x.flatten(0, -2)
    counts.append((rows.abs() > threshold).any(0).float().mean())
    return mixed_product(rows, weight, threshold).view(*x.shape[:-1], len(weight))


# %%
def with_your_product(model, threshold, counts):
    """Return a copy of a model whose matrices multiply by your function."""
    model = copy.deepcopy(model)
    for layer in layers.linear_layers(model).values():
        layer.forward = partial(split_by_you, layer.weight, threshold, counts)
    return model


# %% [markdown]
# Three thresholds, and which share of all channels stays in floats. The first line is the library's, in 8 bits without a split:

# %% rtol=0.02
whole = perplexities(in_8_bits(loud))
print("synthetic outliers, no split:", told(whole))
for name, model in {"synthetic outliers": loud, "as trained": student}.items():
    for threshold in (torch.inf, 40, 6) if passed else ():
        counts = []
        ours = perplexities(with_your_product(model, threshold, counts))
        share = torch.stack(counts).mean()
        print(f"{name}, threshold {threshold}: {share:.1%} in floats, {told(ours)}")
        assert (ours < 0.95 * whole).all() or (model, threshold) == (loud, torch.inf)
print("" if passed else "First solve this exercise: then your products stand here.", end="")

# %% [markdown] tags=["solution"]
# **Why.** The scale with 60 in it is 60 / 127, nearly 0.5: so 0.5 becomes 1 step and −0.3 becomes −1 (from −0.6), wrong by more than half. Without it, the scale is 0.5 / 127, and the two become 127 and −76: next to nothing is lost.
#
# On average one channel of a hundred in floats is enough. A lower threshold takes out more, which costs time and wins nothing: 6, the paper's choice for large models, takes out nearly as many channels of the student as trained, which has no outliers. For the student as trained, the split wins nothing at all. That the outliers are *columns*, the same for all tokens, is what makes the method cheap: a few columns are cut out of both matrices, and what is left is an ordinary product.

# %% tags=["solution"]
x = torch.tensor([[0.5, -0.3, 60.0]])
for name, part in {"all three": x, "without 60": x[:, :2]}.items():
    scale = part.abs().max() / 127
    print(f"{name}: {(part / scale).round().int().tolist()}")
weight = torch.tensor([[1.0, 1, 0], [0, 1, 0.1]])
for threshold in (torch.inf, 6):
    print(f"threshold {threshold}: {told(mixed_product(x, weight, threshold)[0], 2)}")
print(f"in floats:     {told((x @ weight.T)[0], 2)}")

# %% [markdown]
# ## Wrap-up
#
# You let columns make up for what rounding did to their neighbour, moved factors into a norm, turned values and turned them back, found a leak, and kept a few channels in floats. Two of the five change the model before it is rounded, and change no answer in floats; what they do for integers, the controls have told.
