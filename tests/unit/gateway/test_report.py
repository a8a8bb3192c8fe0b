from services.gateway.ports import QualityCheck
from services.gateway.report import report_from_json, report_to_json


def test_a_report_is_read_back_as_it_was_written():
    checks = (QualityCheck(name="frame_count", passed=False, detail="one is missing", value=23.0),)
    assert report_from_json(report_to_json(checks)) == checks


def test_a_later_release_may_say_more_of_a_check():
    check = QualityCheck(name="frame_count", passed=True, detail="", value=23.0)
    data = report_to_json([check]).replace(b'"value"', b'"unit": "frames", "value"')
    assert report_from_json(data) == (check,)
