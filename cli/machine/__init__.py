"""`shoal machine`: hosts over SSH, from here. One file per group of verbs; `machine/` does the work."""
