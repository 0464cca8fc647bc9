"""What a model costs by arithmetic: memory and time, before a device is asked for."""
