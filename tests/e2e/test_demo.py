import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.e2e.demo_clips import bad_clip, true_clip


@pytest.mark.e2e
@pytest.mark.timeout(400)
def test_the_demo_shows_what_was_gained(tmp_path: Path):
    bad, truth = bad_clip(tmp_path / "bad.mp4"), true_clip(tmp_path / "truth.mp4")
    ended = subprocess.run(
        [sys.executable, "-m", "demo", bad, truth, "--output", tmp_path / "out"], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    rows = {line.split()[0]: line.split() for line in ended.stdout.splitlines() if line.strip()}
    assert float(rows["gain"][1]) > 1
    assert float(rows["restored"][4]) > float(rows["bicubic"][2])
    assert Path(rows["video"][1]).stat().st_size > 0
    with Image.open(rows["picture"][1]) as picture:
        assert picture.width > 1.9 * picture.height
