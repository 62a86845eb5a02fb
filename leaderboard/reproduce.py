"""`bpbench reproduce`: retrain a bundle's winner on this machine, by this machine's own rules.

From the bundle come two things, the winning train.py and a claimed gain. Task, data, limits and sandbox are those of
this installation, and the bundle must be of the very same key; so a bundle cannot ask for anything.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import compose, ranking, seeds, views
from harness.assemble import choose_clock, choose_sandbox, open_bench, stage_progress, tried
from harness.codec import to_json
from harness.config import Config
from harness.data import DataInfo, prepare
from harness.device import Device, probe
from harness.errors import ConfigError, DeviceError, HarnessError, of_system
from harness.integrity import Witness
from harness.journal import Journal, Record, read
from harness.lease import lease, physical_name
from harness.opening import devices_own, fewer_cores, key
from harness.records import Walls
from harness.sandbox import canaries
from harness.sizes import stock_of
from harness.views import text
from leaderboard import eligible, entry
from leaderboard.bundle import SUFFIX, Bundle
from leaderboard.reproduction import Reproduction, Say, Subject, fold, other_numbers, terms
from leaderboard.verdict import Verdict, Word
from leaderboard.verify import verify

ROOT = Path("reproductions")
NO_VERDICT = "no verdict"
_AS_IT_WAS_MADE = "use the version of bpbench and the overrides (KEY=VALUE) that it was made with"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_]{0,63}")


@dataclass(frozen=True)
class Reproduced:
    """How the reproduction of one bundle ended."""

    bundle: Path
    folder: Path | None
    verdict: Verdict | None
    error: str | None  # one clean line; None: there is a verdict


def reproduce(path: Path, *, num_pairs: int | None, overrides: Sequence[str], root: Path, say: Say) -> Reproduced:
    """Reproduce the bundle at `path`, or go on where that was cut off.

    Args:
        num_pairs: pairs of runs; None: as many as the task confirms with.
        overrides: Hydra overrides of this installation's configuration, as the session may have had them.
        root: the reproduction's folder is made here, named by the session's last hash.

    Raises:
        HarnessError: the bundle is inconsistent or of another key, or this device cannot do it.
    """
    checked = verify(path)
    if not checked.consistent or checked.case is None:
        raise HarnessError(f"{path} is not consistent: see `bpbench verify {path}`; there is nothing to reproduce")
    whole = checked.bundle
    config = local_config(whole, overrides)
    pairs = config.task.confirm_seeds if num_pairs is None else num_pairs
    if pairs < 2:
        raise ConfigError(f"--seeds {pairs}: expected at least 2, an interval needs two pairs")
    folder = root / whole.head[:16]
    if (verdict := earlier_verdict(folder, pairs)) is not None:
        return Reproduced(path, folder, verdict, None)
    subject = subject_of(whole, checked.case.session.seed)
    stock = stock_of(config.task)
    device, data = ready(whole, config, stock)
    with lease(physical_name(device.name, device.identity), f"reproduction {folder.name}", once(say)):
        chosen = choose_sandbox(config, device)
        walls = tried(chosen, data)
        for why in _not_attested(whole, config, walls):
            say(f"{why}; so this cannot be attested")
        journal, records = open_journal(folder)
        with journal, open_bench(config, folder, data, device, stock, chosen, Witness(), lambda _: None) as bench:
            under = {**terms(config.task, walls), "backend": to_json(config.backend)}
            records = begin(journal, records, whole, device, under, pairs)
            again = Reproduction(subject, config.task, journal, records, bench, say, walls=walls)
            verdict = again.run(pairs)
            for why in (
                *ranking.other_speeds(again.state.baseline, again.state.winner),
                *eligible.cut_off_too_often(again.records),
            ):
                say(f"{why}; so this cannot be attested")
    return Reproduced(path, folder, verdict, None)


def _not_attested(whole: Bundle, config: Config, walls: Walls) -> Iterator[str]:
    """What `bpbench attest` would refuse, as far as it is known before the first run."""
    if others := other_numbers(whole.state.config.get("task"), to_json(config.task)):
        yield f"of the task, {text.line(', '.join(others), 80)}: not as in the session"
    if config.task.clock != "ticks":
        yield from canaries.missing(walls)
        yield from devices_own(to_json(config.backend))


def ready(whole: Bundle, config: Config, stock: str) -> tuple[Device, DataInfo]:
    """Device and data, and the clock that `auto` means on this device, put into `config`.

    Raises HarnessError where the bundle is of another key: first for all that needs neither device nor download.
    """
    early = key(config, stock, DataInfo(Path(), whole.state.opened["data"]))
    check_key(whole, {name: value for name, value in early.items() if name != "clock"})
    device = probe(config.backend)
    config.task.clock = choose_clock(config, device)
    check_key(whole, {"clock": config.task.clock})
    with closing(views.make()) as view:
        data = prepare(config, lambda event: view.on_progress(stage_progress(event)))
    check_key(whole, key(config, stock, data))
    return device, data


def reproduce_all(paths: Iterable[Path], attempt: Callable[[Path], Reproduced], say: Say) -> list[Reproduced]:
    """Reproduce one bundle after the other; one that cannot be does not keep the others from it."""
    results = []
    listed = list(paths)
    for number, path in enumerate(listed, start=1):
        say(f"bundle {number} of {len(listed)}: {text.line(path.name)}")
        try:
            done = attempt(path)
        except HarnessError as error:
            done = Reproduced(path, None, None, text.line(str(error)))
        except OSError as error:
            done = Reproduced(path, None, None, text.line(str(of_system(error))))
        say(f"  {done.verdict.word}: {done.verdict.why}" if done.verdict else f"  no verdict: {done.error}")
        results.append(done)
    return results


def bundles_in(folder: Path, say: Say) -> list[Path]:
    """The bundles of a folder, by name; says of entries whose is not there. Raises ConfigError for none."""
    found = sorted(folder.glob(f"*{SUFFIX}")) if folder.is_dir() else []
    here = {path.name.removesuffix(SUFFIX) for path in found}
    names = (path.name.removesuffix(entry.SUFFIX) for path in folder.glob(f"*{entry.SUFFIX}"))
    if away := [name for name in names if entry.NAME.fullmatch(name) and name not in here]:
        whose = text.count(len(away), "entry's bundle lies", "entries' bundles lie")
        say(f"{whose} elsewhere: `bpbench check --download` fetches them, docs/leaderboard.md says where to")
    if not found:
        raise ConfigError(f"--all {folder}: expected a folder with files *{SUFFIX}, as `bpbench bundle` makes them")
    return found


def local_config(whole: Bundle, overrides: Sequence[str]) -> Config:
    """This installation's configuration of the bundle's task and data. Raises ConfigError."""
    chosen = {"agent": "noop"}
    for group in ("task", "data"):
        options = whole.state.config.get(group)
        chosen[group] = str(options.get("name") if isinstance(options, dict) else options)
        if not _NAME.fullmatch(chosen[group]):
            shown = text.line(chosen[group], 40)
            raise ConfigError(f"the bundle's {group} is called {shown!a}: no such name is possible")
    if whole.state.opened["key"].get("clock") == "ticks":
        chosen["backend"] = "null"
    given = {override.partition("=")[0] for override in overrides}
    own = [f"{group}={name}" for group, name in chosen.items() if group not in given]
    return compose.compose([*own, *overrides])


def check_key(whole: Bundle, here: dict[str, Any]) -> None:
    """Refuse a bundle of another key: its figures and those made here would not compare. Raises ConfigError."""
    there = whole.state.opened["key"]
    for name, value in here.items():
        if there.get(name) != value:
            on_processor = (name, there.get(name)) == ("clock", "metered")
            how = "it was made on a processor: add backend=cpu" if on_processor else _AS_IT_WAS_MADE
            was = text.line(repr(there.get(name)), 80)
            raise ConfigError(f"the bundle is of another key: {name} is {was}, here {value!r}; {how}")


def subject_of(whole: Bundle, session_seed: int) -> Subject:
    """Winner and claim. Raises ConfigError where the session never came to a confirmation."""
    state = whole.state
    if state.gain is None:
        raise ConfigError("the session was never confirmed: it claims nothing that could be reproduced")
    return Subject(str(state.opened["stock_source"]), state.winner_source, state.gain, session_seed)


def earlier_verdict(folder: Path, num_pairs: int) -> Verdict | None:
    """The verdict of a reproduction that was finished with as many pairs, or more."""
    path = folder / "journal.jsonl"
    records = read(path)[0] if path.exists() else []
    state = fold(records) if records else None
    return state.verdict if state and state.num_pairs >= num_pairs else None


def open_journal(folder: Path) -> tuple[Journal, list[Record]]:
    """The journal of this reproduction and what it holds: nothing, if it is new."""
    path = folder / "journal.jsonl"
    if path.exists():
        return Journal.open(path)
    folder.mkdir(parents=True, exist_ok=True)
    return Journal.create(path), []


def begin(
    journal: Journal, records: list[Record], whole: Bundle, device: Device, under: dict[str, Any], num_pairs: int
) -> list[Record]:
    """`records` and one more, which says `under` what it begins or goes on: that may be other walls than before.

    Raises DeviceError where it began on another device.
    """
    under = {**under, "torch": device.torch_version}
    if records:
        check_device(records, device)
        return [*records, journal.append("resumed", reason=journal.recovered or "resumed", **under)]
    ticking = whole.state.opened["key"]["clock"] == "ticks"
    # Drawn after the winner was fixed, so it need not be hidden; on the step clock everything repeats.
    nonce = f"{seeds.derive('reproduction', whole.head):032x}" if ticking else secrets.token_hex(16)
    opened = journal.append(
        "reproduction_open",
        bundle_sha256=whole.sha256,
        session_head=whole.head,
        key=whole.state.opened["key"],
        claim=to_json(whole.state.gain),
        unchanged=whole.state.unchanged,
        device=device.identity,
        nonce=nonce,
        num_pairs=num_pairs,
        **under,
    )
    return [opened]


def check_device(records: Sequence[Record], device: Device) -> None:
    """A reproduction ends on the device on which it began. Raises DeviceError."""
    began_on = records[0].data["device"]
    if (began := began_on["fingerprint"]) != device.fingerprint:
        raise DeviceError(
            f"this reproduction began on device {began}, this is {device.fingerprint}: use another --root"
            f"{fewer_cores(began_on, device)}"
        )


def once(say: Say) -> Say:
    """`say`, but not the same words twice in a row."""
    last = ""

    def say_news(words: str) -> None:
        nonlocal last
        if words != last:
            say(words)
        last = words

    return say_news


def report(results: Sequence[Reproduced]) -> dict[str, Any]:
    """The outcome of `--all` as JSON."""
    words = [str(result.verdict.word) if result.verdict else NO_VERDICT for result in results]
    return {
        "counts": {word: words.count(word) for word in (*map(str, Word), NO_VERDICT)},
        "bundles": [
            {
                "bundle": result.bundle.name,
                "folder": None if result.folder is None else str(result.folder),
                "error": result.error,
                "verdict": to_json(result.verdict),
            }
            for result in results
        ],
    }
