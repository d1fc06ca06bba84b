"""Where the numbers of a state space model come from before training, computed in float64."""
