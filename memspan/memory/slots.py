"""A Transformer whose memory is a set of slots: what its subclasses choose is which slots stay.

What is remembered: per layer, layer-normalised inputs of past steps, without gradient. State, per layer n:

    hidden.n  (B, S, D) float   what was stored; a subclass may note more beside it
    age.n     (B, S)    long    steps since it was stored, 0 for the last step; -1: the slot is free

Slots are in no order; a slot's place in time is its age. S may differ from layer to layer and grows and
shrinks with what is kept.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from memspan.memory.attention import AttentionLayer, Residual
from memspan.memory.base import FREE, Memory, MemoryOutput, Remembered, State
from memspan.memory.block_attention import cut_block
from memspan.memory.transformer import TransformerConfig, attention_layers

NEVER = float("inf")
GROWTH = 16
"""Slots by which a full cache grows."""


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


class SlotTransformer(Memory):
    """Attention layers over slots; see the module's docstring for the state."""

    def __init__(
        self,
        width: int,
        config: TransformerConfig,
        horizon: int,
        residual: Callable[[], Residual] = Residual,
    ) -> None:
        super().__init__(width)
        self.n_layers = config.n_layers
        self.longest_distance = horizon
        self.layers = attention_layers(width, config, horizon, residual)
        self.norm = nn.LayerNorm(width)

    initial_slots: int
    """S of a state that remembers nothing."""
    n_notes = 0
    """Numbers that a slot holds after its D: 0 when it is made, then what `readable` leaves there."""
    same_slots_in_all_layers = False
    """Whether layers always keep the same steps, so that what one may read holds for all."""
    constant_vectors = 0.0
    """Memory vectors of a layer that are no slots and always count."""

    @abstractmethod
    def lifetime(self, layer: int, slots: Tensor) -> Tensor | float:
        """Steps for which each slot can be read after it was stored: (B, K), or one number.

        Slots are (B, K, D + notes), here and below.
        """

    @abstractmethod
    def readable(self, layer: int, slots: Tensor, distance: Tensor) -> Readable:
        """Which of the slots a query may read, given their distances.

        Distances (B, T, K) are negative in the future, and beyond `longest_distance` for other episodes'
        steps and unused slots.
        """

    def learn_about(self, layer: int, slots: Tensor) -> None:
        """Called with a block's new slots (B, T, D), once what is kept is settled; by default nothing."""

    def read_besides(
        self, layer: int, x: Tensor, u: Tensor, hidden: Tensor, age: Tensor, state: State, starts: Tensor
    ) -> tuple[Tensor, State]:
        """Adds to a layer's input what it reads of a memory other than its slots; by default nothing.

        Args:
            layer: n.
            x: (B, T, D) input of the layer; T is 1 for a step.
            u: (B, T, D) `normalise(x)`, which the block's slots will hold.
            hidden: (B, S, D) cached slots, in no order.
            age: (B, S) as the last step before the block left them.
            state: before the block.
            starts: (B, T) where episodes start.

        Returns:
            (B, T, D) and the entries of the state after the block.
        """
        return x, {}

    def initial_state(self, batch_size: int, device: torch.device | str = "cpu") -> State:
        state: State = {}
        shape = (batch_size, self.initial_slots)
        for n in range(self.n_layers):
            state[f"hidden.{n}"] = torch.zeros(*shape, self.width + self.n_notes, device=device)
            state[f"age.{n}"] = torch.full(shape, FREE, device=device)
        return state

    def forward(
        self, x: Tensor, state: State, episode_starts: Tensor, keep_state: bool = True
    ) -> MemoryOutput:
        n_steps = x.shape[0]
        starts = episode_starts.T  # (B, T)
        time = torch.arange(n_steps, device=x.device, dtype=x.dtype)
        # Each start puts later steps so far away that nothing before it can be within reach:
        #            cached      block t=0..3, an episode starts at t=2
        #   t=0      3 2 1       0  -  -  -
        #   t=1      4 3 2       1  0  -  -      - : negative, the future
        #   t=2      # # #       #  #  0  -      # : too far, another episode
        #   t=3      # # #       #  #  1  0
        far = self.longest_distance + n_steps + 1
        # Whole numbers: single precision has them up to 2 ** 24.
        precision = x.dtype if far * n_steps < 2**24 else torch.float64
        clock = time.to(precision) + far * starts.cumsum(1)  # (B, T)
        h = x.transpose(0, 1)
        new_state: State = {}
        losses: dict[str, list[Tensor]] = {}
        visible: list[Tensor] = []
        for n, layer in enumerate(self.layers):
            assert isinstance(layer, AttentionLayer)
            hidden, age = self._readable_slots(n, state, episode_starts[0])
            u = layer.normalise(h)
            if n == 0 or not self.same_slots_in_all_layers:
                cached = torch.where(age == FREE, -NEVER, (-1 - age).to(x.dtype))  # births
                birth = torch.cat([cached, time.expand_as(clock)], dim=1)  # (B, K)
                pieces = None
                if x.device.type == "cpu":
                    used = (age != FREE).sum(1).tolist()
                    pieces = cut_block(starts, used, birth.shape[1])
                key_clock = torch.cat([cached.to(precision), clock], dim=1)
                distance = (clock[:, :, None] - key_clock[:, None, :]).to(x.dtype)  # (B, T, K)
                seen = self.readable(n, self._append(hidden, u), distance)
                # The step itself is no memory.
                count = torch.count_nonzero(seen.by_any_head > -NEVER, dim=-1) - 1
            visible.append(count)
            for name, value in seen.losses.items():
                losses.setdefault(name, []).append(value.T)
            h, more = self.read_besides(n, h, u, hidden, age, state, starts)
            h = layer.attend_block(h, u, hidden[..., : self.width], birth, seen.bias, pieces)
            if keep_state:
                slots = self._append(hidden, u) if seen.slots is None else seen.slots
                new_state[f"hidden.{n}"], new_state[f"age.{n}"] = self._keep(n, slots, age, starts)
                new_state |= more
            self.learn_about(n, u.detach())
        return MemoryOutput(
            self.norm(h.transpose(0, 1)),
            new_state,
            {name: torch.stack(values).mean(0) for name, values in losses.items()},
            {"effective_memory": torch.stack(visible).to(x.dtype).mean(0).T + self.constant_vectors},
        )

    def step(self, x: Tensor, state: State, episode_start: Tensor) -> MemoryOutput:
        rows = torch.arange(len(x), device=x.device)
        started = episode_start.nonzero().squeeze(-1)
        new_state: State = {}
        visible: list[Tensor] = []
        losses: dict[str, list[Tensor]] = {}
        h = x
        for n, layer in enumerate(self.layers):
            assert isinstance(layer, AttentionLayer)
            hidden, age = state[f"hidden.{n}"], state[f"age.{n}"]
            if len(started):
                # Leftovers would pass on a NaN even at a weight of 0.
                hidden.index_fill_(0, started, 0.0)
                age.index_fill_(0, started, FREE)
            u = layer.normalise(h)
            starts = episode_start[:, None]
            with_more, more = self.read_besides(n, h[:, None], u[:, None], hidden, age, state, starts)
            age += age != FREE
            age[age >= self.lifetime(n, hidden)] = FREE
            free = age == FREE
            if not free.any(-1).all():
                hidden, age = self._grow(hidden, age)
                free = age == FREE
            slot = free.to(torch.uint8).argmax(-1)
            hidden[rows, slot] = self._with_notes(u).detach()
            age[rows, slot] = 0
            distance = age.to(x.dtype).masked_fill_(age == FREE, NEVER)
            seen = self.readable(n, hidden, distance.unsqueeze(1))
            hidden = hidden if seen.slots is None else seen.slots
            h, content = with_more[:, 0], hidden[..., : self.width]
            h = layer.attend_step(
                h, u, content, age.clamp(min=0), self.longest_distance + 1, seen.bias.squeeze(-2)
            )
            visible.append((seen.by_any_head.squeeze(1) > -NEVER).sum(-1) - 1)
            for name, value in seen.losses.items():
                losses.setdefault(name, []).append(value.squeeze(1))
            new_state[f"hidden.{n}"], new_state[f"age.{n}"] = hidden, age
            new_state |= more
        return MemoryOutput(
            self.norm(h),
            new_state,
            {name: torch.stack(values).mean(0) for name, values in losses.items()},
            {"effective_memory": torch.stack(visible).to(x.dtype).mean(0) + self.constant_vectors},
        )

    def _with_notes(self, u: Tensor) -> Tensor:
        """(..., D) as new slots."""
        return F.pad(u, (0, self.n_notes)) if self.n_notes else u

    def _append(self, hidden: Tensor, u: Tensor) -> Tensor:
        """Cached slots, then those of the block."""
        return torch.cat([hidden, self._with_notes(u)], dim=1)

    def _grow(self, hidden: Tensor, age: Tensor) -> tuple[Tensor, Tensor]:
        """Adds free slots to every row."""
        more = (len(age), GROWTH)
        return (
            torch.cat([hidden, hidden.new_zeros(*more, hidden.shape[-1])], dim=1),
            torch.cat([age, age.new_full(more, FREE)], dim=1),
        )

    @torch.no_grad()
    def compact(self, state: State) -> State:
        new_state: State = {}
        for n in range(self.n_layers):
            hidden, age = state[f"hidden.{n}"], state[f"age.{n}"]
            new_state[f"hidden.{n}"], new_state[f"age.{n}"] = self._drop_expired(n, hidden, age)
        return new_state

    @torch.no_grad()
    def remembered(self, state: State) -> list[Remembered]:
        layers: list[Remembered] = []
        for n in range(self.n_layers):
            age = state[f"age.{n}"]
            free = age == FREE
            # As in `_readable_slots`: free slots hold leftovers.
            hidden = torch.where(free[..., None], 0.0, state[f"hidden.{n}"])
            distance = age.to(hidden.dtype).masked_fill(free, NEVER)
            seen = self.readable(n, hidden, distance.unsqueeze(1))
            strength = seen.by_any_head.squeeze(1).exp()
            # An age below its lifetime can be read, and the next step finds it one older.
            left = (torch.as_tensor(self.lifetime(n, hidden)) - 1 - age).ceil().clamp(min=0)
            layer = self.layers[n]
            assert isinstance(layer, AttentionLayer)
            shares = layer.shares_of_last_step(hidden[..., : self.width], age, seen.bias.squeeze(-2))
            layers.append(Remembered(age.clone(), strength, left.masked_fill(free, 0.0), attention=shares))
        return layers

    @torch.no_grad()
    def _readable_slots(self, layer: int, state: State, episode_start: Tensor) -> tuple[Tensor, Tensor]:
        """The slots of a layer that the block can still read, in as few columns as possible."""
        hidden, age = state[f"hidden.{layer}"], state[f"age.{layer}"]
        age = age.masked_fill(episode_start[:, None], FREE)
        # Free slots hold leftovers, which even at a weight of 0 would pass on a NaN.
        hidden = torch.where((age == FREE)[..., None], 0.0, hidden)
        # The block's first step sees everything one step older.
        age = torch.where(age + 1 < self.lifetime(layer, hidden), age, FREE)
        return self._pack(hidden, age, headroom=0)

    @torch.no_grad()
    def _keep(self, layer: int, slots: Tensor, age: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
        """The cache after a block: of slots, the block's included, what the next step can still read."""
        n_steps = starts.shape[1]
        later_start = starts.flip(1).cumsum(1).flip(1)  # (B, T): starts at t or later
        block_age = torch.arange(n_steps - 1, -1, -1, device=slots.device).expand_as(starts)
        block_age = torch.where(later_start - starts.long() > 0, FREE, block_age)
        age = torch.where((age == FREE) | starts.any(1, keepdim=True), FREE, age + n_steps)
        return self._drop_expired(layer, slots, torch.cat([age, block_age], dim=1))

    def _drop_expired(self, layer: int, hidden: Tensor, age: Tensor) -> tuple[Tensor, Tensor]:
        """What the next step can still read, with one slot free for it."""
        age = torch.where(age + 1 < self.lifetime(layer, hidden), age, FREE)
        return self._pack(hidden, age, headroom=1)

    @staticmethod
    def _pack(hidden: Tensor, age: Tensor, headroom: int) -> tuple[Tensor, Tensor]:
        """Moves each row's used slots to the back and cuts what no row uses, but for `headroom`."""
        used = age != FREE
        n_columns = min(int(used.sum(-1).amax()) + headroom, age.shape[1])
        order = used.to(torch.uint8).argsort(dim=1, stable=True)[:, age.shape[1] - n_columns :]
        return hidden.gather(1, order[..., None].expand(-1, -1, hidden.shape[-1])), age.gather(1, order)
