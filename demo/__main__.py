"""Restore a bad clip through all services on this machine and show what was gained: ``python -m demo``."""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from demo.measure import Quality, enlarge, quality, read_frames
from demo.picture import side_by_side

CLIPS = Path(__file__).parent / "clips"
MODEL, SCALE = "nano", "2"


def main() -> int:
    """Restore, measure, show. The exit code is that of ``seedvr2 restore``."""
    arguments = _parser().parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    video = arguments.output / f"{arguments.bad.stem}-restored.mp4"
    print(f"Restoring {arguments.bad} with {MODEL} at {SCALE} times its size; a minute or two on two cores.", flush=True)
    code, job = _restore(arguments.bad, video)
    if code:
        print(job["error"]["message"], file=sys.stderr)
        return code
    truth, restored = read_frames(arguments.truth), read_frames(video)
    bicubic = enlarge(read_frames(arguments.bad), width=truth.shape[2], height=truth.shape[1])
    before, after = quality(bicubic, truth), quality(restored, truth)
    picture = arguments.output / "before-after.jpg"
    middle = len(truth) // 2
    side_by_side({"bicubic": bicubic[middle], "restored": restored[middle], "original": truth[middle]}).save(picture, quality=90)
    print(_table(job, before, after))
    print(f"video    {video}\npicture  {picture}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("bad", nargs="?", type=Path, default=CLIPS / "bunny_bad.mp4", help="half the size of TRUTH")
    parser.add_argument("truth", nargs="?", type=Path, default=CLIPS / "bunny_truth.mp4", help="what BAD was made from")
    parser.add_argument("--output", type=Path, default=Path("demo-output"), metavar="DIR")
    return parser


def _restore(source: Path, output: Path) -> tuple[int, dict[str, Any]]:
    """The command that people type: it starts gateway and worker on loopback, and stops them after."""
    command = [sys.executable, "-m", "services.cli", "restore", str(source), "-o", str(output)]
    ended = subprocess.run([*command, "--model", MODEL, "--scale", SCALE, "--json"], stdout=subprocess.PIPE, check=False)
    return ended.returncode, json.loads(ended.stdout)


def _table(job: dict[str, Any], before: Quality, after: Quality) -> str:
    frames, seconds = job["frames"], job["seconds"]
    return "\n".join(
        (
            f"{'':10}{'frames':>8}{'seconds':>9}{'s/frame':>9}{'PSNR':>10}{'SSIM':>8}",
            f"{'bicubic':10}{frames:8}{'':9}{'':9}{before.psnr_db:7.2f} dB{before.ssim:8.3f}",
            f"{'restored':10}{frames:8}{seconds:9.1f}{seconds / frames:9.2f}{after.psnr_db:7.2f} dB{after.ssim:8.3f}",
            f"{'gain':10}{'':26}{after.psnr_db - before.psnr_db:+7.2f} dB{after.ssim - before.ssim:+8.3f}",
        )
    )


if __name__ == "__main__":
    sys.exit(main())
