"""Learning: pure objectives, the one loop, and what stage 1 brings to it."""
