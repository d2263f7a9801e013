"""`python -m edgekeeper`, and the command `edgekeeper`."""

import sys

from edgekeeper import early


def main() -> None:
    """Run the command."""
    if "serve" in sys.argv[1:]:
        early.prepare()
    from edgekeeper.cli import (
        main as command,
    )  # takes a while, which the manager of services and signals do not wait for

    command(prog_name="edgekeeper")


if __name__ == "__main__":
    main()
