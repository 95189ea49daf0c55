"""What one process learns with all environments, or each of several with its share."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import torch

import memspan  # noqa: F401  (registers the environments)
from memspan.agents import MemoryPPO
from memspan.agents.distributed import joined

N_ENVS, N_STEPS, N_ROLLOUTS = 8, 8, 3
SLOTS = {"n_heads": 2, "n_layers": 1}
SPANS = {**SLOTS, "max_span": 8, "ramp": 3, "shorten_spans": True}
GIVES_UP = {"memory_loss_coef": 0.1, "memory_loss_gate": 0.01, "memory_target": 0.5, "stats_window_size": 3}
AUXILIARY = {"prediction_coef": 0.3, "outcome_coef": 0.3, "reconstruction_coef": 0.1}
CASES: dict[str, dict[str, Any]] = {
    "lstm": {"memory": "lstm", "target_kl": 0.02},
    "transformer-xl": {"memory": "transformer-xl", "memory_kwargs": {**SLOTS, "memory_size": 6}, **AUXILIARY},
    "expire-span": {"memory": "expire-span", "memory_kwargs": SPANS, **GIVES_UP},
    "CartPole": {"env": "CartPole-v1", "memory": "none", "clip_range_vf": 0.2},
    "Pendulum": {"env": "Pendulum-v1", "memory": "gru", "learning_rate": 1e-3},
}


def learn(case: str, path: str) -> dict[str, Any]:
    """Learns, writes the policy to `path`, and tells what was recorded."""
    settings = dict(CASES[case])
    env_id = settings.pop("env", "memspan/Corridor-v0")
    torch.set_num_threads(1)
    with joined("cpu") as processes:
        kwargs: dict[str, Any] = {"vectorization_mode": "vector_entry_point", "max_length": 5}
        if not env_id.startswith("memspan/"):
            kwargs = {"vectorization_mode": "sync", "max_episode_steps": 6}
            kwargs["vector_kwargs"] = {"autoreset_mode": gym.vector.AutoresetMode.SAME_STEP}
        envs = gym.make_vec(env_id, N_ENVS // processes.size, **kwargs)
        model = MemoryPPO(
            "MlpPolicy",
            envs,
            n_steps=N_STEPS,
            n_minibatches=4,  # of two rows: often a process has none of them
            n_epochs=2,
            seed=3,
            # Adam would make steps of gradients that are 0 but for rounding.
            policy_kwargs={
                "width": 8,
                "optimizer_class": torch.optim.SGD,
                "optimizer_kwargs": {"momentum": 0.9},
            },
            device="cpu",
            **{"learning_rate": 0.05, **settings},
        )
        before = {name: value.clone() for name, value in model.policy.state_dict().items()}
        if processes.size > 1:
            model.learn_with(processes)
        model.learn(N_ENVS * N_STEPS * N_ROLLOUTS)
        recorded = dict(model.logger.name_to_value)
        torch.save((before, model.policy.state_dict(), torch.get_rng_state()), f"{path}-{processes.rank}")
        return {
            "timesteps": model.num_timesteps,
            "n_updates": model._n_updates,
            "episodes": [[one["r"], one["l"]] for one in model.ep_info_buffer or ()],
            "recorded": {
                name: float(value) for name, value in recorded.items() if not name.startswith("time/")
            },
        }


def read(path: Path | str) -> Any:
    return torch.load(path, weights_only=True)
