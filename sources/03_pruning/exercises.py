# %% [markdown]
# # 03 · Pruning: exercises — groups, bytes, inputs, a bug, a surgeon
#
# Five small functions, from easy to hard. Each is followed by one line that checks it: ✓, or ✗ and what your answer seems to believe. Run that line as often as you like. Nothing here needs more than chapter 03, but for exercise 5, which also needs Lagrange multipliers. Its two lines of code stand in section 2 of the chapter; the stars are for the derivation, so close the chapter first.
#
# From the command line, `lightcourse check exercises/03_pruning.ipynb` tells which checks pass.

# %%
import torch

from lightcourse import checks

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

# %% [markdown] tags=["solution"]
# **Why.** Dense is a flat line: it does not look at the values. The other two are straight lines that fall, CSR twice as steeply, because each value that goes takes its column number with it. With N weights and z of them left, CSR crosses dense where 8 z = 4 N, at 50 % zeros. The mask crosses dense where N / 8 + 4 z = 4 N: at 1/32, about 3 % zeros. And CSR crosses the mask where 8 z = N / 8 + 4 z: z = N / 32, so only above 97 % zeros is it better to name the few that are left than to keep a bit for everybody.

# %% tags=["solution"]
from lightcourse import plots

lines = {"dense": {}, "CSR": {}, "bit mask": {}}
for s in (0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.995):
    answer = sparse_bytes(1536, 384, round((1 - s) * 1536 * 384))
    for line, size in zip(lines.values(), answer, strict=True):
        line[s] = [size / 1e6]
ax = plots.sparsity_curves(lines, "megabytes")

# %% [markdown] tags=["solution"]
# *Figure: megabytes of a 1,536 × 384 matrix over the share of zeros; the axis of bytes is logarithmic, so straight lines look bent. Dense is flat at 2.4. CSR starts at twice that and crosses dense at 50 %. The bit mask starts just above dense, lies below both for most of the way, and is crossed by CSR near 97 %.*

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

# %% [markdown] tags=["solution"]
# **Why.** $W_{ij} x_j$ is what the weight adds to output $i$; over all tokens, the norm of that is $|W_{ij}| \cdot \lVert x_j \rVert$. So the score is how much the output would change if only this weight went. One louder input makes its whole column ten times more important, and may push others out of the mask. If all are ten times louder, all scores are, and no mask changes. That is also why dividing by the number of tokens would not matter for a mask.

# %% tags=["solution"]
from lightcourse import pruning

torch.manual_seed(0)
weight, inputs = torch.randn(4, 8), torch.randn(50, 8)
louder = inputs * torch.tensor([10.0, 1, 1, 1, 1, 1, 1, 1])
mask = pruning.row_mask(wanda(weight, inputs), 0.5)
print("first column kept:", mask[:, 0].tolist(), end=" ")
print("louder:", pruning.row_mask(wanda(weight, louder), 0.5)[:, 0].tolist())
assert torch.equal(mask, pruning.row_mask(wanda(weight, 10 * inputs), 0.5))

# %% [markdown]
# ## Exercise 4 · Spot the bug ★★ (20 minutes)
#
# This function looks right at first sight. It is meant to prune the smallest weights of a model. It ruins a language model at once, and yet hardly makes a zero.


# %%
def broken(parameters, sparsity):
    """Return one mask for each parameter. (This is the version with the bugs.)"""
    values = torch.cat([p for p in parameters if p.ndim == 1]).sort(descending=True).values
    threshold = values[int(sparsity * len(values))]
    return [p <= threshold if p.ndim == 1 else torch.ones_like(p).bool() for p in parameters]


torch.manual_seed(1)
parameters = [torch.randn(8, 8), torch.randn(8), torch.randn(16, 8), torch.randn(16)]
kept = [int(mask.sum()) for mask in broken(parameters, 0.5)]
print("kept", kept, "of", [p.numel() for p in parameters])

# %% [markdown]
# Find the bugs (there are three), and write `keep_largest(parameters, sparsity)` as it should be:
#
# - `parameters`: a list of tensors, matrices (2 dimensions) and vectors (1 dimension: biases, norms);
# - the vectors keep everything;
# - all matrices compete with each other: `round(sparsity * weights)` of them go, where `weights` counts the matrices' weights only, those nearest to zero first;
# - returns a list of bool tensors, one for each parameter, in the same order and shapes; True = keep.
#
# <details><summary>Hint 1</summary>For each line of <code>broken</code>, ask: which weights does it look at, and which end of the sorted list goes? Try it on [3, −3, 0.1].</details>
# <details><summary>Hint 2</summary>Join the sizes of all matrices into one long row, decide there, and cut the answer into pieces again: <code>split([p.numel() for p in matrices])</code>.</details>
# <details><summary>Hint 3</summary>For an exact count use <code>argsort</code>, not a threshold. Going through <code>parameters</code> in order, take the next piece for each matrix: <code>next(pieces)</code> on an iterator.</details>


# %%
def keep_largest(parameters, sparsity):
    """Return one mask for each parameter: the smallest weights of all matrices go."""
    ### BEGIN SOLUTION
    matrices = [p for p in parameters if p.ndim == 2]
    sizes = torch.cat([p.abs().flatten() for p in matrices])
    keep = torch.ones(len(sizes), dtype=torch.bool)
    keep[sizes.argsort()[: round(sparsity * len(sizes))]] = False
    pieces = iter(keep.split([p.numel() for p in matrices]))
    everything = [torch.ones_like(p, dtype=torch.bool) for p in parameters]
    return [next(pieces).view(m.shape) if m.ndim == 2 else m for m in everything]
    ### END SOLUTION


# %%
passed = checks.check_keep_largest(keep_largest)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown] tags=["solution"]
# **Why.** The three bugs: it looks at vectors only, where a fraction of a percent of all parameters stands; `descending=True` puts the *largest* first, and those go; and it compares signed values. Each is one word long. What tells at once is a test of *how many* zeros there are, and where. Here is what the broken idea does to the tiny language model, whose vectors are its norms: half of them, the largest.

# %% tags=["solution"]
from lightcourse import data, metrics, models

model, tokenizer = models.load_tiny_lm("student"), models.load_tiny_tokenizer()
text = data.speech_tokens(tokenizer, "test")[:2049]
before = metrics.perplexity(model, text, window=128)
vectors = [p.data for p in model.parameters() if p.ndim == 1]
threshold = torch.cat(vectors).median()
for vector in vectors:
    vector[vector > threshold] = 0
share = sum(int((v == 0).sum()) for v in vectors) / sum(p.numel() for p in model.parameters())
print(f"{share:.2%} of the parameters are zero")
assert metrics.perplexity(model, text, window=128) > 10 * before

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
# ## Wrap-up
#
# You wrote a mask that hardware can read, the bytes of three formats, the score of Wanda and the step of SparseGPT, and repaired a function that removed the wrong things from the wrong place in the wrong order. Chapter 04 leaves the number of weights alone and makes each of them smaller.
