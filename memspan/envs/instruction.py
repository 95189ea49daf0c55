"""Instruction, in the form to read: the rules in plain Python."""

from collections import deque
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from memspan.envs import instruction_grammar as grammar
from memspan.envs.instruction_grammar import SENTENCE_LENGTH, VOCABULARY, Kind
from memspan.envs.instruction_render import ROWS, Line, Page, draw_page, print_page
from memspan.envs.instruction_rules import InstructionParameters, InstructionTask, read_instructions
from memspan.envs.instruction_stream import Received, SentenceStream
from memspan.envs.window import HasWindow

WAIT = 0


class InstructionEnv(InstructionTask, HasWindow, gym.Env[npt.NDArray[np.int64], np.int64]):
    """A stream of sentences, a few of them instructions to be carried out later, in the order received.

    ## Description

    One sentence is heard at every step, and at every step exactly one action is right:

    | kind        | what it is                                               | right action             |
    |-------------|----------------------------------------------------------|--------------------------|
    | instruction | a character tells the agent to do something later        | wait                     |
    | others      | a character tells another one to do something            | wait                     |
    | acting      | a character does something, or does not                  | wait                     |
    | scenery     | anything else                                            | wait                     |
    | job         | a character tells the agent to do something at once      | do it                    |
    | moment      | the time has come for the oldest instruction not yet executed | execute that instruction |

    A moment's sentence says nothing of which instruction it is. It comes `min_delay` to `max_delay` steps
    after the instruction, or as soon as the earlier ones are executed; meanwhile the next instructions come
    in, so several have to be remembered at once, with their order.

    ## Action Space

    0 waits; 1 + verb * num_objects + object does something, with `action_meaning` to say what.

    ## Observation Encoding

    The sentence as W = 16 numbers of words, positions in `vocabulary`, filled up with 0. `decode` gives the
    text.

    ## Rewards

    1 / `num_instructions` for executing an instruction, `job_reward` for doing a job, 0 for everything else.
    `info["executed"]` counts the instructions executed so far, `info["success"]` says whether the last one
    was executed at this step.

    ## Termination

    Any action but the right one terminates the episode, and so does executing the last instruction. The last
    observation is then the sentence that was answered. Time passes by itself and every episode comes to an
    end, after `parameters.longest_episode` steps at the latest, so that nothing is ever truncated.

    ## Registered Configurations

    - `memspan/Instruction-v0`: delays of 10 to 40 steps.
    - `memspan/InstructionSmall-v0`: two instructions, verbs and objects; delays and gaps of 1 to 20 steps.
    - `memspan/InstructionLong-v0`: delays of 70 to 120 steps, about 1,000 words.

    Args:
        render_mode: None, "human", "rgb_array" or "ansi".
        **parameters: see `InstructionParameters`.

    Raises:
        ValueError: a parameter is outside its limits.
    """

    metadata: dict[str, Any] = {"render_modes": ["human", "rgb_array", "ansi"], "render_fps": 2}

    def __init__(self, *, render_mode: str | None = None, **parameters: Any) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode must be None, 'human', 'rgb_array' or 'ansi', got {render_mode!r}")
        self._take(InstructionParameters(**parameters))
        self.render_mode = render_mode
        self.observation_space = spaces.MultiDiscrete([len(VOCABULARY)] * SENTENCE_LENGTH)
        self.action_space = spaces.Discrete(self.parameters.num_actions)
        self._stream: SentenceStream | None = None
        self._begin()

    def _begin(self) -> None:
        self.step_count = 0
        self.next_instruction = 0
        self.instructions: list[Received] = []
        self.executed = 0
        self.asked: list[int] = []
        self.kind = Kind.SCENERY
        self.sentence = ""
        self.required_action = WAIT
        self._story: deque[Line] = deque(maxlen=ROWS)
        self._outcome = ""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[np.int64], dict[str, Any]]:
        """Starts an episode.

        Args:
            seed: seeds the stories from here on; None goes on with the present stream.
            options: `instructions` fixes this episode's, in order: (verb, object) pairs, or actions.

        Raises:
            ValueError: `options` holds an unknown field or instructions that cannot be given.
        """
        asked = read_instructions(options, self.parameters)
        super().reset(seed=seed)
        if seed is not None or self._stream is None:
            drawn = int(self.np_random.integers(2**63)) if seed is None else seed
            self._stream = SentenceStream(drawn, self.parameters)
        self._begin()
        self.asked = [] if asked is None else asked.tolist()
        self.next_instruction = self._stream.between(0, self.max_gap)
        self._listen(self._stream)
        if self.render_mode == "human":
            self.render()
        return grammar.encode(self.sentence), {}

    def _listen(self, stream: SentenceStream) -> None:
        """Chooses and draws the sentence of the present step, and what is right there."""
        pending = self.instructions[self.executed :]
        received = len(self.instructions)
        asked = WAIT
        if pending and pending[0].due <= self.step_count:
            self.kind = Kind.MOMENT
        elif received < self.num_instructions and self.next_instruction <= self.step_count:
            self.kind = Kind.INSTRUCTION
            asked = self.asked[received] if self.asked else WAIT
        else:
            self.kind = stream.distraction()

        self.sentence, action = stream.say(self.kind, asked)
        self.required_action = WAIT
        if self.kind == Kind.JOB:
            self.required_action = action
        elif self.kind == Kind.MOMENT:
            self.required_action = pending[0].action
        elif self.kind == Kind.INSTRUCTION:
            due = self.step_count + stream.between(self.min_delay, self.max_delay)
            self.instructions.append(Received(action, due))
            self.next_instruction = self.step_count + stream.between(self.min_gap, self.max_gap)
        self._story.append(Line(self.step_count, self.kind, self.sentence))

    def step(self, action: Any) -> tuple[npt.NDArray[np.int64], float, bool, bool, dict[str, Any]]:
        """Answers the present sentence and hears the next.

        Raises:
            ValueError: `action` is not one of the actions.
        """
        if not self.action_space.contains(action):
            raise ValueError(f"action must be from 0 to {self.parameters.num_actions - 1}, got {action!r}")
        if self._stream is None:
            raise gym.error.ResetNeeded("reset() has to be called before step()")
        right = int(action) == self.required_action
        reward = 0.0
        if right and self.kind == Kind.JOB:
            reward = float(self.job_reward)
        if right and self.kind == Kind.MOMENT:
            reward = 1 / self.num_instructions
            self.executed += 1
        success = right and self.executed == self.num_instructions
        terminated = success or not right

        self._story[-1] = Line(self.step_count, self.kind, self.sentence, self.action_meaning(action), right)
        if terminated:
            self._outcome = (
                "all instructions executed"
                if success
                else f"wrong: it was time to {self.action_meaning(self.required_action)}"
            )
        else:
            self.step_count += 1
            self._listen(self._stream)
        if self.render_mode == "human":
            self.render()
        info = {"success": success, "executed": self.executed}
        return grammar.encode(self.sentence), reward, terminated, False, info

    def get_state(self) -> dict[str, Any]:
        """The oracle: the whole state, and with it what has to be remembered, `pending`.

        Returns:
            `step_count`; `next_instruction`, the step from which the next one is to be received; `received`
            and `executed`, numbers of instructions; `kind`, of the present sentence; `required_action`, the
            one that is right now; `sentence` (W,), the present observation; and, (num_instructions,) each:
            `instructions`, all in order (0 if not yet received, or what the options asked for), `due`, the
            steps from which they are to be executed, and `pending`, those received and not yet executed,
            oldest first, filled up with 0.
        """
        received = [one.action for one in self.instructions]
        return {
            "step_count": self.step_count,
            "next_instruction": self.next_instruction,
            "received": len(self.instructions),
            "executed": self.executed,
            "kind": int(self.kind),
            "required_action": self.required_action,
            "sentence": grammar.encode(self.sentence),
            "instructions": self._filled(received + self.asked[len(received) :]),
            "due": self._filled([one.due for one in self.instructions]),
            "pending": self._filled(received[self.executed :]),
        }

    def _filled(self, numbers: list[int]) -> npt.NDArray[np.int64]:
        return np.array(numbers + [0] * (self.num_instructions - len(numbers)), dtype=np.int64)

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state`, as `get_state` gives it; the random stream goes on as it was."""
        self._begin()
        for field in ("step_count", "next_instruction", "executed", "required_action"):
            setattr(self, field, int(state[field]))
        self.kind = Kind(int(state["kind"]))
        self.sentence = str(grammar.decode(state["sentence"]))
        actions, received = state["instructions"].tolist(), int(state["received"])
        due = state["due"].tolist()
        self.instructions = [Received(actions[k], due[k]) for k in range(received)]
        self.asked = actions if all(actions) else []
        self._story.append(Line(self.step_count, self.kind, self.sentence))

    def _page(self) -> Page:
        done = [self.action_meaning(one.action) for one in self.instructions]
        return Page(
            title=f"step {self.step_count}    executed {self.executed} of {self.num_instructions}",
            story=tuple(self._story),
            done=tuple(done[: self.executed]),
            pending=tuple(done[self.executed :]),
            outcome=self._outcome,
            success=self.executed == self.num_instructions,
        )

    def draw(self) -> npt.NDArray[np.uint8]:
        """Draws the story so far, what was answered, and what is pending; always of one shape."""
        return draw_page(self._page())

    def render(self) -> Any:
        """The picture (height, width, 3) for "rgb_array", the same as text for "ansi"; else None."""
        if self.render_mode == "ansi":
            return print_page(self._page())
        if self.render_mode == "rgb_array":
            return self.draw()
        if self.render_mode == "human":
            self.show(self.draw())
        return None
