"""Answers which device there is: `python -I -m backends.probe '{"name": "auto", "threads": null, "dtype": null}'`.

Prints one line of JSON: `{"name", "threads", "dtype", "identity", "environment", "power_state", "device_nodes"}`,
with `"microprobes": true` in the request also `microprobes`, the figures of `backends.microprobes`; or
`{"error": one line}` with exit status 1.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Any

import backends
from backends.base import out_of_memory


def probe(request: dict[str, Any]) -> dict[str, Any]:
    """What the harness needs to know about a device. ValueError with one line if it cannot be used."""
    backend = backends.load(request["name"], request.get("threads"), request.get("dtype"))
    answer = {
        "name": backend.name,
        "threads": backend.threads,
        "dtype": backend.dtype,
        "identity": backend.identity(),
        "environment": backend.environment(),
        "power_state": backend.power_state(),
        "device_nodes": backend.device_nodes(),
    }
    if request.get("microprobes"):
        from backends import microprobes

        backend.setup()
        answer["microprobes"] = asdict(microprobes.measure(backend))
    return answer


NO_MEMORY = "the device has no memory left for a small probe: end the programs that use it, or choose another device"


def main(argv: list[str]) -> int:
    try:
        answer, status = probe(json.loads(argv[1])), 0
    except ValueError as error:
        answer, status = {"error": " ".join(str(error).split())}, 1
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        answer, status = {"error": NO_MEMORY}, 1
    print(json.dumps(answer))
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv))
