"""The use cases: what a caller may ask for. Each authorised, checked, decided here, and remembered by postgres/."""
