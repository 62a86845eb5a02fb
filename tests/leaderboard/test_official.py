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


def test_a_refusal_names_what_is_not_as_on_the_board_of_the_task() -> None:
    (board,) = publishing.boards()
    other = "its key is no official board: "
    wall = official.refusal([board], {**board.key, "clock": "wall", "data_sha256": "0" * 64})
    assert wall.startswith(f"{other}clock is 'wall', the board's {board.key['clock']!r}")
    assert "; data_sha256 is '0000000000" in wall and "stock_sha256" not in wall
    assert official.refusal([board], {**board.key, "task": "large"}) == (
        f"{other}task 'large' has none; there are {board.key['task']}"
    )
    second = official.Official("again", {**board.key, "data_sha256": "0" * 64})
    near = official.refusal([board, second], {**second.key, "protocol": 1.0})
    assert "protocol is 1.0" in near and "data_sha256" not in near
    assert "luck is None, the board's None" in official.refusal([board], {**board.key, "luck": None})
    assert "none yet" in official.refusal([], board.key)
