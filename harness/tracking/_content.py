"""What a tracker is told about a session: pure functions of the journal, so that a rebuilt mirror is the same one.

Texts come from researchers and their code, numbers from what the code claims: both are cleaned and capped here, on
their way out. Unknown is left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any
from urllib.parse import urlsplit

from harness.codec import to_json
from harness.journal import Record, canonical
from harness.records import ActiveRun, Experiment, Role, RunResult, SessionState, Usage
from harness.views import rows, summary, text

Row = dict[str, float | int | str]

# The metric that each family of metrics is drawn against.
AXES = {
    "train/*": "train/tokens",
    "baseline/*": "baseline/number",
    "experiment/*": "experiment/number",
    "confirm/*": "confirm/pair",
}
COLUMNS = (
    *("number", "hypothesis", "status", "verdict", "val_bpb", "delta_sigma", "first_run_bpb", "train_seconds"),
    *("peak_memory_bytes", "prompt_tokens", "completion_tokens", "cost_usd", "reason", "note", "log", "commit"),
)
MAX_LOG_CHARS = 1000
MAX_CURVE_POINTS = 200
MAX_TAG_CHARS = 64  # W&B refuses a run with a longer one
_MAX_TEXT_CHARS = 300
_MAX_ITEMS, _MAX_DEPTH = 200, 6
_MAX_NUMBER = 2**53  # JSON readers elsewhere keep integers exact up to here


def run_id(first: Record) -> str:
    """The same for the same session, wherever and however often it is mirrored."""
    return first.hash[:16]


def opening(state: SessionState, name: str) -> dict[str, Any]:
    """name, group, job_type, tags and config of the session. `name` is used where the journal has none."""
    names = rows.names(state)
    session = state.config.get("session")
    named = session.get("name") if isinstance(session, dict) else None
    study = {"key": state.opened.get("key"), "agent": state.config.get("agent"), "llm": state.config.get("llm")}
    digest = hashlib.sha256(canonical(study)).hexdigest()[:8]
    labels = [names["task"], names["agent"], *([llm] if (llm := _llm(state)) else [])]
    return {
        "name": text.line(str(named or name), 100),
        "group": text.line(f"{' '.join(labels)} {digest}", 100),
        "job_type": names["agent"],
        "tags": [text.line(label, MAX_TAG_CHARS) for label in dict.fromkeys(labels) if label != "-"],
        "config": config(state),
    }


def config(state: SessionState) -> dict[str, Any]:
    """What the session was made of, and the facts of the system it ran on."""
    opened = state.opened
    data = opened.get("data")
    facts = {
        **{name: state.config.get(name) for name in ("task", "backend")},
        "agent": _without_options(state.config.get("agent")),
        "llm": _without_secrets(state.config.get("llm")),
        "session": _without_folders(state.config.get("session")),
        "key": opened.get("key"),
        "data": {**_mapping(state.config.get("data")), **_hashes(data), "options": _without_folders(_options(state))},
        "researcher": _without_values(opened.get("researcher")),
        "device": opened.get("device"),
        "versions": opened.get("versions"),
        "calibration": to_json(state.calibration),
    }
    cleaned: dict[str, Any] = clean({name: value for name, value in facts.items() if value is not None})
    return cleaned


def _without_secrets(llm: Any) -> dict[str, Any]:
    """What is sent to a model as it is may hold a key, and an address a password: names and the host are enough."""
    known = dict(_mapping(llm))
    if _mapping(known.get("extra")):
        known["extra"] = sorted(map(str, known["extra"]))
    if known.get("api_base"):
        known["api_base"] = urlsplit(str(known["api_base"])).hostname
    return known


def _without_options(agent: Any) -> Any:
    known = _mapping(agent)
    return {**known, "options": _without_values(known["options"])} if "options" in known else agent


def _without_values(options: Any) -> Any:
    """A coding agent's command line and variables may hold keys and paths: of these only the names."""
    if not isinstance(options, dict):
        return options
    hidden: dict[str, Any] = {}
    for name, value in options.items():
        if name in ("session", "patches") and value is not None:
            hidden[name] = PurePath(str(value)).name
        elif name in ("argv", "arguments", "environment") and isinstance(value, list):
            parts = [str(part) for part in value]
            program = [PurePath(part).name for part in parts[:1] if name == "argv"]
            hidden[name] = program + [_name(part, name) for part in parts[len(program) :] if _name(part, name)]
    return {**options, **hidden}


def _name(part: str, of: str) -> str:
    """The name of a variable or of an option; nothing of an option's value, by itself or glued to it."""
    if of == "environment" or part.startswith("--"):
        return part.partition("=")[0]
    return part[:2] if part.startswith("-") else ""


def _without_folders(values: Any) -> dict[str, Any]:
    """Where things lie on the machine is nobody's business: a folder's own name is enough."""
    hidden = {name: PurePath(str(value)).name for name, value in _mapping(values).items() if name in ("root", "path")}
    return {**_mapping(values), **hidden}


def _options(state: SessionState) -> Any:
    return _mapping(state.config.get("data")).get("options")


def history(before: SessionState, state: SessionState, record: Record) -> Iterator[Row]:
    """The rows that `record`, which led from `before` to `state`, adds to the history."""
    match record.type:
        case "run_finished" if before.active:
            run = before.active
            result = rows.finished_run(state, run)
            yield from _curve(run, result)
            if run.role is Role.BASELINE:
                yield _row("baseline", number=run.index + 1, val_bpb=result.bpb, **_costs(result))
            if len(state.confirm_baseline) == len(state.confirm_candidate) > run.index and run.split == "test":
                yield _pair(state, run.index)
        case "baseline":
            bpb = state.baseline_bpb
            yield _row("experiment", number=0, val_bpb=bpb, incumbent_bpb=bpb, status="baseline")
        case "decision":
            yield _decision(state, state.experiments[record.data["index"]])


def final(state: SessionState) -> dict[str, Any]:
    """The summary: status, verdict, confirmed gain with its interval, counts and costs."""
    figures = summary.summary(state)
    best, gain = figures["best"] or {}, state.gain
    whole = {
        "status": rows.phase(state) if state.closed else f"unfinished: {rows.phase(state)}",
        "verdict": figures["verdict"],
        "gain_bpb": gain and gain.mean_bpb,
        "gain_low_bpb": gain and gain.low_bpb,
        "gain_high_bpb": gain and gain.high_bpb,
        "gain_pairs": gain and gain.num_pairs,
        "baseline_bpb": state.baseline_bpb,
        "sigma_bpb": state.sigma_bpb,
        "best_val_bpb": best.get("val_bpb"),
        "best_experiment": best.get("experiment"),
        "experiments_done": figures["experiments"]["done"],
        "experiments_kept": figures["experiments"]["kept"],
        "by_status": figures["experiments"]["by_status"],
        "researcher": {name: value for name, value in figures["researcher"].items() if value is not None},
        "working_hours": state.working_seconds / 3600,
        "num_runs": figures["num_runs"],
        "num_restarts": state.num_restarts,
        "incidents": figures["incidents"],
        "stopped_early": figures["stopped_early"],
        "ranked": figures["ranked"],
        "unranked": figures["unranked"],
    }
    cleaned: dict[str, Any] = clean({name: value for name, value in whole.items() if value is not None})
    return cleaned


def table(state: SessionState) -> list[list[Any]]:
    """The history table, one list per experiment in the order of COLUMNS; first the baseline as number 0."""
    base = {"number": 0, "hypothesis": "unmodified train.py", "status": "baseline", "val_bpb": state.baseline_bpb}
    lines = [base] if state.baseline_bpb is not None else []
    lines += [_line(item) for item in state.experiments if item.kept is not None]
    return [[line.get(column) for column in COLUMNS] for line in lines]


def clean(value: Any, depth: int = 0) -> Any:
    """`value` as plain JSON with clean, capped texts; what is too deep or no number becomes None."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return number(value)
    if not isinstance(value, Mapping | list | tuple):
        return text.line(str(value), _MAX_TEXT_CHARS)
    if depth == _MAX_DEPTH:
        return None
    if isinstance(value, Mapping):
        items = list(value.items())[:_MAX_ITEMS]
        return {text.line(str(key), 100): clean(item, depth + 1) for key, item in items}
    return [clean(item, depth + 1) for item in value[:_MAX_ITEMS]]


def number(value: float | int | None) -> float | int | None:
    """`value` where it is a number that survives JSON, else None."""
    return value if value is not None and -_MAX_NUMBER <= value <= _MAX_NUMBER else None


def _curve(run: ActiveRun, result: RunResult) -> Iterator[Row]:
    """The training curve: loss (nats a token, as the code claims) against tokens (claimed) and the runner's seconds."""
    for point in result.curve[:MAX_CURVE_POINTS]:
        loss = {f"{run.role}-{run.index:03d}": point.loss}
        yield _row("train", tokens=point.tokens, seconds=point.seconds, step=point.step, **loss)


def _decision(state: SessionState, experiment: Experiment) -> Row:
    last = experiment.last_run
    usage = experiment.usage or Usage()
    kept = [item for item in state.experiments[: experiment.index + 1] if item.kept]
    return _row(
        "experiment",
        number=experiment.index + 1,
        status=experiment.status.value if experiment.status else None,
        kept=int(bool(experiment.kept)),
        val_bpb=experiment.val_bpb,
        delta_sigma=experiment.delta_sigma,
        incumbent_bpb=kept[-1].val_bpb if kept else state.baseline_bpb,
        working_hours=state.working_seconds / 3600,
        cost_usd=usage.cost_usd,
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        **(_costs(last) if last else {}),
    )


def _pair(state: SessionState, index: int) -> Row:
    base, candidate = state.confirm_baseline[index].bpb, state.confirm_candidate[index].bpb
    gain = None if base is None or candidate is None else base - candidate
    return _row("confirm", pair=index + 1, baseline_bpb=base, candidate_bpb=candidate, gain_bpb=gain)


def _costs(result: RunResult) -> dict[str, float | int | None]:
    return {
        "setup_seconds": result.setup_seconds,
        "train_seconds": result.train_seconds,
        "eval_seconds": result.eval_seconds,
        "wall_seconds": result.wall_seconds,
        "peak_memory_bytes": result.peak_memory_bytes,
    }


def _row(family: str, **values: float | int | str | None) -> Row:
    known = {name: value if isinstance(value, str) else number(value) for name, value in values.items()}
    return {f"{family}/{name}": value for name, value in known.items() if value is not None}


def _line(experiment: Experiment) -> dict[str, Any]:
    last, usage = experiment.last_run, experiment.usage or Usage()
    shown = {
        "number": experiment.index + 1,
        "hypothesis": experiment.hypothesis,
        "status": experiment.status.value if experiment.status else None,
        "verdict": "kept" if experiment.kept else "discarded",
        "val_bpb": experiment.val_bpb,
        "delta_sigma": experiment.delta_sigma,
        "first_run_bpb": experiment.run.bpb if experiment.run else None,
        "train_seconds": last.train_seconds if last else None,
        "peak_memory_bytes": last.peak_memory_bytes if last else None,
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "cost_usd": usage.cost_usd,
        "reason": experiment.reason,
        "note": experiment.note,
        "commit": experiment.commit,
    }
    return {**clean(shown), "log": text.tail(last.log_tail, MAX_LOG_CHARS) if last else None}


def _llm(state: SessionState) -> str | None:
    name = _mapping(state.config.get("llm")).get("name")
    return None if name in (None, "none") else text.line(str(name), 40)


def _hashes(data: Any) -> dict[str, Any]:
    return {name: value for name, value in _mapping(data).items() if name.endswith("_sha256")}


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
