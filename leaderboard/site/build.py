"""`bpbench site`: the pages, written whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from harness.errors import ConfigError, HarnessError
from harness.files import listed
from leaderboard.published import Collection
from leaderboard.site import pages
from leaderboard.site.links import Links, checked_base, device_names, device_pages

MARKER = ".bpbench-site"
MAX_PAGE_BYTES = 1_500_000  # what a phone loads in some seconds
MAX_SITE_BYTES = 1_000_000_000  # what GitHub Pages publishes
_MAX_NAMED = 5
_NAMES = {MARKER, ".nojekyll", "index.html", "method.html", "style.css", "board.js", "session", "device"}
_MARKED = "Made by `bpbench site`, which replaces this folder as a whole.\n"


@dataclass(frozen=True)
class Built:
    """A site that was written."""

    num_bytes: int
    warnings: tuple[str, ...]  # what is too large to be read with ease, or to be published


def build(
    collection: Collection, target: Path, base_url: str | None = None, bundles: PurePosixPath | None = None
) -> Built:
    """Write the site to `target`, replacing an older one.

    `base_url`: where the repository's files can be read, for links to documents and bundles. `bundles`: the entries'
    folder, from the repository's root.

    Raises:
        ConfigError: `base_url` is no https address, or `target` is something that this command did not make.
        HarnessError: it cannot be written. An older site is untouched.
    """
    content = files(collection, base_url, bundles)
    target = target.resolve()
    check_target(target)
    fresh, old = (target.with_name(f".{target.name}.{kind}.{os.getpid()}") for kind in ("new", "old"))
    try:
        _write(fresh, content)
        if target.exists():
            target.rename(old)
        fresh.rename(target)
    except OSError as error:
        raise HarnessError(f"cannot write {target} ({error.strerror}): free space or choose another -o") from error
    finally:
        # Also when somebody interrupts: at any moment the old site or the new one is whole.
        if old.exists() and not target.exists():
            old.rename(target)
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
    sizes = {path: len(data) for path, data in content.items()}
    return Built(sum(sizes.values()), tuple(too_large(sizes)))


def too_large(sizes: Mapping[str, int]) -> Iterator[str]:
    """What to say of a site whose files have so many bytes.

    No error: a board that has grown honestly must still be published, and whoever sees this decides what to shorten.
    """
    large = sorted(((size, path) for path, size in sizes.items() if size > MAX_PAGE_BYTES), reverse=True)
    if large:
        named = ", ".join(f"{path} ({size:,} bytes)" for size, path in large[:_MAX_NAMED])
        more = f" and {len(large) - _MAX_NAMED} more" if len(large) > _MAX_NAMED else ""
        yield f"pages above {MAX_PAGE_BYTES:,} bytes are slow to open: {named}{more}"
    if (total := sum(sizes.values())) > MAX_SITE_BYTES:
        yield f"the site has {total:,} bytes, and GitHub Pages publishes {MAX_SITE_BYTES:,}"


def files(
    collection: Collection, base_url: str | None = None, bundles: PurePosixPath | None = None
) -> dict[str, bytes]:
    """Every file of the site by its path. The same collection gives the same bytes. Raises ConfigError."""
    made = {MARKER: _MARKED.encode(), ".nojekyll": b""}
    for path, page in pages.render(collection, links_of(collection, base_url, bundles)):
        made[path] = page.encode("utf-8", "replace")
    return dict(sorted(made.items()))


def links_of(collection: Collection, base_url: str | None = None, bundles: PurePosixPath | None = None) -> Links:
    """Where the site's pages lead to. Raises ConfigError."""
    return Links(
        base_url=checked_base(base_url),
        bundles=bundles or PurePosixPath("leaderboard/entries"),
        devices=device_pages(collection.sessions),
        names=device_names(collection.sessions),
    )


def check_target(target: Path) -> None:
    """Raises ConfigError where `target` is neither free, nor empty, nor a site."""
    if not target.exists():
        return
    if not target.is_dir():
        raise ConfigError(f"{target}: a file; expected a folder for the site, or a name that is free")
    if listed(target) and not (target / MARKER).is_file():
        raise ConfigError(f"{target}: holds other files than a site (no {MARKER} in it); choose another -o")
    if strange := [path.name for path in listed(target) if path.name not in _NAMES]:
        raise ConfigError(f"{target}: holds {strange[0]!r}, which no site has; move it away or choose another -o")


def _write(folder: Path, content: Mapping[str, bytes]) -> None:
    for path, data in content.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
