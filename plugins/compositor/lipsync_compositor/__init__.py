"""First-party compositor backends."""
