"""What a sandbox really holds back: each wall is attacked from inside, and watched from outside.

One launch of canary_probe.py, about a second. A wall is `held` if the attack was made and neither side saw it get
through, `open` if either did, `unknown` if it could not be tried.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from harness.protocols import Process, Sandbox
from harness.records import Walls
from harness.sandbox import bait
from harness.sandbox.bait import Targets
from harness.wire import BadMessage, Channel

TRY_SECONDS = 60.0
STOPPED_SECONDS = 0.05

# What an open wall means. Ranking needs all of these held.
NEEDED = {
    "tcp": "agent code can open TCP connections",
    "udp": "agent code can send UDP packets",
    "unix": "agent code can talk to UNIX sockets of other programs",
    "abstract": "agent code can talk to abstract sockets of other programs",
    "write_outside": "agent code can write outside its folders",
    "read_val": "agent code can read the validation text",
    "read_corpus": "agent code can read the training text before start()",
    "read_home": "agent code can read the user's home folder",
    "read_keys": "agent code can read API keys",
    "see_processes": "agent code can look at other processes",
    "signal": "agent code can kill other processes",
    "reopen": "agent code can change what it is handed",
    "stop": "agent code can run on while it is stopped",
    "survive": "agent code can leave a process behind",
}
# These protect the machine, not the score.
USEFUL = {
    "fork_limit": "agent code can start processes without limit",
    "memory_limit": "agent code can take memory beyond its limit, in anonymous files for example",
}
HELD, OPEN, UNKNOWN = "held", "open", "unknown"


def try_walls(sandbox: Sandbox, targets: Targets) -> Walls:
    """Attack `sandbox` from inside. Raises HarnessError where it cannot even start a process."""
    with bait.laid(targets) as laid, contextlib.ExitStack() as stack:
        channel, theirs = Channel.pair()
        stack.callback(channel.close)
        with theirs:
            process = sandbox.launch(laid.launch(theirs.fileno()))
        stack.callback(process.kill)
        channel.send(laid.request)
        found = follow(channel, process)
        process.kill()
        if "stop" in found:
            found["survive"] = laid.still_beats()
        if not laid.request["home_names"]:
            found.pop("read_home", None)
        found |= dict.fromkeys(laid.caught(), True)
    verdicts = {name: UNKNOWN if name not in found else OPEN if found[name] else HELD for name in (*NEEDED, *USEFUL)}
    return Walls(name=sandbox.name, level=sandbox.level, canaries=verdicts)


def untried(name: str, level: int) -> Walls:
    """Walls of which nothing is known, for level 0."""
    return Walls(name=name, level=level, canaries=dict.fromkeys((*NEEDED, *USEFUL), UNKNOWN))


def missing(walls: Walls) -> Iterator[str]:
    """Why a session behind `walls` cannot be ranked, one line for each needed wall that does not hold."""
    if walls.level == 0:
        yield f"isolation level 0 ({walls.name}): no walls around agent code"
        return
    for name, meaning in NEEDED.items():
        state = walls.canaries.get(name, UNKNOWN)
        if state == OPEN:
            yield f"wall {name} is open at isolation level {walls.level}: {meaning}"
        elif state != HELD:
            yield f"wall {name} is unknown at isolation level {walls.level}: it could not be tried"


def weakest(before: Walls, now: Walls) -> Walls:
    """What held all the time, for a session that went on behind other walls."""
    named = (name for name in (*NEEDED, *USEFUL) if name in before.canaries or name in now.canaries)
    worst = {name: _worse(before.canaries.get(name), now.canaries.get(name)) for name in named}
    return Walls(*min((before.name, before.level), (now.name, now.level), key=lambda item: item[1]), canaries=worst)


def _worse(one: str | None, other: str | None) -> str:
    """Anything but our own words, as a stranger's journal may have it, is unknown."""
    states = (one, other)
    return OPEN if OPEN in states else HELD if states == (HELD, HELD) else UNKNOWN


def follow(channel: Channel, process: Process) -> dict[str, bool]:
    """{canary: whether it got through} as far as the probe came, the stop included."""
    found: dict[str, bool] = {}
    channel.sock.settimeout(TRY_SECONDS)
    with contextlib.suppress(TimeoutError, BadMessage, OSError):  # what was not answered by then stays unknown
        while not channel.closed and "stop" not in found:
            for message, _ in channel.read():
                if "ready" in message:
                    stopped = process.stop()
                    time.sleep(STOPPED_SECONDS)
                    found["stop"] = not (process.resume() == 0 and stopped)
                else:
                    found[str(message["canary"])] = bool(message["through"])
    process.poll()  # says so if the sandbox itself could not start
    return found
