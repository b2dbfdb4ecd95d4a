"""What is done to an output that is there: verify, recompute, erase, compact, finish, recover."""
