"""`python -m edgekeeper`, and the command `edgekeeper`."""

import sys

from edgekeeper import early


def main() -> None:
    """Run the command."""
    if "serve" in sys.argv[1:]:
        early.prepare()
    # takes a while, which neither signals nor whoever manages services wait for
    from edgekeeper.cli import main as command

    command(prog_name="edgekeeper")


if __name__ == "__main__":
    main()
