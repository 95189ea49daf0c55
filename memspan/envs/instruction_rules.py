"""What both forms of Instruction share: parameters with their limits, words, and instructions to order.

The form to read (`instruction.py`) and the engine (`instruction_kernel.py`) each spell out on their own what
is said when, what is right and what it pays, so that comparing them means something.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from memspan.envs import instruction_grammar as grammar
from memspan.envs.instruction_grammar import CHARACTERS, OBJECTS, VERBS, VOCABULARY
from memspan.envs.vector_arguments import is_integer

LARGEST_WEIGHT = 1_000_000
"""Of shares and rewards: single precision, in which trainers get rewards, holds no 1e300."""

MOST_INSTRUCTIONS = 10_000
"""What is to come is drawn at an episode's start: millions in every environment would fill gigabytes."""


@dataclass(frozen=True, kw_only=True)
class InstructionParameters:
    """Parameters of both forms; times are in steps, and one sentence is heard at every step.

    Raises:
        ValueError: a parameter is outside its limits.
    """

    num_instructions: int = 3
    """Instructions in an episode."""
    num_verbs: int = 4
    """Verbs in use: the first of the list."""
    num_objects: int = 4
    """Objects in use: the first of the list."""
    num_characters: int = 4
    """Characters in use: the first of the list."""
    min_gap: int = 1
    """Shortest time from receiving an instruction to receiving the next."""
    max_gap: int = 40
    """Longest such time, and the latest step at which the first instruction comes."""
    min_delay: int = 10
    """Shortest time from receiving an instruction to executing it."""
    max_delay: int = 40
    """Longest such time."""
    share_others: float = 0.25
    """Weight of instructions to others among the distractions."""
    share_acting: float = 0.25
    """Weight of others' doings."""
    share_scenery: float = 0.25
    """Weight of scenery."""
    share_jobs: float = 0.25
    """Weight of jobs, which want an immediate answer."""
    job_reward: float = 0.1
    """Reward for doing a job."""

    def __post_init__(self) -> None:
        limits = {
            "num_instructions": (1, MOST_INSTRUCTIONS),
            "num_verbs": (1, len(VERBS)),
            "num_objects": (2, len(OBJECTS)),
            "num_characters": (2, len(CHARACTERS)),
            "min_gap": (1, math.inf),
            "max_gap": (self.min_gap, math.inf),
            "min_delay": (1, math.inf),
            "max_delay": (self.min_delay, math.inf),
        }
        for name, (lowest, highest) in limits.items():
            value = getattr(self, name)
            if not is_integer(value) or not lowest <= value <= highest:
                allowed = f">= {lowest}" if highest == math.inf else f"from {lowest} to {highest}"
                allowed += {"max_gap": " (min_gap)", "max_delay": " (min_delay)"}.get(name, "")
                raise ValueError(f"{name} must be an integer {allowed}, got {value!r}")
        for name in ("share_others", "share_acting", "share_scenery", "share_jobs", "job_reward"):
            value = getattr(self, name)
            number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
            if not number or not 0 <= value <= LARGEST_WEIGHT:
                raise ValueError(f"{name} must be a number from 0 to {LARGEST_WEIGHT:,}, got {value!r}")
        if not any(self.shares):
            raise ValueError("share_others, share_acting, share_scenery and share_jobs must not all be 0")

    @property
    def shares(self) -> tuple[float, float, float, float]:
        """Weights of the distractions, in the order of `Kind`."""
        return self.share_others, self.share_acting, self.share_scenery, self.share_jobs

    @property
    def num_actions(self) -> int:
        """Waiting, and every verb with every object."""
        return 1 + self.num_verbs * self.num_objects

    @property
    def longest_episode(self) -> int:
        """No episode has more steps.

        An instruction is received at most `max_gap` steps after the one before, and later only by the
        executions that go first, of which there are fewer than instructions. Executions wait for nothing but
        each other.
        """
        return self.num_instructions * (self.max_gap + 1) + self.max_delay

    def thresholds(self) -> list[int]:
        """Where the distractions part the range of 32 random bits: below the first number is the first kind,
        from the first to below the second the second, and from the third on the fourth.
        """
        total = sum(self.shares)
        return [round(sum(self.shares[:end]) / total * 2**32) for end in (1, 2, 3)]


class InstructionTask:
    """What both forms tell of themselves: their settings, and what words and actions mean."""

    num_instructions: int
    num_verbs: int
    num_objects: int
    num_characters: int
    min_gap: int
    max_gap: int
    min_delay: int
    max_delay: int
    share_others: float
    share_acting: float
    share_scenery: float
    share_jobs: float
    job_reward: float

    vocabulary = VOCABULARY

    def _take(self, parameters: InstructionParameters) -> None:
        """Makes every parameter an attribute of the environment, as settings of other tasks are."""
        self.parameters = parameters
        vars(self).update(asdict(parameters))

    def decode(self, observations: npt.NDArray[np.int64]) -> str | list[str]:
        """The sentence of one observation (W,), or a list of the sentences of many (N, W)."""
        return grammar.decode(observations)

    def action_meaning(self, action: int) -> str:
        """What an action does: "wait", or the likes of "paint the bench"."""
        return grammar.action_meaning(action, self.num_objects)


def read_instructions(
    options: Mapping[str, Any] | None, parameters: InstructionParameters, shape: tuple[int, ...] = ()
) -> npt.NDArray[np.int64] | None:
    """Reads the instructions that `reset(options={"instructions": ...})` asks for.

    Args:
        options: `instructions`, a list of (verb, object), in words, or of actions; for many environments one
            list for all or an array (num_envs, num_instructions) of actions.
        parameters: the environment's.
        shape: `()` for one environment, `(num_envs,)` for many.

    Returns:
        (*shape, num_instructions), actions; None if nothing is asked for.

    Raises:
        ValueError: an unknown field, or instructions that cannot be given.
    """
    for field in options or {}:
        if field != "instructions":
            raise ValueError(f"options: unknown field {field!r}, allowed is 'instructions'")
    if not options:
        return None
    value = options["instructions"]
    count = parameters.num_instructions
    verbs, objects = VERBS[: parameters.num_verbs], OBJECTS[: parameters.num_objects]
    problem = ValueError(
        f"options['instructions'] must be {count} pairs of one of {', '.join(verbs)} and one of "
        f"{', '.join(objects)}, or {count} actions from 1 to {parameters.num_actions - 1}, got {value!r}"
    )
    try:
        given = np.asarray(value)
    except ValueError:
        raise problem from None
    if given.dtype.kind == "U" and given.shape == (count, 2):
        if not (np.isin(given[:, 0], verbs).all() and np.isin(given[:, 1], objects).all()):
            raise problem
        pairs = [(verbs.index(verb), objects.index(thing)) for verb, thing in given.tolist()]
        actions = np.array([1 + verb * len(objects) + thing for verb, thing in pairs])
    elif given.dtype.kind in "iu" and given.shape in ((count,), (*shape, count)):
        if not ((given >= 1) & (given < parameters.num_actions)).all():
            raise problem
        actions = given
    else:
        raise problem
    return np.broadcast_to(actions, (*shape, count)).astype(np.int64)
