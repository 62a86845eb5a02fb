"""The tasks that measure time, and what each asks of a device: tokens, arithmetic, parameters, memory.

The formulas describe the stock train.py's model; a test builds every task's model and compares.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness import knobs
from harness.config import TaskConfig
from harness.errors import ConfigError

_ROOT = Path(__file__).resolve().parent.parent
STOCK = _ROOT / "trainer" / "train.py"
TASKS = _ROOT / "conf" / "task"

FEWER_CORES = ", or fewer cores: `taskset -c 0,1 bpbench ...`"  # the way to a board whose task is small

# A product forward, and twice that backward, two operations each.
_FLOPS_PER_WEIGHT = 6
# Weight, gradient and the two moments of AdamW, float32 each.
_BYTES_PER_PARAMETER = 16
# The logits, and their softmax that becomes their gradient: float32 each, half of it in bfloat16.
_BYTES_PER_LOGIT = 8
_BYTES_PER_ACTIVATION = 4
# What a layer keeps for its backward pass, in units of the model's width: around attention, and for each MLP_RATIO.
_KEPT_OF_ATTENTION, _KEPT_OF_MLP = 16, 3
# torch itself, with its libraries and thread pools.
_PROCESS_BYTES = 600 << 20


@dataclass(frozen=True)
class Size:
    """A task, with the constants of its stock script."""

    task: TaskConfig
    constants: Mapping[str, Any]

    @classmethod
    def of(cls, task: TaskConfig) -> Size:
        """Raises ConfigError where the task's constants do not fit the stock script."""
        return cls(task, {name: knob.value for name, knob in knobs.parse(stock_of(task)).items()})

    @cached_property
    def num_parameters(self) -> int:
        layers, width, vocab = self._layers, self._width, self.task.vocab_size
        tables = (2 + layers) * vocab * width + self.constants["BIGRAM_ROWS"] * width
        return int(self._block_weights + tables + layers * (2 + width))

    @cached_property
    def flops_per_token(self) -> float:
        """Of training: products and causal attention, forward and backward. Lookups and the optimizers do not count."""
        products = _FLOPS_PER_WEIGHT * (self._block_weights + self.task.vocab_size * self._width)
        attention = _FLOPS_PER_WEIGHT * self._layers * self.task.sequence_length * self._width
        return float(products + attention)

    @property
    def flops(self) -> float:
        """Of one run of the stock script on its reference tokens."""
        return self.flops_per_token * self.task.reference_tokens

    @property
    def tokens_per_step(self) -> int:
        return int(self.constants["BATCH_SIZE"] * self.task.sequence_length)

    @property
    def memory_bytes(self) -> float:
        """A rough guess of what training takes on its device; within a factor of two where it was compared."""
        ratio, layers, width = self.constants["MLP_RATIO"], self._layers, self._width
        kept = _BYTES_PER_ACTIVATION * layers * width * (_KEPT_OF_ATTENTION + _KEPT_OF_MLP * ratio)
        a_token = kept + _BYTES_PER_LOGIT * self.task.vocab_size
        return float(_PROCESS_BYTES + _BYTES_PER_PARAMETER * self.num_parameters + self.tokens_per_step * a_token)

    def fits(self, budget_seconds: float) -> bool:
        return self.task.min_budget_seconds <= budget_seconds <= self.task.max_budget_seconds

    @property
    def _layers(self) -> int:
        return int(self.constants["NUM_LAYERS"])

    @property
    def _width(self) -> int:
        return int(self.constants["MODEL_WIDTH"])

    @property
    def _block_weights(self) -> int:
        return int(self._layers * (4 + 2 * self.constants["MLP_RATIO"]) * self._width**2)


@cache
def known(folder: Path = TASKS) -> tuple[Size, ...]:
    """Every task that measures time, the least arithmetic first. Raises ConfigError for a file that is no task."""
    tasks = (load(path) for path in sorted(folder.glob("*.yaml")))
    timed = (Size.of(task) for task in tasks if task.clock != "ticks" and not task.study)
    return tuple(sorted(timed, key=lambda size: size.flops))


def stock_of(task: TaskConfig) -> str:
    """The stock train.py at this size."""
    return knobs.stock_source(STOCK, task.knobs, task.ranges)


def stock_sha256(task: TaskConfig) -> str:
    return hashlib.sha256(stock_of(task).encode()).hexdigest()


def load(path: Path) -> TaskConfig:
    try:
        task = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(TaskConfig), OmegaConf.load(path)))
    except OmegaConfBaseException as error:
        raise ConfigError(f"{path}: not a task ({str(error).splitlines()[0]}); see harness/config.py") from error
    assert isinstance(task, TaskConfig)
    if task.name != path.stem:
        raise ConfigError(f"{path}: its name is {task.name}, expected {path.stem}: a task is called as its file is")
    return task


def advice(task: TaskConfig, tokens_per_second: float, sizes: tuple[Size, ...] | None = None) -> str:
    """Which task to use where the stock script of `task` makes so many tokens a second: the largest that fits.

    Others are scaled by their arithmetic, as if every size used the device as well.
    """
    sizes = known() if sizes is None else sizes
    flops_per_second = Size.of(task).flops_per_token * tokens_per_second
    fitting = [size for size in sizes if size.task.name != task.name and size.fits(size.flops / flops_per_second)]
    if not fitting:
        names = ", ".join(size.task.name for size in sizes)
        return f"none of the tasks ({names}) is expected to fit either; see `bpbench tasks`"
    best = fitting[-1]
    return f"use task={best.task.name}, expected to take about {best.flops / flops_per_second:.0f} s"
