"""Bodies of answers that are no objects, word for word as a real server's."""

from collections.abc import Sequence

from tests.fakes.kubernetes.kinds import Cause, Kind, Object


class Refused(Exception):
    """A request that is answered with a Status."""

    def __init__(self, body: Object) -> None:
        super().__init__(body["message"])
        self.body = body


def status(code: int, reason: str, message: str, details: Object | None = None) -> Object:
    """A Failure."""
    body: Object = {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "reason": reason,
    }  # fmt: skip
    return body | ({"details": details} if details is not None else {}) | {"code": code}


def details(kind: Kind, name: str = "", *, of_kind: str = "") -> Object:
    """Of which object something is said."""
    found: Object = {"name": name} if name else {}
    return found | ({"group": kind.group} if kind.group else {}) | {"kind": of_kind or kind.plural}


def unauthorized() -> Object:
    return status(401, "Unauthorized", "Unauthorized")


def forbidden(kind: Kind, verb: str, namespace: str, name: str, user: str) -> Object:
    named = f' "{name}"' if name else ""
    text = (
        f'{kind.resource}{named} is forbidden: User "{user}" cannot {verb} resource "{kind.plural}" in API group '
        f'"{kind.group}" in the namespace "{namespace}"'
    )
    return status(403, "Forbidden", text, details(kind, name))


def not_found(kind: Kind, name: str) -> Object:
    return status(404, "NotFound", f'{kind.resource} "{name}" not found', details(kind, name))


def no_such_path() -> Object:
    return status(404, "NotFound", "the server could not find the requested resource", {})


def already_exists(kind: Kind, name: str) -> Object:
    return status(409, "AlreadyExists", f'{kind.resource} "{name}" already exists', details(kind, name))


def stale(kind: Kind, name: str) -> Object:
    text = "the object has been modified; please apply your changes to the latest version and try again"
    return conflict(kind, name, text)


def conflict(kind: Kind, name: str, text: str) -> Object:
    message = f'Operation cannot be fulfilled on {kind.resource} "{name}": {text}'
    return status(409, "Conflict", message, details(kind, name))


def invalid(kind: Kind, name: str, causes: Sequence[Cause]) -> Object:
    texts = [f"{cause.field}: {cause.message}" for cause in causes]
    said = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    named: list[Object] = [{"reason": c.reason, "message": c.message, "field": c.field} for c in causes]
    found = details(kind, name, of_kind=kind.name) | {"causes": named}
    return status(422, "Invalid", f'{kind.qualified} "{name}" is invalid: {said}', found)


def bad_request(text: str) -> Object:
    return status(400, "BadRequest", text)


def expired(asked: int, oldest: int) -> Object:
    """As the only event of a watch."""
    return status(410, "Expired", f"too old resource version: {asked} ({oldest})")


def expired_page() -> Object:
    return status(410, "Expired", "The provided continue parameter is too old to display a consistent list result.")


def deleted(kind: Kind, name: str, uid: str) -> Object:
    return {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details(kind, name) | {"uid": uid},
    }  # fmt: skip
