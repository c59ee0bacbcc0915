"""What the package costs and saves, beside its neighbours: ``python -m benchmarks``."""
