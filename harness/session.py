"""The session: calibrate, baseline, N experiments, confirm.

Its state is a fold over the journal. Every step first looks whether the journal has its outcome already, so the same
code starts a session and resumes one: there is no second path that could disagree with the first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from harness import seeds, stats
from harness.codec import to_json
from harness.commits import commit_experiment, rebuild
from harness.config import Config
from harness.desk import CapReached, Line, SessionDesk
from harness.drift import max_repeats, run_drift
from harness.edits import apply_edit
from harness.errors import EditRefused, ExperimentFailed, HarnessError
from harness.fold import apply, fold
from harness.integrity import Witness
from harness.journal import Journal, Record
from harness.llm.fold import usage
from harness.opening import told
from harness.protocols import Agent, Bench, Finishes, NeedsDesk, Tracker
from harness.records import (
    STOCK_ROLES,
    Experiment,
    Proposal,
    Refused,
    Role,
    RunResult,
    SessionState,
    Status,
    StockTimes,
    Stop,
    View,
)
from harness.workspace import Workspace


class Session:
    """One researcher, one task, one device, from the open journal to the confirmed gain."""

    def __init__(
        self,
        config: Config,
        journal: Journal,
        records: Sequence[Record],
        *,
        agent: Agent,
        bench: Bench,
        workspace: Workspace,
        trackers: Sequence[Tracker],
        nonce: str,
        earlier_baselines: Sequence[Sequence[float]] = (),
        witness: Witness | None = None,
        line: Line | None = None,
    ) -> None:
        self.config = config
        self.journal = journal
        self.agent = agent
        self._bench = bench
        self.workspace = workspace
        self.trackers = trackers
        self.nonce = nonce
        self.earlier_baselines = earlier_baselines
        self.witness = witness or Witness()
        self.line = line
        self.state = fold(records)
        self._tell(records)

    def run(self) -> SessionState:
        """Do what is left of the session. Raises HarnessError."""
        rebuild(self.workspace, self.state)  # after a kill, or if somebody deleted it
        self.calibrate()
        self.measure_baseline()
        if self.state.experiments:
            self.experiment(len(self.state.experiments) - 1)  # a kill may have left it undecided
        while asks_more(self.state, self.config.session.experiments):
            self.experiment(len(self.state.experiments))
        if isinstance(self.agent, Finishes) and self.state.gain is None:
            self.agent.finish(self._view(len(self.state.experiments)), self._desk())
        self.confirm()
        self.close()
        return self.state

    def calibrate(self) -> None:
        if self.state.calibration is None and self.config.task.clock != "ticks":
            seed = seeds.derive("calibration", self.config.task.name)
            sigma = self.config.task.sigma_prior_bpb
            self._write("calibration", **to_json(self._bench.calibrate(self.stock_source, seed, sigma)))

    def measure_baseline(self) -> None:
        while (index := len(self.state.baseline)) < self.state.opened["num_baseline"]:
            self._measure(Role.BASELINE, index, self.stock_source, "val")
        if self.state.baseline_bpb is None:
            values = [run.bpb for run in self.state.baseline if run.bpb is not None]
            sigma = stats.pooled_sigma([*self.earlier_baselines, values], self.config.task.sigma_prior_bpb)
            # What sigma was pooled from lies outside the journal, so it is written down: a reader can recompute it.
            earlier = [list(group) for group in self.earlier_baselines]
            self._write("baseline", baseline_bpb=fmean(values), sigma_bpb=sigma, earlier_baselines=earlier)

    def experiment(self, index: int) -> None:
        """Propose, run, rerun if it looks better, decide."""
        if index >= len(self.state.experiments) and not self._propose(index):
            return
        experiment = self.state.experiments[index]
        if experiment.kept is not None:
            return
        if experiment.source is not None and experiment.run is None:
            self._measure(Role.EXPERIMENT, index, experiment.source, "val")
        experiment = self.state.experiments[index]
        if experiment.source is not None and experiment.rerun is None and self._needs_rerun(experiment):
            self._measure(Role.RERUN, index, experiment.source, "val")
        self._decide(self.state.experiments[index])

    def confirm(self) -> None:
        """Winner and baseline again, on `test`, with seeds nobody could know. Identical trees are retrained too."""
        if self.state.gain is not None:
            return
        winner = self.state.winner_source
        for place in range(2 * self.state.opened["num_confirm"]):
            role, pair = seeds.confirmation_run(place)
            done = self.state.confirm_baseline if role is Role.CONFIRM_BASELINE else self.state.confirm_candidate
            if pair >= len(done):
                self._measure(role, pair, self.stock_source if role is Role.CONFIRM_BASELINE else winner, "test")
        gain = stats.confirmed_gain(self.state.confirm_baseline, self.state.confirm_candidate)
        self._write("confirmed", **to_json(gain))

    def close(self) -> None:
        if not self.state.closed:
            self._write("closed", nonce=self.nonce)

    @property
    def stock_source(self) -> str:
        return str(self.state.opened["stock_source"])

    @property
    def incumbent_bpb(self) -> float:
        best = self.state.incumbent
        value = best.val_bpb if best else self.state.baseline_bpb
        if value is None:
            raise HarnessError("the journal has no baseline before its experiments: it was not written by bpbench")
        return value

    @property
    def bench(self) -> Bench:
        """The bench with the limits that the stock runs have set so far."""
        return self._bench.knowing(self.state.calibration, StockTimes.of(self.state.baseline))

    def _measure(self, role: Role, index: int, source: str, split: str) -> RunResult:
        """One journaled run: intent first, then the run, then its result."""
        config = self.config
        seed = seeds.deal(config.task.name, config.session.seed, role, index, self.nonce)
        identity = {"run_id": f"{role}-{index:03d}", "role": role, "index": index, "seed": seed, "split": split}
        opened = self.state.opened
        limit = max_repeats(opened["num_baseline"], config.session.experiments, opened["num_confirm"])
        final = (role, index) in self.state.drifted or len(self.state.drifted) >= limit
        self._write("run_started", **identity)
        result = self.bench.run(str(identity["run_id"]), source, seed, split, role)
        if role in STOCK_ROLES and result.status is not Status.OK:
            # Not a result of the session: nothing is recorded, so that a resume tries again.
            raise HarnessError(
                f"the stock train.py failed ({result.status}: {result.reason}); see runs/{identity['run_id']}; "
                f"then `bpbench resume {self.journal.path.parent}`"
            )
        self._testify()
        drifted = self._drifted(result)
        if drifted is not None and not final:
            self._write("run_drifted", **identity, drift=drifted, result=to_json(result))
            self.bench.cool_down()
            return self._measure(role, index, source, split)  # which replaces this one, better or worse
        if drifted is not None:
            self._write("incident", text=f"{identity['run_id']}: the device was {_percent(drifted)} than calibrated")
        self._write("run_finished", **identity, result=to_json(result))
        return result

    def _drifted(self, result: RunResult) -> float | None:
        """How far the device was from its calibrated speed around a run, where that is too far."""
        task = self.config.task
        return run_drift(self.state.calibration, result, task.slope_bpb_per_percent, task.sigma_prior_bpb)

    def _propose(self, index: int) -> bool:
        """Ask the researcher; False when it has stopped."""
        if (reason := self._out_of_time()) is not None:
            self._testify()
            self._write("stopped", reason=reason)
            return False
        self._write("proposal_started", index=index)
        proposal = self._ask(self._view(index))
        if proposal is None or isinstance(proposal, Stop):
            self._testify()
            self._write("stopped", reason=proposal.reason if proposal else f"{self.agent.name} proposed nothing more")
            return False
        outcome = self._through_the_door(index, proposal)
        self._testify()
        self._write(
            "proposal",
            index=index,
            hypothesis=proposal.hypothesis,
            note=proposal.note,
            usage=to_json(proposal.usage or usage(self.state.turn)),
            recorded=to_json(proposal.recorded),
            **outcome,
        )
        return True

    def _ask(self, view: View) -> Proposal | Refused | Stop | None:
        if not isinstance(self.agent, NeedsDesk):
            return self.agent.propose(view)
        try:
            return self.agent.at(self._desk()).propose(view)
        except CapReached as reached:
            return Stop(str(reached))

    def _desk(self) -> SessionDesk:
        if self.line is None:
            raise HarnessError(f"agent={self.agent.name} thinks with a model, and the session has no line to one")
        return SessionDesk(self.config, lambda: self.state, self._write, self.bench.smoke, self.line, self.witness)

    def _testify(self) -> None:
        """Write down what was attempted, before the record that ends what it was attempted in."""
        for attempt in self.witness.take():
            self._write("integrity", **to_json(attempt))

    def _through_the_door(self, index: int, proposal: Proposal | Refused) -> dict[str, Any]:
        """The new train.py, or why there is none."""
        if isinstance(proposal, Refused):
            return {"edit": None, "source": None, "refused": proposal.reason, "code": proposal.code}
        edit = to_json(proposal.edit)
        try:
            source = apply_edit(proposal.edit, self.state.winner_source, self.stock_source)
        except ExperimentFailed as error:
            if isinstance(error, EditRefused) and error.family is not None:
                self.witness.note(f"proposal-{index:03d}", error.family, str(error))
            return {"edit": edit, "source": None, "refused": str(error), "code": "edit"}
        return {"edit": edit, "source": source, "refused": None, "code": None}

    def _needs_rerun(self, experiment: Experiment) -> bool:
        if experiment.recorded is not None:
            return experiment.recorded.rerun and experiment.run is not None and experiment.run.bpb is not None
        return self._better(experiment.run)

    def _better(self, run: RunResult | None) -> bool:
        return run is not None and run.bpb is not None and run.bpb < self.incumbent_bpb

    def _decide(self, experiment: Experiment) -> None:
        """Keep only what beat the incumbent twice; what is recorded then is the second draw, never the luckier one.

        A replay keeps what was kept.
        """
        kept = self._better(experiment.run) and self._better(experiment.rerun)
        last = experiment.last_run
        value = last.bpb if last else None
        if experiment.recorded is not None:
            kept = experiment.recorded.kept and value is not None
            text = f"experiment {experiment.index + 1} was kept in the session replayed, and failed here"
            if experiment.recorded.kept and not kept and text not in self.state.incidents:
                self._write("incident", text=text)
        delta = (self.incumbent_bpb - value) / (self.state.sigma_bpb or 1.0) if value is not None else None
        commit = None
        if experiment.source is not None:
            decided = replace(experiment, kept=kept, val_bpb=value, delta_sigma=delta)
            commit = commit_experiment(self.workspace, self.state, decided)
        self._write("decision", index=experiment.index, kept=kept, val_bpb=value, delta_sigma=delta, commit=commit)

    def _view(self, index: int) -> View:
        opened, state = self.state.opened, self.state
        return View(
            index=index,
            num_experiments=self.config.session.experiments,
            task=told(state),
            device=dict(opened["device"]),
            budget_seconds=state.calibration.budget_seconds if state.calibration else None,
            baseline_bpb=state.baseline_bpb or 0.0,
            sigma_bpb=state.sigma_bpb or 0.0,
            stock_source=self.stock_source,
            incumbent_source=self.state.winner_source,
            incumbent_bpb=self.incumbent_bpb,
            history=state.experiments,
            search_seed=seeds.derive("search", self.agent.name, self.config.session.seed),
            program=str(opened["program"]),
            baseline=state.baseline,
            hours_left=self._hours_left(),
            may_stop=self.config.session.early_stop,
        )

    def _hours_left(self) -> float | None:
        """As they were when the researcher was first asked: after a kill it is told the same again."""
        limit, turn = self.config.session.max_hours, self.state.turn
        worked = turn.working_seconds if turn else self.state.working_seconds
        return None if limit is None else max(0.0, limit - worked / 3600)

    def _out_of_time(self) -> str | None:
        limit = self.config.session.max_hours
        if limit is not None and self.state.working_seconds > 3600 * limit:
            return f"session.max_hours={limit:g} was reached"
        return None

    def _write(self, type_: str, **data: Any) -> None:
        record = self.journal.append(type_, **data)
        self.state = apply(self.state, record)
        self._tell([record])

    def _tell(self, records: Iterable[Record]) -> None:
        for record in records:
            for tracker in self.trackers:
                tracker.on_record(record.to_dict())


def asks_more(state: SessionState, num_planned: int | None) -> bool:
    """Whether the researcher of a session with `num_planned` experiments (None: no number) is still to be asked."""
    return not state.stopped_early and (num_planned is None or len(state.experiments) < num_planned)


def _percent(drifted: float) -> str:
    return f"{100 * abs(drifted):.0f} % {'slower' if drifted < 0 else 'faster'}"
