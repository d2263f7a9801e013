import pytest

from ratelimit.slots import SLOTS, slot_of
from ratelimit.testing.servers import Server


@pytest.mark.parametrize(
    ("key", "tag"),
    [
        (b"plain", b"plain"),
        (b"a{tag}b", b"tag"),
        (b"{tag}", b"tag"),
        (b"a{x}b{y}", b"x"),
        (b"a{{x}}b", b"{x"),
        (b"a{}b", b"a{}b"),
        (b"a{b", b"a{b"),
        (b"}a{b}", b"b"),
    ],
)
def test_the_slot_is_that_of_the_hash_tag(key: bytes, tag: bytes):
    bare = tag if b"{" not in tag else None
    if bare is not None:
        assert slot_of(bare) == slot_of(key)


def test_the_published_check_value_of_the_crc_is_met():
    assert 0x31C3 % SLOTS == slot_of(b"123456789")


def test_slots_are_those_that_the_server_says(valkey: Server):
    keys = [b"k%d" % i for i in range(50)] + [b"a{t%d}b" % i for i in range(50)]
    keys += [b"{}x", b"x{}", b"a{{x}}b", b"a{b", b"}{", b"", b"\x00\xff{\xfe}\x01", b"foo{}{bar}"]
    assert {key: valkey.command("CLUSTER", "KEYSLOT", key) for key in keys} == {
        key: slot_of(key) for key in keys
    }
