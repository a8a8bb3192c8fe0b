from dataclasses import replace

import pytest

from services.common.errors import InvalidOption, WorkerUnavailable
from services.common.fleet import ModelState
from services.gateway.catalogue import Catalogue
from services.gateway.jobs import JobRequest
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


def test_before_any_worker_has_answered_a_retry_is_advised():
    with pytest.raises(WorkerUnavailable, match="No inference worker") as error:
        catalogue(WorkerView(address="a", pool="", status=None, lost=True)).offer(JobRequest(upload_id="u"))
    assert error.value.retry_after_s == 5
