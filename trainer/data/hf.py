"""Parquet shards of a data set on a Hugging Face hub. HF_ENDPOINT and HF_TOKEN are honoured."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from trainer.data.download import download
from trainer.data.files import parquet_texts
from trainer.data.source import DataError, Document, Report, cut, read_options
from trainer.data.storage import file_sha256, locked, read_json, replace_json

DEFAULT_ENDPOINT = "https://huggingface.co"
_DEFAULTS: dict[str, Any] = {
    "repo": "",
    "revision": "main",
    "shards": [""],
    "sha256": {},
    "text_column": "text",
    "max_bytes": None,
    "max_chars": 50_000,
}


def open_source(options: Mapping[str, Any], downloads: Path, report: Report) -> HfSource:
    """Options: `repo`, `revision`, `shards` (paths in the repository), `sha256` (pins, by shard), `text_column`,
    `max_bytes` of text after which reading stops, `max_chars` after which a text is cut."""
    values = read_options(options, _DEFAULTS)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", values["repo"]):
        raise DataError(f"data.options.repo={values['repo']!r}: expected owner/name")
    for shard in values["shards"]:
        if not isinstance(shard, str) or not shard.endswith(".parquet") or ".." in shard or shard.startswith("/"):
            raise DataError(f"data.options.shards: {shard!r} is no path of a .parquet file in the repository")
    if values["max_bytes"] is not None and (not isinstance(values["max_bytes"], int) or values["max_bytes"] < 1):
        raise DataError(f"data.options.max_bytes={values['max_bytes']!r}: expected a positive integer or null")
    endpoint = os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT
    return HfSource(values, downloads, report, endpoint.rstrip("/"), os.environ.get("HF_TOKEN", "").strip() or None)


class HfSource:
    """Documents are named `shard:row`."""

    def __init__(
        self, options: Mapping[str, Any], downloads: Path, report: Report, endpoint: str, token: str | None
    ) -> None:
        self._options, self._report, self._endpoint, self._token = options, report, endpoint, token
        self._folder = downloads / f"{options['repo']}@{options['revision']}".replace("/", "--")
        self.inputs: dict[str, str] = {}

    def identity(self) -> dict[str, Any]:
        return {**self._options, "split_by": "document"}  # the rule of trainer/data/split.py that a cache was made by

    def documents(self) -> Iterator[Document]:
        left = self._options["max_bytes"]
        for number, shard in enumerate(self._options["shards"]):
            path = self._fetch(shard, f"{number + 1}/{len(self._options['shards'])}")
            for row, text in enumerate(parquet_texts(path, self._options["text_column"])):
                if not text.strip():
                    continue
                yield from cut(Document(f"{shard}:{row:09d}", text), self._options["max_chars"])
                if left is not None:
                    left -= len(text.encode())
                    if left <= 0:
                        return

    def _fetch(self, shard: str, position: str) -> Path:
        """The shard on disk. Its hash is written down once it is whole, so that is not read twice."""
        path = self._folder / shard
        record = path.with_name(f"{path.name}.json")
        with locked(path):
            known = read_json(record)
            if known is None or not path.is_file() or path.stat().st_size != known["num_bytes"]:
                url = f"{self._endpoint}/datasets/{self._options['repo']}/resolve"
                url = f"{url}/{quote(self._options['revision'], safe='')}/{quote(shard)}"

                def on_bytes(done: int, total: int | None) -> None:
                    self._report(f"download {position}", done, total, "B")

                told = download(url, path, self._token, on_bytes)
                known = {"sha256": file_sha256(path), "num_bytes": path.stat().st_size}
                if told is not None and told != known["sha256"]:
                    path.unlink()
                    raise DataError(f"{shard} has sha256 {known['sha256']}, the hub says {told}: run again")
                replace_json(record, known)
            pinned = self._options["sha256"].get(shard)
            if pinned is not None and pinned != known["sha256"]:
                path.unlink()
                record.unlink()
                raise DataError(
                    f"{shard} has sha256 {known['sha256']}, {pinned} is pinned: run again, or check the revision"
                )
            self.inputs[shard] = known["sha256"]
        return path
