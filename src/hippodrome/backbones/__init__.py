"""Backbones: how mixers are stacked."""
