"""Names in a zip file that does not say how they are encoded: UTF-8, GBK, Shift-JIS, or cp437 by the standard."""

import zipfile
from collections.abc import Sequence

SAYS_UTF8 = 0x800  # flag of a member whose name is UTF-8
CANDIDATES = ("gbk", "shift_jis")


def member_names(members: Sequence[zipfile.ZipInfo]) -> tuple[list[str], str]:
    """Return the names of all members, and the encoding that was guessed for them; "" if none was."""
    raw = [b"" if info.flag_bits & SAYS_UTF8 else info.filename.encode("cp437", "replace") for info in members]
    encoding = guess_encoding([name for name in raw if not name.isascii()])
    names = [
        name.decode(encoding) if encoding and not name.isascii() else info.filename
        for info, name in zip(members, raw, strict=True)
    ]
    return names, encoding


def guess_encoding(names: Sequence[bytes]) -> str:
    """Return the encoding that all names can be read in as words, "" if cp437 reads them so."""
    if not names:
        return ""
    if all(can_decode(name, "utf-8") for name in names):
        return "utf-8"
    if looks_western([part for name in names for part in name.decode("cp437").split("/") if not part.isascii()]):
        return ""
    fitting = [encoding for encoding in CANDIDATES if all(can_decode(name, encoding) for name in names)]
    return min(fitting, key=lambda encoding: sum(strange_letters(name, encoding) for name in names), default="")


def looks_western(parts: Sequence[str]) -> bool:
    """Return whether parts of names are words with some accents: no lines and blocks, and most letters are ASCII."""
    letters = "".join(part.partition(".")[0] for part in parts)
    blocks = any("\u2310" <= letter <= "\u25a0" for letter in letters)
    return not blocks and 2 * sum(not letter.isascii() for letter in letters) < len(letters)


def can_decode(name: bytes, encoding: str) -> bool:
    try:
        name.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def strange_letters(name: bytes, encoding: str) -> int:
    """Return the number of letters that are rare in names: outside GB 2312, or half-width katakana."""
    letters = name.decode(encoding)
    if encoding == "gbk":
        return len(letters) - len(letters.encode("gb2312", "ignore").decode("gb2312"))
    return sum("\uff61" <= letter <= "\uff9f" for letter in letters)
