"""Starts the processes of ranks on this machine."""

import os
import socket
from collections.abc import Sequence

from services.common.child import Child

RANK_MODULE = "services.inference.gpu.rank"
# What drivers and libraries read, and a child needs like its parent.
_DEVICE_VARIABLES = ("CUDA_", "NVIDIA_", "NCCL_", "GLOO_", "PYTORCH_", "TORCH_", "TRITON_", "MKL_", "KMP_")
# Ranks of a group are on one machine: nobody else shall be able to reach their sockets.
_LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}


async def start_rank(
    module: str, *, index: int, threads: int, links: Sequence[socket.socket], spread: bool = False
) -> Child:  # fmt: skip
    """Start the process of one rank.

    Args:
        module: what it runs.
        index: of the rank in its worker.
        threads: CPU threads that it computes with.
        links: its sockets to the other ranks of its group; closed here, as soon as it has them.
        spread: whether ranks of its group are on other machines, too.

    Raises:
        OSError: it can't be started.
    """
    kept = {name: value for name, value in os.environ.items() if name.startswith(_DEVICE_VARIABLES)}
    # Threads that spin while they wait would take the cores from decoder and encoder.
    own = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE", "SEEDVR2_SERVICE": f"inference-rank-{index}"}
    environment = ({} if spread else _LOOPBACK) | kept | own
    try:
        return await Child.start(module, environment=environment, handed=links)
    finally:
        # An end that stays open here would hide from the other ranks that this one has died.
        for end in links:
            end.close()
