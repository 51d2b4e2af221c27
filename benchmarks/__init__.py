"""Commands that measure the whole pipeline on real clips. Not in the wheel."""
