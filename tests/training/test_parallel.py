"""Several processes train as one would with the joint batch, and say what they send."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lightcourse import data, files, training
from tests import toys
from tests.training import together

pytestmark = pytest.mark.alone  # processes wait for each other
ROOT = Path(__file__).resolve().parents[2]


def start(folder, processes, *more):
    folder.mkdir(exist_ok=True)
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--local_addr=127.0.0.1",
    ]
    command += [f"--nproc_per_node={processes}", "-m", "tests.training.together", folder, *more]
    place = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        list(map(str, command)), cwd=ROOT, capture_output=True, text=True, env=place
    )
    return run.returncode, run.stderr


def result(folder):
    return json.loads((folder / "result.json").read_text())


def weights(folder):
    tensors, _ = files.load_tensors(folder / "model.safetensors")
    return torch.cat([tensor.flatten() for _, tensor in sorted(tensors.items())])


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    status, errors = start(folder, 2)
    assert status == 0, errors
    return folder


def test_gradients_are_those_of_the_joint_batch(two):
    error, control = result(two)["errors"]
    assert error < 1e-7  # the model's norms compute in float32
    assert control > 1e-4  # where each process's mean counts the same


def test_training_ends_where_one_process_ends(two, tmp_path):
    history = together.alone(tmp_path)
    error = (weights(two) - weights(tmp_path)).abs().max()
    assert error < 1e-5  # of steps of 0.005
    found = result(two)["evaluations"]
    assert [pair[0] for pair in found] == [pair[0] for pair in history.evaluations]
    assert torch.allclose(torch.tensor(found), torch.tensor(history.evaluations), atol=1e-6)


def test_each_process_sends_what_the_formula_says(two):
    found = result(two)
    size = sum(parameter.nbytes for parameter in toys.llama().double().parameters())
    assert found["reduced"] == together.RECIPE.steps * size
    # 2 (N - 1) / N, but for a number that two do not divide.
    assert found["sent"] == pytest.approx(2 * (2 - 1) / 2 * found["reduced"], rel=0.01)
    assert found["ring"] == [0, 0, 0]


def test_a_run_of_which_a_process_was_killed_goes_on(two, tmp_path):
    status, _ = start(tmp_path, 2, 8)
    assert status != 0
    assert not (tmp_path / "result.json").exists()
    notes = files.load_tensors(tmp_path / "run.safetensors")[1]["run"]
    assert len(json.loads(notes)["history"]["losses"]) == 5
    status, errors = start(tmp_path, 2)
    assert status == 0, errors
    assert torch.equal(weights(tmp_path), weights(two))
    assert result(tmp_path)["evaluations"] == result(two)["evaluations"]


def test_a_run_goes_on_with_another_number_of_processes(two, tmp_path):
    """To rounding: the sums of two processes are added in another order than those of one."""
    status, _ = start(tmp_path / "fewer", 2, 8)
    assert status != 0
    together.alone(tmp_path / "fewer")
    with pytest.raises(KeyboardInterrupt):
        together.alone(tmp_path / "more", stopped_at=8)
    status, errors = start(tmp_path / "more", 2)
    assert status == 0, errors
    for folder in (tmp_path / "fewer", tmp_path / "more"):
        assert (weights(folder) - weights(two)).abs().max() < 1e-5  # of steps of 0.005


def test_three_processes(tmp_path):
    """With the last batch of an epoch, of 3 rows, and the ring's pieces of other sizes."""
    status, errors = start(tmp_path, 3)
    assert status == 0, errors
    found = result(tmp_path)
    assert found["errors"][0] < 1e-7
    assert found["ring"] == [0, 0, 0]
    assert found["sent"] == pytest.approx(2 * (3 - 1) / 3 * found["reduced"], rel=0.01)


@pytest.mark.parametrize("ranks", [1, 2, 3, 7])
def test_shares_make_the_joint_mean(ranks):
    batches = data.row_batches({"x": torch.arange(23.0) ** 2}, batch_size=5)
    parts = [list(data.rank_batches(batches, rank, ranks)(0, 1)) for rank in range(ranks)]
    for joint, *own in zip(batches(0, 1), *parts, strict=True):
        mean = sum(part["share"] * part["x"].mean() for part in own) / ranks
        assert mean == pytest.approx(joint["x"].mean())
        rows = torch.cat([part["x"] for part in own if part["share"]])
        assert torch.equal(rows, joint["x"])


def test_a_rank_that_is_none_is_refused():
    with pytest.raises(ValueError, match="rank is 2; 0 to 1 is wanted"):
        data.rank_batches(together.BATCHES, 2, 2)


def test_a_model_alone_is_refused():
    with pytest.raises(ValueError, match="a DistributedDataParallel is wanted"):
        training.reduce_by_ring_(toys.llama())


def test_one_process_sends_nothing():
    values = torch.arange(3.0)
    assert training.ring_all_reduce_(values) == 0
    assert values.tolist() == [0, 1, 2]
