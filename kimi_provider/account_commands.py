"""`kimi-provider accounts`: what the owner does with the accounts, from a terminal or a script.

A credential never stands among the arguments, where the list of processes and the shell's history show it: it comes
from standard input, a file, or a prompt that does not echo. Prints tables for people and, with --json, one JSON value;
never a secret. Exit codes: 0, 1 when an account that was checked is not alive, 2 for what a user can mend.
"""

from __future__ import annotations

import asyncio
import getpass
import json
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .accounts.capture import MAX_FILE_BYTES
from .accounts.understanding import duration
from .admin.roster import Roster
from .admin.rows import AccountRow, Checked, Counts, account_json, said
from .admin.words import ADVICE, STATES, TONES
from .engine import KimiEngine
from .errors import BadRequest
from .observe import redact
from .terminal import err, language, one_sentence, out, program

T = TypeVar("T")

app = typer.Typer(help="List, add, check, refresh, pause and remove the accounts that answer.", no_args_is_help=True)

_COLOURS: Final = {"good": "green", "warn": "yellow", "bad": "bold red", "off": "dim"}

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
Account = Annotated[str, typer.Argument(metavar="ACCOUNT", help="Its id, or the beginning of it.")]


def _run(work: Callable[[Roster], Coroutine[Any, Any, T]]) -> T:
    """`work` on the accounts that the environment names."""
    engine = KimiEngine.from_environment()
    try:
        return asyncio.run(work(Roster(engine)))
    finally:
        engine.pool.close()


def _print_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=2))  # noqa: T201  # as it is: no markup, no wrapping


@app.command(context_settings={"allow_extra_args": True})
def add(
    context: typer.Context,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="Read it from a file: a recording (HAR) or anything pasted.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Add accounts from standard input, a file, or a hidden prompt: refresh_token, cookie, HAR, cURL, localStorage.

    Never as an argument: others on this machine would see it in the list of processes, and the shell would keep it.
    """
    with one_sentence():
        if context.args:
            raise BadRequest(
                "A credential is not taken as an argument: the list of processes and the shell's history show it",
                cure=f"Take it out of the history, then run {program()} accounts add and paste it, or pipe it in.",
            )
        content = _read(file)
        added = _run(lambda roster: roster.add(content))
    now = time.time()
    if as_json:
        _print_json(
            [{"id": one.id, "short_id": one.understood.short_id, "outcome": one.outcome, **said(one.understood, now)}
             for one in added]
        )  # fmt: skip
        return
    for one in added:
        known = one.understood
        facts = [f"{known.kind} token", known.region and f"region {known.region}", known.plan and f"plan {known.plan}"]
        if known.expires_at is not None and known.expires_at > now:
            facts.append(f"expires in {duration(known.expires_at - now)}")
        out.print(Text(f"{one.outcome} {known.short_id}: {', '.join(fact for fact in facts if fact)}"))
        if missing := known.missing(now, language()):
            out.print(Text(f"  {missing}", style="yellow"))


def _read(file: Path | None) -> bytes:
    """Raises BadRequest."""
    if file is not None:
        try:
            with file.open("rb") as opened:
                return opened.read(MAX_FILE_BYTES + 1)
        except OSError as exc:
            raise BadRequest(f"{file} can't be read ({exc.strerror})") from None
    if not sys.stdin.isatty():
        return sys.stdin.buffer.read(MAX_FILE_BYTES + 1)
    err.print(Text(ADVICE[language()]))
    return getpass.getpass("Paste it here (it does not show; longer than a line: --file): ").encode()


@app.command(name="list")
def list_(as_json: AsJson = False) -> None:
    """Show every account: state, plan, expiry, streams, usage, last error."""
    with one_sentence():
        rows = _run(lambda roster: roster.rows())
    now = time.time()
    if as_json:
        _print_json([account_json(row, now) for row in rows])
    elif rows:
        _print_table(rows, now)
    else:
        out.print(Text(f"No account yet. Add one: {program()} accounts add"))


def _print_table(rows: list[AccountRow], now: float) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("account", "state", "plan", "expires", "streams", "today", "30 days"):
        table.add_column(title, no_wrap=True, justify="right" if title in ("streams", "today", "30 days") else "left")
    table.add_column("last error", overflow="fold", max_width=60)
    for row in rows:
        known = row.understood
        state = STATES[row.state]["en"]
        if row.cooldowns:
            state += f" {duration(max(one.until for one in row.cooldowns) - now)}"
        plan = " ".join(filter(None, (known.plan, known.region))) or "-"
        expires = "?" if known.expires_at is None else duration(known.expires_at - now)
        table.add_row(
            known.short_id if row.shared else f"{known.short_id} (a deployment's)",
            Text(state, style=_COLOURS[TONES[row.state]]),
            plan,
            expires if known.renewable else f"{expires}, no refresh",
            str(row.streams),
            _counts(row.today),
            _counts(row.month),
            Text(_error(row), style="dim"),
        )
    # A table that goes into a file or pipe has room.
    Console(highlight=False, width=None if out.is_terminal else 200).print(table)


def _error(row: AccountRow) -> str:
    error = row.last_error
    return redact(": ".join(filter(None, (error.event, error.message)))) if error else ""


def _counts(counts: Counts) -> str:
    failed = f" ({counts.failures} failed)" if counts.failures else ""
    return f"{counts.answers}{failed}"


@app.command()
def check(
    account: Annotated[str | None, typer.Argument(metavar="[ACCOUNT]", help="Its id; without one, all.")] = None,
    as_json: AsJson = False,
) -> None:
    """Ask Kimi whether the token is alive, without a prompt."""

    async def work(roster: Roster) -> list[Checked]:
        refs = [account] if account is not None else [row.id for row in await roster.rows()]
        return [await roster.check(ref) for ref in refs]

    with one_sentence():
        found = _run(work)
    if as_json:
        reasons = [redact(one.failure.message) if one.failure else None for one in found]
        _print_json(
            [
                {"short_id": one.short_id, "live": one.live, "reason": reason}
                for one, reason in zip(found, reasons, strict=True)
            ]
        )
    else:
        for one in found:
            if one.failure is None:
                out.print(Text(f"{one.short_id}: alive", style="green"))
            else:
                out.print(Text(f"{one.short_id}: {redact(one.failure.describe(language()))}", style="red"))
    raise typer.Exit(0 if all(one.live for one in found) else 1)


@app.command()
def refresh(account: Account, as_json: AsJson = False) -> None:
    """Renew the account's tokens now."""
    _change(lambda roster: roster.refresh(account), "renewed", as_json)


@app.command()
def enable(account: Account, as_json: AsJson = False) -> None:
    """Use the account again, whatever stopped it."""
    _change(lambda roster: roster.pause(account, paused=False), "in use", as_json)


@app.command()
def disable(account: Account, as_json: AsJson = False) -> None:
    """Pause the account: answers that run end, no new ones begin."""
    _change(lambda roster: roster.pause(account, paused=True), "paused", as_json)


@app.command()
def remove(
    account: Account,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Forget the account and its tokens, which can't be had back."""

    async def work(roster: Roster) -> tuple[AccountRow, bool]:
        row = await roster.remove(account)
        return row, roster.is_seeded(row.id)

    with one_sentence():
        if not yes:
            row = _run(lambda roster: roster.row(account))
            if not sys.stdin.isatty():
                raise BadRequest("Nothing was removed: nobody is there to ask", cure="Add --yes to be sure.")
            typer.confirm(f"Forget {row.short_id} and its tokens?", abort=True)
        gone, seeded = _run(work)
    if as_json:
        _print_json({"id": gone.id, "short_id": gone.short_id, "removed": True, "still_in_kimi_token": seeded})
        return
    out.print(Text(f"{gone.short_id}: removed"))
    if seeded:
        out.print(Text("  KIMI_TOKEN still holds it: take it out there, or the next start adds it again.", "yellow"))


def _change(work: Callable[[Roster], Coroutine[Any, Any, AccountRow]], done: str, as_json: bool) -> None:
    with one_sentence():
        row = _run(work)
    now = time.time()
    if as_json:
        _print_json(account_json(row, now))
        return
    state = STATES[row.state]["en"]
    out.print(Text(f"{row.short_id}: {done}" if state == done else f"{row.short_id}: {done} ({state})"))
