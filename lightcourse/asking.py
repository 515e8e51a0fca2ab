"""What a model is asked: a batch without its labels. Given labels, it would compute a loss too."""

from collections.abc import Iterable, Iterator, Mapping


def inputs_of(batch: Mapping) -> dict:
    """Return a batch, the keyword arguments of a model, without its ``labels``."""
    return {name: value for name, value in batch.items() if name != "labels"}


def inputs_of_each(batches: Iterable[Mapping]) -> Iterator[dict]:
    """Yield each batch without its ``labels``.

    Raises
    ------
    ValueError
        When ``batches`` is a function, holds something else than dicts, or nothing at all.
    """
    return (inputs_of(batch) for batch in _each(batches))


def answered(batches: Iterable[Mapping]) -> Iterator[Mapping]:
    """Yield each batch with its ``labels``, for what needs a loss.

    Raises
    ------
    ValueError
        As :func:`inputs_of_each`, or when a batch has no labels.
    """
    for batch in _each(batches):
        if "labels" not in batch:
            raise ValueError(f"a batch has only {sorted(batch)}; labels are wanted too, for a loss")
        yield batch


def _each(batches):
    if callable(batches):
        raise ValueError("batches is a function; its batches are wanted, such as batches(0, 0)")
    empty = True
    for batch in batches:
        empty = False
        if not isinstance(batch, Mapping):
            raise ValueError(f"batches holds a {type(batch).__name__}; dicts are wanted, in a list")
        yield batch
    if empty:
        raise ValueError("batches is empty; at least one batch is wanted")
