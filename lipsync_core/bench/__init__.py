"""Backends and profiles measured head to head: `lipsync bench`."""
