import asyncio
from pathlib import Path

from services.common.fleet import ModelState
from services.inference.shelf import Shelf


async def looked(shelf: Shelf, before: tuple[ModelState, ...]) -> dict[str, str]:
    """What it says once it has looked again."""
    async with asyncio.timeout(10):
        while (models := shelf.models()) == before:
            await asyncio.sleep(0.01)
    return {model.name: model.state for model in models}


async def test_a_model_directory_is_looked_at_in_the_background_and_again(tmp_path: Path):
    shelf = Shelf(tmp_path, look_every_s=0)
    assert shelf.models() == ()
    assert (await looked(shelf, ()))["seedvr2-3b"] == "absent"
    (tmp_path / "seedvr2-3b").mkdir()
    (tmp_path / "seedvr2-3b" / "dit.gguf").touch()
    assert (await looked(shelf, shelf.models()))["seedvr2-3b"] == "foreign"


async def test_between_two_looks_the_last_one_is_told(tmp_path: Path):
    shelf = Shelf(tmp_path, look_every_s=60)
    await looked(shelf, shelf.models())
    (tmp_path / "seedvr2-3b").mkdir()
    (tmp_path / "seedvr2-3b" / "dit.gguf").touch()
    await asyncio.sleep(0.1)
    assert {model.state for model in shelf.models()} == {"ready", "absent"}
