"""``python -m services.gateway.store.bucket``, as a process."""

import dataclasses
import os
import secrets
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from services.common.settings import as_environment
from services.gateway.store.s3.settings import PREFIX, S3Settings
from tests.s3 import S3, client_of, free_ports


def run(settings: S3Settings) -> tuple[int, str]:
    """Exit code and what was said."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    environment |= as_environment(settings, PREFIX)
    command = [sys.executable, "-m", "services.gateway.store.bucket"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


def test_a_bucket_is_created_with_rules_and_the_second_time_nothing_changes(s3: S3, tmp_path: Path):
    own = replace(s3, bucket=f"seedvr2-{secrets.token_hex(6)}")
    settings = own.settings(tmp_path, lifecycle=True)
    code, said = run(settings)
    assert (code, said.splitlines()) == (
        0,
        [f"The bucket {own.bucket} was created.", "It has rules that remove leftovers after 7 days."],
    )
    code, said = run(settings)
    assert (code, said.splitlines()) == (
        0,
        [f"The bucket {own.bucket} is there.", "Its rules for leftovers are as they should be."],
    )
    client_of(own).remove_bucket(own.bucket)


def test_what_must_be_changed_ends_with_2(s3: S3, tmp_path: Path):
    code, said = run(replace(s3, secret_key="wrong").settings(tmp_path))
    assert code == 2
    assert "refuses the gateway" in said
    assert len(said.splitlines()) == 1
    code, said = run(dataclasses.replace(s3.settings(tmp_path), endpoint=""))
    assert (code, said) == (2, "SEEDVR2_S3_ENDPOINT is not set; name the S3 server.\n")


def test_a_server_that_does_not_answer_ends_with_1(s3: S3, tmp_path: Path):
    away = replace(s3, endpoint=f"http://127.0.0.1:{free_ports(1)[0]}")
    code, said = run(away.settings(tmp_path, tries=2))
    assert code == 1
    assert "doesn't answer" in said
