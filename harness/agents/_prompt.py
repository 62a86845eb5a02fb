"""What a model sees before an experiment: the same text for every model, within a stated budget of tokens.

Text that a model or its code wrote is cleaned, capped and shown on lines of its own that begin with a bar, so that it
can neither end its section nor start another.
"""

from __future__ import annotations

import bisect
import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from string import Template

from harness.device import PROCESSORS
from harness.edits import MAX_GROWTH_BYTES, unified_diff
from harness.errors import ConfigError
from harness.records import CurvePoint, Experiment, RunResult, Status, View
from harness.views import rows, text

FOLDER = Path(__file__).parent / "prompts"
MAX_LOG_CHARS = 6000
MAX_DIFF_LINES = 60
MAX_DIFF_LINE_CHARS = 160
MAX_ROW_CHARS = 240
CURVE_POINTS = 10
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
    facts = "\n".join(f"- {name}: {value}" for name, value in _facts(view))
    return "\n".join([view.program.strip() + "\n", template("session", facts=facts), answering])


def _facts(view: View) -> Iterator[tuple[str, str]]:
    task = view.task
    yield (
        "task",
        f"{task.get('name')}: vocabulary {task.get('vocab_size')}, windows of {task.get('sequence_length')} tokens",
    )
    if length := task.get("num_train_tokens"):
        yield "training text", f"{text.line(str(task.get('text')))}, {length:,} tokens"
    yield "device", rows.device_name(view.device)
    if view.budget_seconds is None:
        yield "budget", "a clock that counts calls of run.progress() instead of seconds"
    else:
        reference = f"the stock script sees {task.get('reference_tokens', 0):,} training tokens in it"
        yield "budget", f"{view.budget_seconds:.0f} seconds of training on this device; {reference}"
    yield "baseline", f"the stock script scores {view.baseline_bpb:.4f} bpb, mean of {len(view.baseline)} seeds"
    yield (
        "noise",
        f"sigma is {view.sigma_bpb:.4f} bpb from seed to seed: two runs of the same code differ by more than "
        f"{2 * math.sqrt(2) * view.sigma_bpb:.4f} bpb once in twenty times",
    )
    if view.baseline:
        yield "stock script", _figures(view.baseline[-1], view)
    if (seconds := task.get("max_setup_seconds")) and (size := task.get("max_memory_bytes")):
        host = f"{size / 2**30:.0f} GiB of {_memory_word(view)}"
        yield "limits", f"{seconds:.0f} seconds from the start to run.start(), {host}"
    limit = len(view.stock_source.encode()) + MAX_GROWTH_BYTES
    yield "size", f"train.py may have {limit:,} bytes; the stock file has {len(view.stock_source.encode()):,}"
    yield "experiments", str(view.num_experiments) if view.num_experiments else "as many as the hours hold"


def _memory_word(view: View) -> str:
    """What is measured, and limited by the task: an accelerator's own memory is its allocator's affair."""
    return "memory" if view.device.get("name") in PROCESSORS else "host memory"


def _figures(run: RunResult, view: View) -> str:
    parts = [
        f"{run.snapshot_bytes / 1e6:.2f} MB of saved weights" if run.snapshot_bytes else None,
        f"speed {speed(run, view)}" if speed(run, view) != "-" else None,
        f"{_memory_word(view)} {memory(run, view)}" if memory(run, view) != "-" else None,
    ]
    return ", ".join(part for part in parts if part) or "no figures"


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
        f"| # | hypothesis | val bpb | gain in sigma | end | kept | tokens/s | {_memory_word(view)} |",
        "|---|---|---|---|---|---|---|---|",
        f"| 0 | the stock script | {view.baseline_bpb:.4f} | - | ok | - | "
        + (f"{speed(view.baseline[-1], view)} | {memory(view.baseline[-1], view)} |" if view.baseline else "- | - |"),
    ]
    lines += [_row(item, view) for item in view.history[cut.rows :]]
    left_out = f"\n\nRows 1 to {cut.rows} are left out: the context is full." if cut.rows else ""
    explained = "Gain is over the best at that time, positive is better; where there was a second run, of that one."
    return "## History\n\n" + "\n".join(lines) + f"\n\n{explained}{left_out}"


def _row(item: Experiment, view: View) -> str:
    run = item.last_run
    hypothesis = text.line(item.hypothesis, MAX_ROW_CHARS).replace("|", "/") or "(none)"
    end = item.status.value if item.status else "-"
    if run and run.code == "no_proposal":
        end = "no proposal"
    kept = "yes" if item.kept else "no"
    figures = [speed(run, view), memory(run, view)] if run else ["-", "-"]
    cells = [
        str(item.index + 1),
        hypothesis,
        text.bpb(item.val_bpb),
        text.sigmas(item.delta_sigma),
        end,
        kept,
        *figures,
    ]
    return "| " + " | ".join(cells) + " |"


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
    last = view.history[-1] if view.history else None
    run = last.last_run if last else (view.baseline[-1] if view.baseline else None)
    if run is None or run.code in ("edit", "no_proposal"):
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
    """The training loss that the code reported, at a few places."""
    points = thinned(run.curve)
    if not points:
        return "It reported no training loss."
    shown = ", ".join(f"step {step(point)}: {point.loss:.4g}" for point in points)
    return f"Training loss in nats per token, as its code reported it: {shown}."


def step(point: CurvePoint) -> int:
    """The step as the code claims it: any integer, so within bounds here."""
    return min(max(point.step, 0), 10**12)


def thinned(points: tuple[CurvePoint, ...]) -> tuple[CurvePoint, ...]:
    """At most CURVE_POINTS of them, evenly spaced, the last among them."""
    every = max(1, math.ceil(len(points) / CURVE_POINTS))
    return points[::-1][::every][::-1]


def speed(run: RunResult, view: View) -> str:
    """Training tokens per second, as the code counts them. On a clock of steps there is no speed."""
    seen = run.curve[-1].tokens if run.curve else None
    if view.budget_seconds is None or not seen or not run.curve[-1].seconds or not 0 < seen < 1e15:
        return "-"
    return f"{seen / run.curve[-1].seconds:,.0f}"


def memory(run: RunResult, view: View) -> str:
    if view.budget_seconds is None or run.peak_memory_bytes is None:
        return "-"
    return f"{run.peak_memory_bytes / 1e6:,.0f} MB"
