"""Answers which device there is: `python -I -m backends.probe '{"name": "auto", "threads": null, "dtype": null}'`.

Prints one line of JSON: `{"name", "threads", "dtype", "identity", "environment", "power_state", "device_nodes"}`,
or `{"error": one line}` with exit status 1.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import backends


def probe(request: dict[str, Any]) -> dict[str, Any]:
    """What the harness needs to know about a device. ValueError with one line if it cannot be used."""
    backend = backends.load(request["name"], request.get("threads"), request.get("dtype"))
    return {
        "name": backend.name,
        "threads": backend.threads,
        "dtype": backend.dtype,
        "identity": backend.identity(),
        "environment": backend.environment(),
        "power_state": backend.power_state(),
        "device_nodes": backend.device_nodes(),
    }


def main(argv: list[str]) -> int:
    try:
        answer, status = probe(json.loads(argv[1])), 0
    except ValueError as error:
        answer, status = {"error": " ".join(str(error).split())}, 1
    print(json.dumps(answer))
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv))
