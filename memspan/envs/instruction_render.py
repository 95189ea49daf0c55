"""Pages of Instruction: the story so far with its answers, and in the margin what is pending."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from memspan.envs.drawing import FAINT, INK, PAPER, Colour, write
from memspan.envs.instruction_grammar import Kind

ROWS = 15
"""Sentences on a page."""

WIDTH = 1180
MARGIN = 20
TITLE_HEIGHT = 48
TITLE_SIZE = 20
ROW_HEIGHT = 26
TEXT_SIZE = 14
SENTENCE_LEFT = 64
ANSWER_LEFT = 750
SIDE_LEFT = 950
SIDE_ROWS = ROWS - 2
HEIGHT = TITLE_HEIGHT + ROWS * ROW_HEIGHT + MARGIN

BAND: Colour = (255, 240, 190)
SIDE: Colour = (236, 236, 232)
GOOD: Colour = (20, 125, 60)
BAD: Colour = (190, 40, 40)


INKS: dict[Kind, Colour] = {Kind.INSTRUCTION: (25, 80, 175), Kind.MOMENT: (165, 85, 0), Kind.JOB: INK}
"""Of the sentences that concern the agent; the others recede."""

OTHERS_INK: Colour = (115, 115, 115)


class Line(NamedTuple):
    """A sentence of the story, and the answer that it got."""

    step: int
    kind: Kind
    sentence: str
    answer: str = ""
    right: bool = True


class Page(NamedTuple):
    """What a page shows; the last line of the story is the present sentence."""

    title: str
    story: tuple[Line, ...]
    done: tuple[str, ...]
    pending: tuple[str, ...]
    outcome: str
    success: bool


def print_page(page: Page) -> str:
    """The page as text."""
    lines = [f"Instruction    {page.title}    {page.outcome}".rstrip()]
    for line in page.story:
        mark = ">" if line is page.story[-1] else " "
        answer = f"  [{line.answer}{'' if line.right else ', wrong'}]" if line.answer else ""
        lines.append(f"{mark} {line.step:4d}  {line.sentence}{answer}")
    lines.append("pending: " + (", ".join(page.pending) or "nothing"))
    return "\n".join(lines) + "\n"


def draw_page(page: Page) -> npt.NDArray[np.uint8]:
    """The page as a picture, (HEIGHT, WIDTH, 3)."""
    picture = np.full((HEIGHT, WIDTH, 3), PAPER, dtype=np.uint8)
    picture[:, SIDE_LEFT - MARGIN :] = SIDE
    used = write(picture, page.title, MARGIN, MARGIN - 4, TITLE_SIZE)
    if page.outcome:
        ink = GOOD if page.success else BAD
        write(picture, page.outcome, MARGIN + used + 40, MARGIN - 4, TITLE_SIZE, ink)

    for row, line in enumerate(page.story):
        top = TITLE_HEIGHT + row * ROW_HEIGHT
        present = row == len(page.story) - 1
        paper = BAND if present else PAPER
        if present:
            picture[top : top + ROW_HEIGHT, : SIDE_LEFT - MARGIN] = paper
        text_top = top + (ROW_HEIGHT - TEXT_SIZE) // 2 + 2
        write(picture, str(line.step), MARGIN, text_top, TEXT_SIZE, FAINT, paper)
        write(
            picture, line.sentence, SENTENCE_LEFT, text_top, TEXT_SIZE, INKS.get(line.kind, OTHERS_INK), paper
        )
        ink = BAD if not line.right else FAINT if line.answer == "wait" else GOOD
        write(picture, line.answer, ANSWER_LEFT, text_top, TEXT_SIZE, ink, paper)

    write(picture, "to be executed", SIDE_LEFT, MARGIN - 2, TEXT_SIZE, INK, SIDE)
    duties = [(f"{text}, done", FAINT) for text in page.done] + [(text, INK) for text in page.pending]
    for row, (text, ink) in enumerate(duties[-SIDE_ROWS:]):
        write(picture, text, SIDE_LEFT, TITLE_HEIGHT + row * ROW_HEIGHT + 8, TEXT_SIZE, ink, SIDE)
    return picture
