import threading
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from services.common.errors import Unavailable
from services.common.metrics import GatewayMetrics
from services.gateway.buckets.settings import BucketSettings
from services.gateway.container.adapter import Container
from services.gateway.job_request import JobRequest
from services.gateway.leases.files import FileLeases
from services.gateway.service import GatewayService, container_limits
from services.gateway.settings import GatewaySettings
from services.gateway.store.local import LocalStore
from tests.s3 import free_ports
from tests.unit.gateway.examples import ref
from tests.unit.gateway.test_control import InProcess


async def test_a_service_that_is_closed_keeps_no_thread_for_buckets(tmp_path: Path):
    settings, store = GatewaySettings(), LocalStore(tmp_path / "store", min_free_bytes=0)
    buckets = BucketSettings(endpoint=f"http://127.0.0.1:{free_ports(1)[0]}", sources=("films/",), tries=1)
    service = GatewayService(
        settings=settings, store=store, workers=InProcess(), container=Container(container_limits(settings)),
        leases=FileLeases(tmp_path / "leases"), metrics=GatewayMetrics(CollectorRegistry()), buckets=buckets,
    )  # fmt: skip
    before = set(threading.enumerate())
    with pytest.raises(Unavailable):
        await service.servicer._control.create(ref("a"), JobRequest(object_uri="s3://films/a.mp4"))
    threads = [thread for thread in set(threading.enumerate()) - before if thread.name.startswith("s3")]
    assert threads
    service.close()
    for thread in threads:
        thread.join(30)
    assert not [thread for thread in threads if thread.is_alive()]
    store.close()
