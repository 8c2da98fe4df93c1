"""Rollout, returns, losses and the algorithms' updates; knows no concrete environment."""
