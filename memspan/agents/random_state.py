"""The random generators that an agent draws from, as tensors: torch's, NumPy's and Python's own.

torch         (.,)   uint8    torch's on the CPU
cuda          (.,)   uint8    torch's on the agent's GPU, if it is on one
numpy         (626,) long     NumPy's global one: 624 words, the place in them, whether there is a spare
numpy_spare   (1,)   double   normal number
python        (625,) long     that of `random`
python_spare  (0 or 1,) double
"""

from __future__ import annotations

import random
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from memspan.agents.stored import get_tensor

MAY_DIFFER = ("python_spare", "cuda")
"""Names of which the size is not fixed, or which may be missing."""


def get_random_state(device: torch.device) -> dict[str, Tensor]:
    """Where all of them are, see above."""
    _, words, place, has_spare, spare = np.random.get_state(legacy=True)  # noqa: NPY002
    _, python_words, python_spare = random.getstate()
    state = {
        "torch": torch.get_rng_state(),
        "numpy": torch.tensor([*words.tolist(), place, has_spare]),  # type: ignore[union-attr]
        "numpy_spare": torch.tensor([spare], dtype=torch.float64),
        "python": torch.tensor(python_words),
        "python_spare": torch.tensor([] if python_spare is None else [python_spare], dtype=torch.float64),
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: Mapping[str, Tensor], device: torch.device) -> None:
    """Has all of them go on from there; a GPU's only if there was one.

    Raises:
        ValueError: one of them has no such state.
    """
    for name in "numpy", "python":
        values = get_tensor(state, name)
        if not ((values >= 0) & (values < 2**32)).all() or not 0 <= int(values[624]) <= 624:
            raise ValueError(f"random.{name}: no state of a Mersenne twister")
    for name, count in ("numpy_spare", 1), ("python_spare", get_tensor(state, "python_spare").numel()):
        values = get_tensor(state, name)
        if values.shape != (count,) or count > 1 or not values.is_floating_point():
            raise ValueError(f"random.{name}: must be at most one normal number")
    try:
        torch.set_rng_state(state["torch"])
    except RuntimeError as error:
        raise ValueError(f"torch's random generator: {error}") from None
    *words, place, has_spare = state["numpy"].tolist()
    spare = state["numpy_spare"].item()
    np.random.set_state(("MT19937", np.array(words, dtype=np.uint32), place, has_spare, spare))  # noqa: NPY002
    python_spare = state["python_spare"].tolist()
    random.setstate((3, tuple(state["python"].tolist()), python_spare[0] if python_spare else None))
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
