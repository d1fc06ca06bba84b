"""One file per kind of task, none per paper: a model wraps a backbone with an input and an output."""
