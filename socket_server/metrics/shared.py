"""The latest snapshot of each worker of one gunicorn, in memory that its processes share.

The master makes it before it forks workers. Each worker writes its own slot only; the master adds the counters of a worker
that has ended to slot 0. No lock is needed, and a killed process leaves nothing half-written in use:

- a slot has two buffers, and a byte that says which of them is current: a writer fills the other one, then flips the byte;
- a checksum tells a reader that a buffer was overwritten while it was read: it reads again;
- a generation number, odd while the master moves counters, tells a reader that it may have seen them twice or not at all.
"""

import mmap
import struct
import time
import zlib

import msgspec

from socket_server.metrics.snapshot import Snapshot, decode, encode, lasting, merged

SLOTS = 513  # of the master, and of 256 workers and as many successors during a reload
BUFFER_BYTES = 65_536
# How long a worker that was not scraped goes on to publish everything each second.
WANTED_S = 60.0

_HEADER = struct.Struct("=Qd")  # generation; time of the last scrape (the monotonic clock is the same in all processes)
_ENTRY = struct.Struct("=II")  # length, CRC-32
_SLOT_BYTES = 8 + 2 * BUFFER_BYTES  # the first byte says which buffer is current: 0: none, 1, 2
_PAST = 0


class SharedMetrics:
    """Slots for snapshots. Pages that no worker uses take no memory."""

    def __init__(self, slots: int = SLOTS) -> None:
        self._slots = slots
        self._memory = mmap.mmap(-1, _HEADER.size + slots * _SLOT_BYTES)

    def publish(self, worker: int, snapshot: Snapshot) -> bool:
        """Replace a worker's snapshot. worker: its number in gunicorn's count, from 1. Return False if it is too large."""
        return self._write(self._slot(worker), encode(snapshot))

    def retire(self, worker: int) -> None:
        """In the master: keep the counters of a worker that has ended, and free its slot."""
        slot = self._slot(worker)
        ended = self._read(slot)
        if ended is None:
            return
        past = self._read(_PAST) or ()
        self._set_generation(self._generation() + 1)
        self._write(_PAST, encode(merged([past, lasting(ended)])))
        self._memory[self._start(slot)] = 0
        self._set_generation(self._generation() + 1)

    def snapshots(self) -> list[Snapshot]:
        """Return the snapshots of all workers, and what remains of those that have ended."""
        while True:
            generation = self._generation()
            if generation % 2 == 0:
                found = [each for slot in range(self._slots) if (each := self._read(slot)) is not None]
                if self._generation() == generation:
                    return found
            time.sleep(0.001)

    def want(self) -> None:
        """Note that the metrics are being scraped."""
        _HEADER.pack_into(self._memory, 0, self._generation(), time.monotonic())

    @property
    def wanted(self) -> bool:
        """Whether the metrics were scraped within the last WANTED_S."""
        scraped_at: float = _HEADER.unpack_from(self._memory)[1]
        return bool(scraped_at) and time.monotonic() - scraped_at < WANTED_S

    def _slot(self, worker: int) -> int:
        return 1 + (worker - 1) % (self._slots - 1)

    @staticmethod
    def _start(slot: int) -> int:
        return _HEADER.size + slot * _SLOT_BYTES

    def _generation(self) -> int:
        generation: int = _HEADER.unpack_from(self._memory)[0]
        return generation

    def _set_generation(self, generation: int) -> None:
        struct.pack_into("=Q", self._memory, 0, generation)

    def _write(self, slot: int, encoded: bytes) -> bool:
        if len(encoded) > BUFFER_BYTES - _ENTRY.size:
            return False
        start = self._start(slot)
        other = 2 if self._memory[start] == 1 else 1
        at = start + 8 + (other - 1) * BUFFER_BYTES
        _ENTRY.pack_into(self._memory, at, len(encoded), zlib.crc32(encoded))
        self._memory[at + _ENTRY.size : at + _ENTRY.size + len(encoded)] = encoded
        self._memory[start] = other
        return True

    def _read(self, slot: int) -> Snapshot | None:
        start = self._start(slot)
        while current := self._memory[start]:
            at = start + 8 + (current - 1) * BUFFER_BYTES
            length, checksum = _ENTRY.unpack_from(self._memory, at)
            encoded = self._memory[at + _ENTRY.size : at + _ENTRY.size + min(length, BUFFER_BYTES)]
            if zlib.crc32(encoded) == checksum:
                try:
                    return decode(encoded)
                except msgspec.DecodeError:
                    return None
        return None
