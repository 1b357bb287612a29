"""The yardstick: what ``scripts/bench`` measures, and how."""
