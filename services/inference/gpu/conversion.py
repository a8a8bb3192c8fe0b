"""Conversion to bf16 as a process of its own: its parent knows no torch, and gets the memory back."""

from pathlib import Path

from services.common.channel import Channel
from services.common.child import run_child
from services.inference.delivery.files import volume_errors
from services.inference.gpu.model.checkpoints import convert_to_bf16


def main(channel: Channel) -> None:
    """Convert what the first message says, tell how far it is, and at last "done"."""
    order = channel.receive().fields
    source, destination = Path(order["source"]), Path(order["destination"])
    with volume_errors(destination.parent):
        convert_to_bf16(source, destination, lambda done, total: channel.send("progress", done_bytes=done, total_bytes=total))
    channel.send("done")


if __name__ == "__main__":
    run_child(main)
