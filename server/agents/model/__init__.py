"""Agents that run on a model: any endpoint that speaks OpenAI's chat completions."""
