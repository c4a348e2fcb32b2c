"""Every framework on every server: what a job may rely on, one real process per pair."""
