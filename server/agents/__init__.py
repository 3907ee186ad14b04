"""Agents: the interface, server tools, the shipped definitions, the registry and the agent that needs no model."""
