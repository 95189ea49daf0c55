"""Reading observations off the memory's inputs: what is compared with what, and what it keeps."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX
from toys import corridors

from memspan.agents import MemoryPPO
from memspan.agents.reconstruction import WhatIsSeen

B, D = 5, 8
N_STATES = 4


def cross_entropy(logit: float, said: bool) -> float:
    return float(np.log1p(np.exp(-logit if said else logit)))


def of_sentence(read: Any, sentence: Any) -> float:
    return sum(cross_entropy(logit, word in sentence) for word, logit in enumerate(read))


def of_number(read: Any, number: Any) -> float:
    return sum(cross_entropy(logit, value == number) for value, logit in enumerate(read))


def of_numbers(read: Any, numbers: Any) -> float:
    return of_number(read[:2], numbers[0]) + of_number(read[2:], numbers[1])


def of_switches(read: Any, switches: Any) -> float:
    return sum(cross_entropy(logit, bool(on)) for logit, on in zip(read, switches, strict=True))


def of_vector(read: Any, vector: Any) -> float:
    return float(((read - vector.flatten()) ** 2).sum())


def of_symbols(read: Any, cells: Any) -> float:
    loss, sizes = 0.0, (len(OBJECT_TO_IDX), len(COLOR_TO_IDX), N_STATES)
    for row in cells:
        for cell in row:
            for symbol, n in zip(cell, sizes, strict=True):
                loss, read = loss + of_number(read[:n], min(symbol, n - 1)), read[n:]
    assert len(read) == 0
    return loss


SYMBOLS = spaces.Box(
    np.zeros((2, 2, 3), np.uint8), np.uint8([10, 5, 3]) * np.ones((2, 2, 3), np.uint8), dtype=np.uint8
)
PARTS = {
    "sentence": (spaces.MultiDiscrete([20] * 6), of_sentence, 20),
    "number": (spaces.Discrete(3), of_number, 3),
    "numbers": (spaces.MultiDiscrete([2, 3]), of_numbers, 5),
    "switches": (spaces.MultiBinary(3), of_switches, 3),
    "symbols": (SYMBOLS, of_symbols, 4 * (11 + 6 + 4)),
    "vector": (spaces.Box(-1, 1, (2, 2), np.float32), of_vector, 4),
}


def a_batch(space: spaces.Space) -> Any:
    space.seed(0)
    return np.stack([space.sample() for _ in range(B)])


@pytest.mark.parametrize("name", PARTS)
def test_error_is_that_of_a_loop(name: str) -> None:
    space, error, length = PARTS[name]
    torch.manual_seed(0)
    module, x, observations = WhatIsSeen(D, space), torch.randn(B, D), a_batch(space)
    read = module.decoder(x).detach().double().numpy()
    assert read.shape == (B, length)
    expected = np.mean([error(read[b], observations[b]) for b in range(B)])
    assert module(x, torch.as_tensor(observations)).item() == pytest.approx(expected, rel=1e-5)


def test_symbols_may_be_turned() -> None:
    turned = spaces.Box(0, 10, (3, 2, 2), np.uint8)
    module, x, observations = WhatIsSeen(D, SYMBOLS), torch.randn(B, D), torch.as_tensor(a_batch(SYMBOLS))
    other = WhatIsSeen(D, turned)
    other.load_state_dict(module.state_dict())
    assert other(x, observations.permute(0, 3, 1, 2)) == module(x, observations)


def test_parts_of_a_dict_are_added() -> None:
    torch.manual_seed(0)
    space = spaces.Dict({name: part for name, (part, _, _) in PARTS.items()})
    module, x = WhatIsSeen(D, space), torch.randn(B, D)
    observations = {name: a_batch(part) for name, part in space.spaces.items()}
    read, expected = module.decoder(x).detach().double().numpy(), 0.0
    for name in space.spaces:
        _, error, length = PARTS[name]
        expected += np.mean([error(read[b, :length], observations[name][b]) for b in range(B)])
        read = read[:, length:]
    tensors = {name: torch.as_tensor(values) for name, values in observations.items()}
    assert module(x, tensors).item() == pytest.approx(expected, rel=1e-5)


def test_gradient_reaches_the_input() -> None:
    x = torch.randn(B, D).requires_grad_()
    WhatIsSeen(D, spaces.Discrete(3))(x, torch.zeros(B)).backward()
    assert x.grad is not None
    assert (x.grad.abs().sum(1) > 0).all()


def test_pictures_are_refused() -> None:
    picture = spaces.Box(0, 255, (40, 40, 3), np.uint8)
    for space in picture, spaces.Dict({"picture": picture, "word": spaces.Discrete(3)}):
        with pytest.raises(
            ValueError, match=r"^reconstruction_coef: must be 0 where pictures are observed, as in Box"
        ):
            WhatIsSeen(D, space)


def settings(**others: Any) -> dict[str, Any]:
    return {"memory": "lstm", "n_steps": 8, "device": "cpu", "policy_kwargs": {"width": 16}, **others}


def test_off_by_default_and_saved_when_on(tmp_path: Path) -> None:
    plain = MemoryPPO("MemoryPolicy", corridors(4), **settings())
    assert plain.policy.auxiliary.reconstruction is None
    model = MemoryPPO("MemoryPolicy", corridors(4), reconstruction_coef=0.5, seed=0, **settings())
    assert model.policy.auxiliary.reconstruction is not None
    model.learn(64)
    model.save(tmp_path / "model.zip")
    loaded = MemoryPPO.load(tmp_path / "model.zip", device="cpu")
    assert loaded.auxiliary_coefs["reconstruction"] == 0.5
    for name, value in model.policy.state_dict().items():
        torch.testing.assert_close(loaded.policy.state_dict()[name], value)
    with pytest.raises(ValueError, match=r"^reconstruction_coef=-1: must be at least 0$"):
        MemoryPPO("MemoryPolicy", corridors(4), reconstruction_coef=-1, **settings())


class Chatter(gym.Env[Any, Any]):
    """Pays nothing; says one of 8 numbers at every step."""

    observation_space = spaces.Discrete(8)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.time = 0
        return int(self.np_random.integers(8)), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.time += 1
        return int(self.np_random.integers(8)), 0.0, self.time == 5, False, {}


def test_it_keeps_what_nothing_pays_for() -> None:
    model = MemoryPPO(
        "MemoryPolicy",
        gym.vector.SyncVectorEnv([Chatter] * 8),
        learning_rate=3e-3,
        reconstruction_coef=1.0,
        seed=0,
        **settings(n_steps=20),
    )
    model.learn(30 * 8 * 20)
    # Not knowing the number costs 3.0 nats.
    assert model.logger.name_to_value["train/reconstruction_loss"] < 0.3
