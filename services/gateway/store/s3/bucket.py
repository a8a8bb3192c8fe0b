"""The bucket as a whole: whether it is there, does what the store relies on, and gets rid of leftovers."""

import contextlib
import logging
import secrets
import time
from xml.etree.ElementTree import Element

from minio import Minio

from services.common.errors import AlreadyExists, NotFound, ServiceError, SettingsError, StoreFull, StoreUnavailable, WrongState
from services.gateway.store.s3.calls import Calls
from services.gateway.store.s3.faults import AGAIN, ERRORS, kind_of
from services.gateway.store.s3.lifecycle import Rules, expiry_rule, merged, parts_rule
from services.gateway.store.s3.objects import Objects
from services.gateway.store.s3.settings import S3Settings
from services.gateway.store.s3.unfinished import LEFTOVERS

_log = logging.getLogger(__name__)
PROBES = ".check/"
"""Begins the keys of objects that :meth:`Bucket.prepare` writes and removes; see :meth:`Bucket.tidy`."""

_CONFIGURATION = {"lifecycle": ""}
# Of a check: four writes, a list and a removal.
_REQUESTS = 6


class Bucket:
    """What is done once, before objects are written."""

    def __init__(self, client: Minio, calls: Calls, objects: Objects, settings: S3Settings) -> None:
        self._client = client
        self._calls = calls
        self._objects = objects
        self._settings = settings
        self._probes: dict[str, float] = {}

    async def prepare(self) -> list[str]:
        """Create the bucket and its rules, as the settings say, and try out what the store relies on; tells what was done.

        A bucket that is full is taken as it is.

        Raises:
            SettingsError: the server refuses the gateway, has no such bucket, or does not do what is needed.
            StoreUnavailable: it doesn't answer now.
        """
        try:
            done = await self._create()
            try:
                await self._check()
                return [*done, *(await self._set_rules() if self._settings.lifecycle else [])]
            except StoreFull as error:
                # Who makes room does it through a gateway; and what became full was tried out when it was not.
                return [*done, f"It is not tried out until the next start, because nothing can be written: {error.message}"]
        except StoreUnavailable as error:
            if error.__cause__ is not None and kind_of(error.__cause__) not in AGAIN:
                raise SettingsError(f"{self._settings.endpoint}, bucket {self._settings.bucket}: {error.message}") from error
            raise

    async def _create(self) -> list[str]:
        name = self._settings.bucket
        if await self._calls.run(lambda: self._client.bucket_exists(name)):
            return [f"The bucket {name} is there."]
        if not self._settings.create_bucket:
            raise SettingsError(
                f"{self._settings.endpoint} has no bucket {name}: create it, correct SEEDVR2_S3_BUCKET, or set "
                "SEEDVR2_S3_CREATE_BUCKET=true."
            )
        # Somebody else may have been quicker.
        with contextlib.suppress(AlreadyExists):
            await self._calls.run(self._make)
        return [f"The bucket {name} was created."]

    def _make(self) -> None:
        try:
            self._client.make_bucket(self._settings.bucket, self._settings.region)
        except ERRORS as error:
            if getattr(error, "code", "") in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                raise AlreadyExists("The bucket is there.") from error
            raise

    # ---- what the store relies on ----

    async def _check(self) -> None:
        key = PROBES + secrets.token_hex(8)
        try:
            await self._check_conditions(key)
            if key not in await self._objects.keys(PROBES):
                raise SettingsError(f"{self._settings.endpoint} does not list an object that was just written: it can't be used.")
        finally:
            await self._objects.delete(key)
        with contextlib.suppress(NotFound):
            await self._objects.head(key)
            raise SettingsError(f"{self._settings.endpoint} still has an object that was deleted: it can't be used.")

    async def _check_conditions(self, key: str) -> None:
        first = await self._objects.put_if(key, b"1")
        await self._must_refuse(AlreadyExists, key, None, "If-None-Match")
        await self._objects.put_if(key, b"2", tag=first)
        await self._must_refuse(WrongState, key, first, "If-Match")

    async def _must_refuse(self, refusal: type[ServiceError], key: str, tag: str | None, condition: str) -> None:
        with contextlib.suppress(refusal):
            await self._objects.put_if(key, b"3", tag=tag)
            raise SettingsError(
                f"{self._settings.endpoint} ignores conditions of writes ({condition}), so two gateways could overwrite each "
                "other's jobs. Use a server that honours them, like AWS, MinIO, Ceph or SeaweedFS."
            )

    async def tidy(self) -> None:
        """Remove what others wrote to try the server out and, killed or cut off, did not remove.

        No clock but this process's own is asked: what is there for longer than any check lasts, seen by us, is abandoned.
        """
        now = time.monotonic()
        self._probes = {key: self._probes.get(key, now) for key in await self._objects.keys(PROBES)}
        for key in [key for key, seen in self._probes.items() if now - seen > self._check_s]:
            await self._objects.delete(key)

    @property
    def _check_s(self) -> float:
        """Longest time between a check's first request and its last."""
        return _REQUESTS * (self._settings.retry_s + self._settings.timeout_s)

    # ---- rules ----

    async def _set_rules(self) -> list[str]:
        days = self._settings.leftover_days
        prefix = self._objects.name("")
        parts, drafts = parts_rule(prefix, days=days), [expiry_rule(prefix, begin, days=days) for begin in (LEFTOVERS, PROBES)]
        try:
            return [await self._merge([parts, *drafts])]
        except StoreUnavailable as error:
            _raise_if_passing(error)
        try:
            # MinIO knows no rule for parts; it removes them of its own accord.
            done = await self._merge(drafts)
            return [f"{done} It takes none for uploads in parts: see that the server itself removes those that nobody completes."]
        except StoreUnavailable as error:
            _raise_if_passing(error)
            # Not every server has rules, and not every key may change them: leftovers cost space, nothing else.
            text = f"The bucket takes no rules for leftovers ({error.message}): remove what is older than {days} days under "
            return [f"{text}{prefix}{LEFTOVERS} and uploads in parts that were not completed, in another way."]

    async def _merge(self, rules: list[Element]) -> str:
        new = merged(await self._rules(), rules)
        if new is None:
            return "Its rules for leftovers are as they should be."
        await self._calls.run(lambda: self._put_rules(new))
        return f"It has rules that remove leftovers after {self._settings.leftover_days} days."

    async def _rules(self) -> bytes | None:
        try:
            return await self._calls.run(
                lambda: self._client._execute("GET", self._settings.bucket, query_params=dict(_CONFIGURATION)).data
            )
        except NotFound:
            return None

    def _put_rules(self, rules: Rules) -> None:
        headers = {"Content-MD5": rules.md5, "Content-Type": "application/xml"}
        self._client._execute(
            "PUT", self._settings.bucket, body=rules.xml, headers=dict(headers), query_params=dict(_CONFIGURATION)
        )


def _raise_if_passing(error: StoreUnavailable) -> None:
    if error.__cause__ is None or kind_of(error.__cause__) in AGAIN:
        raise error
