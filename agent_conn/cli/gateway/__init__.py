"""`agent-conn gateway`: the local gateway as a command."""
