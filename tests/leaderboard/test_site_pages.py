"""What the pages say: of a session, of a device, of an empty board and of what was not checked."""

from __future__ import annotations

import re
from dataclasses import replace

import published_sessions as sessions
from built_sites import CONTROL, built, built_collection, front, front_of, index, three_rows
from site_pages import Page, broken, parsed

from leaderboard.portability import Portability
from leaderboard.published import Category, Published, Tier
from leaderboard.site import words
from leaderboard.site.build import files
from leaderboard.site.links import slug
from leaderboard.verdict import Word


def test_without_a_language_model_the_page_says_how_one_gets_there(base: Published) -> None:
    five = "bpbench run -m task=nano agent=llm llm=claude_sonnet session.seed=0,1,2,3,4"
    command = f"{five} session.name='${{task.name}}-${{llm.name}}-s${{session.seed}}' --yes"
    control = index(front(sessions.rows(base, "tpe", 0.03, category=CONTROL))).text
    model = index(front(sessions.rows(base, "model", 0.03, category=Category.LLM))).text
    assert "No language model is on the board yet" in control and "No language model" not in model
    assert command in control and command in model


def test_an_empty_board_is_a_page() -> None:
    found = built()
    page = index(found)
    assert broken(parsed(found), found) == []
    assert "The board is empty" in page.text and not page.named("form") and not page.named("table")


def test_a_session_without_a_bundle_has_a_page(base: Published) -> None:
    unseen = replace(base, bundle=None, outcome=None, tier=Tier.SELF_REPORTED, url="https://example.org/a.bundle.tar")
    found = built([unseen])
    page = index(found)
    assert "Published, not checked here" in page.text and "what is published has not been checked here" in page.text
    assert "Nothing has been published" not in page.text
    page = Page(found[f"session/{slug(unseen.name)}.html"].decode())
    assert "not checked here, for its bundle is elsewhere" in page.text
    assert "https://example.org/a.bundle.tar" in page.values("href")


def test_a_session_page_has_its_experiments_and_who_retrained_it(base: Published) -> None:
    page = Page(built([base])[f"session/{slug(base.name)}.html"].decode())
    assert sum(tag == "article" for tag, _ in page.tags) == 6
    for said in (*sessions.IDEAS, "EMBED_LR = 0.6", "a reproducer", "reproduced", "End of the training log"):
        assert said in page.text
    labels = [label for label in page.values("aria-label") if re.match(r"Experiment \d", label)]
    assert len(set(labels)) == 6
    assert re.fullmatch(r"Experiment 1: training loss from \d[\d.]+ to .* over \d.*; the baseline's from .*", labels[0])
    scrolling = [pre for pre in page.named("pre") if pre["aria-label"] != "Commands"]
    assert len({pre["aria-label"] for pre in scrolling}) == len(scrolling) >= 10
    assert all(pre["tabindex"] == "0" and pre["role"] == "group" for pre in scrolling)


def test_a_session_that_kept_nothing_says_so(base: Published) -> None:
    assert base.bundle is not None
    state = base.bundle.state
    dropped = replace(state, experiments=tuple(replace(item, kept=False) for item in state.experiments))
    for item, nothing in ((base, False), (replace(base, bundle=replace(base.bundle, state=dropped)), True)):
        text = Page(built([item])[f"session/{slug(base.name)}.html"].decode()).text
        assert ("No experiment was kept" in text) == ("stock script again, test bpb" in text) == nothing
        assert ("baseline against itself, bpb" in text) == ("gain on test, bpb" not in text) == nothing


def test_a_session_that_was_resumed_says_after_how_long(base: Published) -> None:
    assert base.bundle is not None
    state = base.bundle.state
    assert state.opened_at is not None and state.last_at is not None and not state.num_restarts
    resumed = replace(state, num_restarts=2, last_at=state.last_at + 5400.0)
    pages = [
        Page(
            built([replace(base, bundle=replace(base.bundle, state=each))])[f"session/{slug(base.name)}.html"].decode()
        )
        for each in (state, resumed)
    ]
    assert ["Resumed" in page.text for page in pages] == [False, True]
    assert "Resumed 2 times, after 1 h 30 min without a record." in pages[1].text


def test_the_submitter_speaks_below_the_figures(base: Published) -> None:
    text = Page(built([replace(base, note="We tuned it.")])[f"session/{slug(base.name)}.html"].decode()).text
    assert "The submitter says: We tuned it." in text
    assert text.index("gain on test, bpb") < text.index("The submitter says:")


def test_reproductions_that_decide_are_marked_and_contesting_ones_come_first(base: Published) -> None:
    (made,) = base.retrained
    lost = replace(made, by="doubter", verdict=replace(made.verdict, word=Word.NOT_REPRODUCED))
    many = tuple(replace(made, by=f"r{number:02d}", counts=False) for number in range(25))
    page = Page(built([replace(base, retrained=(*many, lost))])[f"session/{slug(base.name)}.html"].decode())
    assert page.text.index("doubternot reproducedyes") < page.text.index("r00reproducedno")
    assert "and 6 more" in page.text and "r18" in page.text and "r19" not in page.text
    assert "retrained by" not in page.text  # nobody whose verdict counts agreed


def test_a_device_page_says_who_recorded_it(base: Published) -> None:
    found = built([base])
    (path,) = [path for path in found if path.startswith("device/")]
    assert f"As session {base.name} recorded it" in Page(found[path].decode()).text
    assert b"<dt>bpbench</dt>" not in found[path]


def test_the_pages_claim_what_is_so(base: Published) -> None:
    page = index(front_of(three_rows(base)))
    for claim in (
        "a fixed number of experiments and a calibrated budget",
        "Gains follow from the records of published bundles, which bpbench verify recomputes.",
        "Researchers on tiny, 6 experiments a session, in the order of the ranking",
        "published, not checked here: the bundle is elsewhere",
    ):
        assert claim in page.text, claim
    (board,) = sessions.collection(sessions.rows(base, "tpe", 0.03)).boards
    pooled = replace(board, portability=Portability(("a", "b"), 0.001, 0.0042))
    bound = "Devices are pooled: their stock baselines differ by 0.0010 bpb at most (95 % bound 0.0042)."
    assert bound in list(words.notes(pooled))


def test_a_withdrawn_session_leaves_its_reason(base: Published) -> None:
    gone = {"demo-tpe-s0-0123abcd": "its machine <b>overheated</b>", base.name: "is here all the same"}
    for shown in ([], [base]):
        found = files(replace(built_collection(shown), withdrawn=gone if shown else dict(list(gone.items())[:1])))
        pages = parsed(found)
        assert broken(pages, found) == []
        told = pages["session/demo-tpe-s0-0123abcd.html"].text
        assert "Withdrawn: its machine <b>overheated</b>" in told and "on no board" in told
        front = pages["index.html"].text
        assert ("What was published has been withdrawn" in front) != bool(shown)
        assert "demo-tpe-s0-0123abcd: its machine" in front and "Nothing has been published" not in front
        assert "is here all the same" not in front


def test_a_session_leads_to_its_board(base: Published) -> None:
    found = built(sessions.rows(base, "best", 0.05), sessions.rows(base, "few", 0.05, num=2, tier=Tier.CONSISTENT))
    (board,) = [item["id"] for item in index(found).named("section") if "data-task" in item]
    page = Page(found["session/tiny-few-s1.html"].decode())
    assert f"../index.html#{board}" in page.values("href")


def test_a_board_says_what_its_numbers_are_beside(base: Published) -> None:
    """The stock script's own score, and how far two seeds of it are apart."""
    assert base.bundle is not None
    state = base.bundle.state
    runs = [
        [replace(run, bpb=bpb) for run, bpb in zip(of_role, scores, strict=False)]
        for of_role, scores in ((state.baseline, (1.50, 1.51, 1.52)), (state.confirm_baseline, (1.50, 1.50, 1.53)))
    ]
    told = replace(state, baseline=tuple(runs[0]), confirm_baseline=tuple(runs[1]), baseline_bpb=1.51)
    page = index(front(sessions.rows(base, "tpe", 0.03, bundle=replace(base.bundle, state=told)))).text
    assert "stock script1.5100 bpb on val, lower is better" in page
    # Deviations 0.01 and 0.0173 with two degrees each; the root of their mean square is 0.0141, times the root of two.
    assert "two seeds of it differ by 0.0200 bpb as a rule" in page
