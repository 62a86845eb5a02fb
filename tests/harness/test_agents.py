from __future__ import annotations

import math
import warnings
from dataclasses import replace

import pytest

from harness import agents, knobs
from harness.agents import _search, cmaes
from harness.config import AgentConfig
from harness.edits import apply_edit
from harness.errors import ConfigError, HarnessError
from harness.records import Experiment, RunResult, Status, View

SOURCE = """from trainer import lab

MATRIX_LR = 0.02  # search: log(0.002, 0.2)
DECAY = 0.1  # search: float(0.0, 0.5)
LAYERS = 4  # search: int(2, 8)
WIDTH = 128  # search: int(64, 256, 32)
ACT = "relu2"  # search: choice("relu2", "gelu", "silu")
TIED = False  # search: choice(False, True)


def build_model(task):
    return task


if __name__ == "__main__":
    lab.open()
"""
SEARCHERS = ("random", "tpe", "cmaes")


def view(index: int = 0, history: tuple[Experiment, ...] = (), **changes: object) -> View:
    plain = View(
        index=index,
        num_experiments=12,
        task={},
        device={},
        budget_seconds=None,
        baseline_bpb=2.0,
        sigma_bpb=0.01,
        stock_source=SOURCE,
        incumbent_source=SOURCE,
        incumbent_bpb=2.0,
        history=history,
        search_seed=7,
    )
    return replace(plain, **changes)


def measured(index: int, source: str, bpb: float | None) -> Experiment:
    status = Status.CRASH if bpb is None else Status.OK
    return Experiment(index, "", source, RunResult(status, "val", bpb=bpb), kept=False, val_bpb=bpb)


def search(name: str, cost, count: int, **changes: object) -> list[Experiment]:
    """What `name` does in a session in which `cost(values)` is the bpb, None a crash."""
    history: tuple[Experiment, ...] = ()
    best, incumbent = math.inf, SOURCE
    for index in range(count):
        # A new agent for each proposal: nothing may survive but the view.
        agent = agents.load(AgentConfig(name))
        proposal = agent.propose(view(index, history, incumbent_source=incumbent, **changes))
        source = apply_edit(proposal.edit, SOURCE, SOURCE)
        values = {knob.name: knob.value for knob in knobs.parse(source).values()}
        history += (replace(measured(index, source, cost(values)), hypothesis=proposal.hypothesis),)
        if history[-1].val_bpb is not None and history[-1].val_bpb < best:
            best, incumbent = history[-1].val_bpb, source
    return list(history)


def bowl(values) -> float:
    """Lowest, at 1.9, near MATRIX_LR = 0.04 and DECAY = 0.2."""
    return round(1.9 + 0.2 * math.log(values["MATRIX_LR"] / 0.04) ** 2 + (values["DECAY"] - 0.2) ** 2, 4)


def crash_when_wide(values) -> float | None:
    return None if values["WIDTH"] > 128 else bowl(values)


def test_the_folder_is_the_registry():
    assert agents.available() == ["cmaes", "external", "llm", "noop", "random", "replay", "scripted", "tpe"]


@pytest.mark.parametrize("name", ["gradient", "_search", "../os", "harness.errors", ""])
def test_an_unknown_agent_is_refused_with_the_list(name):
    with pytest.raises(
        ConfigError, match=r"unknown agent\.name .*valid: cmaes, external, llm, noop, random, replay, scripted, tpe$"
    ):
        agents.load(AgentConfig(name))


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        (
            "tpe",
            {"trials": 3},
            "unknown key 'trials' in agent.options for agent=tpe; valid: startup_trials, candidates, block",
        ),
        ("noop", {"x": 1}, "valid: (none)"),
        ("tpe", {"startup_trials": "three"}, "agent.options.startup_trials must be int, not 'three'"),
        ("tpe", {"startup_trials": True}, "agent.options.startup_trials must be int, not True"),
        ("tpe", {"startup_trials": 0}, "must be at least 1"),
        ("cmaes", {"sigma": 0}, "agent.options.sigma must be above 0"),
        ("cmaes", {"population": 1}, "agent.options.population must be at least 4"),
        ("scripted", {}, "agent.options.patches=FOLDER"),
        ("scripted", {"patches": "/no/such/folder"}, "/no/such/folder"),
    ],
)
def test_a_wrong_option_is_named(name, options, expected):
    with pytest.raises(ConfigError, match=r"^[^\n]*$") as caught:
        agents.load(AgentConfig(name, options))
    assert expected in str(caught.value)


@pytest.mark.parametrize("name", SEARCHERS)
def test_a_searcher_stays_in_the_ranges_and_says_what_it_changes(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        history = search(name, crash_when_wide, 10)
    sources = {item.source for item in history}
    assert len(sources) == len(history)  # in a space this large nothing comes twice
    for item in history:
        found = knobs.parse(item.source)  # raises where a value is outside its range
        changed = {name: knob.value for name, knob in found.items() if knob.value != knobs.parse(SOURCE)[name].value}
        assert item.hypothesis == ", ".join(
            f"{name} {knobs.parse(SOURCE)[name].value!r} -> {value!r}" for name, value in changed.items()
        )


@pytest.mark.parametrize("name", SEARCHERS)
def test_a_resumed_searcher_proposes_the_same(name):
    history = search(name, crash_when_wide, 8)
    best = min((item for item in history[:5] if item.val_bpb is not None), key=lambda item: item.val_bpb)
    again = agents.load(AgentConfig(name)).propose(view(5, tuple(history[:5]), incumbent_source=best.source))
    assert again.edit.source == history[5].source
    other = agents.load(AgentConfig(name)).propose(
        view(5, tuple(search(name, crash_when_wide, 5, search_seed=8)), search_seed=8)
    )
    assert other.edit.source != history[5].source


@pytest.mark.parametrize("name", ["tpe", "cmaes"])
def test_a_model_based_search_ends_nearer_to_the_optimum_than_chance(name):
    def mean_best(name: str) -> float:
        return sum(min(bowl_of(item) for item in search(name, bowl, 16, search_seed=seed)) for seed in range(10)) / 10

    def bowl_of(item: Experiment) -> float:
        assert item.val_bpb is not None
        return item.val_bpb

    assert mean_best(name) < mean_best("random")


@pytest.mark.parametrize("name", ["tpe", "cmaes"])
def test_failures_are_learned_from(name):
    def crashing(values) -> float | None:
        return None if values["ACT"] == "silu" else bowl(values)

    tail = [knobs.parse(item.source)["ACT"].value for item in search(name, crashing, 24, num_experiments=24)[12:]]
    assert tail.count("silu") <= len(tail) // 4


def test_a_script_without_knobs_cannot_be_searched():
    with pytest.raises(ConfigError, match="no knobs"):
        agents.load(AgentConfig("tpe")).propose(view(stock_source="x = 1\n"))


def test_cmaes_refuses_a_history_that_is_not_its_own():
    foreign = measured(0, knobs.apply(SOURCE, {"LAYERS": 8, "DECAY": 0.5}), 1.9)
    with pytest.raises(HarnessError, match="experiment 0 is not what it proposes"):
        agents.load(AgentConfig("cmaes")).propose(view(1, (foreign,)))


def test_cmaes_starts_near_the_stock_script():
    stock = knobs.parse(SOURCE)
    for item in search("cmaes", bowl, 3):
        found = knobs.parse(item.source)
        assert abs(math.log10(found["MATRIX_LR"].value / stock["MATRIX_LR"].value)) < 1
        assert abs(found["DECAY"].value - stock["DECAY"].value) < 0.25


def test_cmaes_population_leaves_three_generations():
    assert cmaes.default_population(18, 6) == 4
    assert cmaes.default_population(18, 20) == 7
    assert cmaes.default_population(18, 1000) == 12


@pytest.mark.parametrize("knob", knobs.parse(SOURCE).values(), ids=lambda knob: knob.name)
def test_cmaes_maps_every_value_to_the_unit_interval_and_back(knob):
    axis = cmaes._Axis(knob)
    values = knob.choices or [knob.value, type(knob.value)(knob.low), type(knob.value)(knob.high)]
    for value in values:
        assert 0 <= axis.to_unit(value) <= 1
        assert axis.from_unit(axis.to_unit(value)) == value


def test_rounding_stays_in_the_range():
    knob = knobs.Knob("A", 0.5, "float", 1, low=0.12341, high=0.98766)
    assert _search.rounded(knob, 0.12342) == 0.12341
    assert _search.rounded(knob, 0.98765) == 0.98766
    assert _search.rounded(knob, 0.33333333) == 0.3333


def test_noop_proposes_the_incumbent():
    incumbent = knobs.apply(SOURCE, {"LAYERS": 8})
    proposal = agents.load(AgentConfig("noop")).propose(view(incumbent_source=incumbent))
    assert proposal.edit.source == incumbent


def test_scripted_applies_a_folder_in_name_order_and_stops(tmp_path):
    block = "<<<<<<< SEARCH\nLAYERS = 4\n=======\nLAYERS = 5\n>>>>>>> REPLACE\n"
    (tmp_path / "02_deeper.edit").write_text(f"Deeper is better here.\n\n{block}")
    (tmp_path / "01_whole.py").write_text(SOURCE)
    (tmp_path / "notes.txt").write_text("not an edit")
    agent = agents.load(AgentConfig("scripted", {"patches": str(tmp_path)}))
    first, second, third = (agent.propose(view(index)) for index in range(3))
    assert (first.hypothesis, first.edit.source) == ("01_whole", SOURCE)
    assert (second.hypothesis, second.edit.blocks) == ("Deeper is better here.", (("LAYERS = 4\n", "LAYERS = 5\n"),))
    assert third is None


@pytest.mark.parametrize("text", ["no blocks", "<<<<<<< SEARCH\na\n", "\udcff"])
def test_an_unreadable_script_is_named(tmp_path, text):
    (tmp_path / "a.edit").write_bytes(text.encode("utf-8", "surrogateescape"))
    agent = agents.load(AgentConfig("scripted", {"patches": str(tmp_path)}))
    with pytest.raises(ConfigError, match=r"a\.edit"):
        agent.propose(view())
