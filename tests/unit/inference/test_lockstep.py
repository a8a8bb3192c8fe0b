"""Leader and peers over real sockets, in threads."""

import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from services.common.channel import Channel, channel_pair
from services.common.errors import InternalError, InvalidVideo, JobCancelled, WorkerBroken
from services.inference.frames import Frames, frames_of, send_frames
from services.inference.lockstep import FramesLost, Part, Peer, leading
from services.inference.messages import RestoreOrder

ORDER = RestoreOrder(
    number=7, path="", width=2, height=2, seed=0, first_frame=0, cuts=(), colour="none", window_latents=0, overlap_latents=0,
    bit_depth=8,
)  # fmt: skip


@dataclass
class Company:
    """A leader with its peers, and those whom it hears."""

    path: Path
    server: Channel
    control: Channel
    links: list[Channel]
    peers: list[Channel]
    listener: socket.socket
    threads: ThreadPoolExecutor
    videos: list[Channel] = field(default_factory=list)

    def lead(self, work: Callable[[Part], object]) -> "Future[object]":
        order = replace(ORDER, path=str(self.path))

        def run() -> object:
            with leading(self.control, self.links, order) as part:
                return work(part)

        return self.threads.submit(run)

    def follow(self, work: Callable[[Part], object]) -> "list[Future[object]]":
        def run(link: Channel) -> object:
            assert link.receive().fields["number"] == 7
            return work(Peer(link))

        return [self.threads.submit(run, link) for link in self.peers]

    def video(self) -> Channel:
        self.videos.append(Channel(self.listener.accept()[0]))
        return self.videos[-1]


@pytest.fixture
def company(tmp_path: Path) -> Iterator[Company]:
    server, control = channel_pair()
    pairs = [channel_pair() for _ in range(2)]
    with socket.socket(socket.AF_UNIX) as listener, ThreadPoolExecutor() as threads:
        listener.bind(str(tmp_path / "frames"))
        listener.listen(1)
        found = Company(
            tmp_path / "frames", Channel(server), Channel(control), [Channel(a) for a, _ in pairs],
            [Channel(b) for _, b in pairs], listener, threads,
        )  # fmt: skip
        yield found
        for channel in (found.server, found.control, *found.links, *found.peers, *found.videos):
            channel.close()


def pictures(count: int, value: int = 0) -> Frames:
    return np.full((count, 2, 2, 3), value, np.uint8)


def give_back(part: Part) -> list[int]:
    """Each batch as it came, one above it; the values that came."""
    seen = []
    for frames in part.frames():
        part.checkpoint()
        seen.append(int(frames.max()))
        part.give(frames + 1)
    part.end()
    return seen


def test_all_ranks_get_the_frames_and_the_leader_gives_back_its_own(company: Company):
    work = [company.lead(give_back), *company.follow(give_back)]
    video = company.video()
    for value in (3, 4):
        send_frames(video, pictures(2, value))
        assert frames_of(video.receive()).tolist() == pictures(2, value + 1).tolist()
    video.send("end")
    assert video.receive().kind == "end"
    assert [each.result(5) for each in work] == [[3, 4]] * 3


def test_all_ranks_stop_at_the_same_point(company: Company):
    points: dict[int, int] = {}

    def count(part: Part) -> None:
        points[id(part)] = 0
        for _ in part.frames():
            while True:
                part.checkpoint()
                points[id(part)] += 1

    work = [company.lead(count), *company.follow(count)]
    video = company.video()
    send_frames(video, pictures(1))
    while not points or min(points.values()) < 10:
        time.sleep(0.001)
    company.server.send("cancel", number=7)
    for each in work:
        with pytest.raises(JobCancelled):
            each.result(5)
    assert len(set(points.values())) == 1


def test_a_cancel_of_another_span_is_not_heeded(company: Company):
    company.server.send("cancel", number=6)
    work = [company.lead(give_back), *company.follow(give_back)]
    video = company.video()
    send_frames(video, pictures(1))
    video.receive()
    video.send("end")
    assert [each.result(5) for each in work] == [[0]] * 3


def test_frames_that_break_off_stop_all_ranks(company: Company):
    leader, *peers = [company.lead(give_back), *company.follow(give_back)]
    company.video().close()
    with pytest.raises(FramesLost):
        leader.result(5)
    for peer in peers:
        with pytest.raises(JobCancelled):
            peer.result(5)


def test_an_error_of_the_leader_stops_its_peers(company: Company):
    def refuse(part: Part) -> None:
        for _ in part.frames():
            raise InvalidVideo("no picture")

    leader, *peers = [company.lead(refuse), *company.follow(give_back)]
    send_frames(company.video(), pictures(1))
    with pytest.raises(InvalidVideo):
        leader.result(5)
    for peer in peers:
        with pytest.raises(JobCancelled):
            peer.result(5)


def test_nobody_is_troubled_where_no_frames_can_be_had(company: Company):
    company.path.unlink()
    with pytest.raises(FramesLost):
        company.lead(give_back).result(5)
    assert not company.peers[0].waiting()


def test_a_leader_without_a_peer_says_so(company: Company):
    company.peers[1].close()
    leader = company.lead(give_back)
    with pytest.raises(WorkerBroken, match="a rank of it is gone"):
        leader.result(5)


def test_a_peer_without_a_leader_says_so(company: Company):
    company.links[0].send("restore", number=7)
    company.links[1].send("restore", number=7)
    peers = company.follow(give_back)
    for link in company.links:
        link.close()
    for peer in peers:
        with pytest.raises(WorkerBroken, match="a rank of it is gone"):
            peer.result(5)


def test_a_peer_that_is_out_of_step_says_so(company: Company):
    for link in company.links:
        link.send("restore", number=7)
        link.send("on")
    for peer in company.follow(give_back):
        with pytest.raises(InternalError, match="out of step: it heard on in place of frames or end"):
            peer.result(5)


def test_large_frames_come_back_in_several_messages(company: Company, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("services.inference.lockstep.MAX_BATCH_BYTES", 2 * 12)
    company.lead(lambda part: part.give(pictures(5)))
    video = company.video()
    assert [len(frames_of(video.receive())) for _ in range(3)] == [2, 2, 1]
