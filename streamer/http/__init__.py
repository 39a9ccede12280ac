"""What every HTTP route shares: who the client is, what it may do, which names it may use, how many bytes."""
