"""What a writer has logged and not yet delivered, on disk: one directory per writer."""
