"""Puts a session together: data, device, bench, researcher, journal. New and resumed sessions take the same way."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness import agents, baselines, compose, fit, sandbox, seeds, tracking, views
from harness.bench import LocalBench
from harness.config import AgentConfig, BackendConfig, Config, LLMConfig
from harness.data import DataInfo, prepare
from harness.device import PROCESSORS, Device, probe
from harness.errors import ConfigError, HarnessError
from harness.evaluate import Evaluator
from harness.fold import fold
from harness.folders import remove
from harness.integrity import Witness
from harness.journal import Journal, Record
from harness.lease import lease, physical_name
from harness.llm import line as llm_line
from harness.opening import check_same, opening_facts, resuming_facts, task_view
from harness.protocols import Agent, Finishes, OnProgress, Repeats, Sandbox, Stated, Tracker
from harness.records import Progress, SessionState, Walls
from harness.runner import Runner
from harness.sandbox import canaries
from harness.sandbox.bait import Targets
from harness.sandbox.forked import ForkedSandbox
from harness.sandbox.landlock import LandlockSandbox
from harness.sandbox.process import ProcessSandbox
from harness.sentinel import Sentinel
from harness.session import Session, asks_more
from harness.session_folder import check_path, new_folder, open_session, read_nonce, session_name
from harness.surroundings import child_environment
from harness.workspace import Workspace

PRELOAD_TRUSTED = ("trainer.trusted.scorer",)
# torch.optim imports the compiler at the first optimizer.
PRELOAD_AGENT = ("torch", "torch._dynamo", "torch._inductor", "trainer.lab", "trainer.server", "backends.null")


def run_session(config: Config | None, *, resume: Path | None = None, tracker: Tracker | None = None) -> Path:
    """Run a new session, or what is left of the one at `resume`; returns its folder. Raises HarnessError."""
    view = tracker or views.make()
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.closing(view))
        started: Started | None = None
        asking = True
        if resume is not None:
            journal, records = Journal.open(resume / "journal.jsonl")
            started = (resume, stack.enter_context(journal), records)
            if not records:
                raise HarnessError(f"{resume}: the session never opened: start it again as it was started")
            state = fold(records)
            config = compose.from_dict(state.config)
            asking = asks_more(state, config.session.experiments)
        if config is None:
            raise ConfigError("nothing to run: give a configuration or a session to resume")
        agent = researcher(config, asking)
        device = probe_for(config, started, view.on_progress)
        data = prepare(config, lambda event: view.on_progress(stage_progress(event)))
        name = resume.name if resume else session_name(config)
        physical = physical_name(device.name, device.identity)
        with lease(physical, name, lambda who: view.on_progress(Progress(phase="wait", run_id=who))):
            folder = run_on(device, data, config, agent, started, view)
    views.write_all(folder)
    return folder


def probe_for(config: Config, started: Started | None, on_progress: OnProgress) -> Device:
    """The session's device. A new session is refused here, before anything long, if its task cannot fit."""
    if started is not None:
        # As it was, whatever is measured of the dtypes today.
        _, _, records = started
        return probe(BackendConfig(**fold(records).opened["backend"]))
    if config.task.clock == "ticks":
        return probe(config.backend)
    with fit.alone(config.backend, on_progress) as device:
        fit.check(config.task, device)
        return device


Started = tuple[Path, Journal, list[Record]]  # a session's folder, its open journal, and what that holds


def researcher(config: Config, asking: bool) -> Agent:
    """The session's researcher, with all that it needs here. Raises ConfigError where that is missing."""
    if not asking:
        # Only the confirmation is left: no key, no program and no file of edits is needed for that.
        config.llm = LLMConfig()
        try:
            return agents.load(config.agent)
        except ConfigError:
            return agents.load(AgentConfig("noop"))
    llm_line.check(config.llm, os.environ, config.session.seed)
    agent = agents.load(config.agent)
    agents.check(agent)
    return agent


def check_scaffold(state: SessionState, agent: Agent) -> None:
    """Raises ConfigError where a session's model would be told other things, or in another way, than so far."""
    stated, here = state.opened.get("researcher"), agent.facts() if isinstance(agent, Stated) else {}
    began, version = stated.get("scaffold_version") if isinstance(stated, dict) else None, here.get("scaffold_version")
    if began != version and not state.closed and asks_more(state, state.config["session"]["experiments"]):
        raise ConfigError(
            f"this session began with version {began} of the scaffold, this is {version}: resume it with the version "
            "of bpbench that it began with"
        )


def run_on(
    device: Device, data: DataInfo, config: Config, agent: Agent, started: Started | None, view: Tracker
) -> Path:
    """The part of `run_session` that has the device to itself."""
    config.task.clock = choose_clock(config, device)
    chosen = choose_sandbox(config, device)
    if started is None:
        check_path(Path(config.session.root).absolute(), config.task, device)
    walls = tried(chosen, data)
    folder, journal, records = started or begin(config, data, device, agent, walls)
    nonce = read_nonce(folder)
    witness = Witness()
    mirror = tracking.load(config.tracker, folder)
    with contextlib.ExitStack() as stack:
        stack.enter_context(journal)
        stack.enter_context(contextlib.closing(mirror))
        state = fold(records)
        stock = str(state.opened["stock_source"])
        bench = stack.enter_context(open_bench(config, folder, data, device, stock, chosen, witness, view.on_progress))
        line = stack.enter_context(llm_line.open_line(config, folder, os.environ))
        if isinstance(agent, Finishes):
            stack.callback(agent.close)
        if started is not None:
            check_same(state, data, device)
            check_scaffold(state, agent)
            if not state.closed:  # the last line of a closed session is its identity
                records = [
                    *records,
                    journal.append("resumed", **resuming_facts(journal, records, walls, device.torch_version)),
                ]
        session_key = state.opened["key"]
        state = Session(
            config,
            journal,
            records,
            agent=agent,
            bench=bench,
            workspace=Workspace(folder / "workspace"),
            trackers=[view, mirror],
            nonce=nonce,
            earlier_baselines=baselines.known(session_key, device, config.session.seed),
            witness=witness,
            line=line,
        ).run()
        baselines.remember(session_key, device, state)
        if state.closed:
            remove(folder / "private" / "compiled")  # the headers alone are 150 MB, and nothing runs here again
    return folder


def begin(config: Config, data: DataInfo, device: Device, agent: Agent, walls: Walls) -> Started:
    """Open a new session; nothing of it is left when its configuration does not hold together."""
    if isinstance(agent, Repeats):
        config.session.experiments = agent.num_experiments()
    opening = opening_facts(config, data, device, walls)
    if isinstance(agent, Stated):
        opening["researcher"] = agent.facts()
    if agents.needs_llm(agent):
        opening["researcher"] |= llm_line.facts(config.llm)
    folder = new_folder(config)
    try:
        return folder, *open_session(folder, config, opening)
    except BaseException:
        remove(folder)  # else its name would be taken by what cannot be resumed
        raise


def choose_clock(config: Config, device: Device) -> str:
    """What `auto` means here. Processors are shared with other programs and wander; a GPU seldom is."""
    clock = config.task.clock if config.budget.clock == "auto" else config.budget.clock
    if clock == "metered" and device.name not in PROCESSORS:
        # A stopped process leaves what it has queued to the GPU, which then works while its clock stands.
        raise ConfigError(f"budget.clock=metered: processors only, not {device.name}; use budget.clock=wall")
    if clock != "auto":
        return clock
    return "metered" if device.name == "cpu" else "wall"


def choose_sandbox(config: Config, device: Device) -> Sandbox | None:
    """The walls of a session; None: the step clock's own, which are none. Raises DeviceError where they do not work."""
    if config.task.clock == "ticks" and config.sandbox.level in ("auto", "0"):
        return None
    walls = config.sandbox
    return sandbox.load(
        walls.level, device=device, compiles=device.compiles(config.task), allow_unsafe=walls.allow_unsafe
    )


def tried(chosen: Sandbox | None, data: DataInfo) -> Walls:
    """What `chosen` really holds back from this text, as attacked now."""
    return canaries.try_walls(chosen, Targets.of(data.path)) if chosen else canaries.untried("forked", 0)


def stage_progress(event: dict[str, Any]) -> Progress:
    total = event.get("total")
    return Progress(phase="prepare", run_id=str(event["stage"]), fraction=event["done"] / total if total else None)


@contextlib.contextmanager
def forked(environment: Mapping[str, str], preload: tuple[str, ...]) -> Iterator[ForkedSandbox]:
    """A forked sandbox that imports what it needs while the session gets ready."""
    with contextlib.closing(ForkedSandbox(environment, preload)) as box:
        box.start()
        yield box


@contextlib.contextmanager
def open_bench(
    config: Config,
    folder: Path,
    data: DataInfo,
    device: Device,
    stock: str,
    chosen: Sandbox | None,
    witness: Witness,
    on_progress: OnProgress,
) -> Iterator[LocalBench]:
    """The bench of a session; its long-lived processes end with the context. No sandbox chosen: level 0, forked."""
    ticking = config.task.clock == "ticks"
    environment = child_environment(device.environment)
    with contextlib.ExitStack() as stack:
        box = chosen or stack.enter_context(forked(environment, PRELOAD_AGENT))
        if isinstance(box, LandlockSandbox):
            # Also for the sentinel, outside the walls, by whose setup that of runs is measured.
            environment |= box.environment
        trusted: Sandbox = ProcessSandbox()
        if ticking:
            trusted = stack.enter_context(forked(environment, PRELOAD_TRUSTED))
        folder = folder.absolute()  # every process has a folder of its own
        check_path(folder, config.task, device)
        private = folder / "private"
        private.mkdir(mode=0o700, exist_ok=True)
        view = task_view(config, data, device)
        runner = Runner(
            task=view,
            backend=device.for_child(),
            environment=environment,
            data_dir=data.path,
            sandbox=box,
            max_setup_seconds=config.task.max_setup_seconds,
            max_memory_bytes=config.task.max_memory_bytes,
            ticks=config.task.ticks if ticking else 0,
            on_progress=on_progress,
            compiled=private / "compiled",
            witness=witness,
        )
        evaluator = Evaluator(
            task={**view, "audit_cuts": config.task.audit_cuts},
            backend=device.for_child(),
            environment=environment,
            data_dir=data.path,
            sandbox=box,
            trusted=trusted,
            max_memory_bytes=config.task.max_memory_bytes,
            on_progress=on_progress,
            private_dir=private,
            entropy=seeds.derive("audit", config.task.name) if ticking else None,
            witness=witness,
        )
        sentinel = None
        if not ticking:
            sentinel = Sentinel(runner, stock, folder / "runs" / "sentinel")
            stack.callback(sentinel.close)
        yield LocalBench(
            task=config.task,
            runner=runner,
            evaluator=evaluator,
            runs_dir=folder / "runs",
            sentinel=sentinel,
            sentinel_stays=device.name == "cpu",  # the memory of a GPU is what runs compete for
        )
