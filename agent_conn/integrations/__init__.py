"""Outside packages, each in a module of its own that imports it."""
