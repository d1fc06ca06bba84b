"""The command line: `hippodrome VERB`. Every file here without a leading underscore is a verb.

A verb's file holds a function ``command``, whose signature is its options and whose docstring is its help,
and ``PANEL``, the heading it stands under. It imports nothing heavy at the top: ``--help`` answers at once.
"""

from hippodrome.cli._app import app, main

__all__ = ["app", "main"]
