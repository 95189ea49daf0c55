"""What a block's queries may read, as a mask over all keys: for memories of every kind, on every device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from memspan.memory.base import FREE
from memspan.memory.block_attention import Piece, cut_block

NEVER = float("inf")


@dataclass
class Readable:
    """What the queries of one layer may read."""

    bias: Tensor
    """(B, T, K), or (B, H, T, K) where heads differ: added to the scores, -inf where nothing may be read."""
    losses: dict[str, Tensor]
    """(B, T) each."""
    slots: Tensor | None = None
    """(B, K, D + notes): the slots as the queries leave them; None: as they were."""

    @property
    def by_any_head(self) -> Tensor:
        """(B, T, K): the largest bias, that of the head that reads the most."""
        return self.bias if self.bias.ndim == 3 else self.bias.amax(1)


@dataclass(frozen=True)
class MaskedBlock:
    """Times and distances of a block, which layers with the same slots share."""

    birth: Tensor
    """(B, K) when each key was made, slots before block; 0 is the block's first step, -inf: not used."""
    distance: Tensor
    """(B, T, K) steps from key to query; negative in the future, and too far in other episodes."""
    pieces: list[Piece] | None
    """See `memspan.memory.block_attention`; None: dense attention."""

    @classmethod
    def of(
        cls, age: Tensor, starts: Tensor, used: list[int], longest_distance: int, dtype: torch.dtype
    ) -> MaskedBlock:
        """Works them out.

        Args:
            age: (B, S) long, of the slots; a row's used ones are the last.
            starts: (B, T) bool, where episodes start.
            used: B numbers of slots in use.
            longest_distance: that anything reads over.
            dtype: of the block.
        """
        n_steps = starts.shape[1]
        time = torch.arange(n_steps, device=age.device, dtype=dtype)
        # Each start puts later steps so far away that nothing before it can be within reach:
        #            cached      block t=0..3, an episode starts at t=2
        #   t=0      3 2 1       0  -  -  -
        #   t=1      4 3 2       1  0  -  -      - : negative, the future
        #   t=2      # # #       #  #  0  -      # : too far, another episode
        #   t=3      # # #       #  #  1  0
        far = longest_distance + n_steps + 1
        # Whole numbers: single precision has them up to 2 ** 24.
        precision = dtype if far * n_steps < 2**24 else torch.float64
        clock = time.to(precision) + far * starts.cumsum(1)  # (B, T)
        cached = torch.where(age == FREE, -NEVER, (-1 - age).to(dtype))
        birth = torch.cat([cached, time.expand_as(clock)], dim=1)
        key_clock = torch.cat([cached.to(precision), clock], dim=1)
        distance = (clock[:, :, None] - key_clock[:, None, :]).to(dtype)
        on_cpu = age.device.type == "cpu"
        return cls(birth, distance, cut_block(starts, used, birth.shape[1]) if on_cpu else None)
