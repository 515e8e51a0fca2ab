"""Running a chapter in a real kernel: its outputs, its failure, its cost."""

from lightcourse.classroom import run
from tests.classroom.books import notebook


def test_torch_waits_patiently_in_a_chapter_s_kernel(tmp_path):
    code = "import os; assert os.environ['OMP_WAIT_POLICY'] == 'PASSIVE'"
    assert run.execute(notebook(code), tmp_path).failure is None


def test_a_chapter_in_a_real_kernel(tmp_path):
    chapter = notebook(
        "from pathlib import Path; print(Path.cwd()); block = bytearray(200_000_000)",
        " ",
        "import time; time.sleep(0.3); 1 / 0",
        "Path('reached').touch()\n[][5]",
        "Path('not reached').touch()",
    )
    chapter.cells[3].metadata["tags"] = ["raises-exception"]
    result = run.execute(chapter, tmp_path)
    assert result.failure.number == 3
    assert result.failure.source.endswith("[][5]")
    assert result.failure.error == "IndexError: list index out of range"
    assert [path.name for path in tmp_path.iterdir()] == ["reached"]
    assert str(tmp_path) in chapter.cells[1].outputs[0].text
    assert [c.get("execution_count") for c in chapter.cells[1:]] == [1, None, 2, 3, None]
    assert result.peak_bytes > 200_000_000
    assert result.seconds > 0
