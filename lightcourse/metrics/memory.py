"""What a process really holds in memory while it works."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Memory:
    """What :func:`watch_memory` saw.

    Parameters
    ----------
    peak : int
        The most bytes of RAM that the process held, so far.
    """

    peak: int = 0


@contextmanager
def watch_memory(every: float = 0.002) -> Iterator[Memory]:
    """Look at the resident memory of this process again and again, while a block runs.

    Python, its libraries and whatever the process held before count, too. So what a method
    needs is best measured in a process of its own, and told beside another method's.

    Parameters
    ----------
    every : float
        Seconds between two looks. A peak that is shorter may be missed.

    Yields
    ------
    Memory
        Its ``peak`` grows while the block runs, and stays afterwards.

    Raises
    ------
    ValueError
        When ``every`` is not positive.

    Examples
    --------
    >>> with watch_memory() as memory:
    ...     text = b"1" * 50_000_000
    >>> memory.peak > 50_000_000
    True
    """
    import psutil

    if not every > 0:
        raise ValueError(f"every is {every}; a positive number of seconds is wanted")
    memory, done, process = Memory(), threading.Event(), psutil.Process()

    def look():
        memory.peak = max(memory.peak, process.memory_info().rss)

    def watch():
        while not done.wait(every):
            look()

    look()
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield memory
    finally:
        look()
        done.set()
        watcher.join()
