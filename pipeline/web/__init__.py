"""HTTP: what others send to, and pages to look at."""
