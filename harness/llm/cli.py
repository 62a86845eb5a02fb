"""The part of the command line that has to do with language models."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import ConfigError, LLMError
from harness.views import text

if TYPE_CHECKING:
    from harness.config import Config

_SERVE_HELP = "serve a scripted language model on loopback, in OpenAI's, Anthropic's and Ollama's formats"
_SERVE_EPILOG = """\
A script is a JSON list of steps, one a request: {"fault": "rate_limit"}, {"text": "..."},
{"tool": "NAME", "arguments": {}}, or {} for what the model would say anyway. After its end the model goes on by itself.
"""


def add_serve(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    serve = commands.add_parser(
        "serve-scripted", help=_SERVE_HELP, epilog=_SERVE_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    serve.add_argument("--port", type=int, default=8799)
    serve.add_argument("--seed", type=int, default=0, help="of what it proposes and of how it fails")
    serve.add_argument("--fault-rate", type=float, default=0.0, help="share of requests that fail (default: 0)")
    serve.add_argument("--script", type=Path, metavar="FILE", help="steps that come first")
    serve.add_argument(
        "--retry-after", type=float, default=1.0, metavar="SECONDS", help="what a 429 asks for (default: 1)"
    )
    serve.set_defaults(command=_serve)


def _serve(arguments: argparse.Namespace) -> int:
    from harness.scripted_llm.script import Script, load
    from harness.scripted_llm.server import ScriptedServer

    if not 0 <= arguments.fault_rate <= 1:
        raise ConfigError(f"--fault-rate must be from 0 to 1, not {arguments.fault_rate}")
    seed, rate = arguments.seed, arguments.fault_rate
    script = load(arguments.script, seed, rate) if arguments.script else Script(seed=seed, fault_rate=rate)
    try:
        server = ScriptedServer(script, arguments.port, arguments.retry_after)
    except OSError as error:
        raise ConfigError(f"--port={arguments.port}: cannot listen there ({error.strerror}); choose another") from error
    print(
        f"serving on {server.url} until Ctrl-C:\n"
        f"  OpenAI     llm=openai_compatible llm.model=openai/scripted llm.api_base={server.url}/v1\n"
        f"  Ollama     llm=ollama llm.model=ollama_chat/scripted llm.api_base={server.url}\n"
        f"  Anthropic  llm=claude_sonnet llm.api_base={server.url}, with any ANTHROPIC_API_KEY\n"
        f"  Claude Code  ANTHROPIC_BASE_URL={server.url}",
        flush=True,
    )
    try:
        server.serve_forever()
    finally:
        server.close()
    return 0


def add_mcp(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    mcp = commands.add_parser("mcp", help="a running session's experiment service over MCP; agent=external starts it")
    mcp.add_argument("socket", type=Path, metavar="SOCKET")
    mcp.set_defaults(command=_mcp)


def _mcp(arguments: argparse.Namespace) -> int:
    from harness.mcp_server import serve

    serve(arguments.socket)
    return 0


def print_findings(config: Config, *, ping: bool) -> bool:
    """Print what `doctor` finds about the model; whether nothing is bad."""
    from harness.llm.doctor import examine

    good = True
    for finding in examine(config, os.environ, ping=ping):
        print(finding, flush=True)
        good = good and finding.good is not False
    return good


def agree(config: Config, *, yes: bool) -> None:
    """Say what the model will cost and ask on a terminal. Raises ConfigError where nobody agrees or no key is set."""
    from harness import agents
    from harness.llm import estimate, settings
    from harness.llm import line as llm_line
    from harness.llm import price as llm_price

    llm_line.check(config.llm, os.environ, config.session.seed)
    agent = agents.load(config.agent)
    if not agents.needs_llm(agent):
        return
    text.say(estimate.sentence(config, estimate.estimate(config, agent)))
    estimate.check_cap(config, agent)
    estimate.check_room(config, agent)
    for why in settings.unranked(asdict(config.llm)):
        text.say(f"{why}; so the session will not be ranked")
    billed = config.llm.key_variable is not None and not llm_price.is_free(config.llm.price)
    if billed and not yes:
        if not sys.stdin.isatty():
            raise ConfigError("this session may cost money and there is no terminal to ask on: add --yes to agree")
        if not _agrees():
            raise ConfigError("not agreed to: nothing was started")
    if config.llm.scripted.wire is None:
        ask_once(config)


def _agrees() -> bool:
    try:
        return input("Go on? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:  # Ctrl-D
        print(file=sys.stderr)
        return False


def ask_once(config: Config) -> None:
    """One small question before hours of device time. Raises ConfigError where the model cannot be asked.

    What may pass is only told: the session has its own tries, and a series must not lose one for a busy minute. Of a
    server of one's own that nobody has started nothing will pass.
    """
    from harness.llm import doctor
    from harness.llm.exchange import CallFailed, Outcome
    from harness.llm.retries import BUDGETS

    try:
        said, _ = doctor.ask(config, os.environ)
    except LLMError as error:
        outcome = error.outcome if isinstance(error, CallFailed) else None
        not_started = config.llm.api_base is not None and outcome is Outcome.UNREACHABLE
        if outcome in BUDGETS and not not_started:
            text.say(f"{error}; the session will try again")
            return
        raise ConfigError(f"{error}; nothing was started") from error
    text.say(said)
