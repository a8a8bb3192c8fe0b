from dataclasses import dataclass

import pytest

from services.common.errors import SettingsError
from services.common.settings import as_environment, read_settings, setting


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    address: str = setting("127.0.0.1:0", "where to listen")
    threads: int = setting(2, "threads")
    fast: bool = setting(False, "fast")
    limit_s: float | None = setting(None, "limit, s")
    workers: tuple[str, ...] = setting((), "workers")

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise ValueError(f"threads {self.threads} is less than 1")


def test_settings_come_from_the_environment_with_their_types():
    read = read_settings(
        Example, "X", {"X_THREADS": "3", "X_FAST": "true", "X_LIMIT_S": "1.5", "X_WORKERS": "a=1, b=2", "OTHER": "y"}
    )
    assert read == Example(threads=3, fast=True, limit_s=1.5, workers=("a=1", "b=2"))


def test_settings_survive_the_way_into_an_environment_and_back():
    settings = Example(address="h:1", threads=5, fast=True, limit_s=0.5, workers=("p=h:1", "q=h:2"))
    assert read_settings(Example, "X", as_environment(settings, "X")) == settings


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"X_THREADS": "many"}, "X_THREADS='many' can't be read as int"),
        ({"X_FAST": "perhaps"}, "X_FAST='perhaps'"),
        ({"X_THREDS": "3"}, "X_THREDS is not a setting; the settings are X_ADDRESS"),
        ({"X_THREADS": "0"}, "threads 0 is less than 1"),
    ],
)
def test_a_wrong_setting_is_refused_in_words(environment: dict[str, str], words: str):
    with pytest.raises(SettingsError, match=words.replace("(", r"\(")):
        read_settings(Example, "X", environment)
