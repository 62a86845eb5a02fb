"""What a session is: the facts of its opening record, its key, and what keeps it off the leaderboard from the start."""

from __future__ import annotations

import hashlib
import platform
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from importlib.metadata import requires, version
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from harness import sizes
from harness.codec import to_json
from harness.config import Config, ScriptedConfig
from harness.data import DataInfo
from harness.device import Device
from harness.errors import ConfigError, DataError, DeviceError
from harness.fold import fold
from harness.journal import Journal, Record
from harness.llm import settings
from harness.records import SessionState, Walls
from harness.sandbox import canaries

PROTOCOL_VERSION = 3
NO_RESEARCHER = {
    "replay": "agent=replay repeats another session",
    "scripted": "agent=scripted applies edits that were prepared before",
}
ROOT = Path(__file__).resolve().parent.parent
# In a clone it lies at the top, in an installation beside this file.
PROGRAM = next(path for path in (ROOT / "program.md", Path(__file__).with_name("program.md")) if path.is_file())


def opening_facts(config: Config, data: DataInfo, device: Device, walls: Walls) -> dict[str, Any]:
    """What the session is; fails before anything was made when the configuration does not hold together."""
    stock = sizes.stock_of(config.task)
    program = instructions(config)
    return {
        "config": plain(config),
        "key": key(config, stock, data),
        "device": device.identity,
        "power_state": device.power_state,
        "microprobes": device.microprobes,
        "backend": device.for_child(),
        "versions": {
            "bpbench": version("bpbench"),
            "python": platform.python_version(),
            "torch": device.torch_version,
            "platform": platform.platform(),
        },
        "packages": packages(),
        "stock_sha256": hashlib.sha256(stock.encode()).hexdigest(),
        "stock_source": stock,
        "data": data.meta,
        "task_view": task_view(config, data, device),
        "program": program,
        "program_sha256": hashlib.sha256(program.encode()).hexdigest(),
        "num_baseline": config.task.baseline_seeds,
        "num_confirm": config.task.confirm_seeds,
        "walls": to_json(walls),
        "unranked": list(unranked(config, walls, device.torch_version)),
    }


def plain(config: Config) -> Any:
    """The configuration as a session records it: group -> its values."""
    return OmegaConf.to_container(OmegaConf.structured(config), resolve=True)


def instructions(config: Config) -> str:
    """What a researcher is told. Raises ConfigError where the file cannot be read."""
    program = Path(config.program or PROGRAM)
    try:
        return program.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"program={program}: cannot be read ({error}); expected a text file") from error


def key(config: Config, stock: str, data: DataInfo) -> dict[str, Any]:
    """Rows compare within one key only."""
    return {
        "protocol": PROTOCOL_VERSION,
        "task": config.task.name,
        "reference_tokens": config.task.reference_tokens,
        "stock_sha256": hashlib.sha256(stock.encode()).hexdigest(),
        "data_sha256": data.meta["data_sha256"],
        "tokenizer_sha256": data.meta["tokenizer_sha256"],
        "clock": config.task.clock,
    }


def packages() -> dict[str, str]:
    """The installed version of everything that bpbench itself requires."""
    names = (re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0] for line in requires("bpbench") or () if ";" not in line)
    return {name: version(name) for name in sorted(names)}


def pinned_torch() -> str | None:
    """The one version whose numerics rows compare within: what bpbench requires."""
    found = (re.match(r"torch==([0-9.]+)", line) for line in requires("bpbench") or ())
    return next((match.group(1) for match in found if match), None)


def unranked(config: Config, walls: Walls, torch_version: str) -> Iterator[str]:
    """What keeps such a session off the leaderboard whatever its result."""
    if config.task.clock == "ticks":
        yield "task.clock=ticks: a step clock is no time"
    if config.data.source == "synthetic":
        yield "data.source=synthetic: generated text"
    pinned = pinned_torch()
    if torch_version.partition("+")[0] != pinned:  # 2.13.0+cu130 is 2.13.0 for another device
        yield f"torch {torch_version}: install torch=={pinned}, the version that rows are compared on"
    yield from canaries.missing(walls)
    if config.task.clock != "ticks":
        yield from devices_own(asdict(config.backend))
    if config.llm.scripted != ScriptedConfig():
        yield "llm.scripted: a script, no language model"
    if config.llm.name != settings.NO_LLM:
        yield from settings.unranked(asdict(config.llm))
    if config.agent.name in NO_RESEARCHER:
        yield NO_RESEARCHER[config.agent.name]
    if config.agent.name == "external":
        yield (
            "agent=external: its program runs outside the walls and can read the evaluation text, the session's seeds "
            "and its user's keys"
        )
        yield "agent=external: its network is not limited to its model's provider"


def devices_own(backend: Mapping[str, Any]) -> Iterator[str]:
    """What of a configuration's group `backend` a ranked session, and a reproduction that counts, leave to the device.

    With a choice of its own the device has another fingerprint, under which seeds begin at 0 again.
    """
    for name in ("threads", "dtype"):
        if backend.get(name) is not None:
            yield f"backend.{name} is set: leave it to the device"


def task_view(config: Config, data: DataInfo, device: Device) -> dict[str, Any]:
    """What train.py may know of its task."""
    task = config.task
    return {
        "name": task.name,
        "vocab_size": task.vocab_size,
        "sequence_length": task.sequence_length,
        "reference_tokens": task.reference_tokens,
        "bos_token": data.meta["bos_token"],
        "eval_batch_size": task.eval_batch_size,
        "compile": device.compiles(task),
    }


def told(state: SessionState) -> dict[str, Any]:
    """What a researcher is told of the task: what train.py knows, and limits."""
    task, data = state.config.get("task", {}), state.config.get("data", {})
    splits = state.opened.get("data", {}).get("splits", {})
    return {
        **state.opened["task_view"],
        "text": data.get("about") or data.get("name"),
        "num_train_tokens": splits.get("train", {}).get("num_tokens"),
        "max_setup_seconds": task.get("max_setup_seconds"),
        "max_memory_bytes": task.get("max_memory_bytes"),
    }


def resuming_facts(journal: Journal, records: list[Record], walls: Walls, torch_version: str) -> dict[str, Any]:
    """A session that goes on behind other walls is behind the weakest of them."""
    before = fold(records).walls
    return {
        "reason": journal.recovered or "resumed",
        "walls": to_json(canaries.weakest(before, walls) if before else walls),
        "unranked": list(canaries.missing(walls)),
        "torch": torch_version,
        "packages": packages(),
    }


def fewer_cores(began_on: Mapping[str, Any], device: Device) -> str:
    """What makes `device` the one that something began on, where that had been given a part of its cores."""
    then, now = began_on.get("num_cores"), device.identity.get("num_cores")
    if not isinstance(then, int) or not isinstance(now, int) or not 0 < then < now:
        return ""
    if any(began_on.get(name) != device.identity.get(name) for name in ("cpu_model", "vector_instructions")):
        return ""  # another processor
    return f"; there it had {then} of the cores, here {now}: `taskset -c 0-{then - 1} bpbench ...` gives as many"


def check_same(state: SessionState, data: DataInfo, device: Device) -> None:
    """A session ends on the device and the text on which it began."""
    began_on = state.opened["device"]
    if began_on["fingerprint"] != device.fingerprint:
        raise DeviceError(
            f"this session began on {began_on.get('cpu_model', began_on['name'])} ({began_on['fingerprint']}), this is "
            f"{device.identity.get('cpu_model', device.name)} ({device.fingerprint}): resume it there, or "
            f"start a new one{fewer_cores(began_on, device)}"
        )
    compiled, compiles = state.opened["task_view"]["compile"], bool(device.identity.get("has_compiler"))
    if not state.closed and state.config["task"]["compile"] and compiled != compiles:
        then, now = ("compiled", "there is no compiler") if compiled else ("ran eagerly", "there is a compiler")
        raise DeviceError(f"this session {then}, which its calibration rests on, and {now} now: resume it as it began")
    began, here = state.opened["versions"]["torch"], device.torch_version
    if not state.closed and began != here:
        raise ConfigError(f"this session began with torch {began}, this is {here}: resume it with that one")
    if not state.closed and state.opened["key"]["protocol"] != PROTOCOL_VERSION:
        raise ConfigError(
            f"this session began under version {state.opened['key']['protocol']} of the protocol, this is "
            f"{PROTOCOL_VERSION}: resume it with the version of bpbench that it began with"
        )
    if state.opened["data"]["data_sha256"] != data.meta["data_sha256"]:
        raise DataError("the prepared data differ from those the session began with: start a new session")
