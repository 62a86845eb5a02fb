"""Sessions that can be published: the real loop on a simulated bench, under the real key of `demo`. Test data only."""

from __future__ import annotations

import hashlib
import json
import zlib
from dataclasses import dataclass, replace
from datetime import date
from functools import cache
from pathlib import Path

import simulated
from doctored import Lines, chained

from harness import opening, sizes
from harness.codec import to_json
from harness.config import TaskConfig
from harness.journal import Journal, parse
from harness.records import Audit, Calibration, Role, RunResult, Smoke, Status, Walls
from harness.sandbox.canaries import HELD, NEEDED, USEFUL
from leaderboard import archive, bundle, entry
from leaderboard.official import Official
from leaderboard.reproduction import Reproduction, Subject, terms
from leaderboard.verify import verify

DEMO = ("task=demo", "data=pypi", "backend=cpu")
TOKENS = 1_500_000  # reference_tokens of demo
SPEED = 75.0  # of this bench, in those of simulated.SimulatedBench
WALLS = Walls("bubblewrap", 3, dict.fromkeys((*NEEDED, *USEFUL), HELD))
RANKED = {"walls": to_json(WALLS), "unranked": []}
TODAY = date(2026, 1, 2)
WINNER = "0.6"


@dataclass
class DemoBench(simulated.SimulatedBench):
    """The simulated bench at the size of `demo`."""

    tokens: int = TOKENS
    pace: float = 1.0  # no two sessions measure the same rates

    def calibrate(self, stock_source: str, seed: int, sigma_bpb: float) -> Calibration:
        made, speed = super().calibrate(stock_source, seed, sigma_bpb), SPEED * self.pace
        self.made = replace(
            made,
            tokens_per_second=made.tokens_per_second * speed,
            tokens_per_second_low=made.tokens_per_second_low * speed,
            tokens_per_second_high=made.tokens_per_second_high * speed,
            block_tokens_per_second=tuple(rate * speed for rate in made.block_tokens_per_second),
            budget_seconds=TOKENS / (made.tokens_per_second * speed),
        )
        return self.made

    def smoke(self, source: str) -> Smoke:
        return Smoke(Status.OK, train_seconds=1.0, num_steps=10)

    def run(self, run_id: str, source: str, seed: int, split: str, role: Role) -> RunResult:
        result = super().run(run_id, source, seed, split, role)
        return replace(result, audit=result.audit and Audit(256, 0.0, 0.0, 0.0, 0, 256, 0, 0))


def packed(root: Path, seed: int = 0, worth: float = 0.05, *overrides: str, facts: object = None) -> Path:
    """The bundle of a session that gains about `worth` and stops after one experiment; made once for each folder."""
    made_of = repr((seed, worth, overrides)).encode()
    target = root / f"session{seed}{bundle.SUFFIX}"
    folder = simulated.run_session(
        root / f"session{seed}",
        f"session.seed={seed}",
        "session.experiments=6",
        *overrides,
        base=DEMO,
        bench=DemoBench({WINNER: worth}, pace=1 + zlib.crc32(made_of) % 100_000 / 10_000_000),
        values=(WINNER,),
        facts=facts if isinstance(facts, dict) else RANKED,
    )
    return bundle.write(folder, target)


@cache
def boards() -> tuple[Official, ...]:
    """The key of these sessions, as if maintainers had listed it."""
    config = simulated.configuration(base=DEMO)
    stock = sizes.stock_of(config.task)
    return (Official("demo", opening.key(config, stock, simulated.DATA)),)


def official_file(folder: Path) -> Path:
    """A file for `--official` with that key."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "official.json"
    path.write_text(json.dumps([to_json(board) for board in boards()]))
    return path


def publish(folder: Path, packed_bundle: Path, *, url: str | None = None, **changes: object) -> str:
    """Put a bundle and its entry into `folder` by hand, with fields changed; returns the name."""
    whole = verify(packed_bundle).bundle
    name = entry.name_of(whole)
    made = entry.Entry(
        format=entry.FORMAT,
        bundle_sha256=whole.sha256,
        bundle_bytes=packed_bundle.stat().st_size,
        url=url,
        submitted_by=entry.Submitter("Somebody", "https://example.org/somebody", "ann"),
        submitted_on=TODAY.isoformat(),
        note="",
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}{entry.SUFFIX}").write_bytes(entry.dump(replace(made, **changes)))  # type: ignore[arg-type]
    if url is None:
        (folder / f"{name}{bundle.SUFFIX}").write_bytes(packed_bundle.read_bytes())
    return name


def repacked(lines: Lines, target: Path) -> Path:
    """A bundle of a journal that was changed and chained again."""
    journal = chained(lines)
    records, _ = parse(journal, target)
    target.write_bytes(archive.pack(bundle.content(journal, records)))
    return target


def reproduced(
    packed_bundle: Path,
    folder: Path,
    worth: float = 0.05,
    pairs: int = 3,
    fingerprint: str = "f" * 16,
    sigma: float = 0.002,
    nonce: str = "7",
) -> Path:
    """A reproduction of the bundle as `bpbench reproduce` leaves it, where the winner is worth `worth`."""
    whole = verify(packed_bundle).bundle
    state = whole.state
    source = next((item.source for item in reversed(state.experiments) if item.kept), None)
    stock = str(state.opened["stock_source"])
    assert state.gain is not None
    subject = Subject(stock, source or stock, state.gain, 0)
    path = folder / "journal.jsonl"
    bench = DemoBench({WINNER: worth}, sigma)
    if path.exists():
        journal, records = Journal.open(path, clock=lambda: 1_751_000_000.0)
    else:
        folder.mkdir(parents=True)
        journal = Journal.create(path, clock=lambda: 1_751_000_000.0 + float.fromhex(f"0x{nonce}"))
        opened = journal.append(
            "reproduction_open",
            bundle_sha256=whole.sha256,
            session_head=whole.head,
            key=state.opened["key"],
            claim=to_json(state.gain),
            device={**simulated.DEVICE.identity, "fingerprint": fingerprint},
            nonce=hashlib.sha256(nonce.encode()).hexdigest()[:32],
            num_pairs=pairs,
            **terms(_demo(), WALLS),
        )
        records = [opened]
    with journal:
        Reproduction(subject, _demo(), journal, records, bench, lambda _: None, walls=WALLS).run(pairs)
    return folder


def _demo() -> TaskConfig:
    return simulated.configuration(base=DEMO).task
