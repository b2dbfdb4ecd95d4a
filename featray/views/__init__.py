"""Pictures, clips and other formats made from the tables."""
