"""What the demo answers: a friendly, honest text about the prompt it was given.

Pure: words in, words out. It recognises greetings (English, Indonesian), small sums, questions about itself and about
what was said before, and flattened transcripts with `User:` and `Assistant:` or `[USER]` headings (protocol E.2). It
never pretends to be a model: every answer begins with `[simulator] `.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

PREFIX = "[simulator] "
_HEADING = re.compile(r"^[ \t]*(?:\[(USER|ASSISTANT|SYSTEM)\]|(User|Assistant|System)\s*:)[ \t]*", re.I | re.M)
_SUM = re.compile(r"(-?\d+(?:\.\d+)?)\s*([-+*/x×÷])\s*(-?\d+(?:\.\d+)?)")
_OPERATIONS: dict[str, Callable[[float, float], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "x": operator.mul,
    "×": operator.mul,
    "/": operator.truediv,
    "÷": operator.truediv,
}
_QUOTED_CHARS = 160

# (what the newest message says, what the demo says); the first that is found answers.
_CANNED: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r"\b(selamat (pagi|siang|sore|malam)|halo|hai|apa kabar|assalamu)", re.I),
        "Halo! Senang bertemu. Saya hanya simulator, jadi jawaban saya sederhana, tetapi semuanya sudah tersambung.",
    ),
    (
        re.compile(r"\b(terima kasih|makasih)\b", re.I),
        "Sama-sama! Kalau ada yang ingin dicoba lagi, silakan.",
    ),
    (
        re.compile(r"\b(what can you do|apa yang bisa kamu|help me get started|siapa kamu|who are you)\b", re.I),
        "I am the built-in simulator of kimi-provider. I greet, do small sums, remember this chat, pretend to think "
        "and to search, and play faults on request: the scenarios are listed at /_sim/scenarios. "
        "With a real credential the same request goes to Kimi.",
    ),
    (
        re.compile(r"\b(hello|hi|hey|good (morning|afternoon|evening))\b", re.I),
        "Hello! Nice to meet you. I am only a simulator, so my answers are simple, but everything is connected.",
    ),
    (re.compile(r"\b(thank you|thanks)\b", re.I), "You are welcome! Ask me anything else you would like to try."),
    (re.compile(r"\b(bye|goodbye|sampai jumpa)\b", re.I), "Goodbye! See you in the next chat."),
)
_REMEMBER = re.compile(r"\b(remember|recall|did i (say|ask|tell)|my name|earlier|ingat|tadi|nama saya)\b", re.I)
_STOCK = (
    "A real model would now write something clever; I only show that the words travel both ways. Try a small sum such "
    "as 12 * 7, a greeting, or ask what I can do."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """What the demo understood."""

    newest: str
    turns: int
    system: str
    earlier: tuple[str, ...]
    files: tuple[str, ...] = ()
    earlier_files: tuple[str, ...] = ()


def understand(content: str, *, system_prompt: str = "", earlier: list[str] | None = None) -> Prompt:
    """Split a possibly flattened transcript; `earlier` are the user's messages the chat itself remembers."""
    said = list(earlier or [])
    parts = _HEADING.split(content)
    # re.split with two groups gives: text before, then (bracketed, plain, text) for each heading.
    spoken = [((parts[at] or parts[at + 1]).lower(), parts[at + 2].strip()) for at in range(1, len(parts) - 2, 3)]
    users = [text for role, text in spoken if role == "user" and text]
    if not users:
        return Prompt(newest=content.strip(), turns=len(said) + 1, system=system_prompt, earlier=tuple(said))
    systems = [text for role, text in spoken if role == "system"]
    system = "\n".join(text for text in (system_prompt, parts[0].strip(), *systems) if text)
    said += users[:-1]
    return Prompt(newest=users[-1], turns=len(said) + 1, system=system, earlier=tuple(said))


def with_files(prompt: Prompt, files: list[str], earlier_files: list[str]) -> Prompt:
    """The same with files, each as `name (kind)`; those of earlier turns without the ones named again."""
    fresh = tuple(dict.fromkeys(files))
    before = tuple(label for label in dict.fromkeys(earlier_files) if label not in fresh)
    return replace(prompt, files=fresh, earlier_files=before)


def answer(prompt: Prompt, *, citation: str = "") -> str:
    """The whole text, the prefix included; `citation` is a mark to set after the searched claim."""
    said = [f"You wrote: “{_shortened(prompt.newest)}”.", _body(prompt)]
    if prompt.files:
        said.append(f"I see {', '.join(prompt.files)}.")
    if prompt.earlier_files:
        said.append(f"Earlier in this chat I saw {', '.join(prompt.earlier_files)}.")
    if citation:
        said.append(f"My pretended search found one page about it.{citation}")
    if prompt.earlier:
        said.append(f"This is turn {prompt.turns}; before that you said “{_shortened(prompt.earlier[-1])}”.")
    if prompt.system:
        said.append(f"I also saw a system prompt of {len(prompt.system)} characters.")
    return PREFIX + " ".join(said)


def thoughts(prompt: Prompt) -> list[str]:
    """Thinking in pieces."""
    return [
        "The user ",
        f"has written {len(prompt.newest.split())} words",
        f" in turn {prompt.turns}. ",
        "I should quote them ",
        "and answer briefly.",
    ]


def pieces(text: str) -> list[str]:
    """The text in the small pieces a model streams: one word each, nothing lost."""
    return re.findall(r"\s*\S+\s*$|\s*\S+", text)


def _body(prompt: Prompt) -> str:
    if _REMEMBER.search(prompt.newest) and prompt.earlier:
        listed = "; ".join(f"“{_shortened(text)}”" for text in prompt.earlier[-5:])
        return f"Yes, I remember. Earlier in this chat you said: {listed}."
    found = _SUM.search(prompt.newest)
    if found:
        return _sum(float(found[1]), found[2], float(found[3]))
    return next((said for pattern, said in _CANNED if pattern.search(prompt.newest)), _STOCK)


def _sum(left: float, sign: str, right: float) -> str:
    if right == 0 and sign in "/÷":
        return "Nobody can divide by zero, not even a simulator."
    return f"{left:g} {sign} {right:g} = {_OPERATIONS[sign](left, right):.12g}."


def _shortened(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= _QUOTED_CHARS else flat[: _QUOTED_CHARS - 1] + "…"


def query(prompt: Prompt) -> str:
    """Arguments of the pretended search, as JSON."""
    return json.dumps({"queries": [_shortened(prompt.newest)]}, ensure_ascii=False)
