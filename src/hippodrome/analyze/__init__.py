"""What a model costs and what it remembers: counted, timed, and read off its gradients and responses."""
