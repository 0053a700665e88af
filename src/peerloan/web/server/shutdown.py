"""How long a stopping server waits; all servers share it."""

# Longest time for a stopping worker to complete its requests.
GRACE_SECONDS = 40
