"""Batches for training and measuring: windows of tokens, and labelled texts."""

from collections.abc import Callable, Iterator

import torch

from lightcourse.data.bundled import load_speeches
from lightcourse.data.labels import label_numbers


def speech_tokens(tokenizer, split: str = "train") -> torch.Tensor:
    """Return the token ids of one split's speeches, an end token behind each.

    Parameters
    ----------
    tokenizer : transformers tokenizer
        With an ``eos_token_id``.
    split : str
        As in :func:`load_speeches`.

    Returns
    -------
    torch.Tensor
        int64, one dimension, speeches in order of year.
    """
    end = tokenizer.eos_token_id
    if end is None:
        raise ValueError("tokenizer has no eos_token; one that marks the end of a text is wanted")
    texts = list(load_speeches(split)["text"])
    encoded = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    return torch.tensor([token for ids in encoded for token in [*ids, end]])


def excerpts(
    tokens: torch.Tensor, count: int = 3, length: int = 2_049, apart: int = 110_000
) -> list[torch.Tensor]:
    """Return pieces of a token stream that begin far from each other, to measure each on.

    Three texts tell an effect from an accident of one text; ``apart`` keeps them in different
    speeches.

    Parameters
    ----------
    tokens : torch.Tensor
        One dimension, such as :func:`speech_tokens` returns it.
    count : int
        Pieces, at least 1.
    length : int
        Tokens of a piece, of which a language model guesses all but the first.
    apart : int
        Tokens from the beginning of a piece to that of the next, at least ``length``.

    Returns
    -------
    list of torch.Tensor

    Raises
    ------
    ValueError
        When the pieces would overlap or reach beyond the last token, or a number is below 1.
    """
    _require_positive(count=count, length=length)
    if apart < length:
        raise ValueError(f"apart is {apart}; at least {length}, the length of a piece, is wanted")
    least = (count - 1) * apart + length
    if len(tokens) < least:
        raise ValueError(f"tokens has {len(tokens)}; {count} pieces want at least {least}")
    return [tokens[start : start + length] for start in range(0, count * apart, apart)]


def token_batches(
    tokens: torch.Tensor, window: int, batch_size: int
) -> Callable[[int, int], Iterator[dict]]:
    """Return a callable that cuts a token stream into shuffled batches of windows.

    Each epoch starts the windows at another random place, so that their borders move.

    Parameters
    ----------
    tokens : torch.Tensor
        int64, one dimension, at least two windows long.
    window : int
        Tokens in a row of a batch, at least 2.
    batch_size : int
        Rows in a batch; the last batch of an epoch may have less.

    Returns
    -------
    callable
        ``batches(epoch, seed)`` yields dicts with ``input_ids`` and ``labels``, both of
        shape (batch_size, window); the same ones for the same arguments. The labels are
        the inputs: causal language models of transformers shift them by one themselves.
    """
    if window < 2 or len(tokens) < 2 * window:
        raise ValueError(f"window is {window}; 2 to {len(tokens) // 2} is wanted for these tokens")
    _require_positive(batch_size=batch_size)

    def batches(epoch, seed):
        generator = generator_of(epoch, seed)
        start = int(torch.randint(window, (), generator=generator))
        count = (len(tokens) - start) // window
        windows = tokens[start : start + count * window].view(count, window)
        for rows in torch.randperm(count, generator=generator).split(batch_size):
            yield {"input_ids": windows[rows], "labels": windows[rows]}

    return batches


def ordered_batches(dataset, tokenizer, max_length: int = 128, batch_size: int = 64) -> list[dict]:
    """Return all batches of a labelled set in its own order, as measuring wants them.

    Parameters
    ----------
    dataset : datasets.Dataset
        One split, with the columns text and label.
    tokenizer : transformers tokenizer
        Adds its own special tokens.
    max_length : int
        Tokens kept of a text.
    batch_size : int
        Texts in a batch; the last one may have less.

    Returns
    -------
    list of dict
        ``input_ids`` and ``attention_mask``, int64 of shape (batch, longest of the batch),
        padded on the right, and ``labels``, int64 of shape (batch,).
    """
    _require_positive(batch_size=batch_size)
    ids, labels = _tokenized(dataset, tokenizer, max_length)
    return [
        _padded(rows.tolist(), ids, labels, tokenizer)
        for rows in torch.arange(len(ids)).split(batch_size)
    ]


def text_batches(
    dataset, tokenizer, batch_size: int = 32, max_length: int = 128
) -> Callable[[int, int], Iterator[dict]]:
    """Return a callable that gives shuffled batches of a labelled set, as training wants them.

    Within each shuffled run of 50 batches, texts of like length are put together, so that
    little time goes into padding.

    Parameters
    ----------
    dataset, tokenizer, batch_size, max_length
        As in :func:`ordered_batches`.

    Returns
    -------
    callable
        ``batches(epoch, seed)`` yields the dicts that :func:`ordered_batches` describes; every text
        once in an epoch, the same batches for the same arguments.
    """
    _require_positive(batch_size=batch_size)
    ids, labels = _tokenized(dataset, tokenizer, max_length)
    lengths = torch.tensor([len(row) for row in ids])

    def batches(epoch, seed):
        generator = generator_of(epoch, seed)
        for run in torch.randperm(len(ids), generator=generator).split(50 * batch_size):
            groups = run[lengths[run].argsort(stable=True)].split(batch_size)
            for group in torch.randperm(len(groups), generator=generator).tolist():
                yield _padded(groups[group].tolist(), ids, labels, tokenizer)

    return batches


def row_batches(
    tensors: dict[str, torch.Tensor], batch_size: int = 32
) -> Callable[[int, int], Iterator[dict]]:
    """Return a callable that gives shuffled batches of the rows of any tensors.

    For what is computed once and trained on often, such as the features of a frozen
    encoder.

    Parameters
    ----------
    tensors : dict of str to Tensor
        All with the same number of rows, at least 1.
    batch_size : int
        Rows in a batch; the last one of an epoch may have less.

    Returns
    -------
    callable
        ``batches(epoch, seed)`` yields dicts with the keys of ``tensors``; every row once
        in an epoch, the same batches for the same arguments.

    Examples
    --------
    >>> batches = row_batches({"features": torch.eye(3), "labels": torch.arange(3)}, 2)
    >>> [tuple(batch["features"].shape) for batch in batches(epoch=0, seed=0)]
    [(2, 3), (1, 3)]
    """
    _require_positive(batch_size=batch_size)
    count = rows_of(tensors)

    def batches(epoch, seed):
        order = torch.randperm(count, generator=generator_of(epoch, seed))
        for chosen in order.split(batch_size):
            yield {name: tensor[chosen] for name, tensor in tensors.items()}

    return batches


def rows_of(tensors: dict[str, torch.Tensor]) -> int:
    """Return how many rows some tensors have, or raise ``ValueError`` where they differ."""
    rows = {name: len(tensor) for name, tensor in tensors.items()}
    if len(set(rows.values())) != 1 or 0 in rows.values():
        raise ValueError(f"tensors has {rows} rows; equally many, at least 1, are wanted")
    return next(iter(rows.values()))


def rank_batches(
    batches: Callable[[int, int], Iterator[dict]],
    rank: int,
    ranks: int,
    count: Callable[[dict], int] | None = None,
) -> Callable[[int, int], Iterator[dict]]:
    """Return a callable that gives one of several processes its rows of each batch.

    Parameters
    ----------
    batches : callable
        As :func:`lightcourse.training.train` takes it, the same one in each process.
    rank, ranks : int
        This process's number, from 0, and how many there are.
    count : callable, optional
        ``count(batch)`` returns over how many things a batch's loss is the mean: its rows,
        without it. Where labels are left out, as in padded texts, those that count.

    Returns
    -------
    callable
        ``own(epoch, seed)`` yields batches with the further key ``share``, a float: by which the
        loss must be multiplied so that the mean over all processes is that of the joint batch
        (:func:`lightcourse.training.shared_loss` does). It is 1 where all have equally much. A
        process for which there is no row computes the first one, for nothing: its share is 0.

    Raises
    ------
    ValueError
        When there is no such rank.

    Examples
    --------
    >>> batches = row_batches({"x": torch.arange(3.0)}, batch_size=3)
    >>> [[len(b["x"]), b["share"]] for rank in (0, 1) for b in rank_batches(batches, rank, 2)(0, 0)]
    [[2, 1.3333333333333333], [1, 0.6666666666666666]]
    """
    if not 0 <= rank < ranks:
        raise ValueError(f"rank is {rank}; 0 to {ranks - 1} is wanted")
    count = count or (lambda batch: len(next(iter(batch.values()))))

    def own(epoch, seed):
        for batch in batches(epoch, seed):
            rows = torch.arange(len(next(iter(batch.values())))).tensor_split(ranks)[rank].tolist()
            part = {name: values[rows or [0]] for name, values in batch.items()}
            weight = count(part) * ranks / max(count(batch), 1) if rows else 0.0
            yield part | {"share": weight}

    return own


def _tokenized(dataset, tokenizer, max_length):
    missing = {"text", "label"} - set(dataset.column_names)
    if missing:
        raise ValueError(
            f"dataset has the columns {dataset.column_names}; {sorted(missing)} is wanted too "
            f"(choose one split of a DatasetDict)"
        )
    if len(dataset) == 0:
        raise ValueError("dataset is empty; at least one row is wanted")
    _require_positive(max_length=max_length)
    texts, numbers = list(dataset["text"]), label_numbers(dataset)
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"dataset, row {row}: text is {text!r}; a str is wanted")
    encoded = tokenizer(texts, truncation=True, max_length=max_length)
    return encoded["input_ids"], torch.tensor(numbers)


def _padded(rows, ids, labels, tokenizer):
    longest = max(len(ids[row]) for row in rows)
    # GPT-2 and Llama have no padding token; the mask hides whatever stands there.
    input_ids = torch.full((len(rows), longest), tokenizer.pad_token_id or 0)
    attention_mask = torch.zeros_like(input_ids)
    for place, row in enumerate(rows):
        input_ids[place, : len(ids[row])] = torch.tensor(ids[row])
        attention_mask[place, : len(ids[row])] = 1
    return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels[rows]}


def generator_of(epoch: int, seed: int) -> torch.Generator:
    """Return the generator that decides one epoch's order."""
    return torch.Generator().manual_seed(seed * 1_000_003 + epoch)


def _require_positive(**numbers):
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"{name} is {number}; at least 1 is wanted")
