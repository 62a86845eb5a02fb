"""What a device makes of the tasks, and that a task which cannot fit is refused at once."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import synthetic_journal
from rich.console import Console

from harness import calibrations, cli, fit, predict, sizes, tasks
from harness.calibrate import check_budget
from harness.calibrations import Key
from harness.compose import compose
from harness.device import Device
from harness.errors import ConfigError, DeviceError, TaskMisfit
from harness.opening import pinned_torch, unranked
from harness.predict import GUESS_FACTOR, UTILISATION, Known, Source
from harness.records import Calibration, Walls
from harness.sandbox import canaries
from harness.views import device as view

SIZES = sizes.known()
BY_NAME = {size.task.name: size for size in SIZES}
LAPTOP = {"matmul_float32_gflops": 200.0, "matmul_bfloat16_gflops": None}
H100 = {"matmul_float32_gflops": 300e3, "matmul_bfloat16_gflops": 700e3, "launch_microseconds": 4.0}
DEVICE = Device("cpu", 2, "float32", {"fingerprint": "f" * 16, "torch_version": "2.13.0"}, {}, microprobes=LAPTOP)


def of(predictions, name):
    return next(item for item in predictions if item.size.task.name == name)


def test_tasks_are_ordered_by_their_arithmetic():
    assert [size.task.name for size in SIZES] == ["demo", "nano", "micro", "small", "full"]


def test_a_calibration_is_taken_as_it_is_and_scaled_for_the_others():
    known = {"demo": Known(100_000.0, Source.CALIBRATED, num_runs=3)}
    found = predict.predict(SIZES, known, None)
    demo, nano = of(found, "demo"), of(found, "nano")
    assert (demo.source, demo.budget_seconds) == (Source.CALIBRATED, pytest.approx(15.0))
    assert nano.source is Source.ESTIMATED and nano.basis == "scaled from demo"
    work = BY_NAME["nano"].flops / BY_NAME["demo"].flops
    assert nano.budget_seconds == pytest.approx(15.0 * work)


def test_the_nearest_task_is_scaled_and_the_measured_memory_shown():
    known = {
        "demo": Known(1e9, Source.MEASURED, memory_bytes=123),
        "small": Known(400_000.0, Source.MEASURED),
    }
    found = predict.predict(SIZES, known, LAPTOP)
    assert of(found, "full").basis == "scaled from small" and of(found, "nano").basis == "scaled from demo"
    assert (of(found, "demo").memory_bytes, of(found, "demo").memory_measured) == (123, True)
    assert not of(found, "small").memory_measured


def test_without_any_run_the_micro_probes_have_to_do():
    found = predict.predict(SIZES, {}, H100)
    assert of(found, "full").tokens_per_second == pytest.approx(UTILISATION * 700e12 / BY_NAME["full"].flops_per_token)
    assert predict.best(found).size.task.name == "full"
    assert predict.best(predict.predict(SIZES, {}, LAPTOP)).size.task.name == "nano"
    with pytest.raises(DeviceError, match="bpbench calibrate"):
        predict.predict(SIZES, {}, {"launch_microseconds": 1.0})


def test_only_what_no_error_could_make_fit_is_refused():
    full = BY_NAME["full"]
    limit = full.task.max_budget_seconds
    needed = full.flops / UTILISATION / 1e9  # GFLOP/s for a budget of one second
    near = predict.predict(SIZES, {}, {"matmul_float32_gflops": needed / (0.99 * GUESS_FACTOR * limit)})
    predict.check(full.task, near)
    far = predict.predict(SIZES, {}, {"matmul_float32_gflops": needed / (1.01 * GUESS_FACTOR * limit)})
    with pytest.raises(TaskMisfit, match=r"^task=full is too large for this device: .* use task=small$") as refused:
        predict.check(full.task, far)
    assert refused.value.predictions == far
    with pytest.raises(TaskMisfit, match="task=demo is too small"):
        predict.check(BY_NAME["demo"].task, predict.predict(SIZES, {}, H100))


def test_a_first_look_at_a_fast_device_has_another_way():
    gpu = Device("cuda", 1, "bfloat16", {"fingerprint": "f" * 16, "torch_version": "0"}, {}, microprobes=H100)
    with pytest.raises(TaskMisfit, match=r"use task=full, or backend=cpu for a first look$"):
        fit.check(BY_NAME["demo"].task, gpu)
    with pytest.raises(TaskMisfit, match=r"use task=full, or backend=cpu$"):
        fit.check(BY_NAME["nano"].task, gpu)
    for cores, words in ((16, "use task=full, or fewer cores: `taskset -c 0,1 bpbench ...`"), (2, "use task=full")):
        many = replace(gpu, name="cpu", identity={**gpu.identity, "num_cores": cores})
        with pytest.raises(TaskMisfit, match=f"{words}$"):
            fit.check(BY_NAME["nano"].task, many)


@pytest.mark.parametrize(
    ("name", "rate", "words"), [("nano", 5e3, "too slow.*use task=demo"), ("demo", 1e6, "too fast.*use task=micro")]
)
def test_a_measured_misfit_names_the_task_that_fits(name, rate, words):
    task = BY_NAME[name].task
    made = Calibration(rate, rate, rate, (rate,), 1.0, task.reference_tokens / rate, 0.0, True)
    with pytest.raises(DeviceError, match=words):
        check_budget(made, task)


def test_where_nothing_fits_it_says_so():
    task = BY_NAME["nano"].task
    with pytest.raises(DeviceError, match=r"none of the tasks \(demo, nano, micro, small, full\)"):
        check_budget(Calibration(1.0, 1.0, 1.0, (1.0,), 1.0, 6e6, 0.0, True), task)


def test_a_processor_that_is_too_fast_for_a_board_is_told_the_way_to_it():
    task = replace(BY_NAME["demo"].task, clock="metered")
    with pytest.raises(DeviceError, match=r"too fast: 1.0 s for .*, or fewer cores: `taskset -c 0,1 bpbench"):
        check_budget(Calibration(1e6, 1e6, 1e6, (1e6,), 1.0, 1.0, 0.0, True), task)


def test_kept_calibrations_are_found_and_damaged_ones_ignored(tmp_path, monkeypatch):
    monkeypatch.setenv("BPBENCH_HOME", str(tmp_path))
    made = Calibration(100.0, 99.0, 101.0, (100.0,), 1.0, 15.0, 0.001, True)
    for name, rate in (("demo", 100.0), ("demo", 300.0), ("nano", 7.0)):
        calibrations.remember(Key.of(DEVICE, BY_NAME[name].task), DEVICE, replace(made, tokens_per_second=rate))
    assert fit.kept(DEVICE) == {
        "demo": Known(200.0, Source.CALIBRATED, num_runs=2),
        "nano": Known(7.0, Source.CALIBRATED, num_runs=1),
    }
    Key.of(DEVICE, BY_NAME["nano"].task).path.write_text("{")
    assert set(fit.kept(DEVICE)) == {"demo"}


def test_the_table_says_what_each_row_rests_on():
    known = {"demo": Known(100_000.0, Source.CALIBRATED, num_runs=3), "nano": Known(20_000.0, Source.MEASURED, 2 << 30)}
    found = predict.predict(SIZES, known, LAPTOP)
    out = io.StringIO()
    identity = {"name": "cpu", "cpu_model": "a \x1b[2J[bold]model", "compile_hint": "torch.compile is off: why"}
    view.tasks(identity, LAPTOP, found, 6, "auto", Console(file=out, width=140))
    shown = out.getvalue()
    assert "calibrated: 3 kept" in shown and "estimated: scaled from nano" in shown and "torch.compile is off" in shown
    assert "[bold]model" in shown and "\x1b" not in shown
    assert "Use: bpbench run task=nano" in shown
    assert [line.split()[0] for line in shown.splitlines() if "GiB" in line] == list(BY_NAME)
    answer = tasks.as_json(replace(DEVICE, identity=identity), found, 6)
    assert answer["use"] == "nano" and [row["fits"] for row in answer["tasks"]] == [True, True, False, False, False]


def test_the_command_that_is_advised_is_for_the_same_backend():
    found = predict.predict(SIZES, {"demo": Known(100_000.0, Source.CALIBRATED, num_runs=3)}, LAPTOP)
    assert next(view.advice(found, "cpu")) == next(view.advice(found, "auto")) + " backend=cpu"


def test_a_task_is_called_as_its_file_is(tmp_path):
    (tmp_path / "mine.yaml").write_text((sizes.TASKS / "demo.yaml").read_text())
    with pytest.raises(ConfigError, match=r"mine.yaml: its name is demo, expected mine"):
        sizes.known(tmp_path)


def test_a_refusal_comes_with_the_table(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("BPBENCH_HOME", str(tmp_path))
    with pytest.raises(TaskMisfit) as refused:
        fit.check(BY_NAME["full"].task, DEVICE)
    assert cli._report(refused.value) == cli.EXIT_ERROR
    *table, last = capsys.readouterr().err.splitlines()
    assert [line.split()[0] for line in table if "GiB" in line] == list(BY_NAME)
    assert last.startswith("bpbench: task=full is too large for this device: about ") and "use task=nano" in last


@pytest.mark.slow  # waits for whoever holds this machine's device
def test_full_on_a_cpu_is_refused_before_anything_is_fetched(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "harness.cli", "run", "task=full", "backend=cpu", "agent=noop"],
        cwd=tmp_path,
        env=os.environ | {"BPBENCH_HOME": str(tmp_path / "home"), "PYTHONPATH": str(Path(sizes.STOCK).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("bpbench: task=full is too large for this device: about ")
    assert all(f" {name} " in f" {done.stderr} ".replace("\n", " ") for name in BY_NAME), "the table"
    assert not (tmp_path / "home").exists() and not (tmp_path / "sessions").exists()


@pytest.mark.slow  # likewise
def test_where_nothing_is_kept_the_quickest_task_is_run(tmp_path, monkeypatch):
    monkeypatch.setenv("BPBENCH_HOME", str(tmp_path))
    device, found = tasks.survey(compose(["backend=cpu"]), lambda progress: None)
    assert device.microprobes["matmul_float32_gflops"] > 1
    assert of(found, "demo").source is Source.MEASURED and of(found, "demo").memory_measured
    assert {item.basis for item in found[1:]} == {"scaled from demo"}
    estimate = BY_NAME["demo"].memory_bytes / of(found, "demo").memory_bytes
    assert 0.5 < estimate < 2, "the rough guess of harness/sizes.py"
    assert not list(tmp_path.iterdir()), "no data were needed"


def test_a_step_clock_has_nothing_to_calibrate():
    with pytest.raises(ConfigError, match="task=demo or larger"):
        tasks.calibrate(compose(["task=tiny", "backend=null", "data=synthetic"]), lambda progress: None)


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["backend.threads=1"], "backend.threads is set: leave it to the device"),
        (["backend.dtype=float32"], "backend.dtype is set: leave it to the device"),
        (["agent=llm", "llm=gpt", "llm.seed=1"], "llm.seed is set: the provider's own sampling is what is compared"),
        (["agent=replay", "agent.options.session=SESSION"], "agent=replay repeats another session"),
        ([], None),
    ],
)
def test_what_keeps_a_session_from_being_ranked_is_said_when_it_opens(overrides, reason, tmp_path):
    synthetic_journal.write(tmp_path / "journal.jsonl")
    overrides = [word.replace("SESSION", str(tmp_path)) for word in overrides]
    walls = Walls("bubblewrap", 3, dict.fromkeys(canaries.NEEDED, canaries.HELD))
    assert list(unranked(compose(overrides), walls, "2.13.0")) == ([reason] if reason else [])


@pytest.mark.parametrize(("version", "ranked"), [("2.13.0", True), ("2.13.0+cu130", True), ("2.12.1", False)])
def test_only_the_pinned_torch_is_ranked(version, ranked):
    assert pinned_torch() == "2.13.0"
    walls = Walls(level=3, name="bubblewrap", canaries={})
    reasons = [reason for reason in unranked(compose([]), walls, version) if reason.startswith("torch")]
    told = f"torch {version}: install torch==2.13.0, the version that rows are compared on"
    assert reasons == ([] if ranked else [told])
