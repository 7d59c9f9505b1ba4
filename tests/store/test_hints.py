"""What is said at the start when accounts would not last."""

from __future__ import annotations

from pathlib import Path

import pytest

from kimi_provider.settings import Settings
from kimi_provider.store import durability_hint

KEY = "A" * 43 + "="


def machine(root: Path, *, container: bool, mounts: tuple[str, ...] = ("/", "/proc")) -> Path:
    """A file system as it looks in a container or outside."""
    (root / "proc/self").mkdir(parents=True)
    lines = [f"{n} 1 0:{n} / {point} rw - ext4 /dev/x rw" for n, point in enumerate(mounts)]
    (root / "proc/self/mountinfo").write_text("\n".join(lines))
    if container:
        (root / ".dockerenv").touch()
    return root


def hint(root: Path, url: str | None = "sqlite:////data/kimi/accounts.db", **more: object) -> str | None:
    environment = {str(k): str(v) for k, v in more.items() if k.isupper()}
    given = {k: v for k, v in more.items() if not k.isupper()}
    settings = Settings.without_file(kimi_state_url=url, **given)
    return durability_hint(settings, environment, root=root)


def test_a_plain_machine_hears_nothing(tmp_path: Path) -> None:
    root = machine(tmp_path, container=False)
    assert hint(root) is None
    assert hint(root, None) is None
    assert hint(tmp_path / "nothing to read") is None


@pytest.mark.parametrize("mounts", [("/",), ("/", "/database"), ("/", "/data/kimi/other")])
def test_a_container_without_a_volume_loses_accounts(tmp_path: Path, mounts: tuple[str, ...]) -> None:
    said = hint(machine(tmp_path, container=True, mounts=mounts))
    assert said is not None
    assert "\n" not in said
    for part in (
        "/data/kimi is inside this container",
        "will be lost",
        "KIMI_STATE_URL=postgresql://",
        "KIMI_SECRET_KEY",
    ):
        assert part in said


@pytest.mark.parametrize("mount", ["/data", "/data/kimi"])
def test_a_container_with_a_volume_is_fine(tmp_path: Path, mount: str) -> None:
    root = machine(tmp_path, container=True, mounts=("/", mount))
    assert hint(root) is None


def test_a_platform_of_several_instances_needs_a_shared_store(tmp_path: Path) -> None:
    root = machine(tmp_path, container=True, mounts=("/", "/data"))
    said = hint(root, KUBERNETES_SERVICE_HOST="10.0.0.1")
    assert said is not None
    assert "Kubernetes may run several instances" in said
    assert "KIMI_STATE_URL=postgresql://" in said
    shared = "postgresql://me@db/kimi"
    assert hint(root, shared, KUBERNETES_SERVICE_HOST="10.0.0.1", kimi_secret_key=KEY) is None


def test_postgresql_without_a_key_of_its_own_is_told(tmp_path: Path) -> None:
    said = hint(machine(tmp_path, container=False), "postgresql://me:password@db/kimi")
    assert said is not None
    assert "KIMI_SECRET_KEY" in said
    assert "password" not in said


def test_memory_only_is_told_but_not_of_a_demo(tmp_path: Path) -> None:
    root = machine(tmp_path, container=True)
    assert "end with this process" in (hint(root, "sqlite://") or "")
    assert hint(root, "sqlite://", kimi_demo=True) is None
    assert hint(root, None, kimi_demo=True) is None


def test_it_is_said_in_the_owners_language(tmp_path: Path) -> None:
    root = machine(tmp_path, container=True)
    for url, word in (
        ("sqlite:////data/kimi/accounts.db", "akun akan hilang"),
        ("sqlite://", "di memori"),
        ("postgresql://me@db/kimi", "di setiap mesin"),
    ):
        said = hint(root, url, kimi_lang="id") or ""
        assert word in said
        assert "KIMI_SECRET_KEY" in said
