import json

from services.common import errors
from services.ui.answers import error_answer


def test_the_answer_is_a_sentence_with_its_reason() -> None:
    answer = error_answer(errors.QueueFull("Too much is waiting.", retry_after_s=4.6))
    assert json.loads(bytes(answer.body)) == {"error": "Too much is waiting.", "reason": "QueueFull", "retryable": True}
    assert answer.headers["retry-after"] == "5"
