"""Networks, action distributions, and the sharing of parameters between agents."""
