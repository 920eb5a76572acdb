"""Authentication: find the credentials of a connection, verify its token, and check the API keys of back ends."""
