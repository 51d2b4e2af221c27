"""First-party audio backends."""
