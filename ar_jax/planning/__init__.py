"""What a program needs and how fast it can be, told before it runs."""
