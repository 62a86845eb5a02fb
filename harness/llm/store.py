"""Requests and answers beside the journal: `llm/requests/<sha256>.json` and `llm/replies/<sha256>.json`.

Their names are the hashes that the journal holds. Secrets of the environment never get into them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from harness.errors import JournalError

REDACTED = "[redacted]"
_SECRET_NAMES = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)
_MIN_SECRET_CHARS = 8


def is_secret_name(name: str) -> bool:
    return bool(_SECRET_NAMES.search(name))


def looks_secret(name: str, value: str) -> bool:
    """Whether a variable of that name holds a secret: what is short is a number or a switch, and found everywhere."""
    return is_secret_name(name) and len(value) >= _MIN_SECRET_CHARS


def secrets_of(environment: Mapping[str, str], names: Iterable[str] = ()) -> tuple[str, ...]:
    """Values that look like secrets by their variable's name, and those of `names`; the longest first."""
    chosen = set(names)
    values = {value for name, value in environment.items() if name in chosen or looks_secret(name, value)}
    return tuple(sorted((value for value in values if value), key=len, reverse=True))


def redact(text: str, secrets: Iterable[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, REDACTED)
    return text


class Store:
    """The folder `llm` of a session."""

    def __init__(self, folder: Path, secrets: tuple[str, ...] = ()) -> None:
        self.folder = folder
        self._secrets = secrets

    def clean(self, text: str) -> str:
        return redact(text, self._secrets)

    def clean_json(self, value: Any) -> Any:
        return json.loads(self._redacted(json.dumps(value)))

    def put(self, kind: str, value: Any) -> str:
        """Write `value` durably; its hash. Raises JournalError."""
        content = self._redacted(json.dumps(value, sort_keys=True, ensure_ascii=True, indent=1)).encode("ascii")
        digest = hashlib.sha256(content).hexdigest()
        path = self._path(kind, digest)
        if path.exists():
            return digest
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            half = path.with_suffix(".part")
            with half.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            half.replace(path)
        except OSError as error:
            raise JournalError(f"cannot write {path} ({error.strerror}): free space or mend the disk") from error
        return digest

    def get(self, kind: str, digest: str) -> Any:
        """What `put` stored; None where the file is gone or is not what was stored."""
        try:
            content = self._path(kind, digest).read_bytes()
        except OSError:
            return None
        return json.loads(content) if hashlib.sha256(content).hexdigest() == digest else None

    def _redacted(self, text: str) -> str:
        # In JSON a secret may be written with escapes.
        escaped = [json.dumps(secret)[1:-1] for secret in self._secrets]
        return redact(text, [*self._secrets, *escaped])

    def _path(self, kind: str, digest: str) -> Path:
        return self.folder / kind / f"{digest}.json"
