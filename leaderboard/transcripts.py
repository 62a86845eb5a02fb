"""What a language model was asked and what it answered, as a bundle holds it: the files of the session's folder `llm`.

The journal names each by the SHA-256 of its bytes, so a bundle can hold nothing else under that name. Files may be
missing, as they are not needed to retrain, to replay or to recompute a score; `verify` says how many are.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.codec import part_from_json
from harness.config import PriceConfig
from harness.errors import JournalError
from harness.journal import Record
from harness.llm import price as llm_price
from harness.llm.price import Charge
from harness.records import SessionState
from leaderboard.case import Finding, broken, unknown

FOLDER = "llm"
NAME = re.compile(r"llm/(?:requests|replies)/[0-9a-f]{64}\.json")
MAX_BYTES = 64 << 20  # of all; a request of 96,000 tokens has about 400 kB
_SAME_USD = 1e-9  # as the fold rounds sums


@dataclass(frozen=True)
class _Call:
    number: int
    seconds: float


def names(records: Sequence[Record]) -> tuple[str, ...]:
    """The files that the journal names, each once, in the order of its lines."""
    found: dict[str, None] = {}
    for record in records:
        kind, key = _PLACES.get(record.type, ("", ""))
        digest = record.data.get(key)
        if isinstance(digest, str) and NAME.fullmatch(name := file_name(kind, digest)):
            found[name] = None
    return tuple(found)


def load(session_dir: Path, records: Sequence[Record]) -> dict[str, bytes]:
    """Those of them that are there, are what was said, and fit into MAX_BYTES together."""
    found: dict[str, bytes] = {}
    room = MAX_BYTES
    for name in names(records):
        try:
            with (session_dir / name).open("rb") as file:
                content = file.read(room + 1)
        except OSError:
            continue
        if is_itself(name, content) and len(content) <= room:
            found[name] = content
            room -= len(content)
    return found


def is_itself(name: str, content: bytes) -> bool:
    return Path(name).stem == hashlib.sha256(content).hexdigest()


def check(records: Sequence[Record], state: SessionState, said: Mapping[str, bytes]) -> Iterator[Finding]:
    """What the answers report of their tokens against what the journal charges for them."""
    called = names(records)
    missing = sum(name not in said for name in called)
    if missing:
        yield unknown("transcripts", f"{missing} of {len(called)} requests and answers are not in the bundle")
    price = _price(state)
    started: dict[str, Any] = {}
    for record in records:
        if record.type == "llm_call_started":
            started = record.data
        elif record.type == "llm_call_finished":
            content = said.get(file_name("replies", str(record.data.get("reply_sha256"))))
            if content is not None:
                yield from _check_charge(started, record.data, content, price)


def _price(state: SessionState) -> PriceConfig:
    llm = state.config.get("llm")
    price = llm.get("price") if isinstance(llm, dict) else None
    if not isinstance(price, dict):
        raise JournalError("the configuration names no llm.price, yet a model was asked")
    return part_from_json(PriceConfig, price)


def _check_charge(
    started: dict[str, Any], finished: dict[str, Any], content: bytes, price: PriceConfig
) -> Iterator[Finding]:
    worst, recorded = part_from_json(Charge, started), part_from_json(Charge, finished)
    call = part_from_json(_Call, finished)
    where = f"call {call.number}"
    try:
        expected = llm_price.actual(json.loads(content)["usage"], worst, call.seconds, price)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise JournalError(f"{where}: its answer cannot be read ({type(error).__name__})") from error
    tokens = (expected.prompt_tokens, expected.completion_tokens, expected.assumed)
    if tokens != (recorded.prompt_tokens, recorded.completion_tokens, recorded.assumed):
        yield broken(where, "the tokens charged are not those that the answer reports")
    elif price.usd_per_hour is None and not _same_cost(expected.cost_usd, recorded.cost_usd):
        # By the hour the charge follows from a clock, which the record rounds.
        yield broken(where, f"${recorded.cost_usd} charged; the answer's tokens cost ${expected.cost_usd}")


def _same_cost(expected: float | None, recorded: float | None) -> bool:
    if expected is None or recorded is None:
        return expected is recorded
    return abs(expected - recorded) <= _SAME_USD


def file_name(kind: str, digest: str) -> str:
    return f"{FOLDER}/{kind}/{digest}.json"


_PLACES = {
    "llm_call_started": ("requests", "request_sha256"),
    "llm_call_finished": ("replies", "reply_sha256"),
}
