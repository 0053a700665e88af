"""Request log, request ids and metrics."""
