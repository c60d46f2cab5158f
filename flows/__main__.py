"""`python -m flows`: the `millrace` command."""

from flows.cli import main

main()
