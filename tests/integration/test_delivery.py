"""Model delivery against a hub that misbehaves, over real HTTP, with real processes and files."""

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub
import pytest

from services.common.errors import ModelBroken, SettingsError, StoreFull, Unavailable
from services.inference.delivery.catalogue import CATALOGUE, Catalogue, ModelSet, SourceFile
from services.inference.delivery.fetch import Delivery
from services.inference.delivery.progress import Progress
from services.inference.delivery.settings import DeliverySettings, Token
from tests.integration.delivery_command import write_catalogue
from tests.integration.fake_hub import (
    COMMIT,
    HUB_VARIABLE,
    Answer,
    Claim,
    Cut,
    Drip,
    FakeHub,
    Hold,
    OtherBytes,
    WholeFile,
)

pytestmark = pytest.mark.integration

REPOSITORY = "someone/tiny"
CONTENT = {
    name: random.Random(name).randbytes(size) for name, size in (("text.pt", 900), ("vae.st", 90_000), ("dit.st", 400_000))
}
"""Small files that take the same way as large ones."""
DIT = CONTENT["dit.st"]


@pytest.fixture(autouse=True)
def _fresh_connections(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    yield
    huggingface_hub.close_session()


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as hub:
        for file, content in CONTENT.items():
            hub.add(REPOSITORY, file, content)
        yield hub


def source(role: str, file: str, **changes: object) -> SourceFile:
    sha256 = hashlib.sha256(CONTENT.get(file, b"")).hexdigest()
    given = {"role": role, "repository": REPOSITORY, "file": file, "sha256": sha256} | changes
    return SourceFile(**given)  # type: ignore[arg-type]


TINY = ModelSet(
    name="tiny",
    title="Tiny",
    files=(source("pos_emb", "text.pt"), source("vae", "vae.st"), source("dit", "dit.st")),
    official=(source("pos_emb", "text.pt"), source("vae", "vae.pth", sha256=""), source("dit", "dit.pth", sha256="")),
)


@dataclasses.dataclass
class Volume:
    """A model volume of a test, and what to fetch to it."""

    directory: Path
    endpoint: str
    catalogue: Catalogue

    def delivery(self, *, token: str = "", convert_files=None, on_progress=lambda progress: None, **settings) -> Delivery:
        quick = {"pause_s": 0.01, "longest_pause_s": 0.02, "stall_s": 0.4, "timeout_s": 5.0, "tries": 4, "min_free_bytes": 0}
        return Delivery(
            DeliverySettings(directory=str(self.directory), endpoint=self.endpoint, **(quick | settings)),
            token=Token(secret=token, origin="a file") if token else None,
            catalogue=self.catalogue,
            convert=convert_files,
            on_progress=on_progress,
        )

    def with_model(self, model: ModelSet) -> "Volume":
        return dataclasses.replace(self, catalogue={"tiny": model})

    def state(self) -> str:
        return self.delivery().states()[0].state

    @property
    def part(self) -> Path:
        """Of the transformer."""
        return next((self.directory / ".incomplete" / "tiny").glob("dit-*.part"))

    def contents(self) -> dict[str, bytes]:
        paths = sorted((self.directory / "tiny").iterdir())
        return {path.name: path.read_bytes() for path in paths if path.name != "complete.json"}


@pytest.fixture
def volume(tmp_path: Path, hub: FakeHub) -> Volume:
    return Volume(directory=tmp_path / "models", endpoint=hub.endpoint, catalogue={"tiny": TINY})


WHOLE = {"dit.st": DIT, "pos_emb.pt": CONTENT["text.pt"], "vae.st": CONTENT["vae.st"]}


# What works with any hub; with HUB_VARIABLE set, a real one.


@pytest.fixture
def any_hub(tmp_path: Path) -> Iterator[Volume]:
    endpoint = os.environ.get(HUB_VARIABLE)
    if endpoint:
        text = next(each for each in CATALOGUE["seedvr2-3b"].files if each.role == "pos_emb")
        model = ModelSet(name="tiny", title="A small real file", files=(dataclasses.replace(text, role="dit"),))
        yield Volume(directory=tmp_path / "models", endpoint=endpoint, catalogue={"tiny": model})
        return
    with FakeHub() as hub:
        hub.add(REPOSITORY, "dit.st", DIT)
        model = ModelSet(name="tiny", title="Tiny", files=(source("dit", "dit.st"),))
        yield Volume(directory=tmp_path / "models", endpoint=hub.endpoint, catalogue={"tiny": model})


def test_a_fetched_model_is_ready_and_verified(any_hub: Volume):
    assert any_hub.state() == "absent"
    any_hub.delivery().fetch("tiny")
    any_hub.delivery().verify("tiny")
    assert any_hub.state() == "ready"


def test_a_half_file_of_an_earlier_process_is_continued(any_hub: Volume):
    any_hub.delivery().fetch("tiny")
    (whole,) = any_hub.contents().values()
    shutil.rmtree(any_hub.directory)
    staging = any_hub.directory / ".incomplete" / "tiny"
    staging.mkdir(parents=True)
    sha256 = any_hub.catalogue["tiny"].files[0].sha256
    (staging / f"dit-{sha256[:16]}.part").write_bytes(whole[: len(whole) // 2])
    first_bytes: list[int] = []
    any_hub.delivery(on_progress=lambda progress: first_bytes.append(progress.done_bytes)).fetch("tiny")
    assert first_bytes[0] > len(whole) // 2
    any_hub.delivery().verify("tiny")


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"repository": "seedvr2-tests/there-is-no-such-repository"}, "", "there-is-no-such-repository"),
        ({"file": "no-such-file.bin"}, "endpoint", "has no file no-such-file.bin"),
        ({"revision": "no-such-revision"}, "revision", "has no revision 'no-such-revision'"),
    ],
    ids=["repository", "file", "revision"],
)
def test_what_the_hub_does_not_have_is_named(any_hub: Volume, changes: dict[str, str], field: str, words: str):
    model = any_hub.catalogue["tiny"]
    wrong = dataclasses.replace(model, files=(dataclasses.replace(model.files[0], **changes),))
    with pytest.raises(SettingsError, match=words) as error:
        any_hub.with_model(wrong).delivery().fetch("tiny")
    assert not field or error.value.field == field


# A whole download.


def test_a_model_appears_whole_and_takes_its_own_size_only(hub: FakeHub, volume: Volume):
    volume.delivery().fetch("tiny")
    assert volume.contents() == WHOLE
    on_disk = sum(path.stat().st_size for path in volume.directory.rglob("*") if path.is_file())
    assert on_disk < sum(map(len, CONTENT.values())) + 4096
    assert not list((volume.directory / ".incomplete").iterdir())


def test_a_ready_model_is_not_asked_for_again(hub: FakeHub, volume: Volume):
    volume.delivery().fetch("tiny")
    asked = len(hub.requests)
    volume.delivery().fetch("tiny")
    assert len(hub.requests) == asked


def test_the_bytes_come_from_the_commit_that_was_described(hub: FakeHub, volume: Volume):
    volume.delivery().fetch("tiny")
    paths = {asked.path for asked in hub.requests if asked.method == "GET"}
    assert paths == {f"/{REPOSITORY}/resolve/{COMMIT}/{file}" for file in CONTENT}
    marker = json.loads((volume.directory / "tiny" / "complete.json").read_text())
    assert {each["commit"] for each in marker["files"]} == {COMMIT}


def test_a_revision_of_the_settings_is_asked_for(hub: FakeHub, volume: Volume):
    volume.delivery(revision=COMMIT).fetch("tiny")
    assert all(f"/resolve/{COMMIT}/" in asked.path for asked in hub.requests)


def test_a_mirror_that_serves_the_bytes_itself_and_names_no_commit_will_do(hub: FakeHub, volume: Volume):
    hub.redirects = False
    for file in CONTENT:
        hub.always("HEAD", file, Claim((("X-Repo-Commit", ""), ("X-Linked-ETag", ""), ("X-Linked-Size", ""))))
    hub.next("GET", "dit.st", Cut(100_000))
    volume.delivery().fetch("tiny")
    assert volume.contents() == WHOLE


def test_the_official_files_are_checked_with_the_hash_that_the_hub_states(hub: FakeHub, volume: Volume):
    hub.add(REPOSITORY, "vae.pth", b"official vae")
    hub.add(REPOSITORY, "dit.pth", b"official dit")
    hub.next("GET", "dit.pth", OtherBytes())
    with pytest.raises(ModelBroken, match=hashlib.sha256(b"official dit").hexdigest()):
        volume.delivery(official=True).fetch("tiny")
    volume.delivery(official=True).fetch("tiny")
    assert volume.contents() == {"dit.pth": b"official dit", "pos_emb.pt": CONTENT["text.pt"], "vae.pth": b"official vae"}


def test_another_set_of_the_same_model_replaces_the_first(hub: FakeHub, volume: Volume):
    volume.delivery().fetch("tiny")
    hub.add(REPOSITORY, "vae.pth", b"official vae")
    hub.add(REPOSITORY, "dit.pth", b"official dit")
    volume.delivery(official=True).fetch("tiny")
    assert set(volume.contents()) == {"dit.pth", "pos_emb.pt", "vae.pth"}
    assert len(hub.transfers_of("text.pt")) == 1
    volume.delivery().verify("tiny")
    assert not list((volume.directory / ".incomplete").iterdir())


def test_files_that_someone_else_put_there_are_left_alone(hub: FakeHub, volume: Volume):
    own = volume.directory / "tiny" / "dit.safetensors"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"precious")
    with pytest.raises(SettingsError, match="move them away"):
        volume.delivery().fetch("tiny")
    assert own.read_bytes() == b"precious"
    assert volume.state() == "foreign"


# The connection.


def test_a_cut_connection_is_resumed_where_it_was_cut(hub: FakeHub, volume: Volume):
    hub.next("GET", "dit.st", Cut(100_000), Cut(100_000), Cut(100_000))
    volume.delivery(tries=2).fetch("tiny")
    assert [asked.first_byte for asked in hub.transfers_of("dit.st")] == [0, 100_000, 200_000, 300_000]
    assert hub.sent_bytes == sum(map(len, CONTENT.values()))
    assert volume.contents() == WHOLE


def test_a_connection_that_brings_next_to_nothing_each_time_is_given_up_and_its_bytes_are_kept(hub: FakeHub, volume: Volume):
    hub.always("GET", "dit.st", Cut(1000))
    with pytest.raises(Unavailable, match="after 4 tries in a row"):
        volume.delivery().fetch("tiny")
    assert volume.part.stat().st_size == 4000
    assert volume.state() == "incomplete"
    hub.behave()
    volume.delivery().fetch("tiny")
    assert hub.transfers_of("dit.st")[-1].first_byte == 4000
    assert volume.contents() == WHOLE


def test_a_slow_drip_is_cut_and_resumed(hub: FakeHub, volume: Volume):
    hub.next("GET", "dit.st", Drip(piece_bytes=10, pause_s=0.02))
    volume.delivery(slowest_bytes_s=50_000).fetch("tiny")
    assert len(hub.transfers_of("dit.st")) == 2
    assert hub.transfers_of("dit.st")[1].first_byte > 0
    assert volume.contents() == WHOLE


def test_a_drip_that_never_ends_is_given_up_in_words(hub: FakeHub, volume: Volume):
    hub.always("GET", "dit.st", Drip(piece_bytes=10, pause_s=0.02))
    with pytest.raises(Unavailable, match="all but stands still"):
        volume.delivery(slowest_bytes_s=50_000, stall_s=0.1, tries=2).fetch("tiny")


def test_a_slow_line_that_goes_on_is_not_cut(hub: FakeHub, volume: Volume):
    hub.next("GET", "dit.st", Drip(piece_bytes=20_000, pause_s=0.03))
    volume.delivery(slowest_bytes_s=1024).fetch("tiny")
    assert len(hub.transfers_of("dit.st")) == 1


def test_a_server_that_falls_silent_is_asked_again(hub: FakeHub, volume: Volume):
    silence = Hold(100_000)
    hub.next("GET", "dit.st", silence)
    volume.delivery().fetch("tiny")
    silence.release.set()
    assert [asked.first_byte for asked in hub.transfers_of("dit.st")] == [0, 100_000]
    assert volume.contents() == WHOLE


def test_a_hub_that_is_not_there_is_named(volume: Volume):
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1 can't be reached"):
        dataclasses.replace(volume, endpoint=f"http://127.0.0.1:{port}").delivery().fetch("tiny")


def test_a_server_that_ignores_ranges_gives_the_whole_file_again(hub: FakeHub, volume: Volume):
    hub.next("GET", "dit.st", Cut(100_000), WholeFile())
    volume.delivery().fetch("tiny")
    assert volume.contents() == WHOLE


def test_a_part_that_is_longer_than_the_file_is_begun_anew(hub: FakeHub, volume: Volume):
    hub.next("GET", "dit.st", Cut(100_000), *[Answer(500)] * 9)
    with pytest.raises(Unavailable):
        volume.delivery().fetch("tiny")
    with volume.part.open("ab") as part:
        part.write(bytes(len(DIT)))
    hub.behave()
    volume.delivery().fetch("tiny")
    assert volume.contents() == WHOLE


# Other content.


def test_a_file_of_another_hash_is_refused_before_it_is_downloaded(hub: FakeHub, volume: Volume):
    hub.add(REPOSITORY, "dit.st", b"something else")
    with pytest.raises(ModelBroken, match=hashlib.sha256(b"something else").hexdigest()):
        volume.delivery().fetch("tiny")
    assert not hub.transfers


def test_other_bytes_than_promised_are_thrown_away(hub: FakeHub, volume: Volume):
    hub.next("GET", "dit.st", OtherBytes())
    with pytest.raises(ModelBroken, match=r"dit\.st .* is not the file that it should be"):
        volume.delivery().fetch("tiny")
    assert not list((volume.directory / ".incomplete" / "tiny").glob("dit*"))
    assert volume.state() == "incomplete"
    volume.delivery().fetch("tiny")
    assert volume.contents() == WHOLE


def test_a_part_that_was_damaged_on_the_disk_is_downloaded_anew(hub: FakeHub, volume: Volume):
    hub.next("GET", "dit.st", Cut(100_000), *[Answer(500)] * 9)
    with pytest.raises(Unavailable):
        volume.delivery().fetch("tiny")
    volume.part.write_bytes(bytes(100_000))
    hub.behave()
    volume.delivery().fetch("tiny")
    assert [asked.first_byte for asked in hub.transfers_of("dit.st")[-2:]] == [100_000, 0]
    assert volume.contents() == WHOLE


def test_a_part_of_another_version_is_not_continued(hub: FakeHub, volume: Volume):
    hub.add(REPOSITORY, "vae.pth", b"vae")
    hub.add(REPOSITORY, "dit.pth", DIT)
    hub.next("GET", "dit.pth", Cut(100_000), *[Answer(500)] * 9)
    with pytest.raises(Unavailable):
        volume.delivery(official=True).fetch("tiny")
    hub.behave()
    hub.add(REPOSITORY, "dit.pth", DIT[::-1])
    volume.delivery(official=True).fetch("tiny")
    assert hub.transfers_of("dit.pth")[-1].first_byte == 0
    assert volume.contents()["dit.pth"] == DIT[::-1]


# Refusals.


@pytest.mark.parametrize(
    ("token", "answer", "words"),
    [
        (
            "",
            Answer(401, "RepoNotFound"),
            "only with a token, or there is no such repository.*SEEDVR2_MODELS_TOKEN_FILE.*HF_TOKEN",
        ),
        ("hf_wrong", Answer(401), "refuses the token from a file"),
        (
            "hf_right",
            Answer(403, "GatedRepo"),
            r"someone/tiny is gated: accept its terms at http://127\.0\.0\.1:\d+/someone/tiny",
        ),
        ("hf_right", Answer(403), "doesn't let the token from a file read someone/tiny"),
        ("", Answer(403), "doesn't let anybody without a token"),
        ("", Answer(404), r"has no dit\.st of someone/tiny, or hides it"),
        ("", Answer(418), "answered HTTP 418"),
    ],
    ids=["401", "401-token", "403-gated", "403-token", "403", "404", "418"],
)
def test_a_refusal_is_told_at_once_and_before_anything_is_moved(
    hub: FakeHub, volume: Volume, token: str, answer: Answer, words: str
):
    hub.always("HEAD", "dit.st", answer)
    with pytest.raises(SettingsError, match=words) as error:
        volume.delivery(token=token).fetch("tiny")
    assert token == "" or token not in error.value.message
    assert len([asked for asked in hub.requests if asked.path.endswith("dit.st")]) == 1
    assert not hub.transfers


def test_a_missing_text_embedding_says_where_another_place_is_named(hub: FakeHub, volume: Volume):
    hub.always("HEAD", "text.pt", Answer(404, "EntryNotFound"))
    with pytest.raises(SettingsError, match="SEEDVR2_MODELS_TEXT_EMBEDDING") as error:
        volume.delivery().fetch("tiny")
    assert error.value.field == "text_embedding"


def test_the_token_goes_to_the_hub_and_nowhere_else(hub: FakeHub, volume: Volume, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    hub.token = "hf_very_secret"
    hub.next("GET", "dit.st", Cut(100_000))
    volume.delivery(token="hf_very_secret").fetch("tiny")
    assert {asked.authorization for asked in hub.requests} == {"Bearer hf_very_secret"}
    assert {asked.authorization for asked in hub.transfers} == {""}
    assert "hf_very_secret" not in caplog.text
    assert not any(b"hf_very_secret" in path.read_bytes() for path in volume.directory.rglob("*") if path.is_file())


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
def test_a_passing_failure_is_tried_again(hub: FakeHub, volume: Volume, status: int):
    hub.next("HEAD", "dit.st", Answer(status), Answer(status))
    hub.next("GET", "dit.st", Answer(status), Answer(status))
    volume.delivery().fetch("tiny")
    assert volume.contents() == WHOLE


@pytest.mark.parametrize(("status", "words"), [(429, "answered HTTP 429: too many requests"), (500, "answered HTTP 500")])
def test_a_failure_that_does_not_pass_is_told_after_all_tries(hub: FakeHub, volume: Volume, status: int, words: str):
    hub.always("HEAD", "dit.st", Answer(status))
    with pytest.raises(Unavailable, match=words):
        volume.delivery().fetch("tiny")
    assert len([asked for asked in hub.requests if asked.path.endswith("dit.st")]) == 4


@pytest.mark.parametrize(
    "headers",
    [(("Retry-After", "1"),), (("RateLimit", '"resolvers";r=0;t=1'),)],
    ids=["retry-after", "ratelimit"],
)
def test_a_hub_that_asks_for_a_pause_gets_it(hub: FakeHub, volume: Volume, headers: tuple[tuple[str, str], ...]):
    hub.next("HEAD", "dit.st", Answer(429, headers=headers))
    before = time.monotonic()
    volume.delivery().fetch("tiny")
    assert time.monotonic() - before >= 1


def test_a_certificate_that_nobody_vouches_for_is_told_at_once(tmp_path: Path, volume: Volume):
    if not shutil.which("openssl"):
        pytest.skip("makes a certificate with openssl, which is not installed")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    hub = FakeHub()
    hub._hub.socket = context.wrap_socket(hub._hub.socket, server_side=True)
    with hub, pytest.raises(SettingsError, match=r"certificate of 127\.0\.0\.1 can't be verified"):
        dataclasses.replace(volume, endpoint=hub.endpoint.replace("http:", "https:")).delivery().fetch("tiny")


# Space.


def test_a_file_that_cannot_fit_is_refused_before_it_is_downloaded(hub: FakeHub, volume: Volume):
    hub.always("HEAD", "dit.st", Claim((("X-Linked-Size", str(10**17)),)))
    with pytest.raises(StoreFull, match=r"has .* free; the download needs 100000\.0 TB"):
        volume.delivery().fetch("tiny")
    assert not hub.transfers


def test_what_is_there_already_needs_no_space(hub: FakeHub, volume: Volume):
    free = shutil.disk_usage(volume.directory.parent).free
    with pytest.raises(StoreFull):
        volume.delivery(min_free_bytes=free + 10**9).fetch("tiny")
    volume.delivery().fetch("tiny")
    volume.delivery(min_free_bytes=free + 10**9).fetch("tiny")


def test_a_directory_that_cannot_be_written_is_named(volume: Volume):
    volume.directory.write_text("a file")
    with pytest.raises(SettingsError, match="can't be written"):
        volume.delivery().fetch("tiny")


# The text embedding.


def test_the_text_embedding_can_be_a_mounted_file(hub: FakeHub, volume: Volume, tmp_path: Path):
    mounted = tmp_path / "pos_emb.pt"
    mounted.write_bytes(CONTENT["text.pt"])
    volume.delivery(text_embedding=str(mounted)).fetch("tiny")
    assert volume.contents() == WHOLE
    assert not any(asked.path.endswith("text.pt") for asked in hub.requests)


def test_a_mounted_file_of_another_content_is_refused(volume: Volume, tmp_path: Path):
    mounted = tmp_path / "pos_emb.pt"
    mounted.write_bytes(b"the negative one")
    with pytest.raises(ModelBroken, match=r"pos_emb\.pt is not text\.pt"):
        volume.delivery(text_embedding=str(mounted)).fetch("tiny")


def test_the_text_embedding_can_come_from_another_repository(hub: FakeHub, volume: Volume):
    hub.add("other/place", "deep/embedding.pt", CONTENT["text.pt"])
    volume.delivery(text_embedding=f"other/place@{COMMIT}:deep/embedding.pt").fetch("tiny")
    assert volume.contents() == WHOLE
    assert f"/other/place/resolve/{COMMIT}/deep/embedding.pt" in {asked.path for asked in hub.requests}


# Conversion.


def convert(source: Path, destination: Path, on_bytes: Callable[[int, int], None]) -> None:
    destination.write_bytes(b"bf16:" + source.read_bytes())
    on_bytes(1, 2)


CONVERTED = {
    f"{role}.safetensors": b"bf16:" + CONTENT[file]
    for role, file in (("dit", "dit.st"), ("pos_emb", "text.pt"), ("vae", "vae.st"))
}


def test_files_are_converted_once_and_their_sources_go(volume: Volume):
    volume.delivery(convert_files=convert).fetch("tiny")
    assert volume.contents() == CONVERTED
    volume.delivery().verify("tiny")
    written = (volume.directory / "tiny" / "dit.safetensors").stat().st_mtime_ns
    volume.delivery(convert_files=convert).fetch("tiny")
    assert (volume.directory / "tiny" / "dit.safetensors").stat().st_mtime_ns == written


def test_a_source_makes_room_as_soon_as_it_is_converted(volume: Volume):
    there: list[int] = []

    def count_sources(source: Path, destination: Path, on_bytes: Callable[[int, int], None]) -> None:
        there.append(len(list(source.parent.glob("*.part"))))
        convert(source, destination, on_bytes)

    volume.delivery(convert_files=count_sources).fetch("tiny")
    assert there == [1, 1, 1]


def test_files_stay_as_they_were_published_where_the_settings_want_it(volume: Volume):
    volume.delivery(convert_files=convert, convert=False).fetch("tiny")
    assert volume.contents() == WHOLE


def test_a_conversion_tells_how_far_it_is(volume: Volume):
    seen: list[Progress] = []
    volume.delivery(convert_files=convert, on_progress=seen.append).fetch("tiny")
    assert Progress(stage="converting", model="tiny", file="dit.st", done_bytes=1, total_bytes=2) in seen


def test_a_conversion_that_fails_is_made_again_without_a_download(hub: FakeHub, volume: Volume):
    def broken(source: Path, destination: Path, on_bytes: Callable[[int, int], None]) -> None:
        destination.write_bytes(b"half")
        raise ModelBroken("no tensors")

    with pytest.raises(ModelBroken, match="no tensors"):
        volume.delivery(convert_files=broken).fetch("tiny")
    volume.delivery(convert_files=convert).fetch("tiny")
    assert volume.contents() == CONVERTED
    assert hub.sent_bytes == sum(map(len, CONTENT.values()))


# Offline.


def test_offline_a_ready_model_is_ready_and_another_is_missing(hub: FakeHub, volume: Volume):
    with pytest.raises(ModelBroken, match="offline mode forbids"):
        volume.delivery(offline=True).fetch("tiny")
    assert not hub.requests
    volume.delivery().fetch("tiny")
    asked = len(hub.requests)
    volume.delivery(offline=True).fetch("tiny")
    assert len(hub.requests) == asked


# Verification.


def test_a_changed_byte_is_found(volume: Volume):
    volume.delivery().fetch("tiny")
    dit = volume.directory / "tiny" / "dit.st"
    dit.write_bytes(DIT[:-1] + bytes([DIT[-1] ^ 1]))
    with pytest.raises(ModelBroken, match=r"dit\.st was changed or is damaged.* Delete it and fetch tiny again"):
        volume.delivery().verify("tiny")
    dit.unlink()
    volume.delivery().fetch("tiny")
    volume.delivery().verify("tiny")


def test_a_lost_file_is_found_and_it_alone_is_fetched_again(hub: FakeHub, volume: Volume):
    volume.delivery().fetch("tiny")
    (volume.directory / "tiny" / "vae.st").unlink()
    assert volume.state() == "broken"
    with pytest.raises(ModelBroken, match=r"vae\.st can't be read"):
        volume.delivery().verify("tiny")
    volume.delivery().fetch("tiny")
    assert volume.contents() == WHOLE
    assert [len(hub.transfers_of(file)) for file in CONTENT] == [1, 2, 1]
    volume.delivery().verify("tiny")


def test_a_model_without_its_text_embedding_does_not_verify(volume: Volume):
    without = dataclasses.replace(TINY, files=TINY.files[1:])
    volume.with_model(without).delivery().fetch("tiny")
    with pytest.raises(ModelBroken, match=r"text\.pt not there"):
        volume.delivery().verify("tiny")


def test_a_model_that_was_never_fetched_does_not_verify(volume: Volume):
    with pytest.raises(ModelBroken, match="Fetch it first"):
        volume.delivery().verify("tiny")


# Processes: killed, stopped, two at once, on a full disk.


@dataclasses.dataclass
class Command:
    """The models command, as an init container runs it."""

    volume: Volume
    catalogue: Path

    def start(self, *arguments: str, before: tuple[str, ...] = (), **environment: str) -> subprocess.Popen[str]:
        settings = {
            "DIRECTORY": self.volume.directory, "ENDPOINT": self.volume.endpoint, "PAUSE_S": 0.01, "MIN_FREE_BYTES": 0,
            "CONVERT": "false",
        }  # fmt: skip
        return subprocess.Popen(
            [*before, sys.executable, "-m", "tests.integration.delivery_command", str(self.catalogue), *arguments],
            env=os.environ | {f"SEEDVR2_MODELS_{name}": str(value) for name, value in settings.items()} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, **how: object) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments, **how)  # type: ignore[arg-type]
        out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)


@pytest.fixture
def command(volume: Volume, tmp_path: Path) -> Command:
    write_catalogue(tmp_path / "catalogue.json", volume.catalogue)
    return Command(volume, tmp_path / "catalogue.json")


@contextlib.contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    with process:
        try:
            yield process
        finally:
            process.kill()


def until_said(process: subprocess.Popen[str], found: Callable[[dict[str, object]], bool]) -> dict[str, object]:
    """The first log line of a process that is looked for."""
    assert process.stderr
    return next(line for line in map(json.loads, process.stderr) if found(line))


def test_what_a_killed_process_received_is_not_received_again(hub: FakeHub, command: Command):
    half = Hold(150_000)
    hub.next("GET", "dit.st", half)
    with ended(command.start("fetch", "tiny")) as process:
        assert half.reached.wait(30)
        while command.volume.part.stat().st_size < 150_000:
            time.sleep(0.01)
        process.kill()
        assert process.wait(10) == -signal.SIGKILL
    half.release.set()
    assert command.volume.state() == "incomplete"
    assert command.run("fetch", "tiny").returncode == 0
    assert [asked.first_byte for asked in hub.transfers_of("dit.st")] == [0, 150_000]
    assert len(hub.transfers_of("vae.st")) == 1
    assert command.volume.contents() == WHOLE


def test_a_stopped_process_ends_with_the_signal_and_the_next_goes_on(hub: FakeHub, command: Command):
    half = Hold(150_000)
    hub.next("GET", "dit.st", half)
    with ended(command.start("fetch", "tiny")) as process:
        assert half.reached.wait(30)
        process.terminate()
        assert process.wait(10) == 128 + signal.SIGTERM
    half.release.set()
    assert command.run("fetch", "tiny").returncode == 0
    assert command.volume.contents() == WHOLE


def test_of_two_processes_one_downloads_and_the_other_waits_and_says_so(hub: FakeHub, command: Command):
    half = Hold(150_000)
    hub.next("GET", "dit.st", half)
    with ended(command.start("fetch", "tiny")) as first:
        assert half.reached.wait(30)
        assert command.volume.state() == "fetching"
        with ended(command.start("fetch", "tiny")) as second:
            line = until_said(second, lambda line: line.get("stage") == "waiting")
            assert line["model"] == "tiny"
            half.release.set()
            assert first.wait(30) == 0
            assert second.wait(30) == 0
    assert [len(hub.transfers_of(file)) for file in CONTENT] == [1, 1, 1]
    assert command.volume.contents() == WHOLE


def test_a_waiting_process_takes_over_from_one_that_is_killed(hub: FakeHub, command: Command):
    half = Hold(150_000)
    hub.next("GET", "dit.st", half)
    with ended(command.start("fetch", "tiny")) as first:
        assert half.reached.wait(30)
        with ended(command.start("fetch", "tiny")) as second:
            until_said(second, lambda line: line.get("stage") == "waiting")
            first.kill()
            assert second.wait(30) == 0
    half.release.set()
    begun, continued = hub.transfers_of("dit.st")
    assert continued.first_byte > begun.first_byte == 0
    assert command.volume.contents() == WHOLE


def test_a_file_that_grows_over_a_limit_is_told_in_words_and_kept(hub: FakeHub, command: Command):
    full = command.run("fetch", "tiny", TEST_FILE_SIZE_LIMIT="200000")
    assert full.returncode == 1
    assert "No space is left" in full.stderr
    assert command.volume.part.stat().st_size == 200_000
    assert command.run("fetch", "tiny").returncode == 0
    assert hub.transfers_of("dit.st")[-1].first_byte == 200_000
    assert command.volume.contents() == WHOLE


def test_a_disk_that_is_full_is_told_in_words(hub: FakeHub, command: Command):
    own_mounts = ("unshare", "--user", "--map-root-user", "--mount")
    if not shutil.which("unshare") or subprocess.run([*own_mounts, "true"], capture_output=True).returncode:
        pytest.skip("a small file system of its own can't be mounted here")
    command.volume.directory.mkdir()
    # The size that is claimed fits; what comes doesn't.
    hub.always("HEAD", "dit.st", Claim((("X-Linked-Size", "1000"),)))
    mount = f'mount -t tmpfs -o size=256k tmpfs "{command.volume.directory}" && exec "$@"'
    full = command.run("fetch", "tiny", before=(*own_mounts, "sh", "-c", mount, "sh"))
    assert full.returncode == 1
    assert "No space is left" in full.stderr


def test_a_process_asks_for_the_files_and_for_nothing_else(hub: FakeHub, command: Command, tmp_path: Path):
    home = tmp_path / "home"
    home.mkdir()
    done = command.run("fetch", "tiny", HF_ENDPOINT=hub.endpoint, SEEDVR2_MODELS_ENDPOINT="", HOME=str(home))
    assert done.returncode == 0
    assert all("/resolve/" in asked.path for asked in hub.requests)
    assert not list(home.iterdir())


def test_a_token_file_is_used_and_never_shown(hub: FakeHub, command: Command, tmp_path: Path):
    hub.token = "hf_very_secret"
    (tmp_path / "token").write_text("hf_very_secret\n")
    refused = command.run("fetch", "tiny", HF_TOKEN="hf_quite_wrong")
    assert refused.returncode == 2
    assert "refuses the token from HF_TOKEN" in refused.stderr
    done = command.run("fetch", "tiny", "--token-file", str(tmp_path / "token"), HF_TOKEN="hf_quite_wrong")
    assert done.returncode == 0
    shown = refused.stdout + refused.stderr + done.stdout + done.stderr
    assert "hf_" not in shown
    assert "signature" not in shown


def test_the_library_s_own_offline_switch_is_told_in_words(command: Command):
    done = command.run("fetch", "tiny", HF_HUB_OFFLINE="1")
    assert done.returncode == 2
    assert "HF_HUB_OFFLINE forbids the network" in done.stderr


def test_the_command_lists_fetches_and_verifies(command: Command):
    assert command.run("fetch", "tiny").returncode == 0
    assert command.run("verify", "tiny").stdout == "tiny is whole\n"
    assert command.run("list").stdout.split()[:2] == ["tiny", "ready"]


def test_a_thread_can_watch_how_far_a_download_is(hub: FakeHub, volume: Volume):
    half, seen = Hold(150_000), []
    hub.next("GET", "dit.st", half)
    thread = threading.Thread(target=volume.delivery(stall_s=30, on_progress=seen.append).fetch, args=("tiny",))
    thread.start()
    assert half.reached.wait(30)
    while not any(progress.done_bytes == 150_000 for progress in list(seen)):
        time.sleep(0.01)
    assert seen[-1] == Progress(stage="downloading", model="tiny", file="dit.st", done_bytes=150_000, total_bytes=400_000)
    half.release.set()
    thread.join(30)
    assert seen[-1] == Progress(stage="ready", model="tiny")
