"""Real English and code: the Python files of well-known pure-Python packages, pinned in pypi_manifest.json.

None of the packages may be in our own dependency closure: what the sandbox can import, it could learn by heart.
"""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from trainer.data.source import DataError, Document, Report, cut, decode_text, read_options
from trainer.data.storage import canonical_hash, file_sha256, locked

MANIFEST = Path(__file__).with_name("pypi_manifest.json")
_DEFAULTS = {"suffixes": [".py"], "exclude": [""], "min_bytes": 512, "max_chars": 100_000}
_PIP_SECONDS = 900


def open_source(options: Mapping[str, Any], downloads: Path, report: Report) -> PypiSource:
    """Options: `suffixes` taken, `exclude` patterns of paths, `min_bytes`; of longer files the first `max_chars`."""
    wheels = json.loads(MANIFEST.read_text(encoding="utf-8"))["wheels"]
    return PypiSource(wheels, read_options(options, _DEFAULTS), downloads, report)


class PypiSource:
    """Documents are named `package/path/in/wheel`."""

    def __init__(
        self, wheels: list[dict[str, Any]], options: Mapping[str, Any], downloads: Path, report: Report
    ) -> None:
        self._wheels, self._options, self._downloads, self._report = wheels, options, downloads, report
        self.inputs: dict[str, str] = {wheel["filename"]: wheel["sha256"] for wheel in wheels}

    def identity(self) -> dict[str, Any]:
        return {"wheels": canonical_hash(self._wheels), "options": dict(self._options)}

    def documents(self) -> Iterator[Document]:
        with locked(self._downloads / "wheels"):
            for number, wheel in enumerate(self._wheels):
                self._report("download", number, len(self._wheels), "wheels")
                self._fetch(wheel)
            self._report("download", len(self._wheels), len(self._wheels), "wheels")
        for wheel in self._wheels:
            yield from self._read(wheel)

    def _fetch(self, wheel: Mapping[str, Any]) -> None:
        """Download one wheel unless it is there. pip, so that the user's own index, proxy and cache settings apply."""
        path = self._downloads / wheel["filename"]
        if path.is_file() and file_sha256(path) == wheel["sha256"]:
            return
        path.unlink(missing_ok=True)
        requirement = f"{wheel['name']}=={wheel['version']}"
        requirements = self._downloads / "requirements.txt"
        requirements.write_text(f"{requirement} --hash=sha256:{wheel['sha256']}\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--require-hashes"]
        command += ["--no-input", "--disable-pip-version-check", "--quiet", "-r", str(requirements)]
        command += ["-d", str(self._downloads)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_PIP_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            raise DataError(f"pip took more than {_PIP_SECONDS} s for {requirement}: check the network, run again") from None
        if done.returncode != 0 or not path.is_file():
            lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
            reason = next((line for line in lines if line.startswith("ERROR")), lines[-1])
            hint = " (install pip into this environment first)" if "No module named pip" in done.stderr else ""
            raise DataError(f"pip could not download {requirement}{hint}: {reason}; check pip's index settings, run again")

    def _read(self, wheel: Mapping[str, Any]) -> Iterator[Document]:
        with zipfile.ZipFile(self._downloads / wheel["filename"]) as archive:
            for name in sorted(archive.namelist()):
                path = f"{wheel['name']}/{name}"
                if not name.endswith(tuple(self._options["suffixes"])) or self._is_excluded(path):
                    continue
                text = decode_text(archive.read(name))
                if text is not None and len(text) >= self._options["min_bytes"]:
                    first = next(cut(Document(path, text), self._options["max_chars"]))
                    yield Document(path, first.text)

    def _is_excluded(self, path: str) -> bool:
        return any(fnmatch(path, pattern) for pattern in self._options["exclude"])
