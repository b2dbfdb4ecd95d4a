"""Open containers, cut videos into units and decode them."""
