"""What keeps the bytes of artifacts: a local directory, or S3."""
