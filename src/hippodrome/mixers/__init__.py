"""The heart: one small file a mixer, members of five engines or their own; found by file name."""
