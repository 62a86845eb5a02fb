"""Fixed variants of the stock train.py: constants and patches, through the same door as a researcher's edits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from harness import edits, knobs
from harness.compose import choose_from
from harness.errors import ConfigError, EditRefused
from harness.records import Edit

HERE = Path(__file__).resolve().parent
PATCHES = HERE / "patches"
STOCK = "stock"
_DIGITS = 4  # of a constant that a factor gives


@dataclass(frozen=True)
class Variant:
    """A change of the stock script. Patches come first: they may add the constants that `knobs` sets."""

    name: str
    about: str  # a few words for a table
    close: bool = False  # expected within a few seed deviations of the stock script
    knobs: Mapping[str, Any] = field(default_factory=dict)  # constant -> value
    factors: Mapping[str, float] = field(default_factory=dict)  # constant -> what the task's own is multiplied with
    patches: Sequence[str] = ()  # files in patches/, in order

    def source(self, stock_source: str) -> str:
        """The whole train.py. Raises ConfigError where the variant does not fit `stock_source`, naming it."""
        try:
            source = stock_source
            for name in self.patches:
                source = edits.edited(Edit(blocks=blocks_of(name)), source)
            values = {**self.knobs, **self._scaled(source)}
            source = knobs.apply(source, values)
            edits.check_source(source, stock_source)
        except (EditRefused, ConfigError) as error:
            raise ConfigError(f"variant {self.name} does not fit the stock train.py: {error}") from error
        return source

    def _scaled(self, source: str) -> dict[str, Any]:
        found = knobs.parse(source)
        scaled: dict[str, Any] = {}
        for name, factor in self.factors.items():
            if name not in found:
                raise ConfigError(f"factors: no knob {name}; {choose_from(name, found)}")
            value = float(found[name].value) * factor
            whole = isinstance(found[name].value, int)
            scaled[name] = max(1, round(value)) if whole else float(f"{value:.{_DIGITS}g}")
        return scaled


def load(path: Path) -> tuple[Variant, ...]:
    """The variants of a study's YAML, the stock script first. Raises ConfigError for an entry that is none."""
    known = {item.name for item in fields(Variant)}
    variants = [Variant(STOCK, "the stock script", close=True)]
    entries = OmegaConf.to_container(OmegaConf.load(path))
    for entry in entries if isinstance(entries, list) else ():
        if not isinstance(entry, dict) or not {"name", "about"} <= set(entry) <= known:
            raise ConfigError(f"{path}: expected name, about and of {', '.join(sorted(known))}; found {entry!r}")
        variants.append(Variant(**{str(key): value for key, value in entry.items()}))
    names = [variant.name for variant in variants]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"{path}: two variants are called {doubled[0]}")
    return tuple(variants)


def choose(variants: Sequence[Variant], names: Sequence[str]) -> tuple[Variant, ...]:
    """Those of `variants` that `names` lists, in their own order; all if it lists none. Raises ConfigError."""
    known = [variant.name for variant in variants]
    for name in names:
        if name not in known:
            raise ConfigError(f"no variant '{name}'; {choose_from(name, known)}")
    return tuple(variant for variant in variants if not names or variant.name in names)


def blocks_of(name: str) -> tuple[tuple[str, str], ...]:
    """The search/replace blocks of a patch, in the format in which a language model answers. Raises ConfigError."""
    path = PATCHES / f"{name}.txt"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        known = (file.stem for file in PATCHES.glob("*.txt"))
        raise ConfigError(f"no patch '{name}'; {choose_from(name, known)}") from error
    return edits.parse_blocks(text)[1]
