"""Monitoring of model versions: drift of their loans, and performance."""
