"""Commands that run something: a whole store, a node, one process of a node, a broker; and the one that ends it."""
