"""Data URLs, base64 and ids; what a file is; what is left behind."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import random
import stat
import tracemalloc
import urllib.parse
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from kimi_provider.errors import BadRequest, KimiError
from kimi_provider.files import open_part
from kimi_provider.files import spool as spool_module
from kimi_provider.files.kinds import sanitised
from kimi_provider.request import FilePart
from kimi_provider.settings import Settings, SettingsError

from .world import PLACE, PNG, UPSTREAM, limits, read

SETTINGS = Settings.without_file()


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


async def failure(source: str, **options: Any) -> str:
    with pytest.raises(BadRequest) as caught:
        await read(source, **options)
    assert caught.value.status == 400
    text = caught.value.describe()
    assert text.startswith("Message 3, part 2: ")
    return text


# --- sources ---

TEXT = "Grüße, 世界\n".encode()


@pytest.mark.parametrize(
    ("source", "content"),
    [
        ("data:image/png;base64," + b64(PNG), PNG),
        ("DATA:image/png;BASE64," + b64(PNG), PNG),
        ("data:image/png;name=a.png;charset=x; base64 ," + b64(PNG), PNG),
        ("data:;base64," + base64.urlsafe_b64encode(PNG).decode(), PNG),
        ("data:;base64," + b64(PNG).rstrip("="), PNG),
        ("data:;base64," + base64.encodebytes(PNG).decode(), PNG),
        ("data:;base64," + base64.encodebytes(PNG).decode().replace("\n", "\r\n\t "), PNG),
        ("data:;base64," + urllib.parse.quote(b64(PNG), safe=""), PNG),
        ("data:;base64," + "".join(f"%{ord(sign):02x}" for sign in b64(PNG)), PNG),
        ("  data:;base64," + b64(PNG) + "\n", PNG),
        ("data:text/plain;charset=utf-8," + urllib.parse.quote(TEXT), TEXT),
        ("data:,Grüße, 世界\n", TEXT),
        ("data:,50%", b"50%"),
        ("data:,%zz%4", b"%zz%4"),
        ("data:,a+b%2C", b"a+b,"),
        (b64(PNG), PNG),
        ("\n" + base64.encodebytes(PNG).decode(), PNG),
        (base64.urlsafe_b64encode(PNG).decode().rstrip("="), PNG),
        ("aGVsbG8=", b"hello"),
    ],
)
async def test_text_becomes_the_file(source: str, content: bytes) -> None:
    file, got = await read(source)
    assert got == content
    assert (file.size_bytes, file.sha256) == (len(content), hashlib.sha256(content).hexdigest())


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("data:image/png;base64,iVBOR!w0KGgo=", "damaged: it holds '!', which is no base64 sign"),
        ("data:image/png;base64,iVBORw0KG", "damaged: it is cut off"),
        ("data:image/png;base64,iVBO=w0K", "padding ('=') is in the wrong place"),
        ("data:image/png;base64,iVBORw==iVBORw==", "damaged"),
        ("data:image/png;base64,iVBORw==" + "A" * 70_000, "damaged"),
        ("data:image/png;base64," + "A" * 16382 + "==" + "AAAA", "data follows the padding"),
        ("data:image/png;base64," + "A" * 16382 + "==" + "A", "data follows the padding"),
        ("data:image/png;base64,====", "damaged"),
        ("data:image/png;base64,äöü", "which is no base64 sign"),
        ("data:image/png;base64,%00%01", "which is no base64 sign"),
        ("data:image/png;base64,", "the file is empty"),
        ("data:,", "the file is empty"),
        ("data:image/png;base64", "no comma"),
        ("data:" + "x" * 5000 + ",a", "no comma"),
        ("data:,\ud800", "half a character"),
        (b64(bytes(999)) + "!", "damaged: it holds '!'"),
        ("", "names no file"),
        ("   ", "names no file"),
        (" " * 9000, "names no file"),
        ("file-abc123DEF456", "ids of files are not known"),
        ("file_011CNha8iCJcU1wXNR6q4V8w", "ids of files are not known"),
        ("files/abc-123", "ids of files are not known"),
        ("6ba7b810-9dad-11d1-80b4-00c04fd430c8", "ids of files are not known"),
        (b64(b"litellm_proxy:application/pdf;unified_id,1"), "ids of files are not known"),
        (b64(b"litellm_proxy:application/pdf;unified_id," + b"1" * 200), "is an id of a file"),
        ("hello", "ids of files are not known"),
        ("C:\\Users\\me\\a.png", "addresses with 'C:' can't be read"),
        ("/etc/passwd", "ids of files are not known"),
        ("../../etc/passwd", "ids of files are not known"),
        ("file:///etc/passwd", "addresses with 'file:' can't be read"),
        ("ftp://example.com/a", "addresses with 'ftp:'"),
        ("gs://bucket/a", "addresses with 'gs:'"),
        ("javascript:alert(1)", "addresses with 'javascript:'"),
        ("httpx://a", "addresses with 'httpx:'"),
        ("http://" + "a" * 9000, "longer than 8192 characters"),
    ],
)
async def test_what_is_no_file(source: str, cause: str) -> None:
    assert cause in await failure(source)


# --- limits ---


async def test_too_much_text_is_refused_before_it_is_decoded() -> None:
    for source in (
        "data:;base64," + "A" * (101 * 1024 * 1024 * 4 // 3),
        "data:," + "x" * (101 * 1024 * 1024),
    ):
        peaks = []
        # Threads that other tests have left running allocate too: the least of three is the refusal's own.
        for _ in range(3):
            tracemalloc.start()
            try:
                text = await failure(source)
                peaks.append(tracemalloc.get_traced_memory()[1])
            finally:
                tracemalloc.stop()
            assert "105,906,17" in text
            assert "104,857,600 bytes (100 MB)" in text
        assert min(peaks) < 200_000


@pytest.mark.parametrize(("size", "fits"), [(1000, True), (1001, False)])
@pytest.mark.parametrize("form", ["base64", "lines", "escapes", "percent"])
async def test_the_limit_counts_the_file_not_its_text(size: int, fits: bool, form: str) -> None:
    content = bytes(65 + n % 26 for n in range(size))
    text = b64(content)
    source = {
        "base64": f"data:;base64,{text}",
        "lines": "data:;base64," + "\n".join(text),
        "escapes": "data:;base64," + "".join(f"%{ord(sign):02X}" for sign in text),
        "percent": "data:," + "".join(f"%{sign:02X}" for sign in content),
    }[form]
    if fits:
        assert (await read(source, upstream=limits(max_bytes=1000)))[1] == content
    else:
        assert "at most 1,000 bytes" in await failure(source, upstream=limits(max_bytes=1000))


async def test_fifty_megabytes_cost_their_text_and_no_pause(spooled: Path) -> None:
    """The loop goes on all the while: between two of its turns little is decoded, however loaded the machine."""
    content = random.Random(1).randbytes(1 << 20) * 50
    source, digest = "data:application/octet-stream;base64," + b64(content), hashlib.sha256(content).hexdigest()
    del content
    seen, most = 0, 0

    async def tick() -> None:
        nonlocal seen, most
        while not (folders := list(spooled.iterdir())):
            await asyncio.sleep(0)
        growing = folders[0] / "content"
        while not growing.exists():
            await asyncio.sleep(0)
        while True:
            # Not by way of pathlib's search, whose garbage would count as memory of the file.
            size = growing.stat().st_size
            seen, most = size, max(most, size - seen)
            await asyncio.sleep(0)

    ticking = asyncio.create_task(tick())
    part = FilePart(kind="file", source=source)
    tracemalloc.start()
    try:
        async with open_part(part, settings=SETTINGS, upstream=UPSTREAM, place=PLACE) as file:
            peak = tracemalloc.get_traced_memory()[1]
            assert (file.sha256, file.size_bytes) == (digest, 50 << 20)
            assert file.path is not None
            assert file.path.stat().st_size == 50 << 20
    finally:
        tracemalloc.stop()
        ticking.cancel()
    assert peak < 2_000_000
    assert seen > 40 << 20
    # What two turns of a worker bring: one may end, and the next begin, between two turns of the loop.
    assert most <= 2 << 20


# --- what it is ---


def isobmff(brand: bytes) -> bytes:
    return b"\0\0\0\x18ftyp" + brand + bytes(16)


DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"


@pytest.mark.parametrize(
    ("content", "filename", "declared", "name", "media_type"),
    [
        (PNG, None, None, "image.png", "image/png"),
        (PNG, "a.jpg", "image/jpeg", "a.png", "image/png"),
        (b"\xff\xd8\xff\xe0" + bytes(9), "a.JPEG", None, "a.jpeg", "image/jpeg"),
        (b"\xff\xd8\xff\xe0" + bytes(9), "a", None, "a.jpg", "image/jpeg"),
        (b"GIF87a", None, None, "image.gif", "image/gif"),
        (b"GIF89a;", None, None, "image.gif", "image/gif"),
        (b"RIFF\1\2\3\4WEBPVP8 ", None, None, "image.webp", "image/webp"),
        (b"RIFF\n\n\n\nWEBPVP8 ", None, None, "image.webp", "image/webp"),
        (b"BM\1\2\3\4\0\0\0\0", None, None, "image.bmp", "image/bmp"),
        (b"BMW and Audi", None, None, "file.txt", "text/plain"),
        (b"II*\0abc", "a.tif", None, "a.tif", "image/tiff"),
        (isobmff(b"avif"), None, None, "image.avif", "image/avif"),
        (isobmff(b"heic"), None, None, "image.heic", "image/heic"),
        (isobmff(b"isom"), "a.mov", None, "a.mov", "video/quicktime"),
        (b"RIFF\1\2\3\4WAVE", None, None, "file.wav", "audio/wav"),
        (b"%PDF-1.7\n", "report", None, "report.pdf", "application/pdf"),
        (b"%PDF-1.7\n", "report.docx", DOCX, "report.pdf", "application/pdf"),
        (b"PK\3\4abc", None, None, "file.zip", "application/zip"),
        (b"PK\3\4abc", "a.docx", None, "a.docx", DOCX),
        (b"PK\3\4abc", None, DOCX, "file.docx", DOCX),
        (b"PK\3\4abc", "a", DOCX + "; charset=x", "a.docx", DOCX),
        (b"PK\3\4abc", "a.pdf", None, "a.zip", "application/zip"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1abc", "a.xls", None, "a.xls", "application/vnd.ms-excel"),
        (b"{\\rtf1", None, None, "file.rtf", "application/rtf"),
        (b"plain", None, None, "file.txt", "text/plain"),
        (b"a,b\n1,2\n", "t.csv", None, "t.csv", "text/csv"),
        (b"a,b\n1,2\n", None, "text/csv", "file.csv", "text/csv"),
        (b"fn main() {}", "main.rs", None, "main.rs", "text/plain"),
        (b"all:\n\tx", "Makefile", None, "Makefile.txt", "text/plain"),
        (b"text", "a.pdf", "application/pdf", "a.txt", "text/plain"),
        (b"<svg xmlns='x'/>", "a.svg", None, "a.svg", "image/svg+xml"),
        ("世".encode() * 5000, None, None, "file.txt", "text/plain"),
        (b"\xef\xbb\xbfbom", "a.md", None, "a.md", "text/markdown"),
        ("utf-16".encode("utf-16"), None, None, "file.txt", "text/plain"),
        (b"\0\1\2\3", None, None, "file.bin", "application/octet-stream"),
        (b"\0\1\2\3", "a.parquet", "image/png", "a.parquet", "application/octet-stream"),
        (b"\0\1\2\3", "a.png", "image/png", "a.bin", "application/octet-stream"),
        (b"\xc3\x28 no utf-8", "a.dat", None, "a.dat", "application/octet-stream"),
    ],
)
async def test_bytes_decide_and_hints_choose(
    content: bytes, filename: str | None, declared: str | None, name: str, media_type: str
) -> None:
    for source, given_type in ((b64(content + b""), declared), (f"data:{declared or ''};base64,{b64(content)}", None)):
        file, _ = await read(
            source if source.startswith("data:") else "data:;base64," + source, filename=filename, media_type=given_type
        )
        assert (file.name, file.media_type) == (name, media_type)
        assert file.kind == ("image" if media_type.startswith("image/") and "svg" not in media_type else "file")


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"just text", "holds text"),
        (b"<svg xmlns='x'/>", "holds text"),
        (b"%PDF-1.7", "holds application/pdf"),
        (b"\0\1\2", "holds data of an unknown type"),
    ],
)
async def test_an_image_must_be_one(content: bytes, word: str) -> None:
    text = await failure(f"data:image/png;base64,{b64(content)}", kind="image", filename="cat.png")
    assert f"{word}, though it is called 'cat.png'" in text
    assert "Images are: png, jpg, gif, webp" in text
    assert content.decode("latin-1") not in text


@pytest.mark.parametrize(
    ("given_name", "clean"),
    [
        ("report.pdf", "report.pdf"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\report.pdf", "report.pdf"),
        ("a/b\\c.txt", "c.txt"),
        ("..", ""),
        ("...", ""),
        (".bashrc", "bashrc"),
        ("a\r\nX-Evil: 1.png", "a X-Evil 1.png"),
        ("a\0b.png", "ab.png"),
        ('a";filename="b.exe', "afilename=b.exe"),
        ("gpj.\u202eexe", "gpj.exe"),
        ("\ud800a.png", "a.png"),
        ("  a   b .png", "a b.png"),
        ("Größe 世界.pdf", "Größe 世界.pdf"),
        ("x" * 500 + ".pdf", "x" * 120 + ".pdf"),
        ("世" * 500 + ".pdf", "世" * 40 + ".pdf"),
        ("a." + "b" * 500, "a." + "b" * 118),
        ("", ""),
    ],
)
def test_names_are_made_harmless(given_name: str, clean: str) -> None:
    assert sanitised(given_name) == clean


# --- what is left behind ---


async def test_the_file_is_private_and_goes_with_its_context(spooled: Path) -> None:
    part = FilePart(kind="image", source="data:image/png;base64," + b64(PNG))
    upstream = limits(memory_bytes=0)

    async def failing_upload() -> None:
        async with open_part(part, settings=SETTINGS, upstream=upstream, place=PLACE) as file:
            assert file.path is not None
            assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
            assert stat.S_IMODE(file.path.parent.stat().st_mode) == 0o700
            assert file.path.parent.parent == spooled
            for _ in range(2):
                with file.open() as reader:
                    assert reader.read() == PNG
            raise LookupError

    with pytest.raises(LookupError):
        await failing_upload()
    assert list(spooled.iterdir()) == []


async def test_damage_at_the_end_leaves_nothing(spooled: Path) -> None:
    assert "damaged" in await failure("data:;base64," + b64(bytes(3_000_000)) + "!")
    assert list(spooled.iterdir()) == []


@pytest.mark.parametrize("after_s", [0, 0.005, 0.02, 0.05])
async def test_cancelled_while_a_thread_decodes(after_s: float, spooled: Path) -> None:
    task = asyncio.create_task(read("data:;base64," + b64(bytes(20_000_000))))
    await asyncio.sleep(after_s)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert list(spooled.iterdir()) == []
    await asyncio.sleep(0.05)
    assert list(spooled.iterdir()) == []


def test_a_thread_that_writes_too_late_writes_nothing(spooled: Path) -> None:
    spool = spool_module.Spool(max_bytes=100, memory_bytes=0)
    spool.close()
    spool.write(b"late")
    assert list(spooled.iterdir()) == []


async def test_a_disk_that_refuses_is_not_the_callers_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(spool_module.tempfile, "mkdtemp", full)
    with pytest.raises(KimiError, match="can't be kept until it is uploaded: No space left on device") as caught:
        await read("data:;base64," + b64(bytes(1_000_000)))
    assert not isinstance(caught.value, BadRequest)


# --- generated ---

SOURCES = st.one_of(
    st.text(max_size=300),
    st.builds("data:{}".format, st.text(max_size=200)),
    st.builds("data:{};base64,{}".format, st.text(max_size=20), st.text(max_size=200)),
    st.builds("data:,{}".format, st.text("%0123456789abcdefé\ud800", max_size=200)),
    st.builds("{}://{}".format, st.sampled_from(["http", "https", "HTTPS"]), st.text(max_size=200)),
    st.builds("http://{}".format, st.text("0123456789.xabcdef:[]@%/\\?#", max_size=60)),
    st.text("ABCDwxyz0189+/-_= \n", max_size=300),
)


@hypothesis_settings(deadline=None, max_examples=500)
@given(source=SOURCES, kind=st.sampled_from(["file", "image"]), filename=st.none() | st.text(max_size=40))
@example(source="http://[::1", kind="file", filename=None)
@example(source="https://a.example/\udfff", kind="file", filename=None)
@example(source="data:\ud800;base64,AAAA", kind="file", filename="\ud800")
def test_whatever_comes_only_our_errors_leave(source: str, kind: Any, filename: str | None) -> None:
    try:
        file, content = asyncio.run(read(source, kind=kind, filename=filename))
    except KimiError as exc:
        exc.describe().encode()
        return
    assert len(content) == file.size_bytes > 0
    assert file.name.encode().decode() == file.name
    assert not set(file.name) & set('/\\\r\n\0"')


@hypothesis_settings(deadline=None, max_examples=150)
@given(
    content=st.binary(min_size=1, max_size=400) | st.integers(1, 90_000).map(lambda n: random.Random(n).randbytes(n)),
    urlsafe=st.booleans(),
    padded=st.booleans(),
    spaces=st.lists(st.tuples(st.integers(0, 130_000), st.sampled_from(" \n\r\t")), max_size=8),
    escaped=st.sets(st.sampled_from("ABCabc0189+/=-_"), max_size=4),
    memory_bytes=st.sampled_from([0, 100, 1 << 20]),
)
def test_every_spelling_of_base64_is_the_same_file(
    content: bytes,
    urlsafe: bool,
    padded: bool,
    spaces: list[tuple[int, str]],
    escaped: set[str],
    memory_bytes: int,
) -> None:
    text = (base64.urlsafe_b64encode if urlsafe else base64.b64encode)(content).decode()
    text = text if padded else text.rstrip("=")
    for at, sign in spaces:
        text = text[:at] + sign + text[at:]
    text = "".join(f"%{ord(sign):02X}" if sign in escaped else sign for sign in text)
    file, got = asyncio.run(read("data:;base64," + text, upstream=limits(memory_bytes=memory_bytes)))
    assert got == content
    assert file.sha256 == hashlib.sha256(content).hexdigest()


# --- settings ---


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", ()),
        (" , ", ()),
        ("Files.Example.LAN, 10.1.0.5/16", ("files.example.lan", "10.1.0.0/16")),
        ("10.0.0.1,fd00::/8,::1", ("10.0.0.1/32", "fd00::/8", "::1/128")),
    ],
)
def test_the_list_of_hosts(text: str, value: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KIMI_FILE_HOSTS_ALLOWED", text)
    assert Settings.load().kimi_file_hosts_allowed == value


@pytest.mark.parametrize(
    "text",
    ["http://a.example", "a.example:80", "a b", "*", "*.example", "0.0.0.0/0", "::/0", "10.0.0.256", "127.1", "ä.de"],
)
def test_a_wrong_list_of_hosts_says_so(text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KIMI_FILE_HOSTS_ALLOWED", text)
    with pytest.raises(SettingsError, match=r"^KIMI_FILE_HOSTS_ALLOWED: must "):
        Settings.load()
