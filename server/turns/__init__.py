"""Turns: from a user's message to the agent's finished answer, across crashes (see README.md)."""
