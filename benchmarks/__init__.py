"""Measurements behind wanray's claims about speed; `make bench` runs them all."""
