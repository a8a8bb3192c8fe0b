"""Names of objects in the store. Pure."""

import hashlib
import re
from collections.abc import Iterable
from typing import NamedTuple

OWNERS = "owners/"
USAGE = "usage/"
LOCAL = "local"
"""Owner of everything where nobody has to say who they are."""

ACTIVE = "active/"
"""Where the jobs are marked that have not ended, or whose deletion has not: what gateways must look after."""

WEBHOOKS = "webhooks/"
"""Where the jobs are marked whose webhook has not been delivered."""

POOLS = "gateways/pools/"
"""Where gateways keep what pools served last."""

_PLAIN_POOL = re.compile(r"[a-z0-9][a-z0-9.-]{0,99}")


class Ref(NamedTuple):
    """Names a job, or an upload, of an owner."""

    owner: str
    """Whose it is."""

    id: str
    """Unique among the owner's."""


def jobs(owner: str) -> str:
    """Where the jobs of an owner are."""
    return f"{OWNERS}{owner}/jobs/"


def uploads(owner: str) -> str:
    """Where the uploads of an owner are."""
    return f"{OWNERS}{owner}/uploads/"


def segments(owner: str) -> str:
    """Where the segments of an owner are."""
    return f"{OWNERS}{owner}/segments/"


def upload(ref: Ref, name: str) -> str:
    """Object of an upload: upload.json, complete.json, data."""
    return f"{uploads(ref.owner)}{ref.id}/{name}"


def job(ref: Ref, name: str) -> str:
    """Object of a job: request.json, state.json, progress.json, index.json, cuts.json, plan.json, report.json, result.<ext>."""
    return f"{jobs(ref.owner)}{ref.id}/{name}"


def segment(owner: str, span_key: str, name: str) -> str:
    """A restored segment."""
    return f"{segments(owner)}{span_key}/{name}"


def active(ref: Ref) -> str:
    """The mark of a job that gateways must look after."""
    return f"{ACTIVE}{ref.owner}/{ref.id}"


def marked(keys: Iterable[str]) -> list[Ref]:
    """The jobs whose marks are among ``keys``."""
    found = (key.removeprefix(ACTIVE).split("/") for key in keys)
    return [Ref(*parts) for parts in found if len(parts) == len(Ref._fields)]


def usages(month: str) -> str:
    """Where it is kept what everybody used in a month. Beside the owners' things: it stays when those go."""
    return f"{USAGE}{month}/"


def usage(month: str, owner: str) -> str:
    """Where it is kept what an owner used in a month."""
    return f"{usages(month)}{owner}/"


def job_usage(month: str, ref: Ref, created_at: float) -> str:
    """What a job used; an id can be used again, so its moment belongs to the name."""
    return f"{usage(month, ref.owner)}{ref.id}.{round(created_at * 1000)}.json"


def owner_of_usage(key: str) -> str:
    """Whose record of use it is."""
    return key.removeprefix(USAGE).split("/")[1]


def webhook(ref: Ref) -> str:
    """The mark of a job whose webhook has not been delivered."""
    return f"{WEBHOOKS}{ref.owner}/{ref.id}"


def webhooks(keys: Iterable[str]) -> list[Ref]:
    """The jobs whose marks are among ``keys``."""
    found = (key.removeprefix(WEBHOOKS).split("/") for key in keys)
    return [Ref(*parts) for parts in found if len(parts) == len(Ref._fields)]


def pool(name: str) -> str:
    """What a pool served last; a name that could not be that of an object is hashed."""
    plain = _PLAIN_POOL.fullmatch(name)
    return f"{POOLS}{name if plain else '-' + hashlib.sha256(name.encode()).hexdigest()}.json"
