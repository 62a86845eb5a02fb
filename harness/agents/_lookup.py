"""The read-only tools: what a researcher may look up. All of it comes from the view, and is quoted as the prompt is."""

from __future__ import annotations

from harness.agents import _prompt
from harness.agents._answer import COMPARE, Move
from harness.errors import EditRefused
from harness.records import CurvePoint, RunResult, Smoke, View
from harness.views import text

MAX_CHANGE_LINES = 400
_PLACES = 10


def answer(move: Move, view: View) -> str:
    """What a lookup shows. Raises EditRefused when there is no such run."""
    return _compare(move.runs[0], move.runs[1], view) if move.action == COMPARE else _read(move.runs[0], view)


def _read(name: str, view: View) -> str:
    if name == "baseline":
        run = view.baseline[-1] if view.baseline else None
        return "\n\n".join(["The baseline is the stock script, changed in nothing.", *_run_itself(run)])
    item = view.history[_index(name, view)]
    run = item.last_run
    parts = [
        f"Experiment {item.index + 1}, {'kept' if item.kept else 'not kept'}, {text.bpb(item.val_bpb)} val bpb "
        f"({text.sigmas(item.delta_sigma)} sigma).\n{_prompt.quoted(text.block(item.hypothesis, 2000))}",
        f"It failed: {text.line(item.reason)}" if item.reason else "",
        f"Its change against the best before it:\n{_prompt.change(item, view, MAX_CHANGE_LINES)}",
        *_run_itself(run),
    ]
    return "\n\n".join(part for part in parts if part)


def _run_itself(run: RunResult | None) -> list[str]:
    """Its curve and its log."""
    if run is None:
        return []
    log = text.tail(run.log_tail, _prompt.MAX_LOG_CHARS).strip("\n")
    return [_prompt.curve(run), *([f"Its log:\n{_prompt.quoted(log)}"] if log else [])]


def _compare(first: str, second: str, view: View) -> str:
    left, right = _run(first, view), _run(second, view)
    end = max(_last(left, view), _last(right, view))
    unit = "step" if view.budget_seconds is None else "seconds"
    lines = [f"| {unit} | {first} | {second} |", "|---|---|---|"]
    for place in range(1, _PLACES + 1):
        at = end * place / _PLACES
        lines.append(f"| {at:.0f} | {_loss(left, at, view)} | {_loss(right, at, view)} |")
    return "Training loss in nats per token, as the code of each reported it:\n\n" + "\n".join(lines)


def _run(name: str, view: View) -> RunResult:
    if name == "baseline":
        run = view.baseline[-1] if view.baseline else None
    else:
        item = view.history[_index(name, view)]
        run = item.last_run
    if run is None or not run.curve:
        raise EditRefused(f"run {name} has no training curve: compare others")
    return run


def _index(name: str, view: View) -> int:
    index = int(name) - 1
    if not 0 <= index < len(view.history):
        past = f"1 to {len(view.history)}" if view.history else "none yet"
        raise EditRefused(f"there is no experiment {name} to look at; past experiments: {past}")
    return index


def _place(point: CurvePoint, view: View) -> float:
    return float(_prompt.step(point)) if view.budget_seconds is None else point.seconds


def _last(run: RunResult, view: View) -> float:
    return _place(run.curve[-1], view)


def _loss(run: RunResult, at: float, view: View) -> str:
    """The mean of the losses reported in the tenth of the run that ends at `at`."""
    end = _last(run, view)
    width = max(end / _PLACES, 1e-9)
    near = [point for point in run.curve if at - width < _place(point, view) <= at + 1e-9]
    return f"{_prompt.mean_loss(near):.4g}" if near else "-"


def smoke(result: Smoke) -> str:
    """What a smoke run tells. Its log is untrusted."""
    memory, speed = result.peak_memory_bytes, result.tokens_per_second
    facts = [
        None if result.num_parameters is None else f"{result.num_parameters:,} parameters",
        None if result.setup_seconds is None else f"{result.setup_seconds:.1f} s of setup",
        None if result.num_steps is None else f"{result.num_steps:,} steps",
        None if speed is None else f"{speed:,.0f} tokens/s as the code counts them",
        None if memory is None else f"{memory / 1e6:,.0f} MB of host memory",
    ]
    known = ", ".join(fact for fact in facts if fact)
    ended = "It ran." if result.reason is None else f"It ended as {result.status}: {text.line(result.reason)}"
    log = text.tail(result.log_tail, _prompt.MAX_LOG_CHARS // 2).strip("\n")
    return f"{ended} {known or 'No figures'}." + (f"\n\nIts log:\n{_prompt.quoted(log)}" if log else "")
