"""What /proc/cpuinfo tells, where there is one."""

from __future__ import annotations

from pathlib import Path

import pytest

from backends import _processor as processor

SERVER = """processor	: 0
vendor_id	: AuthenticAMD
cpu family	: 25
model		: 17
model name	: AMD EPYC
stepping	: 1
flags		: fpu avx avx2 fma avx512f avx512_bf16 arat

processor	: 1
cpu family	: 25
model		: 17
model name	: AMD EPYC
stepping	: 1
flags		: fpu
"""
OLDER = SERVER.replace("25", "23").replace(" avx512f avx512_bf16", "")
ARM = """processor	: 0
BogoMIPS	: 243.75
Features	: fp asimd asimddp sve bf16 evtstrm
CPU implementer	: 0x41
CPU part	: 0xd4f
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "cpuinfo"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "generation", "instructions"),
    [
        (SERVER, "25 17 1", ["avx", "avx2", "avx512f", "avx512_bf16"]),
        (OLDER, "23 17 1", ["avx", "avx2"]),
        (ARM, "0x41 0xd4f", ["asimd", "asimddp", "sve", "bf16"]),
    ],
)
def test_processors_of_one_name_are_told_apart(tmp_path, text, generation, instructions):
    path = written(tmp_path, text)
    assert processor.generation(path) == generation
    assert processor.vector_instructions(path) == instructions


def test_what_nobody_says_is_unknown(tmp_path):
    missing = tmp_path / "none"
    assert processor.generation(missing) is None
    assert processor.vector_instructions(missing) is None
    assert processor.vector_instructions(written(tmp_path, "processor : 0\n")) is None
    assert processor.model(written(tmp_path, SERVER)) == "AMD EPYC"


def test_avx512_without_bfloat16_products_is_no_reason_for_bfloat16(tmp_path):
    path = written(tmp_path, SERVER.replace(" avx512_bf16", ""))
    assert not processor.BFLOAT16_PRODUCTS.intersection(processor.vector_instructions(path) or ())
