"""The room of `shoal machine`: from a list of SSH addresses to a running cluster.

It stands beside `manager` and `agent`, knows neither, and provisions hosts over SSH: `inventory` (what is wanted) →
`provision` (facts, judgement, plan: pure) → `run` (the steps, done) over `fleet` (many hosts side by side) and
`transport` (SSH), with `artefact` (what is installed), `record` and `journal` (what was done).
"""
