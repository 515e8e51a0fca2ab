"""A model's card, made of what was measured."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lightcourse import files
from lightcourse.deployment.pickles import holds_pickle
from lightcourse.ledger import Row
from lightcourse.metrics import Share


@dataclass(frozen=True)
class ModelCard:
    """What somebody must know of a model before using it: Mitchell et al. 2019, arXiv 1810.03993.

    Nothing is filled in for you: what was not measured, or is NaN, is refused, so that a card
    never looks more complete than the work behind it.

    Parameters
    ----------
    about : str
        What the model is, how it was made, what it is for.
    limits : str
        What it was not made for, what was not looked at.
    row : Row
        The model's row of the ledger: name, bytes, quality, latency.
    measure : str
        What the row's quality is, such as "accuracy"; ``Ledger.measure``.
    groups : dict of str to dict
        From what the rows were grouped by ("class", "length") to what
        ``metrics.accuracy_by_group`` gives.
    paths : sequence of path
        The files of the model. Their hashes go into the card.
    licence : str
        The model's, as the hub writes it, such as "apache-2.0".
    data : dict of str to str
        The data it was trained and measured with, each with its licence.
    language : str
        Two letters.
    base_model : str, optional
        The model it was made from, by its name on the hub, "owner/name".
    claims : dict of str to float, optional
        Figures that a program finds in the card's head, under ``claims``.

    Raises
    ------
    ValueError
        When a text is empty, a figure is missing or NaN, or a file is missing, empty or a
        pickle.
    """

    about: str
    limits: str
    row: Row
    measure: str
    groups: Mapping[str, Mapping[object, Share]]
    paths: Sequence[str | os.PathLike]
    licence: str
    data: Mapping[str, str]
    language: str = "en"
    base_model: str | None = None
    claims: Mapping[str, float] | None = None
    hashes: dict[str, str] = field(init=False)

    def __post_init__(self):
        for name in ("about", "limits", "measure", "licence", "language"):
            _require_text(name, getattr(self, name))
        for name, licence in _filled("data", self.data).items():
            _require_text(f"data[{name!r}], its licence,", licence)
        _check_row(self.row)
        for title, shares in _filled("groups", self.groups).items():
            for group, share in _filled(f"groups[{title!r}]", shares).items():
                if not isinstance(share, Share):
                    raise ValueError(
                        f"groups[{title!r}][{group!r}] is a {type(share).__name__}; what "
                        "accuracy_by_group gives is wanted: a share with its interval"
                    )
        object.__setattr__(self, "hashes", _hashes(self.paths))

    def text(self) -> str:
        """Return the card: Markdown, under the head in YAML that the hub reads."""
        return f"---\n{self._head().to_yaml()}\n---\n\n" + "\n\n".join(self._parts()) + "\n"

    def save(self, folder: str | os.PathLike) -> Path:
        """Write the card as README.md into a folder, atomically, and return its path."""
        path = files.checked_folder(folder, "folder") / "README.md"
        text = self.text()
        return files.write_atomically(path, lambda p: p.write_text(text, encoding="utf-8"))

    def _head(self):
        from huggingface_hub import EvalResult, ModelCardData

        result = EvalResult(
            task_type="text-classification",
            dataset_type="other",
            dataset_name=", ".join(self.data),
            metric_type=self.measure,
            metric_value=round(self.row.quality, 4),
        )
        return ModelCardData(
            license=self.licence,
            language=self.language,
            base_model=self.base_model,
            model_name=self.row.name,
            eval_results=[result],
            claims=None if self.claims is None else dict(self.claims),
        )

    def _parts(self):
        yield f"# {self.row.name}"
        yield self.about
        yield "## Limits"
        yield self.limits
        yield "## What was measured"
        yield _table(("", ""), self._figures())
        for title, shares in self.groups.items():
            level = next(iter(shares.values())).level
            yield f"By {title}, with intervals that hold the truth {level:.0%} of the time:"
            yield _table((title, "share", "from", "to", "rows"), map(_cells, shares.items()))
        yield "## Licences"
        yield _table(("what", "licence"), [("this model", self.licence), *self.data.items()])
        yield "## Files"
        yield _table(("file", "bytes", "SHA-256"), self._files())

    def _figures(self):
        row = self.row
        yield self.measure, f"{row.quality:.3f}"
        yield "bytes stored", f"{row.stored:,}"
        yield "parameters trained", f"{row.trained:,}"
        yield "time of a call", str(row.latency)

    def _files(self):
        for path in map(Path, self.paths):
            yield path.name, f"{path.stat().st_size:,}", f"`{self.hashes[path.name]}`"


def _require_text(name, value):
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} is {value!r}; a card wants it in words")


def _filled(name, mapping):
    if not isinstance(mapping, Mapping) or not mapping:
        raise ValueError(f"{name} is {mapping!r}; a card wants one entry at least")
    return mapping


def _check_row(row):
    if row.latency is None:
        raise ValueError(f"row {row.name!r} has no latency; a card wants the time of a call")
    figures = {"stored": row.stored, "quality": row.quality, "trained": row.trained}
    for name, figure in (figures | {"latency": row.latency.median}).items():
        if not isinstance(figure, int | float) or not math.isfinite(figure):
            raise ValueError(f"row {row.name!r} has {name} {figure}; a card wants a number")
    if row.stored < 1:
        raise ValueError(f"row {row.name!r} has stored {row.stored}; a card wants bytes")


def _hashes(paths):
    paths = [files.checked_path(path) for path in paths]
    if not paths or len({path.name for path in paths}) < len(paths):
        names = [path.name for path in paths]
        raise ValueError(f"paths is {names}; a card wants one file at least, of different names")
    for path in paths:
        if not path.is_file() or not path.stat().st_size:
            raise ValueError(f"paths: {path.name} is missing or empty; a file is wanted")
        if holds_pickle(path):
            raise ValueError(
                f"paths: {path.name} is a pickle, which runs a program when it is loaded; "
                "a safetensors file is wanted"
            )
    return {path.name: files.sha256(path) for path in paths}


def _cells(pair):
    group, share = pair
    low, high = share.interval
    return group, f"{share.share:.3f}", f"{low:.3f}", f"{high:.3f}", f"{share.count:,}"


def _table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(value):
    """Return a cell's text, in which nothing ends the cell or the line."""
    return " ".join(str(value).replace("|", "\\|").split())
