"""What the scripted model says in the standard scaffold: a small search over the constants of train.py."""

from __future__ import annotations

import random
import re

from harness import knobs, seeds
from harness.errors import ConfigError
from harness.scripted_llm.forms import Asked, Call, Said

_EXPERIMENT = re.compile(r"^# Experiment (\d+)", re.MULTILINE)
_FILE = re.compile(r"^<file (\w+)>\n(.*?)\n</file \1>$", re.MULTILINE | re.DOTALL)


def research(asked: Asked, seed: int) -> Said:
    """The next move: now and then a look at the past or a smoke run, then one constant changed."""
    prompt = next((item for item in reversed(asked.texts) if _EXPERIMENT.search(item)), None)
    found = _FILE.search(prompt) if prompt else None
    if prompt is None or found is None:
        return Said("ok")
    number = int(_EXPERIMENT.findall(prompt)[-1])
    name, old, new = change(found.group(2), seeds.derive("scripted", seed, number))
    blocks = [{"search": f"{old}\n", "replace": f"{new}\n"}]
    if asked.num_answers == 0 and number % 3 == 1 and "smoke_run" in asked.tools:
        return Said(calls=(Call("smoke_run", {"blocks": blocks}),), finish="tools")
    if asked.num_answers == 0 and number % 3 == 2 and "read_experiment" in asked.tools:
        return Said(calls=(Call("read_experiment", {"experiment": str(number - 1)}),), finish="tools")
    hypothesis = f"{new.split('#')[0].strip()} instead of {old.split('#')[0].partition('=')[2].strip()}, by the script"
    note = f"tried {name} in experiment {number}"
    if not asked.tools:
        edit = f"<<<<<<< SEARCH\n{old}\n=======\n{new}\n>>>>>>> REPLACE\n"
        return Said(f"HYPOTHESIS: {hypothesis}\nNOTE: {note}\n{edit}")
    arguments = {"hypothesis": hypothesis, "blocks": blocks, "note": note}
    return Said(calls=(Call("propose_experiment", arguments),), finish="tools")


def change(source: str, seed: int) -> tuple[str, str, str]:
    """A searched constant of `source`, its line, and the line with another value."""
    rng = random.Random(seed)
    try:
        found = [knob for knob in knobs.parse(source).values() if knob.kind in ("float", "log")]
    except ConfigError:
        found = []
    if not found:
        first = source.split("\n", 1)[0]
        return "nothing", first, first
    knob = rng.choice(found)
    assert knob.low is not None and knob.high is not None
    wanted = float(knob.value) * rng.choice((0.5, 0.7, 1.4, 2.0)) or (knob.low + knob.high) / 4
    value = min(max(float(f"{wanted:.3g}"), float(knob.low)), float(knob.high))
    changed = knobs.apply(source, {knob.name: value})
    return knob.name, source.split("\n")[knob.line - 1], changed.split("\n")[knob.line - 1]
