"""Side-by-side measurements, re-runnable. README.md defines the floor of each."""
