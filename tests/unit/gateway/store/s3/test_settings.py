import pytest

from services.common.errors import SettingsError
from services.common.settings import read_settings
from services.gateway.store.s3.settings import PREFIX, S3Settings


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("ENDPOINT", "minio:9000", "not a URL like"),
        ("ENDPOINT", "https://minio:9000/bucket", "not a URL like"),
        ("PUBLIC_ENDPOINT", "ftp://minio", "not a URL like"),
        ("PREFIX", "team", "end with a slash"),
        ("PREFIX", "/a/", "end with a slash"),
        ("PREFIX", "../", "end with a slash"),
        ("PART_BYTES", "1048576", "no parts below 5242880"),
        ("ENCRYPTION", "rot13", "AES256, aws:kms or empty"),
        ("KMS_KEY", "k", "needs encryption aws:kms"),
        ("ACCESS_KEY_FILE", "/k", "go together"),
        ("TRIES", "0", "at least 1"),
        ("TIMEOUT_S", "0", "above 0"),
        ("BUCKET", "", "can't be empty"),
    ],
)
def test_a_value_that_can_not_be_used_is_refused_in_words(name: str, value: str, text: str):
    with pytest.raises(SettingsError, match=text):
        read_settings(S3Settings, PREFIX, {f"{PREFIX}_{name}": value})


def test_a_password_in_an_endpoint_is_not_repeated():
    with pytest.raises(SettingsError) as caught:
        read_settings(S3Settings, PREFIX, {f"{PREFIX}_ENDPOINT": "https://key:hidden@minio:9000"})
    assert "hidden" not in caught.value.message


@pytest.mark.parametrize("prefix", ["", "a/", "team-1/seedvr2.prod/"])
def test_prefixes_of_directories_are_taken(prefix: str):
    assert S3Settings(prefix=prefix).prefix == prefix
