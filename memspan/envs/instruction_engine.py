"""Instruction, in the form to train on: many at once, stepped by one numba kernel."""

from collections.abc import Mapping
from dataclasses import asdict
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from memspan.envs import instruction_kernel as kernel
from memspan.envs.instruction import InstructionEnv
from memspan.envs.instruction_grammar import SENTENCE_LENGTH, VOCABULARY, Kind
from memspan.envs.instruction_rules import InstructionParameters, InstructionTask, read_instructions
from memspan.envs.vector_arguments import Layout, Limits
from memspan.envs.vector_engine import VectorEngine

COLUMNS = {
    "step_count": kernel.STEP_COUNT,
    "next_instruction": kernel.NEXT,
    "received": kernel.RECEIVED,
    "executed": kernel.EXECUTED,
    "kind": kernel.KIND,
    "required_action": kernel.REQUIRED,
}


class InstructionVectorEnv(InstructionTask, VectorEngine):
    """Streams of sentences side by side on one core, by the rules of `InstructionEnv`; see `VectorEngine`.

    Observations are `InstructionEnv`'s, (num_envs, W) int64. `infos["executed"]` (num_envs,) is the number of
    instructions carried out so far.

    Args:
        num_envs: number of streams.
        num_instructions: instructions in an episode.
        num_verbs: verbs in use, up to 12.
        num_objects: objects in use, from 2 to 12.
        num_characters: characters in use, from 2 to 12.
        min_gap: shortest time, in steps, from receiving an instruction to receiving the next.
        max_gap: longest such time, and the latest step at which the first instruction comes.
        min_delay: shortest time, in steps, from receiving an instruction to executing it.
        max_delay: longest such time.
        share_others: weight of instructions to others among the distractions.
        share_acting: weight of others' doings.
        share_scenery: weight of scenery.
        share_jobs: weight of jobs, which want an immediate answer.
        job_reward: reward for doing a job.
        render_mode: None, "rgb_array" or "ansi"; both show the present sentence and what is pending, and
            nothing of what was said before.

    Raises:
        ValueError: a parameter is outside its limits.
    """

    metadata: dict[str, Any] = InstructionEnv.metadata | VectorEngine.metadata
    info_names: ClassVar[tuple[str, ...]] = ("executed",)
    _kernel = staticmethod(kernel.step)

    def __init__(
        self,
        num_envs: int = 1,
        *,
        num_instructions: int = 3,
        num_verbs: int = 4,
        num_objects: int = 4,
        num_characters: int = 4,
        min_gap: int = 1,
        max_gap: int = 40,
        min_delay: int = 10,
        max_delay: int = 40,
        share_others: float = 0.25,
        share_acting: float = 0.25,
        share_scenery: float = 0.25,
        share_jobs: float = 0.25,
        job_reward: float = 0.1,
        render_mode: str | None = None,
    ) -> None:
        # Written out, because command lines make their flags of this signature.
        p = InstructionParameters(
            num_instructions=num_instructions,
            num_verbs=num_verbs,
            num_objects=num_objects,
            num_characters=num_characters,
            min_gap=min_gap,
            max_gap=max_gap,
            min_delay=min_delay,
            max_delay=max_delay,
            share_others=share_others,
            share_acting=share_acting,
            share_scenery=share_scenery,
            share_jobs=share_jobs,
            job_reward=job_reward,
        )
        sentences = spaces.MultiDiscrete([len(VOCABULARY)] * SENTENCE_LENGTH)
        super().__init__(num_envs, sentences, p.num_actions, kernel.N_COLUMNS, render_mode)
        self._take(p)
        self._instructions = np.zeros((self.num_envs, p.num_instructions), dtype=np.int64)
        self._due = np.zeros_like(self._instructions)
        self._sentences = np.zeros((self.num_envs, SENTENCE_LENGTH), dtype=np.int64)
        limits = np.array(
            [
                *(p.num_instructions, p.num_verbs, p.num_objects, p.num_characters, p.num_actions),
                *(p.min_gap, p.max_gap, p.min_delay, p.max_delay, *p.thresholds()),
            ],
            dtype=np.int64,
        )
        pay = np.zeros(len(Kind))
        pay[Kind.JOB] = p.job_reward
        pay[Kind.MOMENT] = 1 / p.num_instructions
        changing = self._state, self._instructions, self._due, self._sentences
        self._world = (*changing, limits, *kernel.build_templates(), pay)

    def _read_options(self, options: Mapping[str, Any]) -> Layout:
        asked = read_instructions(options, self.parameters, self._shape)
        return {"instructions": np.zeros_like(self._instructions) if asked is None else asked}

    def _start(self, mask: npt.NDArray[np.bool_], layout: Layout) -> None:
        self._instructions[mask] = layout["instructions"][mask]
        kernel.start(mask, *self._world[:-1])  # all but what actions pay

    def _write_observations(self, obs: npt.NDArray[np.int64]) -> None:
        obs[:] = self._sentences

    def get_state(self) -> Layout:
        """The oracle; see `InstructionEnv.get_state`.

        Returns:
            Copies, `sentence` (num_envs, W); `instructions`, `due` and `pending` (num_envs,
            num_instructions); and the others (num_envs,).
        """
        state = {field: self._state[:, column].copy() for field, column in COLUMNS.items()}
        received = state["received"][:, None]
        # (num_envs, num_instructions): places of the instructions that are pending, and 0 behind them.
        places = state["executed"][:, None] + np.arange(self.num_instructions)
        there = places < received
        pending = np.take_along_axis(self._instructions, np.where(there, places, 0), axis=1) * there
        return state | {
            "sentence": self._observe(),
            "instructions": self._instructions.copy(),
            "due": self._due.copy(),
            "pending": pending,
        }

    def _state_limits(self, state: Layout) -> Limits:
        p, kind, received = self.parameters, state["kind"], state["received"]
        # What is heard as an instruction has been received, and at a moment one is still to be executed.
        pending = np.isin(kind, (Kind.INSTRUCTION, Kind.MOMENT))
        acts = np.isin(kind, (Kind.JOB, Kind.MOMENT)).astype(np.int64)
        given = np.arange(self.num_instructions) < received[:, None]  # (num_envs, num_instructions)
        return {
            "step_count": (0, p.longest_episode - 1),
            "next_instruction": (0, p.longest_episode + p.max_gap),
            "kind": (0, len(Kind) - 1),
            "received": (pending.astype(np.int64), p.num_instructions),
            "executed": (0, np.minimum(received - pending, p.num_instructions - 1)),
            "required_action": (acts, acts * (p.num_actions - 1)),
            "sentence": (0, len(VOCABULARY) - 1),
            "instructions": (given.astype(np.int64), p.num_actions - 1),
            "due": (0, p.longest_episode + p.max_delay),
            # Follows from the other fields, and is not read.
            "pending": (0, p.num_actions - 1),
        }

    def _put_state(self, state: Layout) -> None:
        for field, column in COLUMNS.items():
            self._state[:, column] = state[field]
        self._instructions[:] = state["instructions"]
        self._due[:] = state["due"]
        self._sentences[:] = state["sentence"]

    @cached_property
    def _painter(self) -> InstructionEnv:
        return InstructionEnv(render_mode=self.render_mode, **asdict(self.parameters))

    def _render_one(self, state: Layout) -> Any:
        self._painter.set_state(state)
        return self._painter.render()
