"""Claims, measured: anyone can run these and print the ratios."""
