"""Devices: what the stock script scores on each, and a page for every one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, TypeGuard

from harness.journal import canonical
from harness.records import Calibration
from harness.stats import t_interval
from harness.views import text
from leaderboard.outcome import Outcome
from leaderboard.plausible import BPB_BAND
from leaderboard.portability import baselines_by_seed, margin_bpb
from leaderboard.published import Published
from leaderboard.site import strips, titles, words
from leaderboard.site.axis import bearable
from leaderboard.site.links import Links
from leaderboard.site.strips import Scale, Strip
from leaderboard.site.tables import Table

_MAX_FACTS = 60
_MAX_FACT_CHARS = 200
_MAX_SIGMA_BPB = 1.0


@dataclass(frozen=True)
class DeviceRow:
    """A device in a panel: stock baselines of its sessions."""

    label: str
    href: str | None
    num_sessions: int
    mean: str
    interval: str
    strip: Strip


@dataclass(frozen=True)
class Panel:
    """One key on all devices."""

    title: str
    sentence: str
    scale: Scale
    rows: tuple[DeviceRow, ...]


@dataclass(frozen=True)
class DeviceView:
    label: str
    fingerprint: str
    recorded_by: str  # the session whose opening record has the facts
    facts: tuple[tuple[str, str], ...]
    sessions: Table
    hrefs: tuple[str, ...]  # of the sessions, in the table's order
    panels: tuple[Panel, ...]  # its own baselines beside those of other devices


def panels(sessions: Sequence[Published], links: Links) -> tuple[Panel, ...]:
    """One for each key, those with the most sessions first."""
    by_key: dict[bytes, list[Outcome]] = {}
    for session in sessions:
        if session.outcome is not None and session.outcome.baseline_bpb is not None:
            by_key.setdefault(canonical(dict(session.outcome.key)), []).append(session.outcome)
    found = sorted(by_key.items(), key=lambda item: (-len(item[1]), item[0]))
    made = [_panel(outcomes, links) for _, outcomes in found]
    told = titles.told_apart([panel.title for panel in made], titles.fields([of[0].key for _, of in found]))
    return tuple(replace(panel, title=title) for panel, title in zip(made, told, strict=True))


def _panel(outcomes: Sequence[Outcome], links: Links) -> Panel:
    by_device: dict[str, list[Outcome]] = {}
    for item in sorted(outcomes, key=lambda item: (item.device_label, item.device, item.head)):
        by_device.setdefault(item.device, []).append(item)
    known = [value for item in outcomes if _likely(value := item.baseline_bpb)]
    most = max(by_device.values(), key=len)
    centre = list(baselines_by_seed(item for item in most if _likely(item.baseline_bpb)).values())
    margin = margin_bpb(outcomes)
    drawn = bool(centre) and 0 < margin < _MAX_SIGMA_BPB
    band = (fmean(centre) - margin, fmean(centre) + margin) if drawn else None
    on = strips.scale(known, zero=False, sign=False, band=band)
    key = outcomes[0].key
    return Panel(
        title=f"{text.line(str(key.get('task')), 40)}, protocol {words.number(key.get('protocol'))}",
        sentence=_sentence(
            by_device, links.device_name(most[0].device, most[0].device_label) if band else None, margin
        ),
        scale=on,
        rows=tuple(_device_row(found, on, links) for found in by_device.values()),
    )


def _likely(baseline_bpb: float | None) -> TypeGuard[float]:
    """Whether the axis makes room for it: one odd baseline would leave none for the others."""
    return baseline_bpb is not None and BPB_BAND[0] < baseline_bpb < BPB_BAND[1]


def _sentence(by_device: Mapping[str, Sequence[Outcome]], centre: str | None, margin: float) -> str:
    """`centre`: the device that the band of `margin` bpb is around; None: there is no band."""
    count = text.count(sum(map(len, by_device.values())), "session")
    band = f"The band is the sigma of the task's rules (±{words.bpb(margin)} bpb) around {centre}. " if centre else ""
    if len(by_device) == 1:
        return f"One device so far, {count}: whether numbers travel takes a second one. {band}".rstrip()
    return (
        f"{len(by_device)} devices, {count}. {band}Devices whose baselines were shown to agree within that sigma "
        "share a board; the others have boards of their own."
    )


def _device_row(found: Sequence[Outcome], on: Scale, links: Links) -> DeviceRow:
    values = [item.baseline_bpb for item in found if item.baseline_bpb is not None]
    # Sessions of one seed repeat the same runs: they are dots of their own, but one value of the interval.
    independent = list(baselines_by_seed(found).values())
    centre = fmean(independent) if all(map(bearable, values)) else None
    low, high = t_interval(independent) if len(independent) > 1 and centre is not None else (None, None)
    label = links.device_name(found[0].device, found[0].device_label)
    shown = words.interval(low, high).replace("+", "")
    drawn = f"{label}: mean baseline {words.bpb(centre)} bpb, 95 % interval {shown or 'unknown'}"
    return DeviceRow(
        label=label,
        href=links.device(found[0].device),
        num_sessions=len(values),
        mean=words.bpb(centre),
        interval=shown,
        strip=strips.strip(on, centre, low, high, values, drawn),
    )


def view(fingerprint: str, here: Sequence[Published], everywhere: Sequence[Published], links: Links) -> DeviceView:
    """The page of a device with the sessions `here`, at least one with an outcome."""
    outcome = next(session.outcome for session in here if session.outcome is not None)
    recorded = next((session for session in here if session.bundle is not None), None)
    opened = recorded.bundle.state.opened if recorded and recorded.bundle else {}
    keys = {canonical(dict(session.outcome.key)) for session in here if session.outcome is not None}
    same = [item for item in everywhere if item.outcome and canonical(dict(item.outcome.key)) in keys]
    return DeviceView(
        label=links.device_name(fingerprint, outcome.device_label),
        fingerprint=text.line(fingerprint, 60),
        recorded_by=text.line(recorded.name, 100) if recorded else "",
        facts=tuple(facts(opened)),
        sessions=_sessions(here),
        hrefs=tuple(links.session(session.name) for session in here),
        panels=panels(same, links),
    )


def facts(opened: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What an opening record says of its device, flat and clean, at most so many."""
    groups = (("", "device"), ("power ", "power_state"), ("probe ", "microprobes"))
    found: dict[str, str] = {}
    for prefix, group in groups:
        for name, value in _flat(opened.get(group), prefix):
            found.setdefault(text.line(name, 60), text.line(value, _MAX_FACT_CHARS))
    return [(name, value) for name, value in found.items() if value][:_MAX_FACTS]


def _flat(value: Any, prefix: str, depth: int = 0) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and depth < 3:
        for name, inner in list(value.items())[:_MAX_FACTS]:
            yield from _flat(inner, f"{prefix}{' ' if prefix and not prefix.endswith(' ') else ''}{name}", depth + 1)
    elif value is not None and not isinstance(value, dict):
        yield prefix.replace("_", " "), _shown(value)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(str(item)[:40] for item in value[:20])
    return words.number(value, 2) if isinstance(value, float) else str(value)[: 2 * _MAX_FACT_CHARS]


def _sessions(here: Sequence[Published]) -> Table:
    """Calibration, baseline and gain of every session on a device."""
    rows = []
    for session in here:
        outcome, made = session.outcome, session.bundle.state.calibration if session.bundle else None
        if outcome is None:
            continue
        rows.append(
            (
                text.line(session.name, 100),
                words.day(outcome.opened_at),
                text.line(outcome.label, 40),
                words.number(made.tokens_per_second) if made else "-",
                _rates(made),
                words.duration(made.budget_seconds) if made else "-",
                words.bpb(outcome.baseline_bpb),
                words.bpb(outcome.sigma_bpb),
                words.bpb(outcome.gain_bpb, True) + (" (nothing changed)" if outcome.unchanged else ""),
            )
        )
    header = (
        "session",
        "day",
        "researcher",
        "tokens/s",
        "95 % interval",
        "budget",
        "baseline, val bpb",
        "sigma",
        "gain",
    )
    return Table("Sessions on this device, with their calibrations", header, tuple(rows), num_words=3)


def _rates(made: Calibration | None) -> str:
    if made is None:
        return "-"
    return f"{words.number(made.tokens_per_second_low)} to {words.number(made.tokens_per_second_high)}"
