import re

from services.common import errors
from services.common.errors import InvalidOption, ServiceError, all_errors


def test_the_tree_in_the_module_text_lists_every_class_once():
    listed = re.findall(r"[├└]── (\w+)|^\s+(ServiceError) ", errors.__doc__ or "", re.MULTILINE)
    assert sorted(a or b for a, b in listed) == sorted(all_errors())


def test_an_error_carries_its_sentence_its_field_and_when_to_retry():
    error = InvalidOption("scale must be positive", field="request.target.scale", retry_after_s=2.5)
    assert (str(error), error.field, error.retry_after_s) == ("scale must be positive", "request.target.scale", 2.5)
    assert isinstance(error, ServiceError)
