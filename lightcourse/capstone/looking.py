"""A look at a submission's files before anything is loaded: which there are, and of what kind."""

import contextlib
import os
import stat
import zipfile
from dataclasses import dataclass
from pathlib import Path

from lightcourse.capstone.header import read_header
from lightcourse.deployment.pickles import begins_as_pickle

WEIGHTS, CONFIG, TOKENIZER, CARD = "model.safetensors", "config.json", "tokenizer.json", "README.md"
NEEDED = (WEIGHTS, CONFIG, TOKENIZER)
# MiniLM has 90 MB, 2,000 bytes and 470,000.
MOST_BYTES = {WEIGHTS: 100_000_000, CONFIG: 2**16, TOKENIZER: 2**23, CARD: 2**20}
CODE = (".py", ".pyc", ".pyd", ".so", ".dll", ".dylib", ".ipynb", ".sh", ".bat", ".js", ".wasm")
PACKED = (".zip", ".tar", ".gz", ".tgz", ".xz", ".bz2", ".7z", ".rar", ".whl")
# What systems and editors leave in a folder. None of it is opened.
LEFT_BY_OTHERS = {".DS_Store", "Thumbs.db", "desktop.ini", ".ipynb_checkpoints"}


@dataclass(frozen=True)
class Files:
    """The bytes of a submission's files, by name."""

    sizes: dict[str, int]

    @property
    def bytes(self) -> int:
        """Of the files that are needed to answer; the card is not."""
        return sum(self.sizes[name] for name in NEEDED)


def look(folder: Path) -> Files:
    """Return the sizes of a submission's files, if they are all there, and nothing else.

    Only names, kinds and sizes are asked for, the first bytes of files, and the header of
    model.safetensors.

    Raises
    ------
    ValueError
        With a sentence for the folder's author: when it is a link or holds one, a pickle, an
        archive, code, a file too large or of another name; when a file is missing; when the
        header of model.safetensors does not tell of the file it stands in.
    """
    if folder.is_symlink() or not folder.is_dir():
        raise ValueError("there is no folder; one of that name is wanted, and no link")
    names = sorted(set(os.listdir(folder)) - LEFT_BY_OTHERS)
    for name in names:
        _check_kind(folder / name)
    for name in names:
        _check_name(name)
    if missing := [name for name in NEEDED if name not in names]:
        raise ValueError(f"{missing[0]} is missing; {', '.join(NEEDED)} and {CARD} are wanted")
    read_header(folder / WEIGHTS)
    return Files({name: (folder / name).stat().st_size for name in names})


def _check_kind(path):
    name, found = _shown(path.name), path.lstat()
    if stat.S_ISLNK(found.st_mode):
        raise ValueError(f"{name} is a symbolic link, which is not followed; a file is wanted")
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"{name} is no plain file; only the four files are wanted")
    most = MOST_BYTES.get(path.name, max(MOST_BYTES.values()))
    if found.st_size > most:
        raise ValueError(f"{name} has {found.st_size:,} bytes; at most {most:,} are read")
    if path.suffix.lower() in CODE:
        raise ValueError(f"{name} is code; a submission is data alone, none of it is run")
    if _is_pickle(path):
        raise ValueError(
            f"{name} is a pickle, which runs a program when it is loaded; safetensors is wanted"
        )


def _is_pickle(path):
    """Tell a pickle, or what torch.save writes: an archive that says it has one inside.

    No entry is opened, which may be larger than any memory once it is.
    """
    with contextlib.suppress(Exception):  # whatever a damaged archive makes of its reader
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return any(name.endswith(".pkl") for name in archive.namelist())
    with path.open("rb") as file:
        return begins_as_pickle(file)


def _check_name(name):
    if Path(name).suffix.lower() in PACKED:
        raise ValueError(f"{_shown(name)} is an archive, which is not unpacked; files are wanted")
    if name not in MOST_BYTES:
        raise ValueError(f"{_shown(name)} is none of {', '.join(MOST_BYTES)}; take it out")


def _shown(name):
    return "".join(c if c.isprintable() and c != "\\" else ascii(c)[1:-1] for c in name)[:100]
