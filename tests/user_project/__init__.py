"""Somebody else's project: it knows Lightning and torch, and nothing of this package."""
