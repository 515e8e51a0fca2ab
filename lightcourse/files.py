"""Files that are either whole or absent: atomic writes, hashes, tensors as safetensors."""

import errno
import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def checked_path(path: str | os.PathLike) -> Path:
    """Return a file's path.

    Raises
    ------
    ValueError
        When it is no path, an empty one, or that of a folder.
    """
    check_is_path("path", path, "a file")
    if Path(path).is_dir():
        raise ValueError(f"path is the folder {os.fspath(path)}; the path of a file is wanted")
    return Path(path)


def checked_folder(path: str | os.PathLike, argument: str = "path") -> Path:
    """Return a folder's path, whether it is there or not.

    Raises
    ------
    ValueError
        When it is no path, an empty one, or that of a file; ``argument`` is its name there.
    """
    check_is_path(argument, path, "a folder")
    if Path(path).is_file():
        raise ValueError(
            f"{argument} is the file {os.fspath(path)}; the path of a folder is wanted"
        )
    return Path(path)


def check_is_path(argument: str, path: str | os.PathLike, what: str) -> None:
    """Raise ``ValueError`` where an argument can name no file and no folder."""
    if not isinstance(path, str | os.PathLike):
        kind = type(path).__name__
        raise ValueError(f"{argument} is a {kind}; the path of {what} is wanted")
    if not os.fspath(path):
        raise ValueError(f"{argument} is empty; the path of {what} is wanted")


def sha256(path: str | os.PathLike) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits, read in blocks."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: str | os.PathLike, write: Callable[[Path], None]) -> Path:
    """Let ``write`` fill a temporary neighbour of ``path``, then rename it into place.

    Parameters
    ----------
    path : str or path
        The file to create or replace. Missing parent folders are made.
    write : callable
        Called with the temporary path; whatever it leaves there becomes ``path``.

    Raises
    ------
    OSError
        When the disk is full or the folder cannot be written. The old file, if there
        was one, is untouched then, and the temporary one is gone.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    advice = f"no space left to write {path.name}; free some in {path.parent}"
    try:
        with full_disk_explained(advice):
            write(temporary)
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


@contextmanager
def full_disk_explained(*explanation: str) -> Iterator[None]:
    """Let a full disk raise ``OSError(errno.ENOSPC, *explanation)``, with what to do next."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise OSError(errno.ENOSPC, *explanation) from error


def save_tensors(
    tensors: dict, path: str | os.PathLike, metadata: dict[str, str] | None = None
) -> Path:
    """Write torch tensors to one safetensors file, atomically, and return its path.

    Parameters
    ----------
    tensors : dict of str to torch.Tensor
        Saved bit for bit, in their own dtypes.
    path : str or path
        Usually ends in ``.safetensors``.
    metadata : dict of str to str, optional
        Kept in the file's header.

    Raises
    ------
    ValueError
        When ``tensors`` is no dict, or ``path`` is not that of a file.
    """
    path = checked_path(path)
    if not isinstance(tensors, dict):
        raise ValueError(f"tensors is a {type(tensors).__name__}; a dict of tensors is wanted")
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}

    def write(temporary):
        try:
            save_file(tensors, temporary, metadata)
        except SafetensorError as error:  # its one error for everything, a full disk too
            wanted = sum(tensor.nbytes for tensor in tensors.values())
            if shutil.disk_usage(temporary.parent).free < wanted:
                raise OSError(errno.ENOSPC, str(error)) from error
            raise

    return write_atomically(path, write)


def load_tensors(path: str | os.PathLike) -> tuple[dict, dict[str, str]]:
    """Read what :func:`save_tensors` wrote: the tensors and the header's metadata."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        return tensors, file.metadata() or {}


def check_finite(tensors: dict, where: str | os.PathLike) -> None:
    """Raise ``ValueError`` when one of the tensors of a model or a file holds NaN or infinity."""
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise ValueError(f"{where} holds NaN or infinity in {name}; finite values are wanted")
