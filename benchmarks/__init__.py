"""One script per claim that we make in public; each prints the table that the documentation quotes."""
