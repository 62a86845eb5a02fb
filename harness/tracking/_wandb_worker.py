"""The process that mirrors a journal into W&B: `python -m harness.tracking._wandb_worker SESSION_DIR SECONDS [BUNDLE]`.

It reads the journal from its start, so every start rebuilds the whole run: W&B replaces a run that is opened again
under its id. It follows the journal until its standard input ends, then has SECONDS to finish. It takes only processor
time that nobody else wants: a session's experiments are timed on the same machine.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

from harness.fold import apply
from harness.journal import Record
from harness.records import SessionState
from harness.tracking import _content as content
from harness.tracking.wandb import LINGER_SECONDS, MODES

POLL_SECONDS = 2.0
START_SECONDS = 300.0  # for W&B's own process and for its server: little processor time may be left for them
LOCK_SECONDS = LINGER_SECONDS + 20.0  # the mirror of a killed session may take that long to end
RETRY_SECONDS = 60.0  # of a server that cannot be reached
TABLE_SECONDS = 600.0  # between two history tables: W&B keeps every one of them whole
STDIN = 0


class Journal:
    """The records of a journal as they come. Whole lines only; the harness has checked the chain."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def read(self) -> list[Record]:
        """The records that came since the last call."""
        if self._path.stat().st_size == self._offset:
            return []
        with self._path.open("rb") as file:
            file.seek(self._offset)
            lines, newline, _ = file.read().rpartition(b"\n")
        self._offset += len(lines) + len(newline)
        fields = [json.loads(line) for line in lines.splitlines() if line]
        return [Record(item["seq"], item["time"], item["type"], item["data"], item["hash"]) for item in fields]


class Run:
    """A session as a W&B run."""

    def __init__(self, session_dir: Path, state: SessionState, first: Record) -> None:
        import wandb

        self._wandb = wandb
        self._dir = session_dir
        opening = content.opening(state, session_dir.name)
        self._run: Any = wandb.init(
            id=content.run_id(first),
            dir=str(session_dir),
            mode="online" if os.environ["WANDB_MODE"] == "online" else "offline",
            project=os.environ["WANDB_PROJECT"],
            entity=os.environ.get("WANDB_ENTITY"),
            settings=self._settings(content.config(state)),
            **opening,
        )
        self._config: dict[str, Any] = opening["config"]
        self._num_rows = 0
        self._last_time = first.time
        self._tabled_at = -TABLE_SECONDS
        self._table_is_old = False
        for family, axis in content.AXES.items():
            self._run.define_metric(axis, summary="none")
            self._run.define_metric(family, step_metric=axis, summary="none")

    def _settings(self, config: dict[str, Any]) -> Any:
        """Nothing about the machine that mirrors: the journal knows the machine that trained."""
        return self._wandb.Settings(
            host=str(config.get("device", {}).get("name", "")),
            console="off",
            silent=True,
            disable_git=True,
            disable_code=True,
            save_code=False,
            init_timeout=START_SECONDS,
            finish_timeout=float(sys.argv[2]),
            finish_timeout_raises=True,
            x_service_wait=START_SECONDS,
            x_disable_meta=True,
            x_disable_stats=True,
            x_disable_machine_info=True,
            x_save_requirements=False,
            sagemaker_disable=True,  # it would take our id and group for its own
        )

    def log(self, row: content.Row, time: float) -> None:
        """One row of the history, from UTC `time`: the session's, however late it is mirrored."""
        self._run.log({**row, "_timestamp": time}, step=self._num_rows)
        self._num_rows += 1
        self._last_time = time

    def update(self, state: SessionState, *, decided: bool) -> None:
        """Bring up to date what there is only one of: config, history table, summary."""
        config = content.config(state)
        if config != self._config:
            self._config = config
            self._run.config.update(config, allow_val_change=True)
        self._table_is_old |= decided
        if self._table_is_old and time.monotonic() - self._tabled_at >= TABLE_SECONDS:
            self._log_table(state)
        self._run.summary.update(content.final(state))

    def _log_table(self, state: SessionState) -> None:
        """Beside the last row, not as one of its own: however often it was logged, the steps are the journal's."""
        table = self._wandb.Table(columns=list(content.COLUMNS), data=content.table(state), allow_mixed_types=True)
        step = max(0, self._num_rows - 1)
        self._run.log({"history_table": table, "_timestamp": self._last_time}, step=step)
        self._tabled_at, self._table_is_old = time.monotonic(), False

    def finish(self, state: SessionState, bundle: Path | None) -> str:
        """Send what is left; returns where the run is. Raises what W&B raises, or TimeoutError."""
        if self._table_is_old:
            self._log_table(state)
        if bundle is not None:
            artifact = self._wandb.Artifact(f"bundle-{self._run.id}", type="bundle")
            artifact.add_file(str(bundle), name=bundle.name, policy="immutable")
            self._run.log_artifact(artifact)
        settings = self._run.settings
        folder = Path(settings.sync_dir)
        where = self._run.url or f"{folder} (upload it with `wandb sync {folder}`)"
        # The state in W&B: finished, or failed for a session that was stopped; resumed, it is the same run again.
        self._run.finish(exit_code=0 if state.closed else 1)
        check_log(Path(settings.log_internal))
        if settings.mode == "offline":
            check_file(Path(settings.sync_file), self._num_rows)
        self._remove_earlier(folder)
        return f"wandb: {self._num_rows} rows, {len(state.experiments)} experiments: {where}"

    def _remove_earlier(self, folder: Path) -> None:
        """What this run replaces: earlier mirrors of the same session."""
        for earlier in folder.parent.glob(f"*run-*-{self._run.id}"):
            if earlier.is_dir() and not earlier.is_symlink() and earlier.name != folder.name:
                shutil.rmtree(earlier)


def check_file(file: Path, num_rows: int) -> None:
    """`finish` ends well also when the disk is full: read the file back with W&B's own tool. Raises OSError."""
    command = [sys.executable, "-I", "-m", "wandb", "leet", "inspect", "--summary", "--json", str(file)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    found = json.loads(done.stdout) if done.returncode == 0 else {}
    if found.get("exit_code") is None or found.get("step") != num_rows - 1:
        raise OSError(f"{file} is incomplete: is the disk full?")


def check_log(log: Path) -> None:
    """`finish` ends well also when the server refused the figures; W&B's process only logs it. Raises OSError."""
    for line in log.read_text(errors="replace").splitlines():
        with suppress(ValueError):
            entry = json.loads(line)
            if str(entry.get("level", "")).startswith("ERROR+"):  # worse than an error that it tries again
                raise OSError(str(entry.get("msg", line)))


def follow(session_dir: Path, seconds: int, bundle: Path | None) -> str:
    """Mirror until standard input ends, then finish; returns where the mirror is."""
    journal = Journal(session_dir / "journal.jsonl")
    state, run, first = SessionState(), None, None
    untold: list[Record] = []
    rows: list[tuple[content.Row, float]] = []  # of these
    over, wait, tried_at = False, 0.0, -RETRY_SECONDS
    while not over:
        # The end is looked for before the records: none can come after it.
        over, wait = bool(select.select([STDIN], [], [], wait)[0]), POLL_SECONDS
        if over:
            signal.alarm(seconds)
        for record in journal.read():
            before, state = state, apply(state, record)
            first = first or record
            untold.append(record)
            rows += [(row, record.time) for row in content.history(before, state, record)]
        if first is None or not untold:
            continue
        if run is None and (over or time.monotonic() - tried_at >= RETRY_SECONDS):
            tried_at = time.monotonic()
            run = reached(session_dir, state, first, last_try=over)
        if run is None:
            continue
        for row, when in rows:
            run.log(row, when)
        run.update(state, decided=any(record.type == "decision" for record in untold))
        rows.clear()
        untold.clear()
    return run.finish(state, bundle) if run else "wandb: the session never opened, there was nothing to mirror"


def reached(session_dir: Path, state: SessionState, first: Record, *, last_try: bool) -> Run | None:
    """The run; None where the network fails and there is time for another try. Raises what W&B raises."""
    import wandb

    try:
        return Run(session_dir, state, first)
    except wandb.errors.AuthenticationError:
        raise
    except wandb.errors.CommError as error:
        if "deleted" in str(error):
            raise OSError(f"{error}: undelete the run in W&B, or set another WANDB_PROJECT") from error
        if last_try:
            raise
        traceback.print_exc()
        return None


def main() -> None:
    session_dir, seconds = Path(sys.argv[1]), int(sys.argv[2])
    bundle = Path(sys.argv[3]) if len(sys.argv) > 3 else None
    report = _own_report()
    sys.excepthook = lambda kind, error, trace: _give_up(report, kind, error, trace)
    signal.signal(signal.SIGALRM, _too_late)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # "stop run" on W&B's page; the session's end is the end here
    if os.environ["WANDB_MODE"] == "disabled":
        return _say(report, "done", "wandb: WANDB_MODE=disabled, nothing was mirrored")
    if os.environ["WANDB_MODE"] not in MODES:
        raise ValueError(f"WANDB_MODE={os.environ['WANDB_MODE']}: expected {', '.join(MODES)}")
    _yield_the_processor()
    with _alone(session_dir / "wandb" / "mirror.lock"):
        where = follow(session_dir, seconds, bundle)
    _say(report, "done", where)


def _own_report() -> int:
    """The pipe to the harness as a descriptor that no child inherits; what prints goes to the log instead."""
    report = os.dup(1)
    os.dup2(2, 1)
    return report


def _say(report: int, kind: str, words: str) -> None:
    try:
        os.write(report, json.dumps({kind: words}).encode() + b"\n")
    except BrokenPipeError:
        print(f"{kind}: {words}", file=sys.stderr)  # the harness has gone; the log remains


def _give_up(report: int, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> NoReturn:
    """The end of this process after any exception: W&B's exit handlers could wait for a network for ever."""
    traceback.print_exception(kind, error, trace)
    first_line = next(iter(str(error).strip().splitlines()), "no reason given").replace("<no message>", "refused")
    _say(report, "fault", f"{kind.__name__}: {first_line}")
    os._exit(1)


def _too_late(*_: object) -> NoReturn:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(10)  # should a library swallow this exception
    raise TimeoutError(f"not finished {sys.argv[2]} s after the end of the session")


def _yield_the_processor() -> None:
    """Lowest priority, inherited by W&B's own process."""
    if hasattr(os, "SCHED_IDLE"):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    else:
        os.nice(19)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One mirror of a session at a time: the one of a killed session may still be finishing."""
    deadline = time.monotonic() + LOCK_SECONDS
    with path.open("ab") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TimeoutError("another process is mirroring this session: wait for it") from None
            time.sleep(0.5)
        file.truncate(0)
        file.write(str(os.getpid()).encode())
        file.flush()
        yield


if __name__ == "__main__":
    main()
