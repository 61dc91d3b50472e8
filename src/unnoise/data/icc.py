"""ICC profiles: write one for given primaries and a tone curve, and apply the tone curve of another to gray."""

import struct
from collections.abc import Mapping
from functools import lru_cache
from typing import TypeAlias

import numpy as np

from unnoise.data.sources.source import Array

Primaries: TypeAlias = tuple[float, ...]  # x and y of white, red, green and blue, as PNG stores them
D65 = (0.3127, 0.3290)
SRGB_PRIMARIES: Primaries = (*D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
P3_PRIMARIES: Primaries = (*D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)
BT2020_PRIMARIES: Primaries = (*D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046)
SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)  # parameters of the ICC's curve of type 3
D50 = (0.9642, 1.0, 0.8249)  # the white of all profiles, XYZ
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def fixed_point(values: tuple[float, ...]) -> bytes:
    """Return numbers as signed 15.16 fixed point."""
    return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))


def xyz_tag(values: tuple[float, ...]) -> bytes:
    """Return a tag that holds one colour."""
    return b"XYZ \0\0\0\0" + fixed_point(values)


def curve_tag(curve: tuple[float, ...]) -> bytes:
    """Return the tag of a tone curve: one number is a power, five are the parameters of a power with a linear start."""
    return b"para\0\0\0\0" + struct.pack(">HH", 0 if len(curve) == 1 else 3, 0) + fixed_point(curve)


def write_profile(space: bytes, tags: Mapping[bytes, bytes]) -> bytes:
    """Return the bytes of a profile of version 4 with these tags; `space` is `RGB ` or `GRAY`."""
    tags = {b"wtpt": xyz_tag(D50), **tags}
    at = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        table += name + struct.pack(">II", at + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    head = struct.pack(
        ">I4sI4s4s4s12s4s28s", at + len(body), b"", 0x04300000, b"mntr", space, b"XYZ ", b"", b"acsp", b""
    )
    return (head + fixed_point(D50)).ljust(128, b"\0") + table + body


@lru_cache(64)
def rgb_profile(primaries: Primaries, curve: tuple[float, ...]) -> bytes:
    """Return a profile for these primaries; raise ValueError if they span no space of colours."""
    x, y = np.array(primaries).reshape(4, 2).T
    if not (np.isfinite(primaries).all() and (y > 0).all() and 0 < curve[0] < 100):
        raise ValueError("no primaries")
    white, *columns = np.stack([x / y, np.ones(4), (1 - x - y) / y], 1)
    basis = np.stack(columns, 1)
    if abs(np.linalg.det(basis)) < 1e-6:
        raise ValueError("no primaries")
    matrix = basis * np.linalg.solve(basis, white)  # the sum of the three colours is white
    adapted = np.linalg.solve(BRADFORD, np.diag(BRADFORD @ D50 / (BRADFORD @ white)) @ BRADFORD @ matrix)
    colours = {name: xyz_tag(tuple(adapted[:, i])) for i, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))}
    return write_profile(b"RGB ", colours | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve_tag(curve)))


def find_tag(profile: bytes, name: bytes) -> bytes:
    """Return the content of a tag; raise ValueError if the profile does not have it."""
    (count,) = struct.unpack_from(">I", profile, 128)
    for i in range(min(count, 100)):
        tag, at, size = struct.unpack_from(">4sII", profile, 132 + 12 * i)
        if tag == name:
            return profile[at : at + size]
    raise ValueError(f"the profile has no tag {name!r}")


def gray_to_light(profile: bytes, values: Array) -> Array:
    """Return the light, 0..1, of the gray values 0..1 of an image with this profile; one of RGB is asked for its green.

    Raise ValueError if the profile has no tone curve.
    """
    tag = find_tag(profile, b"kTRC" if profile[16:20] == b"GRAY" else b"gTRC")
    light = apply_curve(tag, values)
    if profile[16:20] == b"GRAY" and profile[20:24] == b"Lab ":  # then the curve gives the lightness L*
        light = np.where(light > 0.08, ((light * 100 + 16) / 116) ** 3, light * 100 / 903.3)
    return light


def apply_curve(tag: bytes, x: Array) -> Array:
    """Return the values 0..1 of a tone curve: a power, a table, or one of the parametric types 0 to 4."""
    kind, count = tag[:4], int.from_bytes(tag[8:12], "big")
    if kind == b"curv" and count <= 1:
        return np.power(x, int.from_bytes(tag[12:14], "big") / 256 if count else 1.0)
    if kind == b"curv":
        table = np.frombuffer(tag, ">u2", count, 12) / 65535
        return np.asarray(np.interp(x, np.linspace(0, 1, count), table))
    if kind != b"para" or tag[8:10] not in [bytes((0, n)) for n in range(5)]:
        raise ValueError("the tone curve is of an unknown kind")
    n, numbers = tag[9], (np.frombuffer(tag, ">i4", (len(tag) - 12) // 4, 12) / 65536).tolist()
    power, a, b = numbers[:3] if n else (numbers[0], 1.0, 0.0)
    c, d = numbers[3:5] if n > 2 else (0.0, -b / a)
    e, f = (numbers[3], numbers[3]) if n == 2 else numbers[5:7] if n == 4 else (0.0, 0.0)
    y: Array = np.where(x >= d, np.maximum(a * x + b, 0) ** power + e, c * x + f)
    return y.clip(0, 1)


def light_to_srgb(light: Array) -> Array:
    """Return light 0..1 as values 0..1 of sRGB."""
    curved = 1.055 * np.maximum(light, 0.0031308) ** (1 / 2.4) - 0.055
    values: Array = np.where(light <= 0.0031308, 12.92 * light, curved)
    return values
