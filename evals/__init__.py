"""Attacks and their benign twins, replayed through guards side by side; see README.md here."""
