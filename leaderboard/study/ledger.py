"""What a study has on record: one journal a machine, folded together. Its form is a session's (harness/journal.py).

Records: `study_open` (Opened), `place` (Place), `calibrated` (Calibrated), `refused` (Refused), `margin` (Margin),
`run` (Run). A journal continued later only grows, so a study can be stopped at any line.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from harness.codec import LATER, part_from_json, to_json
from harness.errors import ConfigError, JournalError
from harness.journal import Journal, Record, read
from harness.records import Calibration, Status

T = TypeVar("T")
SUFFIX = ".jsonl"
CALIBRATED, RAW, TICKS = "calibrated", "raw", "ticks"  # how a run's budget was set

Key = tuple[str, str, int, str, float]


@dataclass(frozen=True)
class Opened:
    """What all files of a study must have in common. Not `raw_seconds`: one machine may be told what another found."""

    study: str  # portability | sweep
    task: str
    reference_tokens: int
    stock_sha256: str
    data_sha256: str
    sigma_prior_bpb: float
    raw_seconds: float | None = None  # what raw runs are to have, as known when the file began


@dataclass(frozen=True)
class Place:
    """A device, or one device in one of several settings."""

    key: str
    label: str  # for tables
    setting: str
    fingerprint: str
    compiled: bool
    clock: str
    identity: dict[str, Any]


@dataclass(frozen=True)
class Calibrated:
    place: str
    calibration: Calibration


@dataclass(frozen=True)
class Refused:
    """A place at which nothing could be measured."""

    place: str
    reason: str


@dataclass(frozen=True)
class Margin:
    """What counts as equal, written down before a second place is measured."""

    place: str
    sigma_bpb: float
    degrees: int  # of freedom, the prior's not counted
    slope_bpb_per_percent: float  # gained by one per cent more budget; positive where more is better
    margin_bpb: float


@dataclass(frozen=True)
class Run:
    """One run of one variant. Its claims (steps, tokens, loss) are its own code's."""

    place: str
    variant: str
    seed: int  # index: equal indices share initialisation and data order
    mode: str  # calibrated | raw | ticks
    share: float  # of the budget
    status: Status
    bpb: float | None
    reason: str | None
    budget_seconds: float | None
    train_seconds: float | None
    setup_seconds: float | None
    eval_seconds: float | None
    wall_seconds: float | None
    peak_memory_bytes: int | None
    steps: int | None
    tokens: int | None
    stopped_seconds: float | None  # in the metered clock's bursts
    correction: float | None  # metered clock: measured speed over the calibrated one
    drift: float | None  # wall clock: of the device's speed around the run
    knobs: dict[str, Any] | None = None  # constants of a point of a search
    source_sha256: str | None = field(default=None, metadata=LATER)  # of its train.py
    # Raw runs: the seconds of a whole budget. What setup took too long is off this run's budget, not off this.
    raw_seconds: float | None = field(default=None, metadata=LATER)

    @property
    def key(self) -> Key:
        return (self.place, self.variant, self.seed, self.mode, self.share)

    @property
    def script(self) -> tuple[str, str]:
        """Runs in which this is equal are of one script. Points of a search are a place's own."""
        return self.variant, self.place if self.knobs is not None else ""


@dataclass(frozen=True)
class Ledger:
    """Everything that the files of a study say."""

    opened: Opened | None = None
    places: Mapping[str, Place] | None = None
    calibrations: Mapping[str, tuple[Calibration, ...]] | None = None  # place -> oldest first
    refused: tuple[Refused, ...] = ()
    margin: Margin | None = None  # the first
    raw_seconds: float | None = None  # the budget of raw runs
    runs: tuple[Run, ...] = ()
    margin_was_first: bool = True  # whether it was there before any run at another place

    def label(self, place: str) -> str:
        return (self.places or {})[place].label

    def at(self, place: str) -> Ledger:
        """What was measured at one place: scores of several must not be averaged."""
        return replace(self, runs=tuple(run for run in self.runs if run.place == place))

    def used(self) -> tuple[str, ...]:
        """The places that have runs, the one with most first."""
        counts = Counter(run.place for run in self.runs)
        return tuple(sorted(counts, key=lambda place: (-counts[place], place)))


class Book:
    """An open journal of a study, and its records."""

    def __init__(self, path: Path, opened: Opened) -> None:
        """Open or begin the journal at `path`. Raises ConfigError where it belongs to another study, JournalError."""
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            self.journal, self.records = Journal.open(path)
        else:
            self.journal, self.records = Journal.create(path), []
        if not self.records:
            self.write("study_open", opened)
        try:
            check_same(_decode(Opened, self.records[0], "study_open"), opened, path)
        except JournalError as error:
            self.journal.close()
            raise JournalError(f"{path}: {error}") from error
        except ConfigError:
            self.journal.close()
            raise

    def write(self, kind: str, value: Any) -> None:
        self.records.append(self.journal.append(kind, **to_json(value)))

    def ledger(self) -> Ledger:
        return fold({self.journal.path.stem: self.records})

    def close(self) -> None:
        self.journal.close()


def read_folder(folder: Path) -> Ledger:
    """All files of a study together, those of other machines too. Raises ConfigError, JournalError."""
    files = {path.stem: read(path)[0] for path in sorted(folder.glob(f"*{SUFFIX}"))}
    return fold({name: records for name, records in files.items() if records})


def check_same(one: Opened, other: Opened, where: Path | str) -> None:
    """Raises ConfigError where figures of the two must not be put side by side."""
    for name, value in to_json(replace(one, raw_seconds=None)).items():
        wanted = to_json(replace(other, raw_seconds=None))[name]
        if value != wanted:
            raise ConfigError(f"{where}: {name} is {value!r}, expected {wanted!r}: move it to a folder of its own")


def fold(files: Mapping[str, Sequence[Record]]) -> Ledger:
    """Places of equal devices stay apart when they come from two files. Raises ConfigError, JournalError."""
    found = _Collected()
    for name, records in files.items():
        try:
            found.add(name, records)
        except JournalError as error:
            raise JournalError(f"{name}{SUFFIX}: {error}") from error
    return found.ledger()


@dataclass
class _Collected:
    """What was read so far, of all files."""

    opened: list[Opened] = field(default_factory=list)
    places: dict[str, Place] = field(default_factory=dict)
    calibrations: list[tuple[float, Calibrated]] = field(default_factory=list)
    margins: list[tuple[float, Margin]] = field(default_factory=list)
    refused: dict[str, Refused] = field(default_factory=dict)  # the last of each place
    runs: dict[Key, Run] = field(default_factory=dict)
    begun: dict[str, float] = field(default_factory=dict)  # place -> time of its first run

    def add(self, name: str, records: Sequence[Record]) -> None:
        mine = _decode(Opened, records[0], "study_open")
        check_same(mine, self.opened[0] if self.opened else mine, name)
        self.opened.append(mine)
        apart: dict[str, str] = {}
        for record in records[1:]:
            match record.type:
                case "place":
                    place = _decode(Place, record, "place")
                    apart[place.key] = place.key if place.key not in self.places else f"{place.key}@{name}"
                    label = place.label if apart[place.key] == place.key else f"{place.label} ({name})"
                    self.places[apart[place.key]] = replace(place, key=apart[place.key], label=label)
                case "calibrated":
                    self.calibrations.append((record.time, _moved(_decode(Calibrated, record, "calibrated"), apart)))
                case "refused":
                    refused = _moved(_decode(Refused, record, "refused"), apart)
                    self.refused[refused.place] = refused
                case "margin":
                    self.margins.append((record.time, _moved(_decode(Margin, record, "margin"), apart)))
                case "run":
                    run = _moved(_decode(Run, record, "run"), apart)
                    self.runs.setdefault(run.key, run)
                    self.begun[run.place] = min(record.time, self.begun.get(run.place, record.time))

    def ledger(self) -> Ledger:
        check_comparable(tuple(self.runs.values()))
        ordered = [item for _, item in sorted(self.calibrations, key=lambda pair: pair[0])]
        stated, margin = min(self.margins, key=lambda pair: pair[0], default=(0.0, None))
        others = [at for place, at in self.begun.items() if margin is None or place != margin.place]
        return Ledger(
            opened=self.opened[-1] if self.opened else None,
            places=self.places,
            calibrations={key: tuple(one.calibration for one in ordered if one.place == key) for key in self.places},
            # A later start may have succeeded.
            refused=tuple(item for item in self.refused.values() if item.place not in self.begun),
            margin=margin,
            margin_was_first=margin is None or all(at > stated for at in others),
            raw_seconds=self._raw_seconds(ordered),
            runs=tuple(self.runs.values()),
        )

    def _raw_seconds(self, ordered: Sequence[Calibrated]) -> float | None:
        """Of the raw runs on record; before there are any as a file was begun with, else the first calibration's."""
        made = whole_budgets(tuple(self.runs.values()))
        asked = {one.raw_seconds for one in self.opened if one.raw_seconds is not None}
        if not made and len(asked) > 1:
            shown = ", ".join(f"{value:g}" for value in sorted(asked))
            raise ConfigError(f"files begun with {shown} raw seconds do not compare; begin all but one anew")
        first = {item.calibration.budget_seconds for item in ordered[:1]}
        return next(iter(made or asked or first), None)


def check_comparable(runs: Sequence[Run]) -> None:
    """Raises ConfigError where runs of one name are of two scripts, or raw runs of different seconds."""
    scripts: dict[tuple[str, str], str] = {}
    for run in runs:
        if run.source_sha256 is not None and scripts.setdefault(run.script, run.source_sha256) != run.source_sha256:
            raise ConfigError(f"{run.variant}: its runs are of two scripts; measure each in a folder of its own")
    if len(made := whole_budgets(runs)) > 1:
        shown = ", ".join(f"{value:g}" for value in sorted(made))
        raise ConfigError(f"raw runs of {shown} seconds do not compare; give every machine the same --raw-seconds")


def whole_budgets(runs: Sequence[Run]) -> set[float]:
    """The seconds of the raw runs, which are to be the same. Of older runs, which have only what setup left of a
    budget, the most of a place is nearest to the whole.
    """
    raw = [run for run in runs if run.mode == RAW]
    known = {run.place for run in raw if run.raw_seconds is not None}
    exact = {run.raw_seconds for run in raw if run.raw_seconds is not None}
    left: dict[str, float] = {}
    for run in raw:
        if run.place not in known and run.budget_seconds is not None:
            left[run.place] = max(run.budget_seconds, left.get(run.place, 0.0))
    return exact | set(left.values())


def _decode(kind: type[T], record: Record, wanted: str) -> T:
    if record.type != wanted:
        raise JournalError(f"line {record.seq + 1}: expected a record {wanted}, found {record.type[:40]!r}")
    return part_from_json(kind, record.data)


def _moved(item: T, apart: Mapping[str, str]) -> T:
    """`item` at the name that its place has among all files."""
    place = str(item.place)  # type: ignore[attr-defined]
    if place not in apart:
        raise JournalError(f"a record names the place {place[:40]!r}, which was never described")
    return replace(item, place=apart[place])  # type: ignore[type-var]
