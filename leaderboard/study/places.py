"""Where a study measures: this machine's device, and the same device in other settings (pseudo-devices)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import assemble
from harness.bench import LocalBench
from harness.compose import choose_from, compose
from harness.config import Config
from harness.data import DataInfo
from harness.device import Device, probe
from harness.errors import ConfigError, DeviceError
from harness.integrity import Witness
from harness.sizes import stock_of, stock_sha256
from leaderboard.study.ledger import Opened, Place

Say = Callable[[str], None]


@dataclass(frozen=True)
class Setting:
    """A way to use a device. `backends`: where it means something; () for everywhere."""

    name: str
    overrides: tuple[str, ...] = ()
    compiled: bool = True  # False: the stock script must not compile
    backends: tuple[str, ...] = ()


SETTINGS = (
    Setting("as_is"),
    Setting("one_thread", ("backend.threads=1",), backends=("cpu",)),
    Setting("two_threads", ("backend.threads=2",), backends=("cpu",)),
    Setting("float32", ("backend.dtype=float32",)),
    # A CPU that does not choose it by itself has no instructions for it, and would take a hundred times as long.
    Setting("bfloat16", ("backend.dtype=bfloat16",), backends=("cuda", "rocm", "mps")),
    Setting("eager", compiled=False),
)


@dataclass(frozen=True)
class Site:
    """A place of this machine, ready to be opened."""

    place: Place
    config: Config
    device: Device


def choose(names: Sequence[str]) -> tuple[Setting, ...]:
    """The settings called `names`; all for none. Raises ConfigError."""
    known = [setting.name for setting in SETTINGS]
    for name in names:
        if name not in known:
            raise ConfigError(f"no setting '{name}'; {choose_from(name, known)}")
    return tuple(setting for setting in SETTINGS if not names or setting.name in names)


def survey(overrides: Sequence[str], settings: Sequence[Setting], say: Say) -> tuple[Site, ...]:
    """The different places that `settings` make of this machine's device. Raises HarnessError if there is none."""
    backend = probe(compose(overrides).backend).name
    found: dict[str, Site] = {}
    for setting in settings:
        if setting.backends and backend not in setting.backends:
            continue
        try:
            site = _site(overrides, setting)
        except DeviceError as error:
            say(f"{setting.name}: not possible here: {error}")
            continue
        # The device as it is may already be what a setting asks for.
        found.setdefault(site.place.key, site)
    if not found:
        raise DeviceError("none of the settings is possible on this device: see `bpbench doctor`")
    return tuple(found.values())


def _site(overrides: Sequence[str], setting: Setting) -> Site:
    config = compose([*overrides, *setting.overrides])
    device = probe(config.backend)
    config.task.clock = assemble.choose_clock(config, device)
    config.task.compile = config.task.compile and setting.compiled
    compiled = device.compiles(config.task)
    how = "compiled" if compiled else "eager"
    model = next(
        (str(device.identity[key]) for key in ("gpu_model", "cpu_model") if key in device.identity), device.name
    )
    threads = f", {device.threads} thread{'s' if device.threads > 1 else ''}" if device.name == "cpu" else ""
    place = Place(
        key=f"{device.fingerprint}-{how}",
        label=f"{model}{threads}, {device.dtype}, {how}",
        setting=setting.name,
        fingerprint=device.fingerprint,
        compiled=compiled,
        clock=config.task.clock,
        identity=device.identity,
    )
    return Site(place, config, device)


def check_positive(option: str, value: float | None) -> None:
    """Raises ConfigError for a number that is given and not above 0."""
    if value is not None and not value > 0:
        raise ConfigError(f"{option} {value:g}: expected above 0")


def opened(study: str, config: Config, data: DataInfo, raw_seconds: float | None = None) -> Opened:
    """What a study of this task and text has in common on all machines."""
    return Opened(
        study=study,
        task=config.task.name,
        reference_tokens=config.task.reference_tokens,
        stock_sha256=stock_sha256(config.task),
        data_sha256=str(data.meta["data_sha256"]),
        sigma_prior_bpb=config.task.sigma_prior_bpb,
        raw_seconds=raw_seconds,
    )


@contextlib.contextmanager
def bench_at(site: Site, data: DataInfo, scratch: Path) -> Iterator[LocalBench]:
    """The bench of a place. Its folder under `scratch` stays: it holds the compiled code of the calibration."""
    folder = scratch / site.place.key
    folder.mkdir(parents=True, exist_ok=True)
    chosen = assemble.choose_sandbox(site.config, site.device)
    stock = stock_of(site.config.task)
    with assemble.open_bench(site.config, folder, data, site.device, stock, chosen, Witness(), lambda _: None) as bench:
        yield bench
