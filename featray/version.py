"""Ground. The version of the package, for the wheel, the tables' provenance and `featray --version`."""

__version__ = "0.1.0"
