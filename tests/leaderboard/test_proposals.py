"""Where experiments came from: controls propose the same again, a model's edits are in its answers."""

from __future__ import annotations

from collections.abc import Callable

import publishing
import pytest
import simulated
from doctored import Lines, bundled, data, doctored, lines_of
from verified_sessions import CONTROLS

from harness import agents
from harness.journal import Record, read
from harness.llm import line as llm_line
from harness.protocols import Stated
from leaderboard import bundle
from leaderboard.bundle import Bundle
from leaderboard.proposals import check_answers
from leaderboard.verify import Verified, examine, verify

NAMES = ("noop", "random", "tpe", "cmaes")


@pytest.fixture(scope="module")
def controls(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Record]]:
    """A session of each control, with the control itself."""
    root = tmp_path_factory.mktemp("controls")
    found = {}
    for name in NAMES:
        chosen = simulated.configuration(f"agent={name}", "session.experiments=4").agent
        folder = simulated.run_session(
            root / name,
            f"agent={name}",
            "session.experiments=4",
            base=publishing.DEMO,
            bench=publishing.DemoBench({}),
            agent=agents.load(chosen),
        )
        found[name] = read(folder / "journal.jsonl")[0]
    return found


def findings(result: Verified) -> list[tuple[str, str]]:
    return [(found.level, found.text) for name, each in result.findings if name == CONTROLS for found in each]


@pytest.mark.parametrize("name", NAMES)
def test_a_control_proposes_the_same_again(controls: dict[str, list[Record]], name: str) -> None:
    result = examine(doctored(controls[name], lambda _: None))
    assert result.consistent and findings(result) == []


@pytest.mark.parametrize("name", NAMES)
def test_an_experiment_that_is_not_the_controls_own_is_told(controls: dict[str, list[Record]], name: str) -> None:
    def by_hand(lines: Lines) -> None:
        proposal = data(lines, "proposal", 1)
        proposal["source"] = proposal["source"].replace("EMBED_LR = ", "EMBED_LR = 0.5 * ", 1)
        proposal["edit"] = {"source": proposal["source"], "blocks": [], "path": "train.py"}

    ((level, words),) = findings(examine(doctored(controls[name], by_hand)))
    assert level == ("broken" if name == "noop" else "odd")
    assert words == f"is not what agent={name} proposes after the experiments before it"


@pytest.mark.parametrize(("reason", "told"), [("no more", True), ("session.max_hours=2 was reached", False)])
def test_a_control_that_was_ended_early_is_told(controls: dict[str, list[Record]], reason: str, told: bool) -> None:
    """Whoever may choose where it ends chooses which of its scripts is confirmed."""

    def ended(lines: Lines) -> None:
        data(lines, "session_open")["config"]["session"].update(max_hours=2.0)
        at = next(place for place, line in enumerate(lines) if line["data"].get("role") == "confirm_baseline")
        lines.insert(at, {"time": lines[at]["time"], "type": "stopped", "data": {"reason": reason}})

    words = "agent=tpe never ends a session by itself, and this one was ended"
    assert (("odd", words) in findings(examine(doctored(controls["tpe"], ended)))) is told


def test_another_seed_is_another_search(controls: dict[str, list[Record]]) -> None:
    result = examine(doctored(controls["tpe"], lambda x: data(x, "session_open")["config"]["session"].update(seed=7)))
    assert ("odd", "is not what agent=tpe proposes after the experiments before it") in findings(result)


def test_nothing_of_a_strangers_is_run(controls: dict[str, list[Record]]) -> None:
    def options(lines: Lines) -> None:
        data(lines, "session_open")["config"]["agent"]["options"] = {"candidates": 10**9}

    def stock(lines: Lines) -> None:
        data(lines, "session_open")["stock_source"] = "LR = 1  # search: log(1, 1e300)\n" * 10**4

    for change, words in ((options, "with options that it has not here"), (stock, "a stock script that is not here")):
        ((level, said),) = findings(examine(doctored(controls["tpe"], change)))
        assert level == "unknown" and words in said


def test_an_update_between_two_parts_of_a_session_is_no_forgery(controls: dict[str, list[Record]]) -> None:
    def resumed(lines: Lines) -> None:
        line = {"type": "resumed", "data": {"reason": "resumed", "packages": {"numpy": "9"}}}
        lines.insert(2, {"time": lines[1]["time"], **line})

    ((level, words),) = findings(examine(doctored(controls["random"], resumed)))
    assert (level, words) == ("unknown", "made with numpy 9, optuna None: they cannot be made again")


@pytest.mark.parametrize("packages", [{}, {"numpy": "0.1"}, None])
def test_with_other_libraries_it_cannot_be_said(controls: dict[str, list[Record]], packages: object) -> None:
    def change(lines: Lines) -> None:
        data(lines, "session_open")["packages"] = packages

    ((level, words),) = findings(examine(doctored(controls["random"], change)))
    assert level == "unknown" and words.startswith("made with numpy ")
    assert findings(examine(doctored(controls["noop"], change))) == []  # it needs none


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A session of the standard scaffold with a scripted model."""
    folder = tmp_path_factory.mktemp("spoken") / "one"
    model = ("agent=llm", "llm=scripted", "session.experiments=3")
    made = simulated.configuration(*model, base=publishing.DEMO)
    asker = agents.load(made.agent)
    assert isinstance(asker, Stated)
    facts = {"researcher": {**asker.facts(), **llm_line.facts(made.llm)}}
    with llm_line.open_line(made, folder, {}) as line:
        bench = publishing.DemoBench({})
        simulated.run_session(folder, *model, base=publishing.DEMO, bench=bench, agent=asker, line=line, facts=facts)
    return verify(bundle.write(folder, folder.parent / "one.bundle.tar")).bundle


def of_answers(whole: Bundle, change: Callable[[Lines], object] = lambda _: None, said: object = None) -> list[str]:
    lines = lines_of(whole.records)
    change(lines)
    made = bundled(lines)
    kept = whole.said if said is None else {}
    return [f"{found.level}: {found.text}" for found in check_answers(made.records, made.state, kept)]


def test_a_models_edits_are_in_its_answers(spoken: Bundle) -> None:
    assert any(item.source for item in spoken.state.experiments)
    assert of_answers(spoken) == []


def test_an_edit_that_no_answer_holds_contradicts_them(spoken: Bundle) -> None:
    ran = next(item.index for item in spoken.state.experiments if item.source)

    def by_hand(lines: Lines) -> None:
        data(lines, "proposal", ran)["edit"] = {"source": "LR = 1", "blocks": [], "path": "train.py"}

    assert of_answers(spoken, by_hand) == ["broken: its edit is in none of the model's answers"]
    missing = of_answers(spoken, by_hand, said={})
    assert "odd: its edit is in none of the model's answers that are in the bundle" in missing
    later = of_answers(spoken, lambda x: data(x, "session_open")["researcher"].update(scaffold_version=99))
    assert later == ["unknown: of version 99 of the scaffold: its answers cannot be read here"]
