"""The science: frames, prompts, engines, rewards, calibration. Nothing in this room knows Spark or the lake's tables."""
