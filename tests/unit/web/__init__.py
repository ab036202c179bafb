"""Tests of the collector that need neither broker nor database."""
