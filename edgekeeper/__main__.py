"""`python -m edgekeeper`: the command `edgekeeper`."""

from edgekeeper.cli import main

if __name__ == "__main__":
    main(prog_name="edgekeeper")
