"""Devices: what the stock script scores on each, and a page for every one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.journal import canonical
from harness.records import Calibration
from harness.stats import mean, t_interval
from harness.views import text
from leaderboard.outcome import Outcome
from leaderboard.published import Published
from leaderboard.site import strips, words
from leaderboard.site.axis import bearable
from leaderboard.site.links import Links
from leaderboard.site.strips import Scale, Strip
from leaderboard.site.tables import Table

_MAX_FACTS = 60
_MAX_FACT_CHARS = 200


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
    return tuple(_panel(outcomes, links) for _, outcomes in found)


def _panel(outcomes: Sequence[Outcome], links: Links) -> Panel:
    by_device: dict[str, list[Outcome]] = {}
    for item in sorted(outcomes, key=lambda item: (item.device_label, item.device, item.head)):
        by_device.setdefault(item.device, []).append(item)
    known = [value for item in outcomes if bearable(value := item.baseline_bpb) and value is not None]
    sigmas = [value for item in outcomes if bearable(value := item.sigma_bpb) and value is not None]
    most = max(by_device.values(), key=len)
    centre, band = [item.baseline_bpb for item in most if item.baseline_bpb is not None], None
    if sigmas and centre and bearable(mean(centre)):
        band = (mean(centre) - mean(sigmas), mean(centre) + mean(sigmas))
    on = strips.scale(known, zero=False, sign=False, band=band)
    key = outcomes[0].key
    return Panel(
        title=f"{text.line(str(key.get('task')), 40)}, protocol {words.number(key.get('protocol'))}",
        sentence=_sentence(by_device, most[0].device_label),
        scale=on,
        rows=tuple(_device_row(found, on, links) for found in by_device.values()),
    )


def _sentence(by_device: Mapping[str, Sequence[Outcome]], most: str) -> str:
    count = text.count(sum(map(len, by_device.values())), "session")
    band = f"The band is one seed-to-seed sigma around {most}."
    if len(by_device) == 1:
        return f"One device so far, {count}: whether numbers travel takes a second one. {band}"
    return (
        f"{len(by_device)} devices, {count}. {band} Devices whose baselines were shown to agree within one sigma "
        "share a board; the others have boards of their own."
    )


def _device_row(found: Sequence[Outcome], on: Scale, links: Links) -> DeviceRow:
    values = [item.baseline_bpb for item in found if item.baseline_bpb is not None]
    centre = mean(values) if all(map(bearable, values)) else None
    low, high = t_interval(values) if len(values) > 1 and centre is not None else (None, None)
    label = text.line(found[0].device_label, 80)
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
    bundle = next((session.bundle for session in here if session.bundle is not None), None)
    keys = {canonical(dict(session.outcome.key)) for session in here if session.outcome is not None}
    same = [item for item in everywhere if item.outcome and canonical(dict(item.outcome.key)) in keys]
    return DeviceView(
        label=text.line(outcome.device_label, 80),
        fingerprint=text.line(fingerprint, 60),
        facts=tuple(facts(bundle.state.opened)) if bundle else (),
        sessions=_sessions(here),
        hrefs=tuple(links.session(session.name) for session in here),
        panels=panels(same, links),
    )


def facts(opened: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What an opening record says of its device and software, flat and clean, at most so many."""
    groups = (("", "device"), ("power ", "power_state"), ("probe ", "microprobes"), ("", "versions"))
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
                words.bpb(outcome.gain_bpb, True),
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
