"""From a video to chunks of chips, in a child process that may die."""
