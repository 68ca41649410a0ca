"""The directory of a zip file, read with nothing believed: what does not fit together exactly is refused."""
from __future__ import annotations

import stat
import struct
from dataclasses import dataclass, replace
from typing import BinaryIO

from service.intake.zip_names import BadArchive, checked_name, shown

STORED, DEFLATED = 0, 8
_MOST_DIRECTORY_BYTES = 16 << 20  # 5000 entries with long names need a tenth of it
_ENCRYPTED = 0x0001 | 0x0040 | 0x2000  # flags: encrypted, strongly encrypted, names masked
_PATCH = 0x0020
_SIZES_FOLLOW = 0x0008  # the sizes stand behind the data; those in the local header may be zero
_UTF_8 = 0x0800
_SATURATED_16, _SATURATED_32 = 0xFFFF, 0xFFFFFFFF  # "look in the zip64 fields"

_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_LOCATOR_64 = struct.Struct("<4sLQL")
_END_64 = struct.Struct("<4sQ2H2L4Q")


@dataclass(frozen=True)
class Entry:
    """A file or folder in the archive. The name is normalised: NFC, joined by slashes, without empty or '.' parts."""

    name: str
    is_folder: bool
    method: int
    crc: int
    packed_bytes: int
    size: int  # as both headers say; what comes out is counted all the same
    header_start: int
    data_start: int


@dataclass(frozen=True)
class _Header:
    """What one of the two headers of an entry says."""

    raw_name: bytes
    flags: int
    method: int
    crc: int
    packed_bytes: int
    size: int
    start: int  # of the local header


def read_directory(file: BinaryIO, most_entries: int) -> list[Entry]:
    """Every entry of the zip file, in the order of its directory. Raises BadArchive."""
    file_bytes = file.seek(0, 2)
    count, start, length = _find_directory(file, file_bytes)
    if count > most_entries:
        raise BadArchive(f"the archive has {count} entries; at most {most_entries} are taken")
    if length > _MOST_DIRECTORY_BYTES:
        raise BadArchive("the archive's directory is too long for its number of files")
    if count and _read(file, 0, 4) != b"PK\x03\x04":
        raise BadArchive("the file does not begin like a zip archive")
    entries = _read_entries(file, _read(file, start, length), count)
    _refuse_overlaps(entries, start)
    _refuse_duplicates(entries)
    return entries


def _read(file: BinaryIO, start: int, length: int) -> bytes:
    if start + length > file.seek(0, 2):  # before anything is read: both numbers come from the archive
        raise BadArchive("the archive is cut short")
    file.seek(start)
    data = file.read(length)
    if len(data) != length:
        raise BadArchive("the archive is cut short")
    return data


# --- where the directory lies ---


def _find_directory(file: BinaryIO, file_bytes: int) -> tuple[int, int, int]:
    """How many entries, where the directory begins, how many bytes it has."""
    longest_tail = min(file_bytes, _END.size + 0xFFFF)
    tail = _read(file, file_bytes - longest_tail, longest_tail)
    place = tail.rfind(b"PK\x05\x06")
    while place >= 0:
        if len(tail) - place >= _END.size:
            end = _END.unpack_from(tail, place)
            if place + _END.size + end[7] == len(tail):
                return _checked_end(file, file_bytes - longest_tail + place, end)
        place = tail.rfind(b"PK\x05\x06", 0, place)
    raise BadArchive("the file is no zip archive, or is cut short")


def _checked_end(file: BinaryIO, end_start: int, end: tuple[int, ...]) -> tuple[int, int, int]:
    _, disk, directory_disk, count_here, count, length, start, _ = end
    limit = end_start  # where the directory has to end
    long = _read_end_64(file, end_start)
    if long is not None:
        limit, values = long
        for short, value, saturated in zip(
            (disk, directory_disk, count_here, count, length, start), values, (_SATURATED_16,) * 4 + (_SATURATED_32,) * 2, strict=True
        ):
            if short not in (value, saturated):
                raise BadArchive("the two ends of the archive (zip and zip64) contradict each other")
        disk, directory_disk, count_here, count, length, start = values
    if disk or directory_disk or count_here != count:
        raise BadArchive("the archive is one of several parts; send one whole file")
    if start + length != limit:
        raise BadArchive("the archive's directory is not where its end says; is there other data before or within it?")
    return count, start, length


def _read_end_64(file: BinaryIO, end_start: int) -> tuple[int, list[int]] | None:
    """Where the zip64 end begins, and its values in the order of the short end; None: there is none."""
    if end_start < _LOCATOR_64.size:
        return None
    signature, disk, start, disks = _LOCATOR_64.unpack(_read(file, end_start - _LOCATOR_64.size, _LOCATOR_64.size))
    if signature != b"PK\x06\x07":
        return None
    if disk or disks > 1:
        raise BadArchive("the archive is one of several parts; send one whole file")
    if start + _END_64.size > end_start - _LOCATOR_64.size:
        raise BadArchive("the archive's zip64 end is not where it should be")
    found = _END_64.unpack(_read(file, start, _END_64.size))
    if found[0] != b"PK\x06\x06" or start + 12 + found[1] != end_start - _LOCATOR_64.size:
        raise BadArchive("the archive's zip64 end is not where it should be")
    return start, list(found[4:])


# --- entries ---


def _read_entries(file: BinaryIO, directory: bytes, count: int) -> list[Entry]:
    entries = []
    place = 0
    for _ in range(count):
        if len(directory) - place < _CENTRAL.size:
            raise BadArchive("the archive's directory has fewer entries than its end says")
        fields = _CENTRAL.unpack_from(directory, place)
        if fields[0] != b"PK\x01\x02":
            raise BadArchive("the archive's directory is damaged")
        name_bytes, extra_bytes, comment_bytes, disk = fields[10:14]
        name_start = place + _CENTRAL.size
        extra_start = name_start + name_bytes
        place = extra_start + extra_bytes + comment_bytes
        if place > len(directory):
            raise BadArchive("the archive's directory is damaged")
        if disk:  # also 0xFFFF, which only archives of more than 65534 parts need
            raise BadArchive("the archive is one of several parts; send one whole file")
        raw_name = directory[name_start:extra_start]
        header = _Header(raw_name, fields[3], fields[4], fields[7], fields[8], fields[9], fields[16])
        header = _with_zip64(header, directory[extra_start : extra_start + extra_bytes])
        entries.append(_entry(file, header, mode=fields[15] >> 16))
    if place != len(directory):
        raise BadArchive("the archive's directory has more entries than its end says")
    return entries


def _with_zip64(header: _Header, extra: bytes) -> _Header:
    """The header with its saturated fields taken from the zip64 extra field, which has only those, in this order."""
    saturated = [name for name in ("size", "packed_bytes", "start") if getattr(header, name) == _SATURATED_32]
    found = _extra_field(extra, 1)
    if not saturated:
        return header  # some writers add the field in any case
    if found is None or len(found) < 8 * len(saturated):
        raise BadArchive(f"{shown(header.raw_name)}: its zip64 sizes are missing")
    values = struct.unpack_from(f"<{len(saturated)}Q", found)
    return replace(header, **dict(zip(saturated, values, strict=True)))


def _extra_field(extra: bytes, wanted: int) -> bytes | None:
    """The field of this number. A rest of fewer than four bytes is padding."""
    found = None
    place = 0
    while len(extra) - place >= 4:
        number, length = struct.unpack_from("<2H", extra, place)
        if place + 4 + length > len(extra) or (number == wanted and found is not None):
            raise BadArchive("an entry of the archive has damaged extra fields")
        if number == wanted:
            found = extra[place + 4 : place + 4 + length]
        place += 4 + length
    return found


def _entry(file: BinaryIO, header: _Header, mode: int) -> Entry:
    raw_name = shown(header.raw_name)
    if header.flags & _ENCRYPTED:
        raise BadArchive(f"{raw_name} is encrypted; pack without a password")
    if header.flags & _PATCH or header.method not in (STORED, DEFLATED):
        raise BadArchive(f"{raw_name} is packed by method {header.method}; pack with the usual one (deflate)")
    name, is_folder = checked_name(header.raw_name, bool(header.flags & _UTF_8))
    kind = stat.S_IFMT(mode)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR) or (kind == stat.S_IFDIR and not is_folder):
        raise BadArchive(f"{raw_name} is a link or a device; pack files only")
    if is_folder and header.size:
        raise BadArchive(f"{raw_name} is a folder with content")
    if header.method == STORED and header.size != header.packed_bytes:
        raise BadArchive(f"{raw_name}: its sizes contradict each other")
    data_start = _checked_local(file, header)
    return Entry(name, is_folder, header.method, header.crc, header.packed_bytes, header.size, header.start, data_start)


def _checked_local(file: BinaryIO, central: _Header) -> int:
    """Where the data begin, if the local header says what the directory says."""
    fields = _LOCAL.unpack(_read(file, central.start, _LOCAL.size))
    names = _read(file, central.start + _LOCAL.size, fields[9] + fields[10])
    raw_name, extra = names[: fields[9]], names[fields[9] :]
    local = _Header(raw_name, fields[2], fields[3], fields[6], fields[7], fields[8], central.start)
    same = fields[0] == b"PK\x03\x04" and raw_name == central.raw_name and local.method == central.method
    if not same or local.flags & (_ENCRYPTED | _PATCH):
        raise BadArchive(f"{shown(central.raw_name)}: its header is not that of the archive's directory")
    local = _with_zip64(local, extra)
    told = (local.crc, local.packed_bytes, local.size)
    told_later = local.flags & _SIZES_FOLLOW and told == (0, 0, 0)
    if not told_later and told != (central.crc, central.packed_bytes, central.size):
        raise BadArchive(f"{shown(central.raw_name)}: its two headers name different sizes")
    return central.start + _LOCAL.size + len(names)


def _refuse_overlaps(entries: list[Entry], directory_start: int) -> None:
    """Two entries that share bytes are how a small file unpacks to a large one."""
    free_from = 0
    for entry in sorted(entries, key=lambda entry: entry.header_start):
        if entry.header_start < free_from:
            raise BadArchive(f"{entry.name} overlaps another entry of the archive")
        free_from = entry.data_start + entry.packed_bytes
    if free_from > directory_start:
        raise BadArchive("an entry of the archive reaches into its directory")


def _refuse_duplicates(entries: list[Entry]) -> None:
    seen: set[str] = set()
    for entry in entries:
        if not entry.is_folder and entry.name in seen:
            raise BadArchive(f"{entry.name} is there twice; give each file its own name")
        seen.add(entry.name)
