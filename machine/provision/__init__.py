"""Turning a host into a node, decided: facts → judgement → plan → steps as data. Pure; `machine/run.py` does the
steps."""
