from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import mitmproxy.version  # a missing mitmproxy is an error here, never a skip
import pytest

from .rig import CANARY, GATEWAY_KEY, Rig

assert mitmproxy.version.VERSION


@pytest.fixture
def rig(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[Rig]:
    """Proxy and servers with the default options; no key is in any log or file afterwards."""
    caplog.set_level(logging.DEBUG)
    with Rig(tmp_path) as made:
        yield made
    made.assert_keys_stayed_apart()
    assert_no_key_in(caplog, tmp_path)


def assert_no_key_in(caplog: pytest.LogCaptureFixture, folder: Path) -> None:
    for record in (record for phase in ("setup", "call", "teardown") for record in caplog.get_records(phase)):
        text = f"{record.getMessage()} {record.exc_info}"
        assert CANARY not in text
        assert GATEWAY_KEY not in text
    for path in folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert CANARY.encode() not in content, path
            assert GATEWAY_KEY.encode() not in content, path
