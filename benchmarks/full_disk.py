"""Trains on a disk that has no room for the run, makes room, goes on, and compares with a run left alone.

    sudo python benchmarks/full_disk.py [--disks 10] [--seed 0]

The disk is a tmpfs of a size drawn at random, up to what the whole run needs; to mount one takes root. The
training and the comparison are those of `torture.py`.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from torture import FORKED, Trial, differences, warm_up

KIB = 1024


def mount(*words: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", *words], check=True)


def size_of(folder: Path) -> int:
    """KiB of all files, in whole pages."""
    return sum(-(-path.stat().st_size // (4 * KIB)) * 4 for path in folder.rglob("*") if path.is_file())


if __name__ == "__mp_main__":
    warm_up()


def main() -> int:
    parser = argparse.ArgumentParser(description="Trains on disks that are full.")
    parser.add_argument("--disks", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of their sizes")
    args = parser.parse_args()
    draw = random.Random(args.seed)
    FORKED.set_forkserver_preload(["__main__"])
    same = 0
    with tempfile.TemporaryDirectory() as folder:
        whole = Trial(Path(folder) / "whole", "expire-span")
        whole.run()
        needed = size_of(whole.folder)
        for number in range(args.disks):
            size = draw.randrange(4, needed, 4)
            disk = Path(folder) / str(number)
            disk.mkdir()
            mount("-o", f"size={size}k", "tmpfs", str(disk))
            try:
                trial = Trial(disk / "run", "expire-span", Path(folder) / f"{number}.txt")
                code, said = trial.run()
                stopped = "No space left on device" in said and "Traceback" not in said
                mount("-o", f"remount,size={4 * needed}k", str(disk))
                again, _ = trial.run()
                found = differences(whole.folder, trial.folder)
            finally:
                subprocess.run(["umount", str(disk)], check=True)
            good = stopped and again == 0 and not found
            same += good
            print(
                f"{size} of {needed} KiB: exit code {code}, then {again}",
                *found,
                "" if good else said,
                flush=True,
            )
    print(f"{same} of {args.disks} stopped in words and went on to the same bits")
    return int(same < args.disks)


if __name__ == "__main__":
    sys.exit(main())
