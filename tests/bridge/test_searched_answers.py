"""The pure parts of searched answers: offsets, Anthropic's blocks, Gemini's segments, steps told as thinking."""

from __future__ import annotations

from typing import Any

import pytest

from kimi_provider import events as ev
from kimi_provider.litellm_bridge import citing, messages
from kimi_provider.litellm_bridge.gemini.grounding import grounding
from kimi_provider.litellm_bridge.outbound import Answer, collect
from kimi_provider.litellm_bridge.progress import Progress

# LiteLLM's own models warn when they are first built.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydantic")

A, B = ev.Source(url="https://a.example/", title="A", snippet="x" * 400), ev.Source(url="https://b.example/")
ANSWERS: dict[str, list[ev.Event]] = {
    "none": [ev.TextDelta("Nothing "), ev.TextDelta("to cite.")],
    "two of one place": [
        ev.SearchResults(queries=("q1",)),
        ev.SearchResults(sources=(A, B)),
        ev.TextDelta("Größe 9 °C[1]"),
        ev.Citation(number=1, source=A),
        ev.TextDelta("[2]"),
        ev.Citation(number=2, source=B),
        ev.TextDelta(" und\n😀 weiter"),
        ev.TextDelta("[1]"),
        ev.Citation(number=1, source=A),
    ],
    "a search between texts": [
        ev.ThinkingDelta("Hm."),
        ev.TextDelta("First[1]"),
        ev.Citation(number=1, source=A),
        ev.SearchResults(queries=("again",), sources=(B,)),
        ev.TextDelta(" then"),
        ev.TextDelta(" more[2]"),
        ev.Citation(number=2, source=B),
        ev.TextDelta("."),
    ],
}


async def whole(events: list[ev.Event]) -> dict[str, Any]:
    async def all_of() -> Any:
        for event in (*events, ev.Usage(prompt_tokens=1, completion_tokens=1), ev.Finished()):
            yield event

    response = await collect(all_of(), Answer(model="m", lists_sources=False))
    message: dict[str, Any] = response.choices[0].message.model_dump()
    return message


@pytest.mark.anyio
@pytest.mark.parametrize("name", ANSWERS)
async def test_offsets_are_those_of_the_marks(name: str) -> None:
    message = await whole(ANSWERS[name])
    cited = [event for event in ANSWERS[name] if isinstance(event, ev.Citation)]
    places = [a["url_citation"] for a in message.get("annotations") or ()]
    assert [message["content"][p["start_index"] : p["end_index"]] for p in places] == [f"[{c.number}]" for c in cited]
    assert [p["url"] for p in places] == [c.source.url for c in cited]


@pytest.mark.anyio
@pytest.mark.parametrize("name", ANSWERS)
async def test_segments_are_bytes_before_the_marks(name: str) -> None:
    message = await whole(ANSWERS[name])
    text, fields = message["content"], message.get("provider_specific_fields") or {}
    found = grounding(text, message.get("annotations") or (), fields)
    if name == "none":
        assert found == {}
        return
    for support in found["groundingSupports"]:
        segment = support["segment"]
        assert text.encode()[segment["startIndex"] : segment["endIndex"]].decode() == segment["text"]
    assert len(found["groundingSupports"][0]["groundingChunkIndices"]) == (2 if name.startswith("two") else 1)
    assert "searchEntryPoint" not in found


def streamed(events: list[ev.Event]) -> list[dict[str, Any]]:
    """Blocks as a client puts them together; an adapter that knows no searches is played in front."""
    answer, search, out, kind = Answer(model="m", lists_sources=False), messages.AnswerEvents(), [], ""
    for event in events:
        text, thinking, fields = answer.say(event)
        search.note(fields)
        if not (wanted := "text" if text else "thinking" if thinking else ""):
            continue
        if kind and wanted != kind:
            out += search.take({"type": "content_block_stop", "index": 99})
        if wanted != kind:
            block = {"type": wanted, wanted: ""}
            out += search.take({"type": "content_block_start", "index": 99, "content_block": block})
            kind = wanted
        delta = {"type": f"{wanted}_delta", wanted: text or thinking}
        out += search.take({"type": "content_block_delta", "index": 99, "delta": delta})
    out += search.take({"type": "content_block_stop", "index": 99})
    out += search.take({"type": "message_delta"})
    return assembled(out)


def assembled(out: list[dict[str, Any]]) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    is_open = False
    for event in out:
        match event["type"]:
            case "content_block_start":
                assert not is_open
                assert event["index"] == len(blocks)
                blocks.append(dict(event["content_block"]))
                is_open = True
            case "content_block_delta":
                assert is_open
                assert event["index"] == len(blocks) - 1
                delta = event["delta"]
                for key in ("text", "thinking"):
                    if key in delta:
                        blocks[-1][key] += delta[key]
                if "citation" in delta:
                    blocks[-1].setdefault("citations", []).append(delta["citation"])
            case "content_block_stop":
                assert is_open
                is_open = False
    assert not is_open
    return blocks


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["none", "two of one place"])
async def test_a_stream_has_the_blocks_of_the_whole_answer(name: str) -> None:
    message = await whole(ANSWERS[name])
    told = messages.with_search([{"type": "text", "text": message["content"]}], message)

    def seen(blocks: list[dict[str, Any]]) -> list[Any]:
        return [(b["type"], b.get("text"), b.get("content"), b.get("citations")) for b in blocks]

    assert seen(streamed(ANSWERS[name])) == seen(told)


def test_a_later_search_stands_before_the_text_that_follows_it() -> None:
    kinds = [(b["type"], b.get("text")) for b in streamed(ANSWERS["a search between texts"])]
    assert kinds == [
        ("thinking", None),
        ("text", "First[1]"),
        ("server_tool_use", None),
        ("web_search_tool_result", None),
        ("text", " then more[2]"),
        ("text", "."),
    ]


def test_a_call_without_arguments_keeps_its_block() -> None:
    search = messages.AnswerEvents()
    call = {"type": "tool_use", "id": "1", "name": "now", "input": {}}
    out = list(search.take({"type": "content_block_start", "index": 0, "content_block": call}))
    out += search.take({"type": "content_block_stop", "index": 0})
    assert assembled(out) == [call]


def test_a_citation_whose_mark_was_cut_off_is_left_out() -> None:
    cited = citing.Citing()
    cited.said("Shortened")
    assert not cited.cite(ev.Citation(number=1, source=A))
    assert (cited.annotations, cited.source_list()) == ([], "")


def test_a_citation_quotes_little() -> None:
    assert len(citing.location(A.url, A.title, A.snippet)["cited_text"]) == 150
    assert citing.location(B.url, B.title, B.snippet)["title"] == B.url


def tool(name: str, state: Any, call_id: str = "1") -> ev.NativeTool:
    return ev.NativeTool(call_id=call_id, name=name, state=state)


def test_steps_are_paragraphs_among_the_thoughts() -> None:
    progress = Progress("en", {"web_search"}.__contains__)
    told = [
        progress.thought("First."),
        progress.step(tool("web_search", "started")),
        progress.step(ev.SearchResults(queries=("a", "b"))),
        progress.step(ev.SearchResults(sources=(A,))),
        progress.step(tool("ipython", "started", "2")),
        progress.step(tool("ipython", "running", "2")),
        progress.thought("Second."),
        progress.step(tool("ipython", "failed", "2")),
    ]
    assert "".join(told) == "First.\n\nSearching the web: a; b\n\nRunning ipython\n\nSecond.\n\nipython has failed"
    assert Progress("id", set[str]().__contains__).step(tool("ipython", "done")) == "Menjalankan ipython"
