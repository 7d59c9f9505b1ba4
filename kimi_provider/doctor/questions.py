"""What a probing tells about the open questions of protocol G: the number of each, and an answer in one sentence.

Answers only what was seen; a question of which nothing was seen is left out. Numbers are those of docs/protocol.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from ..protocols.connect.envelope import WEB_TRAILER
from .failures import errors_of, reasons_of
from .hearing import EVENT_STREAM, Heard
from .learning import texts_of
from .probing import Probed


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What was seen of question `number`."""

    number: int
    text: str


def answers(probed: Probed) -> list[Answer]:
    """In the order of the questions."""
    found = ((number, ask(probed)) for number, ask in _QUESTIONS.items())
    return [Answer(number=number, text=text) for number, text in found if text]


def _older_protocol(probed: Probed) -> str:
    rest = probed.upstream.rest.chat
    calls = [one.exchange for one in probed.heard if one.exchange.path.startswith(rest)]
    answers = [one for one in calls if one.path.endswith("/completion/stream")]
    if any(one.status == 200 for one in answers):
        return "completion/stream of the older protocol still answers"
    refused = next((one for one in (*answers, *calls) if one.status != 200), None)
    return "" if refused is None else f"the older protocol is refused with HTTP {refused.status}"


def _reasons(probed: Probed) -> str:
    seen = dict.fromkeys(reason for one in probed.heard for error in errors_of(one) for reason in reasons_of(error))
    return f"reasons of errors seen: {', '.join(seen)}" if seen else ""


def _refresh_spelling(probed: Probed) -> str:
    for one in probed.heard:
        if one.exchange.path == probed.upstream.auth.gateway_path and one.exchange.status == 200:
            where = (
                "under data" if isinstance(one.body, dict) and isinstance(one.body.get("data"), dict) else "top level"
            )
            place = one.body.get("data", one.body) if isinstance(one.body, dict) else {}
            sent = ", ".join(one.request) if isinstance(one.request, dict) else "?"
            return f"{sent} is taken; the answer has {', '.join(sorted(place))} ({where})"
    return ""


def _agents(probed: Probed) -> str:
    told = []
    for one in probed.heard:
        request = one.request if isinstance(one.request, dict) else {}
        if one.chats and request.get("agent_mode"):
            codes = [str(error.get("code") or error.get("reason") or "error") for error in errors_of(one)]
            told.append(f"{one.model} in {request.get('scenario')}: {', '.join(codes) or 'answered'}")
    return "; ".join(dict.fromkeys(told))


def _scenarios(probed: Probed) -> str:
    listed = ", ".join(f"{live.id} in {live.scenario}" for live in probed.offered)
    return f"listed: {listed}" if listed else ""


def _continuing(probed: Probed) -> str:
    for one in probed.heard:
        request = one.request if isinstance(one.request, dict) else {}
        message = request.get("message")
        if one.chats and request.get("chat_id") and isinstance(message, dict) and not message.get("parent_id"):
            return f"a chat {'is refused' if errors_of(one) else 'goes on'} without parent_id"
    return ""


def _flags(probed: Probed) -> str:
    plain = sum(frame.flag == 0 for one in probed.heard for frame in one.frames)
    web = sum(frame.flag is not None and frame.flag & WEB_TRAILER for one in probed.heard for frame in one.frames)
    return f"{plain} message frames, {'some' if web else 'none'} with flag 0x80" if plain else ""


def _deletion(probed: Probed) -> str:
    seen = {
        one.exchange.path: one.exchange.status
        for one in probed.heard
        if one.exchange.path in probed.upstream.connect.delete_chat
    }
    return "; ".join(f"{path.removeprefix('/apiv2/')} answers {status}" for path, status in seen.items())


def _messages(probed: Probed) -> str:
    for one in probed.heard:
        rows = one.body.get("messages") if isinstance(one.body, dict) else None
        if one.exchange.path == probed.upstream.connect.list_messages and isinstance(rows, list) and rows:
            roles = [row.get("role") for row in rows if isinstance(row, dict)]
            paged = "more pages follow" if one.body.get("nextPageToken") else "all on one page"
            return f"messages of a chat come as {', '.join(map(str, roles))}: {paged}"
    return ""


def _stages(probed: Probed) -> str:
    seen = {f"{name} {status}" for name, status in _strings_of(probed, "stage", ("name", "status"))}
    flags = {flags for (flags,) in _strings_of(probed, "text", ("flags",))}
    return ", ".join((*sorted(seen), *(f"text.flags {flag}" for flag in sorted(flags))))


def _signs(probed: Probed) -> str:
    text = "".join(texts_of(one.values, "text") for one in probed.heard)
    points = sorted({ord(character) for character in text if "\ue000" <= character <= "\uf8ff"})
    return f"private-use characters in answers: {', '.join(f'U+{point:04X}' for point in points)}" if points else ""


def _efforts(probed: Probed) -> str:
    efforts = {effort for live in probed.offered for effort in live.efforts}
    return f"offered: {', '.join(sorted(efforts))}" if efforts else ""


def _message_ids(probed: Probed) -> str:
    blocks = [block for one in probed.heard for block in _blocks(one)]
    with_id = sum(bool(block.get("messageId") or block.get("message_id")) for block in blocks)
    return f"{with_id} of {len(blocks)} blocks name their message" if blocks else ""


def _older_events(probed: Probed) -> str:
    kinds = {
        value["event"]
        for one in probed.heard
        if one.exchange.content_type == EVENT_STREAM
        for value in one.values
        if isinstance(value, dict) and isinstance(value.get("event"), str)
    }
    return f"events of the older protocol: {', '.join(sorted(kinds))}" if kinds else ""


def _version(probed: Probed) -> str:
    with_id = sum(live.id != live.key for live in probed.offered)
    version = probed.upstream.headers.get("x-msh-version", "none")
    return f"x-msh-version {version} gets a list of {len(probed.offered)}, {with_id} with ids" if probed.offered else ""


def _blocks(heard: Heard) -> Iterator[dict[str, Any]]:
    for value in heard.values:
        if isinstance(value, dict) and isinstance(block := value.get("block"), dict):
            yield block


def _strings_of(probed: Probed, kind: str, names: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The texts under `names` of all blocks of a kind that have them all."""
    for one in probed.heard:
        for block in _blocks(one):
            part = block.get(kind)
            values = [part.get(name) for name in names] if isinstance(part, dict) else []
            if values and all(isinstance(value, str) for value in values):
                yield tuple(map(str, values))


_QUESTIONS: Final[dict[int, Callable[[Probed], str]]] = {
    1: _older_protocol,
    2: _reasons,
    5: _refresh_spelling,
    9: _agents,
    10: _scenarios,
    12: _continuing,
    14: _flags,
    16: _deletion,
    17: _messages,
    18: _stages,
    20: _signs,
    21: _efforts,
    24: _message_ids,
    27: _older_events,
    28: _version,
}
