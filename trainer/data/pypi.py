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
_WHEELS_PER_CALL = 3  # pip keeps nothing of a call that is killed


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
            missing = [wheel for wheel in self._wheels if not self._is_here(wheel)]
            for start in range(0, len(missing), _WHEELS_PER_CALL):
                self._report("download", len(self._wheels) - len(missing) + start, len(self._wheels), "wheels")
                self._fetch(missing[start : start + _WHEELS_PER_CALL])
            self._report("download", len(self._wheels), len(self._wheels), "wheels")
        for wheel in self._wheels:
            yield from self._read(wheel)

    def _is_here(self, wheel: Mapping[str, Any]) -> bool:
        path = self._downloads / wheel["filename"]
        return path.is_file() and bool(file_sha256(path) == wheel["sha256"])

    def _fetch(self, wheels: list[dict[str, Any]]) -> None:
        """Download wheels with pip, so that the user's own index, proxy and cache settings apply."""
        for wheel in wheels:
            (self._downloads / wheel["filename"]).unlink(missing_ok=True)
        lines = [f"{wheel['name']}=={wheel['version']} --hash=sha256:{wheel['sha256']}" for wheel in wheels]
        requirements = self._downloads / "requirements.txt"
        requirements.write_text("\n".join(lines) + "\n", encoding="utf-8")
        names = ", ".join(f"{wheel['name']}=={wheel['version']}" for wheel in wheels)
        command = [sys.executable, "-P", "-m", "pip"]  # -P: not what lies in the user's folder under pip's names
        command += ["download", "--no-deps", "--only-binary=:all:", "--require-hashes"]
        command += ["--no-input", "--disable-pip-version-check", "--quiet", "-r", str(requirements)]
        command += ["-d", str(self._downloads)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_PIP_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            raise DataError(f"pip took more than {_PIP_SECONDS} s for {names}: check the network, run again") from None
        if done.returncode != 0 or not all(self._is_here(wheel) for wheel in wheels):
            raise DataError(
                f"pip could not download {names}: {_pip_error(done.stderr)}; check pip's settings, run again"
            )

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


def _pip_error(stderr: str) -> str:
    """The line of pip's output that says what went wrong."""
    if "No module named pip" in stderr:
        return "pip is not installed in this environment (add it, with uv: `uv pip install pip`)"
    lines = [line for line in stderr.splitlines() if line.strip()] or ["no message"]
    return next((line for line in lines if line.startswith("ERROR")), lines[-1])
