"""What `agent-conn probe` measures, makes of it and shows."""
