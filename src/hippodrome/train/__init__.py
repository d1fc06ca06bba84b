"""Training: a budget, settings, a loop that a kill cannot hurt, and exact evaluation."""
