"""Which slot of a Redis cluster a key lies in. Pure: no I/O, no clock.

Redis cluster specification, "Key distribution model" and "Hash tags".
"""

from binascii import crc_hqx
from typing import Final

__all__ = ["SLOTS", "slot_of"]

SLOTS: Final = 16_384


def slot_of(key: bytes) -> int:
    """Return the slot of the key, 0 to 16383: CRC16 (XMODEM) of its hash tag, of the whole key if it has none.

    The tag is what stands between the first `{` and the first `}` after it, unless that is nothing.
    """
    start = key.find(b"{") + 1
    if start:
        end = key.find(b"}", start)
        if end > start:
            key = key[start:end]
    return crc_hqx(key, 0) % SLOTS
