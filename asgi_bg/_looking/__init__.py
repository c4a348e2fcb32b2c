"""What is shown of jobs to people, from a journal alone."""
