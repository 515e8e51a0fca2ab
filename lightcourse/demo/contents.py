"""What the page answers with: the model in 8 bits, a head, passages, and what 8 bits cost.

It takes a minute to make, and is kept in the cache, by the hash of all that it is made of.
"""

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from lightcourse import assets, data, deployment, kernels, metrics, models, quantization
from lightcourse.quantization import onnx_form

# Tokens read of a text: 94 of 100 passages and 99 of 100 reviews have no more.
TOKENS = 64
# Reviews that the head learns from, of 10,483: reading all of them would take most of the time.
REVIEWS = 4_000
# Both encoders are asked so many questions, about one passage in so many.
QUESTIONS, COMPARED = 200, 4
BATCH = 32


def folder(countries: Path) -> Path:
    """Return the cache folder with the page's contents, making them where they are not there.

    Parameters
    ----------
    countries : path
        A JSON file: each country's name by the Factbook's code of two letters.

    Raises
    ------
    lightcourse.assets.AssetMissing
        When MiniLM was not fetched yet.
    ModuleNotFoundError
        When ONNX's packages are not installed.
    """
    names = json.loads(countries.read_text(encoding="utf-8"))
    assets.path("minilm")
    return assets.derive(f"demo-{_origin(countries)}", lambda folder: write(folder, names))


def _origin(countries):
    """Return 12 digits that change with whatever the contents are made of."""
    sources = Path(__file__), Path(deployment.onnx_files.__file__), Path(onnx_form.__file__)
    digest = hashlib.sha256((assets.path("minilm") / "manifest.json").read_bytes())
    for path in (countries, *sources):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def write(folder: Path, countries: dict[str, str]) -> None:
    """Write all files of the page but its own and the runtime: see :func:`folder`."""
    tokenizer = models.load_minilm_tokenizer()
    full, small = models.load_minilm(), models.load_minilm()
    quantization.quantize_(small, 8, activations=8, embeddings=8)
    deployment.export_encoder(small, folder / "model.onnx")
    session = deployment.open_onnx(folder / "model.onnx", torch.get_num_threads())
    read = {
        "float32": lambda texts: vectors(texts, tokenizer, lambda batch: _of_torch(full, batch)),
        "8 bits": lambda texts: vectors(texts, tokenizer, lambda batch: of_onnx(session, batch)),
    }
    sizes = {"float32": metrics.size_in_bytes(full), "8 bits": metrics.size_in_bytes(small)}
    pieces = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    (folder / "vocab.txt").write_text("\n".join(pieces), encoding="utf-8", newline="\n")
    head, judged = _judge(read)
    _write_json(folder / "head.json", head)
    searched = _search(folder, read, passages(countries))
    _write_json(folder / "ledger.json", _ledger(sizes, judged) | searched)


def vectors(texts: list[str], tokenizer, read: Callable) -> np.ndarray:
    """Return one vector of length 1 for each text, shape (texts, width), in float32.

    Texts of like length are read together; ``read`` makes vectors of a batch.
    """
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    found = {}
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        batch = tokenizer(
            [texts[i] for i in rows],
            truncation=True,
            max_length=TOKENS,
            padding=True,
            return_tensors="np",
        )
        found |= zip(rows, read(dict(batch)), strict=True)
    return np.stack([found[i] for i in range(len(texts))])


def of_onnx(session, batch: dict) -> np.ndarray:
    """Return the vectors of a batch as the exported model makes them."""
    names = [given.name for given in session.get_inputs()]
    return session.run(["sentence"], {name: batch[name] for name in names})[0]


def _of_torch(model, batch):
    inputs = {name: torch.from_numpy(batch[name]) for name in ("input_ids", "attention_mask")}
    return torch.nn.functional.normalize(models.embed(model, [inputs])).numpy()


# --- reviews ---------------------------------------------------------------------------------


def _judge(read):
    """Return a head for reviews, and for each encoder whether that head is right about each."""
    from sklearn.linear_model import LogisticRegression

    reviews = data.load_reviews()
    train = reviews["train"].select(range(0, len(reviews["train"]), 2)).select(range(REVIEWS))
    head = LogisticRegression(C=10, max_iter=1000)
    head.fit(read["float32"](train["text"][:]), train["label"][:])
    texts, labels = reviews["test"]["text"][:], np.array(reviews["test"]["label"][:])
    right = {name: head.predict(encode(texts)) == labels for name, encode in read.items()}
    majority = np.full(len(labels), np.bincount(train["label"][:]).argmax())
    right["always the commoner answer"] = majority == labels
    return {"weight": head.coef_[0].tolist(), "bias": float(head.intercept_[0])}, right


def _ledger(sizes, right):
    rows = [
        {"name": name, "bytes": sizes.get(name), "accuracy": float(answers.mean())}
        for name, answers in right.items()
    ]
    same = float((right["float32"] == right["8 bits"]).mean())  # there are two labels
    return {"rows": rows, "same_label": same, "reviews": len(right["float32"])}


# --- the Factbook ----------------------------------------------------------------------------


def passages(countries: dict[str, str]) -> list[dict]:
    """Return the passages that are sentences rather than lists, with their country's name."""
    splits = data.load_factbook()
    rows = [row for split in data.SPLITS for row in splits[split] if is_prose(row["text"])]
    return [
        {"country": countries[row["country"]], "section": row["section"], "text": row["text"]}
        for row in rows
    ]


def is_prose(text: str) -> bool:
    """Tell whether a passage has 12 words, and fewer commas and numbers than a list has."""
    words, breaks = len(text.split()), len(re.findall(r"[,;()0-9]+", text))
    return words >= 12 and len(text) <= 300 and breaks < words / 5


def as_read(passage: dict) -> str:
    """Return what the encoder reads of a passage: the country is not always in its text."""
    return f"{passage['country']}, {passage['section']}: {passage['text']}"


def _search(folder, read, rows):
    """Write the passages and their vectors; return how often both encoders find the same."""
    texts, questions, some = (
        [as_read(row) for row in rows],
        _questions(),
        slice(None, None, COMPARED),
    )
    index = read["8 bits"](texts)
    _write_json(folder / "passages.json", rows)
    q, scale = kernels.quantize_rows(index)
    (folder / "passages.bin").write_bytes(scale.astype("<f4").tobytes() + q.tobytes())
    small = (read["8 bits"](questions) @ index[some].T).argmax(1)
    full = (read["float32"](questions) @ read["float32"](texts[some]).T).argmax(1)
    same, among = float((full == small).mean()), len(index[some])
    return {"same_first": same, "questions": len(questions), "among": among}


def _questions():
    """Return short passages, which are not among those that are searched, as questions."""
    rows = data.load_factbook()["test"]["text"][:]
    short = [text for text in rows if 5 <= len(text.split()) < 12]
    return short[:: len(short) // QUESTIONS][:QUESTIONS]


def _write_json(path, value):
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8", newline="\n")
