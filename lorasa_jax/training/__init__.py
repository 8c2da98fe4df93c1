"""Training runs: phases and the loop over them, what they leave on disk, and batches of them."""
