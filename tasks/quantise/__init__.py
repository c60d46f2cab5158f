"""Models made small: ternary and integer weights, and files for engines without torch."""
