"""Where the videos of jobs come from: uploads, and what is fetched into one from the web or a bucket."""

from services.gateway.sources.content import Source, Sources

__all__ = ["Source", "Sources"]
