"""What one process has begun and ended lately, where the death of the process leaves it.

A commit takes a moment, and a job that ends in that moment would be run once more if the
process were killed right then. So the begin and the end of each job are first written down
here, in a file that is mapped into memory: a few copied bytes, which the operating system
keeps when the process dies. (It does not keep them through a loss of power, after which
jobs of the last moments may run once more; nothing that was acknowledged depends on it.)

The layout: `SLOTS` slots with the attempts under way, then two segments for marks. While
the marks of one segment are being committed, new ones go to the other.
"""

from __future__ import annotations

import mmap
import os
import struct
import threading
from typing import NamedTuple
from zlib import crc32

SLOTS = 4096
"""How many attempts under way are noted; of more, a crash knows nothing."""

SEGMENT = 1 << 20
"""How many bytes of marks are noted per commit; more of them are not."""

_SLOT = struct.Struct("<16sI")
_SLOT_SIZE = 24
_USED = _SLOT.size  # where in a slot it says whether it is in use
_HEAD = struct.Struct("<II")  # length and checksum of a mark; a length of 0 ends the segment
_SEGMENTS = SLOTS * _SLOT_SIZE
_SIZE = _SEGMENTS + 2 * SEGMENT
_TURN = struct.Struct("<Q")  # at the head of a segment: which is the younger


class Entries(NamedTuple):
    """What a ledger says.

    Attributes:
        begun: The number of the attempt under way, by the job's id.
        marks: The marks noted, in their order; some of them may have been committed.
    """

    begun: dict[str, int]
    marks: list[bytes]


class Ledger:
    """The ledger of this process; `begin` and `note` from any thread."""

    def __init__(self, descriptor: int) -> None:
        # Written and not just made long: on a full disk, touching a page that has no
        # block would kill the process.
        written = 0
        while written < _SIZE:  # the last block that fits is no error yet
            written += os.pwrite(descriptor, bytes(_SIZE - written), written)
        self._map = mmap.mmap(descriptor, _SIZE)
        self._free = list(range(0, _SEGMENTS, _SLOT_SIZE))
        self._slots: dict[str, int] = {}
        self._lock = threading.Lock()
        self._turns = 0
        self._start = self._position = _SEGMENTS
        self._open_segment(_SEGMENTS)

    def begin(self, id: str, attempt: int) -> None:
        """Note that an attempt begins."""
        with self._lock:
            if self._map.closed:
                return
            slot = self._slots.get(id)
            if slot is None:
                if not self._free:
                    return
                self._slots[id] = slot = self._free.pop()
            _SLOT.pack_into(self._map, slot, bytes.fromhex(id), attempt)
            self._map[slot + _USED] = 1  # last, so that half a slot is none

    def end(self, id: str, mark: bytes) -> None:
        """Note a mark, and that no attempt of the job is under way any more."""
        with self._lock:
            if self._map.closed:
                return
            self._append(mark)
            slot = self._slots.pop(id, None)
            if slot is not None:
                self._map[slot + _USED] = 0
                self._free.append(slot)

    def note(self, mark: bytes) -> None:
        """Note a mark that tells of no attempt."""
        with self._lock:
            if not self._map.closed:
                self._append(mark)

    def _append(self, mark: bytes) -> None:
        start = self._position
        end = start + _HEAD.size + len(mark)
        if end + _HEAD.size <= self._start + SEGMENT:
            self._map[start + _HEAD.size : end] = mark
            # The head last, so that half a mark is none; and before it the end of all.
            _HEAD.pack_into(self._map, end, 0, 0)
            _HEAD.pack_into(self._map, start, len(mark), crc32(mark))
            self._position = end

    def turn(self) -> None:
        """Forget the marks before the last turn, and go on in their place."""
        with self._lock:
            if not self._map.closed and self._position > self._start + _TURN.size:
                self._open_segment(self._other)

    def forget(self) -> None:
        """Forget the marks before the last turn, as they have been committed."""
        with self._lock:
            if not self._map.closed:
                _HEAD.pack_into(self._map, self._other + _TURN.size, 0, 0)

    @property
    def _other(self) -> int:
        return 2 * _SEGMENTS + SEGMENT - self._start

    def _open_segment(self, start: int) -> None:
        self._turns += 1
        self._start = start
        self._position = start + _TURN.size
        _HEAD.pack_into(self._map, self._position, 0, 0)
        _TURN.pack_into(self._map, start, self._turns)

    def read(self) -> Entries:
        """Return what it says."""
        with self._lock:
            return _read(self._map[:])

    def close(self) -> None:
        """Let go of the memory; what is told from now on is not noted."""
        with self._lock:
            self._map.close()


def read_ledger(descriptor: int) -> Entries:
    """Return what the ledger of a dead process says, as far as that can be trusted."""
    data = os.pread(descriptor, _SIZE, 0)
    return _read(data) if len(data) == _SIZE else Entries({}, [])


def _read(data: bytes) -> Entries:
    begun: dict[str, int] = {}
    for slot in range(0, _SEGMENTS, _SLOT_SIZE):
        if data[slot + _USED] == 1:
            job, attempt = _SLOT.unpack_from(data, slot)
            begun[job.hex()] = attempt
    starts = sorted(
        (_SEGMENTS, _SEGMENTS + SEGMENT), key=lambda start: _TURN.unpack_from(data, start)[0]
    )
    return Entries(begun, [mark for start in starts for mark in _read_segment(data, start)])


def _read_segment(data: bytes, start: int) -> list[bytes]:
    marks: list[bytes] = []
    position = start + _TURN.size
    while position + _HEAD.size <= start + SEGMENT:
        length, checksum = _HEAD.unpack_from(data, position)
        mark = data[position + _HEAD.size : position + _HEAD.size + length]
        if not length or position + length > start + SEGMENT or crc32(mark) != checksum:
            break
        marks.append(mark)
        position += _HEAD.size + length
    return marks
