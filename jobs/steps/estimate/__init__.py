"""--dry-run: what a job would work on, what it needs and how long it takes. No engine, no training, no row in the lake."""
