"""Addresses of this server's own pages and files, under the path where a proxy publishes them. Pure."""

import re
from dataclasses import dataclass

from services.common.errors import InvalidOption

_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """Builds every address that the page mentions."""

    root_path: str
    """Empty, or like /seedvr2."""

    def home(self) -> str:
        """The page for a new job."""
        return f"{self.root_path}/"

    def login(self, query: str) -> str:
        """Where people sign in; ``query`` says where they want to go."""
        return f"{self.root_path}/login{'?' + query if query else ''}"

    def logout(self) -> str:
        """Where they sign out."""
        return f"{self.root_path}/logout"

    def job(self, job_id: str) -> str:
        """The page of a job."""
        return f"{self.root_path}/?job={job_id}"

    def result(self, job_id: str) -> str:
        """The joined video, for a player."""
        return f"{self.root_path}/files/jobs/{job_id}/result"

    def download(self, job_id: str) -> str:
        """The joined video, to be saved."""
        return f"{self.root_path}/files/jobs/{job_id}/result?download=1"

    def source(self, job_id: str) -> str:
        """What was uploaded for the job."""
        return f"{self.root_path}/files/jobs/{job_id}/source"

    def playlist(self, job_id: str) -> str:
        """The HLS playlist of what is restored so far."""
        return f"{self.root_path}/files/jobs/{job_id}/hls/index.m3u8"

    def frame(self, job_id: str, of: str, frame: int, max_side: int = 0) -> str:
        """One frame as a picture; ``of`` is source or result, ``max_side`` in pixels, 0 as large as it is."""
        query = f"?max_side={max_side}" if max_side else ""
        return f"{self.root_path}/files/jobs/{job_id}/frames/{of}/{frame}.png{query}"


def checked_id(text: str) -> str:
    """``text`` if it can be the id of a job or an upload.

    Raises:
        InvalidOption: it can't.
    """
    if not _ID.fullmatch(text):
        raise InvalidOption(
            "An id has 1 to 63 characters: small letters, digits and hyphens, no hyphen at the start.", field="id"
        )
    return text
