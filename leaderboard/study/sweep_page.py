"""The measured parts of docs/baseline.md, and its plot."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean

from harness.errors import ConfigError
from harness.records import Status
from harness.stats import t_interval
from leaderboard import page
from leaderboard.page import UNMEASURED, cell, interval, number, table
from leaderboard.study import sweep
from leaderboard.study.ledger import Ledger
from leaderboard.study.places import Say
from leaderboard.study.sweep import PROTOTYPES, TRIAL
from leaderboard.study.variants import STOCK, Variant, load

MIN_LEAD = 0.04  # the stock script's over the prototype
MAX_FOUND = 0.02  # what a search of its constants may still find
MIN_SEEDS, MIN_TRIALS = 3, 40  # below which neither is decided
NOT_YET = "not measured yet"
SHOWN_POINTS = 5
NAMES = ("bars", "confirm", "screen", "tpe", "devices", "failures")


def report(folder: Path, page_path: Path | None, say: Say) -> None:
    """The plot beside the data, tables into the page, or printed without one. Raises HarnessError."""
    found = sweep.ledgers(folder)
    if not found:
        raise ConfigError(f"--out {folder}: holds no data; expected a folder that `bpbench sweep` wrote")
    known = {variant.name: variant for variant in load(sweep.VARIANTS)}
    written = sections(found, known)
    small = found.get(sweep.TASKS[sweep.TPE], Ledger())
    for place in small.used():
        plot = draw(small.at(place), folder / f"tpe-{place}.png")
        if plot is not None:
            written["tpe"] += f"\n\n{page.image(f'Points of TPE, {small.label(place)}', plot, page_path)}"
    page.publish(written, page_path, say)


def sections(found: Mapping[str, Ledger], known: Mapping[str, Variant]) -> dict[str, str]:
    """Name -> what stands between its markers; UNMEASURED where there are no data."""
    small, full = (found.get(sweep.TASKS[stage]) for stage in (sweep.SCREEN, sweep.CONFIRM))
    return {
        "bars": by_place(full, partial(bars, searched=lambda place: sweep.small_ledger(found, place, sweep.trials))),
        "confirm": by_place(full, partial(variants_table, known=known)),
        "screen": by_place(small, partial(variants_table, known=known)),
        "tpe": by_place(small, points_table),
        "devices": devices(found),
        "failures": failures(found),
    }


def by_place(ledger: Ledger | None, shown: Callable[[Ledger], str]) -> str:
    """One part for each place that has runs, under its name."""
    if ledger is None or not ledger.used():
        return UNMEASURED
    return "\n\n".join(f"**{cell(ledger.label(place))}**\n\n{shown(ledger.at(place))}" for place in ledger.used())


def bars(ledger: Ledger, searched: Callable[[str], Ledger | None]) -> str:
    """The two bars of a baseline worth beating, from runs of one place at the full budget.

    Args:
        searched: what the small task's runs say for a place.
    """
    runs, small = sweep.by_variant(ledger), searched(ledger.used()[0])
    found, points = sweep.tpe_best(small), len(sweep.trials(small)) if small else 0
    best = found.name if found else sweep.TPE_BEST
    leads = [_saved(runs, name, STOCK) for name in PROTOTYPES]
    lead = min((lead for lead in leads if lead), key=lambda lead: lead.share) if all(leads) else None
    more = _saved(runs, STOCK, best)
    led = _word(lead.share >= MIN_LEAD, lead.low >= MIN_LEAD) if lead else NOT_YET
    found_little = _word(more.share <= MAX_FOUND, more.high <= MAX_FOUND) if more and points >= MIN_TRIALS else NOT_YET
    return "\n".join(
        [
            f"- The stock script against the better of the two prototypes: {_percent(lead)} "
            f"(bar: at least {100 * MIN_LEAD:.0f} % lower): {led}",
            f"- The best of {points} points of TPE against the stock script: {_percent(more)} "
            f"(bar: at most {100 * MAX_FOUND:.0f} % lower, of {MIN_TRIALS} points): {found_little}",
        ]
    )


def variants_table(ledger: Ledger, known: Mapping[str, Variant]) -> str:
    """Every variant, the lowest mean first; against the stock script on the seeds that both have."""
    everything = {name: seeds for name, seeds in sweep.by_variant(ledger).items() if not name.startswith(TRIAL)}
    # The first run chose who is compared on the small task; on the full one nobody was chosen by it.
    chosen = sweep.further(everything) if ledger.opened and ledger.opened.task == sweep.TASKS[sweep.SCREEN] else {}
    runs = everything | chosen
    rows = []
    for name in sorted(runs, key=lambda name: fmean(list(runs[name].values()))):
        mine, stock = runs[name], everything.get(STOCK, {})
        gaps = [mine[seed] - stock[seed] for seed in sorted(set(mine) & set(stock))]
        gap = "-"
        if gaps and name != STOCK:
            low, high = t_interval(gaps) if len(gaps) > 1 else (None, None)
            gap = interval(fmean(gaps), low, high, sign=True)
        tokens = [run.tokens for run in ledger.runs if run.variant == name and run.tokens is not None]
        seen = f"{statistics.fmean(tokens) / 1e6:.2f}" if tokens else "-"
        about = known[name].about if name in known else "a point of TPE"
        rows.append((name, about, str(len(mine)), number(fmean(list(mine.values()))), gap, seen))
    return table(("variant", "what", "seeds", "mean bpb", "against stock (95 %)", "tokens, millions"), rows)


def points_table(ledger: Ledger) -> str:
    """The best points of the search, and what they change."""
    done = [(run.bpb, run) for run in sweep.trials(ledger) if run.bpb is not None]
    if not done:
        return UNMEASURED
    rows = []
    for bpb, run in sorted(done, key=lambda pair: pair[0])[:SHOWN_POINTS]:
        what = ", ".join(f"{name} {value}" for name, value in (run.knobs or {}).items()) or "nothing"
        rows.append((run.variant, number(bpb), what))
    stock = list(sweep.by_variant(ledger).get(STOCK, {}).values())
    beside = f" The stock script: {number(fmean(stock))} (seeds: {len(stock)})." if stock else ""
    return f"{len(done)} points ended well; one seed each, so the best look better than they are.{beside}\n\n" + table(
        ("point", "bpb", "changed"), rows
    )


def devices(found: Mapping[str, Ledger]) -> str:
    """Where it was measured, and what an experiment costs beside its budget."""
    rows = []
    for task, ledger in found.items():
        for key, place in (ledger.places or {}).items():
            runs = [run for run in ledger.runs if run.place == key]
            stock = [run for run in runs if run.variant == STOCK and run.wall_seconds is not None]
            beside = [(run.wall_seconds or 0) - (run.train_seconds or 0) - (run.stopped_seconds or 0) for run in stock]
            made = (ledger.calibrations or {}).get(key, ())
            budget = number(made[-1].budget_seconds, 1) if made else "-"
            overhead = number(statistics.median(beside), 1) if beside else "-"
            stopped = [(run.stopped_seconds or 0) / run.wall_seconds for run in stock if run.wall_seconds]
            bursts = f"{100 * statistics.median(stopped):.0f} %" if stopped else "-"
            rows.append((task, place.label, place.clock, budget, overhead, bursts, str(len(runs))))
    header = (
        "task",
        "device",
        "clock",
        "budget, s",
        "stock: beside budget and bursts, s",
        "bursts, of wall time",
        "runs",
    )
    return table(header, rows)


def failures(found: Mapping[str, Ledger]) -> str:
    failed = [
        f"- {cell(run.variant)} on {task}, {cell(ledger.label(run.place))}, seed {run.seed}: "
        f"{run.status}, {cell(run.reason or '')}"
        for task, ledger in found.items()
        for run in ledger.runs
        if run.status is not Status.OK
    ]
    return "\n".join(failed) or ("No run failed." if any(ledger.runs for ledger in found.values()) else UNMEASURED)


def draw(ledger: Ledger, path: Path) -> Path | None:
    """The search: every point, and the best so far."""
    from matplotlib.figure import Figure

    runs = sweep.trials(ledger)
    done = [(int(run.variant.removeprefix(TRIAL)) + 1, run.bpb) for run in runs if run.bpb is not None]
    if not done:
        return None
    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    axis = figure.subplots()
    numbers, values = zip(*done, strict=True)
    axis.plot(numbers, values, "o", color="0.6", markersize=4, label="points")
    best = [min(values[: end + 1]) for end in range(len(values))]
    axis.step(numbers, best, where="post", color="C0", label="best so far")
    stock = list(sweep.by_variant(ledger).get(STOCK, {}).values())
    if stock:
        axis.axhspan(min(stock), max(stock), color="C1", alpha=0.3, label="stock script, all seeds")
    axis.set(xlabel="trial", ylabel="validation bits per byte")
    axis.locator_params(axis="x", integer=True)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    return path


@dataclass(frozen=True)
class Saved:
    """How much lower one variant is than another, as a share, over seeds that both have."""

    share: float
    low: float  # 95 % t interval
    high: float


def _saved(runs: Mapping[str, Mapping[int, float]], worse: str, better: str) -> Saved | None:
    """None below MIN_SEEDS common seeds."""
    seeds = sorted(set(runs.get(worse, {})) & set(runs.get(better, {})))
    if len(seeds) < MIN_SEEDS:
        return None
    shares = [1 - runs[better][seed] / runs[worse][seed] for seed in seeds]
    return Saved(fmean(shares), *t_interval(shares))


def _percent(saved: Saved | None) -> str:
    if saved is None:
        return "-"
    if saved.share < 0:
        return f"{-100 * saved.share:.1f} % ({-100 * saved.high:.1f} to {-100 * saved.low:.1f}) higher"
    return f"{100 * saved.share:.1f} % ({100 * saved.low:.1f} to {100 * saved.high:.1f}) lower"


def _word(in_the_mean: bool, in_the_interval: bool) -> str:
    return "**does not hold**" if not in_the_mean else "**holds**" if in_the_interval else "**holds in the mean**"
