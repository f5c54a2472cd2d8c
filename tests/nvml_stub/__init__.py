"""A stand-in for the NVIDIA driver library: its C source, its compiler run and the state that tests change live."""
