"""Collections of published sessions, from simulated ones. Test data only: no figure here was measured."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import doctored
import simulated

from harness.journal import read
from harness.records import CurvePoint, Proposal, Role, RunResult, Stop, View
from harness.turn import LLMTotals
from leaderboard import standings
from leaderboard.bundle import Bundle
from leaderboard.outcome import outcome
from leaderboard.published import Category, Collection, Published, Retrained, Tier
from leaderboard.verdict import judge

LOG = "".join(f"step {step:4d}  loss {7 - step / 200:.3f}  {91_000 + step:,} tokens/s\n" for step in range(0, 400, 10))
IDEAS = (
    "Raise the learning rate of the embeddings: the run is short and the loss still falls at the end",
    "Less weight decay, for there is less than one epoch",
    "A wider model at the same depth; the matrices are small enough that the device hardly notices",
    "Warm down over the last 70 % of the budget instead of 50 %",
    "Muon with momentum 0.9: fewer steps need a shorter memory",
    "Tie the head to the embedding and spend the parameters on a third layer",
)


@dataclass
class TalkingBench(simulated.SimulatedBench):
    """With logs and curves of the length that real runs of demo have."""

    def run(self, run_id: str, source: str, seed: int, split: str, role: Role) -> RunResult:
        result = super().run(run_id, source, seed, split, role)
        if result.bpb is None:
            return result
        rng = random.Random(seed)
        curve = tuple(
            CurvePoint(0.05 * n, 10 * n, 2.4 * result.bpb + 3 * 0.9**n + rng.gauss(0, 0.05), 2048 * n)
            for n in range(1, 240)
        )
        return replace(result, curve=curve, log_tail=LOG)


@dataclass
class Thinker(simulated.Rates):
    """Says why."""

    def propose(self, view: View) -> Proposal | Stop:
        made = super().propose(view)
        if isinstance(made, Stop):
            return made
        return replace(
            made, hypothesis=IDEAS[view.index % len(IDEAS)], note="The loss at the end decides, not its noise."
        )


@dataclass(frozen=True)
class Researcher:
    agent: str
    model: str | None
    category: Category
    gain_bpb: float  # of its best idea
    num_sessions: int
    tier: Tier
    cost_usd: float | None = None


RESEARCHERS = (
    Researcher("llm", "anthropic/claude-simulated", Category.LLM, 0.034, 5, Tier.REPRODUCED, 0.84),
    Researcher("tpe", None, Category.CONTROL, 0.021, 5, Tier.REPRODUCED),
    Researcher("random", None, Category.CONTROL, 0.019, 5, Tier.CONSISTENT),
    Researcher("noop", None, Category.CONTROL, 0.0, 5, Tier.CONSISTENT),
    Researcher("claude_code", None, Category.EXTERNAL, 0.03, 2, Tier.CONSISTENT, 2.1),
)


def one(
    folder: Path, who: Researcher, seed: int, change: Callable[[doctored.Lines], object] = lambda lines: None
) -> Published:
    """A published session of `who`; `change` may doctor its journal."""
    bench = TalkingBench({"0.5": -0.01, "0.6": who.gain_bpb, "0.7": who.gain_bpb / 2}, sigma=0.004)
    values = ("0.5", "0.6", "0.7", "0.45", "0.8", "0.9")
    name = f"tiny-{who.agent.replace('_', '-')}-s{seed}"
    simulated.run_session(
        folder / name,
        f"session.seed={seed}",
        "session.experiments=6",
        bench=bench,
        values=values,
        agent=Thinker(values),
    )

    def named(lines: doctored.Lines) -> None:
        config = doctored.data(lines, "session_open")["config"]
        config["agent"] = {**config["agent"], "name": who.agent}
        if who.model:
            config["llm"] = {**config["llm"], "name": "simulated", "model": who.model}
        change(lines)

    made = doctored.doctored(read(folder / name / "journal.jsonl")[0], named)
    return published(name, priced(made, who.cost_usd), who.category, who.tier)


def priced(bundle: Bundle, cost_usd: float | None) -> Bundle:
    """The bundle of a session whose model was asked and cost so much."""
    if cost_usd is None:
        return bundle
    totals = LLMTotals(
        num_calls=18, outcomes={"ok": 18}, prompt_tokens=214_000, completion_tokens=31_000, cost_usd=cost_usd
    )
    return replace(bundle, state=replace(bundle.state, llm=totals))


def published(name: str, bundle: Bundle, category: Category, tier: Tier) -> Published:
    found = outcome(bundle.records)
    claim = found.confirmed
    again = ()
    if tier is Tier.REPRODUCED and claim is not None and claim.mean_bpb is not None:
        values = [claim.mean_bpb + x for x in (0.001, -0.002, 0.0005)]
        again = (Retrained("a reproducer", found.device_label, found.device, 1_760_000_000.0, judge(claim, values, 0)),)
    return Published(
        name=name,
        bundle_sha256=bundle.sha256,
        bundle_bytes=431_104,
        url=None,
        submitted_by="somebody",
        link="https://example.org/somebody",
        submitted_on="2026-01-02",
        note="",
        bundle=bundle,
        outcome=found,
        category=category,
        device_class="cpu",
        tier=tier,
        contested=False,
        retrained=again,
    )


def collection(sessions: Sequence[Published]) -> Collection:
    listed = tuple(sorted(sessions, key=lambda item: item.name))
    return Collection(Path("entries"), listed, standings.boards(listed))


def board(folder: Path, researchers: Sequence[Researcher] = RESEARCHERS) -> Collection:
    return collection([one(folder, who, seed) for who in researchers for seed in range(who.num_sessions)])


def again(session: Published, label: str, seed: int, gain_bpb: float, **fields: object) -> Published:
    """`session` as another one: of the researcher `label`, with this gain; cheap, for nothing is run."""
    assert session.outcome is not None
    own = {key: value for key, value in fields.items() if hasattr(session.outcome, key)}
    found = replace(
        session.outcome,
        head=f"{label}-{seed}",
        researcher=label,
        label=label,
        is_tpe=label == "tpe",
        session_seed=seed,
        gain_bpb=gain_bpb,
        **own,  # type: ignore[arg-type]
    )
    others = {key: value for key, value in fields.items() if key not in own}
    # Who retrained it found what it claims.
    made = [replace(each, verdict=replace(each.verdict, mean_bpb=gain_bpb)) for each in session.retrained]
    others = {"retrained": tuple(made), **others}
    return replace(session, name=f"tiny-{label}-s{seed}", outcome=found, **others)  # type: ignore[arg-type]


SPREAD = (0.001, -0.001, 0.0005, -0.0005, 0.0)


def rows(session: Published, label: str, gain_bpb: float, num: int = 5, **fields: object) -> list[Published]:
    """The sessions of one row. Those of TPE err the other way round, so that differences from it have a spread."""
    errors = SPREAD[::-1] if label == "tpe" else SPREAD
    return [again(session, label, seed, gain_bpb + errors[seed], **fields) for seed in range(num)]


HTML = (
    "<script>window.owned = 1</script><img src=x onerror='window.owned = 1'></pre></details></td></table>"
    "<style>body { display: none }</style><base href='https://example.org/'>{{ 7 * 7 }}"
)
ATTRIBUTE = '"><img src=x onerror="window.owned = 1"><a href=\'javascript:owned=1\'>'
BIDI = "\u202eevil\u2066 \u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627 zero\u200bwidth \x1b[31mred"
LONG = "w" * 5000
COSTS = ("inf", "-inf", 1e300)


def hostile(lines: doctored.Lines) -> None:
    """Words of a researcher, its code and its device that want to be more than words, numbers that no session has."""
    words = (HTML, ATTRIBUTE, BIDI, LONG, HTML + LONG, ATTRIBUTE + BIDI)
    opened = doctored.data(lines, "session_open")
    opened["device"] = {**opened["device"], "cpu_model": HTML, ATTRIBUTE: {LONG: [BIDI, HTML]}, "nothing": None}
    opened["config"]["task"] = {**opened["config"]["task"], "name": ATTRIBUTE}
    opened["config"]["data"] = {**opened["config"]["data"], "name": HTML}
    opened["key"] = {**opened["key"], "task": ATTRIBUTE, "clock": HTML, "reference_tokens": LONG}
    number = 0
    for line in lines:
        if line["type"] == "proposal":
            line["data"]["hypothesis"] = line["data"]["note"] = words[number % len(words)]
            line["data"]["usage"] = {
                "prompt_tokens": 10**400, "completion_tokens": -1, "cost_usd": COSTS[number % 3], "seconds": 1e300,
            }  # fmt: skip
            number += 1
        elif line["type"] == "run_finished":
            line["data"]["result"]["log_tail"] = words[number % len(words)]
            line["data"]["result"]["reason"] = words[(number + 1) % len(words)]
            line["data"]["result"]["peak_memory_bytes"] = 10**400
            if line["data"]["run_id"] == "experiment-000":
                line["data"]["result"]["bpb"] = 1e300
