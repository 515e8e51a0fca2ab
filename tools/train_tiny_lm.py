"""Train the course's own language models on the bundled speeches; commit what it writes.

Usage: python tools/train_tiny_lm.py tokenizer
       python tools/train_tiny_lm.py teacher [--steps 4000]
       python tools/train_tiny_lm.py student
       python tools/train_tiny_lm.py sheet

A killed run goes on where its last checkpoint (build/tiny-*.safetensors) stood. Speeches
are split by year, so that no speech and no year stands on both sides: years that end in 0
are the validation set (the curve, and which checkpoint is kept), years that end in 5 are
the test set (read once, for the data sheet), all others are trained on.
"""

import argparse
import json
from pathlib import Path

import torch

from lightcourse import data, files, metrics, models, training

ROOT = Path(__file__).parents[1]
BUNDLED = ROOT / "lightcourse" / "bundled" / "tiny-lm"
BUILD = ROOT / "build"
WINDOW = 256
RECIPES = {
    "teacher": training.Recipe(
        steps=4000, learning_rate=2e-3, warmup=100, weight_decay=0.1, evaluate_every=200
    ),
    "student": training.Recipe(
        steps=3000, learning_rate=3e-3, warmup=100, weight_decay=0.1, evaluate_every=200
    ),
}


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


def train_model(size: str, steps: int | None):
    """Train one size; write its fp16 weights and its held-out curve."""
    torch.set_num_threads(1)
    recipe = RECIPES[size]
    if steps:
        recipe = training.Recipe(**{**vars(recipe), "steps": steps})
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
        data.token_batches(tokens["train"], WINDOW, batch_size=16),
        recipe,
        loss=bfloat16_loss,
        evaluate=validation_loss,
        checkpoint=BUILD / f"tiny-{size}.safetensors",
    )
    halves = {k: v.half() for k, v in model.state_dict().items() if k != "lm_head.weight"}
    files.save_tensors(BUNDLED / f"{size}.safetensors", halves)
    log = {"recipe": vars(recipe), "losses": history.losses, "evaluations": history.evaluations}
    (BUNDLED / f"{size}-curve.json").write_text(json.dumps(thin(log)) + "\n")


def thin(log, every=20):
    """Replace the loss of each step by the mean of ``every`` steps, to 4 decimals."""
    losses = torch.tensor(log["losses"])
    means = [round(float(chunk.mean()), 4) for chunk in losses.split(every)]
    evaluations = [(step, round(score, 4)) for step, score in log["evaluations"]]
    return {**log, "losses": means, "losses_every": every, "evaluations": evaluations}


def main():
    """Do what the first argument names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["tokenizer", "teacher", "student"])
    parser.add_argument("--steps", type=int)
    arguments = parser.parse_args()
    if arguments.what == "tokenizer":
        train_tokenizer()
    else:
        train_model(arguments.what, arguments.steps)


if __name__ == "__main__":
    main()
