"""A rank: one process with one device. Loads a model, proves that it works, then restores spans one after the other.

Commands come over the channel of the process; frames come and go over a socket to the process that decodes and encodes, whose
path is in the command. Between two slices the rank looks whether it was told to stop.
"""

import contextlib
import platform
import socket
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from services.common.channel import Channel, ChannelClosed, Message
from services.common.child import error_fields, run_child
from services.common.errors import GpuOutOfMemory, JobCancelled, ModelBroken, ServiceError, SettingsError
from services.inference.frames import MAX_BATCH_BYTES, Frames, frames_of, send_frames
from services.inference.gpu.model.spec import SPECS
from services.inference.gpu.model.weights import Model, load_model
from services.inference.gpu.pipeline import RestoreSettings, SpanRestorer, self_test
from services.inference.messages import LoadOrder, RankReady, RestoreOrder

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_RESET_PEAK = "5"


class _FramesLost(Exception):
    """The process that decodes and encodes has closed its end."""


def main(channel: Channel) -> None:
    """Load what the first message says, then restore what the others say, until the server is gone."""
    order = LoadOrder(**channel.receive().fields)
    torch.set_num_threads(order.threads)
    # The same bytes each time matter more than the fastest algorithm of the day.
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True
    device = choose_device(order.device, order.index)
    model = load_model(SPECS[order.model], Path(order.directory), device, choose_dtype(order.dtype, device))
    check_unchanged(model, order)
    self_test(model)
    channel.send("ready", **asdict(_ready(model, order)))
    while True:
        message = channel.receive()
        # A "cancel" that arrives here came too late.
        if message.kind == "restore":
            _Restoring(channel, model, RestoreOrder(**message.fields)).run()


def choose_device(wanted: str, index: int) -> torch.device:
    """The device of the rank with a number; ``wanted`` is auto, cpu or cuda.

    Raises:
        SettingsError: there is no such GPU.
    """
    gpus = torch.cuda.device_count() if wanted != "cpu" and torch.cuda.is_available() else 0
    if wanted == "cpu" or (wanted == "auto" and not gpus):
        return torch.device("cpu")
    if index >= gpus:
        raise SettingsError(f"There is no GPU {index} that PyTorch can use; there are {gpus}.")
    device = torch.device("cuda", index)
    torch.cuda.set_device(device)
    return device


def choose_dtype(wanted: str, device: torch.device) -> torch.dtype:
    """Compute type; auto means bfloat16 on a GPU and float32 on a CPU."""
    if wanted == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return _DTYPES[wanted]


def check_unchanged(model: Model, order: LoadOrder) -> None:
    """Refuse files that are not those that were delivered. Raises ModelBroken."""
    changed = [name for name, sha256 in order.sha256.items() if model.sha256.get(name) != sha256]
    if changed:
        raise ModelBroken(
            f"{' and '.join(changed)} in {order.directory} changed since the model was fetched, or the disk is damaged; "
            f"delete it and fetch {order.model} again."
        )


def _ready(model: Model, order: LoadOrder) -> RankReady:
    name, dtype = _device_name(model.device), str(model.dtype).removeprefix("torch.")
    return RankReady(
        facts=model.fingerprint | {"device": name, "torch": torch.__version__, "torch_threads": str(order.threads)},
        device=name,
        dtype=dtype,
        weight_format=model.weight_format,
        parameters=sum(p.numel() for module in (model.dit, model.vae) for p in module.parameters()),
        sha256=model.sha256,
        memory_bytes=_device_memory_bytes(model.device),
        gpu_memory_bytes=_gpu_memory_bytes(model.device),
    )


class _Restoring:
    """One span."""

    def __init__(self, control: Channel, model: Model, order: RestoreOrder) -> None:
        self._control = control
        self._model = model
        self._order = order

    def run(self) -> None:
        """Restore it and say how it ended. What is not foreseen ends the process, and a fresh one takes its place."""
        try:
            _reset_peak(self._model.device)
            self._restore()
            self._say("done", peak_memory_bytes=_peak_memory_bytes(self._model.device))
        except _FramesLost:
            self._say("lost")
        except JobCancelled:
            self._say("cancelled")
        except ServiceError as error:
            self._say("failed", **error_fields(error))
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            self._say("failed", **error_fields(GpuOutOfMemory("The span needs more memory than this machine has free.")))
        if self._model.device.type == "cuda":
            torch.cuda.empty_cache()

    def _restore(self) -> None:
        order = self._order
        settings = RestoreSettings(
            width=order.width, height=order.height, seed=order.seed, first_frame=order.first_frame, colour=order.colour,
            window_latents=order.window_latents, overlap_latents=order.overlap_latents, bit_depth=order.bit_depth,
        )  # fmt: skip
        restorer = SpanRestorer(self._model, settings, on_stage=self._note_stage, checkpoint=self._checkpoint)
        with socket.socket(socket.AF_UNIX) as end:
            frames = _FrameSocket(end, order.path)
            while (message := frames.receive()).kind == "frames":
                for restored in restorer.push(frames_of(message)):
                    frames.send(restored)
            for restored in restorer.finish():
                frames.send(restored)
            frames.end()

    def _note_stage(self, stage: str, seconds: float, frames: int) -> None:
        self._say("progress", stage=stage, seconds=seconds, frames=frames, gpu_memory_bytes=_gpu_memory_bytes(self._model.device))

    def _checkpoint(self) -> None:
        while self._control.waiting():
            message = self._control.receive()
            if message.kind == "cancel" and message.fields["number"] == self._order.number:
                raise JobCancelled("The span was cancelled.")

    def _say(self, kind: str, **fields: Any) -> None:
        self._control.send(kind, number=self._order.number, **fields)


class _FrameSocket:
    """Frames from and to the process that decodes and encodes. Its methods raise _FramesLost when that has ended."""

    def __init__(self, end: socket.socket, path: str) -> None:
        try:
            end.connect(path)
        except OSError as error:
            raise _FramesLost from error
        self._channel = Channel(end)

    def receive(self) -> Message:
        """The next message: "frames", or "end"."""
        with _while_connected():
            return self._channel.receive()

    def send(self, frames: Frames) -> None:
        """Send (T, H, W, 3) frames, in several messages where they are large."""
        step = max(1, MAX_BATCH_BYTES // frames[0].nbytes) if len(frames) else 1
        for start in range(0, len(frames), step):
            with _while_connected():
                send_frames(self._channel, frames[start : start + step])

    def end(self) -> None:
        """No more frames."""
        with _while_connected():
            self._channel.send("end")


@contextlib.contextmanager
def _while_connected() -> Iterator[None]:
    try:
        yield
    except ChannelClosed as error:
        raise _FramesLost from error


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu {platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


def _device_memory_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    pages = Path("/proc/meminfo").read_text().split("\n", 1)[0]
    return int(pages.split()[1]) * 1024


def _gpu_memory_bytes(device: torch.device) -> int:
    return torch.cuda.memory_reserved(device) if device.type == "cuda" else 0


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    # Where the kernel refuses, the peak is that of the process's whole life.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text(_RESET_PEAK)


def _peak_memory_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


if __name__ == "__main__":
    run_child(main)
