"""First-party face backends."""
