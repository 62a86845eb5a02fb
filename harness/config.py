"""The configuration as typed dataclasses: what every YAML under conf/ must fit.

Hydra checks names and types against these, so a typo is an error that names it. A new task, data source, agent or
backend is one YAML file; it needs no change here unless its behaviour is new.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

# What a task's configuration says about it: no part of what is measured, and free to change.
TASK_WORDS = ("study", "first_look", "device_class", "data", "measured_on", "reference_bpb")


@dataclass
class TaskConfig:
    """A size of problem. Its numbers make results comparable: boards take those of the task of that name only."""

    name: str = MISSING
    reference_tokens: int = MISSING  # N: how many training tokens the stock train.py sees in its budget
    vocab_size: int = MISSING
    sequence_length: int = MISSING
    num_eval_windows: int = MISSING  # windows of sequence_length tokens, for val and for test
    eval_batch_size: int = MISSING
    audit_cuts: int = MISSING
    num_decoy_tokens: int = 32_768
    min_budget_seconds: float = 30.0
    max_budget_seconds: float = 900.0
    max_setup_seconds: float = 120.0
    max_memory_bytes: int = 8 << 30
    clock: str = "auto"  # wall | metered | ticks (null backend); auto: metered on a CPU, wall elsewhere
    ticks: int = 0  # progress() calls in a run on the tick clock
    compile: bool = False
    baseline_seeds: int = 3
    confirm_seeds: int = 5
    sigma_prior_bpb: float = MISSING  # seed-to-seed standard deviation of the stock baseline
    slope_bpb_per_percent: float = MISSING  # bpb lost with one per cent less budget
    knobs: dict[str, Any] = field(default_factory=dict)  # the stock train.py's constants at this size
    ranges: dict[str, str] = field(
        default_factory=dict
    )  # their search ranges, where the stock ones are for smaller models
    study: bool = False  # for studies of the benchmark itself: never advised
    first_look: bool = False  # budgets of seconds, which decide nothing about language models
    device_class: str | None = None  # what it is made for, in words
    data: str | None = None  # the data source whose text is long enough for it; None: the default
    measured_on: str | None = None  # where its numbers come from; None: it has never run on such a device
    # data source -> [low, high], val bpb of the stock baseline where it was measured
    reference_bpb: dict[str, list[float]] = field(default_factory=dict)


@dataclass
class DataConfig:
    name: str = MISSING
    source: str = MISSING  # the file in trainer/data/
    about: str | None = None  # what kind of text it is, for who trains on it
    text_sha256: str | None = None  # pinned hash of the text; None: any
    options: dict[str, Any] = field(default_factory=dict)  # checked by the source


@dataclass
class BackendConfig:
    name: str = "auto"
    threads: int | None = None  # None: all cores this process may use
    dtype: str | None = None  # None: what the backend's probe finds fast


@dataclass
class AgentConfig:
    name: str = MISSING  # the file in harness/agents/
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class PriceConfig:
    """What a model costs, frozen at a date. Unknown is null, never 0."""

    input_usd_per_million: float | None = None  # per million tokens
    output_usd_per_million: float | None = None
    cached_input_usd_per_million: float | None = None  # null: as input
    cache_write_usd_per_million: float | None = None  # null: as input
    usd_per_hour: float | None = None  # of your own machine, while it answers
    as_of: str | None = None
    source: str | None = None


@dataclass
class ScriptedConfig:
    """A model that follows a script, served by bpbench itself (harness/scripted_llm)."""

    wire: str | None = None  # openai | anthropic | ollama; null: a real model
    fault_rate: float = 0.0  # share of requests that fail
    script: str | None = None  # a JSON file of steps that come first


@dataclass
class LLMConfig:
    name: str = "none"
    model: str | None = None  # as LiteLLM writes it: provider/model
    api_base: str | None = None  # null: the provider's own
    key_variable: str | None = None  # the environment variable with the key; null: none is sent
    temperature: float | None = None  # null, here and below: not sent, so the provider's default
    top_p: float | None = None
    seed: int | None = None
    effort: str | None = None  # of reasoning, such as low, medium, high
    max_output_tokens: int = 16_000  # of one answer, reasoning included
    context_tokens: int = 128_000  # the model's window
    tools: bool = True  # tool calls; false: the text form
    cache_prompts: bool = False  # mark the prompt for caching: anthropic/ only
    timeout_seconds: float = 600.0
    first_wait_seconds: float = 1.0  # before a second try
    extra: dict[str, Any] = field(default_factory=dict)  # sent as it is, such as num_ctx
    price: PriceConfig = field(default_factory=PriceConfig)
    scripted: ScriptedConfig = field(default_factory=ScriptedConfig)


@dataclass
class SessionConfig:
    experiments: int | None = 6  # None: as many as fit into max_hours
    seed: int = 0  # researchers are paired on it
    name: str | None = None  # None: made from time, task and agent
    root: str = "sessions"
    early_stop: bool = True  # whether a researcher may stop early
    max_hours: float | None = None
    max_cost_usd: float | None = None  # a call that could cross it is not made
    max_llm_tokens: int | None = None  # prompts and answers together; likewise


@dataclass
class TrackerConfig:
    name: str = "none"


@dataclass
class BudgetConfig:
    clock: str = "auto"  # wall | metered; auto: as the task says. Part of the key: rows of two clocks never compare


@dataclass
class SandboxConfig:
    """The walls around agent code. A weaker wall never changes a number, only whether the session can be ranked."""

    level: str = "auto"  # 3 | 2 | 1 | 0; auto: the best that works here (the step clock: 0, for speed)
    allow_unsafe: bool = False  # whether level 0 may be asked for


@dataclass
class Config:
    agent: AgentConfig = field(default_factory=AgentConfig)
    llm: LLMConfig = field(default_factory=LLMConfig)
    backend: BackendConfig = field(default_factory=BackendConfig)
    task: TaskConfig = field(default_factory=TaskConfig)
    data: DataConfig = field(default_factory=DataConfig)
    session: SessionConfig = field(default_factory=SessionConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    sandbox: SandboxConfig = field(default_factory=SandboxConfig)
    program: str | None = None  # a file of instructions instead of program.md
