"""What every job runs in: the command line, the session, the run with its budget and its record, progress."""
