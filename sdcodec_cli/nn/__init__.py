"""The networks and only the networks."""
