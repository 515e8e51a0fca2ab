"""Several processes train one model, each on rows of its own (data parallelism).

torch's ``DistributedDataParallel`` averages the gradients of all processes, and :func:`train`
takes a model wrapped in it. Here is what is left: shares that differ, who writes, what is sent.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import distributed, nn

from lightcourse.training.losses import model_loss


def place() -> tuple[int, int]:
    """Return this process's rank in torch's group, and how many there are; (0, 1) without one."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def shared_loss(loss: Callable[[nn.Module, dict], torch.Tensor] = model_loss) -> Callable:
    """Return a loss for the batches of :func:`lightcourse.data.rank_batches`.

    Parameters
    ----------
    loss : callable
        A mean over what is in a batch, as :func:`train` takes it.

    Returns
    -------
    callable
        ``shared(model, batch)`` multiplies ``loss`` by the batch's ``share``. The mean over all
        processes, of losses and so of gradients, is then that of the joint batch.
    """

    def shared(model, batch):
        batch = dict(batch)
        return batch.pop("share") * loss(model, batch)

    return shared


@dataclass
class Traffic:
    """What one process gave to be averaged, and what it sent for that.

    Parameters
    ----------
    reduced : int
        Bytes of gradients.
    sent : int
        Bytes to its neighbour in the ring.
    """

    reduced: int = 0
    sent: int = 0


def reduce_by_ring_(model: nn.parallel.DistributedDataParallel) -> Traffic:
    """Let a wrapped model average its gradients by :func:`ring_all_reduce_`, and count.

    Parameters
    ----------
    model : DistributedDataParallel
        Before its first backward pass.

    Returns
    -------
    Traffic
        Grows as the model trains.

    Raises
    ------
    ValueError
        When ``model`` is not wrapped.
    """
    if not isinstance(model, nn.parallel.DistributedDataParallel):
        kind = type(model).__name__
        raise ValueError(f"model is a {kind}; a DistributedDataParallel is wanted")
    traffic = Traffic()

    def hook(_, bucket):
        gradients = bucket.buffer()
        traffic.reduced += gradients.nbytes
        traffic.sent += ring_all_reduce_(gradients)
        done = torch.futures.Future()
        done.set_result(gradients.div_(distributed.get_world_size()))
        return done

    model.register_comm_hook(None, hook)
    return traffic


def ring_all_reduce_(values: torch.Tensor) -> int:
    """Sum a tensor over all processes, in place; return the bytes that this one sent.

    Each process talks to the next one alone (Patarasuk & Yuan 2009, doi
    10.1016/j.jpdc.2008.09.002). The tensor is cut into as many pieces as there are processes. In
    N - 1 rounds a piece goes around and is added to, so that each process ends with one whole sum;
    in N - 1 more the sums go around. So each sends 2 (N - 1) / N of the bytes, however many
    processes there are.

    Parameters
    ----------
    values : Tensor, one dimension
        As long in every process.

    Returns
    -------
    int
    """
    rank, count = place()
    pieces, sent = list(values.tensor_split(count)), 0
    for step in range(2 * (count - 1)):
        out, into = pieces[(rank - step) % count], pieces[(rank - step - 1) % count]
        found = torch.empty_like(into)
        going = distributed.isend(out, (rank + 1) % count)
        distributed.recv(found, (rank - 1) % count)
        going.wait()
        into.copy_(into + found if step < count - 1 else found)
        sent += out.nbytes
    return sent
