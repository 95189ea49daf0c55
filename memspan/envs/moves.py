"""What the tasks on a grid share: how an agent moves, and how far it sees."""

from enum import IntEnum

from memspan.envs.vector_arguments import is_integer

VIEW_SIZES = (3, 5, 7)


class Moves(IntEnum):
    """Actions, in the order of MiniGrid's `DIR_TO_VEC`; y grows downwards."""

    right = 0
    down = 1
    left = 2
    up = 3


def check_view_size(view_size: int) -> None:
    """Checks how many cells an agent sees along each side.

    Raises:
        ValueError: it is not 3, 5 or 7.
    """
    if not is_integer(view_size) or view_size not in VIEW_SIZES:
        raise ValueError(f"view_size must be 3, 5 or 7, got {view_size!r}")
