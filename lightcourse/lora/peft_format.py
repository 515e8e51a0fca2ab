"""Adapters on disk as peft writes them: what peft, vLLM and llama.cpp read.

A folder with ``adapter_config.json`` (kind, rank, alpha, names of layers) and
``adapter_model.safetensors``. There the matrices are called ``lora_A`` and ``lora_B``, and every
name begins with the two wrappers that peft puts around a model.
"""

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path

import torch

from lightcourse import files

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
ENDS = {
    ".lora_A.weight": ".lora_a",
    ".lora_B.weight": ".lora_b",
    ".lora_magnitude_vector": ".lora_magnitude",
    ".ia3_l": ".ia3_l",
}
OURS = tuple(ENDS.values())
KINDS = "LoRA", "DoRA", "IA3"
# What peft can do and a LoRALinear cannot: from a setting to the value that asks for nothing.
PLAIN = {
    "lora_bias": False,
    "rank_pattern": {},
    "alpha_pattern": {},
    "layer_replication": None,
    "trainable_token_indices": None,
}
# Beside these, what only newer versions of peft know: a save does not mention it.
UNKNOWN = {
    "bias": "none",
    "alora_invocation_tokens": None,
    "use_qalora": False,
    "use_bdlora": None,
    "arrow_config": None,
    "kasa_config": None,
    "monteclora_config": None,
    "target_parameters": None,
}
# How an update may begin, with a base that was changed to fit: the file does not hold that one.
CHANGES_BASE = ("pissa", "corda", "olora", "loftq", "lora_ga")


@dataclass(frozen=True)
class Adapter:
    """One adapter, away from its model.

    Parameters
    ----------
    name : str
    rank : int
    alpha : float
        0 both, for IA3.
    tensors : dict of str to Tensor
        By their names in the model: ``….lora_a``, ``….lora_b``, ``….lora_magnitude``,
        ``….ia3_l``, and whole parameters that were trained beside them.
    transposed : bool
        Whether its layers keep their matrix transposed, as GPT-2's do.
    kind : {"LoRA", "DoRA", "IA3"}
    inputs : tuple of str
        The layers whose inputs an IA3 multiplies.
    """

    name: str
    rank: int
    alpha: float
    tensors: dict[str, torch.Tensor]
    transposed: bool = False
    kind: str = "LoRA"
    inputs: tuple[str, ...] = ()

    @property
    def targets(self) -> list[str]:
        """The names of the layers that have an update."""
        first = ".ia3_l" if self.kind == "IA3" else ".lora_a"
        return [name.removesuffix(first) for name in self.tensors if name.endswith(first)]

    @property
    def others(self) -> list[str]:
        """The names of the parameters that were trained as a whole."""
        return [name for name in self.tensors if not name.endswith(OURS)]


def write(adapter: Adapter, folder: Path) -> Path:
    """Write an adapter into a folder; what else is in there stays.

    Raises
    ------
    ValueError
        When ``folder`` is called like a file.
    """
    if folder.suffix == ".safetensors":
        raise ValueError(
            f"path is {folder}; a folder is wanted, for the two files of peft's format"
        )
    tensors = {_outside(name): tensor for name, tensor in adapter.tensors.items()}
    for name in adapter.targets if adapter.kind == "IA3" else ():  # a row or a column, there
        shape = (1, -1) if name in adapter.inputs else (-1, 1)
        tensors[f"{PREFIX}{name}.ia3_l"] = adapter.tensors[f"{name}.ia3_l"].detach().view(shape)
    return write_files(folder, _config(adapter), tensors, {"adapter": adapter.name})


def write_files(folder: Path, config: dict, tensors: dict, header: dict | None = None) -> Path:
    """Write both files of an adapter, or none: its description and its numbers."""

    def both(temporary):
        temporary.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        files.save_tensors(tensors, folder / WEIGHTS, {"format": "pt"} | (header or {}))

    files.write_atomically(folder / CONFIG, both)
    return folder


def _config(adapter):
    modules = sorted({name.rpartition(".")[0] for name in adapter.others})
    common = {
        "target_modules": adapter.targets,
        "modules_to_save": modules or None,
        "fan_in_fan_out": adapter.transposed,
        "inference_mode": True,
        "base_model_name_or_path": None,
        "task_type": None,
    }
    if adapter.kind == "IA3":
        return common | {"peft_type": "IA3", "feedforward_modules": list(adapter.inputs)}
    return (
        PLAIN
        | common
        | {
            "peft_type": "LORA",
            "use_dora": adapter.kind == "DoRA",
            "r": adapter.rank,
            "lora_alpha": adapter.alpha,
            "bias": "none",
            "lora_dropout": 0.0,
        }
    )


def read(path: str | os.PathLike) -> Adapter:
    """Read a folder of peft's, or the one file that this library once wrote.

    Raises
    ------
    ValueError
        When ``path`` is no path, or there is no adapter, one that does what ours cannot, or
        one that holds NaN or infinity.
    """
    files.check_is_path("path", path, "a folder")
    path = Path(path)
    if path.is_file():
        return _read_old(path)
    if not (path / CONFIG).is_file() or not (path / WEIGHTS).is_file():
        raise ValueError(f"{path} holds no adapter; a folder with {CONFIG} and {WEIGHTS} is wanted")
    config = json.loads((path / CONFIG).read_text(encoding="utf-8"))
    kind = _kind(config, path)
    tensors, header = files.load_tensors(path / WEIGHTS)
    inside = {_inside(name): tensor for name, tensor in tensors.items()}
    files.check_finite(inside, path)
    name = header.get("adapter", "default")
    if kind == "IA3":
        return _ia3(name, inside, config)
    rank, alpha = config["r"], float(config["lora_alpha"])
    alpha *= math.sqrt(rank) if config.get("use_rslora") else 1  # alpha / sqrt(rank), there
    return Adapter(name, rank, alpha, inside, kind=kind)


def _kind(config, path):
    """Return an adapter's kind, or raise where it needs more than ours can do."""
    kind = config.get("peft_type", "LORA")
    if kind == "IA3":
        return "IA3"
    if kind != "LORA":
        raise ValueError(f"{path} wants peft_type={kind!r}; one of {KINDS} is wanted")
    _check_plain(config, path)
    return "DoRA" if config.get("use_dora") else "LoRA"


def _ia3(name, tensors, config):
    """Return an IA3: which side a vector is for, its shape tells."""
    vectors = {key: tensor for key, tensor in tensors.items() if key.endswith(".ia3_l")}
    inputs = (key.removesuffix(".ia3_l") for key, v in vectors.items() if v.shape[0] == 1)
    flat = {key: tensor.flatten() for key, tensor in vectors.items()}
    return Adapter(name, 0, 0.0, tensors | flat, kind="IA3", inputs=tuple(inputs))


def _check_plain(config, path):
    """Raise where an adapter needs more than ``scaling · B A x`` beside the layers it was for."""
    for key, plain in (PLAIN | UNKNOWN).items():
        if config.get(key, plain) not in (plain, None, {}, []):
            raise ValueError(f"{path} wants {key}={config[key]!r}, which a LoRALinear has not")
    start = str(config.get("init_lora_weights", True)).lower()
    if start.startswith(CHANGES_BASE):
        raise ValueError(
            f"{path} began as init_lora_weights={start!r}, which changes the base model too; let "
            "peft save it with path_initial_model_for_weight_conversion"
        )


def _read_old(path):
    tensors, header = files.load_tensors(path)
    if not {"adapter", "rank", "alpha", "targets"} <= set(header):
        raise ValueError(f"{path} holds no adapter; a folder that save_lora wrote is wanted")
    return Adapter(header["adapter"], int(header["rank"]), float(header["alpha"]), tensors)


def _outside(name):
    for theirs, ours in ENDS.items():
        if name.endswith(ours):
            name = name.removesuffix(ours) + theirs
    return PREFIX + name


def _inside(name):
    name = name.removeprefix(PREFIX)
    for theirs, ours in ENDS.items():
        if name.endswith(theirs):
            name = name.removesuffix(theirs) + ours
    return name
