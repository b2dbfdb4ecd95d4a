"""Finding faces, cutting chips, following faces over time."""
