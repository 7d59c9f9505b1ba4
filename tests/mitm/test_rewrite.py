"""Rewriting of bodies, headers and queries. What a generated body must become is known to its generator."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitm_addon import rewrite


def to_kimi(name: str) -> str:
    return "kimi"


# --- generated: a body as pieces, of which some are names of models ---------------------------------------

_SPACE = st.sampled_from(["", "", " ", "\n\t", "  \r\n"])
_TEXT = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(
    ['"', "\\", '\\"', "model", '"model":"x"', "{[", "é😀"]
)
_KEYS = st.sampled_from(["messages", "Model", "model ", "models", "", "metadata"]) | _TEXT.filter(
    lambda t: t != "model"
)


@st.composite
def literal(draw: st.DrawFn, text: str) -> str:
    """`text` as a JSON string, some characters escaped though they need not be."""
    plain = json.dumps(text, ensure_ascii=draw(st.booleans()))
    if text and draw(st.booleans()) and text[0].isalnum() and text[0].isascii():
        return f'"\\u{ord(text[0]):04x}' + plain[2:]
    return plain


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT | st.just("model"), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def bodies(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A body, and what it must become when every model is `kimi`."""
    before, after = [draw(_SPACE) + "{" + draw(_SPACE)], []
    after.append(before[0])

    def add(text: str, changed: str | None = None) -> None:
        before.append(text)
        after.append(text if changed is None else changed)

    for number in range(draw(st.integers(0, 4))):
        if number:
            add("," + draw(_SPACE))
        if draw(st.booleans()):
            add(draw(literal("model")) + draw(_SPACE) + ":" + draw(_SPACE))
            if draw(st.integers(0, 3)):
                name = draw(_TEXT)
                spelled = draw(literal(name))
                add(spelled, spelled if name == "kimi" else '"kimi"')
            else:
                add(json.dumps(draw(_VALUES.filter(lambda v: not isinstance(v, str)))))
        else:
            add(draw(literal(draw(_KEYS))) + draw(_SPACE) + ":" + draw(_SPACE) + json.dumps(draw(_VALUES)))
        add(draw(_SPACE))
    add("}" + draw(_SPACE))
    return "".join(before).encode("utf-8", "surrogatepass"), "".join(after).encode("utf-8", "surrogatepass")


@settings(max_examples=500)
@given(bodies())
def test_only_the_bytes_of_the_names_change(pair: tuple[bytes, bytes]) -> None:
    before, after = pair
    assert rewrite.model(before, to_kimi) == after


@given(bodies())
def test_names_that_stay_leave_the_very_same_bytes(pair: tuple[bytes, bytes]) -> None:
    assert rewrite.model(pair[0], lambda name: name) is pair[0]


@given(bodies(), st.randoms(use_true_random=False))
def test_cut_or_damaged_bodies_never_break_it(pair: tuple[bytes, bytes], chance: random.Random) -> None:
    body = bytearray(pair[0])
    if chance.random() < 0.5:
        del body[chance.randrange(len(body)) :]
    else:
        body[chance.randrange(len(body))] = chance.randrange(256)
    try:
        rewrite.model(bytes(body), to_kimi)
    except rewrite.BodyError:
        return


@given(st.binary(max_size=40))
def test_any_bytes(body: bytes) -> None:
    try:
        changed = rewrite.model(body, to_kimi)
    except rewrite.BodyError:
        return
    assert changed is body or b"kimi" in changed


# --- by hand -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'{"model":"gpt-5"}', b'{"model":"kimi"}'),
        (b'{"model":"a","model":"b"}', b'{"model":"kimi","model":"kimi"}'),
        (b'{"m\\u006fdel": "a"}', b'{"m\\u006fdel": "kimi"}'),
        (b'{"x":{"model":"a"},"y":["model","a"]}', b'{"x":{"model":"a"},"y":["model","a"]}'),
        (b'{"x":"\\"model\\":\\"a\\"","model":"a"}', b'{"x":"\\"model\\":\\"a\\"","model":"kimi"}'),
        (b'{"model":null}', b'{"model":null}'),
        (b'{"model":{"model":"a"}}', b'{"model":{"model":"a"}}'),
        (b"{}", b"{}"),
        (b'{"x":1e5,"y":-0.1,"z":true,"model":"a"}', b'{"x":1e5,"y":-0.1,"z":true,"model":"kimi"}'),
    ],
)
def test_places_of_the_name(before: bytes, after: bytes) -> None:
    assert rewrite.model(before, to_kimi) == after


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'"model"',
        b"{",
        b'{"model"',
        b'{"model":',
        b'{"model":"a"',
        b'{"model":"a}',
        b'{"model":"a",}',
        b'{"model" "a"}',
        b'{"model":"a"}}',
        b'{"x":[1,2,"model":"a"}',
        b'{"x":[[[',
        b'\xef\xbb\xbf{"model":"a"}',
        b'{"model":"\xff"}',
        b'{"model":"\\q"}',
        '{"model":"a"}'.encode("utf-16"),
        b"model=a&stream=true",
    ],
)
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(rewrite.BodyError):
        rewrite.model(body, to_kimi)


@pytest.mark.parametrize("place", ["first", "last"])
def test_thirty_megabytes(place: str) -> None:
    text = json.dumps('Zeile "eins"\n\u00e9😀 {[' * 1_200_000, ensure_ascii=False)
    rest = f'"messages":[{{"role":"user","content":{text}}}]'
    before = f'{{"model":"gpt-5",{rest}}}' if place == "first" else f'{{{rest},"model":"gpt-5"}}'
    body = before.encode()
    assert len(body) > 30_000_000
    changed = rewrite.model(body, to_kimi)
    assert changed == before.replace('"gpt-5"', '"kimi"').encode()


def test_deep_nesting_costs_no_stack() -> None:
    body = b'{"x":' + b"[" * 200_000 + b"]" * 200_000 + b',"model":"a"}'
    assert rewrite.model(body, to_kimi).endswith(b',"model":"kimi"}')


def test_headers_go_by_an_allow_list() -> None:
    fields = [
        (b"Authorization", b"Bearer sk-REAL"),
        (b"x-api-key", b"sk-REAL"),
        (b"X-Goog-Api-Key", b"sk-REAL"),
        (b"api-key", b"sk-REAL"),
        (b"Cookie", b"sk-REAL"),
        (b"Proxy-Authorization", b"sk-REAL"),
        (b"openai-organization", b"org"),
        (b"chatgpt-account-id", b"id"),
        (b"x-something-new", b"sk-REAL"),
        (b"x-litellm-tags", b"mine"),
        (b"Content-Type", b"application/json"),
        (b"anthropic-version", b"2023-06-01"),
        (b"Accept", b"text/event-stream"),
        (b"User-Agent", b"tool/1"),
        (b"\xff\xfe", b"sk-REAL"),
    ]
    assert [name for name, _ in rewrite.headers(fields)] == [
        b"Content-Type",
        b"anthropic-version",
        b"Accept",
        b"User-Agent",
    ]


@pytest.mark.parametrize(
    ("given_query", "kept"),
    [
        ("key=sk-REAL&alt=sse", "alt=sse"),
        ("alt=sse&KEY=sk-REAL&%6bey=sk-REAL&access_token=sk-REAL", "alt=sse"),
        ("beta=true", "beta=true"),
        ("api-version=2025-01-01&api-key=sk-REAL", ""),
        ("", ""),
        ("alt=sse&alt", "alt=sse&alt="),
        ("alt=sse;key=sk-REAL", ""),
        ("alt=sse%26key=sk-REAL", ""),
    ],
)
def test_the_query_goes_by_an_allow_list(given_query: str, kept: str) -> None:
    assert rewrite.query(given_query) == kept
