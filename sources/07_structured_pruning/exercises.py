# %% [markdown]
# # 07 · Structured pruning: exercises — a cut, an influence, a score, a vocabulary, a plan
#
# Five functions, 80 minutes together: which dimension is cut when a neuron goes, how much a layer does, what the loss owes to a neuron, the token numbers of a smaller table, and what depth and width cost. Each is followed by one line that checks it: ✓, or ✗ and what your answer seems to believe. Run that line as often as you like. Then comes a cell in which your function works in a real model, beside a control. Nothing here needs more than chapter 07.
#
# From the command line, `lightcourse check exercises/07_structured_pruning.ipynb` tells which checks pass.

# %%
import copy

import torch
from torch.nn import functional as F

import lightcourse
from lightcourse import checks, data, distillation, metrics, models, pruning

lightcourse.setup()

# %% [markdown]
# The first real model is MiniLM, an encoder of 6 layers, and 64 sentences of reviews, padded to one length. `closeness` says how near the embeddings of a smaller copy are to those of the whole model: 1 is the same direction.

# %%
minilm, words = models.load_minilm(), models.load_minilm_tokenizer()
reviews = data.load_reviews()
learn = data.ordered_batches(reviews["train"].select(range(2000)), words, max_length=32)
test = data.ordered_batches(reviews["test"].select(range(64)), words, max_length=32)
embedded = models.embed(minilm, test)


def closeness(told):
    """Return the mean cosine of embeddings with those of the whole MiniLM."""
    return F.cosine_similarity(told, embedded).mean().item()


# %% [markdown]
# ## Exercise 1 · Which dimension goes? ★ (10 minutes)
#
# A feed-forward block is two linear layers with an activation between them: `down(gelu(up(x)))`. Some of its neurons shall be removed, not set to zero. Write `without_neurons(up_weight, up_bias, down_weight, mask)`:
#
# - `up_weight`: shape (neurons, inputs); `up_bias`: shape (neurons,);
# - `down_weight`: shape (outputs, neurons);
# - `mask`: bool, shape (neurons,), **True where a neuron is kept**;
# - returns the three tensors of the smaller block, in this order.
#
# **Predict** first: the down layer has a bias, too. Why is it no argument of your function? And how many numbers does a block of 384 inputs, 1,536 neurons and 384 outputs lose with each neuron?
#
# <details><summary>Hint 1</summary>torch stores a linear layer's weight as (outputs, inputs). Of which layer is a neuron an output, of which an input?</details>
# <details><summary>Hint 2</summary>A mask of bool chooses rows, or the entries of a bias: <code>rows[mask]</code>.</details>
# <details><summary>Hint 3</summary>It chooses columns where a colon stands for the rows.</details>


# %%
def without_neurons(up_weight, up_bias, down_weight, mask):
    """Return the three tensors of a feed-forward block without the neurons outside of the mask."""
    ### BEGIN SOLUTION
    return up_weight[mask], up_bias[mask], down_weight[:, mask]
    ### END SOLUTION


# %%
passed = checks.check_without_neurons(without_neurons)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# **In the real model.** Half of MiniLM's neurons go, those with the lowest Wanda score. The control sets the same neurons to zero: it must answer the same, with as many bytes as before.

# %%
norms = pruning.input_norms(minilm, learn[:2])
scores = pruning.neuron_scores(minilm, pruning.wanda_scores(minilm, norms))
masks = pruning.layer_mask(scores, 0.5)


def changed(change):
    """Return a copy of MiniLM; change(up, down, mask) was called for each feed-forward block."""
    model = copy.deepcopy(minilm)
    for name, mask in masks.items():
        block = model.get_submodule(name)
        change(block.intermediate.dense, block.output.dense, mask)
    return model


# %% [markdown]
# Two ways to change the block: `zero_` is the control, `shrink_` calls your function.


# %%
def zero_(up, down, mask):
    """Set the neurons outside of a mask to zero."""
    up.weight.data[~mask], up.bias.data[~mask] = 0, 0


def shrink_(up, down, mask):
    """Take the neurons outside of a mask out, by your function."""
    tensors = up.weight.data, up.bias.data, down.weight.data
    up.weight.data, up.bias.data, down.weight.data = without_neurons(*tensors, mask)


# %% atol=0.02
told = {}
for how, change in {"zeros": zero_, "removed": shrink_}.items():
    if how == "zeros" or passed:
        model = changed(change)
        told[how] = models.embed(model, test)
        size, near = metrics.size_in_bytes(model), closeness(told[how])
        print(f"{how}: {size:,} bytes, closeness {near:.2f}")
assert not passed or torch.allclose(*told.values(), atol=1e-4)
print(
    "the same answers" if passed else "First solve this exercise: then the smaller model follows."
)

# %% [markdown] tags=["solution"]
# **Why.** A neuron is a row of the up layer, an entry of its bias, and a column of the down layer: 384 + 1 + 384 = 769 numbers. The down layer's bias belongs to its *outputs*, and these all stay; so does the width of the stream, or no other layer would fit any more. That is why neurons are so easy to remove: nobody outside of the block knows how many there are.
#
# The control answers the same because GELU of 0 is 0. With an activation that is not 0 at 0, such as a sigmoid, a zeroed neuron would go on speaking, with 1/2. Cutting its column makes it silent whatever the activation is.

# %% tags=["solution"]
x, keep = torch.tensor([[1.0, -2.0]]), torch.tensor([True, False])
up, bias, down = torch.tensor([[1.0, 0], [0, 1]]), torch.zeros(2), torch.tensor([[1.0, 1.0]])
less_up, less_bias, less_down = without_neurons(up, bias, down, keep)
for name, activation in {"gelu": F.gelu, "sigmoid": torch.sigmoid}.items():
    removed = activation(x @ less_up.T + less_bias) @ less_down.T
    zeroed = activation(x @ (up * keep[:, None]).T + bias * keep) @ down.T
    print(f"{name}: removed {removed.item():.2f}, as zeros {zeroed.item():.2f}")

# %% [markdown]
# ## Exercise 2 · How much does a layer turn? ★★ (15 minutes)
#
# A layer that hands on what it was given can be removed. The **block influence** of ShortGPT measures that: 1 minus the mean cosine between what goes into a layer and what comes out. Write `block_influence(hidden, mask)`:
#
# - `hidden`: shape (layers + 1, texts, tokens, width). `hidden[0]` goes into the first layer, `hidden[1]` comes out of it and goes into the second, and so on;
# - `mask`: shape (texts, tokens), 1 for a real token and 0 for padding;
# - returns a tensor of shape (layers,): for each layer 1 minus the **mean, over all real tokens, of the cosine of each token**. Each token counts the same, in whichever text.
#
# **Predict** first: a layer doubles every hidden state. What is its influence? And that of a layer that turns each state upside down?
#
# <details><summary>Hint 1</summary>All inputs of the layers are <code>hidden[:-1]</code>. What are all outputs?</details>
# <details><summary>Hint 2</summary><code>F.cosine_similarity(a, b, dim=-1)</code> makes one number of each pair of vectors: the width is gone.</details>
# <details><summary>Hint 3</summary>A mask of bool, of shape (texts, tokens), chooses among these two dimensions at once: the shape after it is (layers, real tokens).</details>


# %%
def block_influence(hidden, mask):
    """Return 1 minus the mean cosine between each layer's input and output, over real tokens."""
    ### BEGIN SOLUTION
    cosines = F.cosine_similarity(hidden[:-1], hidden[1:], dim=-1)
    return 1 - cosines[:, mask.bool()].mean(dim=1)
    ### END SOLUTION


# %%
passed = checks.check_block_influence(block_influence)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# **In the real model.** Your influence of each layer of MiniLM, beside what it foretells: how close the model stays when this very layer is taken out. Each layer is the control of the others. Does the least influence cost least?

# %% atol=0.02
inputs = {name: test[0][name] for name in ("input_ids", "attention_mask")}
with torch.no_grad():
    hidden = torch.stack(minilm(**inputs, output_hidden_states=True).hidden_states)
influence = block_influence(hidden, inputs["attention_mask"]) if passed else None
for layer in range(6):
    others = [number for number in range(6) if number != layer]
    without = closeness(models.embed(distillation.student_from(minilm, others), test))
    told = "?" if influence is None else f"{influence[layer]:.2f}"
    print(f"layer {layer}: your influence {told}, closeness without it {without:.2f}")
print("" if passed else "First solve this exercise: then the influences stand here.", end="")

# %% [markdown] tags=["solution"]
# **Why.** A cosine does not see lengths: doubling has influence 0, turning upside down has 2, the most there is. (Most models take the length away at the next norm anyway.) Influence finds the last layer, without which nothing works, and the middle ones, of which each can be spared. But it is a first look, not a verdict: layer 0 has hardly more influence than the three behind it, and taking it out costs much more. The measure sees how much a layer turns, not who needs that turn; behind layer 0, that may be all the others.
#
# A trap: the last entry of `hidden_states` of a Llama has already gone through the norm behind the last layer. There the last influence is that of layer and norm together. The library's function listens to the layers themselves.

# %% tags=["solution"]
torch.manual_seed(0)
start = torch.randn(1, 4, 8)
stack, everywhere = torch.stack([start, 2 * start, -2 * start]), torch.ones(1, 4)
doubled, turned = block_influence(stack, everywhere).tolist()
print(f"doubled {abs(doubled):.1f}, upside down {turned:.1f}")

# %% [markdown]
# ## Exercise 3 · What the loss owes to a neuron ★★ (15 minutes)
#
# Imagine a gate before each neuron's way out, a factor $z$ that is 1 now. If it closes, each activation $a$ goes to 0, a change of $-a$; so, to first order, the loss of a text changes by $-\sum_t a_t g_t$, where $g_t$ is the gradient of the loss by the activation at token $t$. How much that is, whichever its sign, is the **Taylor score**. Write `gate_scores(activations, gradients)`:
#
# - `activations` and `gradients`: both of shape (texts, tokens, neurons);
# - returns a tensor of shape (neurons,): $\sum_\text{texts} \big| \sum_\text{tokens} a \cdot g \big|$.
#
# **Predict** first: two tokens, one neuron, the activations are 1 and 1, the gradients +3 and −3. What is the score if both tokens are of one text? And if each is a text of its own?
#
# <details><summary>Hint 1</summary>Multiply token by token first.</details>
# <details><summary>Hint 2</summary>Three steps are left, in the order of the formula read from the inside: a sum, an absolute value, a sum.</details>
# <details><summary>Hint 3</summary>The tokens are dimension 1. After that sum, the shape is (texts, neurons).</details>


# %%
def gate_scores(activations, gradients):
    """Return for each neuron the sum over texts of |sum over tokens of activation · gradient|."""
    ### BEGIN SOLUTION
    of_each_text = (activations * gradients).sum(dim=1)
    return of_each_text.abs().sum(dim=0)
    ### END SOLUTION


# %%
passed = checks.check_gate_scores(gate_scores)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# **In the real model.** The tiny language model is asked about 64 windows of speeches, and a hook keeps the activations of its neurons with their gradients. Half of the neurons are removed, and the perplexity on a held-out text is measured (lower is better). The controls choose by the loudness of a neuron alone, and at random.

# %%
student, tokenizer = models.load_tiny_lm("student"), models.load_tiny_tokenizer()
speeches, held_out = (data.speech_tokens(tokenizer, part) for part in ("validation", "test"))
text, windows = data.excerpts(held_out, 1)[0], speeches[: 64 * 64].view(64, 64)
watched, found = copy.deepcopy(student), {}


def keep_activations(name):
    """Return a hook that keeps what a layer is given, and lets it collect its gradient."""
    return lambda layer, given: found.update({name: given[0]}) or given[0].retain_grad()


for place, layer in enumerate(watched.model.layers):
    layer.mlp.down_proj.register_forward_pre_hook(keep_activations(f"model.layers.{place}.mlp"))
watched(windows, labels=windows).loss.backward()


# %% rtol=0.03
def halved(scores):
    """Return the perplexity of the student without half of its neurons."""
    model = copy.deepcopy(student)
    pruning.remove_neurons_(model, pruning.layer_mask(scores, 0.5))
    return metrics.perplexity(model, text, window=128)


print(f"whole: perplexity {metrics.perplexity(student, text, window=128):.1f}")
generator = torch.Generator().manual_seed(0)
chance = {name: torch.rand(a.shape[-1], generator=generator) for name, a in found.items()}
print(f"half of the neurons, at random: {halved(chance):.1f}", end="; ")
loudness = {name: a.detach().abs().sum((0, 1)) for name, a in found.items()}
print(f"by loudness: {halved(loudness):.1f}", end="; ")
yours = {n: gate_scores(a.detach(), a.grad) if passed else None for n, a in found.items()}
print(f"by your score: {halved(yours):.1f}" if passed else "first solve exercise 3")

# %% [markdown] tags=["solution"]
# **Why.** Within a text, the changes at its tokens add up to *one* change of *one* loss, so +3 and −3 cancel: the score is 0. As two texts they are two losses, and the score is 6: to one text the neuron is a help, to the other a harm, and who removes it changes both. That is the whole meaning of where the bars of the absolute value stand.
#
# Loudness alone does well here, and the gradient adds a little; both are far from chance. So small a lead on one text proves nothing yet: measure on more texts before you believe it.
#
# The score is the gate's derivative exactly. Only for the whole way from 1 to 0 is it an approximation. Autograd agrees:

# %% tags=["solution"]
torch.manual_seed(0)
a, way_out = torch.randn(3, 4, 5), torch.randn(4, 5)
gates = torch.ones(3, 5, requires_grad=True)  # one for each text
signal = a * gates[:, None]
signal.retain_grad()
(signal * way_out).sin().sum().backward()
assert torch.allclose(gate_scores(a, signal.grad), gates.grad.abs().sum(0))
one, two = torch.ones(1, 2, 1), torch.tensor([[[3.0], [-3.0]]])
print("one text:", *gate_scores(one, two).tolist(), end="; ")
print("two texts:", *gate_scores(one.view(2, 1, 1), two.view(2, 1, 1)).tolist())

# %% [markdown]
# ## Exercise 4 · New numbers for old tokens ★★ (15 minutes)
#
# A table of embeddings has a row for each token of the vocabulary. If a model only ever reads reviews, most rows are never used, and can go. The rows that stay move up: their tokens get new numbers. Write `renumber(ids, keep, unknown)`:
#
# - `ids`: a tensor of whole numbers, of any shape: old ids of tokens;
# - `keep`: a sorted list, the old ids of the tokens that stay. New id 0 is the first of them, 1 the second, and so on;
# - `unknown`: the **old** id of the token that stands for all that are gone. It is in `keep`;
# - returns the new ids, a tensor of the shape of `ids`.
#
# **Predict** first: `keep` is `[0, 5, 9]`, and `unknown` is 5. What becomes of the ids 9, 5 and 2?
#
# <details><summary>Hint 1</summary><code>enumerate(keep)</code> gives each new id with the old one. Which of the two do you ask for, and which is the answer?</details>
# <details><summary>Hint 2</summary>A dictionary's <code>get</code> takes a second argument: what it answers where there is no entry. Is that an old or a new id?</details>
# <details><summary>Hint 3</summary><code>ids.flatten().tolist()</code> makes a plain list of any shape; <code>view(ids.shape)</code> goes back.</details>


# %%
def renumber(ids, keep, unknown):
    """Return the ids of a smaller vocabulary; what is not kept becomes unknown."""
    ### BEGIN SOLUTION
    new_ids = {old: new for new, old in enumerate(keep)}
    flat = [new_ids.get(old, new_ids[unknown]) for old in ids.flatten().tolist()]
    return torch.tensor(flat).view(ids.shape)
    ### END SOLUTION


# %%
passed = checks.check_renumber(renumber)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# **In the real model.** The table is half of MiniLM. It keeps the tokens of 2,000 reviews; the control keeps as many, drawn at random. Before anything is removed, the whole model tells what this will cost: it is given `[UNK]` for each token that is to go.

# %%
seen = {token for batch in learn for token in batch["input_ids"].flatten().tolist()}
kept = sorted({*seen, *words.all_special_ids})
order = torch.randperm(len(words), generator=torch.Generator().manual_seed(0)).tolist()
drawn = sorted({*order[: len(kept)], *words.all_special_ids})


def with_ids(change):
    """Return the test batch with other ids: change(ids)."""
    return [test[0] | {"input_ids": change(test[0]["input_ids"])}]


# %% atol=0.02
for name, keep in {"of the reviews": kept, "at random": drawn}.items():
    stays = torch.isin(torch.arange(len(words)), torch.tensor(keep))
    given = with_ids(lambda ids, s=stays: torch.where(s[ids], ids, words.unk_token_id))
    told = models.embed(minilm, given)
    print(f"tokens {name}: {len(keep):,} rows, closeness {closeness(told):.2f}", end="; ")
    if passed:
        model = copy.deepcopy(minilm)
        model.embeddings.word_embeddings.weight.data = minilm.get_input_embeddings().weight[keep]
        smaller = with_ids(lambda ids, k=keep: renumber(ids, k, words.unk_token_id))
        assert torch.allclose(models.embed(model, smaller), told, atol=1e-4)
        print(f"smaller, the same answers: {metrics.size_in_bytes(model):,} bytes")
    else:
        print("first solve exercise 4")

# %% [markdown] tags=["solution"]
# **Why.** A text asks for an *old* number, so the old ones are the keys: `{0: 0, 5: 1, 9: 2}`. The unknown token has moved as well, so 9, 5 and 2 become 2, 1 and 1. Both mistakes, the table turned round and the unknown token's old number, raise no error as long as the numbers lie in the table: the model just reads another text.
#
# To a text whose tokens are all kept, the smaller model answers exactly as before: nothing was approximated. What a removed token costs, the tokens of a held-out text decide, not the bytes. The dictionary is good for a few thousand ids; for many, a table of all new ids does the same in one step:

# %% tags=["solution"]
table = torch.full((len(words),), kept.index(words.unk_token_id))
table[torch.tensor(kept)] = torch.arange(len(kept))
ids = test[0]["input_ids"]
assert torch.equal(table[ids], renumber(ids, kept, words.unk_token_id))
print("9, 5 and 2 become", *renumber(torch.tensor([9, 5, 2]), [0, 5, 9], 5).tolist())

# %% [markdown]
# ## Exercise 5 · Fewer layers, or thinner ones? ★★★ (25 minutes)
#
# A Llama shall fit into so many parameters. Two ways lead there: fewer layers, or fewer neurons in each. What a Llama consists of, without any biases:
#
# | where | tensors |
# |---|---|
# | before the layers | the table of embeddings, (vocabulary, hidden) |
# | attention of each layer | queries (hidden, hidden), keys (key_value, hidden), values (key_value, hidden), output (hidden, hidden) |
# | feed-forward block of each layer | gate (intermediate, hidden), up (intermediate, hidden), down (hidden, intermediate) |
# | each layer | two norms, (hidden,) each |
# | behind the layers | one norm, (hidden,); and the output layer, (vocabulary, hidden): if it is **tied**, it *is* the table of embeddings, and costs nothing |
#
# With pencil and paper, write the number of parameters as a sum, and solve it twice. Then write `depth_or_width(shape, tied, target)`:
#
# - `shape`: `(vocabulary, hidden, intermediate, key_value, layers)`, five whole numbers; `tied`: True or False; `target`: a number of parameters, less than the whole model has, and enough for at least one layer, or 8 neurons in each;
# - returns `(deep, wide)`: the largest number of layers that fits at full width; and the largest number of neurons in each layer, **a multiple of 8**, that fits with all layers. What has just `target` parameters fits.
#
# **Predict** first: a model with most of its parameters in the table shall be halved. Which way gets there at all?
#
# <details><summary>Hint 1</summary>Four costs are all you need: outside of the layers; of a layer, all beside its neurons; of one neuron.</details>
# <details><summary>Hint 2</summary>Deep: what is left of the target behind the table, divided by a whole layer, without the remainder: <code>//</code>.</details>
# <details><summary>Hint 3</summary>Wide: share what is left among all layers, take off what a layer costs beside its neurons, divide by one neuron, and then go down to a multiple of 8.</details>


# %%
def depth_or_width(shape, tied, target):
    """Return (layers at full width, neurons at full depth) that fit into a target."""
    ### BEGIN SOLUTION
    vocabulary, hidden, intermediate, key_value, layers = shape
    tables = vocabulary * hidden if tied else 2 * vocabulary * hidden
    beside = 2 * hidden * hidden + 2 * key_value * hidden + 2 * hidden
    neuron = 3 * hidden
    left = target - tables - hidden
    deep = left // (beside + intermediate * neuron)
    wide = (left - layers * beside) // (layers * neuron)
    return deep, wide // 8 * 8
    ### END SOLUTION


# %%
passed = checks.check_depth_or_width(depth_or_width)
### BEGIN HIDDEN TESTS
assert passed
### END HIDDEN TESTS

# %% [markdown]
# **In the real model.** The larger of the tiny language models has 5 layers of 640 neurons and 4.3 million parameters. It shall fit into 70 % of them. Your two numbers say how; then both are done, and nothing is healed. Deep: the first layer stays, and the last ones; its control keeps as many, the first ones. Wide: the neurons of the highest Wanda score stay; its control draws as many at random.

# %%
teacher = models.load_tiny_lm("teacher")
whole = sum(parameter.numel() for parameter in teacher.parameters())
target, shape = whole * 7 // 10, (2048, 256, 640, 256, 5)
norms = pruning.input_norms(teacher, [{"input_ids": windows}])
scores = pruning.neuron_scores(teacher, pruning.wanda_scores(teacher, norms))
chance = {name: torch.rand(640, generator=generator) for name in scores}


def thinner(scores, neurons):
    """Return a copy of the teacher with so many neurons in each layer."""
    model = copy.deepcopy(teacher)
    pruning.remove_neurons_(model, pruning.layer_mask(scores, 1 - neurons / 640))
    return model


# %% rtol=0.03
print(f"{whole:,} parameters, perplexity {metrics.perplexity(teacher, text, window=128):.1f}")
if passed:
    deep, wide = depth_or_width(shape, True, target)
    made = {
        f"{deep} layers": distillation.student_from(teacher, [0, *range(6 - deep, 5)]),
        f"{deep} layers, the first ones": distillation.student_from(teacher, list(range(deep))),
        f"{wide} neurons": thinner(scores, wide),
        f"{wide} neurons, at random": thinner(chance, wide),
    }
    for name, model in made.items():
        size = sum(parameter.numel() for parameter in model.parameters())
        assert size <= target
        print(f"{name}: {size:,}, {metrics.perplexity(model, text, window=128):.1f}")
print(f"target {target:,}" if passed else "First solve this exercise: then both ways stand here.")

# %% [markdown] tags=["solution"]
# **Why.** Whichever way is taken, the table and the last norm are paid first. What is left is a number of whole layers; or, shared among all layers and without their attention, a number of neurons. So each way has a floor. Depth cannot go below the table with one layer; width cannot go below the table *and all attentions*. A model whose parameters are mostly in the table reaches half of its size by neither: remove tokens (exercise 4). Depth moves in coarse steps, too: at 70 % this model loses a little more than it must.
#
# Look at the two controls: here, which layers and which neurons stay decides more than whether it is layers or neurons. So a comparison of depth with width is one of two good choices, or it says nothing. And equal parameters need not be equal time: a layer that is gone takes its attention with it, whose work grows with the length of the text.
#
# The sum foretells real models. Here is one of the shape of SmolLM2, built without any values, and what three targets ask of it:

# %% tags=["solution"]
from transformers import LlamaConfig, LlamaForCausalLM


def parameters(neurons, layers):
    """Build a Llama of SmolLM2's other sizes without values, and count."""
    sizes = {"vocab_size": 49152, "hidden_size": 576, "tie_word_embeddings": True}
    heads = {"num_attention_heads": 9, "num_key_value_heads": 3}
    smaller = {"intermediate_size": neurons, "num_hidden_layers": layers}
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**sizes, **heads, **smaller))
    return sum(parameter.numel() for parameter in model.parameters())


# %% tags=["solution"]
whole = parameters(1536, 30)
for share in (75, 50, 25):
    goal = whole * share // 100
    deep, wide = depth_or_width((49152, 576, 1536, 192, 30), True, goal)
    assert parameters(1536, deep) <= goal < parameters(1536, deep + 1)
    assert wide < 8 or parameters(wide, 30) <= goal < parameters(wide + 8, 30)
    told = f"{wide} neurons" if wide > 0 else "no number of neurons"
    print(f"{share} % of {whole:,}: {deep} layers, or {told}")

# %% [markdown]
# ## Wrap-up
#
# You removed neurons, measured what a layer does and what the loss owes to a neuron, gave a smaller vocabulary its numbers, and planned a size in two ways. What you removed is really gone: no zeros are left behind that somebody would have to skip.
