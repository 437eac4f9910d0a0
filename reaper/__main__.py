"""`python -m reaper`: the command line, for whoever starts our own processes."""

from reaper.cli.main import main

main()
