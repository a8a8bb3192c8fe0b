"""Two rank processes with the embedded model that share spans, over gloo."""

from pathlib import Path

from prometheus_client import CollectorRegistry

from services.common.metrics import InferenceMetrics
from services.inference.delivery.catalogue import EMBEDDED_DIRECTORY
from services.inference.groups import Groups, choose_layout, load_orders
from services.inference.machines import Machines
from services.inference.ranks import RankLimits
from tests.unit.inference.quick_groups import until


async def test_what_nobody_foresaw_ends_the_group_at_once_and_it_comes_back(tmp_path: Path):
    layout = choose_layout(device="cpu", ranks=2, sequence=0)
    orders = load_orders(
        model="nano", directory=EMBEDDED_DIRECTORY / "nano", sha256={}, device="cpu", dtype="auto", layout=layout, threads=1
    )  # fmt: skip
    groups = Groups(orders, RankLimits(start_s=60, stop_s=60), InferenceMetrics(CollectorRegistry()), Machines(tmp_path))
    groups.start()
    try:
        await until(groups, lambda: groups.ready is not None, timeout_s=60)
        await groups.ranks[0].send("restore", nonsense=1)
        await until(groups, lambda: groups.ready is None, timeout_s=10)
        assert groups.detail == "rank 0: it failed in a way that nobody foresaw; its log says how"
        await until(groups, lambda: groups.ready is not None, timeout_s=60)
    finally:
        await groups.close()
