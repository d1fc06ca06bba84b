"""Published systems, one data file each: what they are made of, their source, and the numbers it claims.

A file holds one ``hippodrome.config.Recipe`` and neither class nor function. A claim stands here only if it
was computed anew or read where its source says; "[V]" marks those read, but not computed again here. Numbers
known from memory alone are left out.
"""
