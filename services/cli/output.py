"""What the command line prints: results on stdout, all else on stderr."""

import json
import sys
from collections.abc import Sequence
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message


class UsageError(Exception):
    """The command was typed wrongly; the text is one sentence."""


def print_result(as_json: bool, record: dict[str, Any], text: str) -> None:
    """One JSON object, or words for people."""
    print(json.dumps(record, ensure_ascii=False) if as_json else text, flush=True)


def print_error(as_json: bool, code: str, message: str) -> None:
    """One JSON object on stdout, or a sentence on stderr."""
    if as_json:
        print(json.dumps({"error": {"code": code, "message": message}}, ensure_ascii=False), flush=True)
    else:
        tell(message)


def tell(text: str) -> None:
    """A line for whoever is watching."""
    print(text, file=sys.stderr, flush=True)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (head, *rows)
    )


def as_record(message: Message) -> dict[str, Any]:
    """A message in protobuf's JSON form, with the names of the .proto files."""
    return MessageToDict(message, preserving_proto_field_name=True)
