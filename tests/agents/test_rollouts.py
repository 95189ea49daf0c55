"""What is stored while acting is what the update computes, and what a time limit cuts off is put back."""

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3.common.callbacks import BaseCallback
from toys import ACTIONS, MEMORIES, OBSERVATIONS, Toy, corridors

from memspan.agents import MemoryA2C, MemoryPPO, VecEnvAdapter
from memspan.agents.base import MemoryAlgorithm
from memspan.memory import MEMORIES as REGISTERED
from memspan.memory import clone_state

SMALL = {"width": 16, "net_arch": [8]}
ATOL = 1e-4


def toys(n_envs: int = 3, **kwargs: Any) -> SyncVectorEnv:
    return SyncVectorEnv([lambda: Toy(**kwargs)] * n_envs, autoreset_mode=AutoresetMode.SAME_STEP)


def ppo(env: Any, memory: str = "transformer-xl", **kwargs: Any) -> MemoryPPO:
    settings: dict[str, Any] = {"n_steps": 11, "seed": 0, "policy_kwargs": SMALL, "device": "cpu"}
    return MemoryPPO("MemoryPolicy", env, memory, MEMORIES[memory], **(settings | kwargs))


def collect(model: MemoryAlgorithm) -> None:
    """One rollout, as `learn` makes it."""
    if model._last_obs is None:
        model._setup_learn(1_000, None)
    callback = model._init_callback(None)
    assert model.collect_rollouts(model.env, callback, model.rollout_buffer, model.n_steps)


def assert_ratio_is_one(model: MemoryAlgorithm) -> None:
    n_seen = 0
    for block in model.rollout_buffer.blocks(2):
        with torch.no_grad():
            evaluated = model._evaluate(block)
        torch.testing.assert_close(evaluated.log_probs, block.log_probs, atol=ATOL, rtol=0)
        torch.testing.assert_close(evaluated.values, block.values, atol=ATOL, rtol=0)
        n_seen += block.values.numel()
    assert n_seen == model.n_envs * model.n_steps


def away_from_first_values(model: MemoryAlgorithm) -> None:
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.policy.named_parameters():
            if parameter.requires_grad and name != "log_std":
                parameter.add_(0.2 * torch.randn_like(parameter))


def test_every_memory_is_under_test() -> None:
    assert set(MEMORIES) == set(REGISTERED)


@pytest.mark.parametrize("where", ["toy", "corridor"])
@pytest.mark.parametrize("memory", MEMORIES)
def test_the_ratio_before_an_update_is_one(memory: str, where: str) -> None:
    """Log-probabilities and values, with episodes starting within blocks, in the second rollout too."""
    model = ppo(toys() if where == "toy" else corridors(3, max_steps=6), memory)
    away_from_first_values(model)
    for _ in range(3):
        collect(model)
        starts = model.rollout_buffer.episode_starts
        assert starts.any()
        assert not starts.all()
        assert_ratio_is_one(model)
    assert model.rollout_buffer.episode_starts[1:].any()


@pytest.mark.parametrize("memory", ["lstm", "expire-span"])
@pytest.mark.parametrize("observations", OBSERVATIONS)
def test_the_ratio_for_every_observation(observations: str, memory: str) -> None:
    model = ppo(toys(2, observations=observations), memory)
    for _ in range(2):
        collect(model)
        assert_ratio_is_one(model)
    model.train()


@pytest.mark.parametrize("actions", ACTIONS)
def test_the_ratio_for_every_action(actions: str) -> None:
    model = ppo(toys(2, actions=actions))
    away_from_first_values(model)
    for _ in range(2):
        collect(model)
        assert_ratio_is_one(model)
    model.train()


def test_the_ratio_leaves_one_with_the_first_update() -> None:
    model = ppo(toys(), "transformer-xl", learning_rate=0.01)
    collect(model)
    model.train()
    with pytest.raises(AssertionError):
        assert_ratio_is_one(model)


@pytest.mark.parametrize("memory", MEMORIES)
def test_the_state_is_that_of_the_blocks_beginning(memory: str) -> None:
    """Acting goes on writing into its state, but not into the copy that the buffer has."""
    model = ppo(toys(), memory)
    collect(model)
    compact = model.policy.memory.compact  # what a rollout begins with
    initial = compact(model.policy.memory.initial_state(3))
    for key, value in model.rollout_buffer.initial_state.items():
        torch.testing.assert_close(value, initial[key])
    before = clone_state(compact(model._memory_state))
    collect(model)
    for key, value in model.rollout_buffer.initial_state.items():
        torch.testing.assert_close(value, before[key])


def test_blocks_hold_every_environment_once() -> None:
    model = ppo(toys(5))
    with pytest.raises(RuntimeError, match="not complete"):
        next(model.rollout_buffer.blocks(1))
    collect(model)
    model.rollout_buffer.rewards[:] = np.arange(5)
    model.rollout_buffer.returns[:] = np.arange(5)
    seen = [block.returns for block in model.rollout_buffer.blocks(2)]
    assert [part.shape for part in seen] == [(11, 3), (11, 2)]
    assert sorted(torch.cat([part[0] for part in seen]).tolist()) == [0, 1, 2, 3, 4]


# Time limits


def value_by_hand(model: MemoryAlgorithm, observations: list[Any]) -> float:
    """Value of the last of one episode's observations, in one block from an empty memory."""
    block = torch.as_tensor(np.stack(observations), device=model.device)[:, None]
    starts = torch.zeros(len(block), 1, dtype=torch.bool)
    starts[0] = True
    actions = torch.zeros(len(block), 1, dtype=torch.long)
    with torch.no_grad():
        state = model.policy.memory.initial_state(1)
        return model.policy.evaluate_block(block, actions, state, starts).values[-1, 0].item()


class Record(BaseCallback):
    """What each step was, before anything is added to its reward."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[dict[str, Any]] = []

    def _on_step(self) -> bool:
        kept = ("rewards", "dones", "infos")
        self.steps.append({key: self.locals[key] for key in kept} | {"obs": np.copy(self.model._last_obs)})
        return True


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("next_step", [False, True])
@pytest.mark.parametrize("agent", [MemoryPPO, MemoryA2C])
def test_a_time_limit_is_bootstrapped_with_the_memory_of_its_episode(
    agent: type[MemoryAlgorithm], memory: str, next_step: bool
) -> None:
    """The last observation is valued by what the episode before it has left, not after a reset."""
    env = SyncVectorEnv([Toy] * 4) if next_step else toys(4)
    model = agent("MemoryPolicy", env, memory, MEMORIES[memory], n_steps=25, seed=0, policy_kwargs=SMALL)
    away_from_first_values(model)
    record = Record()
    model._setup_learn(1_000, record)
    record.init_callback(model)
    model.collect_rollouts(model.env, record, model.rollout_buffer, 25)
    episodes: list[list[Any]] = [[] for _ in range(4)]
    n_cut = n_terminated = 0
    for t, step in enumerate(record.steps):
        for row, episode in enumerate(episodes):
            episode.append(step["obs"][row])
            expected = step["rewards"][row]
            if step["dones"][row]:
                info = step["infos"][row]
                if info["TimeLimit.truncated"]:
                    n_cut += 1
                    if next_step:  # the last observation was acted upon, in vain
                        expected += value_by_hand(model, episode)
                    else:
                        last = info["terminal_observation"]
                        expected += model.gamma * value_by_hand(model, [*episode, last])
                else:
                    n_terminated += 1
                episode.clear()
            assert model.rollout_buffer.rewards[t, row] == pytest.approx(expected, abs=ATOL), (t, row)
    assert n_cut > 5
    assert n_terminated > 5


def test_the_rollout_ends_with_the_value_of_what_comes_next() -> None:
    """Returns by hand, and acting goes on from the same state as if no value had been asked."""
    model = ppo(toys(4), "expire-span", gae_lambda=1.0)
    away_from_first_values(model)
    collect(model)
    buffer = model.rollout_buffer
    episodes: list[list[Any]] = [[] for _ in range(4)]
    for t in range(11):
        for row in range(4):
            if buffer.episode_starts[t, row]:
                episodes[row].clear()
            episodes[row].append(buffer.observations[t, row])
    following = []
    for row, episode in enumerate(episodes):
        ended = model._last_episode_starts[row]
        following.append(value_by_hand(model, [*([] if ended else episode), model._last_obs[row]]))
        expected = buffer.rewards[-1, row] + (0 if ended else model.gamma * following[row])
        assert buffer.returns[-1, row] == pytest.approx(expected, abs=ATOL)
    collect(model)
    assert buffer.values[0].tolist() == pytest.approx(following, abs=ATOL)


@pytest.mark.parametrize("mode", AutoresetMode)
def test_every_autoreset_mode(mode: AutoresetMode) -> None:
    model = ppo(VecEnvAdapter(SyncVectorEnv([Toy] * 3, autoreset_mode=mode)))
    for _ in range(2):
        collect(model)
        assert_ratio_is_one(model)


# Losses and logs


def test_advantages_are_not_blown_up() -> None:
    """In units of their deviation over the rollout, but of 0.05 at least."""
    model = ppo(toys(3))
    collect(model)
    (block,) = model.rollout_buffer.blocks(1)
    advantages = model._advantages(block)
    assert advantages.mean().item() == pytest.approx(0, abs=1e-4)
    assert advantages.std(unbiased=False).item() == pytest.approx(1, abs=1e-3)
    model.rollout_buffer.advantages *= 1e-6
    (block,) = model.rollout_buffer.blocks(1)
    assert model._advantages(block).abs().max() < 1e-3
    model.normalize_advantage = False
    assert model._advantages(block) is block.advantages


def test_the_entropy_bonus_may_fall() -> None:
    entropies = []
    for remaining in (1.0, 0.5, 0.0):
        # Without bonus, a malus: entropy falls.
        model = ppo(toys(3), "lstm", learning_rate=0.01, ent_coef=lambda left: 10 * left - 5)
        collect(model)
        model._current_progress_remaining = remaining
        model.train()
        assert model.logger.name_to_value["train/ent_coef"] == pytest.approx(10 * remaining - 5)
        entropies.append(-model.logger.name_to_value["train/entropy_loss"])
    assert entropies[0] > entropies[1] > entropies[2]


def test_the_penalty_comes_in_with_success() -> None:
    kwargs = {"memory_loss_coef": 0.1, "memory_loss_gate": 0.8, "stats_window_size": 10}
    model = ppo(toys(3), "expire-span", **kwargs)
    model._setup_learn(100, None)
    coefficients = []
    for success in 0.0, 0.8, 0.9, 1.0:
        model.ep_success_buffer.clear()
        model.ep_success_buffer.extend([success] * 10)
        coefficients.append(model._memory_loss_coef())
    assert coefficients == pytest.approx([0.0, 0.0, 0.05, 0.1])
    model.ep_success_buffer.clear()
    model.ep_success_buffer.extend([1.0] * 9)  # too few to tell a rate
    assert model._memory_loss_coef() == 0
    model.memory_loss_gate = None
    assert model._memory_loss_coef() == 0.1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"memory_loss_gate": 1.0}, r"^memory_loss_gate=1.0: must be at least 0 and below 1$"),
        ({"memory_target": 0}, r"^memory_target=0: must be above 0$"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ppo(toys(3), "expire-span", **settings)


def test_a_learning_rate_that_starts_at_zero() -> None:
    kwargs = MEMORIES["expire-span"] | {"span_learning_rate": 0.01}
    model = MemoryPPO(
        "MemoryPolicy", toys(3), "expire-span", kwargs, n_steps=16, policy_kwargs=SMALL,
        learning_rate=lambda remaining: 1e-3 * (1 - remaining),
    )  # fmt: skip
    model.learn(3 * 16 * 2)
    assert [group["lr"] for group in model.policy.optimizer.param_groups] == [1e-3, 0.01]


def test_the_penalty_goes_as_the_target_is_reached() -> None:
    model = ppo(toys(3), "expire-span", memory_loss_coef=0.1, memory_target=4)
    model._setup_learn(100, None)
    collect(model)
    measured = model.logger.name_to_value["memory/effective_memory"]
    assert model._effective_memory == measured
    coefficients = []
    for effective_memory in 100.0, 8.0, 5.0, 4.0, 1.0:
        model._effective_memory = effective_memory
        coefficients.append(model._memory_loss_coef())
    assert coefficients == pytest.approx([0.1, 0.1, 0.025, 0.0, 0.0])


def test_the_penalty_shortens_spans_at_a_pace_of_their_own() -> None:
    """Which falls as that of the other parameters does."""
    spans = []
    for span_learning_rate in 0.0, 0.05:
        kwargs = MEMORIES["expire-span"] | {"span_learning_rate": span_learning_rate, "initial_span": 0.2}
        model = MemoryPPO(
            "MemoryPolicy", toys(3), "expire-span", kwargs, n_steps=16, seed=0, policy_kwargs=SMALL,
            memory_loss_coef=1.0, learning_rate=lambda remaining: 1e-3 * remaining,
        )  # fmt: skip
        model.learn(3 * 16 * 4)
        rates = [group["lr"] for group in model.policy.optimizer.param_groups]
        assert rates[1] == pytest.approx(span_learning_rate * rates[0] / 1e-3)
        assert 0 <= rates[0] < 1e-3
        spans.append(model.policy.memory.spans(0, torch.zeros(1, 1, 16)).item())
    assert spans[0] == pytest.approx(1.6)
    assert spans[1] < 1.0


@pytest.mark.parametrize("memory", MEMORIES)
def test_the_same_tags_for_every_memory(memory: str) -> None:
    model = ppo(corridors(2), memory)
    model._setup_learn(100, None)
    collect(model)
    told = dict(model.logger.name_to_value)
    assert {"memory/effective_memory", "memory/peak_memory", "memory/capacity"} == set(told)
    assert 0 <= told["memory/effective_memory"] <= told["memory/peak_memory"] <= told["memory/capacity"]
    model.train()
    assert "train/memory_loss" in model.logger.name_to_value


def test_small_gradients_are_not_drowned() -> None:
    """Adam's eps is far below the gradients that find a memory; that of spans is above their noise."""
    paced = {"span_learning_rate": 1e-3}
    groups = MemoryPPO("MemoryPolicy", toys(3), "expire-span", paced).policy.optimizer.param_groups
    assert [(group["eps"], group["betas"]) for group in groups] == [(1e-8, (0.9, 0.99)), (1e-3, (0.9, 0.99))]
    # Settings of one's own stay as they are.
    kwargs = {"optimizer_kwargs": {"eps": 1e-5}}
    own = MemoryPPO("MemoryPolicy", toys(3), "lstm", policy_kwargs=kwargs).policy.optimizer
    assert own.param_groups[0]["eps"] == 1e-5


@pytest.mark.parametrize(("actions", "gain"), [("discrete", 0.3), ("multi-discrete", 0.3), ("box", 0.01)])
def test_a_first_policy_may_have_preferences_where_actions_are_discrete(actions: str, gain: float) -> None:
    """Rows of an orthogonal matrix have the length of the gain."""

    def lengths(actions: str, **policy_kwargs: Any) -> torch.Tensor:
        env = toys(3, actions=actions)
        policy = MemoryPPO("MemoryPolicy", env, "none", policy_kwargs=policy_kwargs).policy
        return policy.action_net.weight.norm(dim=1)

    found = lengths(actions, first_preference=0.3)
    torch.testing.assert_close(found, torch.full_like(found, gain))
    torch.testing.assert_close(lengths("discrete"), torch.full((3,), 0.01))
    assert not torch.allclose(lengths("discrete", ortho_init=False), torch.full((3,), 0.01), atol=1e-3)
