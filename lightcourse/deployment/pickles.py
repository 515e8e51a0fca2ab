"""Files that run a program when they are read."""

import itertools
import os
import pickletools
import tarfile
import zipfile
from typing import BinaryIO

PROTOCOLS = range(2, 6)


def holds_pickle(path: str | os.PathLike) -> bool:
    r"""Tell whether a file is a pickle, or an archive with one in it, such as torch.save writes.

    Unpickling calls whatever the file names: who loads a model from such a file runs its
    author's program. Only the file's bytes are looked at, whatever its name is, and nothing is
    unpickled. Pickles of protocols 0 and 1 have no mark and are not found; Python has not
    written those by itself since 2008.

    Raises
    ------
    OSError
        When the file cannot be read.

    Examples
    --------
    >>> import pickle, tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp(), "model.safetensors")
    >>> size = path.write_bytes(pickle.dumps({"weight": 1.0}))
    >>> holds_pickle(path)
    True
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return any(begins_as_pickle(archive.open(entry)) for entry in archive.infolist())
    with open(path, "rb") as file:
        if begins_as_pickle(file):
            return True
    return tarfile.is_tarfile(path) and _tar_holds_pickle(path)


def begins_as_pickle(file: BinaryIO) -> bool:
    """Tell whether a pickle's mark comes first, and commands of a pickle after it.

    The mark alone would not do: a safetensors file whose header has 640 bytes begins alike.
    """
    with file:
        head = file.read(2)
        if len(head) < 2 or head[0] != 0x80 or head[1] not in PROTOCOLS:
            return False
        try:
            return bool(list(itertools.islice(pickletools.genops(file), 3)))
        except ValueError:  # what comes is no command
            return False


def _tar_holds_pickle(path):
    with tarfile.open(path) as archive:
        entries = [archive.extractfile(entry) for entry in archive if entry.isfile()]
        return any(map(begins_as_pickle, entries))
