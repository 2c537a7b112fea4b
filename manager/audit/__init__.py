"""Audit: who did what, in a record that only grows and shows when somebody changed it.

`chain` is how its lines hold together (pure), `ledger` the only one that writes them, with the change that they tell
of in one transaction; `denials` are refusals, bounded so that a flood of them hurts nobody. What a caller is called,
and what of a call is told, is `manager/api/recorder.py`'s business.
"""
