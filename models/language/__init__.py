"""Asking and understanding: the prompt, the grammar of a trace, and where its answer stands."""
