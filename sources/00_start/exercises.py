# %% [markdown]
# # 00 · Start: exercises — a mask, a size, a ledger
#
# Three small functions. Each is followed by one line that checks it: ✓, or ✗ and what your answer seems to believe. Run that line as often as you like. Nothing here needs more than chapter 00.
#
# From the command line, `lightcourse check exercises/00_start.ipynb` tells which checks pass.

# %%
import torch

from lightcourse import checks

# %% [markdown]
# ## Exercise 1 · Who may stay? ★ (10 minutes)
#
# Magnitude pruning for one tensor. Write `keep_mask(weight, sparsity)`:
#
# - `weight`: a tensor of any shape;
# - `sparsity`: the fraction of its values to *remove*, from 0 to 1;
# - returns a tensor of bool of the same shape, **True where a weight is kept**. Exactly `round(sparsity * weight.numel())` values are removed, those nearest to zero.
#
# <details><summary>Hint 1</summary>How near a value is to zero does not depend on its sign.</details>
# <details><summary>Hint 2</summary><code>torch.argsort</code> on the flattened tensor tells you in which order the values should go.</details>
# <details><summary>Hint 3</summary>Begin with a mask full of True, and write False at the places that come first in that order.</details>


# %%
def keep_mask(weight, sparsity):
    """Return True where a weight survives magnitude pruning."""
    ### BEGIN SOLUTION
    remove = round(sparsity * weight.numel())
    mask = torch.ones(weight.numel(), dtype=torch.bool)
    mask[weight.abs().flatten().argsort()[:remove]] = False
    return mask.view(weight.shape)
    ### END SOLUTION


# %%
passed = checks.check_keep_mask(keep_mask)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown] tags=["solution"]
# **Why.** The sign is the trap: `weight.argsort()` puts the most negative values first, and those may be the most important ones. A threshold, `weight.abs() > t`, works as well, but then you must find the `t` that removes the right number, and several equal values at the threshold would all go or all stay. Sorting meets the count exactly.

# %% [markdown]
# ## Exercise 2 · What is really stored? ★★ (10 minutes)
#
# A weight matrix is quantized to `bits` bits, in groups of `group_size` weights along each row. Write `stored_bytes(rows, columns, bits, group_size)`: the bytes that this matrix takes when
#
# - the integers are packed tightly (two 4-bit integers to a byte, four 2-bit integers to a byte);
# - each group has one scale of its own, a 16-bit float.
#
# `columns` is a multiple of `group_size`, and a row always fills whole bytes.
#
# Before you run the check, **predict**: for a 384 × 384 matrix at 4 bits, how many bits does one weight cost in truth, with groups of 32? When the check passes, compare with `stored_bytes(384, 384, 4, 32) * 8 / 384**2`.
#
# <details><summary>Hint 1</summary>Two parts: the integers, and the scales.</details>
# <details><summary>Hint 2</summary>How many groups are in one row? How many in the matrix?</details>
# <details><summary>Hint 3</summary>The integers take rows × columns × bits / 8 bytes.</details>


# %%
def stored_bytes(rows, columns, bits, group_size):
    """Return the bytes of packed integers and float16 scales."""
    ### BEGIN SOLUTION
    integers = rows * columns * bits // 8
    scales = rows * (columns // group_size) * 2
    return integers + scales
    ### END SOLUTION


# %%
passed = checks.check_stored_bytes(stored_bytes)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown] tags=["solution"]
# **Why.** "4 bits" is the width of an integer, not the price of a weight. With groups of 32, every 32 weights share 16 bits of scale: half a bit more each, so a weight costs 4.5 bits. Smaller groups fit the weights better and cost more: that trade is the subject of chapter 04. The library agrees, byte for byte:

# %% tags=["solution"]
from lightcourse import metrics, quantization

layer = quantization.QuantizedLinear(torch.randn(384, 384), bits=4, group_size=32)
assert stored_bytes(384, 384, 4, 32) == metrics.size_in_bytes(layer)
print(f"{stored_bytes(384, 384, 4, 32) * 8 / 384**2} bits for each weight")

# %% [markdown]
# ## Exercise 3 · LoRA's entries ★★ (10 minutes)
#
# One linear layer has a frozen matrix of `outputs` × `inputs` values (no bias). LoRA of rank `rank` is put beside it. Write `lora_ledger(inputs, outputs, rank)`, which returns three *numbers of parameters*:
#
# 1. how many are trained;
# 2. how many are stored while the update stands beside the matrix;
# 3. how many are stored after merging.
#
# <details><summary>Hint 1</summary>A has shape (rank, inputs), B has shape (outputs, rank).</details>
# <details><summary>Hint 2</summary>Freezing a matrix does not make it disappear.</details>
# <details><summary>Hint 3</summary>What is the shape of B A?</details>


# %%
def lora_ledger(inputs, outputs, rank):
    """Return the parameters trained, stored beside, and stored merged."""
    ### BEGIN SOLUTION
    trained = rank * (inputs + outputs)
    matrix = inputs * outputs
    return trained, matrix + trained, matrix
    ### END SOLUTION


# %%
passed = checks.check_lora_ledger(lora_ledger)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown] tags=["solution"]
# **Why.** The trained ledger shrinks a lot: for 384 × 384 and rank 8, from 147,456 parameters to 6,144. The stored ledger *grows*, by just those 6,144, until merging; then the product $BA$, which has the matrix's own shape, is added into it and nothing remains of the two thin ones. What LoRA does save in storage is a different thing: ten jobs on one base need ten small updates, not ten models.

# %% [markdown]
# ## Wrap-up
#
# You wrote the mask behind pruning, the true size behind quantization, and what LoRA trains and stores. Distillation waits for chapter 06; first, chapter 01 sharpens the measuring tape.
