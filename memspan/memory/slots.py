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

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from memspan.memory.attention import AttentionLayer, Residual
from memspan.memory.base import FREE, Memory, MemoryOutput, Remembered, State
from memspan.memory.masked_block import NEVER, MaskedBlock, Readable
from memspan.memory.span_attention import Fading, ReadableKeys, pack_rows
from memspan.memory.step_attention import bias_by_span, has_kernels, on_cpu_without_graph, store_in_slots
from memspan.memory.transformer import TransformerConfig, attention_layers

Remembering = tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Tensor]]
GROWTH = 8
"""A full cache grows by an eighth of its slots, and by at least one."""


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

    @property
    def fades(self) -> bool:
        """Whether a span of each slot tells what may be read, for all heads: then `fading` is there, too."""
        return False

    def fading(self, layer: int, slots: Tensor) -> Fading:
        """The same as `readable` and `lifetime`, of slots (keys, D)."""
        raise NotImplementedError(f"{type(self).__name__} has no spans that tell all")

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

    def read_besides_at_step(
        self, layer: int, x: Tensor, u: Tensor, hidden: Tensor, age: Tensor, state: State, start: Tensor
    ) -> tuple[Tensor, State]:
        """`read_besides` of a step, without T; may write to the state."""
        starts = start[:, None]
        with_more, more = self.read_besides(layer, x[:, None], u[:, None], hidden, age, state, starts)
        return with_more[:, 0], more

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
        starts = episode_starts.T  # (B, T)
        h = x.transpose(0, 1)
        new_state: State = {}
        losses: dict[str, list[Tensor]] = {}
        visible: list[Tensor] = []
        masked: tuple[MaskedBlock, Readable] | None = None
        for n, layer in enumerate(self.layers):
            assert isinstance(layer, AttentionLayer)
            hidden, age = self._readable_slots(n, state, episode_starts[0])
            u = layer.normalise(h)
            if n and not self.same_slots_in_all_layers:
                masked = None
            with_more, more = self.read_besides(n, h, u, hidden, age, state, starts)
            # A GPU would have to be waited for, and does not ask.
            used = (age != FREE).sum(1).tolist() if age.device.type == "cpu" else []
            slots: Tensor | None = None
            listed = self._listed(n, hidden, age, used, u, starts)
            if listed is not None:
                packed, fading, keys = listed
                h = layer.attend_listed(with_more, u, packed, fading.span, keys)
                count = keys.counts
                made = {name: keys.made_in_block(loss) for name, loss in fading.losses.items()}
            else:
                if masked is None:
                    block = MaskedBlock.of(age, starts, used, self.longest_distance, x.dtype)
                    seen = self.readable(n, self._append(hidden, u), block.distance)
                    count = torch.count_nonzero(seen.by_any_head > -NEVER, dim=-1)
                    masked = block, seen
                block, seen = masked
                slots, made = seen.slots, seen.losses
                h = layer.attend_block(
                    with_more, u, hidden[..., : self.width], block.birth, seen.bias, block.pieces
                )
            visible.append(count - 1)  # the step itself is no memory
            for name, value in made.items():
                losses.setdefault(name, []).append(value.T)
            if keep_state:
                slots = self._append(hidden, u) if slots is None else slots
                new_state[f"hidden.{n}"], new_state[f"age.{n}"] = self._keep(n, slots, age, starts)
                new_state |= more
            self.learn_about(n, u.detach())
        return MemoryOutput(
            self.norm(h.transpose(0, 1)),
            new_state,
            {name: torch.stack(values).mean(0) for name, values in losses.items()},
            {"effective_memory": torch.stack(visible).to(x.dtype).mean(0).T + self.constant_vectors},
        )

    def _listed(
        self, layer: int, hidden: Tensor, age: Tensor, used: list[int], u: Tensor, starts: Tensor
    ) -> tuple[Tensor, Fading, ReadableKeys] | None:
        """Packed keys and what can be read of them, if that is little enough to be listed."""
        if not (self.fades and has_kernels(u)) or self.same_slots_in_all_layers:  # a window is dense
            return None
        packed = pack_rows(hidden[..., : self.width], u, used)
        fading = self.fading(layer, packed)
        keys = ReadableKeys(starts, age, used, fading)
        return (packed, fading, keys) if keys.are_few else None

    def step(self, x: Tensor, state: State, episode_start: Tensor) -> MemoryOutput:
        started = episode_start.nonzero().squeeze(-1) if episode_start.any() else None
        new_state: State = {}
        visible: list[Tensor] = []
        losses: dict[str, list[Tensor]] = {}
        remember = self._remembering(x)
        # Views cost more than what some layers compute.
        reads_besides = type(self).read_besides is not SlotTransformer.read_besides
        h = x
        for n, layer in enumerate(self.layers):
            assert isinstance(layer, AttentionLayer)
            hidden, age = state[f"hidden.{n}"], state[f"age.{n}"]
            if started is not None:
                # Leftovers would pass on a NaN even at a weight of 0.
                hidden.index_fill_(0, started, 0.0)
                age.index_fill_(0, started, FREE)
            u = layer.normalise(h)
            if reads_besides:
                h, more = self.read_besides_at_step(n, h, u, hidden, age, state, episode_start)
                new_state |= more
            hidden, age, bias, count, made = remember(n, hidden, age, u)
            h = layer.attend_step(h, u, hidden, age, self.longest_distance + 1, bias)
            visible.append(count)
            for name, value in made.items():
                losses.setdefault(name, []).append(value)
            new_state[f"hidden.{n}"], new_state[f"age.{n}"] = hidden, age
        return MemoryOutput(
            self.norm(h),
            new_state,
            {name: torch.stack(values).mean(0) for name, values in losses.items()},
            {"effective_memory": torch.stack(visible).mean(0) + self.constant_vectors},
        )

    def _remembering(self, x: Tensor) -> Callable[[int, Tensor, Tensor, Tensor], Remembering]:
        """How a step of `x` (B, D) remembers, see `_remember_by_mask`."""
        return self._remember_by_span if self.fades and on_cpu_without_graph(x) else self._remember_by_mask

    def _remember_by_span(self, layer: int, hidden: Tensor, age: Tensor, u: Tensor) -> Remembering:
        """As `_remember_by_mask`, where spans tell all; on a CPU."""
        fading = self.fading(layer, hidden.flatten(0, 1))
        own = self.fading(layer, u)
        span = fading.span.view(age.shape)
        full = store_in_slots(hidden, age, span + fading.ramp, u)
        if full is not None:
            hidden, age = self._grow(hidden, age)
            span = F.pad(span, (0, age.shape[1] - span.shape[1]))
            store_in_slots(hidden, age, None, u, full)
        return hidden, age, *bias_by_span(age, span, fading.ramp), own.losses

    def _remember_by_mask(self, layer: int, hidden: Tensor, age: Tensor, u: Tensor) -> Remembering:
        """Ages a layer's slots by a step, drops those that are over, and stores what is new.

        Args:
            layer: n.
            hidden: (B, S, D + notes); written, and so is `age`.
            age: (B, S).
            u: (B, D) what is new.

        Returns:
            Slots, which may be more now, their ages, (B, 1 or H, S) what is added to their scores, (B,) how
            many can be read, the new one not counted, and losses, (B,) each.
        """
        age += age != FREE
        age[age >= self.lifetime(layer, hidden)] = FREE
        free = age == FREE
        if not free.any(-1).all():
            hidden, age = self._grow(hidden, age)
            free = age == FREE
        rows, slot = torch.arange(len(u), device=u.device), free.to(torch.uint8).argmax(-1)
        hidden[rows, slot] = self._with_notes(u).detach()
        age[rows, slot] = 0
        distance = age.to(u.dtype).masked_fill_(age == FREE, NEVER)
        seen = self.readable(layer, hidden, distance.unsqueeze(1))
        hidden = hidden if seen.slots is None else seen.slots
        losses = {name: value.squeeze(1) for name, value in seen.losses.items()}
        bias = seen.bias.squeeze(-2).view(len(u), -1, age.shape[1])
        count = ((bias.amax(1) > -NEVER).sum(-1) - 1).to(u.dtype)
        return hidden, age, bias, count, losses

    def _with_notes(self, u: Tensor) -> Tensor:
        """(..., D) as new slots."""
        return F.pad(u, (0, self.n_notes)) if self.n_notes else u

    def _append(self, hidden: Tensor, u: Tensor) -> Tensor:
        """Cached slots, then those of the block."""
        return torch.cat([hidden, self._with_notes(u)], dim=1)

    def _grow(self, hidden: Tensor, age: Tensor) -> tuple[Tensor, Tensor]:
        """Adds free slots to every row."""
        more = (len(age), 1 + age.shape[1] // GROWTH)
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
