"""``python -m services.ui``: the web page's server."""

import asyncio
import logging
import os
import socket
import sys
import tempfile
from importlib import metadata

from prometheus_client import CollectorRegistry

from services.common import tracing
from services.common.client import GatewayClient
from services.common.errors import SettingsError
from services.common.http.serve import address_of, bound_socket
from services.common.http.tls import server_context
from services.common.logs import setup_logging
from services.common.otlp import PREFIX as TRACING_PREFIX
from services.common.otlp import TracingSettings, open_recorder
from services.common.ready import tell_ready
from services.common.rpc.server import wait_for_signal
from services.common.rpc.tls import channel_credentials, server_tls
from services.common.settings import read_settings
from services.ui.serve import PageServer
from services.ui.settings import UiSettings
from services.ui.visitor import visitor_login

_log = logging.getLogger(__name__)


def main() -> int:
    """Run until SIGTERM or SIGINT; the exit status."""
    try:
        settings = read_settings(UiSettings, "SEEDVR2_UI", os.environ)
        setup_logging("ui", settings.log_level)
        recorder = open_recorder(read_settings(TracingSettings, TRACING_PREFIX, os.environ), "ui", metadata.version("seedvr2"))
        if tls := settings.gateway_tls():
            # The connection is opened later, and wrong files are to be known now.
            channel_credentials(tls)
        with (
            tracing.start_recording(recorder),
            bound_socket(settings.address) as listener,
            tempfile.TemporaryDirectory(prefix="seedvr2-ui-") as scratch,
        ):
            os.environ |= {"GRADIO_TEMP_DIR": scratch, "GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1"}
            asyncio.run(_serve(settings, listener))
    except SettingsError as error:
        print(error.message, file=sys.stderr)
        return 2
    return 0


async def _serve(settings: UiSettings, listener: socket.socket) -> None:
    told_to_stop = asyncio.create_task(wait_for_signal())
    await asyncio.sleep(0)
    # Gradio takes seconds to import and reads the environment meanwhile: not before the settings are known to be right.
    from services.ui.app import build_app

    address = address_of(listener)
    async with GatewayClient(
        settings.gateway_address, timeout_s=settings.gateway_timeout_s, tls=settings.gateway_tls(), login=visitor_login
    ) as client:
        app = build_app(client, settings, CollectorRegistry())
        files = server_tls(settings.tls_certificate_file, settings.tls_key_file, "")
        server = PageServer(app, listener, settings.drain_s, tls=server_context(files) if files else None)
        stop = asyncio.Event()
        serving = asyncio.create_task(server.run_until(stop))
        await asyncio.wait([serving, asyncio.create_task(server.wait_listening())], return_when=asyncio.FIRST_COMPLETED)
        tell_ready(settings.ready_file, address=address, metrics_address=address)
        _log.info("listening", extra={"address": address, "gateway_address": settings.gateway_address})
        await asyncio.wait([serving, told_to_stop], return_when=asyncio.FIRST_COMPLETED)
        stop.set()
        await serving
    _log.info("stopped")


if __name__ == "__main__":
    sys.exit(main())
