"""What holds for all tests."""

from hypothesis import settings

from tests.s3 import s3 as s3

# The same examples every time, so that a change is what makes a test fail; no time limit, as machines are busy.
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
# Others every time, and more of them: pytest --hypothesis-profile=searching
settings.register_profile("searching", deadline=None, max_examples=2000)
settings.load_profile("repeatable")
