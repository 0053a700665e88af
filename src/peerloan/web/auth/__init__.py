"""Authentication and authorization: tokens, scopes, sessions, and calls from this machine."""
