"""How a plan is carried out: in this process (`local`) or on a Ray cluster. Ray lives here and nowhere else."""
