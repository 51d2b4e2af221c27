"""`python -m lipsync_core` is the command `lipsync`."""

from lipsync_core.cli import main

main()
