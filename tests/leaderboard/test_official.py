"""The list of official boards."""

from __future__ import annotations

import json
from pathlib import Path

import publishing
import pytest

from harness.errors import ConfigError
from leaderboard import official
from leaderboard.paths import OFFICIAL


def test_the_list_of_official_boards(tmp_path: Path) -> None:
    path = publishing.official_file(tmp_path)
    assert official.read(path) == publishing.boards()
    board = json.loads(path.read_text())[0]
    for wrong in (
        "{}",
        "[",
        "[3]",
        json.dumps([{**board, "more": 1}]),
        json.dumps([{"name": "demo"}]),
        json.dumps([{**board, "key": {}}]),
        json.dumps([{**board, "key": {**board["key"], "more": 1}}]),
        json.dumps([board, {**board, "name": "again"}]),
        "[" * 100_000,
    ):
        path.write_text(wrong)
        with pytest.raises(ConfigError, match=r"official\.json: .*expected the list of official keys"):
            official.read(path)
    official.read(OFFICIAL)  # that of the repository can be read


def test_keys_are_compared_with_their_types() -> None:
    (board,) = publishing.boards()
    assert official.lists([board], dict(board.key)) and not official.lists([], board.key)
    for other in (True, 2.0, "2", None):
        assert not official.lists([board], {**board.key, "protocol": other})
