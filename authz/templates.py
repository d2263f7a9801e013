"""Text with `{expression}` holes; `{{` and `}}` are braces. Pure: no I/O, no clock."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from edgekeeper.cel import Environment, EvaluationError, Expression, ExpressionError, Mistake

__all__ = ["Activate", "JsonTemplate", "Template", "TemplateError"]

Activate = Callable[[frozenset[str]], Mapping[str, Any]]
"""From the names that a hole reads to their values."""

_QUOTES: Final = frozenset("\"'")


class TemplateError(ValueError):
    """Operator error: mistakes in the text or in its holes, each with the offset of the text that it is counted from."""

    def __init__(self, mistakes: list[tuple[int, Mistake]]) -> None:
        super().__init__("; ".join(mistake.message for _, mistake in mistakes))
        self.mistakes = tuple(mistakes)


@dataclass(frozen=True, slots=True)
class Template:
    """Parts of text and expressions, in turn.

    `constant` is the text, if there are no holes, and `lone` the name that a lone hole is nothing but.
    """

    parts: tuple[str | Expression, ...]
    constant: str | None = field(init=False, compare=False, repr=False)
    lone: str | None = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        texts = [part for part in self.parts if isinstance(part, str)]
        constant = "".join(texts) if len(texts) == len(self.parts) else None
        only = self.parts[0] if len(self.parts) == 1 else None
        object.__setattr__(self, "constant", constant)
        object.__setattr__(self, "lone", getattr(only, "lone", None))

    @classmethod
    def parse(cls, text: str, environment: Environment) -> "Template":
        """Return the template that users write.

        Raises:
            TemplateError: Operator error: a brace without its other, or a hole that does not type-check.
        """
        parts: list[str | Expression] = []
        mistakes: list[tuple[int, Mistake]] = []
        for offset, part, is_hole in _split(text):
            try:
                parts.append(environment.hole(part) if is_hole else part)
            except ExpressionError as error:
                mistakes += [(offset, mistake) for mistake in error.mistakes]
        if mistakes:
            raise TemplateError(mistakes)
        return cls(tuple(parts))

    @property
    def written(self) -> tuple[tuple[str, bool], ...]:
        """Its parts as they are written, and which of them are holes."""
        return tuple((part, False) if isinstance(part, str) else (part.source, True) for part in self.parts)

    @property
    def head(self) -> str:
        """The text before the first hole."""
        return self.parts[0] if self.parts and isinstance(self.parts[0], str) else ""

    @property
    def source(self) -> str:
        """The text as it is written, but for doubled braces."""
        return "".join(part if isinstance(part, str) else f"{{{part.source}}}" for part in self.parts)

    @property
    def names(self) -> frozenset[str]:
        """The names that its holes read."""
        return frozenset().union(*(part.names for part in self.parts if isinstance(part, Expression)))

    def text(self, activate: Activate) -> str:
        """Return the text with its holes filled.

        Raises:
            EvaluationError: Operator error: a hole has no value.
        """
        texts = [part if isinstance(part, str) else _text(part, activate) for part in self.parts]
        return texts[0] if len(texts) == 1 else "".join(texts)

    def value(self, activate: Activate) -> str | bool | int | float:
        """Return the text, or the value of a lone hole with its type.

        Raises:
            EvaluationError: Operator error: a hole has no value.
        """
        lone = self.parts[0] if len(self.parts) == 1 else None
        if not isinstance(lone, Expression):
            return self.text(activate)
        try:
            return lone.scalar(activate(lone.names))
        except EvaluationError as error:
            raise _named(lone, error) from None


def _text(hole: Expression, activate: Activate) -> str:
    try:
        return hole.text(activate(hole.names))
    except EvaluationError as error:
        raise _named(hole, error) from None


def _named(hole: Expression, error: EvaluationError) -> EvaluationError:
    """Return the error with the hole that it is about: a rule may have many."""
    return EvaluationError(f"`{{{hole.source}}}`: {error}")


@dataclass(frozen=True, slots=True)
class JsonTemplate:
    """A JSON value whose texts are templates. `tree` holds `Template`s where the value had texts."""

    tree: Any

    @property
    def constant(self) -> str | None:
        """The JSON text, if there are no holes."""
        if any(template.constant is None for template in self.templates()):
            return None
        return self.text(lambda _: {})

    def templates(self) -> Iterator[Template]:
        """Yield the templates inside."""
        return _templates(self.tree)

    def text(self, activate: Activate) -> str:
        """Return the JSON text with its holes filled.

        Raises:
            EvaluationError: Operator error: a hole has no value.
        """
        return msgspec.json.encode(_filled(self.tree, activate)).decode()


def _templates(tree: Any) -> Iterator[Template]:
    if isinstance(tree, Template):
        yield tree
    elif isinstance(tree, dict | list):
        for item in tree.values() if isinstance(tree, dict) else tree:
            yield from _templates(item)


def _filled(tree: Any, activate: Activate) -> Any:
    if isinstance(tree, Template):
        return tree.value(activate)
    if isinstance(tree, dict):
        return {key: _filled(item, activate) for key, item in tree.items()}
    if isinstance(tree, list):
        return [_filled(item, activate) for item in tree]
    return tree


def _split(text: str) -> Iterator[tuple[int, str, bool]]:
    """Yield offset and text of each part, and whether it is a hole."""
    at, literal = 0, ""
    while at < len(text):
        sign = text[at]
        if sign in "{}" and text[at + 1 : at + 2] == sign:
            literal, at = literal + sign, at + 2
        elif sign == "}":
            raise TemplateError([(at, Mistake(1, 1, "a `}` that closes nothing", "write `}}` for a brace"))])
        elif sign == "{":
            if literal:
                yield at - len(literal), literal, False
            end = _end_of_hole(text, at + 1)
            yield at + 1, text[at + 1 : end], True
            at, literal = end + 1, ""
        else:
            literal, at = literal + sign, at + 1
    if literal:
        yield 0, literal, False


def _end_of_hole(text: str, start: int) -> int:
    """Return where the brace stands that closes the hole; braces inside of it come in pairs or stand in quotes."""
    depth, quote, at = 1, "", start
    while at < len(text):
        sign = text[at]
        if quote:
            at += sign == "\\"
            quote = "" if sign == quote else quote
        elif sign in _QUOTES:
            quote = sign
        else:
            depth += (sign == "{") - (sign == "}")
            if not depth:
                return at
        at += 1
    raise TemplateError([(start - 1, Mistake(1, 1, "a `{` that nothing closes", "write `{{` for a brace"))])
