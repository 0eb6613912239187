"""Files that a run has logged and that are to be sent: each process keeps them in a box of its own until they are."""
