"""What the study of portability finds in ledgers whose true answers are known, and its page and plots."""

from __future__ import annotations

from dataclasses import replace

import pytest
import study_ledgers
from study_ledgers import run, study, variants_of

from harness.records import Calibration, Status
from leaderboard import page
from leaderboard.study import findings, portability_page, portability_plots
from leaderboard.study.findings import Held
from leaderboard.study.ledger import Ledger, Run
from leaderboard.study.variants import STOCK

EFFECTS = {"better": -0.03, "near": 0.004, "nearer": 0.002, "worse": 0.05, "bad": 0.12, "awful": 0.3} | {
    f"v{n}": 0.05 * n for n in range(1, 5)
}
SPEEDS = {"two": 1.0, "one": 0.6, "slow": 0.35}


@pytest.fixture(scope="module")
def ledger() -> Ledger:
    return study(SPEEDS, EFFECTS)


def test_findings_of_a_study_whose_answers_are_known(ledger) -> None:
    found = findings.findings(ledger, variants_of(EFFECTS))
    assert found.equivalent is Held.YES and found.same_order is Held.YES
    assert set(found.quiet) == set(SPEEDS)
    cost = 0.01 * study_ledgers.SLOPE
    assert all(item.low < 1.005 * cost < item.high for item in found.slopes.values())
    # With the same seconds everywhere the slowest place loses what its speed costs.
    assert found.raw.spread.largest_gap == pytest.approx(0.42, abs=0.01)
    assert not any(pair.equivalent for pair in found.raw.equivalences)
    assert found.calibrated.spread.largest_gap < 0.002


def test_interaction_between_variants_and_places_shows() -> None:
    effects = {f"v{n}": 0.02 * n for n in range(20)}
    found = findings.findings(study(SPEEDS, effects, interaction_sd=0.04), variants_of(effects))
    assert found.calibrated.interaction.sd == pytest.approx(0.04, rel=0.3)
    assert found.calibrated.interaction.p < 1e-3
    assert found.calibrated.close_interaction is None  # v0 and the stock script are two


def test_a_busy_place_is_no_quiet_place(ledger) -> None:
    runs = [replace(item, correction=0.5) if item.place == "slow" else item for item in ledger.runs]
    found = findings.findings(replace(ledger, runs=tuple(runs)), variants_of(EFFECTS))
    assert set(found.quiet) == {"one", "two"}


def test_a_place_that_has_only_begun_takes_no_verdict_from_the_others(ledger) -> None:
    begun = tuple(item for item in ledger.runs if item.place != "slow" or (item.variant == STOCK and item.seed == 0))
    found = findings.findings(replace(ledger, runs=begun), variants_of(EFFECTS))
    assert found.begun == ("slow",) and found.equivalent is Held.YES
    written = portability_page.sections(found.ledger, found, variants_of(EFFECTS))
    assert "(3 quiet of 3 places, 1 of them with too few seeds to count)" in written["verdicts"]


def test_one_place_decides_nothing(ledger) -> None:
    alone = replace(ledger, runs=tuple(item for item in ledger.runs if item.place == "two"))
    found = findings.findings(alone, variants_of(EFFECTS))
    assert found.equivalent is Held.UNMEASURED and found.same_order is Held.UNMEASURED


def test_a_place_that_was_not_calibrated_well_or_wandered_is_no_quiet_place(ledger) -> None:
    bad = Calibration(100.0, 50.0, 150.0, (100.0,), 5.0, 40.0, 0.5, calibrated=False)
    assert "one" not in findings.findings(replace(ledger, calibrations={"one": (bad,)}), []).quiet
    runs = [replace(item, correction=None, drift=-0.3) if item.place == "slow" else item for item in ledger.runs]
    assert set(findings.findings(replace(ledger, runs=tuple(runs)), []).quiet) == {"one", "two"}


def test_an_order_that_turns_does_not_hold(ledger) -> None:
    def turned(item: Run) -> Run:
        return replace(item, bpb=2.6 - item.bpb) if item.place == "slow" and item.variant != STOCK else item

    found = findings.findings(replace(ledger, runs=tuple(map(turned, ledger.runs))), variants_of(EFFECTS))
    assert found.same_order is Held.NO and findings.smallest_tau(found.calibrated.agreements, ["two", "slow"]) < 0


def test_few_variants_decide_nothing_and_take_nothing_from_others(ledger) -> None:
    """A third machine that has begun: neither a verdict of its own nor less of one for the others."""
    few = {STOCK, "near", "bad", "awful"}
    begun = tuple(item for item in ledger.runs if item.place != "slow" or item.variant in few)
    found = findings.findings(replace(ledger, runs=begun), variants_of(EFFECTS))
    assert found.calibrated.whole == ("two", "one") and found.same_order is Held.YES
    assert found.calibrated.interaction.num_places == 2 and found.calibrated.interaction.num_variants == 11
    only = tuple(item for item in ledger.runs if item.variant in few)
    assert findings.findings(replace(ledger, runs=only), variants_of(EFFECTS)).same_order is Held.UNMEASURED


def test_a_variant_that_fails_at_one_place_only_is_not_forgotten(ledger) -> None:
    def broken(item: Run) -> Run:
        gone = item.place == "slow" and item.variant == "awful"
        return replace(item, status=Status.OOM, bpb=None) if gone else item

    found = findings.findings(replace(ledger, runs=tuple(map(broken, ledger.runs))), variants_of(EFFECTS))
    assert found.lost == ("awful",) and found.same_order is not Held.YES


def test_the_margin_comes_from_the_first_place_alone(ledger) -> None:
    bare = replace(ledger, margin=None)
    made = findings.margin_of(bare, "two")
    assert made.degrees == 6
    assert made.margin_bpb == 1.5 * made.sigma_bpb
    assert made.slope_bpb_per_percent == pytest.approx(0.004, rel=0.25)
    less = tuple(item for item in bare.runs if item.share != 0.8)
    assert findings.margin_of(replace(bare, runs=less), "two") is None


def test_a_page_and_its_plots_are_made_of_the_data_alone(ledger, tmp_path) -> None:
    failed = run("one", "no|sy", 7, None, reason="<b>boom</b>")
    whole = replace(ledger, runs=(*ledger.runs, failed))
    found = findings.findings(whole, variants_of(EFFECTS))
    written = portability_page.sections(whole, found, variants_of(EFFECTS))
    assert "**holds** (3 quiet of 3 places)" in written["verdicts"]
    assert "3 of 3 places have 10 variants)" in written["verdicts"]
    assert r"no\|sy" in written["failures"] and "<b>" not in written["failures"]
    assert page.UNMEASURED not in written.values()
    drawn = portability_plots.draw(found, tmp_path)
    assert [path.name for path in drawn] == ["baseline.png", "ranking.png", "slope.png"]
    assert all(path.stat().st_size > 5000 for path in drawn)
