"""Fine-tune MiniLM to tell the Factbook's sections; commit the adapter that it writes.

Usage: python tools/train_teacher.py train
       python tools/train_teacher.py sheet

A killed run goes on where its last checkpoint (build/factbook-teacher.safetensors) stood.
The first 1,024 rows of the training split are left out, so that chapter 06 can let a
student learn from texts that its teacher has never seen. The validation split chooses the
checkpoint; the test split is read once, for the data sheet.
"""

import argparse
import json
from pathlib import Path

import torch

from lightcourse import data, lora, metrics, models, training

ROOT = Path(__file__).parents[1]
BUNDLED = ROOT / "lightcourse" / "bundled" / "factbook-teacher"
CHECKPOINT = ROOT / "build" / "factbook-teacher.safetensors"
LEFT_OUT = 1024
TOKENS = 24
RECIPE = training.Recipe(
    steps=600,
    learning_rate=1e-3,
    warmup_steps=30,
    groups=[training.Group("^head", learning_rate=5e-3)],
    evaluate_every=60,
)


def new_teacher():
    """Return MiniLM with an untrained head of 13 classes and an empty adapter."""
    torch.manual_seed(RECIPE.seed)
    teacher = models.EncoderClassifier(models.load_minilm(), num_labels=13)
    lora.add_lora_(teacher, rank=8, targets=["query", "value"])
    teacher.head.requires_grad_(True)
    return teacher


def train_teacher():
    """Train adapter and head; write them and the curve."""
    torch.set_num_threads(1)
    factbook, tokenizer = data.load_factbook("section"), models.load_minilm_tokenizer()
    learn = factbook["train"].select(range(LEFT_OUT, len(factbook["train"])))
    judged = data.ordered_batches(factbook["validation"].select(range(400)), tokenizer, TOKENS)
    labels = torch.cat([batch["labels"] for batch in judged])

    def validation_loss(model):
        logits = metrics.predict(model, judged)
        loss = torch.nn.functional.cross_entropy(logits, labels).item()
        right = metrics.accuracy(logits.argmax(-1), labels)
        print(f" validation loss {loss:.4f}, accuracy {right:.3f}", flush=True)
        return loss

    teacher = new_teacher()
    history = training.train(
        teacher,
        data.text_batches(learn, tokenizer, batch_size=32, max_length=TOKENS),
        RECIPE,
        evaluate=validation_loss,
        checkpoint=CHECKPOINT,
    )
    BUNDLED.mkdir(parents=True, exist_ok=True)
    lora.save_lora(teacher, BUNDLED)
    curve = [(step, round(score, 4)) for step, score in history.evaluations]
    (BUNDLED / "curve.json").write_text(json.dumps({"evaluations": curve}) + "\n")


SHEET = """# The teacher of chapter 06

An adapter in peft's format (LoRA, rank 8 beside `query` and `value` of all six layers) and a
head, made by `tools/train_teacher.py`: with them MiniLM tells from which of 13 sections of the
CIA World Factbook a passage comes.

| | |
|---|---|
| numbers in the file | {numbers:,} |
| bytes | {size:,} |
| labelled passages it was trained on | {passages:,} |
| steps of 32 passages of {tokens} tokens at most | {steps} |
| **accuracy, test countries** | **{accuracy:.3f}** |
| macro-F1, test countries | {macro_f1:.3f} |

- **Not seen in training:** the first {left_out:,} rows of the training split, and all
  countries of the validation split (which chose the checkpoint) and of the test split.
- **Base model:** all-MiniLM-L6-v2, which is not in this folder: `lightcourse assets` gets it.
- **Not for:** anything but these 13 names. It always names one, however strange the text.
"""


def write_sheet():
    """Measure the teacher on countries it has not seen; write the sheet."""
    factbook, tokenizer = data.load_factbook("section"), models.load_minilm_tokenizer()
    teacher = models.EncoderClassifier(models.load_minilm(), num_labels=13)
    lora.load_lora_(teacher, BUNDLED)
    judged = data.ordered_batches(factbook["test"], tokenizer, TOKENS)
    labels = torch.cat([batch["labels"] for batch in judged])
    answers = metrics.predict(teacher, judged).argmax(-1)
    steps = json.loads((BUNDLED / "curve.json").read_text())["evaluations"][-1][0]
    sheet = SHEET.format(
        numbers=sum(p.numel() for p in training.trainable_parameters(teacher).values()),
        size=(BUNDLED / "adapter_model.safetensors").stat().st_size,
        passages=len(factbook["train"]) - LEFT_OUT,
        tokens=TOKENS,
        steps=steps,
        left_out=LEFT_OUT,
        accuracy=metrics.accuracy(answers, labels),
        macro_f1=metrics.macro_f1(answers, labels),
    )
    (BUNDLED / "README.md").write_text(sheet)


def main():
    """Do what the first argument names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["train", "sheet"])
    if parser.parse_args().what == "train":
        train_teacher()
    else:
        write_sheet()


if __name__ == "__main__":
    main()
