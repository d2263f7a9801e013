"""The options of curl (curl(1), 8.x): their letters, and what becomes of each of them here. Pure: no I/O, no clock."""

from collections.abc import Mapping
from typing import Final

__all__ = [
    "DATA",
    "ELSEWHERE_FLAGS",
    "ELSEWHERE_VALUED",
    "FLAGS",
    "IDLE_FLAGS",
    "IDLE_VALUED",
    "SHORT",
    "TAKING",
]

SHORT: Final[Mapping[str, str]] = {
    "X": "request", "H": "header", "b": "cookie", "u": "user", "d": "data", "F": "form", "A": "user-agent",
    "e": "referer", "r": "range", "T": "upload-file", "G": "get", "I": "head", "0": "http1.0", "s": "silent",
    "S": "show-error", "v": "verbose", "k": "insecure", "i": "include", "f": "fail", "L": "location",
    "N": "no-buffer", "#": "progress-bar", "g": "globoff", "4": "ipv4", "6": "ipv6", "O": "remote-name",
    "J": "remote-header-name", "o": "output", "w": "write-out", "m": "max-time", "D": "dump-header",
    "c": "cookie-jar", "E": "cert", "K": "config", "x": "proxy", "U": "proxy-user", "n": "netrc", ":": "next",
    "Z": "parallel", "j": "junk-session-cookies",
}  # fmt: skip
"""Long names by letter."""
_VALUED: Final = frozenset(
    {
        "request", "header", "cookie", "user", "data", "data-ascii", "data-raw", "data-binary", "data-urlencode",
        "json", "form", "form-string", "user-agent", "referer", "range", "upload-file", "url", "oauth2-bearer",
        "request-target", "url-query",
    }
)  # fmt: skip
FLAGS: Final = frozenset(
    {
        "get",
        "head",
        "http1.0",
        "http1.1",
        "http2",
        "http2-prior-knowledge",
        "compressed",
        "path-as-is",
        "globoff",
    }
)
"""Those that change the first request; `_VALUED` are those of them that take a value."""
IDLE_VALUED: Final = frozenset(
    {
        "output", "write-out", "max-time", "connect-timeout", "retry", "retry-delay", "retry-max-time", "cacert",
        "capath", "resolve", "connect-to", "dump-header", "cookie-jar", "unix-socket", "max-redirs", "stderr",
        "trace", "trace-ascii", "limit-rate", "interface", "dns-servers", "tls-max", "ciphers", "tls13-ciphers",
        "keepalive-time", "noproxy", "pinnedpubkey", "max-filesize", "output-dir", "local-port",
    }
)  # fmt: skip
IDLE_FLAGS: Final = frozenset(
    {
        "silent", "show-error", "verbose", "insecure", "include", "fail", "fail-with-body", "location",
        "buffer", "progress-bar", "progress-meter", "ipv4", "ipv6", "remote-name", "remote-header-name", "keepalive",
        "tcp-nodelay", "retry-connrefused", "retry-all-errors", "tlsv1", "tlsv1.2", "tlsv1.3", "create-dirs",
        "junk-session-cookies", "styled-output", "alpn", "sessionid",
    }
)  # fmt: skip
"""Those that change nothing of the first request."""
ELSEWHERE_VALUED: Final = frozenset(
    {
        "cert", "cert-type", "key", "key-type", "pass", "config", "proxy", "proxy-user", "proxy-header", "preproxy",
        "socks5", "socks5-hostname", "aws-sigv4", "netrc-file", "haproxy-clientip", "doh-url", "time-cond",
    }
)  # fmt: skip
ELSEWHERE_FLAGS: Final = frozenset(
    {"netrc", "netrc-optional", "digest", "ntlm", "negotiate", "anyauth", "haproxy-protocol", "next", "parallel", "http3", "http3-only"}
)  # fmt: skip
"""Those that cannot be honoured here: files, proxies, client certificates, answers to challenges."""
TAKING: Final = _VALUED | IDLE_VALUED | ELSEWHERE_VALUED
"""Those that take a value."""
DATA: Final = frozenset({"data", "data-ascii", "data-raw", "data-binary", "data-urlencode", "json"})
