"""Backbones: how mixers are stacked, and what makes one mixer of two or of one an axis."""

MIXERS = ("bidirectional", "s4nd")
"""The files of this folder whose class is a mixer itself, and so stands wherever a mixer may."""
