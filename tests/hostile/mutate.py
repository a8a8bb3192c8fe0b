"""Damages files: the same seed gives the same files, byte for byte."""

import random
import re
import struct
from collections.abc import Callable, Iterator, Mapping

_NUMBERS = (0, 1, 2, 7, 8, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
_NAME = re.compile(rb"[A-Za-z][A-Za-z0-9 ]{3}")

Mutator = Callable[[random.Random, bytearray, bytes], bytearray]
"""Damages some bytes; the last argument is another file."""


def flip(dice: random.Random, data: bytearray, other: bytes) -> bytearray:
    """Some bits turn."""
    for _ in range(dice.choice((1, 2, 8, 64))):
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    return data


def cut(dice: random.Random, data: bytearray, other: bytes) -> bytearray:
    """The end is missing."""
    return data[: dice.randrange(len(data))]


def splice(dice: random.Random, data: bytearray, other: bytes) -> bytearray:
    """A piece of it, or of another file, is in the wrong place."""
    source = dice.choice((bytes(data), other))
    start, size = dice.randrange(len(source)), dice.choice((4, 64, 1000, 10_000))
    at = dice.randrange(len(data))
    data[at : at + dice.choice((0, size))] = source[start : start + size]
    return data


def number(dice: random.Random, data: bytearray, other: bytes) -> bytearray:
    """A field, mostly near the beginning, has an extreme value."""
    for _ in range(dice.choice((1, 1, 3))):
        form = dice.choice((">H", "<H", ">I", "<I", ">Q", "<Q"))
        size = struct.calcsize(form)
        if len(data) > size:
            value = dice.choice(_NUMBERS) & ((1 << 8 * size) - 1)
            reach = len(data) - size
            struct.pack_into(form, data, dice.randrange(dice.choice((min(reach, 256), reach)) + 1), value)
    return data


def box(dice: random.Random, data: bytearray, other: bytes) -> bytearray:
    """The size before, or after, a box's name lies."""
    names = [match.start() for match in _NAME.finditer(data, 4) if match.end() + 4 <= len(data)]
    if names:
        at = dice.choice(names[:60])
        form = dice.choice((">I", "<I"))
        struct.pack_into(form, data, at + dice.choice((-4, 4)), dice.choice(_NUMBERS))
    return data


def fill(dice: random.Random, data: bytearray, other: bytes) -> bytearray:
    """A stretch is blank."""
    start, size = dice.randrange(len(data)), dice.choice((1, 16, 512, 5000))
    data[start : start + size] = bytes([dice.choice((0, 0xFF, 0x20))]) * len(data[start : start + size])
    return data


def repeat(dice: random.Random, data: bytearray, other: bytes) -> bytearray:
    """A stretch comes many times."""
    start, size = dice.randrange(len(data)), dice.choice((4, 32, 400))
    data[start:start] = data[start : start + size] * dice.choice((2, 50, 400))
    return data


def head(dice: random.Random, data: bytearray, other: bytes) -> bytearray:
    """The beginning is another file's."""
    size = dice.choice((8, 64, 512, 4096))
    return bytearray(other[:size]) + data[dice.choice((0, size)) :]


MUTATORS: tuple[Mutator, ...] = (flip, cut, splice, number, number, box, box, fill, repeat, head)


def damaged(clips: Mapping[str, bytes], seed: int) -> Iterator[tuple[str, bytes]]:
    """Files without end, each with a name that says how it was made, from all ``clips`` in turn."""
    dice, names = random.Random(seed), sorted(clips)
    while True:
        for name in names:
            data, made = bytearray(clips[name]), [name]
            for _ in range(dice.choice((1, 1, 1, 2, 3))):
                mutator = dice.choice(MUTATORS)
                made.append(mutator.__name__)
                data = mutator(dice, data, clips[dice.choice(names)]) or bytearray(b"\0")
            yield "+".join(made), bytes(data)
