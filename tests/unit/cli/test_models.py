import pytest

from services.cli.arguments import build_parser
from tests.unit.common.fake_gateway import FakeGateway


async def test_models_are_listed_with_their_readiness(gateway: FakeGateway, server: str, capsys: pytest.CaptureFixture[str]):
    arguments = build_parser().parse_args(["models", "list", "--server", server])
    await arguments.run(arguments)
    assert capsys.readouterr().out.splitlines()[1].split() == ["nano", "yes", "6.2", "M", "local", "SeedVR2", "nano"]
