import pytest

from services.common import errors
from services.common.http.status import http_status, retry_header


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


@pytest.mark.parametrize(("after_s", "header"), [(None, {}), (0.2, {"Retry-After": "1"}), (4.6, {"Retry-After": "5"})])
def test_a_retry_is_asked_for_in_whole_seconds(after_s: float | None, header: dict[str, str]) -> None:
    assert retry_header(errors.QueueFull("Too much is waiting.", retry_after_s=after_s)) == header
