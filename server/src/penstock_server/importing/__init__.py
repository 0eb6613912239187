"""What other servers have is brought in: penstock-server import."""
