"""One rank process with the embedded model, and this test in the place of the server and of the process that decodes."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from services.common.channel import Channel, ChannelClosed, Message, channel_pair
from services.common.errors import SettingsError
from services.inference.delivery.catalogue import EMBEDDED_DIRECTORY
from services.inference.frames import Frames, frames_of, send_frames
from services.inference.gpu.rank import choose_device, choose_dtype
from services.inference.launch import RANK_MODULE
from services.inference.messages import LoadOrder, RankReady, RestoreOrder, rank_checked

LOAD = LoadOrder(model="nano", directory=str(EMBEDDED_DIRECTORY / "nano"), device="cpu", dtype="auto", index=0, threads=1)


class RankProcess:
    """A rank and both of its channels."""

    def __init__(self, directory: Path, load: LoadOrder = LOAD) -> None:
        ours, theirs = channel_pair()
        self._path = directory / "frames"
        self._numbers = 0
        arguments = [str(theirs.fileno()), str(os.getpid()), json.dumps({})]
        self.process = subprocess.Popen([sys.executable, "-m", RANK_MODULE, *arguments], pass_fds=(theirs.fileno(),))
        theirs.close()
        self.ready = self.checked = Message("")
        self.control = Channel(ours)
        self.control.send("load", **asdict(load))

    def begin(self, *, bit_depth: int = 8, path: str = "", **changes: Any) -> Channel | None:
        """Give it a span; its frames."""
        self._numbers += 1
        self._path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(self._path))
            listener.listen(1)
            order = RestoreOrder(
                number=self._numbers, path=path or str(self._path), width=48, height=32, seed=7, first_frame=3, cuts=(),
                colour="wavelet", window_latents=8, overlap_latents=0, bit_depth=bit_depth, **changes,
            )  # fmt: skip
            self.control.send("restore", **asdict(order))
            return None if path else Channel(listener.accept()[0])

    def cancel(self, number: int | None = None) -> None:
        self.control.send("cancel", number=self._numbers if number is None else number)

    def first(self) -> Message:
        """What it says of its model, after what it said of its device."""
        self.checked = self.control.receive()
        return self.control.receive()

    def until(self, *kinds: str) -> Message:
        """What it says next of these kinds."""
        while (message := self.control.receive()).kind not in kinds:
            assert message.kind == "progress", message
        assert message.fields["number"] == self._numbers
        return message

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.control.close()


@pytest.fixture(scope="module")
def rank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RankProcess]:
    found = RankProcess(tmp_path_factory.mktemp("rank"))
    found.ready = found.first()
    yield found
    found.end()


def pictures(count: int, dtype: type[np.unsignedinteger] = np.uint8) -> Frames:
    ramp = np.linspace(0, np.iinfo(dtype).max, 24, dtype=dtype)
    return np.broadcast_to(np.stack([ramp] * 3, axis=-1), (count, 16, 24, 3)).copy()


def take_all(frames: Channel) -> Frames:
    found = []
    while (message := frames.receive()).kind == "frames":
        found.append(frames_of(message))
    frames.close()
    return np.concatenate(found)


@pytest.mark.parametrize(("bit_depth", "dtype"), [(8, np.uint8), (16, np.uint16)])
def test_frames_go_in_and_come_out_restored(rank: RankProcess, bit_depth: int, dtype: type[np.unsignedinteger]):
    frames = rank.begin(bit_depth=bit_depth)
    assert frames is not None
    send_frames(frames, pictures(7, dtype))
    send_frames(frames, pictures(4, dtype))
    frames.send("end")
    restored = take_all(frames)
    assert (restored.shape, restored.dtype) == ((11, 32, 48, 3), dtype)
    assert restored[0].std() > np.iinfo(dtype).max / 8
    assert rank.until("done").fields["peak_memory_bytes"] > 50 << 20


def restored(rank: RankProcess, **changes: Any) -> Frames:
    frames = rank.begin(**changes)
    assert frames is not None
    send_frames(frames, pictures(11))
    frames.send("end")
    found = take_all(frames)
    assert rank.until("done").fields["available_bytes"] > 1 << 20
    return found


def test_what_waits_in_host_memory_changes_no_byte(rank: RankProcess):
    expected = restored(rank)
    assert np.array_equal(restored(rank, offload=True, park=True), expected)
    assert np.array_equal(restored(rank), expected)


def test_smaller_slices_change_rounding_only(rank: RankProcess):
    difference = np.abs(restored(rank, slice_latents=1).astype(int) - restored(rank, slice_latents=2))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.002


def test_the_device_is_verified_before_the_model_is_loaded(rank: RankProcess):
    assert rank.checked.kind == "checked"
    checked = rank_checked(rank.checked.fields)
    assert {check.name for check in checked.checks} == {"product", "conv3d", "memory"}
    assert all(check.passed for check in checked.checks)


def test_stages_are_told_with_their_frames(rank: RankProcess):
    frames = rank.begin()
    assert frames is not None
    send_frames(frames, pictures(5))
    frames.send("end")
    take_all(frames)
    told: dict[str, int] = {}
    while (message := rank.control.receive()).kind == "progress":
        told[message.fields["stage"]] = told.get(message.fields["stage"], 0) + message.fields["frames"]
    assert message.kind == "done"
    assert told == dict.fromkeys(("prepare", "vae_encode", "dit", "vae_decode", "colour"), 5)


def test_a_cancelled_span_stops_between_slices_and_the_next_one_works(rank: RankProcess):
    frames = rank.begin()
    assert frames is not None
    send_frames(frames, pictures(8))
    rank.cancel()
    rank.until("cancelled")
    with pytest.raises(ChannelClosed):
        take_all(frames)
    frames.close()
    test_frames_go_in_and_come_out_restored(rank, 8, np.uint8)


def test_a_cancel_that_comes_too_late_hits_nothing(rank: RankProcess):
    rank.cancel()
    frames = rank.begin()
    assert frames is not None
    rank.cancel(number=1)
    send_frames(frames, pictures(5))
    frames.send("end")
    assert len(take_all(frames)) == 5
    rank.until("done")


def test_frames_that_end_without_a_word_are_lost(rank: RankProcess):
    frames = rank.begin()
    assert frames is not None
    send_frames(frames, pictures(2))
    frames.close()
    rank.until("lost")


def test_a_socket_that_is_not_there_is_lost_too(rank: RankProcess, tmp_path: Path):
    rank.begin(path=str(tmp_path / "nothing"))
    rank.until("lost")


def test_frames_of_another_kind_are_an_error_of_the_span(rank: RankProcess):
    frames = rank.begin()
    assert frames is not None
    send_frames(frames, pictures(2, np.uint16))
    failed = rank.until("failed")
    assert failed.fields["reason"] == "InvalidVideo"
    frames.close()


def test_a_rank_ends_with_its_server(tmp_path: Path):
    found = RankProcess(tmp_path)
    assert found.first().kind == "ready"
    found.control.close()
    assert found.process.wait(20) == 0
    found.end()


def test_a_model_that_cannot_be_read_is_said_in_words(tmp_path: Path):
    found = RankProcess(tmp_path, LoadOrder(**asdict(LOAD) | {"directory": str(tmp_path)}))
    message = found.first()
    assert (message.kind, message.fields["reason"]) == ("error", "ModelBroken")
    assert "has no dit.*" in message.fields["message"]
    found.end()


def test_a_file_that_changed_since_it_was_delivered_is_refused(tmp_path: Path):
    load = LoadOrder(**asdict(LOAD) | {"sha256": {"dit.safetensors": "0" * 64}})
    found = RankProcess(tmp_path, load)
    message = found.first()
    assert (message.kind, message.fields["reason"]) == ("error", "ModelBroken")
    assert "dit.safetensors in" in message.fields["message"]
    assert "changed since the model was fetched" in message.fields["message"]
    found.end()


def test_what_it_says_when_it_is_ready(rank: RankProcess):
    ready = RankReady(**rank.ready.fields)
    assert (ready.dtype, ready.weight_format, ready.gpu_memory_bytes) == ("float32", "safetensors-f16", 0)
    assert ready.parameters > 6_000_000
    assert ready.memory_bytes > 1 << 30
    assert {"device", "torch", "torch_threads", "dtype"} < set(ready.facts)
    assert set(ready.sha256) == {"dit.safetensors", "vae.safetensors", "pos_emb.safetensors"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_auto_means_the_cpu_and_cuda_is_refused():
    assert choose_device("auto", 0) == torch.device("cpu")
    assert choose_device("cpu", 3) == torch.device("cpu")
    with pytest.raises(SettingsError, match="There is no GPU 0 that PyTorch can use"):
        choose_device("cuda", 0)


def test_auto_means_single_precision_on_a_cpu_and_bfloat16_on_a_gpu():
    assert choose_dtype("auto", torch.device("cpu")) is torch.float32
    assert choose_dtype("auto", torch.device("cuda", 0)) is torch.bfloat16
    assert choose_dtype("float16", torch.device("cpu")) is torch.float16
