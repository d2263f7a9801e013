"""Texts of others on their way to a terminal or into a line of a log. Pure: no I/O, no clock."""

__all__ = ["shown"]


def shown(text: object) -> str:
    """Return the text with each sign that is not printable as an escape of Python's: it moves no cursor and ends no line."""
    text = str(text)
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)
