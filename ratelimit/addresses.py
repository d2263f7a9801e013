"""How much of an IP address is counted: all addresses of a network as one caller. Pure: no I/O, no clock."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import msgspec

__all__ = ["IpPrefix"]


class IpPrefix(msgspec.Struct, frozen=True):
    """The bits that count: `v4` of 32, `v6` of 128."""

    v4: int = 32
    v6: int = 64

    def masked(self, value: str) -> str:
        """Return the network of the address in `value`, as `10.1.0.0/16`; anything else is returned as it is.

        An IPv4 address in an IPv6 one (`::ffff:10.1.2.3`, RFC 4291 2.5.5.2) counts as the IPv4 address that it is,
        and a zone (`%eth0`) does not count.
        """
        try:
            address = ip_address(value.partition("%")[0])
        except ValueError:
            return value
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        bits = self.v4 if isinstance(address, IPv4Address) else self.v6
        spare = address.max_prefixlen - bits
        return f"{type(address)(int(address) >> spare << spare)}/{bits}"
