"""The error tree.

    Exception
     |- ExperimentFailed        the researcher's code or edit failed: recorded, the session goes on
     |   `- EditRefused         the edit never ran
     `- HarnessError            ours or the user's: stop, say what to do
         |- ConfigError         a wrong key or value
         |- DataError           data cannot be prepared or does not match its hash
         |- JournalError        the record is damaged or cannot be written
         |- DeviceError         the device is missing, busy or unfit
         |   `- TaskMisfit      it is far too slow or too fast for the task
         `- LLMError            the language model cannot be asked
             `- CallFailed      one try failed; harness/desk.py may try again

An `ExperimentFailed` that nobody answers with another chance is recorded by `harness/session.py`; a `HarnessError`
that is not about one item of many ends the command in `harness/cli.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class ExperimentFailed(Exception):
    """The researcher's code failed. The message is one line that a researcher can act on."""


class EditRefused(ExperimentFailed):
    """The edit broke a rule and was not run. `family`: one of harness/integrity.py if the rule is against cheating."""

    def __init__(self, message: str, family: str | None = None) -> None:
        super().__init__(message)
        self.family = family


class HarnessError(Exception):
    """The benchmark cannot go on. The message is one line: what is wrong, what was expected, what to do."""


class ConfigError(HarnessError):
    """A configuration key or value is wrong."""


class DataError(HarnessError):
    """Data cannot be fetched, prepared or trusted."""


class JournalError(HarnessError):
    """The journal is damaged or cannot be written."""


class DeviceError(HarnessError):
    """The device is missing, busy or unfit for the task."""


class TaskMisfit(DeviceError):
    """The device is far from what a task needs. `predictions`: those of all tasks, harness/predict.py."""

    def __init__(self, message: str, predictions: Sequence[Any]) -> None:
        super().__init__(message)
        self.predictions = predictions


class LLMError(HarnessError):
    """The language model cannot be asked: a wrong key, a prompt that does not fit, a service that stays down."""


def of_system(error: OSError) -> HarnessError:
    """For what the system refused in a place where nobody expected it: no space, no right, a file in the way."""
    where = f"{error.filename}: " if error.filename else ""
    return HarnessError(f"{where}{error.strerror or error}; mend that, and give the same command again, or resume")
