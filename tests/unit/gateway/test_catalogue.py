import asyncio
from dataclasses import replace

import pytest

from services.common.errors import InvalidOption, NotSupported, WorkerUnavailable
from services.common.fleet import ModelState
from services.gateway.catalogue import Catalogue
from services.gateway.job_request import JobRequest
from services.gateway.ports import WorkerView
from tests.unit.gateway.examples import view
from tests.unit.gateway.test_dispatch import Listed


def catalogue(*views: WorkerView, default: str = "") -> Catalogue:
    return Catalogue(Listed(*views), default)


def test_models_are_those_that_workers_named_ready_or_not():
    found = catalogue(view("a", pool="x"), view("b", pool="y", lost=True)).models()
    assert [(m.model.name, m.ready, m.pools) for m in found] == [("nano", True, ("x", "y"))]
    assert not catalogue(view(lost=True)).models()[0].ready


def test_models_in_model_directories_are_told_as_they_are_where_they_are_best():
    def with_states(address: str, **states: str) -> WorkerView:
        seen = view(address)
        installed = tuple(ModelState(name=name, title=name.title(), state=state) for name, state in states.items())
        return replace(seen, status=replace(seen.status, installed=installed))

    known = catalogue(with_states("a", nano="ready", big="absent"), with_states("b", big="fetching", huge="unheard-of"))
    assert {state.name: state.state for state in known.installed().values()} == {
        "nano": "ready",
        "big": "fetching",
        "huge": "unheard-of",
    }
    assert [model.model.name for model in known.models()] == ["nano"]
    assert catalogue(view(lost=True)).installed() == {}


def test_the_default_is_what_the_operator_says_or_what_is_there():
    assert catalogue(view()).default_model() == "nano"
    assert catalogue(view(), default="big").default_model() == "big"
    assert catalogue().default_model() == ""


def test_a_worker_that_is_away_still_makes_an_offer():
    assert catalogue(view(lost=True)).offer(JobRequest(upload_id="u")).fingerprint == "f1"


@pytest.mark.parametrize(
    ("request_", "field", "text"),
    [
        (JobRequest(upload_id="u", model="big"), "request.model", "choose nano"),
        (JobRequest(upload_id="u", pool="q"), "request.pool", "choose p"),
    ],
)
def test_what_nobody_serves_is_refused_with_what_there_is(request_: JobRequest, field: str, text: str):
    with pytest.raises(InvalidOption, match=text) as error:
        catalogue(view()).offer(request_)
    assert error.value.field == field


@pytest.mark.parametrize(("pool", "where"), [("", "that serve nano"), ("p", "of the pool p")])
def test_an_encoder_that_opens_nowhere_is_refused_in_words(pool: str, where: str):
    with pytest.raises(NotSupported, match=f"NVENC doesn't open on the workers {where}: .* leave the encoder out") as error:
        catalogue(view()).offer(JobRequest(upload_id="u", encoder="nvenc", pool=pool))
    assert error.value.field == "request.encoder"


def test_workers_that_have_the_encoder_are_offered_even_if_most_lack_it():
    views = view("a"), view("b"), view("c", encoders=("h264_nvenc",))
    assert catalogue(*views).offer(JobRequest(upload_id="u", encoder="nvenc")).workers == 1
    assert catalogue(*views).offer(JobRequest(upload_id="u", encoder="x264")).workers == 3
    absent = view("c", encoders=("h264_nvenc",), lost=True)
    assert catalogue(view("a"), absent).offer(JobRequest(upload_id="u", encoder="nvenc")).encoders == ("h264_nvenc",)


async def test_an_encoder_is_not_refused_before_everybody_was_heard():
    workers = Listed(view("a"), WorkerView(address="b", pool="p", status=None, lost=True))
    asking = asyncio.create_task(Catalogue(workers, "").offer_soon(JobRequest(upload_id="u", encoder="nvenc"), 30))
    await asyncio.sleep(0)
    workers.become(view("a"), view("b", encoders=("h264_nvenc",)))
    assert (await asking).encoders == ("h264_nvenc",)


def test_before_any_worker_has_answered_a_retry_is_advised():
    with pytest.raises(WorkerUnavailable, match="No inference worker") as error:
        catalogue(WorkerView(address="a", pool="", status=None, lost=True)).offer(JobRequest(upload_id="u"))
    assert error.value.retry_after_s == 5


async def test_a_first_answer_is_waited_for():
    workers = Listed(WorkerView(address="a", pool="p", status=None, lost=True))
    known = Catalogue(workers, "")
    offer = asyncio.create_task(known.offer_soon(JobRequest(), 30.0))
    other = asyncio.create_task(known.offer_soon(JobRequest(model="nano"), 30.0))
    await asyncio.sleep(0)
    workers.become(view("a"))
    assert (await offer).model.name == (await other).model.name == "nano"


async def test_the_wait_for_a_first_answer_ends():
    with pytest.raises(WorkerUnavailable, match="has answered yet"):
        await catalogue(WorkerView(address="a", pool="p", status=None, lost=True)).offer_soon(JobRequest(), 0.2)


async def test_a_model_that_nobody_has_is_refused_at_once_when_everybody_has_answered():
    with pytest.raises(InvalidOption, match="There is no model"):
        await catalogue(view("a")).offer_soon(JobRequest(model="other"), 3600.0)


def test_the_speed_of_a_model_is_that_of_all_its_workers_that_are_there():
    views = [
        view("a", megapixels_per_second=1.0),
        view("b", pool="q", megapixels_per_second=2.0),
        view("c", lost=True, megapixels_per_second=4.0),
    ]
    known = catalogue(*views)
    assert (known.speed("nano"), known.speed("nano", "q"), known.speed("other"), known.speed("")) == (3.0, 2.0, 0.0, 3.0)
