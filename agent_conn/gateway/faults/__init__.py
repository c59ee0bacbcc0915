"""How the gateway misbehaves, and what may be asked of it."""
