"""Where key sets may be asked for: by https, at addresses of the public internet unless a provider says otherwise.

A URL in a document, or one that an issuer's metadata leads to, must not become a way into the network that we stand
in (CVE-2026-41413). Names are judged here as they are written; what they resolve to is judged at each connection.
Pure: no I/O, no clock.
"""

import ipaddress
import re
from typing import Final

__all__ = ["IpAddress", "check_url", "discovery_url", "is_allowed"]

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

MAX_URL: Final = 2048

_URL: Final = re.compile(
    r"(?P<scheme>https?)://(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:(?P<port>[0-9]{1,5}))?"
    r"(?P<path>/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*)?(\?[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*)?"
)
"""RFC 3986 without user and fragment, and so narrow that no two parsers can differ on the host."""

_NUMERIC: Final = re.compile(r"(\A|\.)(0[Xx][0-9A-Fa-f]*|[0-9]+)\.?\Z")
"""The last label of a host that some resolvers take for an IPv4 address: `127.1`, `0x7f000001` (WHATWG URL, 3.5)."""

_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_NOBODYS: Final = (ipaddress.IPv4Network("0.0.0.0/8"), ipaddress.IPv4Network("192.0.0.0/24"))
"""RFC 6890: this network, and protocols' own, where Oracle's cloud has its metadata (192.0.0.192). Whether `is_global` is
true of the second is another answer in each version of Python."""
_METADATA: Final = frozenset(
    map(ipaddress.ip_address, ("168.63.129.16", "100.100.100.200", "fd00:ec2::254", "fd20:ce::254"))
)
"""Where clouds give credentials to whoever asks, besides the link-local address: Azure, Alibaba, AWS and GCP by IPv6."""


def check_url(url: str, *, private: bool) -> None:
    """Check that keys may be fetched from `url`; `private`: also from within our network, and by http on this machine.

    Raises:
        ValueError: whoever wrote the URL: keys may not be fetched from there; the text says why.
    """
    match = _URL.fullmatch(url) if len(url) <= MAX_URL else None
    if match is None or int(match["port"] or 443) not in range(1, 65536):
        raise ValueError(
            f"expected `https://HOST/PATH` of at most {MAX_URL} characters, without user, password and fragment"
        )
    address = _address(match["host"])
    if match["scheme"] == "http" and not (private and address is not None and address.is_loopback):
        raise ValueError(
            "expected `https`; `http` is for a loopback address such as 127.0.0.1, with `allow_private: true`"
        )
    if address is not None:
        allowed = is_allowed(address, private=private)
    else:
        allowed = private or not re.search(r"(\A|\.)localhost\.?\Z", match["host"].lower())
    if not allowed:
        never = "" if private else "; `allow_private: true` allows those of private networks"
        raise ValueError(f"`{match['host']}` is not on the public internet{never}")


def _address(host: str) -> IpAddress | None:
    """Return the address that the host is; None: it is a name.

    Raises:
        ValueError: whoever wrote the host: it is neither.
    """
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        if host.startswith("[") or _NUMERIC.search(host):
            raise ValueError(f"`{host}` is neither a name nor an address") from None
        return None


def discovery_url(issuer: str) -> str:
    """Return where the issuer says where its keys are (OpenID Connect Discovery 1.0, section 4)."""
    return f"{issuer.removesuffix('/')}/.well-known/openid-configuration"


def is_allowed(address: IpAddress, *, private: bool) -> bool:
    """Return whether keys may be fetched from `address`; `private`: also from loopback and private networks.

    Never from a multicast, link-local or reserved address, nor from those where clouds hand out credentials.
    """
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_allowed(inner, private=private)
        # tunnels to an IPv4 address of the sender's choice, and what was private before RFC 3879
        if address.sixtofour is not None or address.teredo is not None or address.is_site_local:
            return False
    if address.is_loopback:
        return private
    if address.is_multicast or address.is_link_local or address.is_reserved or address.is_unspecified:
        return False
    if address in _METADATA or any(address in network for network in _NOBODYS):
        return False
    return private or address.is_global
