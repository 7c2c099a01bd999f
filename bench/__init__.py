"""Side-by-side measurements, re-runnable. README.md defines each floor."""
