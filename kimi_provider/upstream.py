"""`upstream.yaml` as checked values: everything about the service that drifts.

Code asks this table and never compares model names, error reasons or field spellings itself. A broken overlay raises
`SettingsError` that names the file, the place and the problem.
"""

from __future__ import annotations

import re
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, Field, ValidationError

from .dialects import Tools
from .errors import codes
from .models import ModelSpec, ModelTable, Row, compilable
from .settings import SettingsError


class Service(Row):
    """Times in seconds."""

    connect_timeout_s: float
    done_grace_s: float
    keepalive_s: float = Field(gt=0)
    token_advisory_s: float
    token_mandatory_s: float
    retired_for_s: float


class Retry(Row):
    """Pauses before each further attempt, and the seconds told to callers when the service names none."""

    backoff_s: tuple[float, ...]
    overloaded_s: float
    concurrency_s: float
    quota_s: float
    rate_limited_s: float
    muted_s: float
    plan_s: float


class Chats(Row):
    """How long chats are kept, and how those are removed that are not. Times in seconds, `ids` is a pattern."""

    idle_s: float = Field(gt=0, allow_inf_nan=False)
    remembered_s: float = Field(gt=0, allow_inf_nan=False)
    renew_s: float = Field(gt=0, allow_inf_nan=False)
    claim_s: float = Field(gt=0, allow_inf_nan=False)
    retry_s: tuple[float, ...] = Field(min_length=1)
    max_attempts: int = Field(gt=0)
    sticky_wait_s: float = Field(ge=0, allow_inf_nan=False)
    ids: Annotated[str, AfterValidator(compilable)]


class Hosts(Row):
    """Origins for tokens of one audience."""

    base_url: str
    auth_url: str


class Auth(Row):
    """The two refresh forms (protocol A.5, A.6)."""

    legacy_path: str
    gateway_path: str
    request_fields: tuple[str, ...]
    access_fields: tuple[str, ...]
    refresh_fields: tuple[str, ...]
    audiences: dict[str, Hosts]
    capture_hosts: tuple[str, ...]
    plans: dict[int, str]


class Connect(Row):
    """Paths and spellings of the Connect protocol (protocol C)."""

    chat: str
    available_models: str
    current_user: str
    delete_chat: tuple[str, ...]
    cancel_chat: tuple[str, ...]
    list_messages: str
    max_frame_bytes: int = Field(gt=0)
    fields: dict[str, str]
    search_tools: tuple[dict[str, Any], ...]
    search_tool_names: frozenset[str]
    question_tool_names: frozenset[str]
    completed_statuses: frozenset[str]
    notices: dict[str, str]
    upload: str
    parse_progress: str
    parsed_status: str
    parse_failed_sign: str


class RestAgent(Row):
    """What a model's row means to the REST generation; `body` is added to the completion call."""

    kimiplus_id: str
    thinking_kimiplus_id: str | None = None
    use_research: bool = False
    body: dict[str, Any] = Field(default_factory=dict)


class Rest(Row):
    """Paths and spellings of the REST generation (protocol B)."""

    chat: str
    user: str
    research_usage: str
    chat_name: str
    max_frame_bytes: int = Field(gt=0)
    max_continues: int = Field(ge=0)
    retired_statuses: frozenset[int]
    thinking_zones: frozenset[str]
    agents: dict[str, RestAgent]
    presign: str
    file: str
    file_waiting_statuses: frozenset[str]
    file_parsed_status: str
    error_codes: dict[str, str]


#: One code point that no plain text holds.
Sign = Annotated[str, Field(pattern=r"^[^\x00-\x7f]$")]


class Citations(Row):
    """Signs around citation marks (protocol C.7); `hold_chars` bounds what is held back for an open mark."""

    start: tuple[Sign, ...] = Field(min_length=1)
    separator: tuple[Sign, ...] = Field(min_length=1)
    end: tuple[Sign, ...] = Field(min_length=1)
    drop_from: Sign
    drop_to: Sign
    hold_chars: int = Field(gt=0)


def _known_class(code: str) -> str:
    known = codes()
    if code not in known:
        raise ValueError(f"'{code}' is no error of ours; choose one of: {', '.join(sorted(known))}")
    return code


#: A code of `errors.py`.
ErrorClass = Annotated[str, AfterValidator(_known_class)]


class ErrorPattern(Row):
    """`pattern` is searched without case in reason and message of errors with one of `codes`."""

    error_class: ErrorClass = Field(alias="class")
    codes: frozenset[str]
    pattern: Annotated[str, AfterValidator(compilable)]

    @cached_property
    def regex(self) -> re.Pattern[str]:
        """The compiled pattern."""
        return re.compile(self.pattern, re.IGNORECASE)


class Errors(Row):
    """How the service's errors map to the codes of `errors.py` (protocol B.6, C.11)."""

    reasons: dict[str, ErrorClass]
    patterns: tuple[ErrorPattern, ...]
    codes: dict[str, ErrorClass]
    retract_severities: frozenset[str]
    retract_class: ErrorClass


#: Hex of the first bytes; ".." stands for any byte.
Magic = Annotated[str, Field(pattern=r"^([0-9A-Fa-f]{2}|\.\.)+$")]
#: Extension without a dot, in lower case -> media type.
Types = Annotated[dict[Annotated[str, Field(pattern=r"^[a-z0-9]{1,16}$")], str], Field(min_length=1)]


class Signature(Row):
    """Files that begin with `magic`. `types`: what they may be, the usual first; names and declared types choose."""

    magic: Magic
    image: bool = False
    types: Types

    @cached_property
    def regex(self) -> re.Pattern[bytes]:
        """Matches at the start of such a file."""
        signs = (self.magic[at : at + 2] for at in range(0, len(self.magic), 2))
        return re.compile(
            b"".join(b"." if sign == ".." else re.escape(bytes.fromhex(sign)) for sign in signs), re.DOTALL
        )


class Files(Row):
    """What callers may send, and how long fetching and uploading may take.

    Up to `memory_bytes` of a file stay in memory. `parse_poll_s` are the pauses before each look at whether the service
    has read the file, the last one for all further looks. For `remembered_s` an account's upload is used again.
    """

    max_bytes: int = Field(gt=0)
    memory_bytes: int = Field(ge=0)
    connect_timeout_s: float = Field(gt=0, allow_inf_nan=False)
    idle_timeout_s: float = Field(gt=0, allow_inf_nan=False)
    total_timeout_s: float = Field(gt=0, allow_inf_nan=False)
    max_redirects: int = Field(ge=0, le=20)
    upload_timeout_s: float = Field(gt=0, allow_inf_nan=False)
    parse_timeout_s: float = Field(gt=0, allow_inf_nan=False)
    parse_poll_s: tuple[float, ...] = Field(min_length=1)
    remembered_s: float = Field(ge=0, allow_inf_nan=False)
    signatures: tuple[Signature, ...]
    texts: Types


class DoctorAsks(Row):
    """What `doctor --live` asks: names of models, over the newer protocol and over the older one, and its prompts.

    `max_repeats` bounds the chats that are asked again, all together.
    """

    chats: tuple[str, ...] = Field(min_length=1)
    search: str
    older: str
    prompt: str
    search_prompt: str
    timeout_s: float = Field(gt=0, allow_inf_nan=False)
    max_repeats: int = Field(ge=0)


class Upstream(ModelTable):
    """The whole file."""

    service: Service
    retry: Retry
    chats: Chats
    headers: dict[str, str]
    auth: Auth
    connect: Connect
    rest: Rest
    citations: Citations
    errors: Errors
    files: Files
    tools: Tools
    doctor: DoctorAsks

    @classmethod
    def load(cls, overlay: Path | None = None) -> Upstream:
        """The packaged table, with `overlay` merged over it. Raises SettingsError."""
        return cls.overlaid({} if overlay is None else read_overlay(overlay), source=overlay)

    @classmethod
    def overlaid(cls, values: dict[str, Any], *, source: Path | None = None) -> Upstream:
        """The packaged table with `values`, which come from `source`, merged over it. Raises SettingsError."""
        packaged = yaml.safe_load(resources.files(__package__).joinpath("upstream.yaml").read_text("utf-8"))
        try:
            return cls.model_validate(merged(packaged, values))
        except ValidationError as exc:
            first = exc.errors(include_url=False)[0]
            place = "".join(f"{step}." for step in first["loc"])[:-1]
            where = f"{source or 'upstream.yaml'}: {place}".removesuffix(": ")
            raise SettingsError(f"{where}: {first['msg']}") from None


def read_overlay(path: Path) -> dict[str, Any]:
    """The values of an overlay file, unchecked. Raises SettingsError."""
    try:
        data = yaml.safe_load(path.read_text("utf-8"))
    except OSError as exc:
        raise SettingsError(f"KIMI_UPSTREAM_FILE: {path} can't be read: {exc.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{path} is not valid UTF-8. Save it as UTF-8 text.") from None
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise SettingsError(f"{path} is not valid YAML{where}: {getattr(exc, 'problem', exc)}") from None
    if data is not None and not isinstance(data, dict):
        raise SettingsError(f"{path}: expected a mapping such as 'models: ...', found {type(data).__name__}")
    return data or {}


def merged(base: dict[str, Any], overlay: dict[str, Any]) -> dict[str, Any]:
    """Mappings key by key; everything else of `overlay` replaces what `base` has."""
    out = dict(base)
    for key, value in overlay.items():
        below = out.get(key)
        out[key] = merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return out


__all__ = ["ModelSpec", "Upstream"]
