"""A memory of somebody's own that breaks a rule is refused with the rule's name."""

import pytest
import torch
from members import MEMBERS

from memspan.memory import Memory, MemoryOutput, check_rules, make_memory


class Last(Memory):
    """Remembers the step before."""

    def __init__(self, width, config=None):
        super().__init__(width)

    def initial_state(self, batch_size, device="cpu"):
        return {"last": torch.zeros(batch_size, self.width, device=device)}

    def forward(self, x, state, episode_starts, keep_state=True):
        before = torch.cat([state["last"][None], x[:-1]])
        before = torch.where(episode_starts[..., None], 0.0, before)
        return MemoryOutput(
            x + before, {"last": x[-1].detach()}, stats={"effective_memory": torch.ones(x.shape[:2])}
        )

    @property
    def capacity(self):
        return 1.0


class TimeFirst(Last):
    def initial_state(self, batch_size, device="cpu"):
        return {"last": torch.zeros(1, batch_size, self.width)}


class Tuple(Last):
    def forward(self, x, state, episode_starts, keep_state=True):
        return x, state


class Narrow(Last):
    def forward(self, x, state, episode_starts, keep_state=True):
        out = super().forward(x, state, episode_starts)
        return MemoryOutput(out.features[..., :2], out.state, stats=out.stats)


class Attached(Last):
    def __init__(self, width, config=None):
        super().__init__(width)
        self.write = torch.nn.Linear(width, width)

    def forward(self, x, state, episode_starts, keep_state=True):
        out = super().forward(x, state, episode_starts)
        return MemoryOutput(out.features, {"last": self.write(x[-1])}, stats=out.stats)


class Silent(Last):
    def forward(self, x, state, episode_starts, keep_state=True):
        out = super().forward(x, state, episode_starts)
        return MemoryOutput(out.features, out.state)


class MeanLoss(Last):
    def forward(self, x, state, episode_starts, keep_state=True):
        out = super().forward(x, state, episode_starts)
        return MemoryOutput(out.features, out.state, {"own": x.mean()}, out.stats)


class Unforgetting(Last):
    def forward(self, x, state, episode_starts, keep_state=True):
        return super().forward(x, state, torch.zeros_like(episode_starts))


class Normalised(Last):
    def forward(self, x, state, episode_starts, keep_state=True):
        out = super().forward(x, state, episode_starts)
        return MemoryOutput(out.features - out.features.mean(1, keepdim=True), out.state, stats=out.stats)


class Hurried(Last):
    def step(self, x, state, episode_start):
        out = super().step(x, state, episode_start)
        return MemoryOutput(out.features + 1, out.state, out.losses, out.stats)


@pytest.mark.parametrize(
    ("broken", "rule"),
    [
        (TimeFirst, "initial_state must give a dict of tensors whose first dimension is the batch"),
        (Tuple, "forward must give a MemoryOutput, not tuple"),
        (Narrow, r"features must have the shape of x, \(4, 3, 8\), not \(4, 3, 2\)"),
        (Attached, "the state must be detached"),
        (Silent, 'stats must have "effective_memory"'),
        (MeanLoss, r"losses\['own'\] must be of shape \(T, B\), \(4, 3\), not \(\)"),
        (Unforgetting, "episode_starts must clear the state"),
        (Normalised, "rows must not affect each other"),
        (Hurried, "steps one by one must give what a block gives"),
    ],
)
def test_a_broken_rule_is_named(broken, rule):
    with pytest.raises(ValueError, match=f"memory={broken.__name__}: {rule}"):
        check_rules(broken(8))


def test_who_is_not_registered_is_looked_at():
    assert isinstance(make_memory(f"{__name__}:Last", 8), Last)
    with pytest.raises(ValueError, match="memory=Silent"):
        make_memory(f"{__name__}:Silent", 8)


@pytest.mark.parametrize("label", MEMBERS)
def test_all_of_ours_pass_and_nothing_else_changes(label):
    name, settings = MEMBERS[label]
    memory = make_memory(name, 8, settings)
    before = {key: value.clone() for key, value in memory.state_dict().items()}
    random = torch.get_rng_state()
    check_rules(memory.train())
    assert memory.training
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[key]) for key, value in memory.state_dict().items())
