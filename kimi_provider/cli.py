"""The command `kimi-provider`: words in, the right room, words out.

Prints through rich and decides nothing itself. Every failure a user can cause ends in one sentence on stderr and exit
code 2; secrets are never printed, only where they are kept.
"""

from __future__ import annotations

import asyncio
import json
import shlex
import signal
import threading
from collections.abc import Sequence
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.markup import escape
from rich.text import Text

from . import account_commands, doctor_command
from . import serve as serving
from .engine import KimiEngine
from .errors import CredentialMissing
from .events import Citation, Finished, Source, TextDelta, ThinkingDelta
from .live import merged
from .observe import redact_logs
from .preflight import check_port
from .protocols import LiveModel
from .recordings import Recording
from .request import ChatRequest, Message, TextPart
from .settings import Settings
from .simulator import Simulator, SimulatorServer
from .terminal import one_sentence, out, program
from .upstream import Upstream

app = typer.Typer(
    name="kimi-provider",
    help="Kimi's web chat as a LiteLLM provider. Unofficial; use your own account.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(account_commands.app, name="accounts")
PROVIDER = "kimi"


def main() -> None:
    """Entry point of the `kimi-provider` command."""
    redact_logs()
    app()


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 4000,
    config: Annotated[Path | None, typer.Option(help="LiteLLM configuration; default ./litellm_config.yaml.")] = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Worker processes.")] = 1,
) -> None:
    """Start the gateway: a LiteLLM proxy with Kimi's models. Without a Kimi credential: demo mode."""
    with one_sentence():
        code = serving.run(
            host=host,
            port=port,
            config=config,
            workers=workers,
            on_start=_print_start,
            on_ready=_print_ready,
            on_stop=lambda: out.print("\nStopping; running answers end first. Ctrl-C again stops at once."),
        )
    raise typer.Exit(code)


def _print_start(gateway: serving.Gateway) -> None:
    if gateway.demo:
        out.print(
            "[bold yellow]Demo mode:[/] no Kimi credential found (looked for KIMI_TOKEN in the environment and .env, "
            "and api_key on kimi/ rows of the configuration). The built-in simulator answers instead.\n"
            f"Real mode: [bold]KIMI_TOKEN=... {escape(program())} serve[/]"
        )
    elif gateway.accounts:
        out.print(f"Accounts of KIMI_TOKEN: {', '.join(map(escape, gateway.accounts))}")
    else:
        out.print("No KIMI_TOKEN; only kimi/ rows with their own api_key can answer.")
    out.print(f"Starting LiteLLM with {escape(str(gateway.config))} on {gateway.url} (about 10 s) ...")


def _print_ready(gateway: serving.Gateway) -> None:
    out.print(f"\n[bold green]Ready:[/] {gateway.url}   guide: {gateway.url}/kimi   Ctrl-C stops it.")
    out.print(f"Key:   {escape(gateway.key_source)}\n")
    if not gateway.models:
        return
    model = gateway.models[0].replace("*", "kimi-latest")
    key = f"$(cat {shlex.quote(str(gateway.key_file))})" if gateway.key_file else "$LITELLM_MASTER_KEY"
    body: dict[str, Any] = {"model": model, "stream": True}
    messages = [{"role": "user", "content": "Hello"}]
    bearer = f'-H "Authorization: Bearer {key}"'
    anthropic = f'-H "x-api-key: {key}" -H "anthropic-version: 2023-06-01"'
    for title, path, auth, more in (
        ("OpenAI chat", "/v1/chat/completions", bearer, {"messages": messages}),
        ("Anthropic", "/v1/messages", anthropic, {"max_tokens": 1024, "messages": messages}),
        ("Responses", "/v1/responses", bearer, {"input": "Hello"}),
    ):
        _print_curl(title, gateway.url + path, auth, {**body, **more})
    gemini = f"{gateway.url}/v1beta/models/{model}:streamGenerateContent?alt=sse"
    _print_curl("Gemini", gemini, f'-H "x-goog-api-key: {key}"', {"contents": [{"parts": [{"text": "Hello"}]}]})


def _print_curl(title: str, url: str, auth: str, body: dict[str, Any]) -> None:
    payload = shlex.quote(json.dumps(body))
    out.print(f"# {title}", style="dim")
    out.print(Text(f'curl -N {shlex.quote(url)} {auth} -H "Content-Type: application/json" -d {payload}\n'))


@app.command()
def simulate(
    host: Annotated[str, typer.Option()] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 4100,
    scenario: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Play a recording of 'doctor --live --record' (docs/doctor.md).")
    ] = None,
) -> None:
    """Run the simulator of Kimi's service alone, for tests and demos."""
    with one_sentence():
        recording = None if scenario is None else Recording.load(scenario)
        if port:
            check_port(host, port)
        with SimulatorServer(Simulator(recording=recording), host=host, port=port) as simulator:
            tokens = simulator.login(user="demo")
            out.print(f"Simulator on {simulator.url} (no connection to Kimi or Moonshot AI). Ctrl-C stops it.")
            if recording is not None:
                out.print(f"It plays {escape(str(scenario))}: {len(recording.calls)} calls.")
                if recording.header.overlay:
                    out.print("Its first line has values that upstream.yaml lacks: KIMI_UPSTREAM_FILE must name them.")
            out.print("A gateway that uses it:")
            out.print(
                Text(
                    f"KIMI_BASE_URL={simulator.url} KIMI_AUTH_URL={simulator.url} "
                    f"KIMI_TOKEN={tokens['refresh_token']} {program()} serve"
                )
            )
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            with suppress(KeyboardInterrupt):
                threading.Event().wait()


@app.command()
def chat(
    prompt: Annotated[str, typer.Argument(help="What to ask.")],
    model: Annotated[str, typer.Option("--model", "-m")] = "kimi-thinking",
    demo: Annotated[bool, typer.Option("--demo", help="Ask the built-in simulator.")] = False,
) -> None:
    """Ask once and stream the answer, thinking dimmed."""
    with one_sentence():
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
            cure=f"Set it, or try: {program()} chat --demo 'Hello'",
        )
    request = ChatRequest(model=model, messages=(Message(role="user", parts=(TextPart(text=prompt),)),))
    dimmed = begun = False
    cited: dict[int, Source] = {}
    try:
        async with aclosing(engine.chat(request)) as events:
            async for event in events:
                match event:
                    case ThinkingDelta(text):
                        dimmed = begun = True
                        out.print(Text(text, style="dim"), end="")
                    case TextDelta(text):
                        if dimmed:
                            out.print("\n")
                            dimmed = False
                        begun = True
                        out.print(Text(text), end="")
                    case Citation():
                        cited[event.number] = event.source
                    case Finished(reason=reason) if reason != "stop":
                        out.print(f"\n[dim](ended: {reason})[/]", end="")
        for number, source in sorted(cited.items()):
            out.print(Text(f"\n[{number}] {source.title}: {source.url}", style="dim"), end="")
    finally:
        if begun:
            out.print()


@app.command()
def models(
    live: Annotated[bool, typer.Option("--live", help="Also ask the service what it offers now.")] = False,
    as_yaml: Annotated[bool, typer.Option("--yaml", help="Print a LiteLLM configuration with a row for each.")] = False,
) -> None:
    """List the model names this gateway understands."""
    with one_sentence():
        settings = Settings.load()
        upstream = Upstream.load(settings.kimi_upstream_file)
        offered: tuple[LiveModel, ...] = ()
        if live:
            offered = asyncio.run(KimiEngine(settings, upstream).models())
            upstream = merged(upstream, offered)
        if as_yaml:
            out.print(Text(yaml.safe_dump(_configuration(upstream, offered), sort_keys=False)), end="")
            return
        _print_table(upstream)
        if live:
            out.print("\nThe service offers now:")
            _print_live(upstream, offered)


def _configuration(upstream: Upstream, offered: Sequence[LiveModel]) -> dict[str, Any]:
    """A row for every model, without those that the service, when asked, doesn't name any more."""
    ids = {upstream.resolve(live.id).model for live in offered if upstream.knows(live.id.lower())}
    # LiteLLM's Responses API can't take a model that is named like its provider: another name then.
    other = {PROVIDER: next((alias for alias, name in upstream.aliases.items() if name == PROVIDER), PROVIDER)}
    rows = [
        {"model_name": name, "litellm_params": {"model": f"{PROVIDER}/{other.get(name, name)}"}}
        for name, spec in upstream.models.items()
        if not ids or spec.model is None or spec.model in ids
    ]
    handler = {"provider": PROVIDER, "custom_handler": "kimi_provider.litellm_bridge.handler"}
    return {"model_list": rows, "litellm_settings": {"custom_provider_map": [handler]}}


def _print_table(upstream: Upstream) -> None:
    rows = []
    for name, spec in upstream.models.items():
        aliases = ", ".join(alias for alias, target in upstream.aliases.items() if target == name)
        search = "own" if spec.kimiplus_id else "yes" if spec.search else "asked"
        thinking = "always" if spec.thinking_always else "yes" if spec.thinking else "asked"
        efforts = " ".join(word for word in spec.efforts if word in spec.exact_efforts)
        facts = (f"{spec.context_tokens // 1024}K", thinking, efforts, search, aliases)
        rows.append((f"{PROVIDER}/{name}", spec.title, *facts))
    _print_rows(("model", "serves", "window", "thinking", "efforts", "search", "also called"), rows)
    suffixes = " ".join(f"-{name}" for name in upstream.suffixes)
    out.print(f"{PROVIDER}/<id of a Kimi+ agent> asks that agent.", style="dim")
    out.print(f"Suffixes that may follow a name: {suffixes}", style="dim")


def _print_rows(titles: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Columns as wide as their content, whatever the terminal's width: names are for copying."""
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    for row in (titles, *rows):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        out.print(Text(line, style="bold" if row is titles else ""))


def _print_live(upstream: Upstream, offered: Sequence[LiveModel]) -> None:
    rows = []
    for live in offered:
        efforts = " ".join(effort.removeprefix("REASONING_EFFORT_").lower() for effort in live.efforts)
        name = upstream.row_name(live.id) if upstream.knows(live.id.lower()) else None
        rows.append((live.id, live.title, live.scenario, efforts, name or "can't be asked for"))
    _print_rows(("id", "title", "scenario", "efforts", "model"), rows)


app.command()(doctor_command.doctor)
