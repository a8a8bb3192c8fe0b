"""Headers of answers. Pure."""

import contextlib
import email.utils


def retry_after_s(header: str, now: float) -> float | None:
    """What a Retry-After header asks for, in seconds from ``now``; None where it asks for nothing."""
    if header.isdigit():
        return float(header[:9])
    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - now)
    return None
