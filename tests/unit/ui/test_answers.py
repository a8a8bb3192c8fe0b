import json

import pytest

from services.common import errors
from services.ui.answers import error_answer, http_status


@pytest.mark.parametrize("error", errors.all_errors().values(), ids=lambda cls: cls.__name__)
def test_every_error_has_an_http_status(error: type[errors.ServiceError]) -> None:
    assert 400 <= http_status(error) < 600


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.InvalidVideo, 400), (errors.JobNotFound, 404), (errors.ChunkOutOfOrder, 409), (errors.QueueFull, 429),
        (errors.StoreFull, 507), (errors.TooLarge, 413), (errors.WorkerUnavailable, 503), (errors.InternalError, 500),
    ],
)  # fmt: skip
def test_a_status_is_that_of_the_nearest_class(error: type[errors.ServiceError], status: int) -> None:
    assert http_status(error) == status


def test_the_answer_is_a_sentence_with_its_reason() -> None:
    answer = error_answer(errors.QueueFull("Too much is waiting.", retry_after_s=4.6))
    assert json.loads(bytes(answer.body)) == {"error": "Too much is waiting.", "reason": "QueueFull", "retryable": True}
    assert answer.headers["retry-after"] == "5"
