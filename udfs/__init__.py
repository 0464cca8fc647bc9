"""Models put inside Spark workers: functions over Arrow batches. Importing this room starts nothing."""
