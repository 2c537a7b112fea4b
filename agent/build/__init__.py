"""Builds: from a Dockerfile and its context to an image.

`builder` is the door: what the API calls. Behind it, in the order in which a build flows: `parser` (text →
instructions) → `graph` (which stages the target needs, and in which order) → `solver` (stages side by side, each step
from the `cache` or done anew) → `step` (one instruction's work: `run`, `transfer`) → an image. `context` keeps the
files that clients send, `tree` chooses among them, `cachekey` says when two steps are the same, `report` what the user
sees. Decisions are pure: `parser`, `flags`, `graph`, `tree`, `cachekey`, `state`.
"""
