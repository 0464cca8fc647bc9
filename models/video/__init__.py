"""Watching: which frames of a file the model sees, decoded in child processes with their limits, and kept on disk."""
