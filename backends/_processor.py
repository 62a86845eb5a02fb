"""What the operating system says of the processor. Reading it costs nothing, so every probe does."""

from __future__ import annotations

import platform
import sys
from itertools import takewhile
from pathlib import Path

from backends import _tools

# Each widens or adds products: processors of one name that differ here differ in speed by more than a half. Virtual
# machines hide the model ("AMD EPYC" for several generations) but not what the guest may execute.
VECTOR_INSTRUCTIONS = (
    *("avx", "avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16"),
    *("asimd", "asimddp", "sve", "sve2", "bf16"),
)
BFLOAT16_PRODUCTS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
_GENERATION = ("cpu family", "model", "stepping", "CPU implementer", "CPU part")
CPUINFO = Path("/proc/cpuinfo")


def model(cpuinfo: Path = CPUINFO, system: str = sys.platform) -> str | None:
    """The processor's name; None: nobody says."""
    # On a Mac `platform.processor` says "arm" of every chip.
    name = _tools.ask(["sysctl", "-n", "machdep.cpu.brand_string"]) if system == "darwin" else None
    return _first_core(cpuinfo).get("model name") or name or platform.processor() or None


def generation(cpuinfo: Path = CPUINFO) -> str | None:
    """Family, model and stepping as the kernel lists them; None where it does not."""
    said = _first_core(cpuinfo)
    return " ".join(said[name] for name in _GENERATION if name in said) or None


def vector_instructions(cpuinfo: Path = CPUINFO) -> list[str] | None:
    """Those of VECTOR_INSTRUCTIONS that it has; None: nobody says (macOS)."""
    said = _first_core(cpuinfo)
    flags = said.get("flags", said.get("Features"))
    return None if flags is None else [name for name in VECTOR_INSTRUCTIONS if name in flags.split()]


def _first_core(cpuinfo: Path) -> dict[str, str]:
    """The fields of the first core in Linux's /proc/cpuinfo; empty elsewhere."""
    if not cpuinfo.is_file():
        return {}
    with cpuinfo.open() as file:  # the kernel writes the other cores, of which there may be hundreds, only if asked
        pairs = [line.partition(":") for line in takewhile(str.strip, file)]
    return {name.strip(): value.strip() for name, _, value in pairs}
