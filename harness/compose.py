"""From overrides and the YAML under conf/ to a checked `Config`, or to one line that says what is wrong.

Hydra composes and checks types; this module turns its errors into lines that name the key and list what is valid,
and holds the checks that need more than one key.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException, ValidationError

from harness import agents, tracking
from harness.config import Config, DataConfig
from harness.errors import ConfigError
from harness.llm import settings

CONF_DIR = Path(__file__).resolve().parent.parent / "conf"
GROUPS = ("agent", "llm", "backend", "task", "data", "session", "tracker")
HYDRA_ERRORS = (HydraException, OmegaConfBaseException)

SANDBOX_LEVELS = ("auto", "3", "2", "1", "0")
_CLOCKS = ("auto", "wall", "metered", "ticks")
_BUDGET_CLOCKS = ("auto", "wall", "metered")
_DTYPES = ("float32", "bfloat16")
_NOT_A_STRING = re.compile(r"(?<![\w'\".-])(null|true|false|[-+]?[\d.]+)(?![\w'\".-])", re.IGNORECASE)
_BYTE_TOKENS = 256  # a byte-level tokenizer cannot have fewer, and needs one more for <|bos|>


def compose(overrides: Sequence[str] = (), conf_dir: Path = CONF_DIR) -> Config:
    """Compose and check conf/config.yaml with Hydra `overrides` (`key=value`). Raises ConfigError."""
    register_schema()
    refuse_fixed(overrides)
    try:
        with initialize_config_dir(config_dir=str(conf_dir), version_base="1.3"):
            composed = hydra_compose("config", overrides=quote_options(overrides))
        config = to_config(composed)
    except HYDRA_ERRORS as error:
        raise explain(error) from error
    return with_text_of_task(config, overrides, conf_dir)


def with_text_of_task(config: Config, overrides: Sequence[str], conf_dir: Path = CONF_DIR) -> Config:
    """The text that the task is made for, where `overrides` say nothing of it: the default one may be too short."""
    named = any(override.lstrip("+~").startswith(("data=", "data.", "data@")) for override in overrides)
    if config.task.data is not None and not named and config.data.name != config.task.data:
        # Not by Hydra: in one of its own jobs it would not start a second time.
        paths = {path.stem: path for path in (conf_dir / "data").glob("*.yaml")}
        if config.task.data not in paths:
            raise ConfigError(f"unknown task.data={config.task.data}; {choose_from(config.task.data, paths)}")
        try:
            loaded = OmegaConf.load(paths[config.task.data])
            data = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(DataConfig), loaded))
        except OmegaConfBaseException as error:
            raise explain(error) from error
        assert isinstance(data, DataConfig)
        config.data = data
    return config


def from_dict(plain: Mapping[str, Any]) -> Config:
    """The configuration of an earlier session, from the plain values it recorded. Raises ConfigError.

    It was checked when the session began. What it took from files by then (`program`) is in the record, and the files
    may be gone.
    """
    try:
        merged = OmegaConf.merge(OmegaConf.structured(Config), OmegaConf.create(dict(plain)))
        assert isinstance(merged, DictConfig)
        return _typed(merged)
    except OmegaConfBaseException as error:
        raise explain(error) from error


def to_yaml(config: Config) -> str:
    """The whole configuration as YAML."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def to_config(composed: DictConfig) -> Config:
    """What Hydra composed, as the typed and checked `Config`."""
    config = _typed(composed)
    validate(config)
    return config


def _typed(composed: DictConfig) -> Config:
    _refuse_unknown_keys(composed, Config, "")
    config = OmegaConf.to_object(composed)
    assert isinstance(config, Config)
    return config


@functools.cache
def register_schema() -> None:
    """Make harness/config.py known to Hydra as `schema`, the first of conf/config.yaml's defaults."""
    ConfigStore.instance().store(name="schema", node=Config)


def quote_options(overrides: Sequence[str]) -> list[str]:
    """Overrides in which a group's option may look like another type: Hydra reads `backend=null` as "no value"."""
    return [_quote_option(override) for override in overrides]


def refuse_fixed(overrides: Sequence[str]) -> None:
    """Raises ConfigError for an override of what a task's results are compared by."""
    if any(override.lstrip("+~").partition("=")[0] == "task.reference_tokens" for override in overrides):
        raise ConfigError("task.reference_tokens makes a task what it is: choose another, or write conf/task/NAME.yaml")


def choose_from(word: str, valid: Iterable[str]) -> str:
    """`did you mean 'x'? valid: x, y, z`, the close match only where there is one."""
    names = sorted(valid)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"{hint}valid: {', '.join(names) or '(none)'}"


def explain(error: Exception) -> ConfigError:
    """Hydra's or OmegaConf's `error` as one line that names the key and says what is valid."""
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, option = (error.missing_cfg_file or "").rpartition("/")
        return ConfigError(f"unknown {group}={option}; {choose_from(option, error.options)}")
    if isinstance(error, OverrideParseException):
        key, equals, value = str(error.override).partition("=")
        quoted = f"; a value with other signs than letters, digits and -_./ is written '{key}=\"{value}\"', both quotes"
        return ConfigError(
            f"cannot read the override '{error.override}': expected KEY=VALUE, such as agent=random"
            + quoted * bool(key and equals and not set(value) & set("\"'"))
        )
    text = str(error) if error.__cause__ is None else f"{error}\n{error.__cause__}"
    if ambiguous := re.search(r"Ambiguous value for argument '(.*)'", text):
        return ConfigError(f"{ambiguous.group(1)} lists several values: `bpbench run -m` runs a session for each")
    found = re.search(r"full_key: (\S+)", text)
    return _explain_key(found.group(1), error, text) if found else ConfigError(_first_line(text))


def validate(config: Config) -> None:
    """The checks that types cannot make. Raises ConfigError, one line naming the key."""
    for key, value in _numbers(dataclasses.asdict(config)):
        _require(math.isfinite(value), key, "a finite number", value)
    _validate_session(config)
    _validate_task(config)
    _validate_backend(config)
    _validate_sandbox(config)
    settings.validate(config, agents.load(config.agent))
    tracking.check(config.tracker)


def _numbers(value: Any, key: str = "") -> Iterator[tuple[str, float]]:
    """Every float of a configuration with its key. An infinite one could not be written down."""
    if isinstance(value, float):
        yield key, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        yield from _numbers(item, f"{key}.{name}" if key else str(name))


def _quote_option(override: str) -> str:
    key, equals, value = override.partition("=")
    return key + equals + _NOT_A_STRING.sub(r"'\1'", value) if key in GROUPS else override


def _validate_session(config: Config) -> None:
    session = config.session
    some = session.experiments is not None or session.max_hours is not None
    _require(some, "session.experiments", "a number where session.max_hours sets no limit", session.experiments)
    least = session.experiments is None or session.experiments >= 1
    _require(least, "session.experiments", "at least 1", session.experiments)
    _require(0 <= session.seed < 2**32, "session.seed", "from 0 to 2**32 - 1", session.seed)
    _require(session.max_hours is None or session.max_hours > 0, "session.max_hours", "above 0", session.max_hours)
    plain = session.name is None or re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", session.name) is not None
    _require(plain, "session.name", "letters, digits, '.', '_' and '-' only", session.name)
    _require(config.program is None or Path(config.program).is_file(), "program", "an existing file", config.program)


def _validate_task(config: Config) -> None:
    task = config.task
    counts = ("reference_tokens", "sequence_length", "num_eval_windows", "eval_batch_size", "audit_cuts")
    for name in (*counts, "num_decoy_tokens", "max_memory_bytes", "baseline_seeds", "confirm_seeds"):
        _require(getattr(task, name) >= 1, f"task.{name}", "at least 1", getattr(task, name))
    for name in ("min_budget_seconds", "max_setup_seconds", "sigma_prior_bpb", "slope_bpb_per_percent"):
        _require(getattr(task, name) > 0, f"task.{name}", "above 0", getattr(task, name))
    _require(task.vocab_size > _BYTE_TOKENS, "task.vocab_size", f"above {_BYTE_TOKENS}", task.vocab_size)
    longest = task.max_budget_seconds
    _require(longest >= task.min_budget_seconds, "task.max_budget_seconds", "at least min_budget_seconds", longest)
    _require(task.clock in _CLOCKS, "task.clock", f"one of {', '.join(_CLOCKS)}", task.clock)
    ticking = task.clock == "ticks"
    chosen = config.budget.clock
    _require(chosen in _BUDGET_CLOCKS, "budget.clock", f"one of {', '.join(_BUDGET_CLOCKS)}", chosen)
    fits = not ticking or chosen == "auto"
    _require(fits, "budget.clock", f"auto: task={task.name} counts steps", chosen)
    _require((task.ticks >= 1) == ticking, "task.ticks", "at least 1 with clock=ticks, else 0", task.ticks)


def _validate_backend(config: Config) -> None:
    backend = config.backend
    _require(backend.threads is None or backend.threads >= 1, "backend.threads", "at least 1", backend.threads)
    known = backend.dtype is None or backend.dtype in _DTYPES
    _require(known, "backend.dtype", f"one of {', '.join(_DTYPES)}", backend.dtype)
    if (backend.name == "null") == (config.task.clock == "ticks"):
        return
    if backend.name == "null":
        raise ConfigError(f"backend=null counts steps, task={config.task.name} counts seconds: use task=tiny")
    raise ConfigError(f"task={config.task.name} counts steps, not seconds: it needs backend=null, not {backend.name}")


def _validate_sandbox(config: Config) -> None:
    level = config.sandbox.level
    _require(level in SANDBOX_LEVELS, "sandbox.level", f"one of {', '.join(SANDBOX_LEVELS)}", level)
    allowed = level != "0" or config.sandbox.allow_unsafe or config.task.clock == "ticks"
    _require(allowed, "sandbox.level", "above 0, or sandbox.allow_unsafe=true: 0 puts no wall around agent code", level)


def _require(condition: bool, key: str, expected: str, value: object) -> None:
    if not condition:
        raise ConfigError(f"{key} must be {expected}, not {value!r}")


def _refuse_unknown_keys(node: DictConfig, schema: type, prefix: str) -> None:
    """Hydra's `+key=value` adds keys even where the schema has none."""
    hints = typing.get_type_hints(schema)
    for key in node:
        name = str(key)
        if name not in hints:
            raise ConfigError(f"unknown key '{prefix}{name}'; {choose_from(name, hints)}")
        if dataclasses.is_dataclass(hints[name]):
            _refuse_unknown_keys(node[name], hints[name], f"{prefix}{name}.")


def _explain_key(key: str, error: Exception, text: str) -> ConfigError:
    root = error.__cause__ or error  # Hydra wraps OmegaConf's error for an override, and only quotes it for a YAML file
    if isinstance(root, MissingMandatoryValue):
        return ConfigError(f"{key} has no value: give it as {key}=VALUE or in its YAML file")
    if " is not in struct" in text or re.search(r"Key '.*' not in '", text):
        return _unknown_key(key, root)
    quoted = re.search(r"Value '(.*)' of type", text)
    if isinstance(root, ValidationError) or quoted:
        value = quoted.group(1) if quoted else getattr(root, "value", None)
        return ConfigError(f"{key} must be {_type_name(key)}, not {'null' if value is None else repr(value)}")
    return ConfigError(f"{key}: {_first_line(text)}")


def _unknown_key(key: str, cause: BaseException) -> ConfigError:
    parent, _, last = key.rpartition(".")
    siblings = getattr(cause, "parent_node", None)  # knows the options of this very YAML, the schema does not
    valid = [str(name) for name in siblings] if isinstance(siblings, DictConfig) else _fields(parent)
    where = f" in {parent}" if parent else ""
    return ConfigError(f"unknown key '{last}'{where}; {choose_from(last, set(valid) - {'hydra'})}")


def _fields(key: str) -> list[str]:
    schema = _schema_type(key)
    return list(typing.get_type_hints(schema)) if dataclasses.is_dataclass(schema) else []


def _schema_type(key: str) -> Any:
    schema: Any = Config
    for part in filter(None, key.split(".")):
        schema = typing.get_type_hints(schema).get(part) if dataclasses.is_dataclass(schema) else None
    return schema


def _type_name(key: str) -> str:
    schema = _schema_type(key)
    if dataclasses.is_dataclass(schema):
        return f"a group of keys ({', '.join(_fields(key))})"
    options = typing.get_args(schema) if typing.get_origin(schema) is types.UnionType else (schema,)
    names = {int: "an integer", float: "a number", str: "a string", bool: "true or false", type(None): "null"}
    return " or ".join(names.get(option, "a mapping") for option in options)


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0] if text.strip() else "the configuration cannot be composed"
