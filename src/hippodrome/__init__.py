"""Hippodrome: state space sequence models, from HiPPO to Mamba-2 and hybrids, behind one contract."""

__version__ = "0.1.0"
