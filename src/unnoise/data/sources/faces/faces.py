"""Cartoon faces drawn on demand: you can recognise them at 32 pixels, and they still look good at 256."""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import product
from random import Random
from typing import Literal, TypeVar

import numpy as np
from PIL import Image, ImageDraw

from unnoise.data.sources.faces.pen import CIRCLE, Pen, Points, arc, box, dome, loop, mix, oval, palette, shade
from unnoise.data.sources.source import Item, Source
from unnoise.errors import InputError
from unnoise.registry import dataset

VERSION = 1  # part of the key: raise it whenever any face changes

Label = Literal["skin", "hair", "hair_color", "eyes", "mouth", "glasses", "hat", "background"]
T = TypeVar("T")


SKINS = palette("porcelain=ffe0c8 peach=f8c8a4 honey=e6ac7a olive=c89262 bronze=a86e48 brown=845238 deep=644030")
HAIRS = palette("black=2a242e brown=623c2a red=963e28 ginger=e27430 blond=f6d06e grey=ccd0da pink=f06e9c blue=4668c8")
GROUNDS = palette("sky=a4d4f6 mint=a0e0c8 lemon=fee696 coral=fa9684 lilac=ccbcf6 rose=fabed2 teal=4ab0b4 cream=faf2e4")
ACCENTS = palette("red=e4524c blue=3474b8 green=1e9482 yellow=fab638 violet=7c58be pink=ec6e96 navy=2c3a5c")
IRISES = palette("brown=4e3024 blue=3470b0 green=3e8250 grey=5e6470")
WHITE, INK, MOUTH, TONGUE, GOLD = palette("w=fffdfa i=262230 m=681828 t=f0787c g=f8c442").values()

# Every entry of a list is equally likely, so that a word written twice is drawn twice as often.
KINDS: dict[str, Sequence[str]] = {
    "skin": tuple(SKINS),
    "hair": ["bald", "short", "fringe", "spiky", "curly", "afro", "bun", "pigtails", "long", "bob"],
    "hair_color": tuple(HAIRS),
    "eyes": ["open", "open", "open", "left", "right", "wink", "closed"],
    "mouth": ["smile", "grin", "laugh", "open", "neutral", "sad"],
    "glasses": ["none", "none", "none", "none", "round", "square", "sunglasses"],
    "hat": ["none", "none", "none", "cap", "beanie", "tophat", "party", "crown"],
    "background": tuple(GROUNDS),
}


def pick(rng: Random, choices: Sequence[T]) -> T:
    # Only Random.random() is promised to be the same in every version of Python; choice() is not.
    return choices[int(rng.random() * len(choices))]


class Look:
    """The random choices of one face: colours, shapes, and its place in the image."""

    def __init__(self, index: int) -> None:
        rng = Random(f"look {index}")  # noqa: S311 - nothing secret
        self.kind = attributes(index)
        self.hatted, self.hair_style = self.kind["hat"] != "none", self.kind["hair"]
        self.skin, self.hair = SKINS[self.kind["skin"]], HAIRS[self.kind["hair_color"]]
        self.cloth, self.accent, self.trim = (pick(rng, list(ACCENTS.values())) for _ in range(3))
        self.dark = sum(self.skin) < 300  # dark lines would be invisible on this skin
        self.iris = pick(rng, list(IRISES.values()))
        self.pattern = pick(rng, ["plain", "gradient", "halves", "dots", "disc", "rays"])
        self.collar = pick(rng, ["round", "v", "shirt", "hood", "stripes"])
        self.cheeks = rng.random() < 0.6
        self.brow = rng.random() * 0.14 - 0.07
        head = oval(0, 0.49 + 0.06 * rng.random(), 0.55 + 0.05 * rng.random(), pick(rng, (2, 2.3, 2.8)))
        self.head: Points = 0.12j + head.real * (1 - 0.15 * rng.random() * head.imag) + 1j * head.imag
        self.tilt = np.exp(1j * np.radians(16 * rng.random() - 8))
        tall = self.hatted or self.hair_style in ("bun", "afro", "pigtails")  # these need room
        self.scale = (0.94 + 0.1 * rng.random()) * (1 if tall else 1.1)
        self.shift = complex(0.08 * rng.random() - 0.04, 0.04 * rng.random() - (0 if tall else 0.08))

    def rim(self, grow: float, low: float) -> Points:
        """Return the part of the outline of the head above `low`, from left to right, `grow` times as large."""
        outline = 0.12j + (self.head[24:] - 0.12j) * grow
        return outline[outline.imag < low]


def draw_background(size: tuple[int, int], look: Look) -> Image.Image:
    """Draw the background; the pattern has a paler tone of its colour."""
    color = GROUNDS[look.kind["background"]]
    pale = mix(color, WHITE, 0.4)
    image = Image.new("RGB", size, color)
    wide, high = size
    unit = min(size) / 2
    pen = Pen(ImageDraw.Draw(image), unit, complex(*size) / 2)
    match look.pattern:
        case "gradient":
            image.paste(pale, (0, 0), Image.linear_gradient("L").resize(size))
        case "halves":
            pen.draw.polygon([(0, 0), (wide * 0.62, 0), (wide * 0.38, high), (0, high)], fill=pale)
        case "disc":
            pen.fill(oval(0.05j, 0.88, 0.88), pale)
        case "dots":
            step, dot = unit * 0.5, unit * 0.09
            for row, column in product(range(int(high / step) + 1), range(int(wide / step) + 1)):
                x, y = (column + row % 2 / 2) * step, (row + 0.4) * step
                pen.draw.ellipse((x - dot, y - dot, x + dot, y + dot), fill=pale)
        case "rays":
            reach = 3 * max(size) / unit
            for ray in CIRCLE[::6]:
                pen.fill(np.array([0, ray * reach, ray * CIRCLE[3] * reach]), pale)
    return image


def back_hair(pen: Pen, look: Look) -> None:
    dark = shade(look.hair, 0.14)
    match look.hair_style:
        case "long":
            pen.fill(box(-0.66 - 0.48j, 0.66 + 1.1j, 3), dark)
        case "bob":
            pen.fill(box(-0.68 - 0.48j, 0.68 + 0.64j, 3), dark)
        case "afro":
            pen.fill(oval(-0.06j, 0.76, 0.72), look.hair)
        case "pigtails":
            for side in (-1, 1):
                pen.fill(oval(side * 0.7 + 0.36j, 0.17, 0.3), look.hair)
                pen.fill(oval(side * 0.6 + 0.08j, 0.09, 0.09), look.trim)
        case "bun" if not look.hatted:
            pen.fill(oval(-0.64j, 0.24, 0.22), look.hair)
            pen.stroke(arc(-0.16 - 0.5j, -0.46j, 0.16 - 0.5j), 0.07, look.trim)


def body(pen: Pen, look: Look) -> None:
    tone, dark = look.cloth, shade(look.cloth)
    pen.fill(np.append(dome(0.84, 0.74, 1.2), [0.84 + 99j, -0.84 + 99j]), tone)
    if look.collar == "stripes":
        for row, color in enumerate((mix(tone, WHITE, 0.7), tone) * 2):
            pen.fill(np.append(dome(0.84, 0.87 + 0.09 * row, 1.4 + 0.09 * row), [0.84 + 99j, -0.84 + 99j]), color)
    if look.collar == "hood":
        pen.fill(oval(0.76j, 0.44, 0.16), dark)
    if look.collar == "shirt":
        pen.fill(np.array([-0.34 + 0.72j, 0.34 + 0.72j, 0.3 + 0.92j, 0.9j, -0.3 + 0.92j]), WHITE)
    pen.fill(box(-0.17 + 0.5j, 0.17 + 0.8j), shade(look.skin))
    neck = np.array([-0.17 + 0.74j, 0.17 + 0.74j, 0.96j]) if look.collar in ("v", "shirt") else oval(0.78j, 0.17, 0.09)
    pen.fill(neck, shade(look.skin))


def head(pen: Pen, look: Look) -> None:
    for side in (-1, 1):
        pen.fill(oval(side * 0.52 + 0.16j, 0.11, 0.13), shade(look.skin, 0.1))
    pen.fill(look.head, look.skin)
    if look.cheeks:
        for side in (-1, 1):
            pen.fill(oval(side * 0.33 + 0.34j, 0.09, 0.065), mix(look.skin, (244, 84, 92), 0.35))
    pen.fill(oval(0.26j, 0.06, 0.05), shade(look.skin, 0.28))


def eyes(pen: Pen, look: Look) -> None:
    gaze = {"left": -0.065, "right": 0.065}.get(look.kind["eyes"], 0)
    lid = mix(look.skin, WHITE, 0.18) if look.dark else shade(look.skin, 0.1)
    for side in (-1, 1):
        x = side * 0.225
        brow = complex(0, look.brow * side)
        pen.stroke(arc(x - 0.1 - 0.13j - brow / 2, x - 0.19j, x + 0.1 - 0.13j + brow / 2), 0.05, shade(look.hair, 0.35))
        if look.kind["eyes"] == "closed" or (look.kind["eyes"] == "wink" and side > 0):
            pen.fill(oval(x + 0.09j, 0.13, 0.12), lid)
            pen.stroke(arc(x - 0.13 + 0.09j, x + 0.25j, x + 0.13 + 0.09j), 0.065, INK)
            continue
        pen.fill(oval(x + 0.09j, 0.14, 0.15), WHITE)
        pen.fill(oval(x + gaze + 0.1j, 0.09, 0.1), look.iris)
        pen.fill(oval(x + gaze + 0.1j, 0.055, 0.06), INK)
        pen.fill(oval(x + gaze - 0.03 + 0.06j, 0.028, 0.028), WHITE)


def mouth(pen: Pen, look: Look) -> None:
    line = (214, 104, 100) if look.dark else mix(look.skin, MOUTH, 0.9)
    match look.kind["mouth"]:
        case "smile":
            pen.stroke(arc(-0.2 + 0.41j, 0.63j, 0.2 + 0.41j), 0.065, line)
        case "sad":
            pen.stroke(arc(-0.17 + 0.53j, 0.35j, 0.17 + 0.53j), 0.065, line)
        case "neutral":
            pen.stroke(arc(-0.14 + 0.47j, 0.47j, 0.14 + 0.47j), 0.065, line)
        case "open":
            pen.fill(oval(0.48j, 0.125, 0.14), line)
            pen.fill(oval(0.48j, 0.095, 0.11), MOUTH)
            pen.fill(oval(0.54j, 0.065, 0.05), TONGUE)
        case "grin":
            pen.fill(loop(-0.27 + 0.37j, 0.4j, 0.27 + 0.37j, 0.78j), line)
            pen.fill(loop(-0.22 + 0.4j, 0.42j, 0.22 + 0.4j, 0.68j), WHITE)
        case "laugh":
            pen.fill(loop(-0.29 + 0.36j, 0.36j, 0.29 + 0.36j, 0.91j), line)
            pen.fill(loop(-0.24 + 0.39j, 0.39j, 0.24 + 0.39j, 0.83j), MOUTH)
            pen.fill(loop(-0.14 + 0.54j, 0.46j, 0.14 + 0.54j, 0.66j), TONGUE)


def glasses(pen: Pen, look: Look) -> None:
    style = look.kind["glasses"]
    if style == "none":
        return
    frame = INK if style == "sunglasses" else mix(look.trim, WHITE, 0.45) if look.dark else shade(look.trim, 0.5)
    pen.stroke(arc(-0.08 + 0.06j, 0.02j, 0.08 + 0.06j), 0.05, frame)
    for side in (-1, 1):
        pen.stroke(arc(side * 0.4 + 0.04j, side * 0.46 + 0.04j, side * 0.53 + 0.06j), 0.045, frame)
        centre = side * 0.235 + 0.1j
        if style == "sunglasses":
            pen.fill(oval(centre, 0.2, 0.17, 3), frame)
            pen.stroke(arc(centre - 0.1 - 0.02j, centre - 0.08 - 0.08j, centre - 0.02 - 0.1j), 0.045, (120, 130, 160))
        else:
            tall, power = (0.2, 2) if style == "round" else (0.185, 5)
            inner = oval(centre, 0.155, tall - 0.045, power)[::-1]
            pen.fill(np.append(oval(centre, 0.2, tall, power), inner), frame)  # out and back along a seam


def front_hair(pen: Pen, look: Look) -> None:
    """Draw the hair on top of the head, down to a hairline."""
    bends = {"short": -0.35 - 0.38j, "fringe": 0.04j, "bob": 0.04j, "curly": -0.3j}
    if look.hair_style == "bald":
        return
    top = rim = look.rim(1.09, 0.02)
    if look.hair_style == "spiky" and not look.hatted:
        top = 0.12j + (rim - 0.12j) * np.array([1, 1.11, 1.25, 1.11])[np.arange(len(rim)) % 4]
    if look.hair_style == "curly":
        for curl in look.rim(1.06, 0.12)[1::3]:
            pen.fill(oval(curl, 0.15, 0.15), look.hair)
    line = arc(rim[-1], bends.get(look.hair_style, -0.36j), rim[0])
    if look.hair_style in ("bun", "pigtails", "long"):  # parted
        line = np.append(arc(rim[-1], 0.42 - 0.18j, -0.36j), arc(-0.36j, -0.42 - 0.18j, rim[0]))
    pen.fill(np.append(top, line), look.hair)
    pen.stroke(arc(-0.3 - 0.3j, -0.18 - 0.42j, 0 - 0.42j), 0.045, mix(look.hair, WHITE, 0.25))


def hat(pen: Pen, look: Look) -> None:
    dark = shade(look.accent)
    match look.kind["hat"]:
        case "cap":
            pen.fill(dome(0.57, -0.62, -0.16), look.accent)
            pen.fill(loop(-0.3 - 0.18j, 0.4 - 0.36j, 0.8 - 0.1j, 0.3 - 0.12j), dark)
            pen.fill(oval(-0.62j, 0.07, 0.045), look.trim)
        case "beanie":
            pen.fill(oval(-0.7j, 0.15, 0.15), mix(look.trim, WHITE, 0.6))
            pen.fill(dome(0.56, -0.68, -0.2), look.accent)
            pen.fill(box(-0.6 - 0.36j, 0.6 - 0.12j, 5), dark)
        case "tophat":
            felt = mix(look.accent, INK, 0.6)
            pen.fill(box(-0.4 - 0.88j, 0.4 - 0.2j, 9), felt)
            pen.fill(box(-0.4 - 0.44j, 0.4 - 0.24j, 20), mix(look.trim, WHITE, 0.35))
            pen.fill(box(-0.72 - 0.28j, 0.72 - 0.15j, 4), felt)
        case "party":
            pen.fill(np.append(arc(-0.38 - 0.3j, -0.2j, 0.38 - 0.3j), -0.84j), look.accent)
            for dot in (-0.17 - 0.37j, 0.16 - 0.4j, -0.03 - 0.57j):
                pen.fill(oval(dot, 0.065, 0.065), WHITE)
            pen.fill(oval(-0.81j, 0.1, 0.1), look.trim)
        case "crown":
            sides = [-0.46 - 0.2j, -0.54 - 0.68j, -0.26 - 0.44j, -0.78j, 0.26 - 0.44j, 0.54 - 0.68j, 0.46 - 0.2j]
            pen.fill(np.array(sides), GOLD)
            pen.fill(box(-0.49 - 0.32j, 0.49 - 0.16j), shade(GOLD))
            for gem in (-0.54 - 0.68j, -0.78j, 0.54 - 0.68j):
                pen.fill(oval(gem, 0.07, 0.07), look.accent)


def draw_face(index: int, size: tuple[int, int]) -> Image.Image:
    """Draw face number `index` at (width, height): in the middle, as large as the shorter side allows."""
    look = Look(index)
    times = max(3, min(6, 384 // min(size)))  # finer where each pixel matters
    canvas = draw_background((size[0] * times, size[1] * times), look)
    draw = ImageDraw.Draw(canvas)
    unit = min(canvas.size) / 2
    upright = Pen(draw, unit * look.scale, complex(*canvas.size) / 2 + unit * look.shift)
    tilted = Pen(draw, upright.turn * look.tilt, upright.origin + 0.7j * upright.turn * (1 - look.tilt))
    for part in (back_hair, body, head, eyes, mouth, front_hair, glasses, hat):
        part(upright if part is body else tilted, look)
    return canvas.reduce(times)


def attributes(index: int) -> dict[str, str]:
    """Return the attributes of face number `index`, without drawing it."""
    rng = Random(index)  # noqa: S311 - nothing secret
    kind = {key: pick(rng, names) for key, names in KINDS.items()}
    return kind | {"eyes": "hidden"} if kind["glasses"] == "sunglasses" else kind


def face(index: int, size: tuple[int, int] = (64, 64)) -> tuple[Image.Image, dict[str, str]]:
    """Draw face number `index` at (width, height), each at least 8, and return it with its attributes.

    Every machine draws the same face.
    """
    return draw_face(index, size), attributes(index)


@dataset
def faces(*, count: int = 20_000, label: Label = "hat") -> Source:
    """Draw cartoon faces: made by unnoise itself, so that nothing is downloaded.

    Args:
        count: Number of faces.
        label: The attribute that is the class of a face.

    Raises:
        InputError: If `count` is less than 1.
    """
    if count < 1:
        raise InputError(f"data faces: count takes 1 or more, got {count}; for example count=20000")
    return Source("faces", f"faces-{VERSION}-{count}-{label}", partial(face_items, count, label), count, uniform=True)


def face_items(count: int, label: Label) -> Iterator[Item]:
    """Yield faces that are drawn when they are decoded."""
    for index in range(count):
        yield Item(f"{index:06d}", partial(draw_face, index), attributes(index)[label])
