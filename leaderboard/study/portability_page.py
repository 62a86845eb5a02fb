"""The measured parts of docs/portability.md: tables and verdicts, as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean

from leaderboard.page import UNMEASURED, cell, interval, number, table
from leaderboard.study import findings
from leaderboard.study.analysis import gaps, half_width
from leaderboard.study.findings import MIN_COMPARED, MIN_TAU, ByMode, Findings, Held
from leaderboard.study.ledger import CALIBRATED, RAW, Ledger
from leaderboard.study.variants import STOCK, Variant

PLOTS = {
    "baseline": "The stock script on every device; the band is the margin around the first",
    "ranking": "Every variant; the band is one sigma",
    "slope": "Budget and result",
}
PLOT_AT = {"baseline": "baseline", "ranking": "order", "slope": "slope"}  # plot -> section
NAMES = ("verdicts", "places", "margin", "baseline", "order", "interaction", "slope", "variants", "failures")


def sections(ledger: Ledger, found: Findings | None, variants: Sequence[Variant]) -> dict[str, str]:
    """Name -> what stands between its markers; UNMEASURED where there are no data."""
    written = dict.fromkeys(NAMES, UNMEASURED)
    written["places"] = _places(ledger)
    if found is None:
        return written
    return written | {
        "verdicts": _verdicts(found),
        "margin": _margin(found),
        "baseline": _baseline(found),
        "order": _order(found),
        "interaction": _interaction(found),
        "slope": _slope(found),
        "variants": _variants(found, variants),
        "failures": _failures(found),
    }


def _places(ledger: Ledger) -> str:
    rows = []
    for key, place in (ledger.places or {}).items():
        made = (ledger.calibrations or {}).get(key, ())
        last = made[-1] if made else None
        runs = [run for run in ledger.runs if run.place == key]
        shown = ("-", "-")
        if last:
            low, high = last.tokens_per_second_low, last.tokens_per_second_high
            shown = (interval(last.tokens_per_second, low, high, 0), number(last.budget_seconds, 1))
        hours = sum(run.wall_seconds or 0.0 for run in runs) / 3600
        correction = number(findings.correction(ledger, key), 2)
        rows.append((place.label, place.setting, place.clock, *shown, correction, str(len(runs)), number(hours, 1)))
    header = ("place", "setting", "clock", "tokens/s (95 %)", "budget, s", "correction", "runs", "hours")
    refused = "".join(f"\n\n{cell(ledger.label(item.place))}: {cell(item.reason)}" for item in ledger.refused)
    return table(header, rows) + refused


def _margin(found: Findings) -> str:
    made = found.margin
    seeds = next(n for n in range(2, 10_000) if half_width(n, made.sigma_bpb) < made.margin_bpb)
    when = "before any other place" if found.ledger.margin_was_first else "**after a run at another place**"
    return (
        f"On {cell(found.ledger.label(made.place))}, {when}: sigma {number(made.sigma_bpb)} bpb "
        f"({made.degrees} degrees of freedom, shrunk to the task's prior), slope "
        f"{number(made.slope_bpb_per_percent, 5)} bpb for one per cent of budget. "
        f"**Margin: {number(made.margin_bpb)} bpb.** "
        f"Should equal seeds have nothing in common, {seeds} seeds a place are needed to show this of equal places."
    )


def _modes(found: Findings) -> Iterator[tuple[str, ByMode]]:
    yield "calibrated", found.calibrated
    if found.raw.table:
        yield "raw seconds", found.raw


def _baseline(found: Findings) -> str:
    header = ("budget", "place", "seeds", "mean bpb", "against the first (90 %)", "equivalent")
    rows, lines = [], []
    for name, mode in _modes(found):
        first = next(iter(mode.baselines), None)
        against = {pair.other: pair for pair in mode.equivalences if pair.one == first}
        for place, seeds in mode.baselines.items():
            pair = against.get(place)
            shown = interval(pair.difference, pair.low, pair.high, sign=True) if pair else "-"
            word = "-" if pair is None else "yes" if pair.equivalent else "no" if pair.different else "not shown"
            bpb = number(fmean(list(seeds.values())))
            rows.append((name, found.ledger.label(place), str(len(seeds)), bpb, shown, word))
        if mode.spread and mode.spread.between_sd is not None:
            equal = sum(pair.equivalent for pair in mode.equivalences)
            lines.append(
                f"- **{name}**: deviation between places {number(mode.spread.between_sd)}, between seeds of one "
                f"place {number(mode.spread.seed_sd)} ({mode.spread.degrees} degrees of freedom); largest gap "
                f"{number(mode.spread.largest_gap)}; {equal} of {len(mode.equivalences)} pairs of places equivalent."
            )
    return table(header, rows) + "\n\n" + "\n".join(lines)


def _order(found: Findings) -> str:
    header = ("budget", "places", "variants", "tau, all pairs (95 %)", "clear pairs", "tau, clear pairs (95 %)")
    rows = [
        (
            name,
            f"{found.ledger.label(item.one)} / {found.ledger.label(item.other)}",
            str(item.num_variants),
            interval(item.tau, item.low, item.high, 2),
            str(item.num_clear),
            interval(item.clear_tau, item.clear_low, item.clear_high, 2),
        )
        for name, mode in _modes(found)
        for item in mode.agreements
    ]
    return table(header, rows)


def _interaction(found: Findings) -> str:
    header = (
        "budget",
        "variants",
        "places",
        "root mean square (95 %)",
        "from seeds alone",
        "interaction, at most",
        "p",
        "of a gain, at most",
    )
    rows = []
    for name, mode in _modes(found):
        for which, item in (("all", mode.interaction), ("close to stock", mode.close_interaction)):
            if item:
                square = interval(item.residual_sd, item.low, item.high)
                inner = f"{number(item.sd)}, {number(item.sd_high)}"
                gain = f"{number(item.gain_error)}, {number(item.gain_error_high)}"
                rest = (number(item.noise_sd), inner, number(item.p, 3), gain)
                rows.append((name, f"{which}, {item.num_variants}", str(item.num_places), square, *rest))
    return table(header, rows)


def _slope(found: Findings) -> str:
    header = ("place", "bpb that one per cent less budget costs (95 %)", "residual sd")
    rows = [
        (found.ledger.label(place), interval(item.per_percent, item.low, item.high, 5), number(item.residual_sd))
        for place, item in found.slopes.items()
    ]
    return table(header, rows)


def _variants(found: Findings, variants: Sequence[Variant]) -> str:
    modes = [(name, place, mode) for name, mode in _modes(found) for place in mode.baselines]
    header = ("variant", "what", *(f"{name}: {cell(found.ledger.label(place))}" for name, place, _ in modes))
    rows = []
    for variant in variants:
        values = []
        for _, place, mode in modes:
            seeds = mode.table[place].get(variant.name, {})
            if variant.name == STOCK or not seeds:
                values.append(number(fmean(list(seeds.values()))) if seeds else "-")
            else:
                values.append(number(fmean(gaps(seeds, mode.baselines[place])), sign=True))
        if any(value != "-" for value in values):
            rows.append((variant.name, variant.about, *values))
    return table(header, rows)


def _failures(found: Findings) -> str:
    header = ("place", "variant", "budget", "seed", "what happened")
    rows = [
        (found.ledger.label(run.place), run.variant, run.mode, str(run.seed), f"{run.status}: {run.reason or ''}")
        for run in found.failures
    ]
    return table(header, rows) if rows else "No run failed."


def _verdicts(found: Findings) -> str:
    places, whole = len(found.calibrated.baselines), found.calibrated.whole
    smallest = (findings.smallest_tau(mode.agreements, whole) for mode in (found.calibrated, found.raw))
    calibrated, raw = (number(tau, 2) for tau in smallest)
    begun = f", {len(found.begun)} of them with too few seeds to count" if found.begun else ""
    lost = f"; failed at one place and not at another: {', '.join(map(cell, found.lost))}" if found.lost else ""
    lines = [
        f"- Baselines of all quiet places equivalent, margin {number(found.margin.margin_bpb)}: "
        f"{_word(found.equivalent)} ({len(found.quiet)} quiet of {places} places{begun})",
        f"- tau over clear pairs at least {MIN_TAU}: {_word(found.same_order)} (smallest {calibrated}; with raw "
        f"seconds {raw}; {len(whole)} of {places} places have {MIN_COMPARED} variants{lost})",
    ]
    counts = {mode: sum(run.mode == mode for run in found.ledger.runs) for mode in (CALIBRATED, RAW)}
    lines.append(f"- {counts[CALIBRATED]} calibrated and {counts[RAW]} raw runs on record.")
    return "\n".join(lines)


def _word(held: Held) -> str:
    return str(held) if held is Held.UNMEASURED else f"**{held}**"
