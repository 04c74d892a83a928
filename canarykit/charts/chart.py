"""Chart: a picture with its sentence, that shows exactly once."""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Chart"]

# A white card on a dark page, and nothing to be seen of it on paper.
_CARD = "background:#fff; border-radius:6px; padding:4px; box-sizing:border-box; max-width:100%"

# In a dark JupyterLab white becomes nearly black, and each colour keeps its hue.
_DARK = (
    '<style>body[data-jp-theme-light="false"] img.canarykit-picture '
    "{ filter: invert(0.92) hue-rotate(180deg); } @media print { img.canarykit-picture { filter: none !important; } }</style>"
)


class Chart:
    """A figure and the sentence that says what it shows.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        Made without pyplot, so that no notebook shows it a second time.
    alt : str
        For whoever cannot see it; kept in notebooks and in reports made of them.
    title : str
        Finding that stands on top.
    cuts : sequence of float
        Shares of the width at which the picture may be cut, from left to right.
    head : float
        Share of the height that the title takes.
    """

    DPI = 144

    def __init__(self, figure: Figure, alt: str, *, title: str = "", cuts: Sequence[float] = (), head: float = 0.0) -> None:
        self.figure, self.alt, self.title = figure, alt, title
        self._cuts, self._head = cuts, head

    def png(self) -> bytes:
        """Return the picture as PNG."""
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format="png", dpi=self.DPI, metadata={"Description": self.alt})
        return buffer.getvalue()

    def strips(self) -> list[bytes]:
        """Return the picture without its title as PNG, cut into parts that a narrow page shows one below the other."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.image import imsave

        self.figure.set_dpi(self.DPI)
        canvas = FigureCanvasAgg(self.figure)
        canvas.draw()
        pixels = np.asarray(canvas.buffer_rgba())
        height, width, _ = pixels.shape
        strips = []
        for strip in np.split(pixels[round(self._head * height) :], [round(cut * width) for cut in self._cuts], axis=1):
            buffer = io.BytesIO()
            imsave(buffer, np.ascontiguousarray(strip), format="png")
            strips.append(buffer.getvalue())
        return strips

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the picture in the format that the path's ending names; return the path."""
        target = Path(path)
        self.figure.savefig(target, dpi=self.DPI)
        return target

    def __repr__(self) -> str:
        return f"Chart: {self.alt}"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        picture = base64.b64encode(self.png()).decode()
        alt = html.escape(self.alt, quote=True)
        width = round(self.figure.get_figwidth() * 96)
        style = f"{_CARD}; width:{width}px"
        image = f'<img class="canarykit-picture" alt="{alt}" src="data:image/png;base64,{picture}" style="{style}">{_DARK}'
        return {"text/html": image, "text/plain": self.alt}
