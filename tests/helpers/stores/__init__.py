"""Object stores for tests: one that fails on purpose, and a real one."""
