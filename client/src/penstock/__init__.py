"""Penstock: experiment tracking that never makes training wait."""
