import pytest

from services.cli.arguments import build_parser
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb
from tests.unit.common.fake_gateway import FakeGateway


async def test_usage_is_a_table_with_what_is_allowed(gateway: FakeGateway, server: str, capsys: pytest.CaptureFixture[str]):
    gateway.usage = pb.GetUsageResponse(
        month="2026-11", usages=[pb.Usage(subject="alice", jobs=3, gpu_seconds=1234.5, megapixels=9)],
        quota=pb.Quota(active_jobs=4), active_jobs=1,
    )  # fmt: skip
    arguments = build_parser().parse_args(["usage", "--server", server, "--month", "2026-11"])
    assert await arguments.run(arguments) == 0
    head, row, _, words = capsys.readouterr().out.splitlines()
    assert head.split() == ["SUBJECT", "JOBS", "GPU", "SECONDS", "MEGAPIXELS"]
    assert row.split() == ["alice", "3", "1,234.5", "9.0"]
    assert words == "2026-11; 1 of your jobs wait or run. You may use 4 jobs at a time."
    assert gateway.calls[-1][1].month == "2026-11"
