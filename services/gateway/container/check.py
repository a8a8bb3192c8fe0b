"""Read a joined file again and compare it with what it should be."""

from __future__ import annotations

import hashlib
from fractions import Fraction
from typing import Any

from av.packet import Packet

from services.gateway.container.opening import opened, reading

_ADTS_HEADER_BYTES = 7


class Digests:
    """Counts and hashes of packets by stream."""

    def __init__(self) -> None:
        self._hashes: dict[int, Any] = {}
        self._counts: dict[int, int] = {}

    def add(self, stream: int, packet: Packet[Any]) -> None:
        """One packet more."""
        self._counts[stream] = self._counts.get(stream, 0) + 1
        self._hashes.setdefault(stream, hashlib.sha256()).update(_payload(bytes(packet)))

    def of(self, stream: int) -> tuple[int, str]:
        """Number and hash of a stream's packets."""
        found = self._hashes.get(stream)
        return self._counts.get(stream, 0), found.hexdigest() if found else ""


def _payload(data: bytes) -> bytes:
    # Broadcast AAC carries a header in each packet that other containers store once.
    is_adts = len(data) > _ADTS_HEADER_BYTES and data[0] == 0xFF and data[1] & 0xF6 == 0xF0
    return data[_ADTS_HEADER_BYTES if data[1] & 1 else _ADTS_HEADER_BYTES + 2 :] if is_adts else data


def check(fields: dict[str, Any], expected: Digests) -> dict[str, Any]:
    """What "joined" reports: frames, checks, size_bytes and sha256 of the output. ``fields`` are those of a join."""
    stamps, found = _read(fields["output"])
    # The video is the result's first stream; the others follow in the order in which they were copied.
    pairs = {source: (expected.of(source), found.of(i)) for i, source in enumerate(fields["copied"], 1)}
    checks = [_frame_count(stamps, fields), _time_stamps(stamps, fields), _packets(pairs)]
    size_bytes, sha256 = _measure(fields["output"])
    return {"frames": len(stamps), "checks": checks, "size_bytes": size_bytes, "sha256": sha256}


def _read(path: str) -> tuple[list[Fraction], Digests]:
    stamps: list[Fraction] = []
    digests = Digests()
    with opened(path) as container, reading():
        for packet in container.demux():
            if not packet.size:
                continue
            digests.add(packet.stream_index, packet)
            if packet.stream_index == 0 and packet.pts is not None:
                stamps.append(packet.pts * packet.time_base)
    return sorted(stamps), digests


def _frame_count(stamps: list[Fraction], fields: dict[str, Any]) -> dict[str, Any]:
    wanted = len(fields["pts"])
    return _check("frame_count", len(stamps) == wanted, f"{len(stamps)} frames, {wanted} in the source's range", len(stamps))


def _time_stamps(stamps: list[Fraction], fields: dict[str, Any]) -> dict[str, Any]:
    base = Fraction(fields["time_base"])
    wanted = [(pts - fields["shift"]) * base for pts in fields["pts"]]
    worst = max((abs(a - b) for a, b in zip(stamps, wanted, strict=False)), default=Fraction(0))
    # An mkv rounds to milliseconds.
    allowed = Fraction(1, 2000) if fields["container"] == "mkv" else Fraction(0)
    detail = "every frame has its source's time stamp" if not worst else f"largest difference {float(worst) * 1000:.3f} ms"
    return _check("time_stamps", worst <= allowed, detail, float(worst))


def _packets(pairs: dict[int, tuple[tuple[int, str], tuple[int, str]]]) -> dict[str, Any]:
    wrong = [source for source, (wanted, got) in pairs.items() if wanted != got]
    total = sum(got[0] for _, got in pairs.values())
    if wrong:
        detail = f"stream {wrong[0]} of the source has {pairs[wrong[0]][0][0]} packets, its copy differs"
    else:
        detail = f"{total} packets of {len(pairs)} streams are those of the source" if pairs else "nothing to copy"
    return _check("audio_packets", not wrong, detail, total)


def _check(name: str, passed: bool, detail: str, value: float) -> dict[str, Any]:
    return {"name": name, "passed": passed, "detail": detail, "value": float(value)}


def _measure(path: str) -> tuple[int, str]:
    with open(path, "rb") as file:
        return file.seek(0, 2), (file.seek(0), hashlib.file_digest(file, "sha256").hexdigest())[1]
