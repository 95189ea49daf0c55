"""Reads mutated checkpoints, agents and configs: each is loaded or refused in a line, nothing else happens.

    taskset -c 1 nice python benchmarks/fuzz_checkpoints.py [--files 100000] [--seed 0]

Files are damaged (bits, bytes, ends), or changed and given the right hash again, so that what lies behind the
hash is reached, too. They are read in child processes of 500 files each, which may take 10 seconds for a file
and 1 GiB of memory more than they began with. Only a ValueError of one line is a refusal; any other
exception, a crash, a hang or too much memory is a failure, and is told with the number that makes it again.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import random
import resource
import signal
import struct
import tempfile
import traceback
import warnings
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from safetensors.torch import load, save

from memspan.agents import MemoryPPO
from memspan.agents.archive import read_archive, write_archive
from memspan.agents.saved import Saved
from memspan.agents.snapshot import take_snapshot
from memspan.runs import RunConfig, load_config, make_model, save_config
from memspan.runs.checkpoint import digest, load_checkpoint, resume_checkpoint, write_snapshot

BATCH = 500
SECONDS, MORE_BYTES = 10, 2**30
CONFIG = RunConfig(
    memory="lstm",
    n_envs=2,
    n_steps=4,
    width=4,
    n_epochs=1,
    n_minibatches=1,
    device="cpu",
    env_kwargs={"max_length": 5},
)
ABSURD = [
    None,
    True,
    -1,
    0,
    1,
    2**31,
    2**63,
    10**30,
    10**400,
    -0.5,
    1e308,
    "",
    "x",
    "../x",
    [],
    [[]],
    {},
    {"a": 1},
    "1e999",
]


class Subject:
    """One agent, its files, and how they are read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = make_model(CONFIG)
        self.model.learn(16)
        write_snapshot(take_snapshot(self.model), CONFIG, folder / "a.safetensors")
        place = io.BytesIO()
        self.model.save(place)
        save_config(CONFIG, folder)
        self.files = {
            "checkpoint": (folder / "a.safetensors").read_bytes(),
            "agent": place.getvalue(),
            "config": (folder / "config.yaml").read_bytes(),
        }

    def read(self, kind: str, data: bytes) -> None:
        """As the commands read it; raises ValueError for what is refused."""
        if kind == "agent":
            if zlib.crc32(data) % 8:
                Saved(io.BytesIO(data), "agent").put_into(self.model.policy)
            else:
                MemoryPPO.load(io.BytesIO(data), device="cpu")
            return
        path = self.folder / ("config.yaml" if kind == "config" else "mutated.safetensors")
        path.write_bytes(data)
        if kind == "config":
            load_config(self.folder)
        elif zlib.crc32(data) % 2:
            load_checkpoint(self.model, CONFIG, path)
        else:
            resume_checkpoint(self.model, CONFIG, path)

    def mutated(self, number: int, seed: int) -> tuple[str, str, bytes]:
        """File `number`: what it is, what was done to it, and its bytes."""
        draw = random.Random(f"{seed} {number}")
        kind = draw.choices(["checkpoint", "agent", "config"], [5, 4, 1])[0]
        data = self.files[kind]
        if kind != "config" and draw.random() < 0.5:
            change = change_checkpoint if kind == "checkpoint" else change_agent
            return kind, "changed, hash right", change(data, draw)
        way = draw.choice([*DAMAGES])
        for _ in range(draw.choice([1, 1, 1, 2, 10])):
            data = DAMAGES[way](data, draw)
        return kind, way, data


def flip(data: bytes, draw: random.Random) -> bytes:
    place = draw.randrange(len(data) or 1)
    return data[:place] + bytes([data[place] ^ 1 << draw.randrange(8)]) + data[place + 1 :] if data else data


def flip_in_head(data: bytes, draw: random.Random) -> bytes:
    return flip(data[:400], draw) + data[400:]


def flip_in_tail(data: bytes, draw: random.Random) -> bytes:
    return data[:-400] + flip(data[-400:], draw)


def cut(data: bytes, draw: random.Random) -> bytes:
    return data[: draw.randrange(len(data) + 1)]


def overwrite(data: bytes, draw: random.Random) -> bytes:
    start, length = draw.randrange(len(data) + 1), draw.choice([1, 4, 8, 100])
    with_what = draw.choice([bytes(length), b"\xff" * length, draw.randbytes(length)])
    return data[:start] + with_what + data[start + length :]


def move(data: bytes, draw: random.Random) -> bytes:
    a, b = sorted(draw.randrange(len(data) + 1) for _ in range(2))
    return draw.choice([data[:a] + data[b:], data[:b] + data[a:], data[b:] + data[:b]])


def number_in_words(data: bytes, draw: random.Random) -> bytes:
    """A digit somewhere becomes a huge or a negative number."""
    digits = [i for i in range(min(len(data), 5000)) if 48 <= data[i] <= 57]
    place = draw.choice(digits) if digits else 0
    return data[:place] + draw.choice([b"9" * 30, b"-1", b"1e9", b"NaN"]) + data[place + 1 :]


DAMAGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "a bit flipped": flip,
    "a bit flipped near the start": flip_in_head,
    "a bit flipped near the end": flip_in_tail,
    "cut short": cut,
    "bytes overwritten": overwrite,
    "parts moved": move,
    "a number changed": number_in_words,
}


def change_tensors(tensors: dict[str, torch.Tensor], draw: random.Random) -> None:
    """Removes, adds, retypes, reshapes or poisons one."""
    name = draw.choice(sorted(tensors))
    value = tensors.pop(name)
    match draw.randrange(8):
        case 0:
            tensors[draw.choice(["x", "policy.x", "optimizer.x", "optimizer.-1.step", "env.x", "9.9"])] = (
                value
            )
        case 1:
            tensors[name] = value.to(draw.choice([torch.float16, torch.int8, torch.bool, torch.float64]))
        case 2:
            tensors[name] = value.reshape(-1)[: draw.randrange(value.numel() + 1)].clone()
        case 3:
            tensors[name] = value.unsqueeze(0).repeat(draw.randrange(3), *[1] * value.ndim)
        case 4 if value.is_floating_point():
            tensors[name] = torch.full_like(value, draw.choice([torch.nan, torch.inf, 1e38]))
        case 5 if value.dtype == torch.long:
            tensors[name] = torch.full_like(value, draw.choice([-1, 2**31, 2**62, -(2**63)]))
        case 6 if value.dtype == torch.uint8:
            tensors[name] = torch.full_like(value, draw.randrange(256))


def change_json(value: Any, draw: random.Random) -> Any:
    """With one thing somewhere in it replaced, removed or added."""
    if isinstance(value, dict) and value and draw.random() < 0.85:
        key = draw.choice(sorted(value))
        match draw.randrange(8):
            case 0:
                return {name: one for name, one in value.items() if name != key}
            case 1:
                return value | {draw.choice(["x", "__class__", "learn", "policy", "space", key + "x"]): 1}
        return value | {key: change_json(value[key], draw)}
    if isinstance(value, list) and value and draw.random() < 0.85:
        place = draw.randrange(len(value))
        return [*value[:place], change_json(value[place], draw), *value[place + 1 :]]
    if draw.random() < 0.02:
        return json.loads("[" * 900 + "]" * 900)
    return draw.choice(ABSURD)


def change_checkpoint(data: bytes, draw: random.Random) -> bytes:
    """A checkpoint with other tensors or metadata, as if it had been written so."""
    (length,) = struct.unpack("<Q", data[:8])
    metadata: dict[str, str] = json.loads(data[8 : 8 + length])["__metadata__"]
    tensors = load(data)
    if draw.random() < 0.5:
        change_tensors(tensors, draw)
    else:
        name = draw.choice(sorted(metadata))
        if draw.random() < 0.3 or name == "format":
            metadata[name] = str(draw.choice(ABSURD))
        else:
            changed = change_json(json.loads(metadata[name]) if metadata[name][0] == "{" else 1, draw)
            metadata[name] = json.dumps(changed)
    metadata["sha256"] = digest(tensors, metadata)
    return save(tensors, metadata)


def change_agent(data: bytes, draw: random.Random) -> bytes:
    """An agent with other tensors or settings, likewise."""
    files = read_archive(io.BytesIO(data), "agent")
    name = draw.choice(sorted(files))
    if name.endswith(".json"):
        files[name] = json.dumps(change_json(json.loads(files[name]), draw)).encode()
    elif draw.random() < 0.7:
        tensors = load(files[name])
        change_tensors(tensors, draw)
        files[name] = save(tensors)
    else:
        files[name] = draw.choice([*DAMAGES.values()])(files[name], draw)
    place = io.BytesIO()
    write_archive(place, "agent", files)
    return place.getvalue()


class Mutated(Protocol):
    """What is fuzzed."""

    def mutated(self, number: int, seed: int) -> tuple[str, str, bytes]:
        """File `number`: what it is, what was done to it, and its bytes."""
        ...

    def read(self, kind: str, data: bytes) -> None:
        """As the commands read it; raises ValueError for what is refused."""
        ...


def read_batch(subject: Mutated, numbers: range, seed: int, answers: Any) -> None:
    """In a child: sends (number, kind, way, what came of it) for each file, before the next is read."""
    warnings.simplefilter("ignore")
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MORE_BYTES, used + MORE_BYTES))
    for number in numbers:
        kind, way, data = subject.mutated(number, seed)
        signal.alarm(SECONDS)
        try:
            subject.read(kind, data)
            result = "loaded"
        except ValueError as error:
            result = "refused" if "\n" not in str(error) else f"FAILED: lines: {error}"
        except BaseException:
            result = f"FAILED: {traceback.format_exc()}"
        signal.alarm(0)
        answers.send((number, kind, way, result))
    answers.send(None)


def main(description: str, make_subject: Callable[[Path], Mutated], files: int) -> int:
    """Reads many; returns the exit code."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--files", type=int, default=files)
    parser.add_argument("--first", type=int, default=0, help="number of the first, to make a failure again")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    console = Console()
    counts: Counter[tuple[str, str, str]] = Counter()
    failures = 0
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder, Progress(console=console) as progress:
        subject = make_subject(Path(folder))
        task = progress.add_task("files", total=args.files)
        number, end = args.first, args.first + args.files
        while number < end:
            ours, theirs = context.Pipe(duplex=False)
            batch = range(number, min(number + BATCH, end))
            child = context.Process(target=read_batch, args=(subject, batch, args.seed, theirs))
            child.start()
            theirs.close()
            try:
                while (answer := ours.recv()) is not None:
                    number, kind, way, result = answer[0] + 1, *answer[1:]
                    counts[kind, way, result.partition(":")[0]] += 1
                    progress.advance(task)
                    if result.startswith("FAILED"):
                        failures += 1
                        progress.console.print(f"file {answer[0]}, {kind}, {way}: {result}", markup=False)
            except EOFError:
                child.join()
                kind, way, _ = subject.mutated(number, args.seed)
                counts[kind, way, "FAILED"] += 1
                failures += 1
                progress.console.print(f"file {number}, {kind}, {way}: ended with exit code {child.exitcode}")
                number += 1
            child.join()
            if not console.is_terminal and number % 5000 < BATCH:
                print(f"{number - args.first} of {args.files} files, {failures} failures", flush=True)
    table = Table("file", "what was done", "loaded", "refused", "failed")
    for kind, way in sorted({key[:2] for key in counts}):
        table.add_row(kind, way, *(str(counts[kind, way, what]) for what in ("loaded", "refused", "FAILED")))
    console.print(table)
    console.print(f"{args.files} files, {failures} failures")
    return int(failures > 0)


if __name__ == "__main__":
    raise SystemExit(main("Reads mutated checkpoints.", Subject, 100_000))
