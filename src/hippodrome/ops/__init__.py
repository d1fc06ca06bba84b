"""Pure functions on tensors: the recurrences and convolutions every mixer is made of, a folder each."""
