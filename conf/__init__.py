"""What a site changes, and the one module that reads it (`settings`)."""
