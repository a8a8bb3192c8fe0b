"""Prepare the bucket: ``python -m services.gateway.store.bucket``, with the gateway's ``SEEDVR2_S3_…`` in the environment.

Creates the bucket where there is none, sets its rules for leftovers, and tries out what the store relies on. Exit code 0: it can
be used; 1: the server doesn't answer, so try again; 2: something must be changed, and the line says what.
"""

import asyncio
import contextlib
import os
import sys
from dataclasses import replace

from services.common.errors import SettingsError, StoreFull, StoreUnavailable
from services.common.settings import read_settings
from services.gateway.store.s3.settings import PREFIX, S3Settings
from services.gateway.store.s3.store import S3Store


async def prepare(settings: S3Settings) -> list[str]:
    """What was done and found. Raises SettingsError, StoreUnavailable."""
    if not settings.endpoint:
        raise SettingsError(f"{PREFIX}_ENDPOINT is not set; name the S3 server.")
    with contextlib.closing(S3Store(replace(settings, create_bucket=True))) as store:
        return await store.bucket.prepare()


def main() -> None:
    """Read the settings, prepare the bucket, and say in one line why that isn't possible."""
    try:
        print("\n".join(asyncio.run(prepare(read_settings(S3Settings, PREFIX, os.environ)))))
    except (SettingsError, StoreFull, StoreUnavailable) as error:
        print(error.message, file=sys.stderr)
        sys.exit(2 if isinstance(error, SettingsError) else 1)


if __name__ == "__main__":
    main()
