"""Who may ask: keys and their scopes."""
