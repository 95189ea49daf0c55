"""Instruction, in the form to train on: many at once, stepped by one numba kernel."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from memspan.envs import instruction_grammar as grammar
from memspan.envs import instruction_kernel as kernel
from memspan.envs.instruction import InstructionEnv
from memspan.envs.instruction_grammar import SENTENCE_LENGTH, VOCABULARY, Kind
from memspan.envs.instruction_rules import InstructionParameters, read_instructions
from memspan.envs.vector_engine import Layout, VectorEngine

COLUMNS = ("step_count", "next_instruction", "received", "executed", "kind", "required_action")


class InstructionVectorEnv(VectorEngine):
    """Streams of sentences side by side on one core, by the rules of `InstructionEnv`; see `VectorEngine`.

    Observations are `InstructionEnv`'s, (num_envs, W) int64. `infos["executed"]` (num_envs,) is the number of
    instructions carried out so far.

    Args:
        num_envs: number of streams.
        num_instructions: instructions in an episode.
        n_verbs: verbs in use, up to 12.
        n_objects: objects in use, from 2 to 12.
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

    metadata: dict[str, Any] = VectorEngine.metadata | {
        "render_modes": ["rgb_array", "ansi"],
        "render_fps": InstructionEnv.metadata["render_fps"],
    }
    told = ("executed",)

    def __init__(
        self,
        num_envs: int = 1,
        *,
        num_instructions: int = 3,
        n_verbs: int = 6,
        n_objects: int = 6,
        num_characters: int = 4,
        min_gap: int = 1,
        max_gap: int = 12,
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
        self.parameters = p = InstructionParameters(
            num_instructions=num_instructions,
            n_verbs=n_verbs,
            n_objects=n_objects,
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
        super().__init__(num_envs, sentences, p.num_actions, render_mode)
        self.vocabulary = VOCABULARY
        self._state = np.zeros((self.num_envs, 6), dtype=np.int64)
        self._instructions = np.zeros((self.num_envs, p.num_instructions), dtype=np.int64)
        self._due = np.zeros_like(self._instructions)
        self._sentences = np.zeros((self.num_envs, SENTENCE_LENGTH + 1), dtype=np.int64)
        self._limits = np.array(
            [
                *(p.num_instructions, p.n_verbs, p.n_objects, p.num_characters, p.num_actions),
                *(p.min_gap, p.max_gap, p.min_delay, p.max_delay, *p.thresholds()),
            ],
            dtype=np.int64,
        )
        self._templates, self._slots, self._kinds = kernel.build_templates()
        self._pay = np.zeros(len(Kind))
        self._pay[Kind.JOB] = p.job_reward
        self._pay[Kind.MOMENT] = 1 / p.num_instructions
        self._painter: InstructionEnv | None = None

    def decode(self, observations: npt.NDArray[np.int64]) -> str | list[str]:
        """The sentence of one observation (W,), or a list of the sentences of many (N, W)."""
        return grammar.decode(observations)

    def action_meaning(self, action: int) -> str:
        """What an action does: "wait", or the likes of "paint the bench"."""
        return grammar.action_meaning(action, self.parameters.n_objects)

    def _read_options(self, options: Mapping[str, Any]) -> Layout:
        asked = read_instructions(options, self.parameters, self._shape)
        return {"instructions": np.zeros_like(self._instructions) if asked is None else asked}

    def _start(self, mask: npt.NDArray[np.bool_], layout: Layout) -> None:
        self._instructions[mask] = layout["instructions"][mask]
        kernel.start(
            mask,
            self._state,
            self._instructions,
            self._due,
            self._sentences,
            self._rng,
            self._limits,
            self._templates,
            self._slots,
            self._kinds,
        )

    def _write_observations(self, obs: npt.NDArray[np.int64]) -> None:
        obs[:] = self._sentences[:, :SENTENCE_LENGTH]

    def _advance(
        self,
        actions: npt.NDArray[np.int64],
        obs: npt.NDArray[np.int64],
        rewards: npt.NDArray[np.float64],
        flags: npt.NDArray[np.bool_],
        told: npt.NDArray[np.int64],
    ) -> int:
        ended: int = kernel.step(
            actions,
            self._state,
            self._instructions,
            self._due,
            self._sentences,
            self._rng,
            self._limits,
            self._templates,
            self._slots,
            self._kinds,
            self._pay,
            obs,
            self._final_obs,
            rewards,
            flags,
            told[0],
        )
        return ended

    def get_state(self) -> dict[str, npt.NDArray[np.int64]]:
        """The oracle; see `InstructionEnv.get_state`.

        Returns:
            Copies, `sentence` (num_envs, W); `instructions`, `due` and `pending` (num_envs,
            num_instructions); and the others (num_envs,).
        """
        state = {field: self._state[:, column].copy() for column, field in enumerate(COLUMNS)}
        received = state["received"][:, None]
        # (num_envs, num_instructions): places of the instructions that are pending, and 0 behind them.
        places = state["executed"][:, None] + np.arange(self.parameters.num_instructions)
        there = places < received
        pending = np.take_along_axis(self._instructions, np.where(there, places, 0), axis=1) * there
        return state | {
            "sentence": self._observe(),
            "instructions": self._instructions.copy(),
            "due": self._due.copy(),
            "pending": pending,
        }

    def set_state(self, state: Mapping[str, npt.ArrayLike]) -> npt.NDArray[np.int64]:
        """Puts every environment where `state`, as `get_state` gives it, says; random streams go on as they
        were. `pending` follows from the other fields and is not read.

        Returns:
            What is heard there, (num_envs, W).

        Raises:
            ValueError: a field is missing, unknown, of a wrong shape or outside its limits; nothing was
                changed.
        """
        old = self.get_state()
        if set(state) != set(old):
            raise ValueError(f"state must have the fields {', '.join(old)}, got {', '.join(state)}")
        new = {field: np.asarray(values) for field, values in state.items()}
        p = self.parameters
        highest = {
            "received": p.num_instructions,
            "executed": np.minimum(new["received"], p.num_instructions - 1),
            "kind": len(Kind) - 1,
            "required_action": p.num_actions - 1,
            "sentence": len(VOCABULARY) - 1,
            "instructions": p.num_actions - 1,
        }
        for field, values in new.items():
            if values.dtype.kind not in "iu" or values.shape != old[field].shape:
                raise ValueError(
                    f"state[{field!r}] must be integers of shape {old[field].shape}, "
                    f"got {values.dtype} of shape {values.shape}"
                )
            # Steps have no highest value.
            most = highest.get(field, np.iinfo(np.int64).max)
            for i in np.flatnonzero(((values < 0) | (values > most)).reshape(self.num_envs, -1).any(axis=1)):
                limit = np.broadcast_to(most, values.shape[:1])[i]
                raise ValueError(
                    f"state[{field!r}] must be from 0 to {limit}, got {values[i]} for environment {i}"
                )
        self._state[:] = np.stack([new[field] for field in COLUMNS], axis=1)
        self._instructions[:] = new["instructions"]
        self._due[:] = new["due"]
        self._sentences[:, :SENTENCE_LENGTH] = new["sentence"]
        return self._observe()

    def _draw(self, i: int) -> npt.NDArray[np.uint8] | str:
        if self._painter is None:
            self._painter = InstructionEnv(**asdict(self.parameters))
        self._painter.set_state({field: values[i] for field, values in self.get_state().items()})
        return self._painter.text() if self.render_mode == "ansi" else self._painter.draw()
