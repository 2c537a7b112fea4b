"""Hosts inside this machine."""
