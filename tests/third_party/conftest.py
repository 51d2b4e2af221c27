"""The distribution in here brings tests of its own, which are run where it is installed."""

collect_ignore = ["lipsync-lipstick"]
