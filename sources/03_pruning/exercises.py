# %% [markdown]
# # 03 · Pruning: exercises — groups, bytes, inputs, an allotment, a surgeon, a merge
#
# Six small functions, from easy to hard. Each is followed by one line that checks it: ✓, or ✗ and what your answer seems to believe. Run that line as often as you like. Below it your function works in a real model. Nothing here needs more than chapter 03, but for exercise 5, which also needs Lagrange multipliers. Its two lines of code stand in the chapter; the stars are for the derivation, so close the chapter first.
#
# From the command line, `lightcourse check exercises/03_pruning.ipynb` tells which checks pass.

# %%
import copy
import gzip
import tempfile
from functools import partial
from pathlib import Path

import torch

import lightcourse
from lightcourse import checks, data, layers, metrics, models, plots, pruning
from lightcourse.training import Recipe, train

lightcourse.setup()

# %% [markdown]
# The real model is the tiny student of the chapter. It is judged by its perplexity on a held-out text; 64 windows of other text serve for calibration.


# %%
dense, tokenizer = models.load_tiny_lm("student"), models.load_tiny_tokenizer()
learn, held_out = (data.speech_tokens(tokenizer, split) for split in ("validation", "test"))
text, sample = data.excerpts(held_out, 1)[0], next(iter(data.token_batches(learn, 128, 64)(0, 0)))
magnitude = pruning.magnitude_scores(dense)


# %% rtol=0.01
def perplexity(model):
    """Return the perplexity of a model on the held-out text."""
    return metrics.perplexity(model, text, window=128)


def pruned(masks):
    """Return a copy of the student without the weights that the masks remove."""
    pruning.prune_(model := copy.deepcopy(dense), masks)
    return model


print(f"perplexity with all weights: {perplexity(dense):.1f}")

# %% [markdown]
# ## Exercise 1 · n of m ★ (10 minutes)
#
# Some GPUs can skip zeros if every four neighbours hold exactly two of them. Write `keep_n_of_m(weight, n, m)`:
#
# - `weight`: a tensor of shape (outputs, inputs); `inputs` is a multiple of `m`;
# - returns a tensor of bool of the same shape, **True where a weight is kept**: in each row, of every `m` neighbours, the `n` that are farthest from zero.
#
# **Predict** first: a row of 8 weights is `[9, 8, 7, 6, 1, 1, 1, 0]`. How much of the sum of all sizes survives 2 of 4? And how much if simply the best four of the row are kept?
#
# <details><summary>Hint 1</summary>Rearrange the matrix so that each group of m is a row of its own: <code>reshape(-1, m)</code>.</details>
# <details><summary>Hint 2</summary><code>topk(n, dim=-1).indices</code> names the places of the n largest in each row.</details>
# <details><summary>Hint 3</summary>Start with a mask of False, and use <code>scatter</code> to write True at those places. Then give it its old shape back.</details>


# %%
def keep_n_of_m(weight, n, m):
    """Return True for the n largest of every m neighbours in a row."""
    ### BEGIN SOLUTION
    groups = weight.abs().reshape(-1, m)
    largest = groups.topk(n, dim=-1).indices
    mask = torch.zeros(groups.shape, dtype=torch.bool)
    return mask.scatter(1, largest, True).view(weight.shape)
    ### END SOLUTION


# %%
passed = checks.check_keep_n_of_m(keep_n_of_m)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# 2 of 4 in the real model, by your mask. The control removes as many weights, but chooses them freely within each row.

# %% rtol=0.02
control = perplexity(pruned(pruning.row_mask(magnitude, 0.5)))
print(f"half of the weights removed: freely in each row {control:.1f}", end=", ")
if passed:
    masks = {name: keep_n_of_m(score, 2, 4) for name, score in magnitude.items()}
    print(f"2 of 4 by your mask {perplexity(pruned(masks)):.1f}")
else:
    print("first solve exercise 1")

# %% [markdown] tags=["solution"]
# **Why.** Row by row, a matrix lies in memory as one long sequence, so `reshape(-1, m)` cuts it into groups of m neighbours, and no group crosses the end of a row, because m divides the inputs. The prediction: 2 of 4 keeps 9 + 8 of the first four and 1 + 1 of the second, 19 of 33; the best four of the row are 30 of 33. That is the price of a pattern that hardware can read: where one group holds all that matters, two of its weights must go nevertheless.

# %% tags=["solution"]
row = torch.tensor([[9.0, 8, 7, 6, 1, 1, 1, 0]])
print("2 of 4 keeps", int(row[keep_n_of_m(row, 2, 4)].sum()), "of", int(row.sum()))
print("4 of 8 keeps", int(row[keep_n_of_m(row, 4, 8)].sum()))

# %% [markdown]
# ## Exercise 2 · Predict three curves ★★ (15 minutes)
#
# A matrix of float32 has `rows` × `columns` weights, of which `nonzeros` are not zero. Before you write any code, **draw** how the bytes fall as the share of zeros goes from 0 to 100 %, one curve for each of these forms, and mark where they cross. Chapter 03 gave two of the three crossings. Where do CSR and the bit mask cross?
#
# 1. **dense**: every weight, 4 bytes each;
# 2. **CSR**: each value that is not zero (4 bytes) with the number of its column (4 bytes); and for each row the place where it starts, with one more number for the end of the last row (4 bytes each);
# 3. **bit mask**: one bit for each weight, and each value that is not zero (4 bytes).
#
# Then write `sparse_bytes(rows, columns, nonzeros)`, which returns the three numbers of bytes in this order. `rows * columns` is a multiple of 8.
#
# <details><summary>Hint 1</summary>Which of the three depends on <code>nonzeros</code> at all?</details>
# <details><summary>Hint 2</summary>CSR: how many bytes does one value that is not zero cost, with its column?</details>
# <details><summary>Hint 3</summary>For a crossing set two of them equal, forget the row starts, and solve for the share of zeros.</details>


# %%
def sparse_bytes(rows, columns, nonzeros):
    """Return the bytes of a matrix as (dense, CSR, bit mask)."""
    ### BEGIN SOLUTION
    dense = 4 * rows * columns
    csr = (4 + 4) * nonzeros + 4 * (rows + 1)
    bit_mask = rows * columns // 8 + 4 * nonzeros
    return dense, csr, bit_mask
    ### END SOLUTION


# %%
passed = checks.check_sparse_bytes(sparse_bytes)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# The real model with 70 % zeros, written to a file by `save_pruned`, which uses the bit mask for the pruned matrices. Your function must foretell the file, up to its header of a few thousand bytes.

# %%
model = pruned(pruning.layer_mask(magnitude, 0.7))
with tempfile.TemporaryDirectory() as folder:
    stored = pruning.save_pruned(model, Path(folder, "pruned.safetensors")).stat().st_size
print(f"dense {metrics.size_in_bytes(model):,} bytes, file {stored:,} bytes", end="; ")
if passed:
    matrices = [layer.weight.detach() for layer in layers.linear_layers(model).values()]
    others = metrics.size_in_bytes(model) - sum(matrix.nbytes for matrix in matrices)
    foretold = others + sum(sparse_bytes(*m.shape, int((m != 0).sum()))[2] for m in matrices)
    print(f"by your function {foretold:,} bytes")
    assert 0 < stored - foretold < 10_000
else:
    print("first solve exercise 2")

# %% [markdown]
# **Predict:** a tutorial zips the pruned file with gzip, compares it with the dense file *as it is*, and calls all of the difference the gain of pruning. Our weights came as 16-bit numbers and are written as 32-bit ones. To which share of its bytes does gzip take the *dense* matrices?

# %% atol=0.02
for title, found in {"dense": dense, "pruned": model}.items():
    rows = [layer.weight.detach() for layer in layers.linear_layers(found).values()]
    raw = b"".join(matrix.numpy().tobytes() for matrix in rows)
    print(f"{title}: gzip takes {len(raw):,} bytes to {len(gzip.compress(raw)) / len(raw):.0%}")

# %% [markdown]
# <details><summary>Why gzip misleads here</summary>
#
# Numbers that came in 16 bits have zeros at the end of their 32, and gzip takes those out of the dense file too, without any pruning. So the control is the dense file, *zipped as well*; only what the pruned one is smaller than that was saved by pruning. And the saving lasts only as long as the file is closed: who loads it has a dense matrix in memory again.
#
# </details>

# %% [markdown] tags=["solution"]
# **Why.** Dense is a flat line: it does not look at the values. The other two are straight lines that fall, CSR twice as steeply, because each value that goes takes its column number with it. With N weights and z of them left, CSR crosses dense where 8 z = 4 N, at 50 % zeros. The mask crosses dense where N / 8 + 4 z = 4 N: at 1/32, about 3 % zeros. And CSR crosses the mask where 8 z = N / 8 + 4 z: z = N / 32, so only above 97 % zeros is it better to name the few that are left than to keep a bit for everybody.

# %% tags=["solution"]
lines = {"dense": {}, "CSR": {}, "bit mask": {}}
for s in (0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.995):
    answer = sparse_bytes(1536, 384, round((1 - s) * 1536 * 384))
    for line, size in zip(lines.values(), answer, strict=True):
        line[s] = [size / 1e6]
ax = plots.sparsity_curves(lines, "megabytes")

# %% [markdown] tags=["solution"]
# *Figure: the bit mask is the smallest form from 3 % zeros to 97 %; CSR pays against dense only above 50 %.*
#
# <details><summary>The figure in words</summary>
#
# Megabytes of a 1,536 × 384 matrix over the share of zeros; the axis of bytes is logarithmic, so straight lines look bent. Dense is flat at 2.4. CSR starts at twice that and crosses dense at 50 %. The bit mask starts just above dense, lies below both for most of the way, and is crossed by CSR near 97 %.
#
# </details>

# %% [markdown]
# ## Exercise 3 · How loud is the input? ★★ (10 minutes)
#
# Write Wanda's score yourself, `wanda(weight, inputs)`:
#
# - `weight`: shape (outputs, inputs);
# - `inputs`: what the layer was given, shape (tokens, inputs), one row for each token;
# - returns one score for each weight: $S_{ij} = |W_{ij}| \cdot \lVert x_j \rVert_2$.
#
# **Predict** first: all values of *one* input are multiplied by 10. How do the scores change, and can the mask change *within a row*? And if all inputs are multiplied by 10?
#
# <details><summary>Hint 1</summary>The norm belongs to an input, not to a token: how many norms are there?</details>
# <details><summary>Hint 2</summary>L2 norm: square, add up over the tokens, take the root. <code>inputs.norm(dim=…)</code> does it in one call.</details>
# <details><summary>Hint 3</summary>A tensor of shape (inputs,) multiplies each row of <code>weight</code> by itself: torch broadcasts along the last dimension.</details>


# %%
def wanda(weight, inputs):
    """Return |weight| times the norm of each input."""
    ### BEGIN SOLUTION
    norms = inputs.square().sum(dim=0).sqrt()
    return weight.abs() * norms
    ### END SOLUTION


# %%
passed = checks.check_wanda(wanda)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# In the real model: what each of its layers is given on the calibration text is caught by a hook, and your score decides. The control is magnitude with the same mask, half of each row.

# %% rtol=0.02
watched, given = copy.deepcopy(dense), {}
for name, layer in layers.linear_layers(watched).items():
    hook = partial(lambda name, module, x, y: given.update({name: x[0].flatten(0, 1)}), name)
    layer.register_forward_hook(hook)
with torch.no_grad():
    watched(sample["input_ids"])
for share in (0.5, 0.7):
    control = perplexity(pruned(pruning.row_mask(magnitude, share)))
    print(f"{share:.0%} of each row removed: magnitude {control:.1f}", end=", ")
    if passed:
        scores = {name: wanda(score, given[name]) for name, score in magnitude.items()}
        print(f"your Wanda {perplexity(pruned(pruning.row_mask(scores, share))):.1f}")
    else:
        print("first solve exercise 3")

# %% [markdown] tags=["solution"]
# **Why.** $W_{ij} x_j$ is what the weight adds to output $i$; over all tokens, the norm of that is $|W_{ij}| \cdot \lVert x_j \rVert$. So the score is how much the output would change if only this weight went. One louder input makes its whole column ten times more important, and may push others out of the mask. If all are ten times louder, all scores are, and no mask changes. That is also why dividing by the number of tokens would not matter for a mask.

# %% tags=["solution"]
torch.manual_seed(0)
weight, inputs = torch.randn(4, 8), torch.randn(50, 8)
louder = inputs * torch.tensor([10.0, 1, 1, 1, 1, 1, 1, 1])
mask = pruning.row_mask(wanda(weight, inputs), 0.5)
print("first column kept:", mask[:, 0].tolist(), end=" ")
print("louder:", pruning.row_mask(wanda(weight, louder), 0.5)[:, 0].tolist())
assert torch.equal(mask, pruning.row_mask(wanda(weight, 10 * inputs), 0.5))

# %% [markdown]
# ## Exercise 4 · An allotment under a budget ★★ (25 minutes)
#
# The chapter finds that a few layers must be spared. Suppose that trials have told, for each layer, the largest share of zeros that it bears. The whole model shall have a certain share of zeros. Write `allot(sizes, most, sparsity)`:
#
# - `sizes`: a list, the number of weights of each layer;
# - `most`: a list, the largest share of zeros that each layer may get, from 0 to 1;
# - `sparsity`: the share of zeros wanted *of all weights together*. It can be reached: `most` allows it;
# - returns a list with the share of zeros of each layer: **the same share for all layers, but no layer gets more than its most**. What such a layer does not take, all the others share in, so that the total is met.
#
# **Predict** first: two layers of 100 weights; half of all weights shall go, and the first layer bears 20 % at most. Which share does the second get? And with sizes of 100 and 300?
#
# <details><summary>Hint 1</summary>Give all layers the same share. Which of them get more than they bear? Fix those at their most.</details>
# <details><summary>Hint 2</summary>The others must now take a larger share, and that may be too much for the next layer. So repeat it until no layer gets too much.</details>
# <details><summary>Hint 3</summary>The common share is what is left to remove, divided by the weights of the layers that are not fixed.</details>


# %%
def allot(sizes, most, sparsity):
    """Return each layer's share of zeros: the same for all, up to what each one bears."""
    ### BEGIN SOLUTION
    free = set(range(len(sizes)))
    while True:
        fixed = sum(sizes[i] * most[i] for i in range(len(sizes)) if i not in free)
        level = (sparsity * sum(sizes) - fixed) / sum(sizes[i] for i in free)
        over = {i for i in free if most[i] < level}
        if not over:
            return [level if i in free else most[i] for i in range(len(sizes))]
        free -= over
    ### END SOLUTION


# %%
passed = checks.check_allot(allot)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# In the real model, by SparseGPT: 70 % of all weights are removed. Everywhere alike, or by your allotment: 50 % at most in the first feed-forward block, which the chapter found to be the most sensitive, and 80 % at most elsewhere. The control spares the *last* feed-forward block instead.


# %%
def by_sparsegpt(shares):
    """Return a copy of the student, pruned by SparseGPT with a share for each layer."""
    model = copy.deepcopy(dense)
    for name, share in zip(magnitude, shares, strict=True):
        mask = partial(pruning.layer_mask, sparsity=share)
        pruning.sparsegpt_(model, {name: hessians[name]}, mask)
    return model


# %% rtol=0.03
hessians, sizes = pruning.hessians(dense, [sample]), [s.numel() for s in magnitude.values()]
print(f"70 % everywhere: perplexity {perplexity(by_sparsegpt([0.7] * len(sizes))):.1f}")
for block in ("layers.0.mlp", "layers.3.mlp") if passed else ():
    shares = allot(sizes, [0.5 if block in name else 0.8 for name in magnitude], 0.7)
    model = by_sparsegpt(shares)
    print(f"{block} spared: zeros {metrics.sparsity(model):.1%}, {perplexity(model):.1f}")
print("" if passed else "first solve exercise 4", end="")

# %% [markdown] tags=["solution"]
# **Why.** A single round is not enough: each layer that is fixed pushes the common share up, and that may be too much for the next one. (The same picture as water that fills vessels of different heights to one level.) And the shares count by *weights*, not by layers. The prediction: of 200 weights 100 must go, 20 of them from the first layer, so the second gets 80 %. With 100 and 300 it is (200 − 20) / 300 = 60 %.
#
# Sparing the right block takes more off the perplexity than most better scores do, and sparing a wrong one costs something: the others have to take more.

# %% [markdown]
# ## Exercise 5 · The surgeon ★★★ (30 minutes)
#
# Derive what SparseGPT rests on, and check it. One output of a layer has the weights $w$. On the calibration tokens, changing them by $\delta$ changes the output by $\delta^\top x$ for each token $x$, so the squared error is
#
# $$E(\delta) = \sum_x (\delta^\top x)^2 = \delta^\top H \delta, \qquad H = \sum_x x x^\top$$
#
# Weight $q$ must become zero: $\delta_q = -w_q$. All others are free. With pencil and paper, find the $\delta$ with the least error, and that error. Then write `obs_remove(weight, hessian, q)`:
#
# - `weight`: shape (inputs,); `hessian`: $H$, shape (inputs, inputs), invertible; `q`: an index;
# - returns `(cost, new)`: the least squared error, and the new weights, of which number `q` is zero.
#
# <details><summary>Hint 1</summary>A condition and a minimum: Lagrange. Set the derivative of δᵀHδ + 2λ(δ_q + w_q) to zero: Hδ = −λ e_q, where e_q is 1 at q and 0 elsewhere.</details>
# <details><summary>Hint 2</summary>So δ = −λ H⁻¹ e_q, that is −λ times column q of H⁻¹. Which λ makes δ_q = −w_q?</details>
# <details><summary>Hint 3</summary>λ = w_q / [H⁻¹]_qq. Put δ into δᵀHδ: what is e_qᵀ H⁻¹ e_q?</details>


# %%
def obs_remove(weight, hessian, q):
    """Return the least squared error of removing weight q, and the adjusted weights."""
    ### BEGIN SOLUTION
    inverse = torch.linalg.inv(hessian)
    step = weight[q] / inverse[q, q]
    return step * weight[q], weight - step * inverse[:, q]
    ### END SOLUTION


# %%
passed = checks.check_obs_remove(obs_remove)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# In the real model: one neuron of the student has 128 weights. The 64 smallest are removed one after the other by your function, with the Hessian of its true inputs. The control sets the same weights to zero and adjusts nothing.

# %% rtol=0.03
name = "model.layers.2.mlp.up_proj"
row, hessian = dense.get_submodule(name).weight.detach()[5].double(), hessians[name].double()
hessian = hessian + 0.01 * hessian.diagonal().mean() * torch.eye(len(row), dtype=torch.float64)
smallest, whole = row.abs().argsort()[:64].tolist(), row @ hessian @ row
zeroed, left, current = row.clone(), list(range(len(row))), row.clone()
zeroed[smallest] = 0
error = (zeroed - row) @ hessian @ (zeroed - row) / whole
print(f"squared error of the output, 64 weights set to zero: {error:.1%}", end=", ")
for q in smallest if passed else ():
    cost, new = obs_remove(current[left], hessian[left][:, left], left.index(q))
    current[left], left = new, [place for place in left if place != q]
error = (current - row) @ hessian @ (current - row) / whole
print(f"adjusted by your function: {error:.1%}" if passed else "first solve exercise 5")

# %% [markdown] tags=["solution"]
# **Why.** From $H\delta = -\lambda e_q$ follows $\delta = -\lambda H^{-1} e_q$, and $\delta_q = -w_q$ gives $\lambda = w_q / [H^{-1}]_{qq}$. The error is $\delta^\top H \delta = \lambda^2 e_q^\top H^{-1} e_q = w_q^2 / [H^{-1}]_{qq}$. (In the papers a factor ½ stands before it, because they start from half of the second derivative.)
#
# Now by brute force. Leave input q out, and let least squares find the best weights for the others, knowing nothing of our formula:

# %% tags=["solution"]
torch.manual_seed(0)
x = torch.randn(60, 5).double() @ torch.randn(5, 5).double()
w = torch.randn(5).double()
for q in range(5):
    cost, new = obs_remove(w, x.T @ x, q)
    others = [j for j in range(5) if j != q]
    best = torch.linalg.lstsq(x[:, others], (x @ w)[:, None]).solution[:, 0]
    error = (x[:, others] @ best - x @ w).square().sum()
    assert torch.allclose(new[others], best) and torch.isclose(cost, error)
print("five weights, removed one at a time: the formula equals brute force")

# %% [markdown] tags=["solution"]
# And the library's SparseGPT, told to remove only weight 0 from this row, may adjust all the others, for they all stand to its right. So it must find the same:

# %% tags=["solution"]
keep = torch.tensor([[False, True, True, True, True]])
found = pruning.sparsegpt(w[None], x.T @ x, lambda scores: keep, damping=1e-9)
assert torch.allclose(found[0], obs_remove(w, x.T @ x, 0)[1], atol=1e-5)
print("SparseGPT's first column is the surgeon's step")

# %% [markdown]
# ## Exercise 6 · A merge that keeps the zeros ★★ (20 minutes)
#
# The chapter found that merging LoRA into a pruned matrix fills its zeros again. Write `merge_held(weight, a, b, alpha)`:
#
# - `weight`: shape (outputs, inputs), pruned: some of its entries are exactly zero;
# - `a`: shape (rank, inputs); `b`: shape (outputs, rank); `alpha`: a number;
# - returns the merged matrix $W + \frac{\alpha}{r} B A$, but exactly zero wherever `weight` is zero. An entry that is merely small is kept.
#
# **Predict** first: a model was pruned to 70 % zeros, and LoRA was trained beside its matrices in the usual way. By this merge it loses 70 % of the entries of each update. Does it answer as before? And what if the model has been *trained* with the matrix that your function returns?
#
# <details><summary>Hint 1</summary>The mask is in the matrix itself: where is it not zero?</details>
# <details><summary>Hint 2</summary>A mask of True and False multiplies like 1 and 0.</details>
# <details><summary>Hint 3</summary>The scaling is alpha divided by the rank, the number of rows of A.</details>


# %%
def merge_held(weight, a, b, alpha):
    """Return the merged matrix, with zeros where the pruned one has them."""
    ### BEGIN SOLUTION
    merged = weight + alpha / len(a) * b @ a
    return merged * (weight != 0)
    ### END SOLUTION


# %%
passed = checks.check_merge_held(merge_held)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# In the real model, 70 % pruned by magnitude, LoRA of rank 8 is trained for 20 steps in two ways: **beside** the matrix, as usual, or **held**, with the matrix that your function returns. Both are merged by your function at the end.


# %%
class Lora(torch.nn.Module):
    def __init__(self, base, held):
        super().__init__()
        self.weight, self.held = base.weight.detach(), held
        self.a = torch.nn.Parameter(torch.randn(8, base.in_features) / base.in_features**0.5)
        self.b = torch.nn.Parameter(torch.zeros(base.out_features, 8))

    def merged(self):
        return merge_held(self.weight, self.a, self.b, 16.0)

    def forward(self, x):
        if self.held:
            return x @ self.merged().T
        return x @ self.weight.T + 2 * (x @ self.a.T) @ self.b.T


# %% rtol=0.03
lessons = data.token_batches(learn[:200_000], window=64, batch_size=4)
start = pruned(pruning.layer_mask(magnitude, 0.7)).requires_grad_(False)
print(f"pruned: perplexity {perplexity(start):.1f}")
for held in (False, True) if passed else ():
    torch.manual_seed(1)
    model, merged = copy.deepcopy(start), copy.deepcopy(start)
    for name, layer in layers.linear_layers(start).items():
        layers.replace_(model, name, Lora(layer, held))
    train(model, lessons, Recipe(20, 3e-3, warmup_steps=3), progress=False)
    for name, layer in layers.linear_layers(merged).items():
        layer.weight.data = model.get_submodule(name).merged().detach()
    print(f"{'held' if held else 'beside'}: trained {perplexity(model):.1f}", end=", ")
    print(f"merged {perplexity(merged):.1f}, zeros {metrics.sparsity(merged):.0%}")
print("" if passed else "first solve exercise 6", end="")

# %% [markdown] tags=["solution"]
# **Why.** Trained beside the matrix, the update has learned to work *with* the entries that the merge then takes away, so much of what was won is lost. Trained with the held matrix, what is merged is what was trained: not one answer changes. The update itself still has only `rank * (inputs + outputs)` numbers; but each step has to make the whole matrix, so the training is slower and takes more memory.

# %% [markdown]
# ## Wrap-up
#
# You wrote a mask that hardware can read, the bytes of three formats, the score of Wanda, an allotment of zeros to layers, the step of SparseGPT, and a merge that keeps the zeros. Chapter 04 leaves the number of weights alone and makes each of them smaller.
