"""Everything of Ray: the graph, what feeds it, its workers and its internals; and the stages, which know none of it."""
