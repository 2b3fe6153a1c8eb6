"""What talks to the network: events in, bindings and conditions out, HTTPS, extenders. The engine knows none of it."""
