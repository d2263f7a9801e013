"""What our own API keys look like: `ek_`, 160 random bits, a checksum. Pure: no I/O, no clock, no randomness.

The prefix lets secret scanners find a key that lies about; the checksum tells a typing mistake, or half of a key, from
one that somebody has revoked. Neither makes a key harder to guess: that is what the random bits are for.
"""

import binascii
from hashlib import blake2b, sha256
from typing import Final

__all__ = ["ALGORITHMS", "RANDOM_BYTES", "digest_of", "made", "mistyped"]

ALGORITHMS: Final = ("sha256", "blake2b")
"""How a key can be stored: SHA-256, or BLAKE2b with its usual 64 bytes (what `b2sum` prints)."""

PREFIX: Final = "ek_"
RANDOM_BYTES: Final = 20
"""160 bits: nobody guesses such a key, and so a fast digest of it is safe to store. Passwords are no keys."""

_DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_RANDOM_DIGITS: Final = 27  # 62^27 > 2^160
_CHECK_DIGITS: Final = 6  # 62^6 > 2^32


def made(random: bytes) -> str:
    """Return the key of `random`, which is `RANDOM_BYTES` of the system's best randomness: 36 letters and digits."""
    if len(random) != RANDOM_BYTES:
        raise ValueError(f"a key is made of {RANDOM_BYTES} random bytes")
    body = PREFIX + _in_digits(int.from_bytes(random, "big"), _RANDOM_DIGITS)
    return body + _checksum(body)


def mistyped(key: str) -> bool:
    """Return whether `key` means to be one of ours and is not: a sign of it is wrong or lacks."""
    return key.startswith(PREFIX) and key[-_CHECK_DIGITS:] != _checksum(key[:-_CHECK_DIGITS])


def digest_of(key: str, algorithm: str) -> bytes:
    """Return what is stored of a key: the digest of the bytes that came. `algorithm` is one of `ALGORITHMS`."""
    return (sha256 if algorithm == "sha256" else blake2b)(_bytes(key)).digest()


def _checksum(body: str) -> str:
    return _in_digits(binascii.crc32(_bytes(body)), _CHECK_DIGITS)


def _in_digits(number: int, length: int) -> str:
    return "".join(reversed([_DIGITS[number // 62**place % 62] for place in range(length)]))


def _bytes(text: str) -> bytes:
    """Return the bytes of a text of the wire (`authz.attributes.text_of`), and some of any other."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a surrogate that stands for no byte, which no header brings
        return text.encode("utf-8", "surrogatepass")
