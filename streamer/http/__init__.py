"""What every HTTP route shares: who the client is, what it may do, and which names and pages it may use."""
