"""Calls of the Kubernetes API, through the ``kubernetes`` client's connection, authentication and configuration.

Objects are plain JSON here: the client's models refuse what real servers send, such as a slice whose endpoints are null.
"""

import json
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any, Self

import aiohttp
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

from services.common.errors import AlreadyExists, ClusterForbidden, ClusterUnavailable, NotFound, SettingsError, WrongState

Object = dict[str, Any]

_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_TIMEOUT_S = 5.0
# A watch that is silent for longer than it may last has lost its server.
_SILENCE_S = 5.0
_PAGE = 500


class ClusterApi:
    """The API server of a cluster.

    Methods raise ClusterUnavailable where it doesn't answer, ClusterForbidden where it refuses.
    """

    def __init__(self, client: ApiClient, namespace: str) -> None:
        self._client = client
        self._client.user_agent = "seedvr2-gateway"
        self.namespace = namespace
        """The one that objects are in."""

    @classmethod
    async def connect(cls, kubeconfig: str, namespace: str) -> Self:
        """Ready to call; nothing is asked yet.

        Args:
            kubeconfig: a file; empty: the service account of the pod that this process runs in.
            namespace: empty: that of the pod, or of the file's context.

        Raises:
            SettingsError: there is no such configuration.
        """
        # Where to connect is the process's choice alone, not that of whoever else uses the client.
        configuration = Configuration()
        try:
            if kubeconfig:
                loader = await config.load_kube_config(kubeconfig, client_configuration=configuration, persist_config=False)
                named = loader.current_context["context"].get("namespace") or "default"
            else:
                config.load_incluster_config(client_configuration=configuration)
                named = _NAMESPACE_FILE.read_text(encoding="utf-8").strip()  # noqa: ASYNC240 - a few bytes, once
        except (config.ConfigException, OSError) as error:
            where = f"{kubeconfig} is no kubeconfig that can be used" if kubeconfig else "this process doesn't run in a pod"
            raise SettingsError(
                f"The Kubernetes API can't be reached: {where} ({error}); set SEEDVR2_GATEWAY_KUBERNETES_CONFIG."
            ) from error
        return cls(ApiClient(configuration), namespace or str(named))

    async def aclose(self) -> None:
        """End all calls."""
        await self._client.close()

    async def get(self, path: str, *, timeout_s: float = _TIMEOUT_S) -> Object:
        """An object. Raises NotFound."""
        return await self._call("GET", path, timeout_s=timeout_s)

    async def create(self, path: str, body: Object, *, timeout_s: float = _TIMEOUT_S) -> Object:
        """A new object in the collection ``path``. Raises AlreadyExists."""
        return await self._call("POST", path, body=body, timeout_s=timeout_s)

    async def replace(self, path: str, body: Object, *, timeout_s: float = _TIMEOUT_S) -> Object:
        """Another object in place of the one whose resourceVersion ``body`` has.

        Raises:
            NotFound: it is gone. WrongState: somebody else has written it.
        """
        return await self._call("PUT", path, body=body, timeout_s=timeout_s)

    async def delete(self, path: str, *, version: str = "", timeout_s: float = _TIMEOUT_S) -> None:
        """Remove an object; with ``version``: if nobody else has written it.

        Raises:
            NotFound: it is gone. WrongState: somebody else has written it.
        """
        body: Object = {"kind": "DeleteOptions", "apiVersion": "v1"}
        await self._call("DELETE", path, body=body | ({"preconditions": {"resourceVersion": version}} if version else {}),
                         timeout_s=timeout_s)  # fmt: skip

    async def list_all(self, path: str, selector: str, *, timeout_s: float = _TIMEOUT_S) -> tuple[list[Object], str]:
        """All objects of a collection that have the labels, and the version at which they were so.

        Raises:
            WrongState: the server forgot the version in the middle.
        """
        items: list[Object] = []
        query = {"labelSelector": selector, "limit": str(_PAGE)}
        while True:
            page = await self._call("GET", path, query=query, timeout_s=timeout_s)
            items += page.get("items") or []
            if not page["metadata"].get("continue"):
                return items, str(page["metadata"]["resourceVersion"])
            query["continue"] = page["metadata"]["continue"]

    async def watch(self, path: str, selector: str, version: str, *, last_s: int) -> AsyncGenerator[Object, None]:
        """Events after a version, bookmarks too, for ``last_s`` seconds.

        Raises:
            WrongState: the server has forgotten that version; list again.
        """
        query = {
            "labelSelector": selector, "resourceVersion": version, "watch": "true", "allowWatchBookmarks": "true",
            "timeoutSeconds": str(last_s),
        }  # fmt: skip
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_TIMEOUT_S, sock_read=last_s + _SILENCE_S)
        try:
            response = await self._send("GET", path, query, None, timeout)
            try:
                await _check(response)
                while line := await response.content.readline():
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise _error(int(event["object"].get("code", 500)), event["object"])
                    yield event
            finally:
                response.close()
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise ClusterUnavailable(f"The Kubernetes API was lost in the middle of a watch ({_words(error)}).") from error

    async def _call(
        self, method: str, path: str, *, query: Mapping[str, str] | None = None, body: Object | None = None, timeout_s: float
    ) -> Object:
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        try:
            response = await self._send(method, path, query or {}, body, timeout)
            async with response:
                await _check(response)
                answer: Object = json.loads(await response.read())
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise ClusterUnavailable(f"The Kubernetes API doesn't answer ({_words(error)}).") from error
        return answer

    async def _send(
        self, method: str, path: str, query: Mapping[str, str], body: Object | None, timeout: aiohttp.ClientTimeout
    ) -> aiohttp.ClientResponse:
        serialized = await self._client.param_serialize(
            method, path, query_params=list(query.items()), header_params={"Accept": "application/json"}, body=body,
            auth_settings=["BearerToken"],
        )  # fmt: skip
        response: aiohttp.ClientResponse = (await self._client.call_api(*serialized, _request_timeout=timeout)).response
        return response


async def _check(response: aiohttp.ClientResponse) -> None:
    if response.status >= 300:
        text = await response.text()
        try:
            body = json.loads(text)
        except ValueError:
            # A proxy on the way has other words.
            body = {"message": text[:200]}
        raise _error(response.status, body)


def _error(code: int, body: Object) -> Exception:
    message = str(body.get("message", ""))
    if code == 404:
        return NotFound(message)
    if code == 409 and body.get("reason") == "AlreadyExists":
        return AlreadyExists(message)
    if code in (409, 410):
        return WrongState(message)
    if code in (401, 403):
        return ClusterForbidden(f"The Kubernetes API refuses this gateway: {message}; give its service account that right.")
    return ClusterUnavailable(f"The Kubernetes API failed with {code}: {message}")


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
