"""The chunks of a PNG that Pillow does not read, or that keep it from reading a sound image."""

import re
import struct
import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_PROFILE = 2**24  # bytes of an ICC profile once decompressed
LEFT_OUT = (b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"acTL", b"fcTL", b"fdAT")
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by the type of colour
# The passes of an interlaced image: the first column and row, and the steps to the next ones.
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
CODE_POINTS = re.compile(rb"\0\0\0\x04cICP(?P<png>..\0.)|colrnclx\0(?P<p>.)\0(?P<t>.)", re.DOTALL)


def code_points(head: bytes) -> tuple[int, int] | None:
    """Return the numbers of the primaries and of the transfer curve (ITU-T H.273) that a PNG or AVIF gives."""
    pixels = head.find(b"IDAT")  # in a PNG they come last: few bytes have to be searched
    found = CODE_POINTS.search(head[:pixels] if pixels > 0 else head)
    if not found:
        return None
    return (found["png"][0], found["png"][1]) if found["png"] else (found["p"][0], found["t"][0])


def ends_early(content: bytes) -> bool:
    """Return whether the compressed pixels of a PNG end before its last row."""
    width, height, depth, kind, *_, interlaced = struct.unpack_from(">IIBBBBB", content, 16)
    bits, packed, at = depth * CHANNELS[kind], [], len(SIGNATURE)
    while at + 12 <= len(content):
        length, name = struct.unpack_from(">I4s", content, at)
        if name == b"IDAT":
            packed.append(content[at + 8 : at + 8 + length])
        elif packed:
            break
        at += 12 + length
    passes = ADAM7 if interlaced else ((0, 0, 1, 1),)
    sizes = [(-(-(width - x) // across), -(-(height - y) // down)) for x, y, across, down in passes]
    needed: int = sum(rows * (1 + -(-columns * bits // 8)) for columns, rows in sizes if columns > 0 and rows > 0)
    unpacker = zlib.decompressobj()
    return len(unpacker.decompress(b"".join(packed), needed)) < needed


def without_extras(content: bytes) -> tuple[bytes, bytes | None] | None:
    """Return a PNG without its text, its profile, its animation and damaged optional chunks, and the profile.

    Return None if it is no PNG, or if nothing is to be left out.
    """
    if not content.startswith(SIGNATURE):
        return None
    kept, profile, at = [SIGNATURE], None, len(SIGNATURE)
    while at + 12 <= len(content):
        length, name = struct.unpack_from(">I4s", content, at)
        chunk = content[at : at + 12 + length]
        sound = chunk[-4:] == struct.pack(">I", zlib.crc32(chunk[4:-4]))
        if name == b"iCCP" and sound:
            profile = unpacked_profile(chunk[8:-4])
        optional = name[:1].islower()
        if name not in LEFT_OUT and (sound or not optional):
            kept.append(chunk)
        at += 12 + length
    whole = b"".join(kept) + content[at:]
    return (whole, profile) if len(whole) < len(content) else None


def unpacked_profile(chunk: bytes) -> bytes:
    """Return the profile of an iCCP chunk, cut off if it is too large; nothing if it is damaged."""
    try:
        return zlib.decompressobj().decompress(chunk[chunk.index(0) + 2 :], MAX_PROFILE)
    except (ValueError, zlib.error):
        return b"damaged"
