"""Asking and understanding: prompts, their positions, the grammar of a trace, codes, and how probable its labels were."""
