"""Who may call: tokens, scopes, sessions and the rule for calls from this machine."""
