"""A rank: one process with one device. Loads a model, proves that it works, then restores spans one after the other.

Ranks of a group share each span. The one that leads takes commands over the channel of its process, and frames over a socket to
the process that decodes and encodes, whose path is in the command; the others follow it. Between two slices all of them look
whether they were told to stop.
"""

import contextlib
import gc
import logging
import platform
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from services.common.channel import Channel, ChannelClosed
from services.common.child import error_fields, handed_sockets, run_child
from services.common.errors import (
    GpuOutOfMemory,
    InternalError,
    JobCancelled,
    ModelBroken,
    ServiceError,
    SettingsError,
    WorkerBroken,
)
from services.common.logs import log_context
from services.inference.frames import Frames
from services.inference.gpu.memory import Machine, least_bytes
from services.inference.gpu.model.spec import SPECS, ModelSpec
from services.inference.gpu.model.weights import Model, load_model
from services.inference.gpu.parallel.mesh import Mesh
from services.inference.gpu.pipeline import RestoreSettings, SpanRestorer, measure_speed, self_test
from services.inference.gpu.room import available_bytes
from services.inference.gpu.verify import require, verify
from services.inference.lockstep import Desk, FramesLost, Interlude, Part, Peer, leading
from services.inference.messages import LEADER, LoadOrder, Passes, RankReady, RestoreOrder

_log = logging.getLogger(__name__)
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# The words of the allocators, the C++ library, cuDNN and cuBLAS; and oneDNN's, which doesn't say why, but nothing else is known
# to stop it after a passed self-test.
_NO_MEMORY = ("can't allocate memory", "out of memory", "bad_alloc", "STATUS_ALLOC_FAILED", "could not create a primitive")
_RESET_PEAK = "5"
# The server watches ranks and spans; a second clock would only blur who gave up.
_NO_LIMIT_S = 86400.0


def main(channel: Channel) -> None:
    """Load what the first message says, then restore what the others say, until the server is gone."""
    order = LoadOrder(**channel.receive().fields)
    torch.set_num_threads(order.threads)
    # The same bytes each time matter more than the fastest algorithm of the day.
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True
    device = choose_device(order.device, order.device_index)
    dtype = choose_dtype(order.dtype, device)
    _verify(channel, SPECS[order.model], device, dtype, order)
    mesh = _join(order, device)
    with _told(mesh):
        model = load_model(SPECS[order.model], Path(order.directory), device, dtype, mesh)
        check_unchanged(model, order)
        self_test(model)
        speed = measure_speed(model)
        channel.send("ready", **asdict(replace(_ready(model, order), megapixels_per_second=speed)))
        _serve(channel, order, model, mesh)


def _serve(channel: Channel, order: LoadOrder, model: Model, mesh: Mesh) -> None:
    links = [Channel(end) for end in handed_sockets()]
    if order.place == LEADER:
        desk = Desk(channel)
        while True:
            _Restoring(channel, model, mesh, desk.next_order(), order.neighbours, partial(leading, desk, links)).run()
    while True:
        message = links[0].receive()
        # A word to stop that arrives here came too late.
        if message.kind == "restore":
            span = RestoreOrder(**message.fields)
            _Restoring(channel, model, mesh, span, order.neighbours, partial(_following, links[0])).run()


def _following(leader: Channel, order: RestoreOrder, interlude: Interlude) -> AbstractContextManager[Part]:
    return contextlib.nullcontext(Peer(leader, order.number, interlude))


def _verify(channel: Channel, spec: ModelSpec, device: torch.device, dtype: torch.dtype, order: LoadOrder) -> None:
    """Say what the device is and how it does. Raises WorkerBroken where it must not be used."""
    passes: Passes = "plain" if device.type == "cuda" else "stacked"
    machine = Machine(dtype=str(dtype).removeprefix("torch."), passes=passes, ranks=order.group_size)
    checked = verify(device, dtype, least_bytes(spec, machine), order.neighbours)
    channel.send("checked", **asdict(checked))
    require(checked.checks, f"The device of rank {order.index} ({checked.device['device']})")


@contextlib.contextmanager
def _told(mesh: Mesh) -> Iterator[None]:
    """In a group, have even what nobody foresaw told: an interpreter may wait for the other ranks before it ends."""
    try:
        yield
    except (ServiceError, ChannelClosed, MemoryError):
        raise
    except Exception as error:
        if mesh.size == 1:
            raise
        _log.exception("rank failed")
        raise InternalError("it failed in a way that nobody foresaw; its log says how") from error


def _join(order: LoadOrder, device: torch.device) -> Mesh:
    return Mesh.join(order.place, order.group_size, device=device, init_method=order.meeting, timeout_s=_NO_LIMIT_S)


def choose_device(wanted: str, index: int) -> torch.device:
    """The device with a number; ``wanted`` is auto, cpu or cuda.

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
    facts = {"device": name, "torch": torch.__version__, "sequence": str(order.group_size)}
    if model.device.type == "cpu":
        # How sums are divided among threads decides their rounding; a GPU doesn't care.
        facts |= {"torch_threads": str(order.threads)}
    if order.machines > 1:
        facts |= {"machines": str(order.machines)}
    return RankReady(
        facts=model.fingerprint | facts,
        device=name,
        dtype=dtype,
        weight_format=model.weight_format,
        parameters=sum(p.numel() for module in (model.dit, model.vae) for p in module.parameters()),
        sha256=model.sha256,
        memory_bytes=_device_memory_bytes(model.device),
        gpu_memory_bytes=_gpu_memory_bytes(model.device),
        passes=model.kernels["passes"],  # type: ignore[arg-type]
        available_bytes=available_bytes(model.device, order.neighbours),
    )


Parts = Callable[[RestoreOrder, Interlude], AbstractContextManager[Part]]
"""Begins what a rank has to do with others during a span."""


class _Restoring:
    """One span."""

    def __init__(
        self, control: Channel, model: Model, mesh: Mesh, order: RestoreOrder, neighbours: int, parts: Parts
    ) -> None:  # fmt: skip
        self._control = control
        self._model = model
        self._mesh = mesh
        self._order = order
        self._neighbours = neighbours
        self._parts = parts
        self._restorer: SpanRestorer | None = None
        self._peak_bytes = 0

    def run(self) -> None:
        """Restore it and say how it ended. What is not foreseen ends the process, and a fresh one takes its place."""
        with log_context(**self._order.ids):
            ending, fields = self._end_of(self._parts(self._order, self._step_aside))
            _log.info("span ended", extra={"ending": ending, "preview": self._order.preview})
        self._restorer = None
        # What an error's traceback held may be in a cycle, and must be free before the span is tried again.
        gc.collect()
        if self._model.device.type == "cuda":
            torch.cuda.empty_cache()
        self._say(ending, available_bytes=available_bytes(self._model.device, self._neighbours), **fields)

    def _end_of(self, part: AbstractContextManager[Part]) -> tuple[str, dict[str, Any]]:
        """How the span ended, and more about it."""
        try:
            _reset_peak(self._model.device)
            with part as entered:
                self._restore(entered)
            return "done", {"peak_memory_bytes": max(self._peak_bytes, _peak_memory_bytes(self._model.device))}
        except FramesLost:
            return "lost", {}
        except JobCancelled:
            return "cancelled", {}
        except ServiceError as error:
            return self._failed(error)
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            return self._failed(GpuOutOfMemory("The span needs more memory than this machine has free."))

    def _restore(self, part: Part) -> None:
        order = self._order
        self._model.dit.offload(wanted=order.offload)
        settings = RestoreSettings(
            width=order.width, height=order.height, seed=order.seed, first_frame=order.first_frame, cuts=tuple(order.cuts),
            colour=order.colour, window_latents=order.window_latents, overlap_latents=order.overlap_latents,
            noise=order.noise, bit_depth=order.bit_depth, alpha=order.alpha,
            input_noise=order.input_noise, latent_noise=order.latent_noise, steps=order.steps,
            slice_latents=order.slice_latents, park=order.park,
        )  # fmt: skip
        self._restorer = restorer = SpanRestorer(
            self._model, settings, on_stage=self._note_stage, checkpoint=part.checkpoint, pause=part.pause
        )
        for frames in part.frames():
            _give(part, restorer.push(frames))
        _give(part, restorer.finish())
        part.end()

    def _step_aside(self, preview: RestoreOrder) -> None:
        """Restore a preview; this span waits, its state in host memory, so the preview has as much memory as any span."""
        self._peak_bytes = max(self._peak_bytes, _peak_memory_bytes(self._model.device))
        with self._restorer.aside() if self._restorer else contextlib.nullcontext():
            _Restoring(self._control, self._model, self._mesh, preview, self._neighbours, self._parts).run()
        self._model.dit.offload(wanted=self._order.offload)
        _reset_peak(self._model.device)

    def _failed(self, error: ServiceError) -> tuple[str, dict[str, Any]]:
        # One rank alone has this error; the others wait in an exchange for it, and only the end of all of them ends that.
        if self._mesh.size > 1 and isinstance(error, GpuOutOfMemory | WorkerBroken):
            _log.error("the group of ranks is broken", extra={"why": error.message, "cause": str(error.__cause__ or "")})
            raise error
        return "failed", error_fields(error)

    def _note_stage(self, stage: str, seconds: float, frames: int) -> None:
        self._say("progress", stage=stage, seconds=seconds, frames=frames, gpu_memory_bytes=_gpu_memory_bytes(self._model.device))

    def _say(self, kind: str, **fields: Any) -> None:
        self._control.send(kind, number=self._order.number, **fields)


def _give(part: Part, restored: Iterator[Frames]) -> None:
    for frames in restored:
        part.give(frames)
        # The leader may have found that nobody takes them: nobody may begin an exchange before all know.
        part.checkpoint()


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(words in str(error) for words in _NO_MEMORY)


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
