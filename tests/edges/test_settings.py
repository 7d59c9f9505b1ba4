from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kimi_provider.settings import Settings, SettingsError, state_dir
from kimi_provider.upstream import Upstream

SECRET = "eyJhbGciOiJIUzUxMiJ9.c2VjcmV0.c2lnbmF0dXJl"


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the machine, no `.env` but the test's own."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)


def test_the_defaults_are_those_of_the_documentation() -> None:
    assert Settings.load().model_dump() == {
        "kimi_token": None,
        "kimi_base_url": "https://www.kimi.com",
        "kimi_auth_url": "https://auth.kimi.com",
        "kimi_protocol": "auto",
        "kimi_state_url": None,
        "kimi_secret_key": None,
        "kimi_upstream_file": None,
        "kimi_headers": {},
        "kimi_max_streams": 2,
        "kimi_queue_timeout_s": 30,
        "kimi_keep_chats": False,
        "kimi_continue": "auto",
        "kimi_timeout_s": 600,
        "kimi_idle_timeout_s": 90,
        "kimi_lang": "en",
        "kimi_alert_urls": (),
        "kimi_file_hosts_allowed": (),
        "kimi_demo": False,
        "kimi_served": False,
    }
    assert Settings.load().token is None


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("KIMI_BASE_URL", "https://www.kimi.ai/", "https://www.kimi.ai"),
        ("KIMI_BASE_URL", " HTTPS://WWW.Kimi.COM:443 ", "https://www.kimi.com"),
        ("KIMI_AUTH_URL", "http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("KIMI_AUTH_URL", "http://LOCALHOST:80/", "http://localhost"),
        ("KIMI_AUTH_URL", "https://localhost:80", "https://localhost:80"),
        ("KIMI_AUTH_URL", "http://[::1]:9", "http://[::1]:9"),
        ("KIMI_PROTOCOL", "connect", "connect"),
        ("KIMI_STATE_URL", "sqlite:///x", "sqlite:///x"),
        ("KIMI_UPSTREAM_FILE", "overlay.yaml", Path("overlay.yaml")),
        ("KIMI_UPSTREAM_FILE", "", None),
        ("KIMI_HEADERS", '{"X-Msh-Version": "2.3.0", "x-language": ""}', {"x-msh-version": "2.3.0", "x-language": ""}),
        ("KIMI_HEADERS", "", {}),
        ("KIMI_MAX_STREAMS", "100", 100),
        ("KIMI_QUEUE_TIMEOUT_S", "0", 0),
        ("KIMI_TIMEOUT_S", "1.5", 1.5),
        ("KIMI_IDLE_TIMEOUT_S", "0.1", 0.1),
        ("KIMI_KEEP_CHATS", "true", True),
        ("KIMI_KEEP_CHATS", "0", False),
        ("KIMI_CONTINUE", "off", "off"),
        ("KIMI_LANG", "id", "id"),
        ("kimi_lang", "id", "id"),
        ("KIMI_DEMO", "1", True),
    ],
)
def test_every_variable_is_read(monkeypatch: pytest.MonkeyPatch, name: str, text: str, value: Any) -> None:
    monkeypatch.setenv(name, text)
    assert getattr(Settings.load(), name.lower()) == value


@pytest.mark.parametrize(("text", "token"), [(f" {SECRET}\n", SECRET), ("", None), ("  ", None)])
def test_the_token_is_read_and_never_shown(monkeypatch: pytest.MonkeyPatch, text: str, token: str | None) -> None:
    monkeypatch.setenv("KIMI_TOKEN", text)
    settings = Settings.load()
    assert settings.token == token
    assert SECRET not in f"{settings!r} {settings} {settings.model_dump()}"


@pytest.mark.parametrize(
    ("text", "urls"),
    [
        ("", []),
        (f"json://{SECRET}", [f"json://{SECRET}"]),
        (" ntfy://a,\nslack+x://b/c ,json://d , ", ["ntfy://a", "slack+x://b/c", "json://d"]),
        ("mailto://u:p@h?to=a@h,b@h;mailtos://x json://y", ["mailto://u:p@h?to=a@h,b@h;mailtos://x", "json://y"]),
    ],
)
def test_alert_urls_are_told_apart_and_never_shown(monkeypatch: pytest.MonkeyPatch, text: str, urls: list[str]) -> None:
    monkeypatch.setenv("KIMI_ALERT_URLS", text)
    settings = Settings.load()
    assert [url.get_secret_value() for url in settings.kimi_alert_urls] == urls
    assert SECRET not in f"{settings!r} {settings} {settings.model_dump()}"


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("KIMI_BASE_URL", "www.kimi.com", "must be an address such as https://www.kimi.com"),
        ("KIMI_BASE_URL", "ftp://www.kimi.com", "must be an address such as"),
        ("KIMI_BASE_URL", "https://", "must be an address such as"),
        ("KIMI_BASE_URL", "https://www.kimi.com/chat", "scheme, host and port only"),
        ("KIMI_BASE_URL", "https://www.kimi.com?x=1", "scheme, host and port only"),
        ("KIMI_BASE_URL", "https://me:pw@www.kimi.com", "scheme, host and port only"),
        ("KIMI_BASE_URL", "https://@www.kimi.com", "scheme, host and port only"),
        ("KIMI_BASE_URL", "https://www.kimi.com:99999", "port between 0 and 65535"),
        ("KIMI_BASE_URL", "https://www.kimi.com:port", "port between 0 and 65535"),
        ("KIMI_AUTH_URL", "http://[::1", "Invalid IPv6 URL"),
        ("KIMI_PROTOCOL", "grpc", "'auto', 'connect' or 'rest'"),
        ("KIMI_HEADERS", "x-language: id", "must be a JSON object such as"),
        ("KIMI_HEADERS", '["x"]', "must be a JSON object of strings"),
        ("KIMI_HEADERS", '{"x": 1}', "must be a JSON object of strings"),
        ("KIMI_HEADERS", '{"Authorization": "Bearer x"}', "must not set authorization"),
        ("KIMI_HEADERS", '{"COOKIE": "a=b", "host": "c"}', "must not set cookie, host"),
        ("KIMI_HEADERS", '{"content-length": "0"}', "must not set content-length"),
        ("KIMI_HEADERS", '{"content-type": "a"}', "must not set content-type"),
        ("KIMI_HEADERS", '{"transfer-encoding": "chunked"}', "must not set transfer-encoding"),
        ("KIMI_HEADERS", '{"connection": "close"}', "must not set connection"),
        ("KIMI_HEADERS", '{"x-language": "id\\r\\nauthorization: x"}', "fit into HTTP headers"),
        ("KIMI_HEADERS", '{"x-language": "bahasa é"}', "fit into HTTP headers"),
        ("KIMI_HEADERS", '{"x-language": " id"}', "fit into HTTP headers"),
        ("KIMI_HEADERS", '{"x language": "id"}', "fit into HTTP headers"),
        ("KIMI_HEADERS", '{"": "id"}', "fit into HTTP headers"),
        ("KIMI_HEADERS", '{"authorization ": "id"}', "fit into HTTP headers"),
        ("KIMI_MAX_STREAMS", "0", "greater than or equal to 1"),
        ("KIMI_MAX_STREAMS", "101", "less than or equal to 100"),
        ("KIMI_MAX_STREAMS", "two", "valid integer"),
        ("KIMI_QUEUE_TIMEOUT_S", "-1", "greater than or equal to 0"),
        ("KIMI_TIMEOUT_S", "0", "greater than 0"),
        ("KIMI_TIMEOUT_S", "inf", "finite"),
        ("KIMI_TIMEOUT_S", "nan", "finite"),
        ("KIMI_IDLE_TIMEOUT_S", "soon", "valid number"),
        ("KIMI_KEEP_CHATS", "maybe", "valid boolean"),
        ("KIMI_LANG", "fr", "'en' or 'id'"),
        ("KIMI_ALERT_URLS", f"ntfy://topic, {SECRET}", "entry 1 is none"),
        ("KIMI_ALERT_URLS", f"ntfy://topic,json://{SECRET} x", "entry 2 is none"),
    ],
)
def test_a_wrong_value_names_its_variable(monkeypatch: pytest.MonkeyPatch, name: str, text: str, says: str) -> None:
    monkeypatch.setenv("KIMI_TOKEN", SECRET)
    monkeypatch.setenv(name, text)
    with pytest.raises(SettingsError) as caught:
        Settings.load()
    assert str(caught.value).startswith(f"{name}: ")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


def test_every_wrong_variable_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIMI_LANG", "fr")
    monkeypatch.setenv("KIMI_MAX_STREAMS", "0")
    with pytest.raises(SettingsError) as caught:
        Settings.load()
    assert [line.partition(":")[0] for line in str(caught.value).split("; ")] == ["KIMI_MAX_STREAMS", "KIMI_LANG"]


@pytest.mark.parametrize("given", [123, [SECRET], {"token": SECRET}])
def test_a_token_of_the_wrong_kind_is_not_repeated(given: object) -> None:
    with pytest.raises(SettingsError, match="KIMI_TOKEN") as caught:
        Settings.load(kimi_token=given)
    assert SECRET not in str(caught.value)
    assert "123" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"KIMI_TOKEN=abc\nKIMI_LANG=id\n",
        b"\xef\xbb\xbfKIMI_TOKEN=abc\r\nKIMI_LANG=id\r\n",  # as Windows saves it
        b"# comment\nexport KIMI_TOKEN='abc'\nkimi_lang = \"id\"\nOTHER=1\nKIMI_UNKNOWN=2\n",
    ],
)
def test_a_dotenv_file_is_read(content: bytes) -> None:
    Path(".env").write_bytes(content)
    settings = Settings.load()
    assert (settings.token, settings.kimi_lang) == ("abc", "id")


def test_the_environment_comes_before_the_dotenv_file(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("KIMI_LANG=id\nKIMI_TOKEN=file\n")
    monkeypatch.setenv("KIMI_LANG", "en")
    monkeypatch.setenv("KIMI_TOKEN", "")
    assert (Settings.load().kimi_lang, Settings.load().token) == ("en", None)
    assert Settings.load(kimi_lang="id").kimi_lang == "id"


def test_a_wrong_value_in_the_dotenv_file_says_where(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("KIMI_LANG=fr\n")
    with pytest.raises(SettingsError, match=r"^KIMI_LANG \(in \.env\): "):
        Settings.load()


def test_a_dotenv_file_that_is_no_text_is_named_and_not_repeated() -> None:
    Path(".env").write_bytes(f"KIMI_TOKEN={SECRET}".encode("utf-16"))
    with pytest.raises(SettingsError, match=r"\.env") as caught:
        Settings.load()
    assert "c2VjcmV0" not in str(caught.value)


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings.load().kimi_lang = "id"


def test_the_example_file_holds_the_defaults_of_every_public_variable() -> None:
    defaults = Settings.load().model_dump(exclude={"kimi_token", "kimi_headers"})
    text = (Path(__file__).parents[2] / ".env.example").read_text("utf-8")
    Path(".env").write_text(text.replace("#KIMI_", "KIMI_"), "utf-8")
    settings = Settings.load()
    assert settings.model_dump(exclude={"kimi_token", "kimi_headers"}) == defaults
    assert settings.token is None
    assert settings.kimi_headers.items() <= Upstream.load().headers.items()
    internal = {"kimi_demo", "kimi_served", "kimi_protocol", "kimi_state_url"}
    assert [name for name in Settings.model_fields if name.upper() not in text and name not in internal] == []


def test_the_state_folder_is_the_users_and_only_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert state_dir().name == "kimi-provider"
    assert not (tmp_path / "state").exists()
