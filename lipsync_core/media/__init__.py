"""Reading and writing video and sound (PyAV), and the timeline that joins them."""
