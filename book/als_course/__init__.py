"""The small library that the chapters of the ALS course import."""
