"""Finished runs as one page: results, curves, who the agents became, and a replay."""
