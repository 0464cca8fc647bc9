"""Learning: pure objectives and rewards, the one loop, and what stages 1 and 2 bring to it."""
