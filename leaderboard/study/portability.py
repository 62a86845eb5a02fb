"""`bpbench portability`: do calibrated budgets make devices comparable? Measures what is missing, writes its page."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from harness import views
from harness.assemble import stage_progress
from harness.config import Config
from harness.data import DataInfo, prepare
from harness.errors import ConfigError, DeviceError
from harness.lease import lease, physical_name
from harness.sizes import stock_of
from leaderboard import page
from leaderboard.reproduce import once
from leaderboard.study import findings, places, plan, portability_page, portability_plots, variants
from leaderboard.study.ledger import SUFFIX, Book, Ledger, check_same, read_folder
from leaderboard.study.measure import Hours, Measurer
from leaderboard.study.places import Say, Site
from leaderboard.study.variants import STOCK, Variant

VARIANTS = variants.HERE / "portability.yaml"
TASK = "task=nano_study"


@dataclass(frozen=True)
class Wish:
    """What the user asked for."""

    folder: Path  # all files of the study lie here, other machines' too
    name: str = "runs"  # of this machine's file
    overrides: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()
    stock_seeds: int = 3
    variant_seeds: int = 1
    raw_seconds: float | None = None  # None: as the folder's files have it, else as the first calibration gives it
    hours: float | None = None
    scratch: Path = Path("sessions") / "portability"


def measure(wish: Wish, say: Say) -> bool:
    """Run what is missing. False where the hours ended it first. Raises HarnessError."""
    check(wish)
    overrides = with_task(wish.overrides, TASK)
    chosen = [item for item in variants.choose(variants.load(VARIANTS), wish.variants) if item.name != STOCK]
    sites = places.survey(overrides, places.choose(wish.settings), say)
    config, device = sites[0].config, sites[0].device
    stock = stock_of(config.task)
    sources = {variant.name: variant.source(stock) for variant in (Variant(STOCK, ""), *chosen)}
    data = prepared(config)
    physical = physical_name(device.name, device.identity)
    others = read_folder(wish.folder)
    opened = places.opened("portability", config, data, wish.raw_seconds or others.raw_seconds)
    if others.opened is not None:  # before this machine's file is begun
        check_same(others.opened, opened, wish.folder)
        check_seconds(wish, others)
    with (
        lease(physical, f"portability study in {wish.folder}", once(say)),
        closing(Book(wish.folder / f"{wish.name}{SUFFIX}", opened)) as book,
    ):
        enter(book, sites)
        others = read_folder(wish.folder)
        hours, scratch = Hours(wish.hours), wish.scratch.absolute()
        raw_seconds = others.raw_seconds or wish.raw_seconds
        measurer = Measurer(book, by_key(sites), data, sources, scratch, hours, say, raw_seconds)
        return follow(wish, measurer, [variant.name for variant in chosen], others.margin is not None)


def follow(wish: Wish, measurer: Measurer, names: Sequence[str], margin_stated: bool) -> bool:
    """The plan of this machine: the margin at the first of its places that is not refused, then all the rest."""
    left, ticking = list(measurer.sites), any(site.place.clock == "ticks" for site in measurer.sites.values())
    while left:
        counts = (wish.stock_seeds, wish.variant_seeds)
        first, rest = plan.plan(left, names, *counts, ticking=ticking, margin_stated=margin_stated)
        if not measurer.do(first):
            return False
        if left[0] in measurer.refused:
            left.pop(0)
            continue
        if not margin_stated:
            state_margin(measurer.book, left[0], measurer.say)
        whole = measurer.do(rest)
        if measurer.refused >= set(measurer.sites):
            break
        return whole
    raise DeviceError("every place was refused: there is nothing to measure here")


def report(folder: Path, page_path: Path | None, say: Say) -> None:
    """Plots beside the data, tables into the page, or printed without one. Raises HarnessError."""
    ledger = read_folder(folder)
    if ledger.opened is None:
        raise ConfigError(
            f"--out {folder}: holds no data of a study; expected a folder that `bpbench portability` wrote"
        )
    if ledger.opened.study != "portability":
        raise ConfigError(f"{folder}: holds files of a {ledger.opened.study}, expected those of `bpbench portability`")
    known = variants.load(VARIANTS)
    found = findings.findings(ledger, known)
    written = portability_page.sections(ledger, found, known)
    if found is not None:
        drawn = {path.stem: path for path in portability_plots.draw(found, folder)}
        for name, title in portability_page.PLOTS.items():
            if name in drawn:
                shown = page.image(title, drawn[name], page_path)
                written[portability_page.PLOT_AT[name]] += f"\n\n{shown}"
    page.publish(written, page_path, say)


def check(wish: Wish) -> None:
    """Raises ConfigError."""
    if wish.stock_seeds < 2 or wish.variant_seeds < 1:
        raise ConfigError("--stock-seeds and --seeds: expected at least 2 and 1")
    for option, value in (("--hours", wish.hours), ("--raw-seconds", wish.raw_seconds)):
        places.check_positive(option, value)
    if Path(wish.name).name != wish.name or wish.name.startswith("."):
        raise ConfigError(f"--file {wish.name!r}: expected a plain name without a suffix")


def check_seconds(wish: Wish, others: Ledger) -> None:
    """Raises ConfigError where other seconds are asked for than the folder's raw runs have."""
    known, wanted = others.raw_seconds, wish.raw_seconds
    if None not in (known, wanted) and known != wanted:
        raise ConfigError(f"--raw-seconds {wanted!r}: the study in {wish.folder} has {known!r}; leave the option out")


def with_task(overrides: Sequence[str], task: str) -> list[str]:
    """The overrides of a study: no researcher, and its own task unless another is named."""
    given = {override.partition("=")[0] for override in overrides}
    return [own for own in ("agent=noop", task) if own.partition("=")[0] not in given] + list(overrides)


def prepared(config: Config) -> DataInfo:
    with closing(views.make()) as view:
        return prepare(config, lambda event: view.on_progress(stage_progress(event)))


def enter(book: Book, sites: Sequence[Site]) -> None:
    """Describe the places that the file does not know yet. Raises ConfigError where one has changed since."""
    known = book.ledger().places or {}
    for site in sites:
        before = known.get(site.place.key)
        if before is None:
            book.write("place", site.place)
            continue
        torch = (place.identity.get("torch_version") for place in (before, site.place))
        for name, (then, now) in {"clock": (before.clock, site.place.clock), "torch_version": torch}.items():
            if then != now:
                raise ConfigError(
                    f"{book.journal.path}: {name} was {then!r} at {site.place.label} and is {now!r} now; "
                    "go on with a file of another folder"
                )


def by_key(sites: Sequence[Site]) -> dict[str, Site]:
    return {site.place.key: site for site in sites}


def state_margin(book: Book, place: str, say: Say) -> None:
    """Write the margin down before a second place is measured."""
    made = findings.margin_of(book.ledger(), place) if book.ledger().margin is None else None
    if made is not None:
        book.write("margin", made)
        say(f"margin: {made.margin_bpb:.4f} bpb, from sigma {made.sigma_bpb:.4f} ({made.degrees} degrees of freedom)")
