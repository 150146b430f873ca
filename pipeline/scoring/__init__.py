"""Scores fitted on healthy brains: normative maps, regions of departure, calibration."""
