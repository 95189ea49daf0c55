"""Speed beside peers, all in one process on one core: writes `benchmarks/RESULTS.md`.

    python benchmarks/bench.py                      everything; about 20 minutes on a quiet core
    python benchmarks/bench.py training acting      some sections; the others stay as they are in the page
    python benchmarks/bench.py --quick              tiny sizes: does everything run? The numbers say nothing.

What is compared takes turns; a ratio is told as the median of the pairs of turns, [lowest .. highest] behind.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import re
import shlex
import sys
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from rich.console import Console
from side_by_side import Size, markdown

from memspan.evaluation.provenance import provenance

SECTIONS = {
    "environments": "Environments",
    "training": "Training",
    "forgetting": "Forgetting pays",
    "acting": "Acting in one environment",
    "processes": "Several processes",
    "start": "Start",
}
"""Module with a function `tables(size, tell)` -> heading of its part of the page."""
HERE = Path(__file__).resolve().parent
PACKAGES = ("stable-baselines3", "sb3-contrib", "gymnasium", "minigrid", "popgym", "numba", "numpy")
INTRODUCTION = """# Speed, measured

`make bench` writes this page. What is compared takes turns in one process, pinned to one core with one
thread, on the same environment with the same sizes. A number is the median of the turns, [lowest .. highest]
behind it; a ratio is taken turn by turn, ours over theirs, and told in the same way. "met" compares the
median with the target.
"""
QUICK = "**Tiny sizes, to see that everything runs: these numbers say nothing.**\n"


def machine() -> str:
    """What it was measured on, and with."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    flags = next((line for line in lines if line.startswith("flags")), "").split()
    units = [name for name in ("avx2", "avx512f", "amx_bf16") if name in flags]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{models[0] if models else platform.processor()} ({', '.join(units)}), {os.cpu_count()} cores, "
        f"{memory:.0f} GiB; {platform.system()} {platform.release()}; Python {platform.python_version()}"
    )


def versions() -> str:
    """What is installed."""
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"{package} not installed")
    return ", ".join(found)


def about(command: str, turns: int, load: float, minutes: float) -> str:
    """How a section came about."""
    made = provenance()
    commit, dirty, _ = str(made["git_commit"]).partition("-dirty")
    return (
        f"`{command}`; memspan {made['memspan_version']} at commit {commit[:7]}"
        f"{' with changes' if dirty else ''}, PyTorch {made['torch_version']}, {versions()}. {machine()}. "
        f"One thread on one core; {turns} turns unless told; load {load:.1f} when it began, {minutes:.1f} "
        f"minutes, {time.strftime('%Y-%m-%d')}.\n"
    )


def put_into(page: str, heading: str, text: str) -> str:
    """The page with a section replaced, or added; sections stand in the order of `SECTIONS`."""
    head, *parts = re.split(r"^## ", page, flags=re.M)
    found = {part.partition("\n")[0]: part.partition("\n")[2].strip("\n") for part in parts}
    found[heading] = text.strip("\n")
    order = [*SECTIONS.values(), *(name for name in found if name not in SECTIONS.values())]
    whole = [f"## {name}\n\n{found[name]}\n" for name in order if name in found]
    return "\n".join([head.strip("\n") + "\n", *whole])


def one_core() -> None:
    """Pins this process, and what it starts, to one core and one thread."""
    if hasattr(os, "sched_setaffinity"):
        # The last: the first has more of the machine's own work to do.
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)


def main(args: Sequence[str] | None = None) -> None:
    """Measures section by section and writes the page after each."""
    args = list(sys.argv[1:] if args is None else args)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "sections", nargs="*", metavar="section", help=f"of {', '.join(SECTIONS)}; default: all"
    )
    parser.add_argument("--quick", action="store_true", help="tiny sizes; writes build/bench-quick.md")
    parser.add_argument("--turns", type=int, default=None, help="default 5, or 2 with --quick")
    parser.add_argument("--out", type=Path, default=None, help="default benchmarks/RESULTS.md")
    options = parser.parse_args(args)
    if unknown := [name for name in options.sections if name not in SECTIONS]:
        parser.error(f"section {unknown[0]!r}: must be one of {', '.join(SECTIONS)}")
    turns = options.turns if options.turns is not None else (2 if options.quick else 5)
    if turns < 1:
        parser.error(f"--turns {turns}: must be at least 1")
    out = options.out or (Path("build/bench-quick.md") if options.quick else HERE / "RESULTS.md")
    console = Console(highlight=False)
    one_core()
    size = Size(turns, options.quick)
    chosen = [name for name in SECTIONS if not options.sections or name in options.sections]
    command = shlex.join(["python", "benchmarks/bench.py", *args])
    begun = time.monotonic()
    for i, name in enumerate(chosen):

        def tell(what: str, where: str = f"[{i + 1}/{len(chosen)}] {name}") -> None:
            at = time.monotonic() - begun
            console.print(f"{where} ({at / 60:.1f} min): {what}", soft_wrap=True, markup=False)

        load, start = os.getloadavg()[0], time.monotonic()
        found = importlib.import_module(name).tables(size, tell)
        parts = [about(command, turns, load, (time.monotonic() - start) / 60), *map(markdown, found)]
        text = "\n".join(([QUICK] if options.quick else []) + parts)
        page = out.read_text(encoding="utf-8") if out.exists() else INTRODUCTION
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(put_into(page, SECTIONS[name], text), encoding="utf-8")
        console.print(text, soft_wrap=True, markup=False)
    console.print(f"Results: {out}", soft_wrap=True, markup=False)


if __name__ == "__main__":
    main()
