"""What was locked, for others: mirrors, bundles, and the formats of other tools."""
