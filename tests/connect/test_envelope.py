"""Frames out of bytes, for any cut, with bounds."""

from __future__ import annotations

import gzip
import itertools
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kimi_provider.errors import ProtocolError
from kimi_provider.protocols.connect.envelope import EnvelopeDecoder, encode
from tests.costs import linear

from .frames import env

LIMIT = 1000


def frames(*chunks: bytes, limit: int = LIMIT) -> list[tuple[int, bytes]]:
    decoder = EnvelopeDecoder(limit)
    return [frame for chunk in chunks for frame in decoder.feed(chunk)]


def test_encode_is_flag_length_payload() -> None:
    assert encode(b"{}") == b"\x00\x00\x00\x00\x02{}"
    assert encode(b"x" * 258)[:5] == b"\x00\x00\x00\x01\x02"


@pytest.mark.parametrize("flag", [0x00, 0x02, 0x80, 0x82])
@pytest.mark.parametrize("payload", [b"", b"{}", b"x" * LIMIT])
def test_flags_and_sizes(flag: int, payload: bytes) -> None:
    assert frames(env(payload, flag)) == [(flag, payload)]
    assert frames(env(payload, flag) + env(b"next")) == [(flag, payload), (0, b"next")]


@pytest.mark.parametrize("flag", [0x01, 0x03, 0x81, 0x83])
def test_compressed_frames_come_out_plain(flag: int) -> None:
    assert frames(env(gzip.compress(b"hello"), flag)) == [(flag & ~1, b"hello")]
    assert frames(env(b"", flag)) == [(flag & ~1, b"")]


@pytest.mark.parametrize(
    "data",
    [
        env(b"no gzip", 1),
        env(gzip.compress(b"hello", mtime=0)[:-1], 1),
        env(gzip.compress(b"hello", mtime=0) + b"more", 1),
        env(zlib.compress(b"hello"), 1),
        env(b"x" * (LIMIT + 1)),
        b"\x00\xff\xff\xff\xff",
        b'{"code":"unauthenticated"}',
        b"<html><head>",
        b"\x04\x00\x00\x00\x00",
    ],
)
def test_what_breaks_the_rules(data: bytes) -> None:
    decoder = EnvelopeDecoder(LIMIT)
    got = iter(decoder.feed(env(b"before") + data))
    assert next(got) == (0, b"before")
    with pytest.raises(ProtocolError):
        next(got)


def test_a_bomb_is_not_unpacked() -> None:
    bomb = gzip.compress(bytes(50_000_000))
    with pytest.raises(ProtocolError, match="when decompressed"):
        frames(env(bomb, 1), limit=1_000_000)


def test_a_limit_is_known_from_the_head_alone() -> None:
    with pytest.raises(ProtocolError, match="above the limit"):
        frames(env(b"x" * (LIMIT + 1))[:5])


@settings(deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=8), st.lists(st.integers(0, 300), max_size=8))
def test_any_cut(payloads: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(map(env, payloads))
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    assert frames(*(stream[a:b] for a, b in itertools.pairwise(edges))) == [(0, p) for p in payloads]


def test_a_truncated_tail_shows() -> None:
    decoder = EnvelopeDecoder(LIMIT)
    whole = env(b"hello")
    for at in range(1, len(whole)):
        decoder = EnvelopeDecoder(LIMIT)
        assert list(decoder.feed(whole + whole[:at])) == [(0, b"hello")]
        assert decoder.pending_bytes == at
        assert list(decoder.feed(whole[at:])) == [(0, b"hello")]
        assert decoder.pending_bytes == 0


@linear
def test_a_large_frame_in_small_chunks_takes_linear_time() -> None:
    big = env(b"x" * 8_000_000)
    assert [len(p) for _, p in frames(*(big[at : at + 20] for at in range(0, len(big), 20)), limit=8_000_000)] == [
        8_000_000
    ]
