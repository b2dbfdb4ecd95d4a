"""Turn a video into chunks of chips, in a child process that may die."""
