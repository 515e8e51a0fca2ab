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
    if callable(batches):
        raise ValueError("batches is a function; its batches are wanted, such as batches(0, 0)")
    empty = True
    for batch in batches:
        empty = False
        if not isinstance(batch, Mapping):
            raise ValueError(f"batches holds a {type(batch).__name__}; dicts are wanted, in a list")
        yield inputs_of(batch)
    if empty:
        raise ValueError("batches is empty; at least one batch is wanted")
