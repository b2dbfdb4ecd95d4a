"""Operations on an existing output: verify, recompute, erase, compact, finish, recover."""
