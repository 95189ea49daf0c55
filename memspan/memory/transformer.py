"""What all Transformer memories share: the settings of their layers, and the layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from memspan.memory.attention import AttentionLayer, Residual
from memspan.memory.base import MemoryConfig


@dataclass(frozen=True)
class TransformerConfig(MemoryConfig):
    """Settings that all Transformers share."""

    n_layers: int = 2
    """Attention layers, each with a cache of its own."""
    n_heads: int = 4
    """Attention heads; must divide the width."""
    ff_factor: int = 2
    """Hidden units of the feed-forward layers, in multiples of the width."""
    n_frequencies: int = 8
    """Sines and cosines that tell distances apart."""
    copy_at_first: bool = False
    """Start with attention that adds what it reads as it was stored."""
    position_values: bool = False
    """What is read tells how long ago it was, too."""

    def validate(self) -> None:
        for name in ("n_layers", "n_heads", "ff_factor", "n_frequencies"):
            self._require(name, getattr(self, name) >= 1, "at least 1")


def attention_layers(
    width: int, config: TransformerConfig, horizon: int, residual: Callable[[], Residual] = Residual
) -> nn.ModuleList:
    """The layers of a Transformer.

    Args:
        width: D.
        config: settings.
        horizon: longest distance that they tell apart.
        residual: makes what joins input and answer of a sub-layer.
    """
    return nn.ModuleList(
        AttentionLayer(
            width,
            config.n_heads,
            config.n_frequencies,
            horizon,
            config.ff_factor,
            config.copy_at_first,
            config.position_values,
            residual,
        )
        for _ in range(config.n_layers)
    )
