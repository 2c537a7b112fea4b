"""The drivers of machines, one module each."""
