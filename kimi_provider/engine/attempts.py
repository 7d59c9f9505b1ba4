"""Where an answer stands: what one attempt has brought, and what is left to try.

Plain state of the engine's loop; decides, but neither sends nor waits.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .. import metrics
from ..accounts import Account
from ..errors import BadRequest, ContentFiltered, ContextTooLong, CredentialError, KimiError, NotFound
from ..events import ChatOpened, Event, FinishReason, Notice, TextDelta, ThinkingDelta, ToolCallDelta, Usage
from ..protocols import ChatProtocol
from ..request import Message, TextPart, ToolCall
from ..shaping import estimate_tokens
from ..web import Session


@dataclass(slots=True)
class Progress:
    """What one attempt has brought so far."""

    watch: metrics.Watch
    account: Account | None = None
    protocol: ChatProtocol | None = None
    session: Session | None = None
    #: Files were named that the account got with an earlier request.
    remembered_files: bool = False
    #: The chat, also one that was there before.
    chat_id: str | None = None
    message_id: str | None = None
    #: The service has taken the message.
    began: bool = False
    #: The next request may go on in the chat.
    kept: bool = False
    reason: FinishReason = "stop"
    #: The service has ended the answer itself.
    complete: bool = False
    #: The caller has seen something other than a notice.
    emitted: bool = False
    text: list[str] = field(default_factory=list)
    thinking: list[str] = field(default_factory=list)
    calls: dict[int, _Call] = field(default_factory=dict)

    def opened(self, event: ChatOpened) -> bool:
        """Keep where the answer lives; True when that is a chat not known before."""
        is_new = self.chat_id is None and event.chat_id is not None
        self.began = True
        self.chat_id = event.chat_id or self.chat_id
        self.message_id = event.message_id or self.message_id
        return is_new

    def note(self, event: Event) -> bool:
        """Keep what callers see; False when there is nothing to show."""
        match event:
            case Notice():
                return True
            case TextDelta():
                if not event.text:
                    return False
                self.text.append(event.text)
            case ToolCallDelta():
                call = self.calls.setdefault(event.index, _Call())
                call.id, call.name = event.id or call.id, event.name or call.name
                call.arguments.append(event.arguments)
            case ThinkingDelta():
                self.thinking.append(event.text)
        if not self.emitted:
            assert self.protocol is not None
            self.emitted = True
            self.watch.first_event(self.protocol.name)
        return True

    def usage(self, prompt_tokens: int) -> Usage:
        """Estimates; thinking counts as part of the completion, as in OpenAI's API."""
        reasoning = estimate_tokens("".join(self.thinking))
        calls = (f"{call.name}{''.join(call.arguments)}" for call in self.calls.values())
        return Usage(
            prompt_tokens=prompt_tokens,
            completion_tokens=estimate_tokens("".join((*self.text, *calls))) + reasoning,
            reasoning_tokens=reasoning,
        )

    @property
    def answer(self) -> Message:
        """What the caller got, as the next request will hold it."""
        calls = (self.calls[index] for index in sorted(self.calls))
        return Message(
            role="assistant",
            parts=(TextPart(text="".join(self.text)),),
            tool_calls=tuple(ToolCall(id=call.id, name=call.name, arguments="".join(call.arguments)) for call in calls),
        )


@dataclass(slots=True)
class _Call:
    """A call as far as it has come."""

    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Course:
    """Where the fail-over loop stands."""

    only: Account | None
    #: The account that gets the next attempt, whatever is excluded.
    sticky: Account | None = None
    #: Generations that said they are gone.
    left: set[str] = field(default_factory=set)
    passed_over: set[str] = field(default_factory=set)
    #: Access tokens that the service refused, by account.
    rejected: dict[str, str] = field(default_factory=dict)
    retries: int = 0

    def refresh_next(self, failure: KimiError, account: Account, session: Session | None) -> bool:
        """Whether a refused access token gets its one refresh (protocol B.6, C.11)."""
        if not isinstance(failure, CredentialError) or session is None or account.id in self.rejected:
            return False
        self.rejected[account.id] = session.access_token
        return self.stay(account)

    def stay(self, account: Account, stays: bool = True) -> bool:
        """The next attempt goes to `account`, if it `stays`; which is returned."""
        self.sticky = account if stays else None
        return stays

    def pause_before_next_s(
        self, failure: KimiError, account: Account, another: bool, backoff_s: tuple[float, ...]
    ) -> float | None:
        """Seconds until the next attempt, or None when nothing is left to try. `another` account is free to answer."""
        if self.sticky is not None:
            return 0
        if failure.another_account and self.only is None and another:
            self.passed_over.add(account.id)
            return 0
        if failure.try_again and self.retries < len(backoff_s):
            self.passed_over.clear()
            self.retries += 1
            return backoff_s[self.retries - 1]
        return None


def about_the_request(failure: KimiError) -> bool:
    """Whether a refusal may be about something that the request names: a file, a chat, a message. Nothing says so for
    sure (protocol C.9, C.11).
    """
    return isinstance(failure, BadRequest | NotFound) and not isinstance(failure, ContentFiltered | ContextTooLong)
