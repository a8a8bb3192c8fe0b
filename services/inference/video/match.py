"""Which decoded frame is which frame of the plan. Pure."""

from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

from services.common.errors import InvalidVideo

Picture = TypeVar("Picture")


class FrameMatcher(Generic[Picture]):
    """Turns what a decoder gives into exactly the frames of a span.

    A frame with an unknown time stamp is dropped; for one that is missing the frame before stands in, or the next one where
    there is none before. Nothing is held but one picture.
    """

    def __init__(self, stamps: Sequence[int], *, by_order: bool, context_frames: int) -> None:
        """``by_order``: the n-th decoded frame is the n-th of the span, whatever its time stamp."""
        self._stamps = stamps
        self._by_order = by_order
        self._context = context_frames
        self._next = 0
        self._last: Picture | None = None
        self.concealed_frames = 0
        """Frames so far, context not counted, for which another one stands in."""

    @property
    def complete(self) -> bool:
        """Whether every frame is there."""
        return self._next == len(self._stamps)

    def feed(self, stamp: int | None, picture: Picture) -> Iterator[Picture]:
        """The frames of the span that are known now that the decoder gave ``picture``."""
        position = self._position(stamp)
        if position is None:
            return
        stand_in = picture if self._last is None else self._last
        yield from self._conceal(stand_in, position)
        self._last = picture
        self._next += 1
        yield picture

    def wants(self, stamp: int | None) -> bool:
        """Whether :meth:`feed` would use a picture with this time stamp; others need not be converted."""
        return self._position(stamp) is not None

    def finish(self) -> Iterator[Picture]:
        """The frames that are missing at the end.

        Raises:
            InvalidVideo: there was not a single one.
        """
        if self._last is None:
            raise InvalidVideo(
                f"None of the {len(self._stamps)} frames from time stamp {self._stamps[0]} on can be decoded: the video is "
                "damaged there, or encrypted."
            )
        yield from self._conceal(self._last, len(self._stamps))

    def _conceal(self, stand_in: Picture, end: int) -> Iterator[Picture]:
        while self._next < end:
            self.concealed_frames += self._next >= self._context
            self._next += 1
            yield stand_in

    def _position(self, stamp: int | None) -> int | None:
        if self.complete:
            return None
        if self._by_order:
            return self._next
        return self._find(stamp) if stamp is not None else None

    def _find(self, stamp: int) -> int | None:
        # Spans are short, and frames come in order, so the place is near.
        for position in range(self._next, len(self._stamps)):
            if self._stamps[position] >= stamp:
                return position if self._stamps[position] == stamp else None
        return None
