"""What others have written, shown: nothing of it moves a cursor or ends a line."""

import pytest

from edgekeeper.printable import shown


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("plain é \N{CAT FACE}", "plain é \N{CAT FACE}"),
        ("a\nb\x1b[2J\x7f", "a\\nb\\x1b[2J\\x7f"),
        ("\x85\xa0", "\\x85\\xa0"),
        ("\u2028\u202e", "\\u2028\\u202e"),
        ("\U000e0001", "\\U000e0001"),
        ("\udcff", "\\udcff"),
        (17, "17"),
        ("", ""),
    ],
)
def test_what_is_not_printable_is_shown_as_an_escape(text: object, want: str):
    assert want == shown(text)
