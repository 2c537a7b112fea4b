"""The room of `shoal machine`: from a list of SSH addresses to a running cluster.

It stands beside `manager` and `agent`, knows neither, and provisions hosts over SSH; see docs/architecture.md.
"""
