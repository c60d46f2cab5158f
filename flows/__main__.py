"""`python -m flows`: the `millrace` command."""

from flows.commands.cli import main

main()
