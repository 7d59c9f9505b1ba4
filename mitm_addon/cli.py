"""The command `kimi-mitm`: words in, the right room, words out. Standard library only until a room is entered.

mitmproxy needs a newer Python than the rest of this distribution, so that a wrong one is said, not a traceback.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SHELLS = ("sh", "fish", "powershell")
_ERROR = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    parser = _parser()
    given = list(sys.argv[1:] if arguments is None else arguments)
    # What follows -- is the tool's, whatever it looks like.
    at = given.index("--") if "--" in given else len(given)
    options, unknown = parser.parse_known_args(given[:at])
    if unknown:
        hint = f" The tool's command comes after --: kimi-mitm {options.action} -- {' '.join(unknown)}"
        parser.error(f"unrecognized arguments: {' '.join(unknown)}.{'' if at < len(given) else hint}")
    options.command = given[at + 1 :]
    try:
        if options.action == "doctor":
            from . import doctor

            return doctor.main(options)
        if problem := missing():
            return _say(problem)
        return asyncio.run(_start(options, parser))
    except KeyboardInterrupt:  # before there is a tool to pass it to
        return 130


def missing() -> str:
    """Why this Python can't run the proxy, empty when it can."""
    try:
        import mitmproxy.version as found
    except ImportError:
        version = ".".join(map(str, sys.version_info[:2]))
        how = "pip install 'kimi-provider[mitm]'" if sys.version_info >= (3, 13) else "use Python 3.13 or newer"
        return f"mitmproxy is not installed for this Python {version}: {how}, in an environment without litellm[proxy]."
    return "" if int(found.VERSION.split(".")[0]) >= 12 else f"mitmproxy {found.VERSION} is too old: 12.2 is needed."


async def _start(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    from . import proxy, runner, serving
    from .gateway import GatewayError
    from .routes import RoutesError

    try:
        settings = settings_of(options)
        if options.action == "serve":
            return await serving.serve(options, settings)
        if options.print_env is not None:
            return await serving.print_env(options.print_env or _shell(os.environ), settings)
        if not options.command:
            parser.error("run needs a command: kimi-mitm run -- COMMAND ARGS")
        outcome = await runner.run(options.command, settings, os.environ)
        for line in runner.after(outcome):
            runner.say(line)
        return outcome.code
    except runner.RunError as exc:
        _say(str(exc))
        return exc.code
    except (GatewayError, RoutesError, proxy.ProxyError) as exc:
        return _say(str(exc))


def settings_of(options: argparse.Namespace) -> Any:
    """The settings that options and environment make. Raises GatewayError and RoutesError."""
    from . import runner
    from .gateway import DEFAULT_URL, Gateway, find_key
    from .routes import Routes

    url = options.gateway or os.environ.get("KIMI_GATEWAY_URL") or DEFAULT_URL
    routes = Path(options.routes).expanduser() if options.routes else None
    return runner.Settings(
        gateway=Gateway.at(url, options.key or find_key(os.environ)),
        routes=Routes.load(routes),
        options={
            "kimi_routes": str(routes or ""),
            "kimi_strict": options.strict,
            "kimi_fall_through": options.fall_through,
            "kimi_unlist_pinned": options.unlist_pinned,
            "kimi_max_body_mb": options.max_body_mb,
        },
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kimi-mitm",
        description="Gives tools whose base URL can't be changed their answers from Kimi: a local proxy redirects "
        "their API calls to your gateway (kimi-provider serve). Login sessions of vendors pass untouched.",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="run | serve | doctor")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--gateway", metavar="URL", help="default: KIMI_GATEWAY_URL, else http://127.0.0.1:4000")
    common.add_argument("--key", help="the gateway's key; default: KIMI_GATEWAY_KEY, else the one that serve keeps")
    common.add_argument("--routes", metavar="FILE", help="TOML laid over the packaged hosts, paths and model names")
    common.add_argument("--strict", action="store_true", help="refuse what no route names, instead of passing it")
    common.add_argument(
        "--fall-through",
        action="store_true",
        help="while the gateway is down, let the provider answer with its own key",
    )
    common.add_argument(
        "--unlist-pinned",
        type=int,
        default=0,
        metavar="SECONDS",
        help="let a client that refuses our certificate reach its provider undecrypted, for so long; 0: never",
    )
    common.add_argument("--max-body-mb", type=int, default=64, metavar="MB", help="largest request body (64)")
    run = actions.add_parser(
        "run", parents=[common], help="run one tool behind a proxy of its own: kimi-mitm run -- COMMAND ARGS"
    )
    run.add_argument(
        "--print-env",
        nargs="?",
        const="",
        choices=("", *SHELLS),
        metavar="SHELL",
        help="no tool: print the environment for sh, fish or powershell, and keep the proxy until Ctrl-C",
    )
    serve = actions.add_parser("serve", parents=[common], help="a proxy that stays, with a CA that stays")
    serve.add_argument("--port", type=int, default=8080)
    serve.add_argument(
        "--listen", metavar="ADDRESS", default="127.0.0.1", help="another address needs KIMI_MITM_PASSWORD"
    )
    actions.add_parser(
        "doctor", parents=[common], help="name the broken step; with -- COMMAND, run it and say what it does wrong"
    )
    return parser


def _shell(environment: Any) -> str:
    if os.name == "nt":
        return "powershell"
    name = Path(environment.get("SHELL", "sh")).name
    return {"fish": "fish", "pwsh": "powershell"}.get(name, "sh")


def _say(text: str) -> int:
    sys.stderr.write(f"kimi-mitm: {text}\n")
    return _ERROR
