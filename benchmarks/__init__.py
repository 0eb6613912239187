"""Programs that measure Penstock beside what limits it. `make bench` runs them all."""
