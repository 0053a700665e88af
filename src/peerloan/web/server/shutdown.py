"""How long a stopping server waits; it is the same for every server."""

# Longest time for a stopping worker to complete its requests.
GRACE_SECONDS = 40
