"""
Benchmarks: `python -m bench NAME`, each on a broker and a database of its own, each checked against a known truth.

A run whose result is wrong prints no figure. Figures are medians, and ratios to a baseline of the same run: on a shared
machine digits move, ratios stay.
"""
