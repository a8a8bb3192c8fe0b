"""Names of objects in the store. Pure."""

OWNER = "local"
JOBS = f"owners/{OWNER}/jobs/"
UPLOADS = f"owners/{OWNER}/uploads/"
SEGMENTS = f"owners/{OWNER}/segments/"


def upload(upload_id: str, name: str) -> str:
    """Object of an upload: upload.json, complete.json, data."""
    return f"{UPLOADS}{upload_id}/{name}"


def job(job_id: str, name: str) -> str:
    """Object of a job: request.json, state.json, index.json, cuts.json, plan.json, report.json, deleted.json, result.<ext>."""
    return f"{JOBS}{job_id}/{name}"


def segment(span_key: str, name: str) -> str:
    """A restored segment."""
    return f"{SEGMENTS}{span_key}/{name}"


def ids(keys: list[str], prefix: str) -> list[str]:
    """The ids that keys under a prefix belong to, each once."""
    return list(dict.fromkeys(key.removeprefix(prefix).partition("/")[0] for key in keys))
