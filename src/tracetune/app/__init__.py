"""The verbs every door shares."""
