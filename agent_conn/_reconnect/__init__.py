"""One connection after another, as long as the caller wants."""
