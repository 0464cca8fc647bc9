"""From traces to probabilities that hold: features of a video, the light calibrator, the figures that judge it."""
