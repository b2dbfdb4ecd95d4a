"""Object storage and local disk: opening, listing, exclusive writes, typed errors."""
