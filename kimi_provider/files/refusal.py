"""Why a part can't be taken, said without knowing where in the request it stands; `open_part` adds the place."""

from __future__ import annotations


class Refused(Exception):
    """The caller must change the part. `cause` continues "Message 3, part 2: ..." and shows no content, no resolved
    address and nothing of a URL but its host; `cure` is the next step, if there is one to name.
    """

    def __init__(self, cause: str, *, cure: str | None = None) -> None:
        super().__init__(cause)
        self.cause = cause
        self.cure = cure


def shown(text: str, limit: int = 60) -> str:
    """A caller's word in quotes, cut, with everything escaped that is not plain."""
    return ascii(text if len(text) <= limit else text[: limit - 3] + "...")


def too_large(size_bytes: int, max_bytes: int) -> Refused:
    """`size_bytes` are known to be there, perhaps there are more."""
    return Refused(
        f"the file is too large: it has at least {size_bytes:,} bytes, and at most {max_bytes:,} bytes "
        f"({max_bytes / 1048576:.4g} MB) can be sent",
        cure="Send a smaller file, or only the part of it that matters.",
    )
