"""How long a training step takes on several machines: data, tensors or layers shared out.

Plain formulas for equal machines in a ring that compute or send, but not both at once. Real ones
overlap the two, share their network and wait for the slowest: see these as what there is to gain.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Cluster:
    """Equal machines, each with a link to its neighbours.

    Parameters
    ----------
    nodes : int
    bandwidth : float
        Bytes per second that a machine sends, while it receives as many.
    latency : float
        Seconds before the first byte of a message arrives.
    operations : float
        Floating-point operations per second of one machine; a multiplication and an addition are
        two.
    memory : float
        Bytes of one machine.

    Raises
    ------
    ValueError
        When a number is out of its range.
    """

    nodes: int
    bandwidth: float
    latency: float
    operations: float
    memory: float

    def __post_init__(self):
        if self.nodes < 1 or self.nodes != int(self.nodes):
            raise ValueError(f"nodes is {self.nodes}; a whole number from 1 is wanted")
        for name in ("bandwidth", "operations", "memory"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is {getattr(self, name)}; a number above 0 is wanted")
        if not 0 <= self.latency < float("inf"):
            raise ValueError(f"latency is {self.latency}; seconds from 0 are wanted")


def send_seconds(cluster: Cluster, size: float) -> float:
    """Return the seconds until a message of ``size`` bytes has arrived."""
    return cluster.latency + size / cluster.bandwidth


def ring_bytes(nodes: int, size: float) -> float:
    """Return the bytes that each of some machines sends to sum ``size`` bytes over all of them.

    2 (N - 1) / N of them, in a ring (Patarasuk & Yuan 2009, doi 10.1016/j.jpdc.2008.09.002): in no
    method does the busiest machine send less. :func:`lightcourse.training.ring_all_reduce_` does
    it.

    Examples
    --------
    >>> [ring_bytes(nodes, 120) for nodes in (1, 2, 3, 4)]
    [0.0, 120.0, 160.0, 180.0]
    """
    return 2 * (nodes - 1) / nodes * size


def all_reduce_seconds(cluster: Cluster, size: float) -> float:
    """Return the seconds of a ring's sum over all machines of ``size`` bytes.

    2 (N - 1) rounds, in each of which every machine sends an N-th.
    """
    return 2 * (cluster.nodes - 1) * send_seconds(cluster, size / cluster.nodes)


def data_parallel_seconds(cluster: Cluster, operations: float, gradients: float) -> float:
    """Return the seconds of a step where each machine holds the model, and an N-th of the batch.

    Parameters
    ----------
    cluster : Cluster
    operations : float
        Of the whole step: about six for each weight and token.
    gradients : float
        Bytes, which are summed over all machines.

    Returns
    -------
    float

    Examples
    --------
    What is computed shrinks with the machines, what is sent does not:

    >>> step = dict(operations=6 * 20e9 * 65_536, gradients=2 * 20e9)
    >>> clusters = [Cluster(n, 12.5e9, 1e-5, 1e14, 80e9) for n in (1, 8, 64)]
    >>> [round(data_parallel_seconds(cluster, **step), 1) for cluster in clusters]
    [78.6, 15.4, 7.5]
    """
    _check(operations=operations, gradients=gradients)
    alone = operations / cluster.operations
    return alone / cluster.nodes + all_reduce_seconds(cluster, gradients)


def sharded_data_seconds(cluster: Cluster, operations: float, gradients: float) -> float:
    """Return the seconds of a data-parallel step where each machine keeps an N-th of the model.

    As FSDP does it (Zhao et al. 2023, arXiv 2304.11277): all weights are gathered forward and once
    more backward, the gradients are summed in pieces. Three halves of a ring in the place of two.

    Parameters
    ----------
    cluster, operations, gradients
        As in :func:`data_parallel_seconds`; the weights have as many bytes as the gradients.

    Returns
    -------
    float
    """
    _check(operations=operations, gradients=gradients)
    alone = operations / cluster.operations
    return alone / cluster.nodes + 1.5 * all_reduce_seconds(cluster, gradients)


def tensor_parallel_seconds(
    cluster: Cluster, operations: float, layers: int, activations: float
) -> float:
    """Return the seconds of a step where each machine holds an N-th of every matrix.

    In each layer attention and the two matrices behind it end in partial sums, one of each way
    forward and one back: four sums of the activations over all machines (Shoeybi et al. 2019,
    arXiv 1909.08053).

    Parameters
    ----------
    cluster : Cluster
    operations : float
        Of the whole step.
    layers : int
    activations : float
        Bytes of what one layer hands to the next, for the whole batch.

    Returns
    -------
    float
    """
    _check(operations=operations, layers=layers, activations=activations)
    sums = 4 * layers * all_reduce_seconds(cluster, activations)
    return operations / cluster.operations / cluster.nodes + sums


def pipeline_seconds(cluster: Cluster, operations: float, activations: float, pieces: int) -> float:
    """Return the seconds of a step where each machine holds an N-th of the layers.

    The batch is cut into pieces, which follow each other through the machines, all forward and
    then all back (GPipe, Huang et al. 2018, arXiv 1811.06965). The last machine waits for the
    first piece, the first one for the last: of M + N - 1 turns each is idle in N - 1.

    Parameters
    ----------
    cluster : Cluster
    operations : float
        Of the whole step, a third of them forward.
    activations : float
        Bytes of what one layer hands to the next, for the whole batch; as many come back.
    pieces : int
        Into which the batch is cut.

    Returns
    -------
    float
    """
    _check(operations=operations, activations=activations, pieces=pieces)
    turn = operations / cluster.operations / cluster.nodes / pieces
    hop = send_seconds(cluster, activations / pieces) if cluster.nodes > 1 else 0
    return sum(_one_way(cluster.nodes, pieces, turn * share, hop) for share in (1 / 3, 2 / 3))


def _one_way(nodes, pieces, turn, hop):
    """Return when the last piece leaves the last machine, which sends it to nobody."""
    return (nodes + pieces - 2) * (turn + hop) + turn


def idle_share(nodes: int, pieces: int) -> float:
    """Return which share of a pipeline's time each machine waits, where nothing is sent.

    Examples
    --------
    >>> [round(idle_share(4, pieces), 2) for pieces in (1, 4, 32)]
    [0.75, 0.43, 0.09]
    """
    return (nodes - 1) / (pieces + nodes - 1)


@dataclass(frozen=True)
class Step:
    """What one training step asks of machines.

    Parameters
    ----------
    operations, layers, gradients, activations, pieces
        As in the functions above.
    held : float
        Bytes that training keeps for the whole model: about 16 a weight with AdamW, activations
        left out.
    """

    operations: float
    layers: int
    gradients: float
    activations: float
    pieces: int
    held: float


def seconds_by_way(cluster: Cluster, step: Step) -> dict[str, float]:
    """Return the seconds of a step in each way; infinity where a machine's part does not fit.

    Parameters
    ----------
    cluster : Cluster
    step : Step

    Returns
    -------
    dict of str to float
        ``"alone"`` and ``"data"`` hold the whole model in one machine; ``"sharded data"``,
        ``"tensors"`` and ``"pipeline"`` an N-th of it.

    Examples
    --------
    Twenty billion weights in machines of 80 GB, which hold a quarter of them, and never all:

    >>> step = Step(6 * 20e9 * 65_536, 44, 2 * 20e9, 65_536 * 6_144 * 2, 32, 16 * 20e9)
    >>> for nodes in (2, 4):
    ...     found = seconds_by_way(Cluster(nodes, 12.5e9, 1e-5, 1e14, 80e9), step)
    ...     print(*(f"{way} {seconds:.1f}" for way, seconds in found.items()), sep=", ")
    alone inf, data inf, sharded data inf, tensors inf, pipeline inf
    alone inf, data inf, sharded data 26.9, tensors 36.7, pipeline 21.6
    """
    work = step.operations
    whole = {
        "alone": work / cluster.operations,
        "data": data_parallel_seconds(cluster, work, step.gradients),
    }
    shared = {
        "sharded data": sharded_data_seconds(cluster, work, step.gradients),
        "tensors": tensor_parallel_seconds(cluster, work, step.layers, step.activations),
        "pipeline": pipeline_seconds(cluster, work, step.activations, step.pieces),
    }
    room = cluster.memory
    return _fitting(whole, step.held, room) | _fitting(shared, step.held / cluster.nodes, room)


def _fitting(seconds, held, room):
    return seconds if held <= room else dict.fromkeys(seconds, math.inf)


def _check(**given):
    for name, value in given.items():
        if not 0 < value < float("inf"):
            raise ValueError(f"{name} is {value}; a number above 0 is wanted")
