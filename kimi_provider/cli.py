"""The command `kimi-provider`: words in, the right room, words out.

Prints through rich and decides nothing itself. Every failure a user can cause ends in one sentence on stderr and exit
code 2; secrets are never printed, only where they are kept.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from . import doctor as checks
from . import serve as serving
from .engine import KimiEngine
from .errors import CredentialMissing, KimiError, Language
from .events import Finished, TextDelta, ThinkingDelta
from .observe import redact_logs
from .request import ChatRequest, Message, TextPart
from .settings import Settings, SettingsError
from .simulator.server import SimulatorServer
from .upstream import Upstream

app = typer.Typer(
    name="kimi-provider",
    help="Kimi's web chat as a LiteLLM provider. Unofficial; use your own account.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def main() -> None:
    """Entry point of the `kimi-provider` command."""
    redact_logs()
    app()


def program() -> str:
    """The command as the reader can type it: with its path, since the environment is often not activated."""
    return str(Path(sys.argv[0]))


@contextmanager
def _one_sentence() -> Iterator[None]:
    """Errors a user can mend, as one sentence and exit code 2."""
    try:
        yield
    except (serving.ServeError, SettingsError) as exc:
        err.print(Text(f"kimi-provider: {exc}"))
        raise typer.Exit(2) from None
    except KimiError as exc:
        err.print(Text(f"kimi-provider: {exc.describe(_language())}"))
        raise typer.Exit(2) from None


def _language() -> Language:
    try:
        return Settings.load().kimi_lang
    except SettingsError:
        return "en"


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 4000,
    config: Annotated[Path | None, typer.Option(help="LiteLLM configuration; default ./litellm_config.yaml.")] = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Worker processes.")] = 1,
) -> None:
    """Start the gateway: a LiteLLM proxy with Kimi's models. Without a Kimi credential: demo mode."""
    with _one_sentence():
        code = serving.run(
            host=host, port=port, config=config, workers=workers, on_start=_print_start, on_ready=_print_ready
        )
    raise typer.Exit(code)


def _print_start(gateway: serving.Gateway) -> None:
    if gateway.demo:
        out.print(
            "[bold yellow]Demo mode:[/] no Kimi credential found (looked for KIMI_TOKEN in the environment and .env, "
            "and api_key on kimi/ rows of the configuration). The built-in simulator answers instead.\n"
            f"Real mode: [bold]KIMI_TOKEN=... {program()} serve[/]"
        )
    out.print(f"Starting LiteLLM with {gateway.config} on {gateway.url} (about 10 s) ...")


def _print_ready(gateway: serving.Gateway) -> None:
    model = next((name for name in gateway.models if name.startswith("kimi")), "kimi")
    key = f"$(cat {gateway.key_file})" if gateway.key_file else "$LITELLM_MASTER_KEY"
    body = f'"model": "{model}", "stream": true'
    lines = [
        "",
        f"[bold green]Ready:[/] {gateway.url}   guide: {gateway.url}/kimi",
        f"Key:   {gateway.key_file or 'LITELLM_MASTER_KEY from the environment'}",
        "",
    ]
    for message in lines:
        out.print(message)
    curls = (
        ("OpenAI chat", "/v1/chat/completions", f'-H "Authorization: Bearer {key}"',
         f'{{{body}, "messages": [{{"role": "user", "content": "Hello"}}]}}'),
        ("Anthropic", "/v1/messages", f'-H "x-api-key: {key}" -H "anthropic-version: 2023-06-01"',
         f'{{{body}, "max_tokens": 1024, "messages": [{{"role": "user", "content": "Hello"}}]}}'),
        ("Responses", "/v1/responses", f'-H "Authorization: Bearer {key}"', f'{{{body}, "input": "Hello"}}'),
    )  # fmt: skip
    for title, path, auth, payload in curls:
        out.print(f"# {title}", style="dim")
        # Written raw: a line that rich wraps can't be copied.
        out.file.write(f"curl -N {gateway.url}{path} {auth} -H \"Content-Type: application/json\" -d '{payload}'\n\n")
    out.file.flush()


@app.command()
def simulate(
    host: Annotated[str, typer.Option()] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 4100,
) -> None:
    """Run the simulator of Kimi's service alone, for tests and demos."""
    with _one_sentence():
        if port:
            serving.check_port(host, port)
        with SimulatorServer(host=host, port=port) as simulator:
            tokens = simulator.login(user="demo")
            out.print(f"Simulator on {simulator.url} (no connection to Kimi or Moonshot AI). Ctrl-C stops it.")
            out.print("A gateway that uses it:")
            out.file.write(
                f"KIMI_BASE_URL={simulator.url} KIMI_AUTH_URL={simulator.url} "
                f"KIMI_TOKEN={tokens['refresh_token']} {program()} serve\n"
            )
            out.file.flush()
            with suppress(KeyboardInterrupt):
                threading.Event().wait()


@app.command()
def chat(
    prompt: Annotated[str, typer.Argument(help="What to ask.")],
    model: Annotated[str, typer.Option("--model", "-m")] = "kimi-thinking",
    demo: Annotated[bool, typer.Option("--demo", help="Ask the built-in simulator.")] = False,
) -> None:
    """Ask once and stream the answer, thinking dimmed."""
    with _one_sentence():
        if demo:
            with SimulatorServer() as simulator:
                settings = Settings.load(**{k.lower(): v for k, v in serving.demo_environment(simulator).items()})
                asyncio.run(_chat(KimiEngine(settings, Upstream.load(settings.kimi_upstream_file)), model, prompt))
        else:
            asyncio.run(_chat(KimiEngine.from_environment(), model, prompt))


async def _chat(engine: KimiEngine, model: str, prompt: str) -> None:
    if not engine.pool.accounts:
        raise CredentialMissing(
            "No Kimi credential: looked for KIMI_TOKEN in the environment and in .env",
            cure=f"Set it, or try '{program()} chat --demo'.",
        )
    request = ChatRequest(
        model=model.removeprefix("kimi/"), messages=(Message(role="user", parts=(TextPart(text=prompt),)),)
    )
    dimmed = False
    async for event in engine.chat(request):
        match event:
            case ThinkingDelta(text):
                dimmed = True
                out.print(Text(text, style="dim"), end="")
            case TextDelta(text):
                if dimmed:
                    out.print("\n")
                    dimmed = False
                out.print(Text(text), end="")
            case Finished(reason=reason):
                out.print("" if reason == "stop" else f"\n[dim](ended: {reason})[/]")


@app.command()
def models(
    live: Annotated[bool, typer.Option("--live", help="Also ask the service what it offers now.")] = False,
) -> None:
    """List the model names this gateway understands."""
    with _one_sentence():
        engine = KimiEngine.from_environment()
        table = Table("model", "serves", "window", "also called", box=None, pad_edge=False)
        for name, spec in engine.upstream.models.items():
            aliases = ", ".join(alias for alias, target in engine.upstream.aliases.items() if target == name)
            table.add_row(f"kimi/{name}", spec.title, f"{spec.context_tokens // 1024}K", aliases)
        out.print(table)
        suffixes = " ".join(f"-{name}" for name in engine.upstream.suffixes)
        out.print(f"Suffixes that may follow a name: {suffixes}", style="dim")
        if live:
            _print_live(engine)


def _print_live(engine: KimiEngine) -> None:
    table = Table("id", "title", "scenario", "efforts", box=None, pad_edge=False)
    for row in asyncio.run(engine.models()):
        efforts = ", ".join(effort.removeprefix("REASONING_EFFORT_").lower() for effort in row.efforts)
        table.add_row(row.id, row.title, row.scenario, efforts)
    out.print("\nThe service offers now:")
    out.print(table)


@app.command()
def doctor() -> None:
    """Check this machine, the settings, the credential and the service; say what to do about each problem."""
    failed = False
    for check in checks.run():
        failed = failed or not check.ok
        out.print(f"[{'green' if check.ok else 'red'}]{'ok  ' if check.ok else 'FAIL'}[/] {check.tried}")
        out.print(Text(f"     {check.meaning}", style="dim" if check.ok else ""))
        if check.action:
            out.print(Text(f"     -> {check.action}", style="bold"))
    raise typer.Exit(1 if failed else 0)
