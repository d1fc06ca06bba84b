"""Published systems, one data file each: what they are made of, their source, and numbers that were verified.

A file holds one ``hippodrome.config.Recipe`` and neither class nor function. A claim stands here only if it
was read in the authors' code or computed anew; result tables known at second hand are left out.
"""
