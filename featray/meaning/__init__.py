"""Whether a checkpoint's columns mean what they say: heads of the network against each other and against geometry."""
