"""Watching a model: how its loans drift, and how good it still is."""
