"""Pictures, clips and other formats of what the tables hold."""
