"""Twenty steps of the stock train.py on made-up text: the loss curves that must not change unnoticed.

After a change that is meant to change them:

    python tests/trainer/golden_runs.py

rewrites tests/trainer/golden/, one file a backend, with the losses as every step logged them.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np

import backends
from backends.base import Backend
from trainer import play
from trainer.task import Task

GOLDEN = Path(__file__).with_name("golden")
NUM_STEPS = 20
TASK = Task(
    "golden", vocab_size=256, sequence_length=32, reference_tokens=5120, bos_token=255, eval_batch_size=8, compile=False
)
KNOBS = {"NUM_LAYERS": "2", "MODEL_WIDTH": "64", "HEAD_WIDTH": "32", "BIGRAM_ROWS": "1024", "BATCH_SIZE": "8"}
BACKENDS = {"null": None, "cpu": "float32"}  # name -> dtype


def write_data(folder: Path) -> None:
    """A stream with something to learn: each token is one of three successors of the one before it."""
    random = np.random.Generator(np.random.PCG64(0))
    successors = random.integers(0, 255, (256, 3))
    documents = []
    for _ in range(64):
        document = [255]
        for choice in random.integers(0, 3, 255):
            document.append(int(successors[document[-1], choice]))
        documents.append(document)
    np.array(documents, dtype=np.uint16).tofile(folder / "train.bin")
    np.save(folder / "train.offsets.npy", np.arange(0, 64 * 256 + 1, 256))
    np.save(folder / "val.npy", np.array(documents, dtype=np.uint16)[:8, 1:33])
    np.save(folder / "token_bytes.npy", np.ones(256, dtype=np.int32))
    (folder / "meta.json").write_text(json.dumps({"dtype": "uint16"}))


def device(backend: str) -> Backend:
    return backends.load(backend, 1, BACKENDS[backend])


def run(folder: Path, backend: str) -> play.Played:
    """Train in `folder` for twenty steps of the step clock."""
    write_data(folder)
    script = folder / "train.py"
    script.write_text(play.set_knobs(play.STOCK.read_text(), KNOBS))
    return play.play(script, folder, TASK, device(backend), seed=1, ticks=NUM_STEPS + 1)


def rewrite() -> None:
    for backend in BACKENDS:
        with tempfile.TemporaryDirectory() as folder:
            losses = [message["loss"] for message in run(Path(folder), backend).log]
        (GOLDEN / f"{backend}.json").write_text(json.dumps(losses, indent=1) + "\n")


if __name__ == "__main__":
    rewrite()
