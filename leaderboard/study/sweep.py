"""`bpbench sweep`: is the stock script worth beating? Its parts, constants and rivals at equal budget.

screen   every variant once, then the best ones, the stock script and the prototype with seeds that chose nothing
tpe      a search of the named constants, as agent=tpe makes it
confirm  the stock script, the prototype, and the best of screen and tpe on a larger task
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from harness import knobs, seeds
from harness.agents import tpe
from harness.errors import ConfigError, DeviceError
from harness.journal import read
from harness.lease import lease, physical_name
from harness.records import Experiment, RunResult, Status, View
from harness.sizes import TASKS as TASK_FILES
from harness.sizes import load, stock_of, stock_sha256
from leaderboard.reproduce import once
from leaderboard.study import places, portability, variants
from leaderboard.study.ledger import CALIBRATED, SUFFIX, TICKS, Book, Ledger, Run, fold
from leaderboard.study.measure import Hours, Measurer
from leaderboard.study.places import Say
from leaderboard.study.plan import Job
from leaderboard.study.variants import STOCK, Variant

VARIANTS = variants.HERE / "sweep.yaml"
SCREEN, TPE, CONFIRM = STAGES = ("screen", "tpe", "confirm")
TASKS = {SCREEN: "nano_study", TPE: "nano_study", CONFIRM: "nano"}
PROTOTYPES = ("prototype", "prototype_stock_rates")
TRIAL, TPE_BEST = "tpe-", "tpe_best-"  # a number follows
TRIAL_SEEDS = 500  # the first trial's: every trial has one of its own


@dataclass(frozen=True)
class Wish:
    """What the user asked for."""

    stage: str
    folder: Path  # one file a task
    overrides: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()
    seeds: int = 3
    finalists: int = 5
    trials: int = 40
    hours: float | None = None
    scratch: Path = Path("sessions") / "sweep"


@dataclass(frozen=True)
class Stage:
    """What a stage works with."""

    wish: Wish
    measurer: Measurer
    place: str
    mode: str
    stock: str  # source
    known: Mapping[str, Variant]  # those of this stage

    def jobs(self, names: Sequence[str], seeds: Sequence[int]) -> list[Job]:
        """Seeds outside, variants inside: a drift of the machine meets all alike."""
        return [Job(self.place, name, seed, self.mode) for seed in seeds for name in names]

    @property
    def ledger(self) -> Ledger:
        return self.measurer.book.ledger().at(self.place)


def measure(wish: Wish, say: Say) -> bool:
    """Run what is missing of a stage. False where the hours ended it first. Raises HarnessError."""
    check(wish)
    overrides = portability.with_task(wish.overrides, f"task={TASKS[wish.stage]}")
    (site,) = places.survey(overrides, places.SETTINGS[:1], say)
    config, device = site.config, site.device
    stock = stock_of(config.task)
    known = {item.name: item for item in chosen(wish, site.place.key)}
    data = portability.prepared(config)
    opened = places.opened("sweep", config, data)
    with (
        lease(physical_name(device.name, device.identity), f"sweep in {wish.folder}", once(say)),
        closing(Book(wish.folder / f"{config.task.name}{SUFFIX}", opened)) as book,
    ):
        portability.enter(book, [site])
        sources = {name: variant.source(stock) for name, variant in known.items()}
        points = {name: dict(item.knobs) for name, item in known.items() if name.startswith(TPE_BEST)}
        hours, scratch = Hours(wish.hours), wish.scratch.absolute() / config.task.name
        measurer = Measurer(
            book, {site.place.key: site}, data, sources, scratch, hours, say, raw_seconds=None, points=points
        )
        mode = TICKS if config.task.clock == "ticks" else CALIBRATED
        steps: dict[str, Callable[[Stage], bool]] = {SCREEN: screen, TPE: search, CONFIRM: confirm}
        whole = steps[wish.stage](Stage(wish, measurer, site.place.key, mode, stock, known))
        if site.place.key in measurer.refused:
            raise DeviceError(f"{site.place.label} does not fit the task, as said above: nothing was measured")
        return whole


def screen(stage: Stage) -> bool:
    names = list(stage.known)
    if not stage.measurer.do(stage.jobs(names, range(1))):
        return False
    best = finalists(stage.ledger, stage.wish.finalists, among=names)
    always = [name for name in (STOCK, *PROTOTYPES) if name in stage.known]
    # The run that put a variant among the best was a lucky one: what compares them are seeds behind it.
    return stage.measurer.do(stage.jobs(list(dict.fromkeys([*always, *best])), range(1, 1 + stage.wish.seeds)))


def search(stage: Stage) -> bool:
    """Trials one after the other, each proposed from all before it: those on record count, whoever made them."""
    if not stage.measurer.do(stage.jobs([STOCK], range(stage.wish.seeds))):
        return False
    for number in range(stage.wish.trials):
        name, ledger = f"{TRIAL}{number:03d}", stage.ledger
        if any(run.variant == name for run in ledger.runs):
            continue
        if not any(run.variant == STOCK and run.bpb is not None for run in ledger.runs):
            return True  # the place was refused
        source = tpe.make().propose(view(ledger, stage.stock, number, stage.wish.trials)).edit.source
        assert source is not None
        stage.measurer.sources[name] = source
        stage.measurer.points[name] = changed(source, stage.stock)
        if not stage.measurer.do([Job(stage.place, name, TRIAL_SEEDS + number, stage.mode)]):
            return False
    return True


def confirm(stage: Stage) -> bool:
    return stage.measurer.do(stage.jobs(list(stage.known), range(stage.wish.seeds)))


def chosen(wish: Wish, place: str) -> tuple[Variant, ...]:
    """The variants of a stage at a place, the stock script first. Raises ConfigError."""
    known = variants.load(VARIANTS)
    if wish.stage == TPE:
        return known[:1]
    if wish.stage == SCREEN:
        asked = variants.choose(known, wish.variants)
        return asked if asked[0].name == STOCK else (known[0], *asked)
    found = ledgers(wish.folder)
    screened, searched = small_ledger(found, place, compared), small_ledger(found, place, trials)
    winner = tpe_best(searched)
    extended = (*known, *([winner] if winner else []))
    names = list(wish.variants)
    if not names:
        best = [name for name in compared(screened)[:1] if name != STOCK] if screened else []
        if best:
            check_stock(screened, SCREEN)
        names = [*PROTOTYPES, *best, *([winner.name] if winner else [])]
    if winner is not None and winner.name in names:
        check_stock(searched, TPE)
    return variants.choose(extended, [STOCK, *names])


def finalists(ledger: Ledger, count: int, among: Sequence[str]) -> list[str]:
    """Those of `among` whose first run is lowest; the stock script may be one of them."""
    runs = by_variant(ledger)
    first = {name: runs[name][0] for name in among if 0 in runs.get(name, {})}
    return sorted(first, key=lambda name: first[name])[:count]


def compared(ledger: Ledger) -> list[str]:
    """The variants that were compared with further seeds, the lowest mean of these first."""
    means = {name: fmean(list(seeds.values())) for name, seeds in further(by_variant(ledger)).items()}
    return sorted(means, key=lambda name: means[name])


def further(runs: Mapping[str, Mapping[int, float]]) -> dict[str, dict[int, float]]:
    """Without points of a search and without the first seed, where a variant has others."""
    kept = {name: {seed: bpb for seed, bpb in seeds.items() if seed > 0} for name, seeds in runs.items()}
    return {name: seeds for name, seeds in kept.items() if seeds and not name.startswith(TRIAL)}


def check_stock(small: Ledger | None, stage: str) -> None:
    """Raises ConfigError where what a stage found belongs to another stock script than today's."""
    if small is None or small.opened is None:
        return
    path = TASK_FILES / f"{small.opened.task}.yaml"
    today = stock_sha256(load(path)) if path.is_file() else None
    if today is not None and today != small.opened.stock_sha256:
        raise ConfigError(
            f"what {stage} found in {small.opened.task}{SUFFIX} is of another stock script: "
            f"`bpbench sweep {stage}` again, in a folder of its own"
        )


def by_variant(ledger: Ledger) -> dict[str, dict[int, float]]:
    """variant -> seed -> bpb of runs that ended well, all at one place."""
    found: dict[str, dict[int, float]] = {}
    for run in ledger.runs:
        if run.status is Status.OK and run.bpb is not None:
            found.setdefault(run.variant, {})[run.seed] = run.bpb
    return found


def trials(ledger: Ledger) -> list[Run]:
    return sorted((run for run in ledger.runs if run.variant.startswith(TRIAL)), key=lambda run: run.variant)


def small_ledger(found: Mapping[str, Ledger], place: str, having: Callable[[Ledger], Sequence[Any]]) -> Ledger | None:
    """The small task's runs at `place`, if they have any of those; else at the place with most runs that does."""
    small = found.get(TASKS[SCREEN], Ledger())
    places = [key for key in small.used() if having(small.at(key))]
    return small.at(place if place in places else places[0]) if places else None


def tpe_best(small: Ledger | None) -> Variant | None:
    """The best point that the search of the small task found: when it finds a better one, that is another variant."""
    done = [(run.bpb, run) for run in trials(small) if run.bpb is not None] if small else []
    if not done:
        return None
    best = min(done, key=lambda pair: pair[0])[1]
    number = best.variant.removeprefix(TRIAL)
    return Variant(TPE_BEST + number, f"the best of {len(done)} points of TPE", knobs=best.knobs or {})


def ledgers(folder: Path) -> dict[str, Ledger]:
    """task -> what its file says."""
    files = {path.stem: read(path)[0] for path in sorted(folder.glob(f"*{SUFFIX}"))}
    found = {name: fold({name: records}) for name, records in files.items() if records}
    for name, ledger in found.items():
        if ledger.opened is not None and ledger.opened.study != "sweep":
            raise ConfigError(
                f"{folder}/{name}{SUFFIX}: is of a {ledger.opened.study}, expected one of `bpbench sweep`"
            )
    return found


def view(ledger: Ledger, stock: str, number: int, num_trials: int) -> View:
    """What agent=tpe would be shown at this point."""
    assert ledger.opened is not None
    stock_bpb = fmean(list(by_variant(ledger)[STOCK].values()))
    history, best = [], (stock_bpb, stock)
    for index, run in enumerate(trials(ledger)[:number]):
        source = knobs.apply(stock, run.knobs or {})
        result = RunResult(run.status, "val", bpb=run.bpb)
        history.append(Experiment(index, run.variant, source, run=result, val_bpb=run.bpb))
        if run.bpb is not None and run.bpb < best[0]:
            best = (run.bpb, source)
    return View(
        index=number,
        num_experiments=num_trials,
        task={},
        device={},
        budget_seconds=None,
        baseline_bpb=stock_bpb,
        sigma_bpb=ledger.opened.sigma_prior_bpb,
        stock_source=stock,
        incumbent_source=best[1],
        incumbent_bpb=best[0],
        history=tuple(history),
        search_seed=seeds.derive("sweep", ledger.opened.task),
    )


def changed(source: str, stock: str) -> dict[str, knobs.Scalar]:
    """The constants in which `source` differs from the stock script."""
    before = knobs.parse(stock)
    return {name: knob.value for name, knob in knobs.parse(source).items() if knob.value != before[name].value}


def check(wish: Wish) -> None:
    """Raises ConfigError."""
    if wish.stage not in STAGES:
        raise ConfigError(f"unknown stage '{wish.stage}'; valid: {', '.join(STAGES)}")
    if min(wish.seeds, wish.finalists, wish.trials) < 1:
        raise ConfigError("--seeds, --finalists and --trials: expected at least 1")
    places.check_positive("--hours", wish.hours)
    if wish.stage == TPE and wish.variants:
        raise ConfigError("--variants: a search has none; leave the option out")
