"""Writing decisions: group commit, sealed chains, idempotency and the database drivers."""
