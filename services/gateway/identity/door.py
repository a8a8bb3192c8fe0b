"""The one way in, for gRPC and HTTP: whose token it is, for whom it may act, what that role may do."""

import contextlib
import hashlib
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from services.common.errors import PermissionDenied, ServiceError, TokenMissing, Unauthenticated
from services.common.login import checked_subject
from services.common.rpc.status import code_of
from services.gateway.identity.attempts import FailedLogins
from services.gateway.identity.audit import Audit, CallRecord
from services.gateway.identity.caller import ANYBODY, Caller, Role, set_caller
from services.gateway.identity.tokens import checked_owner
from services.gateway.keys import LOCAL

_WANTED = "This gateway lets in who shows a token; send it as authorization: Bearer TOKEN."
_NEVER_FOR_SOMEBODY = frozenset({"ListModels", "GetClusterStatus", "GetCaller"})
_MAX_KNOWN = 10_000
_MAX_TOKEN = 16 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Presented:
    """What a call shows of who makes it."""

    authorization: str
    """The header of this name; empty: none."""

    subject: str
    """For whom it is made, as x-seedvr2-subject says; empty: for the token's own subject."""

    address: str
    """Of the machine that it came from."""


class Authenticator(Protocol):
    """Knows some kind of token."""

    async def identify(self, token: str) -> Caller | None:
        """Whose it is; None: not of this kind, or nobody's.

        Raises:
            Unauthenticated: it is of this kind and can't be used. Unavailable: nobody can say now.
        """
        ...


class Door:
    """Lets callers in."""

    def __init__(
        self, authenticators: Sequence[Authenticator], failures: FailedLogins, audit: Audit,
        on_refusal: Callable[[str], None] | None = None,
    ) -> None:  # fmt: skip
        """No ``authenticators``: everybody is let in, and is the caller without authentication. ``on_refusal`` is told the class
        of the error with which somebody was not let in."""
        self._authenticators = authenticators
        self._failures = failures
        self._audit = audit
        self._on_refusal = on_refusal
        self._known: OrderedDict[bytes, None] = OrderedDict()

    @contextlib.asynccontextmanager
    async def call(self, name: str, presented: Presented) -> AsyncIterator[CallRecord]:
        """Do a call inside the block, in the name of whoever makes it; it is written down as it ends, with the record's target.

        Each call needs a task of its own.

        Raises:
            Unauthenticated, PermissionDenied, LoginsLimited: it isn't let in. Unavailable: nobody can say who makes it.
        """
        record, outcome, reason = CallRecord(call=name, address=presented.address), "CANCELLED", ""
        try:
            await self._let_in(presented, record)
            # A call has a task of its own, so there is nobody to give the name back to.
            set_caller(record.caller or ANYBODY)
            yield record
            outcome = "OK"
        except ServiceError as error:
            outcome, reason = code_of(type(error)).name, type(error).__name__
            raise
        except Exception:
            outcome = "INTERNAL"
            raise
        finally:
            self._audit.write(record, outcome, reason)

    async def _let_in(self, presented: Presented, record: CallRecord) -> None:
        """Say in the record who makes the call; of one that is refused, too, where it is known whose token it is."""
        try:
            record.caller = await self._identified(presented) if self._authenticators else ANYBODY
            if presented.subject:
                record.caller = _acting(record.caller, presented.subject)
            _check_named(record.caller, record.call)
        except ServiceError as error:
            if self._on_refusal is not None:
                self._on_refusal(type(error).__name__)
            raise

    async def _identified(self, presented: Presented) -> Caller:
        scheme, _, token = presented.authorization.strip().partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token or len(token) > _MAX_TOKEN:
            raise TokenMissing(_WANTED)
        digest = hashlib.sha256(token.encode()).digest()
        # Whoever shares an address with somebody who guesses goes on with a token that was right before.
        if digest not in self._known:
            self._failures.check(presented.address, time.monotonic())
        try:
            caller = await self._ask(token)
        except Unauthenticated:
            self._failures.failed(presented.address, time.monotonic())
            raise
        self._remember(digest)
        return caller

    async def _ask(self, token: str) -> Caller:
        for authenticator in self._authenticators:
            caller = await authenticator.identify(token)
            if caller is not None:
                return caller
        raise Unauthenticated("This token is not known here; is it complete, and for this gateway?")

    def _remember(self, digest: bytes) -> None:
        self._known[digest] = None
        self._known.move_to_end(digest)
        if len(self._known) > _MAX_KNOWN:
            self._known.popitem(last=False)


def _acting(caller: Caller, subject: str) -> Caller:
    """The one for whom a caller acts, with a user's rights. Raises PermissionDenied, InvalidOption."""
    if caller.role is Role.ADMIN:
        # What was stored before anybody had to say who they are is reached by its owner's name.
        return Caller(subject="" if subject == LOCAL else checked_subject(subject), role=Role.USER, by=caller)
    if caller.role is Role.DELEGATE:
        return Caller(subject=checked_owner(subject), role=Role.USER, by=caller)
    if subject == caller.subject:
        return caller
    raise PermissionDenied("This token acts for nobody but its own subject; leave x-seedvr2-subject out.")


def _check_named(caller: Caller, call: str) -> None:
    if caller.role is Role.DELEGATE and call not in _NEVER_FOR_SOMEBODY:
        raise PermissionDenied("A delegate's token acts for somebody only; name them in x-seedvr2-subject.")
