"""Whether accounts outlive this process, said in one sentence when it starts.

Looks at the machine only: a container whose state folder is not mounted, or a platform that runs several instances,
each of which would rotate the same credential away from the others. Never wrong on a plain machine: it says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ..settings import Settings
from ..wording import Language
from .opening import state_url

_CURE: Final[dict[Language, str]] = {
    "en": "Set KIMI_STATE_URL=postgresql://... and KIMI_SECRET_KEY (openssl rand -base64 32)",
    "id": "Isi KIMI_STATE_URL=postgresql://... dan KIMI_SECRET_KEY (openssl rand -base64 32)",
}
_IN_MEMORY: Final[dict[Language, str]] = {
    "en": "accounts are kept in memory only and end with this process. {cure}.",
    "id": "akun hanya disimpan di memori dan berakhir bersama proses ini. {cure}.",
}
_KEY_IS_LOCAL: Final[dict[Language, str]] = {
    "en": "PostgreSQL is shared, but the key that seals it is a file of this machine. Set KIMI_SECRET_KEY to the same "
    "value on every machine (openssl rand -base64 32).",
    "id": "PostgreSQL dipakai bersama, tetapi kunci segelnya berkas mesin ini. Isi KIMI_SECRET_KEY dengan nilai yang "
    "sama di setiap mesin (openssl rand -base64 32).",
}
_IN_CONTAINER: Final[dict[Language, str]] = {
    "en": "{folder} is inside this container: accounts will be lost with it. {cure}, or mount a volume there.",
    "id": "{folder} ada di dalam container ini: akun akan hilang bersamanya. {cure}, atau pasang volume di sana.",
}
_SEVERAL: Final[dict[Language, str]] = {
    "en": "{platform} may run several instances, which would log each other's accounts out. {cure}.",
    "id": "{platform} dapat menjalankan beberapa instans, yang akan saling mengeluarkan akun. {cure}.",
}

#: Variables that platforms set which run several instances of one program.
_PLATFORMS: Final = {
    "KUBERNETES_SERVICE_HOST": "Kubernetes",
    "K_SERVICE": "Cloud Run",
    "ECS_CONTAINER_METADATA_URI_V4": "ECS",
    "FLY_APP_NAME": "Fly",
    "DYNO": "Heroku",
    "RENDER_SERVICE_ID": "Render",
    "RAILWAY_SERVICE_ID": "Railway",
}
_CONTAINER_MARKS: Final = (".dockerenv", "run/.containerenv")


def durability_hint(settings: Settings, environment: Mapping[str, str], *, root: Path = Path("/")) -> str | None:
    """The sentence in the settings' language, or None when accounts last. `root` is the file system looked at. Raises
    StoreError.
    """
    if settings.kimi_demo:
        return None
    language = settings.kimi_lang
    cure = _CURE[language]
    url = state_url(settings)
    if url is None:
        return _IN_MEMORY[language].format(cure=cure)
    if url.get_backend_name() == "postgresql":
        return _KEY_IS_LOCAL[language] if settings.kimi_secret_key is None else None
    folder = Path(str(url.database)).absolute().parent
    platform = next((name for variable, name in _PLATFORMS.items() if environment.get(variable)), None)
    contained = platform is not None or any((root / mark).exists() for mark in _CONTAINER_MARKS)
    if contained and not _mounted(folder, root):
        return _IN_CONTAINER[language].format(folder=folder, cure=cure)
    return _SEVERAL[language].format(platform=platform, cure=cure) if platform is not None else None


def _mounted(folder: Path, root: Path) -> bool:
    """Whether a volume is mounted at or above `folder`, other than at /."""
    try:
        lines = (root / "proc/self/mountinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return True  # can't be told: then say nothing
    points = {Path(fields[4].replace("\\040", " ")) for line in lines if len(fields := line.split()) > 4}
    return any(point != Path("/") and folder.is_relative_to(point) for point in points)
