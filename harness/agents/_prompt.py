"""What a model sees before an experiment: the same text for every model, within a stated budget of tokens.

Text that a model or its code wrote is cleaned, capped and shown on lines of its own that begin with a bar, so that it
can neither end its section nor start another.
"""

from __future__ import annotations

import bisect
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

from harness.agents import _facts
from harness.edits import unified_diff
from harness.errors import ConfigError
from harness.records import CurvePoint, Experiment, RunResult, Status, View
from harness.views import text

FOLDER = Path(__file__).parent / "prompts"
MAX_LOG_CHARS = 6000
MAX_DIFF_LINES = 60
MAX_DIFF_LINE_CHARS = 160
MAX_ROW_CHARS = 240
CURVE_POINTS = 10
_NOTHING_RAN = {"edit": "refused", "no_proposal": "no proposal"}  # by code: how it ended
_BYTES_PER_TOKEN = 3  # code has about 3.5 in the tokenizers of today: counted so, a prompt is never too long


def num_tokens(*texts: str) -> int:
    """An upper estimate that needs no model's tokenizer, so that every model is given the same text."""
    return math.ceil(sum(len(item.encode("utf-8", "replace")) for item in texts) / _BYTES_PER_TOKEN)


def template(name: str, **values: str) -> str:
    return Template((FOLDER / f"{name}.md").read_text(encoding="utf-8")).substitute(values).strip() + "\n"


def sha256(folder: Path = FOLDER) -> str:
    """The hash of all that a scaffold says by itself."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.md")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def quoted(body: str) -> str:
    """Untrusted text, as lines that begin with a bar."""
    return "\n".join(f"| {line}".rstrip() for line in body.strip("\n").split("\n"))


def system(view: View, answering: str) -> str:
    """What stays the same for the whole session: the instructions, the facts, the form of an answer."""
    facts = "\n".join(f"- {name}: {value}" for name, value in _facts.facts(view))
    windows = str(view.task.get("eval_batch_size", "some"))
    session = template("session", facts=facts, eval_batch_size=windows)
    return "\n".join([view.program.strip() + "\n", session, answering])


@dataclass(frozen=True)
class Cut:
    """How many of the oldest experiments are shown without their change, and how many not at all."""

    changes: int = 0
    rows: int = 0
    log_chars: int = MAX_LOG_CHARS


def experiment(view: View, budget_tokens: int) -> str:
    """The state of the research, within `budget_tokens`: old changes go first, then old rows, then the log.

    Raises:
        ConfigError: not even the current best fits.
    """
    num = len(view.history)
    cuts = [Cut(changes=count) for count in range(num + 1)]
    cuts += [Cut(num, count) for count in range(1, num + 1)] + [Cut(num, num, chars) for chars in (1500, 300)]
    # Each cut is shorter than the one before it, and rendering is slow where there are many changes to compare.
    first = bisect.bisect_left(cuts, True, key=lambda cut: num_tokens(_render(view, cut)) <= budget_tokens)
    body = _render(view, cuts[min(first, len(cuts) - 1)])
    if num_tokens(body) <= budget_tokens:
        return body
    raise ConfigError(
        f"the prompt needs about {num_tokens(body)} tokens besides instructions and answer, and there is room for "
        f"{max(0, budget_tokens)}: choose a model with a longer context, or raise agent.options.context_tokens"
    )


def _render(view: View, cut: Cut) -> str:
    of = f" of {view.num_experiments}" if view.num_experiments else ""
    hours = "" if view.hours_left is None else f" {view.hours_left:.1f} hours are left for experiments."
    parts = [
        f"# Experiment {view.index + 1}{of}\n\nAll that follows is the state of your research.{hours}",
        _current_best(view),
        _history(view, cut),
        _changes(view, cut),
        _notes(view, cut),
        _last_run(view, cut),
        "Now propose the next experiment.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _current_best(view: View) -> str:
    kept = next((item for item in reversed(view.history) if item.kept), None)
    origin = "the stock script" if kept is None else f"experiment {kept.index + 1}"
    # Its own hash cannot occur in the file, so nothing in the file can end the section.
    mark = hashlib.sha256(view.incumbent_source.encode()).hexdigest()[:12]
    return (
        f"## The current best train.py\n\n{view.incumbent_bpb:.4f} bpb, from {origin}.\n\n"
        f"<file {mark}>\n{view.incumbent_source.rstrip()}\n</file {mark}>"
    )


def _history(view: View, cut: Cut) -> str:
    lines = [
        f"| # | hypothesis | val bpb | gain in sigma | end | kept | tokens/s | {_facts.memory_word(view)} |",
        "|---|---|---|---|---|---|---|---|",
        f"| 0 | the stock script | {view.baseline_bpb:.4f} | - | ok | - | "
        + (
            f"{_facts.speed(view.baseline[-1], view)} | {_facts.memory(view.baseline[-1], view)} |"
            if view.baseline
            else "- | - |"
        ),
    ]
    lines += [_row(item, view) for item in view.history[cut.rows :]]
    left_out = f"\n\nRows 1 to {cut.rows} are left out: the context is full." if cut.rows else ""
    explained = (
        "Gain is over the best at that time, positive is better. Two scores are those of a first run that beat the "
        "best and of its repetition, which counts."
    )
    return "## History\n\n" + "\n".join(lines) + f"\n\n{explained}{left_out}"


def _row(item: Experiment, view: View) -> str:
    run = item.last_run
    hypothesis = text.line(item.hypothesis, MAX_ROW_CHARS).replace("|", "/") or "(none)"
    end = item.status.value if item.status else "-"
    if run and run.code in _NOTHING_RAN:
        end = _NOTHING_RAN[run.code]
    kept = "yes" if item.kept else "no"
    figures = [_facts.speed(run, view), _facts.memory(run, view)] if run else ["-", "-"]
    cells = [
        str(item.index + 1),
        hypothesis,
        _scores(item),
        text.sigmas(item.delta_sigma),
        end,
        kept,
        *figures,
    ]
    return "| " + " | ".join(cells) + " |"


def _scores(item: Experiment) -> str:
    """What was measured: also the first run's, where a repetition decided."""
    if item.run is None or item.rerun is None:
        return text.bpb(item.val_bpb)
    return f"{text.bpb(item.run.bpb)}, {text.bpb(item.rerun.bpb)}"


def _changes(view: View, cut: Cut) -> str:
    if not view.history:
        return ""
    parts = []
    for item in view.history[cut.changes :]:
        reason = f"\nIt failed: {text.line(item.reason or '')}" if item.reason else ""
        parts.append(f"Experiment {item.index + 1}:{reason}\n{change(item, view)}")
    if cut.changes:
        parts.insert(0, f"The changes of experiments 1 to {cut.changes} are left out: the context is full.")
    return "## What was changed\n\nEach against the best at that time.\n\n" + "\n\n".join(parts)


def change(item: Experiment, view: View, max_lines: int = MAX_DIFF_LINES) -> str:
    """The diff of an experiment against the best before it, quoted."""
    if item.source is None:
        return "| (nothing ran)"
    before = incumbent_before(view, item.index)
    lines = unified_diff(before, item.source).split("\n")[2:-1]
    if not lines:
        return "| (no change)"
    shown = [text.block(line, MAX_DIFF_LINE_CHARS).split("\n")[0] for line in lines[:max_lines]]
    if len(lines) > max_lines:
        shown.append(f"({len(lines) - max_lines} more lines)")
    return quoted("\n".join(shown))


def incumbent_before(view: View, index: int) -> str:
    """The best script before experiment `index`."""
    kept = (item.source for item in reversed(view.history[:index]) if item.kept and item.source)
    return next(kept, view.stock_source)


def _notes(view: View, cut: Cut) -> str:
    notes = [item for item in view.history[cut.rows :] if item.note]
    if not notes:
        return ""
    parts = [f"With experiment {item.index + 1}:\n{quoted(text.block(item.note or '', 4000))}" for item in notes]
    return "## Your notes\n\n" + "\n\n".join(parts)


def _last_run(view: View, cut: Cut) -> str:
    ran = (item for item in reversed(view.history) if item.last_run and item.last_run.code not in _NOTHING_RAN)
    last = next(ran, None)
    run = last.last_run if last else (view.baseline[-1] if view.baseline else None)
    if run is None:
        return ""
    whose = f"experiment {last.index + 1}" if last else "the stock script"
    ended = "ended well" if run.status is Status.OK else f"ended as {run.status}: {text.line(run.reason or '')}"
    log = text.tail(run.log_tail, cut.log_chars).strip("\n")
    shown = quoted(log) if log else "| (it printed nothing)"
    return f"## The last run\n\nThat of {whose}; it {ended}.{charged(run, view)}\n\n{curve(run)}\n\nIts log:\n\n{shown}"


def charged(run: RunResult, view: View) -> str:
    """What of its setup was not free."""
    if run.budget_seconds is None or view.budget_seconds is None:
        return ""
    seconds = view.budget_seconds - run.budget_seconds
    return f" Its setup was not all free: {seconds:.1f} seconds were taken off its budget." if seconds >= 0.05 else ""


def curve(run: RunResult) -> str:
    """The training loss that the code reported, on the way to a few places."""
    parts = tenths(run.curve)
    if not parts:
        return "It reported no training loss."
    shown = ", ".join(f"step {step(part[-1])}: {mean_loss(part):.4g}" for part in parts)
    return f"Training loss in nats per token, as its code reported it, in the mean since the step before: {shown}."


def step(point: CurvePoint) -> int:
    """The step as the code claims it: any integer, so within bounds here."""
    return min(max(point.step, 0), 10**12)


def tenths(points: tuple[CurvePoint, ...]) -> list[tuple[CurvePoint, ...]]:
    """At most CURVE_POINTS parts of the curve, of as many points each; the first may be shorter."""
    size = max(1, math.ceil(len(points) / CURVE_POINTS))
    first = len(points) % size
    rest = (points[at : at + size] for at in range(first, len(points), size))
    return [part for part in (points[:first], *rest) if part]


def mean_loss(points: Sequence[CurvePoint]) -> float:
    """Of at least one point. Code may have reported anything: of the infinite and the huge no mean is refused."""
    return sum(point.loss for point in points) / len(points)
