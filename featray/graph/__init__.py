"""All of Ray: the graph, its feed, workers and internals; and the stages, which do not depend on Ray."""
