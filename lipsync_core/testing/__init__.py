"""Conformance checks for backends."""
