"""The before/after slider's pictures come straight from this server's frame route, not through Gradio's file cache."""

from typing import Any

from services.ui.links import Links

_MAX_SIDE = 1920


def slider_pictures(job_id: str, number: int, links: Links) -> list[dict[str, Any]]:
    """The value of a gr.ImageSlider as the browser gets it, for events with ``postprocess=False``.

    Frame ``number`` counts from 1. The addresses lack Gradio's mark of a file, so they reach the browser as they are.
    """
    return [{"url": links.frame(job_id, of, number - 1, _MAX_SIDE)} for of in ("source", "result")]
