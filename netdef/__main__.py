"""``python -m netdef``: the command line, where ``netdef`` itself is not on the PATH."""

from netdef_cli.main import main

main(prog_name="python -m netdef")
