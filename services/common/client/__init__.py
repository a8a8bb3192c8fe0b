"""The Python client of the gateway, for the web page, the command line and programs. ``docs/client.md`` shows how to use it."""

from services.common.client.gateway import ENDED_STATES, GatewayClient
from services.common.client.sync import SyncGatewayClient

__all__ = ["ENDED_STATES", "GatewayClient", "SyncGatewayClient"]
