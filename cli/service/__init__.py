"""Commands on services: `flags`, `spec` and `change` make what is wanted, `progress` follows what becomes of it."""
