"""Files are whole or absent, and tensors come back bit for bit."""

import errno
import hashlib
import multiprocessing
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightcourse import files

DTYPES = [
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float64,
    torch.int8,
    torch.uint8,
    torch.int64,
    torch.bool,
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One folder for all examples of a property."""
    return tmp_path_factory.mktemp("files")


@given(st.binary(max_size=2_000))
def test_sha256_is_that_of_the_bytes(folder, content):
    (folder / "content").write_bytes(content)
    assert files.sha256(folder / "content") == hashlib.sha256(content).hexdigest()


def test_sha256_of_a_missing_file_raises(tmp_path):
    with pytest.raises(FileNotFoundError):
        files.sha256(tmp_path / "none")


def test_a_file_is_created_with_its_folders_and_replaced(tmp_path):
    path = tmp_path / "a" / "b" / "file.txt"
    for text in ("first", "second"):
        assert files.write_atomically(path, lambda t, text=text: t.write_text(text)) == path
        assert path.read_text() == text
    assert list(path.parent.iterdir()) == [path]


def test_while_it_is_written_the_old_file_stays(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def write(temporary):
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.parent == path.parent

    files.write_atomically(path, write)
    assert path.read_text() == "new"


@pytest.mark.parametrize(
    "error", [OSError(errno.EIO, "broken"), ValueError("x"), KeyboardInterrupt]
)
def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, error):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def write(temporary):
        temporary.write_text("half")
        raise error

    with pytest.raises(type(error) if isinstance(error, Exception) else error):
        files.write_atomically(path, write)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "old"


def test_a_failed_first_write_leaves_nothing(tmp_path):
    with pytest.raises(OSError, match="no parent"):
        files.write_atomically(
            tmp_path / "file", lambda _: (_ for _ in ()).throw(OSError("no parent"))
        )
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_told_with_the_place_to_clear(tmp_path):
    def write(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="no space left to write model.bin; free some in") as caught:
        files.write_atomically(tmp_path / "model.bin", write)
    assert caught.value.errno == errno.ENOSPC
    assert str(tmp_path) in str(caught.value)


def _write_many_times(path, letter):
    for _ in range(50):
        files.write_atomically(path, lambda temporary: temporary.write_text(letter * 10_000))


def test_two_processes_leave_one_whole_file(tmp_path):
    path = tmp_path / "file.txt"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write_many_times, args=(path, letter)) for letter in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert path.read_text() in ("a" * 10_000, "b" * 10_000)
    assert list(tmp_path.iterdir()) == [path]


@given(
    st.dictionaries(
        st.from_regex(r"[a-z]{1,6}(\.[a-z0-9]{1,4})?", fullmatch=True),
        st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 5), max_size=3)),
        max_size=4,
    ),
    st.integers(0, 2**31),
)
def test_tensors_come_back_bit_for_bit(folder, shapes, seed):
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        name: (torch.randn(shape, generator=generator) * 100).to(dtype)
        for name, (dtype, shape) in shapes.items()
    }
    files.save_tensors(tensors, folder / "tensors", {"seed": str(seed)})
    got, metadata = files.load_tensors(folder / "tensors")
    assert metadata == {"seed": str(seed)}
    assert got.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert got[name].dtype == tensor.dtype
        assert torch.equal(got[name], tensor)


def test_views_and_trained_parameters_can_be_saved(tmp_path):
    weight = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3))
    files.save_tensors({"transposed": weight.T, "weight": weight}, tmp_path / "t")
    got, metadata = files.load_tensors(tmp_path / "t")
    assert metadata == {}
    assert torch.equal(got["transposed"], weight.T)
    assert not got["weight"].requires_grad


@pytest.mark.parametrize("size", [0, 4, 40, -1])
def test_a_truncated_file_is_never_taken_for_whole(tmp_path, size):
    path = files.save_tensors({"weight": torch.ones(50)}, tmp_path / "t")
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(Exception, match=r"(?i)header|deserializ|empty|mmap"):
        files.load_tensors(path)


@pytest.mark.parametrize("free", [0, 10**12])
def test_tensors_on_a_full_disk_are_told_from_other_failures(tmp_path, monkeypatch, free):
    from safetensors import SafetensorError

    def fail(*_):
        raise SafetensorError("Error while serializing")

    monkeypatch.setattr("safetensors.torch.save_file", fail)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    wanted = SafetensorError if free else OSError
    with pytest.raises(wanted, match="serializing" if free else "no space left to write x"):
        files.save_tensors({"a": torch.zeros(3)}, tmp_path / "x.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_tensors_in_the_place_of_a_path_are_named(tmp_path):
    with pytest.raises(ValueError, match="path is a dict; the path of a file"):
        files.save_tensors(tmp_path / "x", {"a": torch.zeros(3)})
    with pytest.raises(ValueError, match="tensors is a .*; a dict of tensors is wanted"):
        files.save_tensors(torch.nn.Linear(2, 2), tmp_path / "x")
