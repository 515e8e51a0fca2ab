"""A teacher's answers on disk: asked once, learned from as often as wanted."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from torch import nn

from lightcourse import asking, files, layers, progress
from lightcourse.distillation import positions
from lightcourse.distillation.losses import mixed
from lightcourse.distillation.teaching import ask
from lightcourse.metrics import divergence

FRESH = "delete the folder, or choose another, to start afresh"
LOWEST = torch.finfo(torch.float16).min  # log-probability of what cannot be: exp of it is 0


def cache_logits(
    teacher: nn.Module,
    folder: str | os.PathLike,
    batches: Iterable[dict],
    k: int = 64,
    temperature: float = 1.0,
) -> Path:
    """Write batches to disk with the teacher's k largest probabilities of each position.

    One safetensors file a batch, whole or absent: a second call with the same arguments
    goes on where the first was interrupted. Beside the batch's own tensors it holds
    ``teacher_ids`` (int32, shape (..., k)) and ``teacher_log_probs`` (float16, (..., k + 1)),
    the last of which is that of all other classes together. So a position takes 6·k + 2
    bytes instead of 4 times the vocabulary, and memory holds no more than a batch.

    Parameters
    ----------
    teacher : nn.Module
        With ``logits`` in its output: a classifier or a causal language model.
    folder : path
        Made where it is missing.
    batches : iterable of dict of str to Tensor
        The models' inputs, and ``labels`` where true labels are to count too; for instance
        ``data.token_batches(…)(epoch, seed)``. Taken one by one.
    k : int
        Classes kept of a position, at least 1.
    temperature : float
        Of the softmax, above 0; the student will be compared at the same.

    Returns
    -------
    Path
        The folder, for :func:`cached_batches`.

    Raises
    ------
    ValueError
        When ``folder`` was made of other batches, by another teacher, or with another
        ``k`` or ``temperature``; when there is no batch, ``k`` exceeds the vocabulary, a
        number is out of range, the teacher's logits hold NaN or +inf, or are all -inf, at
        a position that counts, or an argument is something else.
    """
    teacher, folder = layers.inside(teacher), files.checked_folder(folder, "folder")
    positions.check_temperature(temperature)
    if k < 1:
        raise ValueError(f"k is {k}; at least 1 is wanted")
    count = 0
    made = {"k": str(k), "temperature": str(float(temperature)), "teacher": _fingerprint(teacher)}
    for batch in progress.bar(batches, desc="asking the teacher"):
        shard = _shard(folder, count)
        if not _is_there(shard, batch, made):
            tensors, classes = _answered(teacher, batch, k, temperature)
            files.save_tensors(tensors, shard, made | {"classes": str(classes)})
        count += 1
    if not count:
        raise ValueError("batches is empty; at least one batch is wanted")
    if _shard(folder, count).exists():
        raise ValueError(f"folder {folder} has more than these {count} batches; {FRESH}")
    return folder


def _shard(folder, index):
    return folder / f"{index:06d}.safetensors"


def _fingerprint(model):
    """Return half of the SHA-256 of what the model stores, and of settings that are no tensors."""
    digest = hashlib.sha256()
    for name, module in model.named_modules():  # such as a LoRA's active adapter
        digest.update(f"{name} {module.extra_repr()} {getattr(module, 'active', '')}".encode())
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:32]


def _is_there(shard, batch, made):
    """Tell whether the shard can stay; raise where it belongs to something else."""
    from safetensors import SafetensorError

    try:
        tensors, metadata = files.load_tensors(shard)
    except (FileNotFoundError, SafetensorError):  # missing or damaged: it is written anew
        return False
    for name, wanted in made.items():
        if metadata.get(name) != wanted:
            raise ValueError(
                f"{shard} was made with {name} {metadata.get(name)}, and now it is {wanted}; "
                f"{FRESH}"
            )
    own = {name for name in tensors if not name.startswith("teacher_")}
    if own != set(batch) or not all(torch.equal(tensors[name], batch[name]) for name in own):
        raise ValueError(f"{shard} holds another batch than the one given now; {FRESH}")
    return True


def _answered(teacher, batch, k, temperature):
    """Return the tensors of a shard, and the teacher's number of classes."""
    logits = positions.single(ask(teacher, asking.inputs_of(batch)))
    classes = logits.shape[-1]
    if k > classes:
        raise ValueError(f"k is {k}; at most {classes}, the teacher's classes, is wanted")
    counts = positions.answers(batch, logits, soft_weight=1) != positions.IGNORED
    positions.check_teacher((logits / temperature)[counts])
    log_probs = (logits / temperature).log_softmax(dim=-1)
    ids = log_probs.topk(k).indices
    # Cloned: input_ids and labels may be one tensor, which safetensors would refuse.
    tensors = {name: tensor.clone() for name, tensor in batch.items()}
    tensors["teacher_ids"] = ids.int()
    tensors["teacher_log_probs"] = _bucketed(log_probs, ids).clamp(min=LOWEST).half()
    return tensors, classes


def _bucketed(log_probs, ids):
    """Return the log-probabilities of ``ids`` and, last, of all other classes together."""
    others = log_probs.scatter(-1, ids, -torch.inf)
    none = (others == -torch.inf).all(dim=-1, keepdim=True)
    # Where no class is left the sum is 0, and the gradient of its logarithm would be NaN.
    rest = others.masked_fill(none, 0).logsumexp(dim=-1, keepdim=True)
    return torch.cat([log_probs.gather(-1, ids), rest.masked_fill(none, -torch.inf)], dim=-1)


def cached_batches(folder: str | os.PathLike) -> Callable[[int, int], Iterator[dict]]:
    """Return a callable that gives the batches of :func:`cache_logits` in shuffled order.

    Parameters
    ----------
    folder : path
        Also one whose making was interrupted: it gives what is there.

    Returns
    -------
    callable
        ``batches(epoch, seed)`` yields every batch once, loaded when its turn comes, in
        the same order for the same arguments. To what the file holds it adds the scalars
        ``teacher_temperature`` and ``teacher_classes``.

    Raises
    ------
    ValueError
        When the folder holds no batch.
    """
    shards = sorted(Path(folder).glob("*.safetensors"))
    if not shards:
        raise ValueError(f"folder {folder} holds no batch; one filled by cache_logits is wanted")

    def batches(epoch, seed):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        for index in torch.randperm(len(shards), generator=generator).tolist():
            yield _load(shards[index])

    return batches


def _load(shard):
    tensors, metadata = files.load_tensors(shard)
    return tensors | {
        "teacher_temperature": torch.tensor(float(metadata["temperature"]), dtype=torch.float64),
        "teacher_classes": torch.tensor(int(metadata["classes"])),
    }


def taught_by_cache(soft_weight: float = 1.0) -> Callable[[nn.Module, dict], torch.Tensor]:
    """Return the loss that ``training.train`` wants for batches of :func:`cached_batches`.

    (1 - soft_weight) · CE + soft_weight · T² · KL over k + 1 outcomes: the k classes that
    were kept and all others as one. At the temperature at which the teacher was asked. It
    equals :func:`taught_by` where k is the vocabulary, but for float16; otherwise it is
    never larger, since outcomes put together cannot tell two models better apart.

    Parameters
    ----------
    soft_weight : float
        0 (labels alone) to 1 (teacher alone; the batches need no labels).

    Returns
    -------
    callable
        ``loss(student, batch)``, for classifiers and causal language models as in
        :func:`taught_by`.

    Raises
    ------
    ValueError
        When ``soft_weight`` is out of range; while training, when a batch does not come
        from a cache, the student has another number of classes, labels are missing where
        they are wanted, or nothing in a batch counts.
    """
    positions.check_soft_weight(soft_weight)

    def loss(student, batch):
        if "teacher_log_probs" not in batch:
            raise ValueError(f"batch has only {sorted(batch)}; one of cached_batches is wanted")
        inputs = asking.inputs_of(batch)
        logits = student(**{k: v for k, v in inputs.items() if not k.startswith("teacher_")}).logits
        positions.check_classes(logits.shape[-1], int(batch["teacher_classes"]))
        labels = positions.answers(batch, logits, soft_weight)
        positions.check_labels(labels, logits)
        soft = _cached_kl(logits, batch, labels != positions.IGNORED)
        return mixed(soft, logits, labels, soft_weight)

    return loss


def _cached_kl(logits, batch, mask):
    """Return T² · KL(teacher ‖ student) over k + 1 outcomes, the mean where ``mask`` is True."""
    temperature = batch["teacher_temperature"].item()
    logits, ids, kept = (
        positions.counting(x, mask)
        for x in (logits, batch["teacher_ids"], batch["teacher_log_probs"])
    )
    log_probs = (positions.single(logits) / temperature).log_softmax(dim=-1)
    student = _bucketed(log_probs, ids.long())
    teacher = kept.to(student).log_softmax(dim=-1)  # float16 sums to 1 again
    return temperature**2 * divergence(teacher, student).mean()
