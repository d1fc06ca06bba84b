"""Models in fewer bytes: weights rounded to int8, and what that cost."""
