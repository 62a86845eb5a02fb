"""Applies a folder of prepared edits in name order, one an experiment, and stops early after the last.

`*.py` is a whole new train.py. `*.edit` and `*.patch` hold search/replace blocks (harness/edits.py, `parse_blocks`)
against the incumbent; text above the first block is the hypothesis. Other files are ignored.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.edits import parse_blocks
from harness.errors import ConfigError, EditRefused
from harness.records import Edit, Proposal, View

_SUFFIXES = (".py", ".edit", ".patch")


@dataclass(frozen=True)
class Scripted:
    folder: Path
    name: str = "scripted"

    def propose(self, view: View) -> Proposal | None:
        """The edit number `view.index`, None after the last. Raises ConfigError when it cannot be read."""
        files = _files(self.folder)
        if view.index >= len(files):
            return None
        return read_proposal(files[view.index])


def read_proposal(path: Path) -> Proposal:
    """The edit in `path`. Raises ConfigError when it cannot be read or its blocks are malformed."""
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".py":
            return Proposal(hypothesis=path.stem, edit=Edit(source=text))
        preamble, blocks = parse_blocks(text)
    except (OSError, UnicodeDecodeError, EditRefused) as error:
        raise ConfigError(f"{path}: {error}") from error
    if not blocks:
        raise ConfigError(f"{path}: expected at least one <<<<<<< SEARCH block, found none")
    return Proposal(hypothesis=preamble.strip() or path.stem, edit=Edit(blocks=blocks))


def make(*, patches: str | None = None) -> Scripted:
    if patches is None:
        raise ConfigError("agent=scripted needs agent.options.patches=FOLDER with *.py, *.edit or *.patch files")
    folder = Path(patches).expanduser().resolve()
    if not folder.is_dir() or not _files(folder):
        raise ConfigError(f"agent.options.patches must be a folder of *.py, *.edit or *.patch files, not {folder}")
    return Scripted(folder)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES and path.is_file())
