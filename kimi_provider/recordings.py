"""A recording of calls to the service, as a file: JSON Lines, version 1 (docs/doctor.md describes every field).

Says what was asked and answered, in the service's own words, and nothing of what a client makes of it; `doctor` writes
it, the simulator plays it. What is in it was redacted before. The first line is the header, a line with `call` begins a
call, and the lines that follow it are the frames of its stream. Unknown fields are errors, so a newer file is refused
with a sentence instead of being played wrongly.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .settings import SettingsError

VERSION: Final = 1
#: `outcome` of an answer that came to a good end; else it is a code of `errors`.
COMPLETED: Final = "completed"

#: What stands for an id, in the shape that the id had: a UUID, 20 characters, digits, anything else.
PLACEHOLDER: Final = re.compile(r"(?<![\w-])(?:00000000-0000-4000-8000-\d{12}|id\d{18}|id-\d+|9000\d{8,})(?![\w-])")


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Frame(_Line):
    """One frame of a stream: its JSON, or only its length when it is none. `flag` is that of an envelope (protocol
    C.4), absent for server-sent events.
    """

    flag: int | None = Field(default=None, ge=0, le=255)
    json_: Any = Field(default=None, alias="json")
    bytes_: int | None = Field(default=None, alias="bytes", ge=0)


class Call(_Line):
    """One call. Ids are replaced, those of `path`, too; `body` is the JSON of an answer that is no stream, `bytes` the
    length of one that is neither; `cut`: the connection ended before the answer did.

    Of a chat call `model` is the name that was asked for, and `outcome` how a client should find it to end.
    """

    call: str
    method: Literal["GET", "POST", "PUT", "DELETE"]
    path: str = Field(pattern="^/")
    request: Any = None
    status: int = Field(ge=100, le=599)
    type: str = ""
    body: Any = None
    bytes_: int | None = Field(default=None, alias="bytes", ge=0)
    cut: bool = False
    model: str | None = None
    outcome: str | None = None
    frames: tuple[Frame, ...] = Field((), exclude=True)


class Header(_Line):
    """`made` is a month, `made_with` a version of ours, `overlay` what upstream.yaml lacked to understand the calls."""

    kimi_recording: int
    made: str
    made_with: str
    overlay: dict[str, Any] = Field(default_factory=dict)


class Recording(_Line):
    """The whole file."""

    header: Header
    calls: tuple[Call, ...]

    @classmethod
    def load(cls, path: Path) -> Recording:
        """Raises SettingsError that names the file, the line and the problem."""
        try:
            text = path.read_text("utf-8")
        except OSError as exc:
            raise SettingsError(f"{path} can't be read ({exc.strerror}). Name a file of 'doctor --record'.") from None
        except UnicodeDecodeError:
            raise SettingsError(f"{path} is no recording: it is not UTF-8 text.") from None
        lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
        try:
            header = Header.model_validate_json(lines[0][1]) if lines else None
        except ValidationError:
            header = None
        if header is None:
            raise SettingsError(f"{path} is no recording: its first line is not the header. See docs/doctor.md.")
        if header.kimi_recording != VERSION:
            raise SettingsError(f"{path} has format {header.kimi_recording}; this version plays format {VERSION}.")
        calls: list[tuple[Call, list[Frame]]] = []
        for number, line in lines[1:]:
            try:
                if '"call"' in line and "call" in json.loads(line):
                    calls.append((Call.model_validate_json(line), []))
                elif calls:
                    calls[-1][1].append(Frame.model_validate_json(line))
                else:
                    raise SettingsError(f"{path}, line {number}: a frame without a call before it.")
            except (ValidationError, json.JSONDecodeError) as exc:
                problem = exc.errors(include_url=False)[0]["msg"] if isinstance(exc, ValidationError) else exc.msg
                raise SettingsError(f"{path}, line {number}: {problem}") from None
        if not calls:
            raise SettingsError(f"{path} holds no call.")
        return cls(
            header=header, calls=tuple(call.model_copy(update={"frames": tuple(frames)}) for call, frames in calls)
        )

    def dumps(self) -> str:
        """The file's text. ASCII, so that invisible signs are seen."""
        lines: list[_Line] = [self.header]
        for call in self.calls:
            lines += (call, *call.frames)
        return "".join(f"{_dumped(line)}\n" for line in lines)


def _dumped(line: _Line) -> str:
    return json.dumps(line.model_dump(mode="json", by_alias=True, exclude_defaults=True), ensure_ascii=True)
