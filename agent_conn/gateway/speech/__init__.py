"""The speech engines, real and scripted."""
