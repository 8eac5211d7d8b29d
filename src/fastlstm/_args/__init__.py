"""Checked arguments: what every other room may use, and which uses none."""
