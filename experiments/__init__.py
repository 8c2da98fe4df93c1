"""One short script per measurement, figure or table, over the library's public functions."""
