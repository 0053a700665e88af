"""What every server here keeps to."""

# How long a worker that is to stop may take for the requests that it has begun.
GRACE_SECONDS = 40
