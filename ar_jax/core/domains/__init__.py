"""What one field of science or art says of its examples: skeletons, spectra and
peptides, conversations."""
