"""Formulas of a step's time beside machines that are followed one message at a time."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightcourse.deployment import clusters

POSITIVE = st.floats(1e-3, 1e3)


@st.composite
def made(draw):
    latency = draw(st.one_of(st.just(0.0), POSITIVE))
    return clusters.Cluster(draw(st.integers(1, 6)), draw(POSITIVE), latency, draw(POSITIVE), 1.0)


def ring(cluster, size):
    """Follow a ring: each machine sends when it has what it is to send."""
    count = cluster.nodes
    ready = dict.fromkeys(itertools.product(range(count), range(count)), 0.0)  # (machine, piece)
    free, sent = [0.0] * count, [0.0] * count
    for step in range(2 * (count - 1)):
        arrivals = {}
        for node in range(count):
            piece = (node - step) % count
            start = max(free[node], ready[node, piece])
            free[node] = start + cluster.latency + size / count / cluster.bandwidth
            sent[node] += size / count
            arrivals[(node + 1) % count, piece] = free[node]
        for place, when in arrivals.items():
            ready[place] = max(ready[place], when)
    return max(ready.values()), sent


@given(made(), POSITIVE)
def test_a_ring(cluster, size):
    seconds, sent = ring(cluster, size)
    assert clusters.all_reduce_seconds(cluster, size) == pytest.approx(seconds)
    assert [clusters.ring_bytes(cluster.nodes, size)] * cluster.nodes == pytest.approx(sent)


def one_way(cluster, turn, hop, pieces):
    """Follow each piece through each machine, which computes it and then sends it on."""
    free, done = [0.0] * cluster.nodes, 0.0
    for _ in range(pieces):
        arrived = 0.0
        for node in range(cluster.nodes):
            done = max(arrived, free[node]) + turn
            free[node] = arrived = done + hop * (node < cluster.nodes - 1)
    return done


@given(made(), POSITIVE, POSITIVE, st.integers(1, 9))
def test_a_pipeline(cluster, operations, activations, pieces):
    turn = operations / cluster.operations / cluster.nodes / pieces
    hop = cluster.latency + activations / pieces / cluster.bandwidth
    wanted = one_way(cluster, turn / 3, hop, pieces) + one_way(cluster, turn * 2 / 3, hop, pieces)
    found = clusters.pipeline_seconds(cluster, operations, activations, pieces)
    assert found == pytest.approx(wanted)


@given(st.integers(1, 9), st.integers(1, 30))
def test_the_share_of_waiting(nodes, pieces):
    cluster = clusters.Cluster(nodes, 1, 0, 1, 1)
    whole = one_way(cluster, 1.0, 0.0, pieces)
    assert clusters.idle_share(nodes, pieces) == pytest.approx(1 - pieces / whole)


@given(made(), POSITIVE, POSITIVE, st.integers(1, 5))
def test_data_and_tensors(cluster, operations, size, layers):
    computing = operations / cluster.operations / cluster.nodes
    seconds, _ = ring(cluster, size)
    found = clusters.data_parallel_seconds(cluster, operations, size)
    assert found == pytest.approx(computing + seconds)
    clock = computing
    for _ in range(layers):
        for _ in ("attention", "matrices") * 2:  # there and back
            clock += ring(cluster, size)[0]
    found = clusters.tensor_parallel_seconds(cluster, operations, layers, size)
    assert found == pytest.approx(clock)


@given(made(), POSITIVE, POSITIVE)
def test_shards_are_gathered_twice_and_summed_once(cluster, operations, size):
    clock = operations / cluster.operations / cluster.nodes
    clock += 3 * ring(cluster, size)[0] / 2  # each a half of a ring
    found = clusters.sharded_data_seconds(cluster, operations, size)
    assert found == pytest.approx(clock)


@pytest.mark.parametrize(
    "memory, whole, share",
    [(13, True, True), (12, True, True), (11, False, True), (4, False, True), (3, False, False)],
)
def test_what_does_not_fit_takes_for_ever(memory, whole, share):
    """Of 12 bytes, on three machines."""
    cluster = clusters.Cluster(3, 1, 1, 1, memory)
    found = clusters.seconds_by_way(cluster, clusters.Step(6, 2, 1, 1, 5, held=12))
    wanted = {"alone": 6, "data": clusters.data_parallel_seconds(cluster, 6, 1)}
    wanted |= {"sharded data": clusters.sharded_data_seconds(cluster, 6, 1)}
    wanted |= {"tensors": clusters.tensor_parallel_seconds(cluster, 6, 2, 1)}
    wanted |= {"pipeline": clusters.pipeline_seconds(cluster, 6, 1, 5)}
    fits = [whole, whole, share, share, share]
    assert found == {
        way: seconds if there else math.inf
        for (way, seconds), there in zip(wanted.items(), fits, strict=True)
    }


def test_one_machine_sends_nothing():
    alone = clusters.Cluster(1, 1, 100, 2, 1)
    assert clusters.data_parallel_seconds(alone, 6, 1e9) == 3
    assert clusters.tensor_parallel_seconds(alone, 6, 4, 1e9) == 3
    assert clusters.pipeline_seconds(alone, 6, 1e9, 5) == pytest.approx(3)


@pytest.mark.parametrize(
    "name, value", [("nodes", 0), ("nodes", 1.5), ("bandwidth", 0), ("latency", -1), ("memory", -1)]
)
def test_impossible_machines_are_refused(name, value):
    settings = {"nodes": 2, "bandwidth": 1, "latency": 0, "operations": 1, "memory": 1}
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        clusters.Cluster(**settings | {name: value})


def test_impossible_steps_are_refused():
    cluster = clusters.Cluster(2, 1, 0, 1, 1)
    with pytest.raises(ValueError, match="gradients is 0"):
        clusters.data_parallel_seconds(cluster, 1, 0)
    with pytest.raises(ValueError, match="pieces is -1"):
        clusters.pipeline_seconds(cluster, 1, 1, -1)
