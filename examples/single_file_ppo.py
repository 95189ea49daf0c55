"""PPO in one file, with any of memspan's memories and no Stable-Baselines3.

A memory is a torch module: `memory(x, state, episode_starts)` reads a block of T steps of B environments.
Acting calls it with T = 1, the update with a whole rollout, of which the state before it is all that is kept.

    python examples/single_file_ppo.py --memory transformer-xl

Takes about 10 seconds on one core; with the GRU, success is 0.95 after 20,000 steps.
"""

import gymnasium as gym
import torch
import tyro
from torch import nn
from torch.distributions import Categorical

import memspan  # noqa: F401  (registers the environments)
from memspan.memory import make_memory, select_rows

T, B, WIDTH = 32, 16, 64
GAMMA, LAMBDA, CLIP = 0.99, 0.95, 0.2


class Agent(nn.Module):
    def __init__(self, n_inputs: int, n_actions: int, memory: str) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(n_inputs, WIDTH), nn.ReLU())
        self.memory = make_memory(memory, WIDTH)
        self.actor, self.critic = nn.Linear(WIDTH, n_actions), nn.Linear(WIDTH, 1)

    def forward(self, obs, state, starts):
        """(T, B, ...) observations, (T, B) starts -> distribution and values of T steps, state after them."""
        out = self.memory(self.embed(obs.flatten(2).float()), state, starts)
        return Categorical(logits=self.actor(out.features)), self.critic(out.features).squeeze(-1), out.state


def main(timesteps: int = 20_000, memory: str = "gru", max_length: int = 5, seed: int = 0) -> float:
    """Trains; returns the success rate of the last episodes."""
    torch.manual_seed(seed)
    kind = "vector_entry_point"
    envs = gym.make_vec("memspan/Corridor-v0", num_envs=B, vectorization_mode=kind, max_length=max_length)
    n_inputs = int(torch.tensor(envs.single_observation_space.shape).prod())
    agent = Agent(n_inputs, int(envs.single_action_space.n), memory)
    optimizer = torch.optim.Adam(agent.parameters(), lr=2e-3)
    obs, starts = torch.as_tensor(envs.reset(seed=seed)[0]), torch.ones(B, dtype=torch.bool)
    state, ended = agent.memory.initial_state(B), []
    for _ in range(max(timesteps // (T * B), 1)):
        before, steps = state, []
        for _ in range(T):
            with torch.no_grad():
                dist, value, state = agent(obs[None], state, starts[None])
            action = dist.sample()
            # Episodes start anew within the step that ends one; one that is cut short counts as over.
            after, reward, terminated, truncated, infos = envs.step(action[0].numpy())
            over = terminated | truncated
            ended += infos["success"][over].tolist()
            reward = torch.as_tensor(reward, dtype=torch.float32)
            steps.append((obs.clone(), starts, action[0], dist.log_prob(action)[0], value[0], reward))
            obs, starts = torch.as_tensor(after), torch.as_tensor(over)
        block_obs, block_starts, actions, log_probs, values, rewards = (
            torch.stack(one) for one in zip(*steps, strict=True)
        )
        with torch.no_grad():
            next_value = agent(obs[None], state, starts[None])[1][0]
        advantages, advantage, going = torch.zeros(T, B), torch.zeros(B), ~starts
        for t in reversed(range(T)):
            delta = rewards[t] + GAMMA * next_value * going - values[t]
            advantage = advantages[t] = delta + GAMMA * LAMBDA * advantage * going
            next_value, going = values[t], ~block_starts[t]
        returns = advantages + values
        advantages = (advantages - advantages.mean()) / advantages.std().clamp(min=0.05)
        for rows in [*torch.randperm(B).chunk(4), *torch.randperm(B).chunk(4), *torch.randperm(B).chunk(4)]:
            dist, value, _ = agent(block_obs[:, rows], select_rows(before, rows), block_starts[:, rows])
            ratio = (dist.log_prob(actions[:, rows]) - log_probs[:, rows]).exp()
            gain = advantages[:, rows]
            policy_loss = -torch.min(gain * ratio, gain * ratio.clamp(1 - CLIP, 1 + CLIP)).mean()
            loss = (
                policy_loss + 0.5 * (value - returns[:, rows]).square().mean() - 0.01 * dist.entropy().mean()
            )
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
            optimizer.step()
    success = sum(ended[-200:]) / max(len(ended[-200:]), 1)
    print(f"{memory}, corridors of 3 to {max_length} steps: success {success:.2f}; by chance 0.5")
    return success


if __name__ == "__main__":
    tyro.cli(main)
