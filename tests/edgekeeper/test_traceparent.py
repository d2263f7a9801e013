"""The header `traceparent`, by the rules of W3C Trace Context 3.2: whoever reads it reads the same."""

import pytest

from edgekeeper.traceparent import traceparent

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize(
    ("version", "flags", "suffix"),
    [("00", "01", ""), ("00", "ff", ""), ("01", "00", ""), ("fe", "01", "-and-more")],
)
def test_it_names_trace_parent_and_flags(version: str, flags: str, suffix: str):
    assert (TRACE, PARENT, flags) == traceparent(f"{version}-{TRACE}-{PARENT}-{flags}{suffix}")


@pytest.mark.parametrize(
    "value",
    [
        "",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01-and-more",
        f"01-{TRACE}-{PARENT}-01more",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-1",
        f" 00-{TRACE}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01\n",
    ],
)
def test_what_is_malformed_is_ignored(value: str):
    assert traceparent(value) is None
