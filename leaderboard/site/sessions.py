"""The page of a session: who, where, what was gained, who retrained it, and every experiment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness import ranking
from harness.journal import Record
from harness.records import Gain, SessionState
from harness.views import experiments, rows, summary, text
from harness.views.experiments import Entry, Limits
from leaderboard import published
from leaderboard.outcome import Outcome, usd
from leaderboard.published import Published, Tier
from leaderboard.site import charts, words
from leaderboard.site.charts import Chart
from leaderboard.site.links import Link, Links, https
from leaderboard.site.tables import Table
from leaderboard.spent import Spent, spent
from leaderboard.verdict import Word

# An experiment takes at most some 40 KB, whatever its words are: what is cut here is in the bundle.
LIMITS = Limits(diff_lines=160, diff_bytes=16_000, note_chars=1200, log_chars=1200, log_bytes=3_000, curve_points=50)
_MAX_ATTEMPTS = 12
_MAX_REPRODUCTIONS = 20
_MAX_REASONS = 6
_MAX_TOKENS = 10**15
_ELSEWHERE = "Published, not checked here: its bundle is elsewhere."


@dataclass(frozen=True)
class Retrained:
    """A reproduction, in words."""

    by: str
    device: str
    href: str | None
    day: str
    word: str
    tone: str  # gain | loss | open
    what: str
    counts: str


@dataclass(frozen=True)
class SessionView:
    """All strings are clean. Where there is no bundle, only the entry is known."""

    name: str
    title: str
    verdict: str
    tone: str  # gain | loss | open
    tier: Tier
    tier_label: str
    tier_words: str
    contested: bool
    figures: tuple[tuple[str, str], ...]
    facts: tuple[tuple[str, str], ...]
    sentences: tuple[str, ...]
    device: Link | None
    by: Link
    submitted_on: str
    note: str
    bundle: Link
    bundle_name: str
    bundle_facts: tuple[tuple[str, str], ...]
    retrained: tuple[Retrained, ...]
    retrained_more: int  # that are not shown
    pairs: Table | None
    progress: Chart | None
    baseline: rows.Row | None
    entries: tuple[Entry, ...]
    attempts: tuple[str, ...]


def view(session: Published, links: Links) -> SessionView:
    state = session.bundle.state if session.bundle else None
    outcome = session.outcome
    sha, size = text.line(session.bundle_sha256, 64), f"{words.number(session.bundle_bytes)} bytes"
    return SessionView(
        name=text.line(session.name, 100),
        title=_title(outcome, links) if outcome else text.line(session.name, 100),
        verdict=rows.verdict(_bearable(state)) if state else _ELSEWHERE,
        tone=rows.tone(state) if state else "open",
        tier=session.tier,
        tier_label=words.TIERS[session.tier],
        tier_words=words.tier(session),
        contested=session.contested,
        figures=tuple(_figures(state, outcome, spent(session))) if state and outcome else (),
        facts=tuple(_facts(state)) if state else (),
        sentences=tuple(_sentences(state)) if state else (),
        device=_device(outcome, links) if outcome else None,
        by=Link(https(session.link), text.line(session.submitted_by, 80)),
        submitted_on=text.line(session.submitted_on, 10),
        note=text.block(session.note, 1000),
        bundle=links.bundle(session),
        bundle_name=f"{text.line(session.name, 100)}.bundle.tar",
        bundle_facts=(("SHA-256", sha), ("size", size)),
        retrained=tuple(_retrained(session, links)),
        retrained_more=max(0, len(session.retrained) - _MAX_REPRODUCTIONS),
        pairs=_pairs(state, state.gain) if state and state.gain else None,
        progress=charts.progress(state) if state else None,
        baseline=rows.baseline_row(state) if state else None,
        entries=tuple(_entries(state, session.bundle.records)) if state and session.bundle else (),
        attempts=tuple(rows.attempt_line(item) for item in state.attempts[:_MAX_ATTEMPTS]) if state else (),
    )


def _device(outcome: Outcome, links: Links) -> Link:
    return Link(links.device(outcome.device), links.device_name(outcome.device, outcome.device_label))


def _title(outcome: Outcome, links: Links) -> str:
    task = text.line(str(outcome.key.get("task")), 40)
    named = f"{text.line(outcome.label, 60)} on {task}, session seed {words.number(outcome.session_seed)}"
    # Seeds begin at 0 on every kind of device: two pages of one title could not be told apart in a list of tabs.
    return f"{named}, {links.device_name(outcome.device, outcome.device_label)}" if len(links.devices) > 1 else named


def _entries(state: SessionState, records: Sequence[Record]) -> list[Entry]:
    return experiments.entries(state, experiments.edits(records), LIMITS)


def _bearable(state: SessionState) -> SessionState:
    """Numbers of honest sizes are shown as they are; a sentence of 300 digits would be no sentence."""
    gain = state.gain
    if gain is None or all(value is None or abs(value) < 1e6 for value in (gain.mean_bpb, gain.low_bpb, gain.high_bpb)):
        return state
    return replace(state, gain=replace(gain, mean_bpb=None, low_bpb=None, high_bpb=None))


def _figures(state: SessionState, outcome: Outcome, costs: Spent) -> list[tuple[str, str]]:
    best = state.incumbent
    what = "baseline against itself" if state.unchanged else "gain on test"
    return [
        (f"{what}, bpb", words.bpb(outcome.gain_bpb, True)),
        ("baseline, val bpb", words.bpb(outcome.baseline_bpb)),
        ("best, val bpb", words.bpb(best.val_bpb if best else None)),
        ("sigma, bpb", words.bpb(outcome.sigma_bpb)),
        ("experiments kept", f"{outcome.num_kept} of {outcome.num_experiments}"),
        ("budget each", words.duration(rows.budget_seconds(state))),
        ("work", words.duration(state.working_seconds)),
        ("cost", words.dollars(costs.cost_usd)),
    ]


def _facts(state: SessionState) -> list[tuple[str, str]]:
    names, made = rows.names(state), state.calibration
    rate = "-"
    if made:
        low, high = words.number(made.tokens_per_second_low), words.number(made.tokens_per_second_high)
        rate = f"{words.number(made.tokens_per_second)} tokens/s (95 % interval {low} to {high})"
    clock = "-" if made is None else "metered" if made.pattern else "wall"
    correction = ranking.mean_correction(state)
    if correction is not None and abs(correction) < 1e3:
        clock += f"; the device ran at {100 * correction:.0f} % of its calibrated speed"
    versions = state.opened.get("versions")
    known = versions if isinstance(versions, dict) else {}
    found = [
        ("researcher", names["agent"]),
        ("task", names["task"]),
        ("text", names["data"]),
        ("opened", words.day(state.opened_at)),
        ("device rate", rate),
        ("clock", clock),
        ("torch", str(known.get("torch") or "-")),
        ("bpbench", str(known.get("bpbench") or "-")),
    ]
    return [(name, text.line(value, 200)) for name, value in found if value != "-"]


def _sentences(state: SessionState) -> list[str]:
    """Beside the verdict: what stopped early, what stood around the code, what was attempted."""
    wanted = [
        _llm_sentence(state),
        summary.stopped_sentence(state),
        _resumed(state),
        summary.audit_sentence(state),
        rows.walls_sentence(state),
        rows.integrity_sentence(state),
    ]
    found = [sentence for sentence in wanted if sentence]
    if reasons := summary.unranked(state):
        more = f"; and {len(reasons) - _MAX_REASONS} more" if len(reasons) > _MAX_REASONS else ""
        found.append(f"Not ranked: {'; '.join(reasons[:_MAX_REASONS])}{more}.")
    return found


def _resumed(state: SessionState) -> str | None:
    """With the time in which nobody worked, or somebody tried a copy: only who ran it knows."""
    if not state.num_restarts or state.opened_at is None or state.last_at is None:
        return None
    gap = max(0.0, state.last_at - state.opened_at - state.working_seconds)
    return f"Resumed {text.count(state.num_restarts, 'time')}, after {text.duration(gap)} without a record."


def _llm_sentence(state: SessionState) -> str | None:
    """None where its numbers are none of a session."""
    asked = state.llm
    fits = (asked.cost_usd is None or usd(asked.cost_usd) is not None) and abs(asked.tokens) < _MAX_TOKENS
    return summary.llm_sentence(state) if fits else None


def _pairs(state: SessionState, gain: Gain) -> Table:
    shown = []
    for number, (base, best) in enumerate(zip(gain.baseline_bpb, gain.candidate_bpb, strict=False), 1):
        difference = None if base is None or best is None else base - best
        shown.append((str(number), words.bpb(base), words.bpb(best), words.bpb(difference, True)))
    winner = "stock script again" if state.unchanged else "winner"
    header = ("pair", "baseline, test bpb", f"{winner}, test bpb", "difference" if state.unchanged else "gain")
    return Table("Confirmation: fresh seeds, hidden text", header, tuple(shown))


def _retrained(session: Published, links: Links) -> list[Retrained]:
    """Those that contest the session first."""
    tones = {Word.REPRODUCED: "gain", Word.NOT_REPRODUCED: "loss", Word.INCONCLUSIVE: "open"}
    ordered = sorted(session.retrained, key=lambda item: not _contests(item))
    return [
        Retrained(
            by=text.line(item.by, 60),
            device=links.device_name(item.device, item.device_label),
            href=links.device(item.device),
            day=words.day(item.opened_at),
            word=item.verdict.word.value,
            tone=tones[item.verdict.word],
            what=words.verdict(item.verdict),
            counts="yes" if item.counts else "no",
        )
        for item in ordered[:_MAX_REPRODUCTIONS]
    ]


def _contests(made: published.Retrained) -> bool:
    return made.counts and made.verdict.word is Word.NOT_REPRODUCED
