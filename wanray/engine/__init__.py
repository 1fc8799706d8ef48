"""How a plan is carried out: in this process (`local`) or on a Ray cluster. The only home of Ray."""
