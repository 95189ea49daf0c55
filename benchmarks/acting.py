"""One environment, one step: microseconds for every memory, after a past of 200 and of 2,000 steps.

The past is real: noise that the memory has read in blocks (`past.py`). Settings reach back over 200 steps, or
over 2,000 (`memspan.probes.far_enough`), so that of a past of 2,000 nearly all is dropped, or all is kept.
"memory" is `Memory.step`; "policy" is `MemoryPolicy.act`, from an observation to a drawn action.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from past import VARIANTS, WIDTH, noise, read
from side_by_side import Rates, Row, Size, Table, Target, Turn, in_turns
from stable_baselines3.common.utils import FloatSchedule
from torch import Tensor

from memspan.agents import MemoryPolicy
from memspan.memory import MEMORIES, State, clone_state
from memspan.probes import Entrant, far_enough
from memspan.runs import RunConfig, make_env

PASTS, QUICK_PASTS = (200, 2_000), (20, 100)
LIMIT = 300
"""Microseconds."""
GROWTH = 1.1
"""What a past that is not kept may add: nothing, but for what measurements scatter."""


@dataclass(frozen=True)
class Case:
    """A memory after a past."""

    reach: int
    past: int


@torch.no_grad()
def turn_of(policy: MemoryPolicy, state: State, observations: Tensor, steps: int) -> Turn:
    """Turns of some steps, each from the same state."""
    x = noise(steps, seed=2)
    start = torch.zeros(1, dtype=torch.bool)

    def microseconds(step: Callable[[int, State], State]) -> float:
        # The first steps make room where there is none; later ones find it.
        now = step(1, step(0, clone_state(state)))
        begun = time.perf_counter()
        for i in range(steps):
            now = step(i, now)
        return 1e6 * (time.perf_counter() - begun) / steps

    @torch.no_grad()
    def turn() -> dict[str, float]:
        return {
            "policy": microseconds(lambda i, now: policy.act(observations[i], now, start).memory.state),
            "memory": microseconds(lambda i, now: policy.memory.step(x[i], now, start).state),
        }

    return turn


def prepared(name: str, label: str, case: Case, steps: int) -> Turn | None:
    """Turns of a memory after a past; None: there is no such variant."""
    env = make_env(RunConfig(), n_envs=1)
    torch.manual_seed(0)
    settings = far_enough(Entrant(name), WIDTH, case.reach)
    policy = MemoryPolicy(
        env.observation_space, env.action_space, FloatSchedule(0.0), name, settings, width=WIDTH
    )
    policy.set_training_mode(False)
    if not VARIANTS[label](policy.memory):
        return None
    state = read(policy.memory, policy.memory.initial_state(1), noise(case.past))
    env.seed(0)
    seen = [torch.as_tensor(env.reset())]
    for _ in range(steps - 1):
        seen.append(torch.as_tensor(env.step([0])[0]))
    return turn_of(policy, state, torch.stack(seen), steps)


def tables(size: Size, tell: Callable[[str], None]) -> list[Table]:
    """All of this file."""
    steps, turns = size.of(100, 10), size.of(2 * size.turns + 1, 2)
    short, long = QUICK_PASTS if size.quick else PASTS
    pasts = {"short": Case(short, short), "dropped": Case(short, long), "kept": Case(long, long)}
    rows: dict[str, list[Row]] = {"policy": [], "memory": [], "dropped": [], "kept": []}
    for name in MEMORIES:
        for label in VARIANTS:
            cases = {key: prepared(name, label, case, steps) for key, case in pasts.items()}
            contestants = {key: turn for key, turn in cases.items() if turn is not None}
            if not contestants:
                continue
            for turn in contestants.values():
                turn()
            what = ", ".join(filter(None, (name, label)))
            found: dict[str, Rates] = in_turns(contestants, turns, lambda _: None)
            tell(f"{what}: {found['short']['policy'][0]:.0f} microseconds")
            for measure in ("policy", "memory"):
                rows[measure].append(Row(what, found["short"][measure], target=Target("ours", at_most=LIMIT)))
            for case, target in (("dropped", Target("ratio", at_most=GROWTH)), ("kept", None)):
                rows[case].append(
                    Row(
                        what,
                        found[case]["policy"],
                        f"a past of {short}",
                        found["short"]["policy"],
                        target,
                    )
                )
    unit = "microseconds"
    notes = [
        f"Means of {steps} steps in a row, {turns} turns; untrained weights, width {WIDTH}.",
        "keeps 1 in 50: spans set so that 1 input in 50 is kept, see `benchmarks/past.py`.",
    ]
    reach = "so that nearly all of it is dropped"
    return [
        Table(
            f"From observation to action, past of {short}, reach of {short}",
            unit,
            rows["policy"],
            notes=notes,
        ),
        Table(f"Of that the memory's step, past of {short}, reach of {short}", unit, rows["memory"]),
        Table(
            f"From observation to action, past of {long:,}, reach of {short}, {reach}",
            unit,
            rows["dropped"],
            ratio="growth",
            notes=[
                "`summary-tree` drops nothing: it reads one summary more each time that the past doubles."
            ],
        ),
        Table(
            f"From observation to action, past of {long:,}, reach of {long:,}, so that all can be kept",
            unit,
            rows["kept"],
            ratio="growth",
        ),
    ]
