"""Loads a run that `memspan train` has made, and looks at what its agent remembers while it acts.

`memspan watch` draws this; here are the numbers.

    memspan train --memory expire-span --env.max-length 20
    python examples/look_inside.py runs/Corridor-v0/expire-span/0

Takes about 5 seconds.
"""

from pathlib import Path

import torch
import tyro
from tyro.conf import Positional

from memspan.runs import load_model


def main(run: Positional[Path], seed: int = 0) -> list[float]:
    """Plays an episode; returns the effective memory at every step."""
    config, model = load_model(run, device="cpu")
    policy, env = model.policy, model.get_env()
    env.seed(seed)
    torch.manual_seed(seed)
    obs, state, over = env.reset(), policy.memory.initial_state(1), False
    effective: list[float] = []
    print(f"{config.memory} on {config.env}: a memory of at most {policy.memory.capacity:g} vectors")
    while not over:
        start = torch.tensor([not effective])
        with torch.no_grad():
            acted = policy.act(torch.as_tensor(obs), state, start)
            state = acted.memory.state
            layers = policy.memory.remembered(state)
        effective.append(acted.memory.stats["effective_memory"].item())
        line = f"step {len(effective):3}  value {acted.values.item():5.2f}  effective {effective[-1]:5.1f}"
        for layer in layers:
            if layer.age.shape[1]:
                # Slots, and how many steps ago what they hold was seen; others hold vectors of constant size.
                ages = layer.age[0][layer.readable[0]].sort().values.tolist()
                line += f"  reads {len(ages)}" + (f", back to {ages[-1]} steps ago" if ages else "")
            for name, vector in layer.vectors.items():
                line += f"  {name} of length {vector.norm().item():.2f}"
        print(line)
        obs, rewards, dones, infos = env.step(acted.actions.numpy())
        over = bool(dones[0])
    print(f"return {rewards[0]:g}, success {infos[0].get('is_success')}")
    env.close()
    return effective


if __name__ == "__main__":
    tyro.cli(main)
