from __future__ import annotations

import io
import json
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest
import synthetic_journal
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from harness.fold import apply, fold
from harness.journal import Record
from harness.records import Gain, Progress, SessionState
from harness.views import make, plain, plot, render, report, rows, show, summary, terminal, text


def session(folder: Path, **options: object) -> list[Record]:
    folder.mkdir(exist_ok=True)
    return synthetic_journal.write(folder / "journal.jsonl", **options)  # type: ignore[arg-type]


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def paper(width: int = 80) -> Console:
    return Console(file=io.StringIO(), width=width, color_system=None, legacy_windows=False)


def screen(width: int = 80, height: int = 24) -> Console:
    return Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system="truecolor")


@given(st.text(), st.integers(min_value=1, max_value=50))
def test_a_clean_line_is_one_short_line_of_printable_characters(words: str, limit: int) -> None:
    clean = text.line(words, limit)
    assert len(clean) <= limit
    assert all(unicodedata.category(char)[0] != "C" and char not in "\u2028\u2029" for char in clean)


@given(st.text(alphabet=st.characters() | st.sampled_from("\x1b[]\x9b\x07m;0\\\n\r\t")))
def test_a_clean_block_holds_no_control_but_line_ends(words: str) -> None:
    for clean in (text.block(words), text.tail(words)):
        assert all(char == "\n" or unicodedata.category(char)[0] != "C" for char in clean)


def test_plain_text_passes_unchanged() -> None:
    words = "Größe 2 → 3: naïve ½ 模型 😀 x_1 = y^2"
    assert text.line(words) == text.block(words) == text.tail(words) == words
    assert text.block("a\r\nb\tc") == "a\nb   c"


def test_escape_sequences_leave_nothing_behind() -> None:
    hostile = "a\x1b[31mb\x1b]0;title\x07c\x1b]8;;http://example.org\x1b\\d\x9b2Je\x1b(Bf\x1b"
    assert text.line(hostile) == "abcdef"
    assert text.line("\x1b]0;never ended\nseen") == "0;never ended seen", "an unfinished one hides nothing"


def test_long_text_is_cut_and_says_so() -> None:
    million = "x" * 1_000_000
    assert text.line(million, 80) == "x" * 79 + "…"
    assert text.block(million, 100) == "x" * 100 + "\n… cut: 1,000,000 characters in all"
    assert text.tail(million + "end", 100).endswith("xend")
    assert len(text.line(" " * 1_000_000 + "y")) <= text.MAX_LINE


def test_markup_is_shown_literally() -> None:
    hostile = "[red]x[/red] [/] [link=https://example.org]y[/link] \\[bold]"
    assert Text.from_markup(text.markup(hostile)).plain == hostile


@pytest.mark.parametrize("width", [40, 80, 140])
@pytest.mark.parametrize("hostile", [False, True])
def test_every_frame_fits_the_terminal(tmp_path: Path, width: int, hostile: bool) -> None:
    records = session(tmp_path / "s", hostile=hostile, num=12)
    console = screen(width, 20)
    view = terminal.TerminalView(console, clock=lambda: records[-1].time)
    sizer = paper(width)
    for record in records:
        view._state = apply(view._state, record)
        if record.seq % 5:
            continue
        view._progress = Progress("train", "x", 0.5, 2.5, 10, 6.0)
        lines = sizer.render_lines(view.render(), pad=False)
        assert max(sum(cell_len(segment.text) for segment in line) for line in lines) <= width
        assert len(lines) <= 20


def test_the_live_display_of_an_unfinished_session_ends_with_the_whole_table(tmp_path: Path) -> None:
    records = session(tmp_path / "s", num=30)[:-1]
    console = screen(100, 20)
    view = terminal.TerminalView(console, clock=lambda: records[-1].time)
    view.on_progress(Progress("prepare", "", 0.2))
    for record in records:
        view.on_record(record.to_dict())
        view.on_progress(Progress("train", "x", 0.5, 2.5, 10, 6.0))
    view.close()
    view.close()
    last = printed(console)[printed(console).rindex("hypothesis") :]
    assert last.count("Deeper and narrower") == 5 and "earlier, see" not in last


def test_untrusted_text_reaches_no_terminal_raw(tmp_path: Path) -> None:
    records = session(tmp_path / "s", hostile=True)
    console = paper(200)
    show.show(tmp_path / "s", console)
    view = plain.PlainView(console)
    for record in records:
        view.on_record(record.to_dict())
    shown = printed(console)
    assert all(unicodedata.category(char)[0] != "C" or char == "\n" for char in shown)
    assert "[red]markup[/red] [link=https://example.org]x[/link] [/]" in shown
    assert "title" not in shown and "\u202e" not in shown
    assert len(shown) < 30_000


def test_plain_lines_tell_the_session_in_order(tmp_path: Path) -> None:
    console = paper(80)
    view = plain.PlainView(console)
    for record in session(tmp_path / "s"):
        view.on_record(record.to_dict())
        if record.type == "run_started":
            for step in range(100):
                view.on_progress(Progress("train", record.data["run_id"], step / 100, 2.5, step, 12.0))
    lines = printed(console).splitlines()
    assert lines[0].startswith(
        "session: task demo, agent tpe, data pypi, device cpu, Example CPU 3000, 2 threads, bfloat16"
    )
    assert lines[1] == "calibrated: 91,000 tokens/s, budget 12 s"
    assert lines[2:5] == [
        "baseline, seed 1 of 3: started",
        "  train  loss 2.500  12 s left",
        "baseline, seed 1 of 3: ok, 2.0120 val bpb in 17 s",
    ]
    assert "baseline: 2.0130 val bpb, sigma 0.0050" in lines
    assert "experiment 1: kept, val bpb 1.9950, gain +3.6 sigma" in lines
    assert "experiment 3: discarded (crash)" in lines
    assert lines[-1].startswith("Confirmed gain: +0.0443 bpb")


def test_long_phases_print_their_quarters(tmp_path: Path) -> None:
    console = paper(80)
    view = plain.PlainView(console)
    for step in range(101):
        view.on_progress(Progress("train", "x", step / 100, None, None, 300.0 - 3 * step))
    shares = [line.split("  ")[2] for line in printed(console).splitlines()[1:]]
    assert shares == ["25 %", "50 %", "75 %"]


def test_make_chooses_by_the_console() -> None:
    assert isinstance(make(screen()), terminal.TerminalView)
    assert isinstance(make(paper()), plain.PlainView)
    assert isinstance(
        make(Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": "dumb"})), plain.PlainView
    )


def test_show_says_how_to_go_on_at_every_record(tmp_path: Path) -> None:
    session(tmp_path / "whole")
    lines = (tmp_path / "whole" / "journal.jsonl").read_bytes().splitlines(keepends=True)
    cut = tmp_path / "cut"
    cut.mkdir()
    for number in range(1, len(lines)):
        (cut / "journal.jsonl").write_bytes(b"".join(lines[:number]))
        console = paper(100)
        show.show(cut, console)
        assert f"bpbench resume {cut}" in printed(console)
    console = paper(100)
    show.show(tmp_path / "whole", console)
    assert "Confirmed gain" in printed(console) and "resume" not in printed(console)


def test_show_reads_a_torn_journal_without_changing_it(tmp_path: Path) -> None:
    path = tmp_path / "s" / "journal.jsonl"
    session(tmp_path / "s", stop_after=12)
    path.write_bytes(path.read_bytes()[:-7])
    before = path.read_bytes()
    console = paper(100)
    show.show(tmp_path / "s", console)
    assert "is unfinished" in " ".join(printed(console).split()) and path.read_bytes() == before


def test_the_summary_holds_the_journals_figures(tmp_path: Path) -> None:
    state = fold(session(tmp_path / "s"))
    figures = json.loads(summary.write(tmp_path / "s").read_text())
    assert figures["gain"]["mean_bpb"] == pytest.approx((0.044 + 0.048 + 0.041) / 3)
    assert figures["baseline"] == {"bpb": 2.013, "sigma_bpb": 0.005, "bpb_per_seed": [2.012, 2.018, 2.009]}
    assert figures["experiments"] == {
        "planned": 6,
        "done": 6,
        "kept": 2,
        "by_status": {"ok": 4, "crash": 1, "invalid": 1},
    }
    assert figures["best"] == {"experiment": 4, "val_bpb": 1.977, "commit": f"{3:040x}"}
    assert figures["num_runs"] == 16
    trained = 15 * 12.01
    assert figures["time"]["budget_share"] == pytest.approx(trained / state.working_seconds)
    assert figures["time"]["evaluation_share"] == pytest.approx(15 * 2.2 / state.working_seconds)
    assert figures["researcher"]["prompt_tokens"] == 7200
    assert (figures["ranked"], figures["unranked"]) == (False, ["no isolation on this device"])
    assert any(line.startswith("Not ranked: no isolation") for line in summary.sentences(state))


def test_a_summary_of_a_young_session_leaves_the_unknown_null(tmp_path: Path) -> None:
    session(tmp_path / "s", stop_after=1)
    figures = json.loads(summary.write(tmp_path / "s").read_text())
    assert figures["gain"] is None and figures["time"]["budget_share"] is None and figures["best"] is None
    assert figures["ranked"] is False and figures["researcher"]["cost_usd"] is None


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.01, 0.03, "Confirmed gain: +0.0200 bpb (95 % interval +0.0100 to +0.0300"),
        (-0.01, 0.05, "No confirmed gain: +0.0200 bpb, but the interval holds 0"),
        (0.0, 0.04, "No confirmed gain"),
        (-0.05, -0.01, "Confirmed loss"),
        (None, None, "No confirmed gain: the candidate failed in 1 of 2 runs"),
    ],
)
def test_the_verdict_in_words(low: float | None, high: float | None, words: str) -> None:
    mean = None if low is None or high is None else 0.02
    gain = Gain(2, mean, low, high, (2.0, 2.0), (1.9, None if low is None else 1.9))
    assert rows.gain_sentence(gain).startswith(words)


def test_where_nothing_was_kept_chance_confirms_nothing(tmp_path: Path) -> None:
    state = fold(session(tmp_path / "s"))
    kept = tuple(replace(item, kept=index == 0) for index, item in enumerate(state.experiments))
    for sign in (1, -1):
        low, high = sorted((0.01 * sign, 0.03 * sign))
        best = replace(state, experiments=kept, gain=Gain(2, 0.02 * sign, low, high, (2.0, 2.0), (1.9, 1.9)))
        none = replace(best, experiments=tuple(replace(item, kept=False) for item in kept))
        assert (rows.tone(best), rows.tone(none)) == ("gain" if sign > 0 else "loss", "open")
        said = f"No experiment was kept; baseline against itself: {0.02 * sign:+.4f} bpb (95 % interval {low:+.4f} to "
        assert rows.verdict(none).startswith(said)
        assert summary.summary(none)["verdict"] == summary.sentences(none)[0] == rows.verdict(none)
        words = " ".join(item.get_text() for item in plot.draw(none).axes[0].texts)
        assert "baseline against itself" in words and "confirmed" not in words
        assert report._figures(none)[0] == ("baseline against itself", f"{0.02 * sign:+.4f}")
        same = replace(kept[0], source=state.opened["stock_source"])
        again = replace(best, experiments=(same, *kept[1:]))
        assert rows.tone(again) == "open" and rows.verdict(again).startswith("What was kept changes nothing; baseline")


def test_who_ended_a_session_is_told() -> None:
    def told(reason: str | None) -> str | None:
        return summary.stopped_sentence(SessionState(stopped_early=reason))

    assert told(None) is None and told("the researcher stopped: done") == "Stopped early: the researcher stopped: done"
    assert told("session.max_hours=2 was reached") == "Stopped by a limit: session.max_hours=2 was reached"


def test_the_estimate_falls_to_zero(tmp_path: Path) -> None:
    records = session(tmp_path / "s")
    estimates = [rows.seconds_left(fold(records[: end + 1]), records[end].time) for end in range(len(records))]
    known = [value for value in estimates if value is not None]
    assert estimates[2] is None and 150 < known[0] < 400 and known[-1] == 0.0
    shares = [rows.session_fraction(fold(records[: end + 1])) for end in range(len(records))]
    assert shares[0] == 0.0 and shares[-1] == 1.0


def test_the_oldest_experiments_make_room(tmp_path: Path) -> None:
    state = fold(session(tmp_path / "s", num=30))
    console = paper(80)
    console.print(render.history(state, max_lines=8))
    lines = printed(console).splitlines()
    assert "24 earlier" in "".join(lines) and lines[-1].split()[0] == "30" and len(lines) <= 12


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "-"), (0.0, "0 s"), (4.26, "4.3 s"), (59.4, "59 s"), (185.0, "3 min 05 s"), (7620.0, "2 h 07 min"),
        (1e300, "-"), (-1e300, "-"), (float("nan"), "-"),
    ],
)  # fmt: skip
def test_durations(seconds: float | None, words: str) -> None:
    assert text.duration(seconds) == words


def test_numbers_that_no_session_has_stay_short() -> None:
    assert text.bpb(1.23456) == "1.2346" and text.bpb(0.01, sign=True) == "+0.0100"
    assert text.bpb(1e300, sign=True) == "+1e+300" and text.sigmas(-1e300) == "-1e+300"


def test_a_device_that_was_too_restless_is_told_before_hours_are_spent(tmp_path: Path) -> None:
    records = session(tmp_path / "s", num=2)
    for restless in (False, True):
        console = screen(100, 20)
        view = terminal.TerminalView(console, clock=lambda: records[-1].time)
        for record in records[: next(i for i, each in enumerate(records) if each.type == "calibration") + 1]:
            made = record.to_dict()
            if restless and record.type == "calibration":
                made["data"] = {**made["data"], "calibrated": False}
            view.on_record(made)
        view.close()
        assert ("begin again" in " ".join(printed(console).split())) == restless
