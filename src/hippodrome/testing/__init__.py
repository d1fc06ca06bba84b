"""Contract tests that ship with the package: what every op, mixer and model is held to."""
