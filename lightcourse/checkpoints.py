"""A whole model in one safetensors file, of which one entry in the header tells the kind.

The header's entry is called like the kind ("pruned", "quantized"); its JSON holds what the
tensors alone do not tell. What two modules share is written once. Reading takes a tensor at a
time, so that a model is loaded in little more memory than it fills itself.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from lightcourse import files, layers


def save(
    model: nn.Module,
    path: str | Path,
    kind: str,
    notes: dict | None = None,
    encode: Callable[[torch.Tensor], dict] | None = None,
) -> Path:
    """Save the tensors of a model's ``state_dict``, and notes about them.

    Parameters
    ----------
    model : nn.Module
    path : str or path
        Returned; of a safetensors file, which is written atomically.
    kind : str
        What :func:`opened` asks for.
    notes : dict, optional
        Becomes JSON; ``shared`` and ``shapes`` are added.
    encode : callable, optional
        From a tensor to the parts, by name, that stand for it; to nothing where it is saved
        as it is.

    Raises
    ------
    ValueError
        When ``model`` is no module or lies on ``meta``, or ``path`` is not that of a file.
    """
    state, path = layers.plainly_named(model).state_dict(), files.checked_path(path)
    shared, shapes, tensors = layers.shared_tensors(state), {}, {}
    for name in [name for name in state if name not in shared]:
        parts = encode(state[name]) if encode else {}
        if parts:
            shapes[name] = list(state[name].shape)
        tensors |= {f"{name}:{part}": tensor for part, tensor in parts.items()}
        tensors |= {} if parts else {name: state[name]}
    notes = (notes or {}) | {"shapes": shapes, "shared": shared}
    # One entry: the header's entries stand in no fixed order, and equal models get equal files.
    return files.save_tensors(tensors, path, {kind: json.dumps(notes)})


@dataclass(frozen=True)
class Checkpoint:
    """An open file of :func:`save`.

    Parameters
    ----------
    path : Path
    notes : dict
        As saved.
    file : object
        safetensors' own.
    """

    path: Path
    notes: dict
    file: object

    def names(self) -> list[str]:
        """Return the names of all tensors of the model, those that are shared among them."""
        encoded = self.notes["shapes"]
        plain = [key for key in self.file.keys() if key.rpartition(":")[0] not in encoded]
        return [*plain, *encoded, *self.notes["shared"]]

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape, without reading the tensor."""
        name = self.notes["shared"].get(name, name)
        if name in self.notes["shapes"]:
            return tuple(self.notes["shapes"][name])
        return tuple(self.file.get_slice(name).get_shape())

    def read(self, name: str) -> torch.Tensor:
        """Return a tensor, or a part of one, as a copy of its own."""
        # What safetensors returns still reads from the file, which may change.
        return self.file.get_tensor(self.notes["shared"].get(name, name)).clone()

    def another_model(self, why: str) -> ValueError:
        """Return the error for a model that this is no checkpoint of."""
        return another_model(self.path, why)

    def wrong_shape(self, name: str, here: torch.Tensor) -> ValueError:
        """Return the error for a tensor that has another shape in the model than in the file."""
        there = self.shape(name)
        return self.another_model(f"{name} has shape {there} there and {tuple(here.shape)} here")

    def check_names(self, own: dict, names: list[str]) -> None:
        """Raise ``ValueError`` where the model's tensors are called otherwise than ``names``."""
        if wrong := sorted(own.keys() ^ set(names)):
            raise self.another_model(f"only one of the two has {wrong[0]}")

    def check_ties(self, own: dict[str, torch.Tensor]) -> None:
        """Raise ``ValueError`` where two tensors of a model are one, and not so in the file."""
        shared = self.notes["shared"]
        for name, owner in layers.shared_tensors(own).items():
            if shared.get(name, name) != shared.get(owner, owner):
                raise self.another_model(f"{name} and {owner} are one tensor here, but two there")


def another_model(path: str | Path, why: str) -> ValueError:
    """Return the error for a model that the file ``path`` is not for."""
    return ValueError(f"{path} belongs to another model: {why}")


@contextmanager
def opened(path: str | Path, kind: str) -> Iterator[Checkpoint]:
    """Open what :func:`save` wrote as ``kind``.

    Raises
    ------
    ValueError
        When the file is no checkpoint of that kind.
    """
    from safetensors import SafetensorError, safe_open

    path = files.checked_path(path)
    wrong = f"path is {path}, no {kind} checkpoint; a file of save_{kind} is wanted"
    try:
        file = safe_open(path, framework="pt")
    except SafetensorError as error:
        raise ValueError(wrong) from error
    with file:
        header = (file.metadata() or {}).get(kind)
        if header is None:
            raise ValueError(wrong)
        yield Checkpoint(path, {"shapes": {}, "shared": {}} | json.loads(header), file)
