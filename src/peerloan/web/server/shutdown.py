"""Limits that all servers share."""

# Longest time for a stopping worker to complete its requests.
GRACE_SECONDS = 40
