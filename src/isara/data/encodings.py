"""The text of a file, whatever its encoding; or what to do where it can't be known."""

import codecs
from pathlib import Path

from isara.data.faults import fault
from isara.errors import SeedError

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before that of UTF-16, which it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_SAMPLE = 4096  # bytes
_ZEROS = 0.1  # of every second byte, at least: delimiters and spaces, whatever the script
_WESTERN = 0.3  # of the letters, at most: in French one in ten has an accent


def decoded(data: bytes, path: Path) -> str:
    """The text of a UTF-8 file, or of a UTF-16 or UTF-32 one with its mark; of UTF-16 also without.

    Raises:
        SeedError: It is in another encoding, or broken.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _as(encoding, data[len(mark) :], path)
    return _as(_unmarked(data) or "utf-8", data, path)


def _unmarked(data: bytes) -> str | None:
    """UTF-16 shows itself by zeros in every second byte, and nowhere else."""
    sample = data[:_SAMPLE]
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    if len(data) % 2 or min(even, odd) or max(even, odd) < max(1, _ZEROS * len(sample) / 2):
        return None
    return "utf-16-le" if odd else "utf-16-be"


def _as(encoding: str, data: bytes, path: Path) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != "utf-8":
            name = encoding.rpartition("-")[0].upper()
            found = f"bytes that are none ({error.reason})"
            raise fault(path, f"{name} as its first bytes say", found, "save it again as UTF-8") from error
        raise _not_utf8(data, error, path) from error


def _not_utf8(data: bytes, error: UnicodeDecodeError, path: Path) -> SeedError:
    line = data.count(b"\n", 0, error.start) + 1
    where, found = f"{path}:{line}", f"byte 0x{data[error.start]:02x}"
    if error.end == len(data) and error.reason == "unexpected end of data":
        return fault(where, "UTF-8", "a character that is cut off at the end", "take another copy of the file")
    readable = data.decode("utf-8", "ignore")
    broken = len(data) - len(readable.encode())
    if sum(not character.isascii() for character in readable) > broken:
        return fault(where, "UTF-8", f"{found} in a file that else is UTF-8", "mend the character")
    if (encoding := _encoding(data)) is None:
        advice = "save it as UTF-8 with the program that wrote it"
    else:
        advice = f"convert the file, for example `iconv -f {encoding} -t UTF-8`"
    return fault(where, "UTF-8", found, advice)


def _encoding(data: bytes) -> str | None:
    """The likeliest encoding of bytes that are not UTF-8, or None where nothing points to one."""
    sample = data[: 10**6]
    high = sum(byte >= 0x80 for byte in sample)
    letters = high + sum(chr(byte).isalpha() for byte in sample if byte < 0x80)
    try:
        data.decode("cp1252")  # which has five holes
    except UnicodeDecodeError:
        return None
    return "WINDOWS-1252" if high <= _WESTERN * letters else None
