"""What the session's repository says of its experiments: the journal, told as commits."""

from __future__ import annotations

from harness.records import Experiment, SessionState
from harness.workspace import GitFailed, Workspace


def rebuild(workspace: Workspace, state: SessionState) -> None:
    """Make the repository hold what the journal says; one that git cannot use is made anew. Raises HarnessError."""
    try:
        _fill(workspace, state)
    except GitFailed:
        workspace.discard()
        _fill(workspace, state)


def commit_experiment(workspace: Workspace, state: SessionState, experiment: Experiment) -> str:
    """Commit a decided experiment that `state` does not know as decided yet; its id. Raises HarnessError."""
    try:
        return _commit(workspace, experiment)
    except GitFailed:  # a lock or half an object that a power cut left, say
        workspace.discard()
        _fill(workspace, state)
        return _commit(workspace, experiment)


def _fill(workspace: Workspace, state: SessionState) -> None:
    workspace.commit_stock(str(state.opened["stock_source"]), state.opened_at or 0.0)
    for experiment in state.experiments:
        if experiment.commit is not None and not workspace.holds(experiment.commit):
            _commit(workspace, experiment)


def _commit(workspace: Workspace, experiment: Experiment) -> str:
    return workspace.commit_experiment(
        experiment.index,
        experiment.source or "",
        message(experiment),
        experiment.proposed_at or 0.0,
        keep=bool(experiment.kept),
    )


def message(experiment: Experiment) -> str:
    """The commit message of a decided experiment.

    The commit's id, which the journal records, depends on every byte of it: a change here is a change of protocol.
    """
    first = " ".join(experiment.hypothesis.split())[:72] or "(no hypothesis)"
    result = f"{experiment.status}"
    if experiment.val_bpb is not None:
        result += f", val {experiment.val_bpb:.4f} bpb ({experiment.delta_sigma:+.1f} sigma)"
    elif experiment.reason:
        result += f": {experiment.reason}"
    verdict = "kept" if experiment.kept else "discarded"
    return storable(f"{first}\n\nExperiment {experiment.index + 1}: {verdict}\n{result}\n\n{experiment.hypothesis}\n")


def storable(text: str) -> str:
    """`text` without what git would refuse or silently rewrite: NUL, lone surrogates, noncharacters."""
    return "".join(char for char in text if char != "\0" and not _is_unstorable(ord(char)))


def _is_unstorable(code: int) -> bool:
    return 0xD800 <= code <= 0xDFFF or 0xFDD0 <= code <= 0xFDEF or code & 0xFFFE == 0xFFFE
