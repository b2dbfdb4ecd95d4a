"""Find faces, cut chips and track faces over time."""
