"""How the demo's models were made: synthetic clips, and Wan's own networks trained on them."""
