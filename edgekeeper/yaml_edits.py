"""A YAML text with entries of it changed: comments, order and layout of all the rest stay as somebody wrote them.

An *entry* is a key with its value, or an item of a list, in block style; the comment lines directly above belong to
it. Pure: no I/O, no clock.
"""

import textwrap

import yaml

__all__ = ["Edits"]


class Edits:
    """Changes to one text, each named by a path such as `clusters/authz/connect_timeout`; `text` applies them all.

    A step of a path into a list is an index, or the item's `name`. Entries that are changed do not overlap.
    Every method raises `LookupError` (Bug) when nothing stands at the path.
    """

    def __init__(self, text: str) -> None:
        self._lines = text.splitlines(keepends=True)
        root = yaml.compose(text, Loader=yaml.CSafeLoader)
        if root is None:
            raise LookupError("nothing stands in an empty text")
        self._root = root
        self._changes: list[tuple[int, int, str]] = []

    def set(self, path: str, value: int | str) -> None:
        """Put a scalar in place of one; a comment behind it stays. One in a line: two changes would overlap."""
        node, _ = self._found(path)
        line = self._lines[node.start_mark.line]
        changed = f"{line[: node.start_mark.column]}{value}{line[node.end_mark.column :]}"
        self._changes.append((node.start_mark.line, node.start_mark.line + 1, changed))

    def replace(self, path: str, block: str) -> None:
        """Put `block`, its lines written from column 0, where the entry stands; the comment above it stays."""
        first, last = self._span(path)
        self._changes.append((first, last, textwrap.indent(block, " " * self._column(first))))

    def add_after(self, path: str, block: str) -> None:
        """Put `block` behind the entry, at its indentation."""
        first, last = self._span(path)
        self._changes.append((last, last, textwrap.indent(block, " " * self._column(first))))

    def drop(self, path: str) -> None:
        """Take the entry away, with its comment and the blank line above."""
        first, last = self._span(path)
        first = self._comment(first)
        if first > 0 and not self._lines[first - 1].strip():
            first -= 1
        self._changes.append((first, last, ""))

    def entry(self, path: str) -> str:
        """Return the entry as it stands in the text, changes left out, with its comment, from column 0."""
        first, last = self._span(path)
        return textwrap.dedent("".join(self._lines[self._comment(first) : last]))

    def text(self) -> str:
        """Return the text with all changes."""
        lines = list(self._lines)
        for first, last, block in sorted(self._changes, reverse=True):
            lines[first:last] = [block]
        return "".join(lines)

    def _span(self, path: str) -> tuple[int, int]:
        """Return the first line of the entry and the one after its last."""
        node, first = self._found(path)
        return first, _last_line(node) + 1

    def _found(self, path: str) -> tuple[yaml.Node, int]:
        """Return the value at the path and the line on which its entry begins."""
        found: tuple[yaml.Node, int] = (self._root, 0)
        for step in path.split("/"):
            found = _child(found[0], step, path)
        return found

    def _comment(self, first: int) -> int:
        indent = " " * self._column(first) + "#"
        while first > 0 and self._lines[first - 1].startswith(indent):
            first -= 1
        return first

    def _column(self, line: int) -> int:
        return len(self._lines[line]) - len(self._lines[line].lstrip(" "))


def _child(node: yaml.Node, step: str, path: str) -> tuple[yaml.Node, int]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == step:
                return value, key.start_mark.line
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            if step in {str(index), _name(item)}:
                return item, item.start_mark.line
    raise LookupError(f"nothing stands at {path}: no {step}")


def _name(node: yaml.Node) -> str | None:
    pairs = node.value if isinstance(node, yaml.MappingNode) else ()
    return next((str(value.value) for key, value in pairs if key.value == "name"), None)


def _last_line(node: yaml.Node) -> int:
    """Return the last line that has something of the node: a block's own end mark stands behind the comments after it."""
    if not isinstance(node, yaml.CollectionNode) or node.flow_style or not node.value:
        return int(node.end_mark.line)
    if isinstance(node, yaml.MappingNode):
        # the key counts too: an alias stands beside it, and its node elsewhere
        return max(max(int(key.end_mark.line), _last_line(value)) for key, value in node.value)
    return max(_last_line(item) for item in node.value)
