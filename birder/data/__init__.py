"""Pictures and labels: where they lie, how they are read, changed and ordered."""
