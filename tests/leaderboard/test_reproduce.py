"""Retraining a bundle: the verdict's rule, its error rates, resuming at any line, and what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import simulated

from harness import knobs
from harness.data import prepare
from harness.device import probe
from harness.errors import ConfigError, DeviceError, HarnessError
from harness.journal import Journal, Record, read
from harness.records import Gain, Role, RunResult, Status, Walls
from harness.sandbox.canaries import HELD, NEEDED
from harness.sizes import STOCK, stock_of
from leaderboard import bundle, cli, reproduce
from leaderboard.reproduction import Reproduction, Subject, fold, other_numbers, terms
from leaderboard.verdict import Verdict, Word, alpha_exceeds, confidence, differences, judge


def claim(mean: float, half: float) -> Gain:
    """Three pairs with this mean, and an interval of this half width."""
    sd = half * 3**0.5 / 4.302653
    base = (2.0, 2.0, 2.0)
    return Gain(3, mean, mean - half, mean + half, base, (2 - mean - sd, 2 - mean, 2 - mean + sd))


WALLS = Walls("bubblewrap", 3, dict.fromkeys(NEEDED, HELD))
CLAIMED, NOTHING, LOSS = claim(0.03, 0.01), claim(0.002, 0.01), claim(-0.03, 0.01)
FLAKY = Gain(2, None, None, None, (2.0, 2.0, 2.0), (1.9, None, 1.9))


@pytest.mark.parametrize(
    ("claimed", "values", "word"),
    [
        (CLAIMED, [0.031, 0.028, 0.030], Word.REPRODUCED),
        (CLAIMED, [0.061, 0.058, 0.060], Word.REPRODUCED),  # more than claimed is no failure
        (CLAIMED, [0.016, 0.017, 0.016], Word.REPRODUCED),  # half of it may be all there is
        (CLAIMED, [0.012, 0.013, 0.012], Word.INCONCLUSIVE),  # a gain, and surely less than half of what was claimed
        (claim(0.03, 0.002), [0.022, 0.023, 0.022], Word.NOT_REPRODUCED),  # a gain, but surely less than claimed
        (CLAIMED, [0.0, 0.001, -0.001], Word.NOT_REPRODUCED),
        (CLAIMED, [0.0, 0.0, 0.0], Word.NOT_REPRODUCED),
        (CLAIMED, [0.03, -0.02, 0.05], Word.INCONCLUSIVE),
        (CLAIMED, [0.03], Word.INCONCLUSIVE),
        (NOTHING, [0.001, -0.001, 0.002], Word.REPRODUCED),
        (NOTHING, [0.050, 0.051, 0.052], Word.INCONCLUSIVE),  # who claims too little is not accused
        (NOTHING, [-0.050, -0.051, -0.052], Word.NOT_REPRODUCED),
        (NOTHING, [0.010, 0.011, 0.0105], Word.INCONCLUSIVE),
        (claim(0.010, 0.02), [0.010, 0.011, 0.0105], Word.REPRODUCED),  # the mean that was measured there
        (LOSS, [-0.031, -0.028, -0.030], Word.REPRODUCED),
        (FLAKY, [0.1, 0.1, 0.1], Word.REPRODUCED),  # nothing is counted there, whatever is found here
        (FLAKY, [-0.1, -0.1, 0.0], Word.REPRODUCED),
        (FLAKY, [0.1], Word.INCONCLUSIVE),
        (Gain(1, 0.1, None, None, (2.0,), (1.9,)), [0.1, 0.1, 0.1], Word.INCONCLUSIVE),
        (Gain(0, None, None, None, (), ()), [0.1, 0.1, 0.1], Word.INCONCLUSIVE),
    ],
)
def test_the_verdict(claimed: Gain, values: list[float], word: Word) -> None:
    made = judge(claimed, values, 0)
    assert made.word is word and made.num_pairs == len(values)


def test_later_looks_ask_for_more() -> None:
    assert [confidence(look) for look in (1, 2, 3)] == [0.95, 0.975, 0.9875]
    first, second = (judge(CLAIMED, [0.02, 0.03, 0.04], 0, look) for look in (1, 2))
    assert first.low_bpb is not None and second.low_bpb is not None and second.low_bpb < first.low_bpb
    assert [alpha_exceeds(look) for look in (1, 2, 3)] == [0.005, 0.0025, 0.00125]
    none = [0.0, 0.001, -0.001]
    assert [judge(CLAIMED, none, 0, look).word for look in (1, 3)] == [Word.NOT_REPRODUCED, Word.INCONCLUSIVE]


def test_an_inconclusive_verdict_says_what_it_would_take() -> None:
    made = judge(CLAIMED, [0.03, -0.02, 0.05], 0)
    assert made.pairs_needed is not None and made.pairs_needed > 3
    assert judge(CLAIMED, [0.03, 0.031, 0.029], 0).pairs_needed is None
    # The other conclusion: so far below the claim that a few more pairs show it. And one that no pairs reach.
    less = judge(CLAIMED, [0.0, 0.009, -0.009], 0)
    assert less.word is Word.INCONCLUSIVE and less.pairs_needed is not None and less.pairs_needed <= 12
    assert judge(NOTHING, [0.050, 0.051, 0.052], 0).pairs_needed is None


def test_a_winner_that_fails_gains_nothing() -> None:
    ok, crash = RunResult(Status.OK, "test", bpb=2.0), RunResult(Status.CRASH, "test", reason="x")
    assert differences([ok, ok], [replace(ok, bpb=1.9), crash]) == ([pytest.approx(0.1), 0.0], 1)
    once = judge(CLAIMED, [0.03, 0.031, 0.029, 0.03, 0.0301, 0.0], 1)
    assert once.low_bpb is not None and once.low_bpb > 0 and once.word is Word.INCONCLUSIVE
    values, failed = differences([ok] * 3, [crash] * 3)
    made = judge(CLAIMED, values, failed)
    assert made.word is Word.NOT_REPRODUCED and "failed in 3 of 3" in made.why
    flaky = judge(FLAKY, values, failed)
    assert flaky.word is Word.REPRODUCED and "no gain is counted; the winner failed in 3 of 3" in flaky.why


def test_of_the_stock_script_itself_no_gain_is_claimed() -> None:
    """Chance is no gain, neither there nor here. Where it confirmed one, that counts, and must be found again."""
    lucky = [0.050, 0.051, 0.052]
    assert judge(NOTHING, lucky, 0).word is Word.INCONCLUSIVE
    assert judge(NOTHING, lucky, 0, unchanged=True).word is Word.REPRODUCED
    assert judge(CLAIMED, [0.02, -0.03, 0.01], 0, unchanged=True).word is Word.INCONCLUSIVE
    assert judge(CLAIMED, [0.0, 0.001, -0.001], 0, unchanged=True).word is Word.NOT_REPRODUCED
    assert judge(NOTHING, [0.0, *lucky], 1, unchanged=True).word is Word.INCONCLUSIVE


STOCK_SOURCE = "EMBED_LR = 0.1\n"


def attempt(
    folder: Path, worth: float = 0.03, pairs: int = 3, sigma: float = 0.002, **options: Any
) -> tuple[Verdict, simulated.SimulatedBench]:
    """Reproduce a claim of 0.03 +- 0.01 where the winner is worth `worth`; goes on where the folder's journal ends."""
    subject = Subject(STOCK_SOURCE, "EMBED_LR = 0.6\n", CLAIMED, session_seed=0)
    bench = simulated.SimulatedBench({"0.6": worth}, sigma, **options)
    path = folder / "journal.jsonl"
    if path.exists():
        journal, records = Journal.open(path)
    else:
        folder.mkdir()
        journal = Journal.create(path)
        records = [journal.append("reproduction_open", nonce="1" * 32, num_pairs=pairs)]
    with journal:
        task = simulated.configuration().task
        again = Reproduction(subject, task, journal, records, bench, lambda _: None, walls=WALLS)
        return again.run(pairs), bench


def test_runs_are_paired_interleaved_and_on_test(tmp_path: Path) -> None:
    made, bench = attempt(tmp_path / "a")
    assert made.word is Word.REPRODUCED
    assert [run_id for run_id, *_ in bench.runs] == [
        "confirm_baseline-000", "confirm_candidate-000", "confirm_candidate-001", "confirm_baseline-001",
        "confirm_baseline-002", "confirm_candidate-002",
    ]  # fmt: skip
    seeds = [seed for _, seed, _ in bench.runs]
    assert seeds[0] == seeds[1] != seeds[2] == seeds[3]
    assert all(("0.6" in source) == ("candidate" in run_id) for run_id, _, source in bench.runs)


@pytest.mark.parametrize("times", [1, 9])
def test_a_run_beside_which_the_device_had_changed_is_made_again_once(tmp_path: Path, times: int) -> None:
    made, bench = attempt(tmp_path / "a", drifting={"confirm_candidate-000": times})
    assert made.word is Word.REPRODUCED and bench.cooled == 1
    assert [run_id for run_id, *_ in bench.runs].count("confirm_candidate-000") == 2 and len(bench.runs) == 7
    kinds = [record.type for record in read(tmp_path / "a" / "journal.jsonl")[0]]
    assert kinds.count("run_drifted") == 1 and kinds.count("run_finished") == 6


def test_a_claim_that_is_not_true_is_not_reproduced(tmp_path: Path) -> None:
    assert attempt(tmp_path / "a", worth=0.0)[0].word is Word.NOT_REPRODUCED
    assert attempt(tmp_path / "b", worth=0.0, sigma=0.05)[0].word is Word.INCONCLUSIVE


def test_it_resumes_at_every_line_without_doing_anything_twice(tmp_path: Path) -> None:
    whole, bench = attempt(tmp_path / "whole", pairs=2)
    lines = (tmp_path / "whole" / "journal.jsonl").read_bytes().splitlines(keepends=True)
    for kept in range(1, len(lines) + 1):
        folder = tmp_path / f"cut{kept}"
        folder.mkdir()
        (folder / "journal.jsonl").write_bytes(b"".join(lines[:kept]) + b'{"half')
        again, second = attempt(folder, pairs=2)
        assert again == whole
        done = sum(b'"run_finished"' in line for line in lines[:kept])
        assert second.runs == bench.runs[done:]
        shutil.rmtree(folder)


def test_more_pairs_continue_from_those_that_are_there(tmp_path: Path) -> None:
    first, _ = attempt(tmp_path / "a")
    again, bench = attempt(tmp_path / "a", pairs=5)
    assert (first.num_pairs, again.num_pairs, len(bench.runs)) == (3, 5, 4)
    assert again.confidence == 0.975
    extended = next(record for record in read(tmp_path / "a" / "journal.jsonl")[0] if record.type == "extended")
    assert (extended.data["walls"]["level"], extended.data["task"]["name"]) == (3, "tiny")
    assert attempt(tmp_path / "a", pairs=2)[0] == again  # fewer: the verdict stands


def test_a_failing_stock_script_says_nothing_of_the_winner(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match=r"the stock train\.py failed here"):
        attempt(tmp_path / "a", failing={"confirm_baseline-001": Status.CRASH})
    assert attempt(tmp_path / "a")[0].word is Word.REPRODUCED


def test_a_winner_that_does_not_run_here(tmp_path: Path) -> None:
    failing = {f"confirm_candidate-{index:03d}": Status.OOM for index in range(3)}
    made, _ = attempt(tmp_path / "a", failing=failing)
    assert (made.word, made.num_failed) == (Word.NOT_REPRODUCED, 3)


# Below: from a bundle, through the command's own way.

WEAK, STRONG = 0.005, 0.3
TINY = (
    *("task=tiny", "backend=null", "data=synthetic", "task.baseline_seeds=1", "task.confirm_seeds=2"),
    *(f"++task.knobs.{name}={WEAK}" for name in ("EMBED_LR", "MATRIX_LR", "HEAD_LR")),
)


@pytest.fixture(scope="module")
def tiny(bpbench_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of a simulated session with the real key of a task of the null backend; its winner truly gains."""
    root = tmp_path_factory.mktemp("tiny")
    config = simulated.configuration(base=TINY)
    folder = simulated.run_session(
        root / "tiny",
        "session.experiments=1",
        base=TINY,
        bench=simulated.SimulatedBench({str(STRONG): 0.2}),
        values=(str(STRONG),),
        device=probe(config.backend),
        data=prepare(config, lambda _: None),
    )
    return bundle.write(folder, root / "tiny.bundle.tar")


@pytest.mark.slow
def test_a_bundle_is_verified_and_reproduced(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify", str(tiny)]) == 0
    command = ["reproduce", str(tiny), "--root", str(tmp_path), *TINY[3:]]
    assert cli.main(command) == 0
    shown = capsys.readouterr().out
    assert "Consistent" in shown and "Reproduced: the winner gains here too." in shown
    records = [record.type for record in read(next(tmp_path.glob("*/journal.jsonl")))[0]]
    assert records.count("run_finished") == 4 and records[-1] == "verdict"
    assert cli.main(command) == 0  # again: the verdict is there already
    assert [record.type for record in read(next(tmp_path.glob("*/journal.jsonl")))[0]] == records


@pytest.mark.slow
def test_a_session_that_was_run_is_bundled_verified_and_reproduced(
    bpbench_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("patches").mkdir()
    weak = next(line for line in knobs.stock_source(STOCK, {"EMBED_LR": WEAK}).splitlines() if "EMBED_LR" in line)
    block = f"<<<<<<< SEARCH\n{weak}\n=======\nEMBED_LR = {STRONG}\n>>>>>>> REPLACE\n"
    Path("patches/0.edit").write_text(f"# A rate that learns\n{block}")
    own = ("agent=scripted", "agent.options.patches=patches", "session.name=real", "session.experiments=1")
    assert cli.main(["run", *TINY, *own]) == 0
    journal = next(Path().rglob("real/journal.jsonl"))
    closed = journal.read_bytes()
    assert cli.main(["resume", "real"]) == 0 and journal.read_bytes() == closed  # nothing follows the end
    assert cli.main(["bundle", "real"]) == 0
    assert cli.main(["verify", "real.bundle.tar"]) == 0
    assert cli.main(["reproduce", "--all", ".", *TINY]) == 0
    counts = json.loads(Path("reproductions/report.json").read_text())["counts"]
    assert counts["reproduced"] == 1 and sum(counts.values()) == 1


def test_a_folder_of_bundles_with_a_report(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, root = tmp_path / "bundles", tmp_path / "out"
    folder.mkdir()
    shutil.copy(tiny, folder / "b.bundle.tar")
    (folder / "a.bundle.tar").write_bytes(b"nonsense")
    results = reproduce.reproduce_all(
        reproduce.bundles_in(folder, print),
        lambda path: reproduce.reproduce(path, num_pairs=2, overrides=["task=demo"], root=root, say=print),
        print,
    )
    assert [result.verdict for result in results] == [None, None]
    assert "not a bundle" in str(results[0].error) and "counts seconds" in str(results[1].error)
    assert cli.main(["reproduce", "--all", str(tmp_path / "nothing")]) == cli.cli.EXIT_USAGE
    made = judge(CLAIMED, [0.03, 0.031, 0.029], 0)
    results = [*results, reproduce.Reproduced(tiny, root, made, None)]
    counts = json.loads(json.dumps(reproduce.report(results)))["counts"]
    assert counts == {"reproduced": 1, "not reproduced": 0, "inconclusive": 0, "no verdict": 2}


def test_a_bundle_of_another_key_is_refused(tiny: Path, tmp_path: Path) -> None:
    """Without the session's overrides this installation's stock script is another."""
    with pytest.raises(ConfigError, match="the bundle is of another key: stock_sha256"):
        reproduce.reproduce(tiny, num_pairs=2, overrides=(), root=tmp_path, say=print)
    assert not any(tmp_path.iterdir())


def test_a_session_on_a_processor_is_not_reproduced_on_a_gpu(session: Path, tmp_path: Path) -> None:
    whole = bundle.read(bundle.write(session, tmp_path / "one.bundle.tar"))
    opened = {**whole.state.opened, "key": {**whole.state.opened["key"], "clock": "metered"}}
    metered = replace(whole, state=replace(whole.state, opened=opened))
    with pytest.raises(
        ConfigError, match="clock is 'metered', here 'wall'; it was made on a processor: add backend=cpu"
    ):
        reproduce.check_key(metered, {"clock": "wall"})


def test_what_cannot_be_reproduced_is_refused_before_anything_is_made(session: Path, tmp_path: Path) -> None:
    path = bundle.write(session, tmp_path / "one.bundle.tar")
    whole = bundle.read(path)
    for name in ("../x", "a b", "", "x" * 100):
        config = {**whole.state.config, "task": {"name": name}}
        with pytest.raises(ConfigError, match="no such name is possible"):
            reproduce.local_config(replace(whole, state=replace(whole.state, config=config)), ())
    with pytest.raises(ConfigError, match="never confirmed"):
        reproduce.subject_of(replace(whole, state=replace(whole.state, gain=None)), 0)
    with pytest.raises(ConfigError, match="at least 2"):
        reproduce.reproduce(path, num_pairs=1, overrides=simulated.OVERRIDES[2:], root=tmp_path, say=print)
    assert [item.name for item in tmp_path.iterdir()] == ["one.bundle.tar"]


def test_it_ends_on_the_device_on_which_it_began() -> None:
    opened = Record(0, 0.0, "reproduction_open", {"device": {"fingerprint": "other"}}, "0" * 64)
    with pytest.raises(DeviceError, match="began on device other"):
        reproduce.check_device([opened], simulated.DEVICE)


def test_it_says_under_what_it_began_and_under_what_it_went_on(session: Path, tmp_path: Path) -> None:
    whole = bundle.read(bundle.write(session, tmp_path / "one.bundle.tar"))
    task = simulated.configuration().task
    for level, cuts in ((3, 32), (0, 2)):
        journal, records = reproduce.open_journal(tmp_path / "again")
        with journal:
            under = terms(replace(task, audit_cuts=cuts), replace(WALLS, level=level))
            reproduce.begin(journal, records, whole, simulated.DEVICE, under, 2)
    said = [
        (record.type, record.data["walls"]["level"], record.data["task"]["audit_cuts"])
        for record in read(tmp_path / "again" / "journal.jsonl")[0]
    ]
    assert said == [("reproduction_open", 3, 32), ("resumed", 0, 2)]


def test_other_numbers_of_a_task_are_named_and_words_about_it_are_not() -> None:
    own = {"audit_cuts": 32, "study": False, "knobs": {"DEPTH": 2}}
    assert other_numbers(own, {**own, "study": True, "first_look": True}) == []
    assert other_numbers(own, {**own, "audit_cuts": 2, "knobs": {}}) == ["audit_cuts", "knobs"]
    assert other_numbers(None, own) == ["audit_cuts", "knobs"]


def test_the_clock_that_auto_means_here_is_the_one_compared(tiny: Path) -> None:
    whole = bundle.read(tiny)
    config = reproduce.local_config(whole, TINY[3:])
    stock = stock_of(config.task)
    config.task.clock = "auto"
    with pytest.raises(ConfigError, match=r"clock is 'ticks', here '(wall|metered)'"):
        reproduce.ready(whole, config, stock)


def test_a_reproduction_tells_its_state(tmp_path: Path) -> None:
    attempt(tmp_path / "a")
    state = fold(read(tmp_path / "a" / "journal.jsonl")[0])
    assert len(state.baseline) == len(state.winner) == 3 and state.verdict is not None
    assert Role.CONFIRM_BASELINE.value == "confirm_baseline" and state.calibration is not None
