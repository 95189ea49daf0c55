"""MemoryPPO on MiniGrid's own memory task, from symbols or from pixels.

An object is seen in the first room, and at the end of a corridor the same has to be chosen of two. The agent
sees 7 x 7 cells: as MiniGrid's symbols, which are embedded, or drawn, through NatureCNN.

    python examples/minigrid_memory.py
    python examples/minigrid_memory.py --pixels

A million steps take about 7 minutes on one core from symbols and about 20 minutes from pixels, by the pace
of the first thousands; what success they bring has not been measured.
"""

import gymnasium as gym
import minigrid  # noqa: F401  (registers MiniGrid's ids)
import tyro
from minigrid.wrappers import ImgObsWrapper, RGBImgPartialObsWrapper
from stable_baselines3.common.env_util import make_vec_env

from memspan import MemoryPPO


def main(timesteps: int = 1_000_000, pixels: bool = False, n_envs: int = 16) -> float:
    """Trains; returns the mean return of the last episodes."""

    def make() -> gym.Env:
        env = gym.make("MiniGrid-MemoryS13Random-v0")
        # 8 pixels a cell: 56 x 56, of which NatureCNN needs 36 at least.
        return ImgObsWrapper(RGBImgPartialObsWrapper(env, tile_size=8) if pixels else env)

    model = MemoryPPO(
        "CnnPolicy",
        make_vec_env(make, n_envs),
        memory="transformer-xl",
        memory_kwargs={"memory_size": 64, "n_layers": 1},
        n_steps=128,
        learning_rate=1e-3,
        ent_coef=0.01,
        seed=0,
    )
    print(f"sees {model.observation_space.shape} through {type(model.policy.features_extractor).__name__}")
    model.learn(timesteps, progress_bar=timesteps > 10_000)
    returns = [episode["r"] for episode in model.ep_info_buffer]
    mean = sum(returns) / max(len(returns), 1)
    print(
        f"mean return of the last {len(returns)} episodes: {mean:.2f}; one who guesses gets half of the best"
    )
    return mean


if __name__ == "__main__":
    tyro.cli(main)
