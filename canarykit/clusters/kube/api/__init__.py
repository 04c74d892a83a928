"""The way to an API server: connection, client, writes, watches, leases."""
