# %% [markdown]
# # 11 · The LoRA family: exercises — three ledgers, DoRA, a merge into integers, one that is free, a row for each adapter
#
# Five exercises, 75 minutes together: what five ways of training count as trained, stored and run, DoRA's layer, what a merge into few bits loses, an adapter that goes into integers without any loss, and a server that keeps its customers apart. Each function is followed by one line that checks it: ✓, or ✗ and what your answer seems to believe. Run that line as often as you like. Then comes a cell in which your function works in a real model, beside a control. Nothing here needs more than chapters 02, 04 and 11.
#
# From the command line, `lightcourse check exercises/11_the_lora_family.ipynb` tells which checks pass.

# %%
import copy
from functools import partial

import torch

import lightcourse
from lightcourse import checks, data, layers, lora, metrics, models, quantization
from lightcourse.training import Recipe, train

lightcourse.setup(threads=1)

# %% [markdown]
# The real model is the student, the smaller one of the tiny language models: 4 layers, 28 matrices. It has read speeches. Its new job are passages of the Factbook, and it is judged by its perplexity on passages that it has not seen (lower is better).

# %%
student, tokenizer = models.load_tiny_lm("student"), models.load_tiny_tokenizer()
texts = data.load_factbook()


def tokens_of(some):
    """Return the tokens of several texts, an end token behind each."""
    encoded = tokenizer(some, add_special_tokens=False, verbose=False)["input_ids"]
    return torch.tensor([token for ids in encoded for token in [*ids, tokenizer.eos_token_id]])


lessons = data.token_batches(tokens_of(texts["train"]["text"][:500]), 64, batch_size=4)
unseen = tokens_of(texts["test"]["text"][:100])[:2049]
first = unseen[None, :64]


# %%
def taught(model, rate=5e-3, steps=16):
    train(model, lessons, Recipe(steps, rate, warmup_steps=3, seed=0), progress=False)
    return model.eval()


def tell(name, model):
    """Print the perplexity of a model on new passages, and return it."""
    found = metrics.perplexity(model, unseen, window=64)
    print(f"{name:52} {found:7.1f}")
    return found


@torch.no_grad()
def answers(model):
    return model(first).logits


# %% [markdown]
# ## Exercise 1 · Trained, stored, run ★★ (20 minutes)
#
# "It trains only 1 % of the parameters" says one thing of three. Write `three_ledgers(layers, way, size, jobs, tokens)`, which counts **numbers**, not bytes, for a model that is a row of linear layers:
#
# - `layers`: a list of tuples, (outputs, inputs, biased), the first layer first. `biased` is True where the layer has a bias;
# - `way`: one of the words in the table; all layers are changed in this way;
# - `size`: the rank of LoRA and DoRA, or the number of vectors of a prompt. IA3 and biases need none, and ignore it;
# - `jobs`: how many jobs one model serves; `tokens`: how long a text is.
#
# | `way` | what is trained |
# |---|---|
# | `"LoRA"` | A and B beside each matrix, (size, inputs) and (outputs, size) |
# | `"DoRA"` | the same, and the length of each row of the matrix |
# | `"IA3"` | a vector for each layer by which its **outputs** are multiplied |
# | `"biases"` | the biases that are there |
# | `"prompt"` | vectors that stand before the text. They are given to the first layer, and are as long as what it is given |
#
# It returns three whole numbers:
#
# - **trained**: what training changes for one job;
# - **stored**: what all jobs take together. The model is stored once, as it came, and beside it what was trained for each job;
# - **run**: by how many numbers the activations of one text are multiplied, all its tokens together. Nothing is merged: an adapter stays beside its layer. In a layer, each token meets every number of the matrix once, and every trained number that multiplies. Numbers that are only added do not count, and neither does what DoRA computes without looking at the text.
#
# **Predict** first: one layer, 100 × 100, with a bias; a rank of 8, or 8 vectors; and a text of 32 tokens. Which way trains the least? Which one runs the most?
#
# <details><summary>Hint 1</summary>Sums over all layers of outputs, of inputs and of their product are needed again and again. Compute them first.</details>
# <details><summary>Hint 2</summary>In run, one way makes the text longer, and three make each token meet more numbers. What does the fifth do?</details>
# <details><summary>Hint 3</summary>Stored is the same sum for all five ways, once trained is known. The base model has biases, too.</details>


# %%
def three_ledgers(layers, way, size, jobs, tokens):
    """Return how many numbers are trained, stored and run."""
    ### BEGIN SOLUTION
    matrices = sum(m * n for m, n, _ in layers)
    biases = sum(m for m, _, biased in layers if biased)
    rows = sum(m for m, _, _ in layers)
    thin = size * sum(m + n for m, n, _ in layers)
    prompt = size * layers[0][1]
    own = {"LoRA": thin, "DoRA": thin + rows, "IA3": rows, "biases": biases, "prompt": prompt}[way]
    if way == "prompt":
        run = (tokens + size) * matrices
    else:
        run = tokens * (matrices if way == "biases" else matrices + own)
    return own, matrices + biases + jobs * own, run
    ### END SOLUTION


# %%
passed = checks.check_three_ledgers(three_ledgers)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# **In the real model.** The tiny GPT-2 has biases; here are its 16 matrices. The library puts each kind of adapter around them, and counts what it sees. (It trains the biases of norms, too, which are no layers of ours and are taken off.) The control is full training: all is trained, each job has a model of its own, and nothing more is run.


# %%
def of_the_library(way):
    """Return how many numbers of the 16 layers the library trains, and how many more it runs."""
    changes = {
        "LoRA": partial(lora.add_lora_, rank=16),
        "DoRA": partial(lora.add_dora_, rank=16),
        "IA3": partial(lora.add_ia3_, outputs=".*"),
        "biases": lora.train_biases_,
    }
    plain = lora.counts(model := models.load_tiny_lm("gpt2"))
    if way not in changes:
        return lora.PromptTuned(model, 16).prompt.numel(), 0
    changes[way](model)
    found, named = lora.counts(model), model.named_parameters()
    norms = sum(p.numel() for name, p in named if ".ln_" in name and p.requires_grad)
    return found.trained - norms, found.run - plain.run


# %% [markdown]
# Rank 16 or 16 vectors, ten jobs, and a text of 64 tokens. In percent: trained, of all numbers; stored, of ten whole models; run, of the base model.

# %%
gpt2 = models.load_tiny_lm("gpt2")
sides = [(part.nf, part.nx, True) for part in layers.linear_layers(gpt2).values()]
whole = sum(m * n + m for m, n, _ in sides)
base = 64 * sum(m * n for m, n, _ in sides)
print(f"full:   trained 100.00%, stored 100.0%, run 100.0% of {base:,}")
for way in ("LoRA", "DoRA", "IA3", "biases", "prompt") if passed else ():
    own, stored, run = three_ledgers(sides, way, 16, 10, 64)
    more = run - base if way != "prompt" else 0
    assert (own, more // 64) == of_the_library(way)
    shares = own / whole, stored / (10 * whole), run / base
    print("{:7} trained {:6.2%}, stored {:5.1%}, run {:5.1%}".format(way + ":", *shares))
print("" if passed else "First solve this exercise: then your ledgers stand here.", end="")

# %% [markdown] tags=["solution"]
# **Why.** Biases and IA3 train 100 numbers, the prompt 800, LoRA 1,600 and DoRA 1,700. Run is another order: biases run nothing more, IA3 1 %, LoRA 16 %, DoRA 17 %, and the prompt 25 %, since 40 tokens go through the layer in place of 32. On longer texts the prompt's part gets smaller, and the others' stays.
#
# Stored looks alike for all of them: whatever one trains, ten jobs cost little more than one model. That is the ledger in which the whole family wins. In the third one it loses, until something is merged.

# %% tags=["solution"]
for way in ("LoRA", "DoRA", "IA3", "biases", "prompt"):
    own, _, run = three_ledgers([(100, 100, True)], way, 8, 1, 32)
    print(f"{way:7} trains {own:5,}, runs {run / 320_000:.0%} of the base")

# %% [markdown]
# ## Exercise 2 · DoRA's layer ★★ (15 minutes)
#
# **DoRA** (Liu et al. 2024, arXiv 2402.09353) gives each row of a matrix a direction and a length of its own. LoRA's update turns the row, and a trained number, the **magnitude**, says how long it is:
#
# $$W'_i = \mu_i \, \frac{V_i}{\lVert V_i \rVert} \quad \text{with} \quad V = W + \frac{\alpha}{r} B A$$
#
# ($V_i$ is row $i$, and $\lVert V_i \rVert$ its length, the root of the sum of its squares. The paper writes a matrix with inputs in rows, so there they are columns.) Write `dora(x, layer, adapter)`:
#
# - `x`: shape (tokens, inputs);
# - `layer`: two tensors, (weight, bias), of shapes (outputs, inputs) and (outputs,);
# - `adapter`: (a, b, magnitude, alpha): $A$ of shape (rank, inputs), $B$ of shape (outputs, rank), $\mu$ of shape (outputs,), and a number;
# - returns two things: the **output**, (tokens, outputs), with the bias in it, and the **matrix** $W'$, (outputs, inputs), which does the same alone. The bias is neither turned nor stretched.
#
# A row of $V$ that is all zeros has no direction. It stays a row of zeros, whatever its magnitude.
#
# **Predict** first: a row of $W$ is (3, 4), and its magnitude begins at 5. The update of this row becomes (3, 4) as well. What is the row of $W'$? What would it be in LoRA?
#
# <details><summary>Hint 1</summary>Three lines: the sum, its lengths, the matrix. The output follows from the matrix.</details>
# <details><summary>Hint 2</summary><code>norm(dim=…, keepdim=True)</code>: which dimension holds the entries of one row?</details>
# <details><summary>Hint 3</summary><code>torch.where(condition, tensor, 1.0)</code> puts a 1 wherever the condition fails. What is 0 / 1?</details>


# %%
def dora(x, layer, adapter):
    """Return the output of a layer under DoRA, and the matrix that does the same alone."""
    ### BEGIN SOLUTION
    weight, bias = layer
    a, b, magnitude, alpha = adapter
    turned = weight + alpha / len(a) * (b @ a)
    length = turned.norm(dim=1, keepdim=True)
    matrix = magnitude[:, None] * turned / torch.where(length > 0, length, 1.0)
    return x @ matrix.T + bias, matrix
    ### END SOLUTION


# %%
passed = checks.check_dora(dora)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# **In the real model.** The library puts DoRA's parameters around all 28 layers, and your function computes with them, in training, too. Autograd goes through all that you wrote.


# %%
def by_your_function(shell, x):
    """Return what a layer of the student answers by your function; it has no bias."""
    weight = shell.base.weight
    adapter = shell.lora_a, shell.lora_b, shell.lora_magnitude, shell.alpha
    y, _ = dora(x.flatten(0, -2), (weight, weight.new_zeros(len(weight))), adapter)
    return y.view(*x.shape[:-1], -1)


# %%
def with_dora(yours):
    """Return a copy of the student with DoRA around its layers, by the library or by you."""
    model = copy.deepcopy(student)
    torch.manual_seed(0)
    lora.add_dora_(model, rank=8)
    for shell in model.modules():
        if yours and isinstance(shell, lora.DoRALinear):
            shell.forward = partial(by_your_function, shell)
    return model


# %% [markdown]
# Three things: before training, nothing may have changed. Then come 16 steps by your function and 16 by the library's layer, which takes the lengths for constants when it computes gradients, as section 4.3 of the paper advises. Last, the numbers that you trained go into the library's layers: the answers must be the same. The controls are the frozen model, and LoRA with the same rank, rate and steps.

# %% rtol=0.05
before = tell("before training", student)
torch.manual_seed(0)
lora.add_lora_(plain := copy.deepcopy(student), rank=8)
control = tell("16 steps of LoRA", taught(plain))
library = tell("16 steps of DoRA by the library", taught(with_dora(False)))
if passed:
    yours, theirs = with_dora(True), with_dora(False)
    assert torch.allclose(answers(yours), answers(student), atol=1e-3)
    found = tell("16 steps of DoRA by your function", taught(yours))
    theirs.load_state_dict(yours.state_dict())
    assert torch.allclose(answers(yours), answers(theirs), atol=1e-2)
    assert max(found, library, control) < 0.8 * before
print("" if passed else "First solve this exercise: then your layers stand here.", end="")

# %% [markdown] tags=["solution"]
# **Why.** The sum is (6, 8), its length 10, and its direction that of (3, 4): the row of $W'$ is (3, 4), as before. An update along the row changes nothing in DoRA. In LoRA the row is (6, 8), twice as long. That is the idea: directions and lengths are learned by different numbers.
#
# On our job it is worth little: LoRA and DoRA are nearer to each other than two seeds are. That gradients go through the lengths, or not, shows even less. DoRA costs the sum of a whole matrix in every step. So this exercise does not show that DoRA is better. It shows what it computes.

# %% tags=["solution"]
row, factor = torch.tensor([[3.0, 4.0]]), torch.ones(1, 1)
turned = dora(torch.ones(1, 2), (row, torch.zeros(1)), (row, factor, torch.tensor([5.0]), 1.0))[1]
print("DoRA:", turned[0].tolist(), "  LoRA:", (row + factor @ row)[0].tolist())

# %% [markdown]
# ## Exercise 3 · What a merge into integers loses ★★ (15 minutes)
#
# In QLoRA (Dettmers et al. 2023, arXiv 2305.14314) the frozen matrix has 4 bits, and the adapter beside it is in floats. Somebody wants one file of 4 bits in the end, and merges. Each integer becomes the nearest one to what it should read back as *with* the update in it. Write `merged_on_the_grid(q, scale, update, bits)`:
#
# - `q`: integers of shape (rows, columns); `scale`: shape (rows, 1), one for each row. There is no zero point: an integer is read back as itself times the scale;
# - `update`: floats of shape (rows, columns), with alpha / rank in it already;
# - `bits`: the new integers reach from $-2^{b-1}$ to $2^{b-1} - 1$, too. **The scale stays as it is**;
# - returns three things: the **new integers**; the **share** of all integers that are others than before, from 0 to 1; and the **drift**: how far what is read back lies from what was wanted, divided by the update. Both are measured as the root of the sum of squares over the whole matrix. An update of zeros loses nothing: its drift is 0.
#
# **Predict** first: an update of 0.3 steps is added to each weight of a matrix. How many integers change? What is the drift? And what is it for an update of 0.6 steps?
#
# <details><summary>Hint 1</summary>What is wanted is what the old integers are read back as, plus the update. How many steps is that?</details>
# <details><summary>Hint 2</summary>A tensor of True and False becomes a share by <code>.float().mean()</code>.</details>
# <details><summary>Hint 3</summary><code>norm()</code> without a dimension is the root of the sum of squares of all entries.</details>


# %%
def merged_on_the_grid(q, scale, update, bits):
    """Return the new integers, the share that changed, and how much of the update is lost."""
    ### BEGIN SOLUTION
    wanted = q * scale + update
    new = (wanted / scale).round().clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    lost, size = (new * scale - wanted).norm(), update.norm()
    return new, (new != q).float().mean(), lost / size if size > 0 else size
    ### END SOLUTION


# %%
passed = checks.check_merged_on_the_grid(merged_on_the_grid)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# **In the real model.** All 28 matrices go onto a grid, in 8 bits and in 4, and LoRA is trained beside them.


# %%
def on_a_grid(model, bits):
    """Round all matrices of a model, and return the integers and the scale of each."""
    grids = {}
    for name, layer in layers.linear_layers(model).items():
        scale = quantization.search_scale(layer.weight.data, bits)
        q = (layer.weight.data / scale).round().clamp(*quantization.quant_range(bits))
        layer.weight.data, grids[name] = q * scale, (q, scale)
    return grids


# %%
def merged(beside, grids, bits):
    """Return the model with its adapter merged into its integers, and what that lost."""
    model, found = copy.deepcopy(student), []
    for name, (q, scale) in grids.items():
        update = beside.get_submodule(name).delta().detach()
        new, *lost = merged_on_the_grid(q, scale, update, bits)
        model.get_submodule(name).weight.data = new * scale
        found.append(lost)
    return model, *torch.tensor(found).median(dim=0).values.tolist()


# %% [markdown]
# The control is a merge into floats, which loses nothing. `merge_lora_` does it. Beside it these floats are rounded once more, onto a new grid with scales of its own.

# %% rtol=0.05 atol=0.03
for bits in (8, 4):
    grids = on_a_grid(model := copy.deepcopy(student), bits)
    start = tell(f"{bits} bits, before training", model)
    torch.manual_seed(0)
    lora.add_lora_(model, rank=8)
    beside = tell(f"{bits} bits, the adapter beside", taught(model))
    lora.merge_lora_(floats := copy.deepcopy(model))
    assert abs(tell(f"{bits} bits, merged into floats", floats) - beside) < 0.01 * beside < start
    on_a_grid(floats, bits)
    tell(f"{bits} bits, merged and put onto a new grid", floats)
    if passed:
        one, share, drift = merged(model, grids, bits)
        after = tell(f"{bits} bits, merged: {share:.1%} moved, drift {drift:.2f}", one)
        assert after > 1.02 * beside if bits == 4 else after < 1.02 * beside
print("" if passed else "First solve this exercise: then your merged models stand here.", end="")

# %% [markdown] tags=["solution"]
# **Why.** With 0.3 steps no integer changes, and the whole update is lost: the drift is 1. With 0.6 steps each integer moves by a whole step, 0.4 too far: the drift is 0.4 / 0.6, so 0.67. What is read back lies on the grid already. So the sum is rounded just as the update alone would be, and an update below half a step disappears.
#
# In 8 bits the steps are sixteen times as fine, and most integers move. That is why one merges into 8 bits without a thought. In 4 bits only few integers move, and the drift says that nearly all of the update is lost. The perplexity says less: more than half of the gain is still there. For what moves are the weights with the largest updates, and they move in the right direction. So a drift near 1 is a warning and no verdict: measure the quality as well.
#
# A new grid helps little. Its scales fit the merged weights, and its steps are as wide as before. The surest way is to leave the adapter beside the integers, as it was trained.

# %% tags=["solution"]
for steps in (0.3, 0.6, 1.6, 10.3):
    q, scale = torch.arange(-8, 8).repeat(4, 1), torch.full((4, 1), 0.05)
    _, share, drift = merged_on_the_grid(q, scale, torch.full((4, 16), steps * 0.05), 8)
    print(f"{steps:4} steps: {share:.0%} moved, drift {drift:.2f}")

# %% [markdown]
# ## Exercise 4 · A merge that rounds nothing ★★ (10 minutes)
#
# Integers need not stop every adapter. A block of a Llama computes, from its input $x$:
#
# $$\text{down}(h) \quad \text{with} \quad h = \text{silu}(\text{gate}(x)) \odot \text{up}(x)$$
#
# Each of the three is a linear layer, and $\odot$ multiplies entry by entry. **IA3** (Liu et al. 2022, arXiv 2205.05638) puts a trained vector $l$ between: down is given $l \odot h$ in place of $h$. All three layers store integers. Find the place where $l$ goes in without rounding anything. Write `ia3_in_integers(gate, up, down, vector)`:
#
# - `gate`, `up`, `down`: three tensors each, (q, scale, bias): integers of shape (outputs, inputs); scales of shape (outputs, groups), one for each group of neighbours **in a row**; and a bias of shape (outputs,). A layer reads each integer back as itself times the scale of its group, multiplies $x$ by that, and adds the bias;
# - `vector`: $l$, one positive number for each entry of $h$;
# - returns the three layers in the same order, each as three tensors, so that the block computes the same as with $l$ between. **All integers stay as they are.**
#
# **Predict** first: silu(1) is 0.73, and silu(2) is 1.76. Can a factor of 2 behind the silu be moved before it? In which of the three layers is each number of $l$ a factor of a whole row?
#
# <details><summary>Hint 1</summary>Entry 5 of h is made by row 5 of one matrix and row 5 of another, and it meets column 5 of the third. Which of these share a scale?</details>
# <details><summary>Hint 2</summary>Write l ⊙ silu(g) ⊙ u, and put the brackets elsewhere.</details>
# <details><summary>Hint 3</summary>What a layer answers has two parts. Both are to be multiplied.</details>


# %%
def ia3_in_integers(gate, up, down, vector):
    """Return the three layers with IA3's vector in them, and their integers untouched."""
    ### BEGIN SOLUTION
    q, scale, bias = up
    return gate, (q, scale * vector[:, None], bias * vector), down
    ### END SOLUTION


# %%
passed = checks.check_ia3_in_integers(ia3_in_integers)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# **In the real model.** The student's four blocks are of this kind, without biases. All its matrices have 4 bits, and IA3 is trained on what the four down layers are given. Then it is merged: by your function, and, as a control, into the columns of down, whose integers are rounded again.


# %%
def with_ia3(model):
    """Train IA3 on the inputs of the down layers; return the model and its vectors."""
    lora.add_ia3_(model, inputs=["down_proj"])
    taught(model, rate=5e-2)
    found = {name: part for name, part in model.named_modules() if isinstance(part, lora.IA3Linear)}
    return model, {name.rpartition(".")[0]: part.ia3_l.detach() for name, part in found.items()}


# %%
def block_of(grids, name):
    """Return the three layers of a block, each as (q, scale, bias)."""
    parts = (grids[f"{name}.{kind}_proj"] for kind in ("gate", "up", "down"))
    return [(q, scale, torch.zeros(len(q))) for q, scale in parts]


def into_the_columns(gate, up, down, vector):
    """Merge into down, and round: the control."""
    q, scale, bias = down
    return gate, up, ((q * vector).round().clamp(-8, 7), scale, bias)


# %% [markdown]
# A merged model reads back what the two functions return.


# %%
def with_blocks(model, grids, vectors, merge):
    """Return a copy of a model in whose blocks the vectors are merged."""
    model = copy.deepcopy(model)
    for name, vector in vectors.items():
        made = merge(*block_of(grids, name), vector)
        for kind, (q, scale, _) in zip(("gate", "up", "down"), made, strict=True):
            model.get_submodule(f"{name}.{kind}_proj").weight.data = q * scale
    return model


# %% rtol=0.05
grids = on_a_grid(rounded := copy.deepcopy(student), 4)
start = tell("4 bits, before training", rounded)
tuned, vectors = with_ia3(copy.deepcopy(rounded))
beside = tell("4 bits, IA3 beside", tuned)
ways = {"into columns, rounded again": into_the_columns}
ways |= {"by your function": ia3_in_integers} if passed else {}
for way, merge in ways.items():
    model = with_blocks(rounded, grids, vectors, merge)
    same = torch.allclose(answers(model), answers(tuned), atol=1e-3)
    tell(f"{way}: {'same' if same else 'other'} answers", model)
    assert beside < start and same == (merge is ia3_in_integers)
print("" if passed else "First solve this exercise: then your blocks stand here.", end="")

# %% [markdown] tags=["solution"]
# **Why.** 1.76 is more than twice 0.73: silu is no straight line, and what is behind it stays behind it. But a product does not care which factor is multiplied. So $l$ is a factor of what up answers, of each row of its matrix and of its bias. And a row's factor goes into the row's scales, which are floats. In down, $l$ would meet columns, and a column has no scale of its own.
#
# IA3 on keys and values multiplies outputs, and goes into scales in the same way. LoRA adds to each weight something of its own, and has no such place. What an adapter *can* do decides what a merge costs. In a GPT-2 there is no product, only the bend between two layers. There, a vector on the second layer's inputs finds no such place.

# %% tags=["solution"]
g, u, factor = torch.tensor(1.0), torch.tensor(3.0), 2
silu = torch.nn.functional.silu
print(f"behind: {factor * (silu(g) * u):.2f}, in up: {silu(g) * (factor * u):.2f}, ", end="")
print(f"in the gate: {silu(factor * g) * u:.2f}")

# %% [markdown]
# ## Exercise 5 · An adapter for each row, and no leak ★★ (15 minutes)
#
# A server has one frozen matrix and many adapters. A batch holds requests of several customers, and each row wants an adapter of its own. An adapter that shows in somebody else's answer is a **leak**. Write `serve_rows(x, weight, adapters, names)`:
#
# - `x`: shape (rows, tokens, inputs), a text in each row; `weight`: the frozen matrix, shape (outputs, inputs);
# - `adapters`: a list of tuples (name, a, b, alpha), LoRA's: $A$ of shape (rank, inputs), $B$ of shape (outputs, rank), and a number. The update is $\frac{\alpha}{r} B A$, and **each adapter has a rank of its own**;
# - `names`: a list with one name for each row, of an adapter or `"base"`, which wants the frozen matrix alone. Several rows may have the same name, in any order, and some adapters may not be wanted at all;
# - returns the outputs, shape (rows, tokens, outputs), in the order of the rows.
#
# The frozen matrix may well multiply all rows at once. No input may be changed, and a row must not notice who was served before it, not even where somebody's update is far larger than the frozen matrix.
#
# **Predict** first: another server has only one matrix, in bfloat16. For each request it adds the update, answers, and subtracts the update. After 100 requests, is the matrix the one that it was?
#
# <details><summary>Hint 1</summary>Begin with what all rows have in common. Then go through the adapters, and change only the rows that name them.</details>
# <details><summary>Hint 2</summary>A list of places is an index: <code>x[[0, 3]]</code> are two rows, and <code>y[[0, 3]] += …</code> changes two.</details>
# <details><summary>Hint 3</summary>Two thin products do: <code>x @ a.T</code> first. And nobody's name is "base".</details>


# %%
def serve_rows(x, weight, adapters, names):
    """Return the output of each row under the adapter that it names."""
    ### BEGIN SOLUTION
    y = x @ weight.T
    for name, a, b, alpha in adapters:
        rows = [place for place, wanted in enumerate(names) if wanted == name]
        y[rows] += alpha / len(a) * (x[rows] @ a.T @ b.T)
    return y
    ### END SOLUTION


# %%
passed = checks.check_serve_rows(serve_rows)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# **In the real model.** Three adapters of three ranks stand around all 28 layers. Here they get random numbers: a leak shows as well as between trained ones.

# %%
server, asked = copy.deepcopy(student), ["news", "base", "law", "poems", "news", "base"]
torch.manual_seed(0)
for name, rank in {"law": 4, "news": 8, "poems": 2}.items():
    lora.add_lora_(server, rank=rank, adapter=name)
for name, part in server.named_parameters():
    if name.endswith("lora_b"):
        part.data.normal_(std=0.02)
requests = unseen[: 6 * 32].view(6, 32)


def alone(name, request):
    """Return the answers to one request with one adapter switched on."""
    lora.set_adapter_(server, None if name == "base" else name)
    with torch.no_grad():
        return server(request[None]).logits[0]


# %% [markdown]
# Each layer finds its adapters in the shells around it, and asks your function.


# %%
def its_adapters(shell):
    """Return the frozen layer below its shells, and all their adapters."""
    found = []
    while isinstance(shell, lora.LoRALinear):
        own = shell.lora_a.detach(), shell.lora_b.detach()
        found.append((shell.adapter, *own, shell.alpha))
        shell = shell.base
    return shell, found


# %%
def serving(names):
    """Return a copy of the student whose layers answer by your function."""
    model = copy.deepcopy(student)
    for name, layer in layers.linear_layers(model).items():
        frozen, found = its_adapters(server.get_submodule(name))
        layer.forward = partial(
            serve_rows, weight=frozen.weight.detach(), adapters=found, names=names
        )
    return model


# %% [markdown]
# Six requests in one batch, each compared with the same request alone.


# %%
def in_one_batch(names):
    """Return the answers to the six requests, served together."""
    with torch.no_grad():
        return serving(names)(requests).logits


if passed:
    together = in_one_batch(asked)
    for place, name in enumerate(asked):
        same = torch.allclose(together[place], alone(name, requests[place]), atol=1e-3)
        print(f"row {place}, {name:5}: {'as if it were alone' if same else 'another answer'}")
        assert same
print("" if passed else "First solve this exercise: then your server stands here.", end="")

# %% [markdown]
# The control is the server that merges. Its one matrix is that of a layer, and each request adds an update and subtracts it. How far is the matrix off after 100 requests, when nobody wants an adapter any more? Both are sizes over the whole matrix, the distance as a share of an update.

# %% rtol=0.1
frozen, found = its_adapters(server.get_submodule("model.layers.0.mlp.down_proj"))
updates = [alpha / len(a) * b @ a for _, a, b, alpha in found]
for kind in (torch.float32, torch.bfloat16):
    matrix = (old := frozen.weight.detach().to(kind)).clone()
    for number in range(100):
        update = updates[number % 3].to(kind)
        matrix += update
        matrix -= update
    off = (matrix - old).float().norm() / updates[0].norm()
    print(f"{kind}: after 100 requests off by {off:.4%} of an update")
    assert (matrix != old).any()

# %% [markdown] tags=["solution"]
# **Why.** It is not. In a sum of bfloat16, eight binary digits are left. What was rounded away when the update came does not come back when it goes. After 100 requests the last customer is served by a matrix on which a hundred others have left their traces. In float32 the traces are small, and they are there as well. A server that merges keeps the frozen matrix, and copies it back. A server that does not merge has nothing to undo.
#
# The other leaks are plain mistakes: a name that stays switched on, a row that is answered by its neighbour's adapter, a scaling that belongs to another one. None of them raises an error, and each answer still looks like text. Therefore a server is tested as here: a batch against the same rows alone, with adapters that differ much, and the base among them.

# %% tags=["solution"]
leaky = in_one_batch([name.replace("base", "news") for name in asked])
moved = (leaky[1].argmax(-1) != alone("base", requests[1]).argmax(-1)).float().mean()
assert moved > 0.1 and torch.equal(leaky[0].argmax(-1), together[0].argmax(-1))
print("a leak of one adapter into the base: other words, and no error")

# %% [markdown]
# ## Wrap-up
#
# You kept three ledgers for five ways of training a little, turned rows and gave them lengths, saw an update vanish between two integers and another one fit into scales without any loss, and kept six customers apart in one batch. What is trained is small in all of them. What is run, and what a merge costs, depends on what the adapter does to a matrix: it adds to it, turns it, or stretches it.
