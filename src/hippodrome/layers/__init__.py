"""Layers: small modules that act on each token alone, and the short convolution that mixers share."""
