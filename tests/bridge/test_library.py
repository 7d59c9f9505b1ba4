"""`import kimi_provider.litellm_bridge, litellm` as a library: sync, async, threads, repeated loops, tools."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.harness import Simulator, clean_environment

PRELUDE = """
import asyncio, json, threading, warnings
warnings.simplefilter("error", ResourceWarning)
import kimi_provider.litellm_bridge, litellm
ASK = [{"role": "user", "content": "[[scenario:say text=Hi-there think=Hmm]] hello"}]
MODEL = "kimi/kimi-latest"
"""


def run(simulator: Simulator, tmp_path: Path, script: str, **env: str) -> str:
    """Run `script` in a fresh interpreter, as a user would; its standard output."""
    environment = clean_environment(
        tmp_path,
        KIMI_BASE_URL=simulator.url,
        KIMI_AUTH_URL=simulator.url,
        KIMI_TOKEN=simulator.login("ada")["refresh_token"],
    )
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(script)],
        env=environment | {k: v for k, v in env.items() if v},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "ResourceWarning" not in done.stderr
    assert "never retrieved" not in done.stderr
    return done.stdout


def test_sync_whole_and_streamed(simulator: Simulator, tmp_path: Path) -> None:
    out = run(
        simulator,
        tmp_path,
        """
        answer = litellm.completion(model=MODEL, messages=ASK)
        m = answer.choices[0].message
        print(m.content, m.reasoning_content, answer.choices[0].finish_reason, answer.usage.total_tokens > 0)
        chunks = list(litellm.completion(model=MODEL, messages=ASK, stream=True))
        print("".join(c.choices[0].delta.content or "" for c in chunks), chunks[-1].choices[0].finish_reason)
        """,
    )
    assert out.split("\n")[:2] == ["Hi-there Hmm stop True", "Hi-there stop"]


def test_async_in_repeated_loops(simulator: Simulator, tmp_path: Path) -> None:
    out = run(
        simulator,
        tmp_path,
        """
        async def ask():
            answer = await litellm.acompletion(model=MODEL, messages=ASK)
            stream = await litellm.acompletion(model=MODEL, messages=ASK, stream=True)
            text = "".join([c.choices[0].delta.content or "" async for c in stream])
            return answer.choices[0].message.content, text
        for _ in range(3):
            print(*asyncio.run(ask()))
        """,
    )
    assert out.splitlines() == ["Hi-there Hi-there"] * 3


def test_threads_with_and_without_loops(simulator: Simulator, tmp_path: Path) -> None:
    out = run(
        simulator,
        tmp_path,
        """
        texts = []  # not printed by the threads: text and newline are two writes
        def sync(): texts.append(litellm.completion(model=MODEL, messages=ASK).choices[0].message.content)
        def loop():
            texts.append(asyncio.run(litellm.acompletion(model=MODEL, messages=ASK)).choices[0].message.content)
        threads = [threading.Thread(target=f) for f in (sync, loop) * 3]
        [t.start() for t in threads]; [t.join() for t in threads]
        print(*texts)
        """,
    )
    assert out.split() == ["Hi-there"] * 6
    assert simulator.state()["peak_streams"] <= 2


def test_tools_are_accepted(simulator: Simulator, tmp_path: Path) -> None:
    out = run(
        simulator,
        tmp_path,
        """
        tools = [{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}]
        answer = litellm.completion(model=MODEL, messages=ASK, tools=tools, tool_choice="auto", temperature=0.5)
        print(answer.choices[0].message.content, answer._hidden_params["additional_headers"])
        answer = asyncio.run(litellm.acompletion(model=MODEL, messages=ASK, tools=tools))
        print(answer.choices[0].message.content)
        """,
    )
    first, second = out.splitlines()
    assert first.startswith("Hi-there")
    assert "'llm_provider-x-kimi-ignored': 'temperature'" in first
    assert second == "Hi-there"


def test_errors_are_litellm_exceptions(simulator: Simulator, tmp_path: Path) -> None:
    out = run(
        simulator,
        tmp_path,
        """
        def kind(**kw):
            try: litellm.completion(**{"model": MODEL, "messages": ASK, **kw})
            except Exception as e: return f"{type(e).__name__} {e.status_code} {e}"
        say = lambda text: [{"role": "user", "content": text}]
        print(kind(model="kimi/kimi-k9"))
        print(kind(messages=say("[[scenario:moderated_before_text]]")))
        print(kind(messages=say("[[scenario:context_too_long]]")))
        print(kind(messages=say("[[scenario:hang_mid_text]]"), timeout=0.5))
        print(kind(messages=say("x"), api_key="not a token"))
        async def streamed():
            try: await litellm.acompletion(model=MODEL, messages=say("[[scenario:paywall]]"), stream=True)
            except Exception as e: print(type(e).__name__, e.status_code)
        asyncio.run(streamed())
        """,
    )
    lines = [line for line in out.splitlines() if " 4" in line or " 5" in line]
    assert lines[0].startswith("NotFoundError 404")
    assert "kimi-k3" in lines[0]
    assert lines[1].startswith("ContentPolicyViolationError 400")
    assert lines[2].startswith("ContextWindowExceededError 400")
    assert lines[3].startswith("Timeout 504")
    assert lines[4].startswith("AuthenticationError 401")
    assert "not a token" not in lines[4]
    assert lines[5].startswith("PermissionDeniedError 403")


def test_a_stream_that_is_dropped_frees_the_service(simulator: Simulator, tmp_path: Path) -> None:
    run(
        simulator,
        tmp_path,
        """
        ask = [{"role": "user", "content": "[[scenario:hang_mid_text]]"}]
        for chunk in litellm.completion(model=MODEL, messages=ask, stream=True):
            break
        async def leave():
            stream = await litellm.acompletion(model=MODEL, messages=ask, stream=True)
            await anext(aiter(stream))
        asyncio.run(leave())
        """,
    )
    simulator.until("active_streams", 0, 30)
    # A script that ends with its answer still tidies up.
    assert simulator.state()["chats"] == []


def test_models_are_registered(simulator: Simulator, tmp_path: Path) -> None:
    out = run(
        simulator,
        tmp_path,
        """
        info = litellm.get_model_info("kimi/kimi-k2.6")
        print(json.dumps([info["max_input_tokens"], info["litellm_provider"], info["supports_reasoning"]]))
        import sys; print("litellm.proxy.proxy_server" in sys.modules)
        """,
    )
    assert json.loads(out.splitlines()[0]) == [262144, "kimi", True]
    assert out.splitlines()[1] == "False"


def test_importing_twice_registers_once(simulator: Simulator, tmp_path: Path) -> None:
    out = run(
        simulator,
        tmp_path,
        """
        import importlib, kimi_provider.litellm_bridge as bridge
        importlib.reload(bridge)
        print(sum(item["provider"] == "kimi" for item in litellm.custom_provider_map))
        print(litellm.completion(model=MODEL, messages=ASK).choices[0].message.content)
        """,
    )
    assert out.split() == ["1", "Hi-there"]


def test_the_top_package_is_light() -> None:
    code = "import sys, kimi_provider; print(sorted({'litellm', 'httpx', 'pydantic'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_shim_over_litellm_is_still_needed() -> None:
    """Fails when LiteLLM awaits a custom provider before it builds the stream: then compat.py can go."""
    import inspect

    import litellm.main

    import kimi_provider.litellm_bridge  # noqa: F401  # installs the shim

    ours = litellm.main._complete_custom_providers
    assert getattr(ours, "kimi_provider", False)
    assert not inspect.iscoroutinefunction(ours.__wrapped__)
    assert "CustomStreamWrapper(" in inspect.getsource(ours.__wrapped__)


def test_outside_known_versions_the_shim_stays_off(monkeypatch: pytest.MonkeyPatch) -> None:
    import litellm.main

    from kimi_provider.litellm_bridge import PROVIDER, compat, handler

    monkeypatch.setattr(litellm.main, "_complete_custom_providers", lambda ctx: None)
    monkeypatch.setattr(litellm.main, "CompletionDispatchContext", dict)
    (line,) = compat.install(handler, PROVIDER)
    assert "without retry or fallback" in line
    assert not hasattr(litellm.main._complete_custom_providers, "kimi_provider")


def test_other_providers_pass_the_shim_untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    from kimi_provider.litellm_bridge import PROVIDER, compat, handler

    dispatch = compat._opening_first(lambda ctx: ctx, handler, PROVIDER)
    foreign = SimpleNamespace(custom_llm_provider="other", acompletion=True, stream=True)
    assert dispatch(foreign) is foreign
    whole = SimpleNamespace(custom_llm_provider=PROVIDER, acompletion=True, stream=None)
    assert dispatch(whole) is whole
    assert asyncio.iscoroutinefunction(handler.acompletion)
