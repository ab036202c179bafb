"""What several acceptance tests are built from."""
