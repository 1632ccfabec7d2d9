"""Commands about the command itself: where its settings come from, its completion in shells."""
