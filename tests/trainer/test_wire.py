"""The framing under honest and hostile peers."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer import wire

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    a, b = socket.socketpair()
    with a, b:
        yield a, b


def open_descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(st.text(max_size=8), json_values, max_size=4), min_size=1, max_size=4))
def test_messages_sent_together_arrive_one_by_one(messages: list[dict[str, object]]) -> None:
    a, b = socket.socketpair()
    with a, b:
        for message in messages:
            wire.send(a, message)
        assert [wire.receive(b, 1)[0] for _ in messages] == messages


def test_descriptors_stay_with_their_message(pair: Pair) -> None:
    a, b = pair
    reader, writer = os.pipe()
    wire.send(a, {"n": 1})
    wire.send(a, {"n": 2}, [writer])
    wire.send(a, {"n": 3})
    os.close(writer)
    (_, none), (_, (fd,)), (_, none_again) = (wire.receive(b, 1) for _ in range(3))
    assert none == none_again == []
    assert not os.get_inheritable(fd)
    os.write(fd, b"through")
    assert os.read(reader, 7) == b"through"
    os.close(fd)
    os.close(reader)


def test_message_in_pieces(pair: Pair) -> None:
    a, b = pair
    line = json.dumps({"text": "x" * 1000}).encode() + b"\n"
    a.sendall(line[:400])
    with pytest.raises(TimeoutError):
        wire.receive(b, 0.01)
    a, b = socket.socketpair()
    with a, b:
        for start in range(0, len(line), 100):
            a.sendall(line[start : start + 100])
        assert wire.receive(b, 1)[0] == {"text": "x" * 1000}


@pytest.mark.parametrize(
    "line", [b"[1]\n", b"7\n", b"{\n", b"\xff\n", b"[" * 60_000 + b"\n", b"1" * 5000 + b"\n", b"x" * 70_000 + b"\n"]
)
def test_nonsense_is_one_kind_of_error(pair: Pair, line: bytes) -> None:
    a, b = pair
    a.sendall(line)
    with pytest.raises(ValueError):
        wire.receive(b, 1)


def test_end_of_stream_and_halves_of_messages(pair: Pair) -> None:
    a, b = pair
    a.sendall(b'{"half"')
    a.close()
    with pytest.raises(ConnectionError):
        wire.receive(b, 1)
    with pytest.raises(ConnectionError):
        for _ in range(1000):
            wire.send(b, {"op": "forward"})


@pytest.mark.parametrize("num", [wire.MAX_DESCRIPTORS + 1, 60])
def test_too_many_descriptors_are_refused_and_none_leaks(pair: Pair, num: int) -> None:
    a, b = pair
    before = open_descriptors()
    socket.send_fds(a, [b"{}\n"], [0] * num)
    with pytest.raises(ValueError, match="descriptors"):
        wire.receive(b, 1)
    assert open_descriptors() == before


def test_descriptors_of_a_malformed_message_are_closed(pair: Pair) -> None:
    a, b = pair
    before = open_descriptors()
    socket.send_fds(a, [b"[]\n"], [0, 0])
    with pytest.raises(ValueError):
        wire.receive(b, 1)
    assert open_descriptors() == before


def test_a_message_that_is_too_long_is_not_sent(pair: Pair) -> None:
    with pytest.raises(ValueError, match="at most"):
        wire.send(pair[0], {"text": "x" * wire.MAX_MESSAGE_BYTES})


@pytest.mark.parametrize("environ", [{}, {"BPBENCH_FD": "seven"}, {"BPBENCH_FD": "99999"}])
def test_started_by_hand(environ: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="BPBENCH_FD"):
        wire.connect(environ)
