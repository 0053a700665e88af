"""Monitoring of model versions: drift of the loans they score, and their performance."""
