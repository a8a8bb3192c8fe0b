"""Forms that bring a file along, read as they arrive: nothing larger than a piece is held in memory."""

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from services.common.errors import InvalidInput, TooLarge

_MAX_FIELDS, _MAX_FIELD_BYTES = 64, 64 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The beginning of a field or a file."""

    name: str
    """Of the field."""

    filename: str | None
    """None: not a file."""


_Event = Part | bytes | None
"""A part begins, has these bytes, or ends."""


class FormReader:
    """Reads a form from its first part to its last. Methods raise InvalidInput for what is no form, TooLarge for a huge one."""

    def __init__(self, content_type: str, body: AsyncIterator[bytes]) -> None:
        """``content_type`` is the request's header, ``body`` its bytes as they come."""
        self._body = body
        self._events: deque[_Event] = deque()
        self._header: tuple[bytes, bytes] = (b"", b"")
        self._disposition = b""
        self._ended = False
        self._parser = self._made(content_type)
        self.fields: dict[str, str] = {}
        """The fields that were read so far; of two with one name the last."""

    async def next_file(self) -> Part | None:
        """Read on to the next file, whose bytes :meth:`file_bytes` gives; None: there is none, and the form is at its end."""
        while (part := await self._part()) is not None:
            if part.filename is not None:
                return part
            if len(self.fields) >= _MAX_FIELDS:
                raise TooLarge(f"The form has more than {_MAX_FIELDS} fields; leave out those that are not needed.")
            self.fields[part.name] = await self._text(part.name)
        return None

    async def file_bytes(self) -> AsyncGenerator[bytes, None]:
        """The bytes of the file that :meth:`next_file` found, as they come."""
        while (data := await self._next()) is not None:
            if isinstance(data, bytes):
                yield data

    async def _part(self) -> Part | None:
        while not self._events and not self._ended:
            await self._feed()
        event = self._events.popleft() if self._events else None
        return event if isinstance(event, Part) else None

    async def _text(self, name: str) -> str:
        text = bytearray()
        while isinstance(data := await self._next(), bytes):
            text += data
            if len(text) > _MAX_FIELD_BYTES:
                raise TooLarge(f"The field has more than {_MAX_FIELD_BYTES} bytes; shorten it.", field=name)
        try:
            return text.decode()
        except UnicodeDecodeError as error:
            raise InvalidInput("The field is not UTF-8 text; send it as such, or a file as a file.", field=name) from error

    async def _next(self) -> _Event:
        while not self._events:
            await self._feed()
        return self._events.popleft()

    async def _feed(self) -> None:
        data = await anext(self._body, None)
        if data is None:
            raise InvalidInput("The form ends in the middle; send it again.")
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise InvalidInput(f"The body is not a form (multipart/form-data): {error}.") from error

    def _made(self, content_type: str) -> MultipartParser:
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            raise InvalidInput("A form needs the header Content-Type: multipart/form-data with its boundary.")
        try:
            return MultipartParser(
                options[b"boundary"],
                {
                    "on_part_begin": self._begun,
                    "on_header_field": lambda data, start, end: self._headed(data[start:end], b""),
                    "on_header_value": lambda data, start, end: self._headed(b"", data[start:end]),
                    "on_header_end": self._header_read,
                    "on_headers_finished": self._headers_read,
                    "on_part_data": lambda data, start, end: self._events.append(bytes(data[start:end])),
                    "on_part_end": lambda: self._events.append(None),
                    "on_end": self._all_read,
                },
            )
        except FormParserError as error:
            raise InvalidInput("The form's boundary can't be used; choose a shorter one.") from error

    def _begun(self) -> None:
        self._header, self._disposition = (b"", b""), b""

    def _headed(self, name: bytes, value: bytes) -> None:
        self._header = self._header[0] + name, self._header[1] + value

    def _header_read(self) -> None:
        if self._header[0].lower() == b"content-disposition":
            self._disposition = self._header[1]
        self._header = b"", b""

    def _headers_read(self) -> None:
        _, options = parse_options_header(self._disposition)
        name, filename = (options.get(key) for key in (b"name", b"filename"))
        if not name:
            raise InvalidInput("A part of the form has no name; give it one in Content-Disposition.")
        plain = None if filename is None else _plain(filename.decode(errors="replace"))
        self._events.append(Part(name=name.decode(errors="replace"), filename=plain))

    def _all_read(self) -> None:
        self._ended = True


def _plain(filename: str) -> str:
    """Without the folders that some clients name."""
    return filename.replace("\\", "/").rpartition("/")[2]
