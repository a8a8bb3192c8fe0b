from pathlib import Path

import pytest

from services.common.errors import NotFound, UploadNotFound
from services.gateway import keys
from tests.unit.gateway.examples import ref
from tests.unit.gateway.test_control import started, upload


async def test_an_upload_that_goes_after_it_was_looked_for_is_said_to_be_gone(tmp_path: Path):
    async with started(tmp_path / "store") as gateway:
        await upload(gateway, tmp_path)
        sources = gateway.service._control._sources
        source = await sources.look(ref("u"))
        await gateway.store.delete(keys.upload(ref("u"), "data"))
        with pytest.raises(UploadNotFound, match="no upload u any more"):
            await sources.index(source)


async def test_what_is_missing_beside_a_source_is_no_matter_of_its_upload(tmp_path: Path):
    async with started(tmp_path / "store") as gateway:
        await upload(gateway, tmp_path)
        with pytest.raises(NotFound) as caught:
            async with gateway.service._control._sources.file(ref("u")):
                await gateway.store.get("nothing")
        assert type(caught.value) is NotFound
