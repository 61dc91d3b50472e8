"""Drawing with flat shapes: colours, curves, and a pen that fills polygons.

A point of the image is a complex number x + y*1j, y downward; the shorter side of the image runs from -1 to 1:
a pose (scale, tilt, place) is then one multiplication and one addition. Every shape is a filled polygon on a canvas a
few times too large, which is averaged down at the end.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import ImageDraw

Color = tuple[int, int, int]
Points = NDArray[np.complex128]

CIRCLE: Points = np.exp(2j * np.pi * np.arange(49) / 48)  # clockwise from the right; the upper half comes last
CAP: Points = np.exp(-1j * np.pi * np.arange(1, 8) / 8)
CURVE = np.linspace(0, 1, 13)


def palette(text: str) -> dict[str, Color]:
    """Read `name=rrggbb` pairs."""
    pairs = (word.split("=") for word in text.split())
    return {name: (int(code[:2], 16), int(code[2:4], 16), int(code[4:], 16)) for name, code in pairs}


def mix(color: Color, other: Color, amount: float) -> Color:
    red, green, blue = (round(a + (b - a) * amount) for a, b in zip(color, other, strict=True))
    return red, green, blue


def shade(color: Color, amount: float = 0.22) -> Color:
    return mix(color, (60, 20, 60), amount)


def oval(centre: complex, wide: float, tall: float, power: float = 2) -> Points:
    """Return an ellipse; a higher power makes it a box with round corners."""
    x, y = CIRCLE.real, CIRCLE.imag
    if power != 2:
        x, y = (np.sign(v) * np.abs(v) ** (2 / power) for v in (x, y))
    return centre + wide * x + 1j * tall * y


def box(corner: complex, other: complex, power: float = 8) -> Points:
    half = (other - corner) / 2
    return oval(corner + half, half.real, half.imag, power)


def arc(start: complex, bend: complex, end: complex) -> Points:
    """Return a quadratic curve that leaves `start` toward `bend` and reaches `end` from there."""
    path: Points = start * (1 - CURVE) ** 2 + 2 * bend * CURVE * (1 - CURVE) + end * CURVE**2
    return path


def loop(start: complex, bend: complex, end: complex, back: complex) -> Points:
    """Return a curve from `start` to `end` and another one back: a mouth, a visor, a lock of hair."""
    return np.concatenate([arc(start, bend, end), arc(end, back, start)])


def dome(half: float, top: float, low: float) -> Points:
    """Return the round top of a hat."""
    side = half + low * 1j
    peak = complex(0, top)
    return np.concatenate([arc(-side.conjugate(), complex(-half, top), peak), arc(peak, complex(half, top), side)])


class Pen:
    """A pen fills polygons, given in the units above, under one pose."""

    def __init__(self, draw: ImageDraw.ImageDraw, turn: complex, origin: complex) -> None:
        self.draw, self.turn, self.origin = draw, turn, origin

    def fill(self, points: Points, color: Color) -> None:
        placed = points * self.turn + self.origin
        self.draw.polygon(placed.view(np.float64).tolist(), fill=color)

    def stroke(self, path: Points, width: float, color: Color) -> None:
        """Draw a line with round ends."""
        along = np.gradient(path)
        side = along / np.abs(along) * (0.5j * width)
        ends = path[-1] + side[-1] * CAP, path[0] - side[0] * CAP
        self.fill(np.concatenate([path + side, ends[0], (path - side)[::-1], ends[1]]), color)
