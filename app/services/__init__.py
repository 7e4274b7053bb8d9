"""What the program does, without Flask: usable from a view, a job, the command line or a test."""
