"""Connections that are kept open and lent."""
