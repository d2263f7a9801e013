"""What every subcommand shares: options, output, and the way from an error to an exit status.

0 good; 1 what was checked, tested or explained is bad, failed or denied; 2 bad usage, unreadable file, cannot start.
Root.
"""

import contextlib
import errno
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NoReturn

import click

from edgekeeper.errors import ConfigError, EdgekeeperError, Problem
from edgekeeper.json_text import json_text
from edgekeeper.service import Service
from edgekeeper.settings import load
from edgekeeper.sources import DiskSources

__all__ = [
    "HELP",
    "annotation",
    "check_format_option",
    "config_option",
    "counted",
    "echo_json",
    "exits",
    "format_option",
    "loaded",
    "plain",
    "report_problems",
]

HELP: Final = {"help_option_names": ["-h", "--help"]}
"""The `context_settings` of every group and of every command that stands alone."""

config_option = click.option(
    "--config",
    metavar="FILE",
    help="edgekeeper.yaml. Default: ./edgekeeper.yaml, else /etc/edgekeeper/edgekeeper.yaml.",
)
"""The option that names edgekeeper.yaml; the argument is `config`."""

format_option = click.option(
    "--format",
    "format_",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Of the output.",
)
"""The option for text or JSON; the argument is `format_`."""

check_format_option = click.option(
    "--format",
    "format_",
    type=click.Choice(["text", "json", "github"]),
    default="text",
    show_default=True,
    help="Of the output; github: workflow commands, which GitHub shows at their lines.",
)
"""The option of commands that check files: text, JSON or GitHub's annotations; the argument is `format_`."""


def echo_json(value: Any) -> None:
    """Print `value` as one JSON document."""
    click.echo(json_text(value))


def report_problems(problems: Iterable[Problem], format_: str = "text", **more: Any) -> None:
    """Print problems: to people on stderr, a line each; to programs on stdout as `{"problems": [...]}`.

    `more` stands beside the list in the JSON. As `github` they are annotations on stdout.
    """
    if format_ == "json":
        echo_json({"problems": [plain(problem) for problem in problems], **more})
        return
    for problem in problems:
        if format_ == "github":
            click.echo(annotation(problem))
        else:
            click.echo(str(problem), err=True)


def plain(problem: Problem) -> dict[str, Any]:
    """Return the problem as programs get it."""
    return {field: getattr(problem, field) for field in ("file", "line", "column", "message", "hint")}


def counted(number: int, one: str, many: str = "") -> str:
    """Return the number with its noun; `many` is the plural where that is not `one` and an s."""
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def annotation(problem: Problem, level: str = "error", title: str = "") -> str:
    """Return the workflow command that shows the problem at its line on GitHub; `level` is `error` or `warning`.

    Escapes as the runner reads them (actions/toolkit, packages/core/src/command.ts): no text of a file can end the
    command, or begin another. Paths are those below the working directory, where it is the repository's. A problem
    without a file is shown with the job.
    """
    file = Path(problem.file)
    here = file.is_relative_to(Path.cwd())
    where = {"file": str(file.relative_to(Path.cwd())) if here else problem.file} if problem.file else {}
    if problem.line:
        where |= {"line": str(problem.line), "col": str(problem.column)}
    if title:
        where["title"] = title
    properties = ",".join(f"{name}={_escaped(text, ':,')}" for name, text in where.items())
    text = problem.message + (f"; {problem.hint}" if problem.hint else "")
    return f"::{level}{' ' if properties else ''}{properties}::{_escaped(text)}"


def _escaped(text: str, more: str = "") -> str:
    return "".join(f"%{ord(sign):02X}" if sign in "%\r\n" + more else sign for sign in text)


_NOTHING: Final[Mapping[str, Any]] = {}
_NO_TASKS: Final = "no more processes or threads may be made: raise `ulimit -u`, or TasksMax of the unit"


@contextlib.contextmanager
def exits(
    *, config_error: int = 1, format_: str = "text", beside: Mapping[str, Any] = _NOTHING
) -> Iterator[None]:
    """Turn every error of the block into a message and an exit status; a traceback never reaches a user.

    A `ConfigError` exits with `config_error`, whatever else is ours with 2. `beside` stands beside its problems in JSON:
    what programs look for in what the command prints when all is good.
    """
    try:
        yield
    except ConfigError as error:
        report_problems(error.problems, format_, **beside)
        sys.exit(config_error)
    except (click.ClickException, click.Abort, click.exceptions.Exit, BrokenPipeError):
        raise  # click says these itself
    except (EdgekeeperError, OSError) as error:
        _give_up(_NO_TASKS if _lacks_tasks(error) else str(error))
    except Exception as error:  # noqa: BLE001 - the last fence before the user
        if _lacks_tasks(error):
            _give_up(_NO_TASKS)
        frame = traceback.extract_tb(error.__traceback__)[-1]
        _give_up(f"bug: {type(error).__name__} at {frame.filename}:{frame.lineno}; please report it")


def _lacks_tasks(error: Exception) -> bool:
    """Whether a process (EAGAIN, fork(2)) or a thread (so `threading` says) could not be made."""
    return getattr(error, "errno", None) == errno.EAGAIN or str(error) == "can't start new thread"


def _give_up(message: str) -> NoReturn:
    click.echo(f"edgekeeper: {message}", err=True)
    sys.exit(2)


def loaded(service: Service, config: str | None, format_: str = "text") -> tuple[Any, Any]:
    """Return the service's section and its generation, built and tested; else print why and exit 1 or 2."""
    with exits(format_=format_):
        section = load(config).section(service.name)
        return section, service.generation(section, DiskSources())
    raise AssertionError  # the block returns or exits
