"""What one dial does, from its pre-dial to its close."""
