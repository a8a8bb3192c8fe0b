"""Leader and peers over real sockets, in threads."""

import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from services.common.channel import Channel, channel_pair
from services.common.errors import InternalError, InvalidVideo, JobCancelled, WorkerBroken
from services.inference.frames import Frames, frames_of, send_frames
from services.inference.lockstep import Desk, FramesLost, Interlude, Part, Peer, leading
from services.inference.messages import RestoreOrder

ORDER = RestoreOrder(
    number=7, path="", width=2, height=2, seed=0, first_frame=0, cuts=(), colour="none", window_latents=0, overlap_latents=0,
    bit_depth=8,
)  # fmt: skip


def never(preview: RestoreOrder) -> None:
    pytest.fail("there is no preview")


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

    def __post_init__(self) -> None:
        self.desk = Desk(self.control)

    def lead(self, work: Callable[[Part], object], interlude: Interlude = never) -> "Future[object]":
        order = replace(ORDER, path=str(self.path))

        def run() -> object:
            with leading(self.desk, self.links, order, interlude) as part:
                return work(part)

        return self.threads.submit(run)

    def follow(
        self, work: Callable[[Part], object], interlude: Callable[[Channel, RestoreOrder], None] | None = None
    ) -> "list[Future[object]]":
        def run(link: Channel) -> object:
            assert link.receive().fields["number"] == 7
            return work(Peer(link, 7, partial(interlude, link) if interlude else never))

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


def _with_pauses(part: Part) -> list[int]:
    seen = []
    for frames in part.frames():
        part.pause()
        seen.append(int(frames.max()))
        part.give(frames + 1)
        part.checkpoint()
    part.end()
    return seen


def _second_video(company: Company, tmp_path: Path) -> tuple[socket.socket, RestoreOrder]:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "preview"))
    listener.listen(1)
    return listener, replace(ORDER, number=8, path=str(tmp_path / "preview"), preview=True)


@pytest.mark.parametrize("when", ["before a slice", "while no frames come"])
def test_a_preview_goes_first_on_all_ranks_where_a_span_can_pause(company: Company, tmp_path: Path, when: str):
    listener, preview = _second_video(company, tmp_path)
    order: list[str] = []

    def lead_preview(order_of_preview: RestoreOrder) -> None:
        with leading(company.desk, company.links, order_of_preview, never) as part:
            order.extend(["leader"] * len(_with_pauses(part)))

    def follow_preview(link: Channel, order_of_preview: RestoreOrder) -> None:
        order.extend(["peer"] * len(_with_pauses(Peer(link, order_of_preview.number, never))))

    span = company.lead(_with_pauses, lead_preview)
    peers = company.follow(_with_pauses, follow_preview)
    video = company.video()
    send_frames(video, pictures(1, 3))
    assert frames_of(video.receive()).max() == 4
    company.server.send("restore", **asdict(preview))
    if when == "before a slice":
        send_frames(video, pictures(1, 5))
    with listener:
        short = Channel(listener.accept()[0])
    send_frames(short, pictures(1, 7))
    assert frames_of(short.receive()).max() == 8
    short.send("end")
    assert short.receive().kind == "end"
    if when != "before a slice":
        send_frames(video, pictures(1, 5))
    assert frames_of(video.receive()).max() == 6
    video.send("end")
    assert [each.result(5) for each in (span, *peers)] == [[3, 5]] * 3
    assert sorted(order) == ["leader", "peer", "peer"]
    short.close()


def test_a_preview_that_ends_early_stops_itself_on_all_ranks_and_the_span_goes_on(company: Company, tmp_path: Path):
    listener, preview = _second_video(company, tmp_path)
    ends: list[str] = []

    def lead_preview(order_of_preview: RestoreOrder) -> None:
        try:
            with leading(company.desk, company.links, order_of_preview, never) as part:
                _with_pauses(part)
        except FramesLost:
            ends.append("lost")

    def follow_preview(link: Channel, order_of_preview: RestoreOrder) -> None:
        with pytest.raises(JobCancelled):
            _with_pauses(Peer(link, order_of_preview.number, never))
        ends.append("stopped")

    work = [company.lead(_with_pauses, lead_preview), *company.follow(_with_pauses, follow_preview)]
    video = company.video()
    company.server.send("restore", **asdict(preview))
    with listener:
        listener.accept()[0].close()
    send_frames(video, pictures(1, 3))
    assert frames_of(video.receive()).max() == 4
    video.send("end")
    assert [each.result(5) for each in work] == [[3]] * 3
    assert sorted(ends) == ["lost", "stopped", "stopped"]


def test_the_desk_keeps_orders_in_turn_and_forgets_words_that_came_too_late(company: Company):
    company.server.send("cancel", number=3)
    for number, preview in ((7, False), (8, True), (9, False)):
        company.server.send("restore", **asdict(replace(ORDER, number=number, preview=preview)))
    company.server.send("cancel", number=9)
    desk = company.desk
    assert desk.next_order().number == 7
    desk.look()
    assert not desk.is_cancelled(3)
    assert (desk.next_preview() or ORDER).number == 8
    assert desk.next_preview() is None
    assert desk.next_order().number == 9
    assert desk.is_cancelled(9)
