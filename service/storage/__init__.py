"""Where uploads and results lie: a store behind a protocol, and the signed URLs that clients put to and get from."""
