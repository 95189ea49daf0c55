"""Pictures into a GIF or an MP4."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image

from memspan.show.pictures import Picture

ENDINGS = (".gif", ".mp4")


def check_video_path(path: Path) -> None:
    """Raises ValueError if a video cannot be written there."""
    if path.suffix.lower() not in ENDINGS:
        raise ValueError(f"record={str(path)!r}: must be a file name that ends in {' or '.join(ENDINGS)}")
    if path.exists():
        raise ValueError(f"record={str(path)!r}: exists already; choose another name or remove it")
    if path.suffix.lower() == ".mp4" and not can_write_mp4():
        needs = "MP4 needs imageio with ffmpeg, pip install 'memspan[video]'"
        raise ValueError(f"record={str(path)!r}: {needs}; or record a .gif")


def can_write_mp4() -> bool:
    """Whether the extra `video` is installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("imageio", "imageio_ffmpeg"))


class Recorder:
    """Writes a video; a context manager. The file appears when all of it is written.

    Args:
        path: ends in .gif or .mp4.
        fps: pictures per second.

    Raises:
        ValueError: see `check_video_path`.
    """

    def __init__(self, path: Path, fps: float) -> None:
        check_video_path(path)
        self.path = path
        self.fps = fps
        self._part = path.with_name(f".{path.stem}.part{path.suffix}")
        self._images: list[Image.Image] = []
        self._milliseconds: list[int] = []
        self._writer: Any = None

    def __enter__(self) -> Recorder:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.suffix.lower() == ".mp4":
            import imageio

            self._writer = imageio.get_writer(self._part, fps=self.fps, codec="libx264", macro_block_size=2)
        return self

    def add(self, picture: Picture, hold: float = 0.0) -> None:
        """Adds a picture (height, width, 3), shown for `hold` seconds longer than the others."""
        if self._writer is None:
            # Pictures are flat colours and text: 256 of them are enough, without dithering.
            self._images.append(
                Image.fromarray(picture).quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
            )
            # A GIF counts in hundredths of a second.
            self._milliseconds.append(round(100 * (1 / self.fps + hold)) * 10)
            return
        even = np.pad(picture, ((0, picture.shape[0] % 2), (0, picture.shape[1] % 2), (0, 0)), mode="edge")
        for _ in range(1 + round(hold * self.fps)):
            self._writer.append_data(even)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._writer is not None:
                self._writer.close()
            elif kind is None and self._images:
                first, *rest = self._images
                first.save(
                    self._part,
                    format="GIF",
                    save_all=True,
                    append_images=rest,
                    duration=self._milliseconds,
                    loop=0,
                )
            if kind is None and self._part.exists():
                os.replace(self._part, self.path)
        finally:
            self._part.unlink(missing_ok=True)
