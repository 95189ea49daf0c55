"""Matrix products in bfloat16, all else in single precision, for processors that multiply those much faster.

Weights, gradients and the optimizer stay in single precision; a layer rounds inputs and weights to bfloat16
(8 bits of mantissa) for the product alone. Attention scores, gates and what is remembered are not rounded.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

PRECISIONS = ("float32", "bfloat16")


class BFloat16Linear(nn.Linear):
    """A linear layer whose product is in bfloat16; inputs and outputs are what they were."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        bias = None if self.bias is None else self.bias.bfloat16()
        return F.linear(x.bfloat16(), self.weight.bfloat16(), bias).to(x.dtype)


def use_precision(module: nn.Module, precision: str) -> None:
    """Has a module's linear layers multiply in this precision; their parameters stay what they are.

    Raises:
        ValueError: there is no such precision.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision={precision!r}: must be one of {', '.join(PRECISIONS)}")
    kind = BFloat16Linear if precision == "bfloat16" else nn.Linear
    for layer in module.modules():
        if type(layer) in (nn.Linear, BFloat16Linear):
            layer.__class__ = kind
