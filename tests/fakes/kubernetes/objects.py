"""The objects of the fake, their versions, and the history that watches read."""

import copy
import secrets
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from tests.fakes.kubernetes import answers
from tests.fakes.kubernetes.answers import Refused
from tests.fakes.kubernetes.kinds import Kind, Object
from tests.fakes.kubernetes.selectors import matches

_FIRST_REVISION = 1000


@dataclass(frozen=True, kw_only=True)
class Change:
    """A write."""

    revision: int
    kind: Kind
    namespace: str
    before: Object | None
    after: Object | None

    def event(self, selector: str) -> Object | None:
        """As a watch with a selector shows it; None where it doesn't."""
        had = self.before is not None and matches(self.before, selector)
        has = self.after is not None and matches(self.after, selector)
        if has:
            return {"type": "MODIFIED" if had else "ADDED", "object": self.after}
        if not had:
            return None
        assert self.before is not None
        gone = copy.deepcopy(self.before)
        gone["metadata"]["resourceVersion"] = str(self.revision)
        return {"type": "DELETED", "object": gone}


class Objects:
    """All objects; every write gets the next revision, whatever it is of."""

    def __init__(self, *, loopback_endpoints: bool) -> None:
        self.written = threading.Condition()
        self.revision = _FIRST_REVISION
        self.oldest = _FIRST_REVISION
        """Watches from before it have expired."""
        self._loopback_endpoints = loopback_endpoints
        self._objects: dict[tuple[str, str, str], Object] = {}
        self._changes: list[Change] = []
        self._pages: dict[str, tuple[int, list[Object]]] = {}

    def get(self, kind: Kind, namespace: str, name: str) -> Object:
        with self.written:
            found = self._objects.get((kind.plural, namespace, name))
            if found is None:
                raise Refused(answers.not_found(kind, name))
            return found

    def create(self, kind: Kind, namespace: str, body: Object, manager: str) -> Object:
        made = copy.deepcopy(body)
        metadata = made.setdefault("metadata", {})
        if not metadata.get("name") and metadata.get("generateName"):
            metadata["name"] = metadata["generateName"] + secrets.token_hex(3)[:5]
        name = metadata.get("name", "")
        with self.written:
            if (kind.plural, namespace, name) in self._objects:
                raise Refused(answers.already_exists(kind, name))
            self._check(kind, name, made, None)
            metadata["namespace"], metadata["uid"] = namespace, str(uuid.uuid4())
            metadata["creationTimestamp"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            if kind.counts_generations:
                metadata["generation"] = 1
            return self._write(kind, namespace, name, None, made, manager)

    def replace(self, kind: Kind, namespace: str, name: str, body: Object, manager: str) -> Object:
        made = copy.deepcopy(body)
        with self.written:
            before = self.get(kind, namespace, name)
            metadata, known = made.setdefault("metadata", {}), before["metadata"]
            if metadata.get("resourceVersion") not in (None, "", known["resourceVersion"]):
                raise Refused(answers.stale(kind, name))
            self._check(kind, name, made, before)
            for field in ("name", "namespace", "uid", "creationTimestamp", "generation"):
                if field in known:
                    metadata[field] = known[field]
            if kind.counts_generations and _wanted(made) != _wanted(before):
                metadata["generation"] += 1
            if _without_version(made) == _without_version(before):
                return before
            return self._write(kind, namespace, name, before, made, manager)

    def delete(self, kind: Kind, namespace: str, name: str, preconditions: Object) -> Object:
        with self.written:
            before = self.get(kind, namespace, name)
            asked, is_now = preconditions.get("resourceVersion"), before["metadata"]["resourceVersion"]
            if asked not in (None, is_now):
                text = (
                    f"the ResourceVersion in the precondition ({asked}) does not match the ResourceVersion in record "
                    f"({is_now}). The object might have been modified"
                )
                raise Refused(answers.conflict(kind, name, text))
            del self._objects[kind.plural, namespace, name]
            self._note(kind, namespace, before, None)
            return answers.deleted(kind, name, before["metadata"]["uid"])

    def listed(self, kind: Kind, namespace: str, selector: str, limit: int, token: str) -> Object:
        with self.written:
            if token and token not in self._pages:
                raise Refused(answers.expired_page())
            revision, left = self._pages[token] if token else (self.revision, self.current(kind, namespace, selector))
            page, left = (left[:limit], left[limit:]) if limit else (left, [])
            metadata: Object = {"resourceVersion": str(revision)}
            if left:
                metadata["continue"] = secrets.token_urlsafe(16)
                metadata["remainingItemCount"] = len(left)
                self._pages[metadata["continue"]] = (revision, left)
        items = [{k: v for k, v in each.items() if k not in ("kind", "apiVersion")} for each in page]
        return {"kind": f"{kind.name}List", "apiVersion": kind.api_version, "metadata": metadata, "items": items}

    def current(self, kind: Kind, namespace: str, selector: str) -> list[Object]:
        """By name."""
        found = [(key, each) for key, each in self._objects.items() if key[:2] == (kind.plural, namespace)]
        return [each for _, each in sorted(found, key=lambda item: item[0]) if matches(each, selector)]

    def changes(self, kind: Kind, namespace: str, after: int) -> Iterator[Change]:
        """Writes of a kind after a revision."""
        return (c for c in self._changes if c.revision > after and (c.kind, c.namespace) == (kind, namespace))

    def compact(self) -> None:
        """Forget the history; who watches already goes on."""
        with self.written:
            self.oldest = self.revision = self.revision + 1
            self._pages.clear()

    def _check(self, kind: Kind, name: str, made: Object, before: Object | None) -> None:
        if kind.plural == "endpointslices" and self._loopback_endpoints:
            return
        causes = kind.check(made, before)
        if causes:
            raise Refused(answers.invalid(kind, name, causes))

    def _write(self, kind: Kind, namespace: str, name: str, before: Object | None, made: Object, manager: str) -> Object:
        made["metadata"]["resourceVersion"] = str(self.revision + 1)
        made["metadata"].setdefault("managedFields", _managed(kind, made, manager))
        ordered = {"kind": kind.name, "apiVersion": kind.api_version} | made
        self._objects[kind.plural, namespace, name] = ordered
        self._note(kind, namespace, before, ordered)
        return ordered

    def _note(self, kind: Kind, namespace: str, before: Object | None, after: Object | None) -> None:
        self.revision += 1
        self._changes.append(Change(revision=self.revision, kind=kind, namespace=namespace, before=before, after=after))
        self.written.notify_all()


def _wanted(found: Object) -> Object:
    return {name: value for name, value in found.items() if name not in ("metadata", "status", "kind", "apiVersion")}


def _without_version(found: Object) -> Object:
    metadata = {k: v for k, v in found["metadata"].items() if k not in ("resourceVersion", "managedFields")}
    return {k: v for k, v in found.items() if k not in ("kind", "apiVersion")} | {"metadata": metadata}


def _managed(kind: Kind, made: Object, manager: str) -> list[Object]:
    entry = {
        "manager": manager, "operation": "Update", "apiVersion": kind.api_version,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "fieldsType": "FieldsV1", "fieldsV1": _fields(_wanted(made)),
    }  # fmt: skip
    return [entry]


def _fields(value: object) -> Object:
    return {f"f:{name}": _fields(inner) for name, inner in value.items()} if isinstance(value, dict) else {}
