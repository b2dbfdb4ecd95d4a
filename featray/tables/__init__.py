"""Write the tables, exactly once, and read them."""
