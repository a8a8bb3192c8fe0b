import contextlib
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.errors import InvalidInput, TooLarge
from services.gateway.rest.forms import FormReader

TYPE = "multipart/form-data; boundary=line"


def part(name: str, data: bytes, filename: str | None = None) -> bytes:
    more = "" if filename is None else f'; filename="{filename}"'
    return f'--line\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + data + b"\r\n"


END = b"--line--\r\n"
FORM = part("scale", b"2") + part("file", b"\r\n--lin\r\n" + bytes(range(256)), "C:\\dir/a.mp4") + part("seed", b"7") + END


async def pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def read(data: bytes, size: int = 1 << 16, kind: str = TYPE) -> tuple[dict[str, str], list[tuple[str, str | None, bytes]]]:
    """Fields, and files with name, file name and bytes."""
    form, files = FormReader(kind, pieces(data, size)), []
    while (file := await form.next_file()) is not None:
        files.append((file.name, file.filename, b"".join([data async for data in form.file_bytes()])))
    return form.fields, files


@pytest.mark.parametrize("size", [1, 2, 7, 64, 1 << 16])
async def test_a_form_is_read_however_it_arrives(size: int):
    fields, files = await read(FORM, size)
    assert fields == {"scale": "2", "seed": "7"}
    assert files == [("file", "a.mp4", b"\r\n--lin\r\n" + bytes(range(256)))]


@given(data=st.binary(max_size=600).filter(lambda data: b"--line" not in data), size=st.integers(1, 700))
async def test_every_byte_of_a_file_arrives(data: bytes, size: int):
    assert (await read(part("file", data, "a") + part("b", b"c") + END, size))[1] == [("file", "a", data)]


@given(noise=st.binary(max_size=300), at=st.integers(0, len(FORM)), size=st.integers(1, 400))
async def test_a_damaged_form_is_read_or_refused_in_words(noise: bytes, at: int, size: int):
    with contextlib.suppress(InvalidInput, TooLarge):
        await read(FORM[:at] + noise + FORM[at + len(noise) :], size)


@pytest.mark.parametrize("end", [10, 60, len(FORM) - len(END) - 5])
async def test_a_form_that_ends_early_is_refused(end: int):
    with pytest.raises(InvalidInput, match="ends in the middle"):
        await read(FORM[:end])


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        (FORM, "text/plain", "needs the header"),
        (FORM, "multipart/form-data", "needs the header"),
        (FORM, f"multipart/form-data; boundary={'x' * 300}", "boundary can't be used"),
        (b"no form at all", TYPE, "not a form"),
        (part("x", b"").replace(b'; name="x"', b"") + END, TYPE, "has no name"),
        (part("x", b"\xff\xfe") + END, TYPE, "not UTF-8"),
    ],
)
async def test_what_is_no_form_is_refused(data: bytes, kind: str, words: str):
    with pytest.raises(InvalidInput, match=words):
        await read(data, kind=kind)


async def test_endless_fields_are_refused():
    with pytest.raises(TooLarge, match="more than 64 fields"):
        await read(b"".join(part(f"f{i}", b"1") for i in range(70)) + END)
    with pytest.raises(TooLarge, match="65536 bytes"):
        await read(part("a", bytes(70_000)) + END)


async def test_no_more_is_held_than_one_piece():
    form = FormReader(TYPE, pieces(part("file", bytes(50 << 20), "big") + END, 1 << 16))
    assert await form.next_file() is not None
    sizes = [len(data) async for data in form.file_bytes()]
    assert (sum(sizes), max(sizes)) == (50 << 20, 1 << 16)
