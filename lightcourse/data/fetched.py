"""Text that is fetched on demand and never committed."""

import json

from lightcourse import assets
from lightcourse.data.splits import (
    around_test_set,
    assign,
    dataset_dict,
    dealt_by_label,
    first_of_each_text,
)


def load_reuters(classes: int = 8):
    """Return Reuters news stories by topic, lower case and without punctuation.

    R8 and R52 of Reuters-21578 (Lewis 1997; the two forms are Cardoso-Cachopo's, 2007).
    Half of R8 is one class, ``earn``: report macro-F1 beside accuracy. The test set is the
    published one (ModApté); training stories that are also in it are dropped, and a tenth
    of the others is held back for validation. For research use.

    Parameters
    ----------
    classes : int
        8 or 52.

    Returns
    -------
    datasets.DatasetDict
        Columns text and label.

    Raises
    ------
    lightcourse.assets.AssetMissing
        When the asset ``news`` was not fetched yet.
    """
    if classes not in (8, 52):
        raise ValueError(f"classes is {classes}; 8 or 52 is wanted")
    return _published_split(f"reuters-r{classes}")


def load_newsgroups():
    """Return 20 Newsgroups by group, in the form of :func:`load_reuters`.

    The test set is the published one, of later posts.

    Raises
    ------
    lightcourse.assets.AssetMissing
        As :func:`load_reuters`.
    """
    return _published_split("20newsgroups")


def _published_split(name):
    train, test = (list(_tab_rows(f"{name}-{part}.tab")) for part in ("train", "test"))
    return around_test_set(train, test)


def _tab_rows(file):
    """Yield the rows of an Orange table: three lines of header, then label, tab, text."""
    with open(assets.path("news") / file, encoding="utf-8") as lines:
        for line in list(lines)[3:]:
            label, _, text = line.rstrip("\n").partition("\t")
            if text.strip():
                yield {"text": text.strip(), "label": label}


def load_questions():
    """Return questions by the type of their answer (TREC; Li & Roth, COLING 2002).

    Returns
    -------
    datasets.DatasetDict
        Columns text, label (6 coarse types) and fine (50 types such as ``NUM:date``).
        The published test set is not in the package: all splits are our own.

    Raises
    ------
    lightcourse.assets.AssetMissing
        When the asset ``questions`` was not fetched yet.
    """
    lines = (assets.path("questions") / "question_labels.txt").read_text("utf-8").splitlines()
    pairs = [line.partition(" ")[::2] for line in lines if line.strip()]
    rows = [{"text": text, "label": fine.split(":")[0], "fine": fine} for fine, text in pairs]
    return dealt_by_label(first_of_each_text(rows), "fine")


def load_chinese_reviews():
    """Return Chinese reviews of books, hotels and goods, negative (0) or positive (1).

    Half of the package's lines stand in it twice; they are dropped before splitting, and
    so are the few that stand under both labels.

    Returns
    -------
    datasets.DatasetDict
        Columns text and label.

    Raises
    ------
    lightcourse.assets.AssetMissing
        When the asset ``chinese-reviews`` was not fetched yet.
    """
    folder = assets.path("chinese-reviews")
    lines = {
        label: {line.strip() for line in (folder / file).read_text("utf-8").splitlines()} - {""}
        for label, file in (("negative", "neg.txt"), ("positive", "pos.txt"))
    }
    both = lines["negative"] & lines["positive"]
    rows = [
        {"text": text, "label": label} for label in lines for text in sorted(lines[label] - both)
    ]
    return dealt_by_label(first_of_each_text(rows))


def load_poems():
    """Return Song dynasty ci poems, text for a Chinese language model; there is no label.

    Returns
    -------
    datasets.DatasetDict
        Columns text (lines of a poem, one to a line), tune and author, in simplified
        characters.

    Raises
    ------
    lightcourse.assets.AssetMissing
        When the asset ``poems`` was not fetched yet.
    """
    rows = []
    for file in sorted(assets.path("poems").glob("ci.song.*.json")):
        for poem in json.loads(file.read_text("utf-8")):
            text = "\n".join(line.strip() for line in poem["paragraphs"]).strip()
            rows.append({"text": text, "tune": poem["rhythmic"], "author": poem["author"]})
    rows = first_of_each_text(row for row in rows if row["text"])
    splits = assign((row["text"] for row in rows), ("" for _ in rows))
    return dataset_dict(rows, splits, {})


def load_movie_ratings():
    """Return 100,000 ratings of films: 943 users, 1,682 films, from September 1997 to April 1998.

    MovieLens 100K (Harper & Konstan 2015, doi:10.1145/2827872), for research use. Each user rated
    20 films or more. The films have no titles here.

    Returns
    -------
    dict of str to torch.Tensor
        ``user`` and ``item`` (int64, from 0), ``score`` (int64, 1 to 5) and ``time`` (int64,
        seconds since 1970), each of shape (ratings,).

    Raises
    ------
    lightcourse.assets.AssetMissing
        When the asset ``movie-ratings`` was not fetched yet.
    """
    import torch

    text = (assets.path("movie-ratings") / "movielens100k.tab").read_text("utf-8")
    rows = [[int(part) for part in line.split("\t")] for line in text.splitlines()[3:] if line]
    columns = dict(zip(("user", "item", "score", "time"), torch.tensor(rows).T, strict=True))
    return columns | {name: columns[name] - 1 for name in ("user", "item")}
