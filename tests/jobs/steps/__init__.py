"""A package, for its test_rollouts.py is not the one of the engines."""
