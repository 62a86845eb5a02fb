"""The journal of somebody's reproduction, checked as strictly as a bundle: does its verdict follow from its own runs?

That a chain holds says nothing of who made it, so a reproduction counts only from those that the maintainers know
(leaderboard/reproducers.txt).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import ranking, seeds
from harness.codec import from_json, part_from_json, to_json
from harness.drift import run_drift
from harness.errors import ConfigError, HarnessError
from harness.journal import Record, parse
from harness.opening import devices_own, pinned_torch
from harness.records import Gain, RunResult, Status, Walls
from harness.sandbox import canaries
from harness.views import rows, text
from leaderboard import eligible
from leaderboard.bundle import Bundle
from leaderboard.case import Identity
from leaderboard.checks import same
from leaderboard.figures import impossible
from leaderboard.plausible import BPB_BAND
from leaderboard.published import Retrained
from leaderboard.reproduction import State, fold, other_numbers
from leaderboard.runs import audit_problems
from leaderboard.verdict import Verdict, differences, judge

MAX_JOURNAL_BYTES = 4 << 20  # a pair has about 20 KB
MAX_LINES = 2_000
WHO = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,37}[a-z0-9])?")  # as accounts are called there, in lower case
_LISTED_BYTES = 64 << 10
_RUNS = ("run_started", "run_finished", "run_drifted")
_KNOWN = {"reproduction_open", "calibration", "resumed", "extended", "verdict", *_RUNS}
_BEGINNINGS = ("reproduction_open", "resumed", "extended")
MIN_LEVEL = 2  # of isolation


@dataclass(frozen=True)
class Attested:
    """A reproduction whose verdict follows from its runs."""

    retrained: Retrained
    first_hash: str  # tells two reproductions apart


def listed(path: Path) -> frozenset[str]:
    """The names on a list of reproducers: one a line, what follows `#` is for readers. Raises ConfigError."""
    try:
        lines = path.read_text(encoding="utf-8")[:_LISTED_BYTES].splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read; expected the list of reproducers, one name a line") from error
    names = [line.partition("#")[0].strip() for line in lines]
    for name in filter(None, names):
        if not WHO.fullmatch(name):
            raise ConfigError(f"{path}: {text.line(name, 60)!a} is no name: expected letters, digits, dashes")
    return frozenset(filter(None, names))


def examine(content: bytes, where: str, by: str, whole: Bundle) -> Attested:
    """What the reproduction of `whole` in the journal `content` comes to; errors name it `where`.

    Raises ConfigError where it is not a finished reproduction of this very session, or contradicts itself.
    """
    with _named(where):
        records = _records(content, where)
        problem = next(_problems(records, whole), None)
        if problem:
            raise ConfigError(f"{where}: {text.line(problem, 200)}")
        return _attested(records, where, by, whole.state.gain, whole.state.unchanged)


def recall(content: bytes, where: str, by: str, bundle_sha256: str) -> Attested:
    """What a reproduction came to whose bundle is not here now: it was examined with it when it was published.

    The claim is the journal's. Raises ConfigError where it is not of that bundle, or no finished reproduction.
    """
    with _named(where):
        records = _records(content, where)
        opened = records[0].data
        if opened.get("bundle_sha256") != bundle_sha256:
            raise ConfigError(f"{where}: its bundle_sha256 is not that of the entry: it reproduced something else")
        return _attested(records, where, by, from_json(Gain, opened["claim"]), opened.get("unchanged") is True)


@contextlib.contextmanager
def _named(where: str) -> Iterator[None]:
    """Whatever a stranger's file makes of our code becomes one line about it."""
    try:
        yield
    except ConfigError:
        raise
    except (HarnessError, TypeError, AttributeError, LookupError, ValueError, ArithmeticError, RecursionError) as error:
        shown = text.line(str(error), 160) if isinstance(error, HarnessError) else type(error).__name__
        raise ConfigError(f"{where}: not the journal of a reproduction ({shown})") from None


def _records(content: bytes, where: str) -> list[Record]:
    if content.count(b"\n") > MAX_LINES:
        raise ConfigError(f"{where}: more than {MAX_LINES:,} lines; expected the journal of `bpbench reproduce`")
    records, good_length = parse(content, Path(where))
    if not records or good_length != len(content):
        raise ConfigError(f"{where}: empty, or its last line is unfinished; `bpbench reproduce` mends that")
    return records


def _attested(records: Sequence[Record], where: str, by: str, claim: Gain | None, unchanged: bool) -> Attested:
    device, fingerprint = _device(records[0].data.get("device"))
    verdict = _verdict(fold(records), claim, unchanged)
    if verdict is None:
        raise ConfigError(f"{where}: it has no verdict yet; the same `bpbench reproduce` goes on")
    return Attested(Retrained(by, device, fingerprint, records[0].time, verdict), records[0].hash)


def _device(stated: Any) -> tuple[str, str]:
    """Its own words for itself, and its fingerprint."""
    fingerprint = stated.get("fingerprint") if isinstance(stated, dict) else None
    return rows.device_name(stated), text.line(str(fingerprint), 60)


def _verdict(state: State, claim: Gain | None, unchanged: bool) -> Verdict | None:
    """The last one in our own words: those in the journal are a stranger's."""
    if state.verdict is None or claim is None:
        return None
    values, failed = differences(state.baseline, state.winner)
    return judge(claim, values, failed, len(state.verdicts), unchanged=unchanged)


def _problems(records: Sequence[Record], whole: Bundle) -> Iterator[str]:
    """Lazily: the first one is enough, and the later ones rely on the earlier."""
    opened, state = records[0].data, whole.state
    if records[0].type != "reproduction_open" or {record.type for record in records} - _KNOWN:
        yield "not the journal of a reproduction; expected the journal.jsonl of `bpbench reproduce`"
    for name, value in (
        ("session_head", whole.head),
        ("bundle_sha256", whole.sha256),
        ("key", state.opened["key"]),
        ("claim", to_json(state.gain)),
    ):
        if opened.get(name) != value:
            yield f"its {name} is not that of the entry: it reproduced something else"
    if opened.get("unchanged", state.unchanged) != state.unchanged:  # older ones do not say
        yield "it says another thing of the winner than the entry: whether that is the stock script"
    yield from _wrong_terms(records, whole)
    yield from _wrong_runs(records, whole)
    yield from _wrong_verdicts(records, whole)
    least = whole.state.opened.get("num_confirm")
    verdict = fold(records).verdict
    if verdict is not None and not (isinstance(least, int) and verdict.num_pairs >= least):
        yield f"{verdict.num_pairs} pairs; expected at least the {least} that the task confirms with"


def _wrong_terms(records: Sequence[Record], whole: Bundle) -> Iterator[str]:
    """What it ran under each time that it began or went on: walls, and the numbers of the session's own task."""
    weakest: Walls | None = None
    for record in records:
        if record.type not in _BEGINNINGS:
            continue
        torch = str(record.data.get("torch", pinned_torch()))
        if torch.partition("+")[0] != pinned_torch() and eligible.is_current(whole):
            yield f"record {record.seq}: made with torch {torch}, expected {pinned_torch()}"
        stated, task = record.data.get("walls"), record.data.get("task")
        if not isinstance(stated, dict) or not isinstance(task, dict):
            yield f"record {record.seq}: does not say under which walls and numbers it ran; reproduce it again"
            return
        backend = record.data.get("backend")  # older ones do not say
        for why in devices_own(backend) if isinstance(backend, dict) else ():
            yield f"record {record.seq}: {why}"
        walls = from_json(Walls, stated)
        weakest = canaries.weakest(weakest, walls) if weakest else walls
        for name in other_numbers(whole.state.config.get("task"), task):
            yield f"record {record.seq}: its task.{name} is not the session's; reproduce it with the same KEY=VALUE"
    if weakest and not _ticks(whole):
        yield from _open_walls(weakest)
    order = [record.type for record in records if record.type == "calibration" or record.type in _RUNS]
    if not _ticks(whole) and (order.count("calibration") != 1 or order[0] != "calibration"):
        yield "expected one calibration, before all runs: their budgets follow from it"


def _open_walls(walls: Walls) -> Iterator[str]:
    """What would leave a session unranked: code that cheats would cheat here too."""
    if walls.level < MIN_LEVEL:
        yield f"made without walls (isolation level {walls.level}, expected {MIN_LEVEL} or more)"
    yield from canaries.missing(walls)


def _wrong_runs(records: Sequence[Record], whole: Bundle) -> Iterator[str]:
    """Every run announced before, in ABBA order, under the seed that its nonce gives, with a score that can be."""
    opened, key = records[0].data, whole.state.opened["key"]
    session = whole.state.config["session"]
    state = fold(records)
    started: Identity | None = None
    done, repeated = 0, set[str]()
    for record in records:
        if record.type not in _RUNS:
            continue
        identity = part_from_json(Identity, record.data)
        role, pair = seeds.confirmation_run(done)
        seed = seeds.deal(str(key["task"]), session["seed"], role, pair, str(opened["nonce"]))
        if identity != Identity(f"{role}-{pair:03d}", role, pair, seed, "test"):
            yield f"record {record.seq}: not the run, seed and split that the rules call for"
        if record.type == "run_started":
            started = identity
            continue
        if started != identity:
            yield f"record {record.seq}: finished without having been announced"
        if record.type == "run_drifted":
            if identity.run_id in repeated:
                yield f"record {record.seq}: made again more than once"
            repeated.add(identity.run_id)
            if _drift(state, from_json(RunResult, record.data.get("result")), whole) is None:
                # Else who does not like a result could make it again.
                yield f"record {record.seq}: made again although the device's speed had not changed"
        started, done = None, done + (record.type == "run_finished")
    yield from eligible.cut_off_too_often(records)
    for run in (*state.baseline, *state.winner):
        yield from _wrong_result(run, whole.state.config["task"]["audit_cuts"])
    if any(run.status is not Status.OK for run in state.baseline):
        yield "a run of the stock script failed"
    yield from ranking.beyond_limits(ranking.correction_of((*state.baseline, *state.winner)))
    yield from ranking.other_speeds(state.baseline, state.winner)
    for run in (*state.baseline, *state.winner):
        if _drift(state, run, whole) is not None:
            yield "around a run, made again, the device was not as fast as it was calibrated"


def _drift(state: State, run: RunResult, whole: Bundle) -> float | None:
    task = whole.state.config["task"]
    return run_drift(state.calibration, run, task["slope_bpb_per_percent"], task["sigma_prior_bpb"])


def _wrong_result(run: RunResult, audit_cuts: int) -> Iterator[str]:
    """A score exactly where the run was ok, one that text can have, and audited as the session's task asks."""
    low, high = BPB_BAND
    if (run.bpb is not None) != (run.status is Status.OK) or not low < (1.0 if run.bpb is None else run.bpb) < high:
        yield f"a run of status {run.status} with the score {run.bpb}"
    if run.split != "test":
        yield "a run was not scored on test"
    if run.status is Status.OK:
        yield from audit_problems(run, audit_cuts)
    yield from impossible(to_json(run))


def _wrong_verdicts(records: Sequence[Record], whole: Bundle) -> Iterator[str]:
    """Each verdict again, from the runs before it."""
    if whole.state.gain is None:
        yield "the session confirmed nothing"
        return
    # A reproduction that does not say what its winner is was judged, at least at first, by the rule of its time.
    unchanged, said = whole.state.unchanged, "unchanged" in records[0].data
    rules = [unchanged] if said else [unchanged, False]
    looks = 0
    for number, record in enumerate(records):
        if record.type != "verdict":
            continue
        before: State = fold(records[:number])
        looks += 1
        if len(before.baseline) != len(before.winner) or len(before.baseline) != before.num_pairs:
            yield f"record {record.seq}: a verdict before all pairs were there"
            return
        values, failed = differences(before.baseline, before.winner)
        due = [judge(whole.state.gain, values, failed, looks, unchanged=rule) for rule in rules]
        stated = from_json(Verdict, record.data.get("verdict"))
        if not any(_same(stated, each) for each in due):
            given = f"{due[0].word} ({text.bpb(due[0].mean_bpb, sign=True)} bpb)"
            yield f"record {record.seq}: its runs give {given}, not this verdict"


def _same(one: Verdict, other: Verdict) -> bool:
    """Equal up to rounding; how many pairs would conclude is advice and may differ."""
    names = Verdict.__dataclass_fields__.keys() - {"pairs_needed", "why"}
    return all(same(getattr(one, name), getattr(other, name)) for name in names)


def _ticks(whole: Bundle) -> bool:
    """On the step clock nothing is ranked, and nothing runs behind walls."""
    return bool(whole.state.opened["key"].get("clock") == "ticks")
