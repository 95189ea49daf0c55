"""Corridor by RecurrentPPO of sb3-contrib, whose policies have an LSTM.

Needs sb3-contrib: pip install 'memspan[examples]'. `VecEnvAdapter` makes a `VecEnv` of SB3 of Gymnasium's
vector environments.

    python examples/recurrent_ppo.py

Takes about 25 seconds on one core; after 20,000 steps success is 1.00.
"""

import gymnasium as gym
import tyro

from memspan import VecEnvAdapter


def main(timesteps: int = 20_000, max_length: int = 8) -> float:
    """Trains; returns the success rate of the last episodes."""
    try:
        from sb3_contrib import RecurrentPPO
    except ImportError as error:
        raise SystemExit(f"{error}: install it by pip install 'memspan[examples]'") from None
    envs = gym.make_vec(
        "memspan:memspan/Corridor-v0",
        num_envs=16,
        vectorization_mode="vector_entry_point",
        max_length=max_length,
    )
    model = RecurrentPPO(
        "MlpLstmPolicy",
        VecEnvAdapter(envs),
        # The symbols are no pixels, and 64 units are enough.
        policy_kwargs={"normalize_images": False, "lstm_hidden_size": 64},
        n_steps=64,
        batch_size=256,
        learning_rate=1e-3,
        ent_coef=0.01,
        seed=0,
        device="cpu",
    )
    model.learn(timesteps, progress_bar=timesteps > 10_000)
    success = sum(model.ep_success_buffer) / max(len(model.ep_success_buffer), 1)
    print(f"RecurrentPPO, corridors of 3 to {max_length} steps: success {success:.2f}; by chance 0.5")
    return success


if __name__ == "__main__":
    tyro.cli(main)
