"""`kimi-provider doctor`: prints what the room `doctor` finds, asks for consent, and saves what the owner agrees to.

Without --live nothing is asked of an account but whose it is. With it, every call is named before, nothing is asked
without a yes, and nothing is saved without another; no file is ever overwritten. Exit codes: 0, 1 when something fails
or the owner says no, 2 for what a user can mend.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.markup import escape
from rich.text import Text

from . import doctor as room
from .accounts import Account
from .doctor import probing, questions, taking
from .doctor.plan import plan
from .doctor.redaction import Counts
from .engine import KimiEngine
from .errors import BadRequest, CredentialMissing, PermissionRefused
from .observe import redact
from .recordings import Recording
from .terminal import language, one_sentence, out, program
from .upstream import Upstream


def doctor(
    live: Annotated[
        bool, typer.Option("--live", help="Also make about ten cheap calls on your account, after asking you.")
    ] = False,
    record: Annotated[
        Path | None, typer.Option("--record", metavar="FILE", help="Save what the service answered, redacted.")
    ] = None,
    overlay: Annotated[
        Path | None, typer.Option("--overlay", metavar="FILE", help="Save what upstream.yaml lacks, if anything.")
    ] = None,
    account: Annotated[
        str | None, typer.Option("--account", metavar="ACCOUNT", help="The account to ask on, when there are several.")
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Print the recording before it is saved.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Make the calls and save the files without asking.")] = False,
    test_alert: Annotated[
        bool, typer.Option("--test-alert", help="Send a message to each of KIMI_ALERT_URLS.")
    ] = False,
) -> None:
    """Check this machine, the settings, the credential and the service; say what to do about each problem."""
    if not live:
        with one_sentence():
            if record or overlay or account or show:
                raise BadRequest(
                    "--record, --overlay, --account and --show are about --live", cure="Add --live, or leave them out."
                )
        raise typer.Exit(_offline(test_alert))
    with one_sentence():
        for path in filter(None, (record, overlay)):
            _check_new(path)
        engine = KimiEngine.from_environment()
        try:
            code = _live(engine, _account(engine, account), record=record, overlay=overlay, show=show, yes=yes)
        finally:
            asyncio.run(engine.close())
    raise typer.Exit(code)


def _offline(test_alert: bool) -> int:
    failed = False
    for check in room.run(test_alert=test_alert):
        failed = failed or not check.ok
        _print_check(check.ok, check.tried, check.meaning, check.action)
    return 1 if failed else 0


def _print_check(ok: bool, tried: str, meaning: str, action: str = "") -> None:
    out.print(f"[{'green' if ok else 'red'}]{'ok  ' if ok else 'FAIL'}[/] {escape(_line(tried))}")
    if meaning:
        out.print(Text(f"     {_line(meaning)}", style="dim" if ok else ""))
    if action:
        out.print(Text(f"     -> {action}", style="bold"))


def _line(text: str) -> str:
    """One line for a terminal or a comment, whatever the service put into it."""
    return redact("".join(character if character.isprintable() else " " for character in text))


def _check_new(path: Path) -> None:
    """Raise BadRequest when `path` can't be made: before anything is asked for nothing."""
    if path.exists():
        raise BadRequest(f"{path} exists, and is not overwritten", cure="Name another file, or remove it first.")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise BadRequest(f"{path} can't be written", cure="Name a file in a folder that exists and is yours.")


def _account(engine: KimiEngine, wanted: str | None) -> Account:
    if engine.settings.kimi_demo:
        raise PermissionRefused(
            "This is demo mode, where the simulator answers: there is nothing to learn of the service",
            cure="Run it with the credential of your own account in KIMI_TOKEN, or after: kimi-provider accounts add",
        )
    accounts = engine.pool.accounts
    if not accounts:
        raise CredentialMissing(
            "No Kimi credential: there is no account to ask on",
            cure=f"Set KIMI_TOKEN, or run {program()} accounts add. Demo mode needs no doctor.",
        )
    if wanted is None:
        return engine.pool.next_account()
    fitting = [one for one in accounts if one.id.startswith(wanted)]
    if len(fitting) != 1:
        known = ", ".join(one.short_id for one in accounts)
        raise BadRequest(
            f"{'No' if not fitting else 'More than one'} account is {wanted[:20]}", cure=f"Known: {known}."
        )
    return fitting[0]


def _live(
    engine: KimiEngine, account: Account, *, record: Path | None, overlay: Path | None, show: bool, yes: bool
) -> int:
    out.print(Text(f"On your account {account.short_id}, at {account.base_url}, these calls would be made:"))
    for call in plan(engine.upstream, engine.settings, account):
        out.print(Text(f"  - {call}"))
    out.print("They count on the account like any use of it. Chats of yours are neither read nor changed.")
    if not _agreed("Make these calls?", yes):
        out.print("Nothing was asked.")
        return 1
    probed = asyncio.run(probing.probe(engine, account, _print_step))
    _print_findings(probed)
    files = {}
    if overlay is not None and probed.overlay:
        files[overlay] = _overlay_text(engine, probed)
    if record is not None:
        recording, counts = taking.taken(probed)
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # answers that break off again are meant
        recording = asyncio.run(taking.rehearsed(recording, Upstream.overlaid(probed.overlay)))
        files[record] = recording.dumps()
        _print_summary(recording, counts, files[record], show=show)
    if files and not _save(files, yes=yes):
        return 1
    return 1 if any(step.failure for step in probed.steps) else 0


def _agreed(question: str, yes: bool) -> bool:
    if yes:
        return True
    if not sys.stdin.isatty():
        raise BadRequest(
            "Calls on your account, and saving what they bring, need your consent, and nobody is here to give it",
            cure="Run it in a terminal and answer y, or add --yes.",
        )
    return typer.confirm(question)


def _print_step(step: probing.Step) -> None:
    if step.failure is None:
        _print_check(True, step.title, step.note)
    else:
        _print_check(False, step.title, step.failure.message, step.failure.cure(language()))


def _print_findings(probed: probing.Probed) -> None:
    told = questions.answers(probed)
    if told:
        out.print("\nOpen questions of docs/protocol.md, section G, as the service answers them now:")
    for answer in told:
        out.print(Text(f"  G.{answer.number}: {_line(answer.text)}"))
    if probed.found:
        out.print("\nNew to this version:")
    for found in probed.found:
        out.print(Text(f"  - {_line(found)}"))
    if not probed.overlay:
        out.print("\nupstream.yaml needs no change for what was seen.")
        return
    out.print("\nProposed values for a file that KIMI_UPSTREAM_FILE names:\n")
    out.print(Text(_yaml(probed.overlay)))


def _overlay_text(engine: KimiEngine, probed: probing.Probed) -> str:
    """The overlay in use with what was learned: KIMI_UPSTREAM_FILE names one file only."""
    found = "".join(f"#   {_line(one)}\n" for one in probed.found)
    head = f"# Proposed by 'kimi-provider doctor --live'. Name this file in KIMI_UPSTREAM_FILE.\n{found}"
    return head + _yaml(probing.whole_overlay(engine.settings, probed.overlay))


def _yaml(values: dict[str, Any]) -> str:
    # ASCII: signs of citations are invisible.
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=False)


def _print_summary(recording: Recording, counts: Counts, text: str, *, show: bool) -> None:
    frames = sum(len(call.frames) for call in recording.calls)
    replaced = f"{counts.ids} ids, {counts.addresses} addresses and {counts.characters} characters of text"
    out.print(
        f"\nThe recording: {len(recording.calls)} calls, {frames} frames, {len(text)} bytes. Replaced: {replaced}."
    )
    for call in recording.calls:
        ending = f", {call.outcome}" if call.outcome else ""
        out.print(Text(f"  {call.method} {call.path} -> {call.status}{ending}", style="dim"))
    if show:
        sys.stdout.write(text)


def _save(files: dict[Path, str], *, yes: bool) -> bool:
    """Write what the owner agrees to. Raises BadRequest."""
    names = " and ".join(map(str, files))
    if not yes and sys.stdin.isatty() and typer.confirm("See the text first?", default=False):
        for text in files.values():
            sys.stdout.write(text)
    if not _agreed(f"Save {names}?", yes):
        out.print("Nothing was saved.")
        return False
    for path, text in files.items():
        try:
            with path.open("x", encoding="utf-8") as file:
                path.chmod(0o600)
                file.write(text)
        except OSError as exc:
            raise BadRequest(f"{path} can't be written ({exc.strerror})", cure="Name another file.") from None
        out.print(Text(f"Saved {path}"))
    return True
