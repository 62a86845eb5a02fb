from __future__ import annotations

import shutil
from dataclasses import asdict

import pytest
import synthetic_journal

from harness import assemble, compose, data, sizes
from harness.compose import CONF_DIR, GROUPS
from harness.errors import ConfigError

# What an option of a group cannot do without.
COMPANIONS = {
    ("task", "tiny"): ["backend=null"],
    ("backend", "null"): ["task=tiny"],
    ("agent", "scripted"): ["agent.options.patches=PATCHES"],
    ("agent", "replay"): ["agent.options.session=SESSION"],
    ("agent", "llm"): ["llm=scripted"],
    ("agent", "external"): ["agent.options.argv=[my-agent]"],
    ("llm", "ollama"): ["llm.model=ollama_chat/some"],
    ("llm", "vllm"): ["llm.model=hosted_vllm/some"],
    ("llm", "openrouter"): ["llm.model=openrouter/some/model"],
    ("llm", "openai_compatible"): ["llm.model=openai/some", "llm.api_base=http://localhost:1/v1"],
}
OPTIONS = [(group, path.stem) for group in GROUPS for path in sorted((CONF_DIR / group).glob("*.yaml"))]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, str]:
    """What stands for itself in COMPANIONS."""
    patches, session = tmp_path_factory.mktemp("patches"), tmp_path_factory.mktemp("session")
    (patches / "a.py").write_text("")
    synthetic_journal.write(session / "journal.jsonl")
    return {"PATCHES": str(patches), "SESSION": str(session)}


def message(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        compose.compose(overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_defaults_are_the_first_session():
    config = compose.compose()
    chosen = (config.task.name, config.data.name, config.agent.name, config.backend.name, config.llm.name)
    assert chosen == ("demo", "pypi", "tpe", "auto", "none")
    assert (config.session.experiments, config.tracker.name) == (6, "none")


def test_a_task_brings_the_text_that_it_is_made_for():
    assert compose.compose(["task=small"]).data.name == "climbmix"
    assert compose.compose(["task=small", "data=tinystories"]).data.name == "tinystories"
    assert compose.compose(["task=nano"]).data.name == compose.compose().data.name == "pypi"


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=["=".join(option) for option in OPTIONS])
def test_every_yaml_composes(group, option, folders):
    needed = COMPANIONS.get((group, option), [])
    if group == "llm" and option != "none":
        needed = [*needed, "agent=llm"]
    for name, folder in folders.items():
        needed = [text.replace(name, folder) for text in needed]
    config = compose.compose([f"{group}={option}", *needed])
    if group != "session":
        program = config.agent.options.get("program") if group == "agent" else None
        assert option in (getattr(config, group).name, program)


def test_every_group_has_options():
    assert {group for group, _ in OPTIONS} == set(GROUPS)
    assert {path.name for path in CONF_DIR.iterdir() if path.is_dir()} == set(GROUPS)


@pytest.mark.parametrize(
    "spelling", ["backend=null", "backend='null'", 'backend="null"', "backend=cpu backend.name='null'"]
)
def test_the_null_backend_is_called_null(spelling):
    assert compose.compose(["task=tiny", *spelling.split()]).backend.name == "null"


def test_null_stays_no_value_elsewhere():
    assert compose.compose(["session.name=null", "session.max_hours=null"]).session.name is None


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (
            "agent=tpee",
            "unknown agent=tpee; did you mean 'tpe'? valid: claude_code, cmaes, codex, external, llm, noop, ",
        ),
        ("session=3", "unknown session=3; valid: default, overnight, quick"),
        ("tracker=null", "unknown tracker=null; valid: none, wandb"),
        (
            "session.experimens=3",
            "unknown key 'experimens' in session; did you mean 'experiments'? valid: early_stop, ",
        ),
        ("agnt=tpe", "unknown key 'agnt'; did you mean 'agent'? valid: agent, backend, budget, data, "),
        ("++agnt=tpe", "unknown key 'agnt'; did you mean 'agent'? valid: agent, backend, budget, data, "),
        ("+session.sed=3", "unknown key 'session.sed'; did you mean 'seed'?"),
        ("agent.options.trials=3", "unknown key 'trials' in agent.options; did you mean 'startup_trials'?"),
        ("+agent.options.trials=3", "unknown key 'trials' in agent.options for agent=tpe; valid: startup_trials, "),
        ("session.experiments=abc", "session.experiments must be an integer or null, not 'abc'"),
        ("session.experiments=1.5", "session.experiments must be an integer or null, not '1.5'"),
        ("session.seed=null", "session.seed must be an integer, not null"),
        ("session.early_stop=3.5", "session.early_stop must be true or false"),
        ("session.max_hours=long", "session.max_hours must be a number or null, not 'long'"),
        ("agent.options.startup_trials=abc", "agent.options.startup_trials must be int, not 'abc'"),
        ("agent", "cannot read the override 'agent': expected KEY=VALUE"),
        ("session={", "cannot read the override 'session={': expected KEY=VALUE"),
        ("data.options.path=~/texts", "-_./ is written 'data.options.path=\"~/texts\"', both quotes"),
        ("session.seed=0,1", "session.seed=0,1 lists several values: `bpbench run -m`"),
        ("~agent", "agent.name has no value"),
        ("task.reference_tokens=5", "task.reference_tokens makes a task what it is"),
        ("++task.reference_tokens=5", "task.reference_tokens makes a task what it is"),
        ("session.experiments=0", "session.experiments must be at least 1, not 0"),
        ("session.seed=-1", "session.seed must be from 0"),
        ("session.max_hours=0", "session.max_hours must be above 0"),
        ("session.name=a/b", "session.name must be letters, digits"),
        ("session.name=..", "session.name must be letters, digits"),
        ("program=/no/such/file.md", "program must be an existing file"),
        ("task.vocab_size=256", "task.vocab_size must be above 256"),
        ("task.clock=sundial", "task.clock must be one of auto, wall, metered, ticks, not 'sundial'"),
        ("task.ticks=5", "task.ticks must be"),
        ("budget.clock=ticks", "budget.clock must be one of auto, wall, metered, not 'ticks'"),
        ("task.max_budget_seconds=1", "task.max_budget_seconds must be at least min_budget_seconds"),
        ("backend.threads=0", "backend.threads must be at least 1"),
        ("backend.dtype=int8", "backend.dtype must be one of float32, bfloat16, not 'int8'"),
        ("backend=null", "backend=null counts steps, task=demo counts seconds: use task=tiny"),
        ("task=tiny", "task=tiny counts steps, not seconds: it needs backend=null, not auto"),
        ("agent=scripted", "agent=scripted needs agent.options.patches=FOLDER"),
        ("agent=llm", "agent=llm thinks with a language model: choose one with llm=NAME"),
        ("llm=scripted", "llm=scripted is not asked by agent=tpe: choose agent=llm, or llm=none"),
        ("session.max_cost_usd=0", "session.max_cost_usd must be above 0"),
        ("session.max_llm_tokens=0", "session.max_llm_tokens must be at least 1"),
        ("session.max_hours=inf", "session.max_hours must be a finite number, not inf"),
        ("session.max_cost_usd=inf", "session.max_cost_usd must be a finite number, not inf"),
        ("task.sigma_prior_bpb=nan", "task.sigma_prior_bpb must be a finite number, not nan"),
        ("++task.knobs.EMBED_LR=inf", "task.knobs.EMBED_LR must be a finite number, not inf"),
        ("task.data=climbmx", "unknown task.data=climbmx; did you mean 'climbmix'? valid: climbmix, "),
    ],
)
def test_a_wrong_override_is_one_line_that_names_it(override, expected):
    assert expected in message(override)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ("llm=openrouter", "llm.model must be provider/model"),
        (
            "llm=ollama llm.model=qwen",
            "llm.model must be provider/model, such as openai/gpt-x or ollama_chat/qwen, not 'qwen'",
        ),
        ("llm=openai_compatible llm.model=openai/x", "llm.api_base must say where the model is"),
        ("llm=gpt llm.max_output_tokens=922000", "llm.max_output_tokens must be from 1 to below context_tokens=922000"),
        ("llm=gpt llm.timeout_seconds=0", "llm.timeout_seconds must be above 0"),
        ("llm=gpt llm.price.input_usd_per_million=-1", "llm.price.input_usd_per_million must be 0 or more"),
        ("llm=gpt +llm.extra.api_key=x", "llm.extra.api_key cannot be set there"),
        (
            "llm=gpt +llm.extra.extra_headers.Authorization=x",
            "llm.extra.extra_headers would be written into the session: export the key and give its variable's",
        ),
        ("llm=gpt +llm.extra.provider.auth_token=abcd-1234", "llm.extra.provider.auth_token would be written into"),
        ("llm=gpt llm.cache_prompts=true", "llm.cache_prompts marks prompts for anthropic/ models only"),
        ("llm=scripted llm.scripted.wire=morse", "llm.scripted.wire must be one of openai, anthropic, ollama"),
        ("llm=scripted llm.scripted.fault_rate=2", "llm.scripted.fault_rate must be from 0 to 1"),
        ("llm=llamacpp session.max_cost_usd=3", "session.max_cost_usd cannot be kept with llm=llamacpp"),
        ("llm=scripted agent.options.repairs=99", "agent.options.repairs must be from 0 to 20"),
        ("llm=scripted agent.options.context_tokens=10", "agent.options.context_tokens must be at least 1000"),
        ("llm=ollama llm.model=ollama_chat/q llm.context_tokens=40000", "num_ctx=32768 must be at least llm.context_"),
        ("llm=ollama llm.model=ollama_chat/q llm.extra.num_ctx=null", "llm.extra.num_ctx=None must be at least"),
        ("llm=claude_sonnet llm.model='anthropic/cl\u0430ude'", "expected ASCII letters"),
        ("llm=gpt llm.temprature=1", "unknown key 'temprature' in llm; did you mean 'temperature'?"),
    ],
)
def test_a_wrong_model_is_one_line_that_names_it(overrides, expected):
    assert expected in message("agent=llm", *overrides.split())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: demo\nreference_token: 5\n", "unknown key 'reference_token' in task; did you mean 'reference_tokens'?"),
        ("name: demo\nvocab_size: many\n", "task.vocab_size must be an integer, not 'many'"),
        ("name: demo\n", "task.reference_tokens has no value"),
    ],
)
def test_a_wrong_yaml_file_is_one_line_that_names_the_key(tmp_path, text, expected):
    shutil.copytree(CONF_DIR, tmp_path / "conf")
    (tmp_path / "conf" / "task" / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"^[^\n]*$") as caught:
        compose.compose(["task=mine"], tmp_path / "conf")
    assert expected in str(caught.value)


def test_a_recorded_configuration_is_read_back():
    config = compose.compose(["task=tiny", "backend=null", "session.seed=5", "agent=cmaes"])
    assert compose.from_dict(asdict(config)) == config
    with pytest.raises(ConfigError, match="unknown key 'gone'"):
        compose.from_dict({**asdict(config), "gone": 1})


def test_a_recorded_session_does_without_the_file_that_its_record_has_the_text_of(tmp_path):
    program = tmp_path / "program.md"
    program.write_text("Improve it.")
    config = compose.compose(["task=tiny", "backend=null", f"program={program}"])
    program.unlink()
    assert compose.from_dict(asdict(config)) == config


@pytest.mark.parametrize("cap", ["max_cost_usd=5", "max_llm_tokens=1000"])
def test_a_cap_that_cannot_bind_is_refused(cap):
    said = message("agent=claude_code", f"session.{cap}")
    assert "does not bind agent=external" in said and "--max-budget-usd" in said
    assert compose.compose(["agent=claude_code", "session.max_hours=2"]).session.max_hours == 2


def test_a_key_is_needed_as_long_as_somebody_is_asked(monkeypatch):
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    overrides = ["agent=llm", "llm=claude_sonnet"]
    with pytest.raises(ConfigError, match="ANTHROPIC_API_KEY"):
        assemble.researcher(compose.compose(overrides), asking=True)
    config = compose.compose(overrides)
    assert assemble.researcher(config, asking=False).name == "llm" and config.llm.name == "none"


def test_only_generated_text_is_not_looked_for_among_the_packages():
    assert data.request_of(compose.compose(["data=pypi"]))["runtime_paths"] == data.runtime_paths() != []
    assert data.request_of(compose.compose(["data=synthetic"]))["runtime_paths"] == []


def test_the_systems_python_packages_are_looked_through_too(tmp_path):
    for name in ("lib/python3/dist-packages/twisted", "local/python3.11/site-packages", "lib/perl5"):
        (tmp_path / name).mkdir(parents=True)
    paths = data.runtime_paths([tmp_path / "lib", tmp_path / "local", tmp_path / "lib64"])
    assert set(data.runtime_paths([])) < set(paths)
    assert [path.removeprefix(f"{tmp_path}/") for path in paths if path.startswith(str(tmp_path))] == [
        "lib/python3",
        "lib/python3/dist-packages",
        "local/python3.11",
        "local/python3.11/site-packages",
    ]
    opened = data.runtime_paths([], f"relative:{tmp_path / 'lib'}:{tmp_path / 'none'}:")
    assert str(tmp_path / "lib") in opened and not {"relative", str(tmp_path / "none")} & set(opened)
    assert {str(sizes.STOCK.parent), str(sizes.STOCK.parents[1] / "backends")} <= set(opened)
