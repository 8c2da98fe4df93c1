"""Episodes of robots as interactive pages, every agent's limbs in its colour."""
