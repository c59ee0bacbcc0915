"""The web page that shows connections and injects faults."""
