"""Train the course's own language models on the bundled speeches; commit what it writes.

Usage: python tools/train_tiny_lm.py tokenizer
       python tools/train_tiny_lm.py teacher
       python tools/train_tiny_lm.py student
       python tools/train_tiny_lm.py gpt2
       python tools/train_tiny_lm.py moe
       python tools/train_tiny_lm.py sheet

A killed run goes on where its last checkpoint (build/tiny-*.safetensors) stood. Speeches
are split by year, so that no speech and no year stands on both sides: years that end in 0
are the validation set (the curve, and which checkpoint is kept), years that end in 5 are
the test set (read once, for the data sheet), all others are trained on.
"""

import argparse
import json
import lzma
from pathlib import Path

import torch

from lightcourse import data, files, metrics, models, training
from lightcourse.plots.palette import COLOURS

ROOT = Path(__file__).parents[1]
BUNDLED = ROOT / "lightcourse" / "bundled" / "tiny-lm"
BUILD = ROOT / "build"
WINDOW = 256
RECIPES = {
    "teacher": training.Recipe(
        steps=4000, learning_rate=2e-3, warmup_steps=100, weight_decay=0.1, evaluate_every=200
    ),
    "student": training.Recipe(
        steps=3000, learning_rate=3e-3, warmup_steps=100, weight_decay=0.1, evaluate_every=200
    ),
    "gpt2": training.Recipe(
        steps=3000, learning_rate=3e-3, warmup_steps=200, weight_decay=0.1, evaluate_every=200
    ),
    "moe": training.Recipe(
        steps=1000, learning_rate=3e-3, warmup_steps=50, weight_decay=0.1, evaluate_every=100
    ),
}
WINDOWS = {"teacher": 16, "student": 16, "gpt2": 16, "moe": 8}  # a step


def train_tokenizer():
    """Fit a byte-level BPE of 2,048 tokens on the training speeches alone."""
    from tokenizers import ByteLevelBPETokenizer

    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(
        data.load_speeches("train")["text"], vocab_size=2048, special_tokens=["<|endoftext|>"]
    )
    BUNDLED.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(BUNDLED / "tokenizer.json"))


def bfloat16_loss(model, batch):
    """Return the model's loss, its matrix products computed in bfloat16."""
    with torch.autocast("cpu", torch.bfloat16):
        return model(**batch).loss


def balanced_loss(model, batch):
    """Return a mixture's loss in float32, with what keeps its experts evenly loaded."""
    return model(**batch, output_router_logits=True).loss


def train_model(size: str):
    """Train one size; write its fp16 weights and its held-out curve."""
    torch.set_num_threads(1)
    recipe = RECIPES[size]
    tokenizer = models.load_tiny_tokenizer()
    tokens = {s: data.speech_tokens(tokenizer, s) for s in ("train", "validation")}
    sample = tokens["validation"][: 256 * WINDOW]
    torch.manual_seed(recipe.seed)
    model = models.new_tiny_lm(size)

    def validation_loss(model):
        loss = metrics.cross_entropy(model, sample, window=WINDOW)
        print(f" validation loss {loss:.4f}", flush=True)
        return loss

    history = training.train(
        model,
        data.token_batches(tokens["train"], WINDOW, batch_size=WINDOWS[size]),
        recipe,
        loss=balanced_loss if size == "moe" else bfloat16_loss,
        evaluate=validation_loss,
        checkpoint=BUILD / f"tiny-{size}.safetensors",
    )
    halves = {k: v.half() for k, v in model.state_dict().items() if k != "lm_head.weight"}
    files.save_tensors(halves, BUNDLED / f"{size}.safetensors")
    log = {"recipe": vars(recipe), "losses": history.losses, "evaluations": history.evaluations}
    (BUNDLED / f"{size}-curve.json").write_text(json.dumps(thin(log)) + "\n")


def thin(log, every=20):
    """Replace the loss of each step by the mean of ``every`` steps, to 4 decimals."""
    losses = torch.tensor(log["losses"])
    means = [round(float(chunk.mean()), 4) for chunk in losses.split(every)]
    evaluations = [(step, round(score, 4)) for step, score in log["evaluations"]]
    return {**log, "losses": means, "losses_every": every, "evaluations": evaluations}


def bits_per_byte_by_year(size: str, split: str) -> dict[int, tuple[float, int]]:
    """Return (bits per byte, bytes) of one split, for each year."""
    model, tokenizer = models.load_tiny_lm(size), models.load_tiny_tokenizer()
    found = {}
    for speech in data.load_speeches(split):
        score = metrics.bits_per_byte(model, tokenizer, speech["text"], WINDOW)
        found[speech["year"]] = round(score, 4), len(speech["text"].encode())
    return found


def mean(by_year) -> float:
    """Return the mean over all bytes."""
    return sum(b * n for b, n in by_year.values()) / sum(n for _, n in by_year.values())


def draw_curves(logs, path):
    """Draw what each model's loss did, on training windows and on held-out speeches."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for (size, log), colour in zip(logs.items(), COLOURS, strict=False):
        step = WINDOWS[size] * WINDOW / 1e6
        seen = [step * log["losses_every"] * (i + 1) for i in range(len(log["losses"]))]
        ax.plot(
            seen, log["losses"], color=colour, alpha=0.4, linewidth=1, label=f"{size}, training"
        )
        steps, scores = zip(*log["evaluations"], strict=True)
        held_out = [step * number for number in steps]
        ax.plot(held_out, scores, "o-", color=colour, label=f"{size}, held out")
    ax.set(xlabel="millions of tokens seen", ylabel="loss, nats per token", ylim=(2.5, 5.5))
    ax.grid(alpha=0.3)
    ax.legend(frameon=False)
    figure.savefig(path, dpi=100)


SHEET = """# The tiny language models

Four decoders and their tokenizer, made by `tools/train_tiny_lm.py` for this course: two Llamas,
a GPT-2, whose linear layers are `Conv1D`, and a Mixtral (`moe`), each of whose layers has 8
experts, of which a token visits 2. They write plausible presidential English and know nothing;
being small, trained in full precision and ours to publish is what they are good for. The Mixtral
was trained on the fewest tokens, and is the weakest.

{table}

For scale: `xz -9` needs {xz:.3f} bits per byte for the test speeches.

- **Corpus:** 233 State of the Union messages, 1790 to 2021 (PDDL / CC0; see NOTICE).
- **Split by year**, so that no speech and no year is on both sides: years ending in 0 are
  validation (they chose the checkpoint), years ending in 5 are test (read only for this
  sheet), all others are training text: {train_tokens:,} tokens. A president's neighbouring
  speeches share phrases, so unseen *authors* would cost more bits.
- **Tokenizer:** byte-level BPE of 2,048 tokens, fitted on the training speeches alone.
- **Training:** AdamW, cosine schedule, products in bfloat16 (the Mixtral's in float32), weights
  kept in float32 and stored here as float16. The Mixtral's training loss, unlike the held-out
  one, holds 0.02 times what is least where its experts are evenly loaded. transformers adds that
  up over the layers before it compares, so expert 3 of all layers together is as busy as expert
  4; within a layer some experts have hardly any tokens. Curves: `*-curve.json`; scores of every
  year: `sheet.json`.
- **Not for:** facts, advice, or anything said in a president's name.

![Loss against tokens seen, four models: the held-out curves fall steeply, then flatten]({figure})
"""


def table(scores, logs) -> str:
    """Return what there is to say of each model, as a table with a column each."""
    tiny = {size: models.load_tiny_lm(size) for size in RECIPES}
    configs = {size: model.config for size, model in tiny.items()}
    rows = {
        "": RECIPES,
        "---": ["---"] * len(RECIPES),
        "parameters": [f"{sum(p.numel() for p in m.parameters()):,}" for m in tiny.values()],
        "layers x width": [f"{c.num_hidden_layers} x {c.hidden_size}" for c in configs.values()],
        "steps": [f"{logs[size]['evaluations'][-1][0]:,}" for size in RECIPES],
        "windows of 256 tokens in a step": [str(WINDOWS[size]) for size in RECIPES],
    }
    for split, name in (("validation", "{}"), ("test", "**{}**")):
        means = [name.format(f"{mean(scores[split][size]):.3f}") for size in RECIPES]
        rows[name.format(f"bits per byte, {split} speeches")] = means
    return "\n".join(f"| {' | '.join([name, *cells])} |" for name, cells in rows.items())


def write_sheet():
    """Measure the models on speeches they have not seen; write the sheet and its figure."""
    scores = {
        split: {size: bits_per_byte_by_year(size, split) for size in RECIPES}
        for split in ("validation", "test")
    }
    logs = {s: json.loads((BUNDLED / f"{s}-curve.json").read_text()) for s in RECIPES}
    draw_curves(logs, BUNDLED / "curves.png")
    (BUNDLED / "sheet.json").write_text(json.dumps(scores) + "\n")
    text = "\n".join(data.load_speeches("test")["text"]).encode()
    sheet = SHEET.format(
        table=table(scores, logs),
        xz=8 * len(lzma.compress(text, preset=9)) / len(text),
        train_tokens=len(data.speech_tokens(models.load_tiny_tokenizer(), "train")),
        figure="curves.png",
    )
    (BUNDLED / "README.md").write_text(sheet)


def main():
    """Do what the first argument names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["tokenizer", *RECIPES, "sheet"])
    what = parser.parse_args().what
    if what == "tokenizer":
        train_tokenizer()
    elif what == "sheet":
        write_sheet()
    else:
        train_model(what)


if __name__ == "__main__":
    main()
