"""Cores as other processors would get them: compiled here, and read."""

import ctypes
import platform
import re
import sys
from types import SimpleNamespace

import pytest
from llvmlite import binding, ir

from lightcourse.kernels import avx2, avxvnni, neon, sparse_tiles, tiles
from lightcourse.kernels.writer import I64, POINTER, Code

ALDER_LAKE = "x86_64-unknown-linux-gnu", "alderlake"
ARM = ["neoverse-n1", "cortex-a76", "apple-m1"]


@pytest.fixture(scope="module", autouse=True)
def targets():
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()


def assembly(write, triple, processor):
    """Compile a tile for a processor, as Numba would."""
    target = binding.Target.from_triple(triple)
    machine = target.create_target_machine(processor, opt=3, reloc="pic")
    module = binding.parse_assembly(str(_module(write, triple)))
    module.verify()
    options = binding.create_pipeline_tuning_options(speed_level=3)
    passes = binding.create_pass_builder(machine, options)
    passes.getModulePassManager().run(module, passes)
    return machine.emit_assembly(module)


def _module(write, triple):
    module = ir.Module("tile")
    module.triple = triple
    kind = ir.FunctionType(ir.VoidType(), [POINTER, I64, I64])
    builder = ir.IRBuilder(ir.Function(module, kind, "tile").append_basic_block())
    code, (job, *place) = Code(builder), builder.function.args
    write(code, tiles._fields(code, job), *place)
    builder.ret_void()
    return module


def all_kinds(w8, w4, signed, shuffle):
    """Return a tile of each kind of weights."""
    return {
        "w8": tiles.all_rows((6, tiles.w8(w8, 6, 1, ahead=1024)), (1, tiles.w8(w8, 1, 1, 2))),
        "row": tiles.w8(w8, 1, 4),
        "g8": tiles.g8(w8, 4),
        "g8 row": tiles.g8(w8, 1, 4, 1024),
        "w4": tiles.w4(w4, 4, False),
        "z4": tiles.w4(w4, 4, True),
        "sparse": sparse_tiles.sparse(signed, tiles.panel_start, shuffle, [(4, 1), (1, 2)]),
        "peak": tiles.peak(w4, 6, lambda total: total),
    }


ON_ARM = all_kinds(neon.OFFSET, neon.NEON, neon.NEON, neon.shuffle)
ON_ALDER_LAKE = all_kinds(avxvnni.AVXVNNI, avxvnni.AVXVNNI, avxvnni.SIGNED, avx2.shuffle)


@pytest.mark.parametrize("processor", ARM)
@pytest.mark.parametrize("kind", ON_ARM)
def test_arm_multiplies_by_sdot_and_calls_nothing(kind, processor):
    text = assembly(ON_ARM[kind], "aarch64-unknown-linux-gnu", processor)
    assert re.search(r"\bsdot\tv\d+\.4s, v\d+\.16b", text)
    assert not re.search(r"^\s*(bl|blr)\s", text, re.MULTILINE)
    assert {"w8": "prfm", "sparse": "tbl"}.get(kind, "") in text


@pytest.mark.parametrize("kind", ON_ALDER_LAKE)
def test_alder_lake_gets_no_instruction_of_avx512(kind):
    text = assembly(ON_ALDER_LAKE[kind], *ALDER_LAKE)
    assert re.search(r"\{vex\}\tvpdpbusd\t.*%ymm", text)
    assert not re.search(r"zmm|%k[0-7]|[xy]mm(1[6-9]|[23]\d)|\bcallq?\b", text)


@pytest.mark.parametrize(
    "machine, system, name, flags, has",
    [
        ("aarch64", "linux", "neoverse-n1", 1 << 20 | 3, True),
        ("aarch64", "linux", "cortex-a72", 3, False),
        ("aarch64", "linux", "generic", 1 << 20, False),
        ("arm64", "darwin", "apple-m1", None, True),
        ("arm64", "win32", "cortex-x1", None, False),
        ("x86_64", "linux", "alderlake", 1 << 20, False),
    ],
)
def test_sdot_is_asked_of_the_system(machine, system, name, flags, has, monkeypatch):
    library = SimpleNamespace(getauxval=lambda kind: flags if kind == 16 else 0)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    monkeypatch.setattr(neon.binding, "get_host_cpu_name", lambda: name)
    assert neon.features() == ({"neon", "dotprod"} if has else set())
