import pytest

from services.gateway.container.adapter import Container
from tests.unit.gateway.container.looking import LIMITS


@pytest.fixture
def container() -> Container:
    return Container(LIMITS)
